"""Small notebooks to spoil, and a way to run the tools on them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import nbformat
import pytest
import small_notebooks
from _tools.notebook_files import serialize
from nbformat import NotebookNode

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def notebook() -> NotebookNode:
    """A notebook without a fault."""
    return small_notebooks.good_notebook()


@pytest.fixture
def store(tmp_path):
    """Write a notebook byte for byte as it is given, and return its path."""

    def write(notebook: NotebookNode, name: str = "chapter.ipynb") -> Path:
        path = tmp_path / name
        path.write_text(serialize(nbformat.from_dict(notebook)), encoding="utf-8")
        return path

    return write


@pytest.fixture(scope="session")
def run_tool():
    """Run Python in the course's folder; return exit status and everything printed."""

    def run(*arguments: object) -> tuple[int, str]:
        command = [sys.executable, *map(str, arguments)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout + done.stderr

    return run
