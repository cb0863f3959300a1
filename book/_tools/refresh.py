"""Run notebooks from top to bottom and store their outputs: all of them, or those named.

    python book/_tools/refresh.py [book/chain_rule.ipynb ...]

`make refresh NB=...` calls this. A notebook is replaced only after its last cell has run; if a
cell raises, the cell and the error are printed, the stored notebook stays as it was, the other
notebooks are still run, and the exit status is 1. Two runs on one machine store the same bytes.
"""

from __future__ import annotations

import re
import sys
import time
from pathlib import Path

import nbformat
import psutil
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError, CellTimeoutError, DeadKernelError
from nbformat import NotebookNode
from nbval.kernel import CURRENT_ENV_KERNEL_NAME, NbvalKernelspecManager

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools.kernel import KERNEL_FOLDER, build_font_cache, kernel_environment
from _tools.notebook_files import (
    display_name,
    find_notebooks,
    normalize,
    serialize,
    write_atomically,
)

CPU_SECONDS_ALLOWED = 30.0
CELL_TIMEOUT_SECONDS = 120
TERMINAL_COLOR = re.compile(r"\x1b\[[0-9;]*m")


class CellFailedError(Exception):
    """A cell raised, ran too long, or took the kernel with it."""


class Refresher(NotebookClient):
    """A notebook client that shows its progress and measures the kernel's CPU time."""

    def run(self, label: str) -> float:
        """Execute all cells in place and return the CPU seconds that the kernel used."""
        code_cells = [(i, c) for i, c in enumerate(self.nb.cells) if c.cell_type == "code"]
        log = (KERNEL_FOLDER / "kernel.log").open("w")
        # `cleanup_kc`, because the kernel of a manager that is handed in would stay until the end.
        with log, self.setup_kernel(stdout=log, stderr=log, cleanup_kc=True):
            for count, (index, cell) in enumerate(code_cells, start=1):
                show_progress(f"{label}: cell {count} of {len(code_cells)}")
                try:
                    self.execute_cell(cell, index, execution_count=count)
                except (CellExecutionError, CellTimeoutError, DeadKernelError) as error:
                    raise CellFailedError(f"code cell {count} (id {cell.id}): {error}") from error
                cell.execution_count = count
            return self.cpu_seconds()

    def cpu_seconds(self) -> float:
        """User and system time of the kernel and its children, in all threads."""
        kernel = psutil.Process(self.km.provisioner.pid)
        processes = [kernel, *kernel.children(recursive=True)]
        return sum(p.cpu_times().user + p.cpu_times().system for p in processes)


def show_progress(text: str) -> None:
    """Rewrite one line on a terminal; elsewhere say nothing until the notebook is done."""
    if sys.stdout.isatty():
        print(f"\r\x1b[2K{text}", end="", flush=True)


def execute(path: Path) -> tuple[NotebookNode, float]:
    """Run the notebook afresh; return it with its new outputs, and the CPU seconds it took."""
    notebook = normalize(nbformat.read(path, as_version=4))
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    # The Python that runs this, never a kernel of the same name that the user once registered.
    manager = AsyncKernelManager(
        kernel_name=CURRENT_ENV_KERNEL_NAME, kernel_spec_manager=NbvalKernelspecManager()
    )
    client = Refresher(
        notebook,
        km=manager,
        timeout=CELL_TIMEOUT_SECONDS,
        record_timing=False,
        resources={"metadata": {"path": str(path.parent)}},
    )
    seconds = client.run(display_name(path))
    return normalize(notebook), seconds


def refresh(path: Path) -> str:
    """Execute one notebook, store it, and return one line on what happened.

    Raises CellFailedError, naming the cell, with the file untouched.
    """
    started = time.perf_counter()
    before = {
        cell.id: cell.outputs
        for cell in normalize(nbformat.read(path, as_version=4)).cells
        if cell.cell_type == "code"
    }
    notebook, cpu = execute(path)
    written = write_atomically(path, serialize(notebook))
    changed = [
        cell.id
        for cell in notebook.cells
        if cell.cell_type == "code" and cell.outputs != before[cell.id]
    ]
    if changed:
        shown = ", ".join(changed[:5]) + (" ..." if len(changed) > 5 else "")
        what = f"outputs of {len(changed)} cells changed: {shown}"
    else:
        what = "stored, same outputs" if written else "unchanged"
    over = f" (OVER the {CPU_SECONDS_ALLOWED:.0f} s allowed)" if cpu > CPU_SECONDS_ALLOWED else ""
    wall = time.perf_counter() - started
    size = path.stat().st_size / 1000
    return f"{display_name(path)}: {cpu:.1f} s CPU{over}, {wall:.1f} s, {size:.0f} KB, {what}"


def describe_failure(path: Path, error: CellFailedError) -> str:
    """Notebook, cell and error, and the promise that nothing was overwritten."""
    message = TERMINAL_COLOR.sub("", str(error)).strip()
    return f"{display_name(path)}: FAILED in {message}\nThe stored notebook is as it was.\n"


def main(arguments: list[str]) -> int:
    """Refresh the named notebooks, or all; 0 if each of them ran to its end."""
    paths = [Path(a).resolve() for a in arguments] or find_notebooks()
    missing = [str(p) for p in paths if not p.is_file()]
    if missing:
        print(f"No such notebook: {', '.join(missing)}", file=sys.stderr)
        return 2
    failed = 0
    with kernel_environment():
        build_font_cache()
        for number, path in enumerate(paths, start=1):
            show_progress(f"{display_name(path)}: starting")
            try:
                line = refresh(path)
            except CellFailedError as error:
                failed += 1
                line = describe_failure(path, error)
            show_progress("")
            print(f"[{number}/{len(paths)}] {line}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
