"""Find links that lead nowhere, in what is about to be published, without asking the network.

    python book/_tools/links.py      # the built book, the notebooks for Colab, the repository

Every link is first made absolute, as a browser does it where the file will lie: on the published
site, on the branch that Colab reads, in the repository. An address in one of these is then looked
up in what will lie there: the built pages with their anchors, the notebooks, the files that Git
tracks. All others lead outside; `outside_links.py` asks for those.
"""

from __future__ import annotations

import functools
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import unquote, urldefrag, urljoin

import nbformat

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools import citations
from _tools.page_links import heading_anchors, markdown_addresses, markdown_text, read_page
from _tools.repository import NOTEBOOKS_BRANCH, ROOT, Repository, published_repository

COLAB = "https://colab.research.google.com/github/"
# Where files lie while no address is known: hosts that cannot exist.
NO_SITE, NO_REPOSITORY = "https://site.invalid", "https://repository.invalid/owner/name"


@dataclass(frozen=True, order=True)
class Link:
    """An address, and the file in which it stands, such as "pages/book/bptt.html"."""

    file: str
    address: str


@dataclass(frozen=True)
class Published:
    """What will be published, and where.

    Fields:
        pages: the folder of the built book.
        notebooks: what the branch for Colab will hold.
        sources: the course's folder; GitHub shows the files that Git tracks there.
        repository: whose addresses were written into them, or None.
    """

    pages: Path = ROOT / "_build" / "html"
    notebooks: Path = ROOT / "_build" / "notebooks"
    sources: Path = ROOT
    repository: Repository | None = field(default_factory=published_repository)

    @property
    def site(self) -> str:
        """The address of the pages."""
        return (self.repository and self.repository.site) or NO_SITE

    @property
    def host(self) -> str:
        """The address of the repository, as a browser shows it."""
        named = self.repository is not None and self.repository.name is not None
        return self.repository.address if named else NO_REPOSITORY

    @property
    def branch(self) -> str:
        """The branch of the sources."""
        return self.repository.branch if self.repository else "main"

    def place_of(self, file: str) -> str:
        """Return the address at which a file will lie, "pages/…", "notebooks/…", "sources/…"."""
        kind, _, path = file.partition("/")
        if kind == "pages":
            return f"{self.site}/{path}"
        branch = NOTEBOOKS_BRANCH if kind == "notebooks" else self.branch
        return f"{self.host}/blob/{branch}/{path}"


@functools.lru_cache(maxsize=8)
def tracked_files(root: Path) -> frozenset[str]:
    """Return what Git tracks in a folder; every file that is there, where there is no Git."""
    command = ["git", "-C", str(root), "ls-files", "-z"]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode == 0 and done.stdout:
        return frozenset(done.stdout.strip("\0").split("\0"))
    return frozenset(p.relative_to(root).as_posix() for p in root.rglob("*") if p.is_file())


def links_of(published: Published) -> Iterator[Link]:
    """Yield the links of the pages, of the notebooks' branch, and of the repository's own pages."""
    for path in sorted(published.pages.rglob("*.html")):
        for address in read_page(path).addresses:
            yield Link(f"pages/{path.relative_to(published.pages).as_posix()}", address)
    for path in sorted(published.notebooks.rglob("*")):
        if path.suffix in (".ipynb", ".md"):
            for address in markdown_addresses(markdown_text(path)):
                yield Link(f"notebooks/{path.relative_to(published.notebooks).as_posix()}", address)
    for name in sorted(tracked_files(published.sources)):
        # What lies in book/ is read as pages.
        if name.endswith(".md") and not name.startswith("book/"):
            for address in markdown_addresses(markdown_text(published.sources / name)):
                yield Link(f"sources/{name}", address)


def why_dead(link: Link, published: Published) -> str | None:
    """Return why a link leads nowhere; None if it leads somewhere, or outside."""
    if re.match(r"(mailto|data|javascript):", link.address):
        return None
    whole, anchor = urldefrag(urljoin(published.place_of(link.file), link.address))
    whole = whole.partition("?")[0]
    if whole == published.site or whole.startswith(f"{published.site}/"):
        return look_in_pages(whole.removeprefix(published.site).strip("/"), anchor, published)
    if whole.startswith(COLAB):
        name = published.repository and published.repository.name
        ours = f"{COLAB}{name}/blob/{NOTEBOOKS_BRANCH}/"
        if whole.startswith(ours):
            return look_in_notebooks(whole.removeprefix(ours), anchor, published)
        return "opens something other than this course's notebooks"
    if whole.startswith(f"{published.host}/"):
        return look_in_repository(whole.removeprefix(f"{published.host}/"), anchor, published)
    if not re.match(r"https?://", link.address):
        return "leads out of what is published"
    return None


def look_in_pages(path: str, anchor: str, published: Published) -> str | None:
    """Return what is missing of a page's place, if anything."""
    file = published.pages / unquote(path)
    file = file / "index.html" if file.is_dir() else file
    if not file.is_file():
        return "there is no such page"
    if anchor and file.suffix == ".html" and unquote(anchor) not in read_page(file).anchors:
        return "there is no such place on the page"
    return None


def look_in_notebooks(path: str, anchor: str, published: Published) -> str | None:
    """Return what is missing on the branch that Colab reads, if anything."""
    file = published.notebooks / unquote(path)
    if not file.exists():
        return f"there is no such file on the branch {NOTEBOOKS_BRANCH}"
    return look_for_heading(file, anchor)


def look_in_repository(path: str, anchor: str, published: Published) -> str | None:
    """Return what is missing in the repository's branches, if anything."""
    kind, _, rest = path.partition("/")
    if kind not in ("blob", "tree", "raw"):
        return None  # releases, issues and the like: GitHub's own pages
    branch, _, file = unquote(rest).rstrip("/").partition("/")
    if branch == NOTEBOOKS_BRANCH:
        return look_in_notebooks(file, anchor, published)
    if branch != published.branch:
        return f"there is no branch {branch}"
    tracked = tracked_files(published.sources)
    if file and file not in tracked and not any(name.startswith(f"{file}/") for name in tracked):
        return "there is no such file in the repository"
    return look_for_heading(published.sources / file, anchor)


def look_for_heading(file: Path, anchor: str) -> str | None:
    """Return what is missing, if the anchor is no heading of the Markdown or the notebook."""
    if not anchor or file.suffix not in (".md", ".ipynb"):
        return None
    if file.suffix == ".ipynb" and anchor.startswith("scrollTo="):  # how Colab goes to a cell
        cells = nbformat.read(file, as_version=4).cells
        known = anchor.removeprefix("scrollTo=") in {cell.id for cell in cells}
        return None if known else "there is no such cell"
    known = unquote(anchor) in heading_anchors(markdown_text(file))
    return None if known else "there is no such heading"


def dead_links(published: Published) -> list[tuple[Link, str]]:
    """Return every link that leads nowhere, with the reason."""
    judged = ((link, why_dead(link, published)) for link in dict.fromkeys(links_of(published)))
    return [(link, why) for link, why in judged if why is not None]


def outside_addresses(published: Published) -> dict[str, list[str]]:
    """Map each address that leads outside, without its anchor, to the files it stands in."""
    works = map(citations.link, citations.bibliography().values())
    links = [Link("book/references.bib", address) for address in works if address]
    found: dict[str, list[str]] = {}
    for link in dict.fromkeys([*links, *links_of(published)]):
        address = urldefrag(link.address)[0]
        if re.match(r"https?://", address) and not f"{address}/".startswith(
            (f"{published.site}/", f"{published.host}/", COLAB)
        ):
            files = found.setdefault(address, [])
            files += [link.file] if link.file not in files else []
    return found


def judge_links(published: Published) -> int:
    """Print the dead links and how many were followed; return 1 if any is dead."""
    dead = dead_links(published)
    for link, why in dead:
        print(f"{link.file}: {link.address}: {why}")
    print(f"==> {len(set(links_of(published)))} links, of which {len(dead)} lead nowhere")
    return 1 if dead else 0


if __name__ == "__main__":
    sys.exit(judge_links(Published()))
