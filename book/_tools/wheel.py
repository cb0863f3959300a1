"""Build the package as it will be published, and try it where nothing else of the course is.

    python book/_tools/wheel.py build    # wheel and source archive, into _build/dist
    python book/_tools/wheel.py try      # in a new environment, from requirements.lock
    python book/_tools/wheel.py try --python ENV/bin/python    # in one that holds the wheel

Built is what Git tracks, in a folder of its own, so that no file of a former build slips in; and
the wheel is built from the source archive, so that this is known to be whole. Tried are the import
without any framework, the command, and a chapter, whose outputs must be those of the book.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools.links import tracked_files
from _tools.repository import ROOT

DIST = ROOT / "_build" / "dist"
SHIPPED = ("course_lib/", "pyproject.toml", "README.md", "LICENSE")
CHAPTER = ROOT / "book" / "chain_rule.ipynb"
HOOK = "import sys, setuptools.build_meta as backend; backend.build_{kind}(sys.argv[1])"
IMPORT = """
import sys, course_lib, importlib.resources
assert not {"torch", "tensorflow", "keras"} & set(sys.modules)
print(course_lib.__version__)
"""


def run(command: list, **options) -> str:
    """Run a command and return what it prints.

    Raises:
        ValueError: if it fails, with all that it said.
    """
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    if done.returncode:
        said = (done.stdout + done.stderr).strip()
        raise ValueError(f"`{' '.join(map(str, command[:4]))} …` failed:\n{said}")
    return done.stdout


def build(out: Path, root: Path = ROOT) -> Path:
    """Build the source archive and, from it, the wheel into `out`; return the wheel's path."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        tree = Path(scratch) / "tree"
        for name in tracked_files(root):
            if name.startswith(SHIPPED) and (root / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(root / name, tree / name)
        run([sys.executable, "-c", HOOK.format(kind="sdist"), out], cwd=tree)
        (source,) = out.glob("*.tar.gz")
        with tarfile.open(source) as archive:
            archive.extractall(Path(scratch) / "source", filter="data")
        (unpacked,) = (Path(scratch) / "source").iterdir()
        run([sys.executable, "-c", HOOK.format(kind="wheel"), out], cwd=unpacked)
    (wheel,) = out.glob("*.whl")
    return wheel


def make_environment(folder: Path, wheel: Path) -> Path:
    """Install the wheel and what a reader of a chapter has into a new environment."""
    shutil.rmtree(folder, ignore_errors=True)
    run([sys.executable, "-m", "venv", folder])
    python = folder / "bin" / "python"
    pip = [python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    lock = ["--constraint", ROOT / "requirements.lock"]
    run([*pip, *lock, f"{wheel}[torch,tensorflow]", "ipykernel"])
    return python


def try_package(python: Path, chapter: Path = CHAPTER) -> list[str]:
    """Use the installed package as its readers do; return what is wrong with it."""
    from _tools.compare_versions import compare_notebook, register_kernel
    from _tools.kernel import kernel_environment

    with tempfile.TemporaryDirectory() as empty:
        run([python, "-c", IMPORT], cwd=empty)
        command = python.parent / "gradient-flow-grade"
        wrong = []
        if "roster" not in run([command, "--help"], cwd=empty):
            wrong.append("`gradient-flow-grade --help` says nothing about a roster")
        # The only data file that a command reads.
        if "FROM " not in run([command, "containerfile"], cwd=empty):
            wrong.append("`gradient-flow-grade containerfile` prints no Containerfile")
        kernels = register_kernel(str(python), Path(empty))
        with kernel_environment(Path(empty) / "kernel", {}):
            result = compare_notebook(chapter, kernels, look=False)
    print(f"==> {result.sentence()} ({result.seconds:.0f} s)")
    if not result.is_same:
        # The first difference is the cause of most others.
        wrong += [result.sentence(), *(found.diff for found in result.differences[:2])]
    return wrong


def main() -> int:
    """Build or try; 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("build").add_argument("--into", type=Path, default=DIST)
    commands.add_parser("try").add_argument("--python", type=Path)
    given = parser.parse_args()
    try:
        if given.command == "build":
            print(f"==> {build(given.into)}")
            return 0
        python = given.python
        if python is None:
            (wheel,) = DIST.glob("*.whl")
            print("==> Installing the wheel into a new environment (minutes)", flush=True)
            python = make_environment(ROOT / "_build" / "wheel-trial", wheel)
        wrong = try_package(python.absolute())
    except ValueError as error:
        print(error, file=sys.stderr)
        return 1
    for what in wrong:
        print(f"==> The package is not well: {what}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
