"""Read the links out of built pages, Markdown and notebooks, and the anchors they may lead to."""

from __future__ import annotations

import functools
import re
from html.parser import HTMLParser
from pathlib import Path

import nbformat

LEADING = {"a": "href", "link": "href", "img": "src", "script": "src", "form": "action",
           "iframe": "src", "source": "src"}  # fmt: skip
FENCED = re.compile(r"^(`{3,}|~{3,})[^\n]*\n.*?^\1[^\n]*$", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`[^`\n]+`")
TARGET = re.compile(r"\]\(<?((?:[^()\s<>]|\([^()\s]*\))+)>?(?:\s+\"[^\"]*\")?\)")
BARE = re.compile(r"(?<![\w\"'(=/])https?://[^\s<>\"'`\])]*[\w/]")
HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)


class PageReader(HTMLParser):
    """Collects a page's addresses, in order, and its anchors."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.anchors: set[str] = set()
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        given = dict(attributes)
        address = given.get(LEADING.get(tag, ""))
        if address:
            self.addresses.append(address)
        self.anchors.update(filter(None, (given.get("id"), given.get("name"))))


@functools.lru_cache(maxsize=128)
def _read_page(path: Path, stamp: int) -> PageReader:
    return PageReader(path.read_text(encoding="utf-8"))


def read_page(path: Path) -> PageReader:
    """Return what a built page holds; it is read once, unless it changes."""
    return _read_page(path, path.stat().st_mtime_ns)


def markdown_text(path: Path) -> str:
    """Return the Markdown of a page, or of all cells of a notebook."""
    if path.suffix != ".ipynb":
        return path.read_text(encoding="utf-8")
    cells = nbformat.read(path, as_version=4).cells
    return "\n\n".join(cell.source for cell in cells if cell.cell_type == "markdown")


def markdown_addresses(text: str) -> list[str]:
    """Return the addresses in Markdown and in the HTML within it; code is no link."""
    prose = CODE.sub("", FENCED.sub("", text))
    return [*TARGET.findall(prose), *PageReader(prose).addresses, *BARE.findall(prose)]


def heading_anchors(text: str) -> set[str]:
    """Return the anchors of Markdown's headings, as Jupyter makes them and as GitHub does."""
    titles = [re.sub(r"[*`$]", "", title) for title in HEADING.findall(FENCED.sub("", text))]
    return {title.replace(" ", "-") for title in titles} | {
        re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles
    }
