"""Write the notebooks that Colab opens: `make notebooks` puts them into `_build/notebooks`.

    python book/_tools/colab.py [--into FOLDER]

Each is a chapter or an exercise as it is stored, with its outputs, and three things made for where
it is read: plain Markdown instead of Jupyter Book's own, links that lead somewhere from there, and
a first cell that installs `course_lib` if it is missing and touches nothing else. The repository's
address comes from the environment (`COURSE_REPOSITORY`, see `repository.py`).
"""

from __future__ import annotations

import argparse
import posixpath
import shutil
import sys
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools import citations
from _tools.notebook_files import ROOT, serialize
from _tools.plain_markdown import PlainMarkdown
from _tools.repository import Repository, published_repository

OUT = ROOT / "_build" / "notebooks"
FOLDERS = ("book", "exercises")
BADGE = "https://colab.research.google.com/assets/colab-badge.svg"
FRAMEWORKS = {"tab-pytorch": "PyTorch", "tab-tensorflow": "TensorFlow"}

INSTALL = '''\
# The library of this course. Colab does not have it; what Colab has stays as it is.
import importlib.util
import subprocess
import sys

if importlib.util.find_spec("course_lib"):
    print("course_lib is here already: nothing was installed.")
else:
    wanted = "{requirement}"
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", wanted]
    done = subprocess.run(pip, capture_output=True, text=True)
    importlib.invalidate_caches()
    print("course_lib was installed, and nothing else was changed." if done.returncode == 0
          else f"course_lib could not be installed:\\n{{done.stderr}}")
'''

EXPLAIN = '''\
# The library of this course, course_lib, has to be installed.
import importlib.util

if importlib.util.find_spec("course_lib"):
    print("course_lib is here already: nothing was installed.")
else:
    print("course_lib is missing. In a copy of the course's folder run:  pip install .")
'''


def chapter_numbers(root: Path = ROOT) -> dict[str, int]:
    """Map each numbered page of the book to its number, counted through all numbered parts."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    pages = [
        chapter["file"]
        for part in toc["parts"] if part.get("numbered")
        for chapter in part["chapters"]
    ]  # fmt: skip
    return {page: number for number, page in enumerate(pages, start=1)}


def link_resolver(path: str, repository: Repository | None):
    """Return what turns a relative link in the notebook at `path` into an address, or None.

    Notebooks lead to their copies; pages to the published book. Without a repository, notebooks
    lead to the copy beside this one, and pages nowhere.
    """
    def resolve(target: str) -> str | None:
        target, _, anchor = target.partition("#")
        there = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if there.endswith(".ipynb"):
            if repository is None or repository.name is None:
                return posixpath.relpath(there, posixpath.dirname(path))
            return repository.colab_link(there)
        address = repository and repository.page_link(there.removesuffix(".md"))
        return f"{address}#{anchor}" if address and anchor else address

    return resolve


def first_cells(path: str, repository: Repository | None) -> list[NotebookNode]:
    """Return the button, where there is a Colab to open, and the cell that installs the library."""
    cells = []
    if repository is not None and repository.name is not None:
        link = repository.colab_link(path)
        button = f"[![Open in Colab]({BADGE})]({link})"
        cells.append(new_markdown_cell(button, id="open-in-colab"))
    source = EXPLAIN if repository is None else INSTALL.format(requirement=repository.requirement)
    cells.append(new_code_cell(source.rstrip("\n"), id="install"))
    return cells


def make_copy(
    notebook: NotebookNode, *, path: str, repository: Repository | None, chapter: int | None = None
) -> NotebookNode:
    """Return the notebook as Colab shall show it.

    Arguments:
        notebook: as stored.
        path: where it lies, relative to the course's folder, such as "book/chain_rule.ipynb".
        repository: where the course is published, or None.
        chapter: its number in the book.
    """
    copy = nbformat.from_dict(notebook)
    writer = PlainMarkdown(chapter=chapter, resolve=link_resolver(path, repository))
    cells, framework = [], None
    for cell in copy.cells:
        tags = cell.metadata.get("tags", [])
        cell.metadata = nbformat.from_dict({})
        if cell.cell_type == "markdown":
            cell.source = writer.rewrite(cell.source)
            if not cell.source:
                continue
        name = next((FRAMEWORKS[tag] for tag in tags if tag in FRAMEWORKS), None)
        if name and name != framework:
            cells.append(new_markdown_cell(f"*In {name}:*", id=f"{cell.id}-in"))
        framework = name
        if "hide-cell" in tags:
            folded = {"cellView": "form", "jupyter": {"source_hidden": True}}
            cell.metadata = nbformat.from_dict(folded)
        cells.append(cell)
    if writer.cited:
        listed = "\n".join(citations.describe(key) for key in writer.cited)
        cells.append(new_markdown_cell(f"## References\n\n{listed}", id="references"))
    copy.cells = [*first_cells(path, repository), *cells]
    copy.metadata["colab"] = {"provenance": [], "toc_visible": True}
    return copy


def title_of(notebook: NotebookNode) -> str:
    """Return the notebook's first heading."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            return cell.source.split("\n")[0].removeprefix("# ").strip()
    return "Untitled"


def front_page(titles: dict[str, str], repository: Repository | None) -> str:
    """Return the README of the branch: a button for every notebook."""
    made = "Made from the course's sources by `make notebooks`; edits here are overwritten."
    lines = ["# Gradient Pathologies: the notebooks", "", made, ""]
    for folder, heading in zip(FOLDERS, ("Chapters", "Exercises"), strict=True):
        lines += [f"## {heading}", ""]
        for path, title in titles.items():
            if path.startswith(f"{folder}/"):
                link = repository.colab_link(path) if repository else None
                button = f" [![Open in Colab]({BADGE})]({link})" if link else ""
                lines.append(f"- [{title}]({path}){button}")
        lines.append("")
    return "\n".join(lines)


def ordered_notebooks(root: Path = ROOT) -> list[str]:
    """Return the notebooks to copy: chapters, then exercises, both in the order of the book."""
    order = list(chapter_numbers(root))
    rank = {Path(page).name: k for k, page in enumerate(order)}
    found = [p.relative_to(root).as_posix() for f in FOLDERS for p in (root / f).glob("*.ipynb")]
    return sorted(found, key=lambda path: (FOLDERS.index(path.split("/")[0]),
                                           rank.get(Path(path).stem, len(rank)), path))  # fmt: skip


def write_copies(out: Path, repository: Repository | None, root: Path = ROOT) -> list[Path]:
    """Write every copy and the front page into `out`, which is emptied first."""
    numbers, titles, written = chapter_numbers(root), {}, []
    shutil.rmtree(out, ignore_errors=True)
    for path in ordered_notebooks(root):
        notebook = nbformat.read(root / path, as_version=4)
        titles[path] = title_of(notebook)
        page = path.removesuffix(".ipynb")
        copy = make_copy(notebook, path=path, repository=repository, chapter=numbers.get(page))
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(serialize(copy), encoding="utf-8")
        written.append(target)
    (out / "README.md").write_text(front_page(titles, repository), encoding="utf-8")
    return written


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--into", type=Path, default=OUT, help="the folder, which is emptied first")
    given = parser.parse_args()
    try:
        repository = published_repository()
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    written = write_copies(given.into, repository)
    where = repository.requirement if repository else "no address: COURSE_REPOSITORY is not set"
    print(f"==> {len(written)} notebooks for Colab in {given.into} ({where})")
    return 0


if __name__ == "__main__":
    sys.exit(main())
