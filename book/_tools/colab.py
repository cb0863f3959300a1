"""Write the notebooks that Colab opens: `make notebooks` puts them into `_build/notebooks`.

    python book/_tools/colab.py [--into FOLDER]

Each is a chapter or an exercise as it is stored, with its outputs, and three things made for where
it is read: plain Markdown instead of Jupyter Book's own, links that lead somewhere from there, and
a first cell that installs `course_lib` if it is missing and touches nothing else. The repository's
address comes from the environment (`COURSE_REPOSITORY`, see `repository.py`).
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

import nbformat
import yaml
from nbformat import NotebookNode
from nbformat.v4 import new_markdown_cell

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools import citations
from _tools.copy_links import link_resolver
from _tools.first_cell import BADGE, first_cells, needed_modules
from _tools.notebook_files import ROOT, serialize
from _tools.plain_markdown import PlainMarkdown
from _tools.repository import Edition, Repository, current_edition, published_repository

OUT = ROOT / "_build" / "notebooks"
FOLDERS = ("book", "exercises")
FRAMEWORKS = {"tab-pytorch": "PyTorch", "tab-tensorflow": "TensorFlow"}
# Code and output folded: the first two as Colab stores it, the third as JupyterLab does.
FOLDED = {
    "cellView": "form",
    "collapsed": True,
    "jupyter": {"source_hidden": True, "outputs_hidden": True},
}
OF_A_RELEASE = """\
## Those of a release

The notebooks here follow the newest state of the course. Each says at its head what it was made
with, and installs just that, so a copy you save goes on running as it does today. A set for a whole
term is attached to [each release]({address}/releases).
"""
ON_YOUR_OWN_MACHINE = """\
## On your own machine

In a copy of this branch, with Python 3.11, 3.12 or 3.13 (on Windows the second line is
`my-notebooks\\Scripts\\activate`):

```bash
python3 -m venv my-notebooks
. my-notebooks/bin/activate
pip install "gradient-flow-course[torch,tensorflow] @ {wanted}" jupyterlab
jupyter lab
```

On Linux, `pip install torch --index-url https://download.pytorch.org/whl/cpu` before the third line
saves the large build for graphics cards.
"""


def chapter_numbers(root: Path = ROOT) -> dict[str, int]:
    """Map each numbered page of the book to its number, counted through all numbered parts."""
    toc = yaml.safe_load((root / "_toc.yml").read_text(encoding="utf-8"))
    pages = [
        chapter["file"]
        for part in toc["parts"] if part.get("numbered")
        for chapter in part["chapters"]
    ]  # fmt: skip
    return {page: number for number, page in enumerate(pages, start=1)}


def make_copy(
    notebook: NotebookNode,
    *,
    path: str,
    repository: Repository | None,
    chapter: int | None = None,
    edition: Edition | None = None,
) -> NotebookNode:
    """Return the notebook as Colab shall show it.

    Arguments:
        notebook: as stored.
        path: where it lies, relative to the course's folder, such as "book/chain_rule.ipynb".
        repository: where the course is published, or None.
        chapter: its number in the book.
        edition: what it is made with; by default what is checked out.
    """
    copy = nbformat.from_dict(notebook)
    writer = PlainMarkdown(chapter=chapter, resolve=link_resolver(path, repository))
    writer.foresee(cell.source for cell in copy.cells if cell.cell_type == "markdown")
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
        if cell.cell_type == "code" and ("hide-cell" in tags or writer.solving):
            cell.metadata = nbformat.from_dict(FOLDED)
        cells.append(cell)
    if writer.cited:
        listed = "\n".join(citations.describe(key) for key in writer.cited)
        cells.append(new_markdown_cell(f"## References\n\n{listed}", id="references"))
    head = first_cells(path, repository, edition or current_edition(), needed_modules(notebook))
    copy.cells = [*head, *cells]
    copy.metadata["colab"] = {"provenance": [], "toc_visible": True}
    return copy


def title_of(notebook: NotebookNode) -> str:
    """Return the notebook's first heading."""
    for cell in notebook.cells:
        if cell.cell_type == "markdown" and cell.source.startswith("# "):
            return cell.source.split("\n")[0].removeprefix("# ").strip()
    return "Untitled"


def front_page(titles: dict[str, str], repository: Repository | None, edition: Edition) -> str:
    """Return the README of the branch: a button for every notebook, and how to do without Colab."""
    made = f"Made with {edition.describe()} by `make notebooks`; edits here are overwritten."
    lines = ["# Gradient Pathologies: the notebooks", "", made, ""]
    for folder, heading in zip(FOLDERS, ("Chapters", "Exercises"), strict=True):
        lines += [f"## {heading}", ""]
        for path, title in titles.items():
            if path.startswith(f"{folder}/"):
                link = repository.colab_link(path) if repository else None
                button = f"[![Open in Colab]({BADGE})]({link}) " if link else ""
                lines.append(f"- {button}[{title.removeprefix('Exercises: ')}]({path})")
        lines.append("")
    if repository is not None and repository.name is not None:
        lines.append(OF_A_RELEASE.format(address=repository.address))
    if repository is not None:
        lines.append(ON_YOUR_OWN_MACHINE.format(wanted=repository.requirement))
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
    numbers, edition, titles, written = chapter_numbers(root), current_edition(root), {}, []
    shutil.rmtree(out, ignore_errors=True)
    for path in ordered_notebooks(root):
        notebook = nbformat.read(root / path, as_version=4)
        titles[path] = title_of(notebook)
        page = path.removesuffix(".ipynb")
        copy = make_copy(notebook, path=path, repository=repository, edition=edition,
                         chapter=numbers.get(page))  # fmt: skip
        target = out / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(serialize(copy), encoding="utf-8")
        written.append(target)
    (out / "README.md").write_text(front_page(titles, repository, edition), encoding="utf-8")
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
