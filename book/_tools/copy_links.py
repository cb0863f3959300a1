"""Where the links of a notebook lead from its copy: in Colab, in Jupyter, in the published book."""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Callable
from pathlib import Path

import nbformat
from mdit_py_plugins.anchors.index import slugify

from _tools.notebook_files import ROOT
from _tools.repository import Repository

HEADING = re.compile(r"^#{1,6} +(?P<text>.+?) *$", re.MULTILINE)


@functools.cache
def headings(path: str, root: Path = ROOT) -> dict[str, tuple[str, str]]:
    """Map the anchor of each heading in a notebook, as in the book, to its cell and its text."""
    notebook = nbformat.read(root / path, as_version=4)
    return {
        slugify(found["text"]): (cell.id, found["text"])
        for cell in notebook.cells if cell.cell_type == "markdown"
        for found in HEADING.finditer(cell.source)
    }  # fmt: skip


def link_resolver(path: str, repository: Repository | None) -> Callable[[str], str | None]:
    """Return what turns a relative link in the notebook at `path` into an address, or None.

    Notebooks lead to their copies; pages to the published book. Without a repository, notebooks
    lead to the copy beside this one, and pages nowhere. Colab knows no anchors of headings and
    scrolls to a cell; Jupyter has an anchor for each heading.

    The returned function raises ValueError for the anchor of a heading that is not there.
    """
    in_colab = repository is not None and repository.name is not None

    def resolve(target: str) -> str | None:
        target, _, anchor = target.partition("#")
        folder = posixpath.dirname(path)
        there = posixpath.normpath(posixpath.join(folder, target)) if target else path
        if not there.endswith(".ipynb"):
            address = repository and repository.page_link(there.removesuffix(".md"))
            return f"{address}#{anchor}" if address and anchor else address
        address = ""  # within this notebook
        if target:
            beside = posixpath.relpath(there, folder)
            address = repository.colab_link(there) if in_colab else beside
        if not anchor:
            return address
        if anchor not in headings(there):
            raise ValueError(f"{there} has no heading for the link to `#{anchor}` in {path}")
        cell, text = headings(there)[anchor]
        return address + (f"#scrollTo={cell}" if in_colab else f"#{text.replace(' ', '-')}")

    return resolve
