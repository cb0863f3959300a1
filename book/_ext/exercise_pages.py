"""Show the student notebooks as pages, each task followed by its solution, folded.

A page in `exercises/` is the notebook that a student downloads, with its blanks. While it is read,
the solved code and the reasoning of the notebook of the same name in `solutions/` are put in after
each task, in a box that opens. Experiments that belong to a solution follow as hidden cells. So
there is one source, and the page can be tried first and read afterwards.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import nbformat
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell
from sphinx.util import logging

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools.exercises import is_solution, split_regions
from _tools.notebook_files import serialize

logger = logging.getLogger(__name__)

FOLDER = "exercises/"
TITLE = "Solution"


def fence(mark: str, text: str) -> str:
    """Return a run of `mark` longer than any in `text`, so that nothing inside ends it."""
    runs = re.findall(re.escape(mark) + "{3,}", text)
    return mark * max([3, *(len(run) + 1 for run in runs)])


def solution_box(codes: list[str], reasoning: str, *, cell_id: str) -> NotebookNode:
    """Return a cell with a folded box: the solved code first, then why."""
    parts = []
    for code in codes:
        ticks = fence("`", code)
        parts.append(f"{ticks}python\n{code}\n{ticks}")
    body = "\n\n".join([*parts, reasoning]).strip()
    colons = fence(":", body)
    text = f"{colons}{{admonition}} {TITLE}\n:class: dropdown\n\n{body}\n{colons}"
    return new_markdown_cell(text, id=cell_id)


def merge(exercise: NotebookNode, solution: NotebookNode) -> NotebookNode:
    """Return the exercise with its solutions put in.

    Raises KeyError if a cell of the solution has no counterpart: the exercise is out of date.
    """
    blanks = {cell.id: cell for cell in exercise.cells}
    cells: list[NotebookNode] = []
    codes: list[str] = []

    def close(reasoning: str, cell_id: str) -> None:
        if codes or reasoning:
            cells.append(solution_box(codes, reasoning, cell_id=f"{cell_id}-box"))
            codes.clear()

    for cell in solution.cells:
        if not is_solution(cell):
            if cell.cell_type == "markdown":
                close("", cell.id)
            blanked, solved = split_regions(cell.source)
            if cell.cell_type == "code" and blanked != solved:
                codes.append(solved)
            cells.append(blanks[cell.id])
        elif cell.cell_type == "markdown":
            close(cell.source, cell.id)
        else:
            cell.metadata["tags"] = ["hide-cell"]
            cells.append(cell)
    close("", "last")
    merged = nbformat.from_dict(exercise)
    merged.cells = cells
    return merged


def put_solutions_in(app, docname: str, content: list[str]) -> None:
    """Replace the source of an exercise page, as Sphinx is about to read it."""
    if not docname.startswith(FOLDER):
        return
    path = Path(app.srcdir) / "solutions" / f"{docname.removeprefix(FOLDER)}.ipynb"
    if not path.is_file():
        logger.warning("%s has no solved notebook in solutions/.", docname)
        return
    app.env.note_dependency(str(path))
    exercise = nbformat.reads(content[0], as_version=4)
    try:
        content[0] = serialize(merge(exercise, nbformat.read(path, as_version=4)))
    except KeyError:
        logger.warning("%s differs from its solution: run `make exercises`.", docname)


def setup(app) -> dict:
    app.connect("source-read", put_solutions_in)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
