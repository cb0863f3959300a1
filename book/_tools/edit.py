"""Edit a notebook as a Python file, and put it back with outputs and cell ids in place.

    python book/_tools/edit.py edit book/chain_rule.ipynb    writes _build/edit/book/chain_rule.py
    python book/_tools/edit.py store book/chain_rule.ipynb   puts that file back

`make edit NB=...` and `make store NB=...` call this; `make store` runs the notebook as well. The
file is jupytext's percent format: `# %% [markdown]` starts a text cell, `# %%` a code cell, and
`# %% tags=["tab-pytorch"]` a tagged one. A cell that was changed keeps its id, so a later diff
shows the change and not a new cell.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools.notebook_files import ROOT, display_name, normalize, serialize, write_atomically

EDIT_FOLDER = ROOT / "_build" / "edit"


def python_file(notebook_path: Path) -> Path:
    """Where the notebook lies while it is edited."""
    name = Path(display_name(notebook_path)).with_suffix(".py")
    return EDIT_FOLDER / (name.name if name.is_absolute() else name)


def start_editing(notebook_path: Path) -> Path:
    """Write the notebook as percent-format Python and return that file's path."""
    notebook = normalize(nbformat.read(notebook_path, as_version=4))
    target = python_file(notebook_path)
    target.parent.mkdir(parents=True, exist_ok=True)
    text = jupytext.writes(notebook, fmt={"extension": ".py", "format_name": "percent"})
    target.write_text(text, encoding="utf-8")
    return target


def adopt(edited: list[NotebookNode], stored: list[NotebookNode]) -> None:
    """Give each edited cell the id and the outputs of the stored cell that it came from.

    Cells with the same words are matched first; between two such matches, changed cells of the
    same type are matched in order.
    """

    def text(cell: NotebookNode) -> str:
        return f"{cell.cell_type}\n{cell.source}"

    matcher = difflib.SequenceMatcher(
        a=[text(c) for c in stored], b=[text(c) for c in edited], autojunk=False
    )
    for kind, a_start, a_end, b_start, b_end in matcher.get_opcodes():
        waiting = stored[a_start:a_end]
        for cell in edited[b_start:b_end]:
            match = next((old for old in waiting if old.cell_type == cell.cell_type), None)
            if match is None:
                continue
            waiting = waiting[waiting.index(match) + 1 :]
            cell.id = match.id
            if kind == "equal" and cell.cell_type == "code":
                cell.outputs, cell.execution_count = match.outputs, match.execution_count


def finish_editing(notebook_path: Path) -> bool:
    """Put the edited file back into the notebook; True if that changed it."""
    edited = jupytext.read(python_file(notebook_path))
    if notebook_path.exists():
        stored = normalize(nbformat.read(notebook_path, as_version=4))
        adopt(edited.cells, stored.cells)
    return write_atomically(notebook_path, serialize(normalize(edited)))


def main(arguments: list[str]) -> int:
    """`edit NOTEBOOK` or `store NOTEBOOK`."""
    if len(arguments) != 2 or arguments[0] not in ("edit", "store") or not arguments[1]:
        print("Name one notebook: make edit NB=book/chain_rule.ipynb", file=sys.stderr)
        return 2
    action, path = arguments[0], Path(arguments[1]).resolve()
    needed = path if action == "edit" else python_file(path)
    if not needed.is_file():
        print(f"No such file: {display_name(needed)}", file=sys.stderr)
        return 2
    if action == "edit":
        print(f"Edit {display_name(start_editing(path))}, then: make store NB={arguments[1]}")
    else:
        changed = finish_editing(path)
        print(f"{display_name(path)}: {'changed' if changed else 'no change'}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
