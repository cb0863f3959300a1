"""Reading and writing notebooks so that a diff shows what changed and nothing else."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

import nbformat
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOK_FOLDERS = ("book", "exercises", "solutions")

KERNELSPEC = {"display_name": "Python 3", "language": "python", "name": "python3"}
# No version number: it would differ on every machine. The lexer knows `%pip` as well as Python.
LANGUAGE_INFO = {"name": "python", "pygments_lexer": "ipython3"}
# Cell metadata that somebody wrote on purpose; what a tool left behind is dropped.
AUTHORED_CELL_METADATA = ("tags", "mystnb")


def find_notebooks(root: Path = ROOT) -> list[Path]:
    """Every notebook of the course, sorted by path."""
    found = []
    for folder in NOTEBOOK_FOLDERS:
        for path in (root / folder).rglob("*.ipynb"):
            parts = path.relative_to(root).parts
            if not any(part.startswith(".") or part == "_build" for part in parts):
                found.append(path)
    return sorted(found)


def display_name(path: Path, root: Path = ROOT) -> str:
    """The path as a person would type it: relative to the course if it lies inside."""
    path = path.resolve()
    return path.relative_to(root).as_posix() if path.is_relative_to(root) else str(path)


def merge_streams(outputs: list[NotebookNode]) -> list[NotebookNode]:
    """Join neighboring pieces of one stream: where a kernel cuts them depends on the moment."""
    merged: list[NotebookNode] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if (
            output.output_type == "stream"
            and last is not None
            and last.output_type == "stream"
            and last.name == output.name
        ):
            last.text += output.text
        else:
            merged.append(output)
    return merged


def normalize(notebook: NotebookNode) -> NotebookNode:
    """Return a copy without volatile metadata: what `refresh` stores and the gates require."""
    clean = nbformat.from_dict(notebook)
    clean.nbformat, clean.nbformat_minor = 4, 5
    clean.metadata = nbformat.from_dict(
        {"kernelspec": dict(KERNELSPEC), "language_info": dict(LANGUAGE_INFO)}
    )
    used_ids: set[str] = set()
    for position, cell in enumerate(clean.cells):
        cell.metadata = nbformat.from_dict(
            {name: cell.metadata[name] for name in AUTHORED_CELL_METADATA if name in cell.metadata}
        )
        if not cell.get("id") or cell.id in used_ids:
            digest = hashlib.sha256(f"{position}\n{cell.source}".encode()).hexdigest()
            cell.id = digest[:8]
        used_ids.add(cell.id)
        if cell.cell_type == "code":
            cell.outputs = merge_streams(cell.outputs)
    return clean


def serialize(notebook: NotebookNode) -> str:
    """The text of the file: as Jupyter and jupytext write it, with one newline at the end."""
    return nbformat.v4.writes_json(notebook).rstrip("\n") + "\n"


def write_atomically(path: Path, text: str) -> bool:
    """Replace the file in one step, or leave it as it was; True if its content changed."""
    if path.exists() and path.read_text(encoding="utf-8") == text:
        return False
    mode = path.stat().st_mode & 0o777 if path.exists() else 0o644
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".new")
    try:
        with os.fdopen(handle, "w", encoding="utf-8", newline="\n") as file:
            file.write(text)
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return True
