"""Run the notebooks on other versions, and say which cells show something else there.

    python book/_tools/compare_versions.py --python ENV/bin/python [book/chain_rule.ipynb ...]
    python book/_tools/compare_versions.py --set lowest [book/chain_rule.ipynb ...]

`make versions` calls this. Each notebook lies alone in an empty folder, chapters and exercises as
Colab opens them, and is run by the kernel of that Python. `course_lib` comes from its wheel, laid
beside that environment and not into it. Words are compared exactly, as in the tests; pictures
where the matplotlib is the book's, and then told, but not counted. A report in Markdown and JSON
goes to `_build/versions/NAME`. The exit status is 1 if any word differs, any cell fails to run, or
any installed version is another than before.

The tool itself needs nbclient only, which Colab has: inside Colab's own image, `--python python3`
compares that image.
"""

from __future__ import annotations

import argparse
import difflib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nbformat
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellTimeoutError, DeadKernelError
from nbformat import NotebookNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools import colab
from _tools.kernel import kernel_environment
from _tools.notebook_files import ROOT, display_name, find_notebooks, merge_streams
from _tools.pictures import compare_pictures, pictures_of
from _tools.version_report import (
    SHOWN,
    CellDifference,
    NotebookResult,
    Report,
    locked_versions,
    to_json,
    to_markdown,
)
from _tools.version_sets import SETS, make_environment

OUT = ROOT / "_build" / "versions"
SOURCES = ("course_lib", "pyproject.toml", "README.md", "LICENSE", "LICENSE-text")
CELL_TIMEOUT_SECONDS = 600  # a slower machine than the book's own is no difference

ASK = """\
import importlib.metadata as m, json, platform, sys
versions = {}
for d in m.distributions():
    versions.setdefault(d.name.lower().replace("_", "-"), d.version)
system = f"Python {platform.python_version()} on {platform.system()} {platform.machine()}"
json.dump({"executable": sys.executable, "system": system, "versions": versions}, sys.stdout)
"""


def ask(python: str) -> dict:
    """Return that Python's path, its system in words, and every installed version.

    Raises:
        ValueError: if it is not a Python that runs.
    """
    try:
        # `-I`: what is installed there, not what lies in this folder or on PYTHONPATH.
        command = [python, "-I", "-c", ASK]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(f"`python` (={python!r}) must be a Python that runs: {error}") from error
    return json.loads(done.stdout)


def install_beside(python: str, folder: Path, root: Path = ROOT) -> None:
    """Build the wheel of `course_lib` and lay it into `folder`, outside of any environment."""
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet"]
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"  # a build leaves its traces where the sources lie
        for name in SOURCES:
            copy = shutil.copytree if (root / name).is_dir() else shutil.copy
            tree.mkdir(exist_ok=True)
            copy(root / name, tree / name)
        wheel = [*pip, "wheel", "--no-deps", "--wheel-dir", scratch, str(tree)]
        # The build backend of this environment, where it is new enough; else pip fetches one.
        if subprocess.run([*wheel, "--no-build-isolation"], capture_output=True).returncode:
            subprocess.run(wheel, check=True)
        (built,) = Path(scratch).glob("*.whl")
        into = ["install", "--no-deps", "--upgrade", "--target", str(folder), str(built)]
        subprocess.run([*pip, "--python", python, *into], check=True)


def register_kernel(python: str, folder: Path) -> KernelSpecManager:
    """Return a manager that knows one kernel, `other`: that Python's."""
    place = folder / "kernels" / "other"
    place.mkdir(parents=True, exist_ok=True)
    argv = [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Other", "language": "python"}
    (place / "kernel.json").write_text(json.dumps(spec), encoding="utf-8")
    return KernelSpecManager(kernel_dirs=[str(place.parent)], ensure_native_kernel=False)


def words_of(outputs: list[NotebookNode]) -> list[str]:
    """Everything that the outputs say, line by line, under what says it; no pictures."""
    lines: list[str] = []
    for output in merge_streams(outputs):
        if output.output_type == "stream":
            said = [(output.name, output.text)]
        elif output.output_type == "error":
            said = [("error", f"{output.ename}: {output.evalue}")]
        else:
            said = sorted(
                (kind, value if isinstance(value, str) else json.dumps(value, sort_keys=True))
                for kind, value in output.data.items()
                if not kind.startswith("image/")
            )
        for kind, text in said:
            lines += [f"[{kind}]", *text.split("\n")]
    return lines


def compare_cell(number: int, stored: NotebookNode, fresh: NotebookNode) -> CellDifference | None:
    """Return where the words of a cell differ, or None."""
    old, new = words_of(stored.outputs), words_of(fresh.outputs)
    if old == new:
        return None
    diff = difflib.unified_diff(old, new, "stored", "here", n=1, lineterm="")
    first = stored.source.split("\n")[0]
    return CellDifference(number, stored.get("id", "?"), first, "\n".join(diff))


def compare_drawn(
    name: str, stored: list[NotebookNode], fresh: list[NotebookNode]
) -> Iterator[str]:
    """Yield a sentence for each picture that looks different."""
    for number, (old, new) in enumerate(zip(stored, fresh, strict=True), start=1):
        old_pictures, new_pictures = pictures_of(old.outputs), pictures_of(new.outputs)
        place = f"{name}, cell {number} (id `{old.get('id', '?')}`)"
        if len(old_pictures) != len(new_pictures):
            yield f"{place}: {len(old_pictures)} pictures stored, {len(new_pictures)} drawn."
            continue
        for one, other in zip(old_pictures, new_pictures, strict=True):
            difference = compare_pictures(one, other)
            if difference is not None:
                yield f"{place}: {difference.describe()}."


class Runner(NotebookClient):
    """A notebook client that shows its progress and keeps going after a cell that fails."""

    def run(self, label: str) -> str:
        """Execute all cells in place; return why it ended early, or an empty string."""
        cells = [(i, c) for i, c in enumerate(self.nb.cells) if c.cell_type == "code"]
        for _, cell in cells:
            cell.outputs, cell.execution_count = [], None
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        with self.setup_kernel(cleanup_kc=True, **quiet):  # else all kernels stay until the end
            for count, (index, cell) in enumerate(cells, start=1):
                if sys.stdout.isatty():
                    print(f"\r\x1b[2K{label}: cell {count} of {len(cells)}", end="", flush=True)
                try:
                    self.execute_cell(cell, index, execution_count=count)
                except (CellTimeoutError, DeadKernelError) as error:
                    return f"cell {count} (id {cell.get('id', '?')}): {type(error).__name__}"
        return ""


def code_cells(notebook: NotebookNode) -> list[NotebookNode]:
    """The notebook's own code cells, without the one that installs."""
    return [c for c in notebook.cells if c.cell_type == "code" and c.get("id") != "install"]


def compare_notebook(path: Path, kernels: KernelSpecManager, *, look: bool) -> NotebookResult:
    """Run one notebook alone in an empty folder and compare it with what is stored.

    Pictures are looked at only if `look`: another matplotlib draws each of them otherwise, and to
    find out where takes longer than to run the notebook.
    """
    started = time.perf_counter()
    name = display_name(path)
    stored = nbformat.read(path, as_version=4)
    fresh = nbformat.from_dict(stored)
    if name.split("/")[0] in colab.FOLDERS:
        fresh = colab.make_copy(stored, path=name, repository=None)
    with tempfile.TemporaryDirectory() as disk:
        nbformat.write(fresh, Path(disk) / path.name)
        client = Runner(
            fresh,
            km=AsyncKernelManager(kernel_name="other", kernel_spec_manager=kernels),
            timeout=CELL_TIMEOUT_SECONDS,
            allow_errors=True,
            record_timing=False,
            resources={"metadata": {"path": disk}},
        )
        failure = client.run(name)
    old, new = code_cells(stored), code_cells(fresh)
    pairs = enumerate(zip(old, new, strict=True), start=1)
    found = [compare_cell(number, *pair) for number, pair in pairs]
    return NotebookResult(
        notebook=name,
        cells=len(old),
        seconds=time.perf_counter() - started,
        differences=tuple(difference for difference in found if difference),
        pictures=tuple(compare_drawn(name, old, new)) if look else (),
        pictures_drawn=sum(len(pictures_of(cell.outputs)) for cell in new),
        failure=failure,
    )


def compare_all(
    python: str, paths: list[Path], *, key: str, title: str, out: Path, gpu: bool = False
) -> Report:
    """Run the notebooks on that Python, print a line for each, and return the report."""
    before = ask(python)
    beside = out / "site"
    shutil.rmtree(beside, ignore_errors=True)
    install_beside(before["executable"], beside)
    kernels = register_kernel(before["executable"], out)
    results = []
    look = before["versions"].get("matplotlib") == locked_versions()["matplotlib"]
    variables = {"PYTHONPATH": str(beside)} | ({"CUDA_VISIBLE_DEVICES": "0"} if gpu else {})
    with kernel_environment(out / "kernel", variables):
        # Else the first figure's cell would say that fonts are being listed.
        fonts = [before["executable"], "-c", "import matplotlib.font_manager"]
        subprocess.run(fonts, check=True, capture_output=True)
        for number, path in enumerate(paths, start=1):
            result = compare_notebook(path, kernels, look=look)
            results.append(result)
            start = "\r\x1b[2K" if sys.stdout.isatty() else ""
            print(f"{start}[{number}/{len(paths)}] {result.sentence()} ({result.seconds:.0f} s)",
                  flush=True)  # fmt: skip
            # After each: whoever stops a long run, or loses it, has what was found so far.
            report = make_report(before, ask(python), tuple(results), key=key, title=title)
            report = replace(report, asked=len(paths), looked=look)
            write_report(report, out)
    return report


def make_report(
    before: dict, after: dict, results: tuple[NotebookResult, ...], *, key: str, title: str
) -> Report:
    """Return the report, from what `ask` said before and after the notebooks were run."""
    was, now = before["versions"], after["versions"]
    changed = [f"{name} {was.get(name)} -> {now.get(name)}"
               for name in sorted(was | now) if was.get(name) != now.get(name)]  # fmt: skip
    versions = {name: was[name] for name in SHOWN if name in was}
    return Report(key, title, before["system"], versions, results, tuple(changed))


def write_report(report: Report, out: Path) -> None:
    """Write the report as data and as text."""
    (out / "report.json").write_text(to_json(report), encoding="utf-8")
    text = to_markdown(report, locked_versions())
    (out / "report.md").write_text(text, encoding="utf-8")


def main(arguments: list[str]) -> int:
    """Compare, write the report, and say where it is; 0 if nothing differs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--python", help="the Python of an environment that is there")
    which.add_argument("--set", choices=SETS, help="make the environment first")
    parser.add_argument("--name", help="what the set is called (default: `other`, or the set)")
    parser.add_argument("--gpu", action="store_true", help="let the notebooks see the first GPU")
    parser.add_argument("notebooks", nargs="*", type=Path, help="default: all")
    given = parser.parse_args(arguments)
    key = given.name or given.set or "other"
    missing = [str(path) for path in given.notebooks if not path.is_file()]
    if missing:
        print(f"No such notebook: {', '.join(missing)}", file=sys.stderr)
        return 2
    out = OUT / key
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.json").unlink(missing_ok=True)
    try:
        python = given.python or str(make_environment(given.set, out / "env"))
        title = SETS[key].title if key in SETS else key
        paths = [path.resolve() for path in given.notebooks] or find_notebooks()
        report = compare_all(python, paths, key=key, title=title, out=out, gpu=given.gpu)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    print(f"{report.summary()}\nSee {display_name(out / 'report.md')}")
    return 0 if report.is_same else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
