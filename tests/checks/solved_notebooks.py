"""The functions of the solved notebooks, for tests: their cells are run without a kernel."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

import nbformat

ROOT = Path(__file__).resolve().parents[2]


def notebook_names() -> list[str]:
    """Return the names of the solved notebooks."""
    return sorted(path.stem for path in (ROOT / "solutions").glob("*.ipynb"))


@functools.cache
def code_cells(notebook: str) -> list[str]:
    """Return the sources of a solved notebook's code cells."""
    stored = nbformat.read(ROOT / "solutions" / f"{notebook}.ipynb", as_version=4)
    return [cell.source for cell in stored.cells if cell.cell_type == "code"]


def is_definition(statement: ast.stmt) -> bool:
    """Whether a statement defines something: a function, a class, an import or a constant."""
    return isinstance(
        statement,
        (ast.FunctionDef, ast.ClassDef, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign),
    )


@functools.cache
def solved_functions(notebook: str) -> dict:
    """Run the definitions of a solved notebook, and return what they define."""
    names: dict = {}
    for source in code_cells(notebook):
        tree = ast.parse(source)
        tree.body = [statement for statement in tree.body if is_definition(statement)]
        exec(compile(tree, f"solutions/{notebook}.ipynb", "exec"), names)
    return names


def check_calls(notebook: str) -> list[tuple[str, str]]:
    """Return (task id, function name) for each `check(...)` of a notebook, in order."""
    found = []
    for source in code_cells(notebook):
        for node in ast.walk(ast.parse(source)):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "check":
                found.append((node.args[0].value, node.args[1].id))
    return found
