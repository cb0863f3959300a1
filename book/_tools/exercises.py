"""Make the student notebooks in `exercises/` from the solved ones in `solutions/`.

    python book/_tools/exercises.py            writes what differs, and runs it
    python book/_tools/exercises.py --check    changes nothing; 1 if anything differs

`make exercises` calls the first, the tests the second. In a code cell, the lines from `# solution`
to `# end solution` become one line, `...  # your code here`. A cell tagged `solution` is left out:
reasoning and experiments that give the answer away. Everything else is the same, cell ids too, so
that the outputs of a notebook whose cells did not change are kept.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools.notebook_files import ROOT, display_name, normalize, serialize, write_atomically

START, END = "# solution", "# end solution"
BLANK = "...  # your code here"
TAG = "solution"
# Either marker at the start of a line, however it is written: a slip must not publish a solution.
MARKER = re.compile(r"^\s*#+\s*(end\s+)?solutions?\b", re.IGNORECASE)


class MarkerError(ValueError):
    """A region that does not start or end as it should; the text names the cell."""


def split_regions(source: str) -> tuple[str, str]:
    """Return a cell's source with its regions blanked, and with only their markers removed.

    Raises MarkerError if the markers do not come in pairs.
    """
    blanked: list[str] = []
    solved: list[str] = []
    inside = False
    for line in source.splitlines():
        mark = line.strip()
        if mark == START and not inside:
            inside = True
            blanked.append(line[: len(line) - len(line.lstrip())] + BLANK)
        elif mark == END and inside:
            inside = False
        elif MARKER.match(line):
            raise MarkerError(f"the marker {mark!r} is out of place or misspelled.")
        else:
            solved.append(line)
            if not inside:
                blanked.append(line)
    if inside:
        raise MarkerError(f"{START!r} without {END!r}.")
    return "\n".join(blanked), "\n".join(solved)


def is_solution(cell: NotebookNode) -> bool:
    """Whether the whole cell gives an answer away."""
    return TAG in cell.metadata.get("tags", [])


def make_exercise(solution: NotebookNode) -> NotebookNode:
    """Return the student's notebook, its code cells not yet run."""
    exercise = normalize(solution)
    exercise.cells = [cell for cell in exercise.cells if not is_solution(cell)]
    for cell in exercise.cells:
        if cell.cell_type == "code":
            try:
                cell.source, _ = split_regions(cell.source)
            except MarkerError as error:
                raise MarkerError(f"cell {cell.id}: {error}") from None
            cell.outputs, cell.execution_count = [], None
    return exercise


def sources(notebook: NotebookNode) -> list[tuple]:
    """What the generator decides about: everything but outputs."""
    return [(cell.id, cell.cell_type, cell.source, dict(cell.metadata)) for cell in notebook.cells]


def find_differences(root: Path = ROOT) -> dict[Path, NotebookNode | None]:
    """Map each exercise that is not what it should be to what it should be (None: not there).

    Raises MarkerError, naming the notebook.
    """
    found: dict[Path, NotebookNode | None] = {}
    solutions = sorted((root / "solutions").glob("*.ipynb"))
    for path in solutions:
        try:
            wanted = make_exercise(nbformat.read(path, as_version=4))
        except MarkerError as error:
            raise MarkerError(f"{display_name(path, root)}, {error}") from None
        target = root / "exercises" / path.name
        if not target.is_file():
            found[target] = wanted
            continue
        stored = normalize(nbformat.read(target, as_version=4))
        if sources(stored) != sources(wanted):
            found[target] = wanted
    names = {path.name for path in solutions}
    for target in sorted((root / "exercises").glob("*.ipynb")):
        if target.name not in names:
            found[target] = None
    return found


def main(arguments: list[str], root: Path = ROOT) -> int:
    """Write, or with `--check` only report; 0 if each exercise is what it should be."""
    if arguments not in ([], ["--check"]):
        print("Usage: exercises.py [--check]", file=sys.stderr)
        return 2
    try:
        differing = find_differences(root)
    except MarkerError as error:
        print(error, file=sys.stderr)
        return 1
    if arguments:
        for target in differing:
            print(f"{display_name(target, root)} differs from its solution: run `make exercises`.")
        return 1 if differing else 0
    for target, wanted in differing.items():
        if wanted is None:
            target.unlink()
            print(f"{display_name(target, root)}: removed, it has no solution")
        else:
            write_atomically(target, serialize(wanted))
    written = [str(target) for target, wanted in differing.items() if wanted is not None]
    if not written:
        print("==> The exercises are up to date")
        return 0
    from _tools import refresh  # not at the top: the book's pages use this module without a kernel

    return refresh.main(written)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
