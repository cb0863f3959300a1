"""Print the built book as one PDF: `make pdf` writes `_build/pdf/gradient-pathologies.pdf`.

    python book/_tools/pdf.py [--into FILE] [--pages book/intro book/chain_rule ...]

Chromium prints one document made from all pages (`print_book.py`): with bookmarks, tags for screen
readers, links within the book, and page numbers. It prints twice, since the contents can only name
pages that are known. What would run over the margin is made smaller until it fits; what still does
not fit is an error, so that nothing is cut off unseen.
"""

from __future__ import annotations

import argparse
import html
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

import yaml
from playwright.sync_api import Page, sync_playwright
from pypdf import PdfReader, PdfWriter
from pypdf.generic import DictionaryObject, NameObject, TextStringObject

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools.browser import FLAGS, find_browser
from _tools.build_book import HTML, ROOT
from _tools.print_book import Part, parts_of, whole_book
from _tools.repository import Edition, Repository, current_edition, published_repository

logging.getLogger("pypdf").setLevel(logging.ERROR)  # it counts one object more than Chromium does

FOLDER = ROOT / "_build" / "pdf"
TARGET = FOLDER / "gradient-pathologies.pdf"
STYLE = ROOT / "book" / "_theme" / "print" / "book.css"
TEXT_WIDTH = 657  # CSS pixels: A4 less the margins that the stylesheet sets
SMALLEST = 0.55  # of the usual size: less could not be read

# Shrinks what is too wide; returns what is too wide still.
FIT = """
(smallest) => {
  const width = document.body.clientWidth;
  for (const box of document.querySelectorAll(".math-scroll, .table-scroll"))
    for (let size = 1; box.scrollWidth > box.clientWidth + 1 && size > smallest; size -= 0.05)
      box.style.fontSize = `${size * 100}%`;
  const shown = "p, pre, table, img, svg, .katex-html, h1, h2, h3, h4, h5";
  return [...document.querySelectorAll(shown)]
    .filter((one) => one.getBoundingClientRect().right > width + 1)
    .map((one) => [one.closest("article")?.id, (one.textContent || one.alt || one.tagName)])
    .map(([place, words]) => `${place}: ${words.slice(0, 60)}`);
}
"""
# In a formula, what is read out, not what is drawn.
HEADINGS = """
() => [...document.querySelectorAll("h1, h2, h3, h4, h5")].map((heading) => {
  const copy = heading.cloneNode(true);
  copy.querySelectorAll(".katex-html, annotation").forEach((part) => part.remove());
  return copy.textContent.replace(/\\s+/g, " ").trim();
})
"""
NUMBER = """
(pages) => { for (const place of document.querySelectorAll("[data-for]"))
  place.textContent = pages[place.dataset.for] ?? ""; }
"""


def facts(repository: Repository | None, edition: Edition) -> str:
    """Return what the title page says at its foot: version, day, where to find it, license."""
    lines = [f"Version {edition.version}" + (f", {edition.date}" if edition.date else "")]
    address = repository and (repository.site or (repository.name and repository.address))
    if address:
        lines.append(f'<a href="{html.escape(address)}">{html.escape(address)}</a>')
    options = configuration()["sphinx"]["config"]["html_theme_options"]
    return "<br>".join([*lines, html.escape(options["footer"])])


def configuration(root: Path = ROOT) -> dict:
    """Return `_config.yml`."""
    return yaml.safe_load((root / "_config.yml").read_text(encoding="utf-8"))


def write_document(parts: list[Part], folder: Path, built: Path = HTML) -> Path:
    """Write the document that is printed into `folder`, and return its path."""
    config = configuration()
    folder.mkdir(parents=True, exist_ok=True)
    document = folder / "book.html"
    text = whole_book(
        built, parts, style=STYLE.read_text(encoding="utf-8"),
        facts=facts(published_repository(), current_edition()), pages=built.as_uri(),
        title=config["title"],
        tagline=config["sphinx"]["config"]["html_theme_options"]["tagline"],
        author=config["author"],
    )  # fmt: skip
    document.write_text(text, encoding="utf-8")
    return document


def open_document(page: Page, document: Path) -> None:
    """Load the document as it will be printed, and make what is too wide fit.

    Raises:
        ValueError: if something does not fit the page even at the smallest size.
    """
    page.set_viewport_size({"width": TEXT_WIDTH, "height": 900})
    page.emulate_media(media="print", color_scheme="light")
    page.goto(document.as_uri(), wait_until="load", timeout=300_000)
    page.evaluate("document.fonts.ready.then(() => true)")
    too_wide = page.evaluate(FIT, SMALLEST)
    if too_wide:
        raise ValueError("wider than the page, and would be cut off:\n  " + "\n  ".join(too_wide))


def page_numbers(pdf: Path) -> dict[str, int]:
    """Return the page, counted from 1, on which each named place of a PDF lies."""
    reader = PdfReader(pdf)
    return {
        name.lstrip("/"): reader.get_destination_page_number(place) + 1
        for name, place in reader.named_destinations.items()
    }


def bookmarks(parent: DictionaryObject) -> Iterator[DictionaryObject]:
    """Yield every bookmark below another, in the order of the book."""
    mark = parent.get("/First")
    while mark is not None:
        mark = mark.get_object()
        yield mark
        yield from bookmarks(mark)
        mark = mark.get("/Next")


def describe_pdf(pdf: Path, author: str, headings: list[str]) -> None:
    """Say in the PDF who wrote it, name its bookmarks, and open it with them shown.

    Chromium names bookmarks too, but repeats the first line of a heading at the top of a page.
    """
    writer = PdfWriter(clone_from=pdf)
    marks = bookmarks(writer.root_object["/Outlines"].get_object())
    for mark, heading in zip(marks, headings, strict=True):
        mark[NameObject("/Title")] = TextStringObject(heading)
    writer.add_metadata({"/Author": author, "/Creator": "Jupyter Book and Chromium"})
    writer.page_mode = "/UseOutlines"
    writer.write(pdf)


def print_book(parts: list[Part], target: Path, page: Page, built: Path = HTML) -> int:
    """Print the parts into `target`, with a page of Chromium, and return the number of pages."""
    document = write_document(parts, target.parent, built)
    open_document(page, document)
    for _ in range(2):
        page.pdf(path=target, prefer_css_page_size=True, print_background=True, tagged=True,
                 outline=True)  # fmt: skip
        page.evaluate(NUMBER, page_numbers(target))
    describe_pdf(target, configuration()["author"], page.evaluate(HEADINGS))
    return len(PdfReader(target).pages)


def main() -> int:
    """Print the book, or the pages that are named."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--into", type=Path, default=TARGET, metavar="FILE")
    parser.add_argument("--pages", nargs="+", metavar="PAGE", help="these pages only")
    given = parser.parse_args()
    browser = find_browser()
    if browser is None:
        print("Printing needs Chromium or Chrome (Debian's package is `chromium`).",
              file=sys.stderr)  # fmt: skip
        return 2
    parts = parts_of(ROOT / "_toc.yml")
    if given.pages:
        chosen = [(part.title, tuple(page for page in part.pages if page in given.pages))
                  for part in parts]  # fmt: skip
        parts = [Part(title, pages) for title, pages in chosen if pages]
    try:
        with sync_playwright() as playwright:
            chromium = playwright.chromium.launch(executable_path=browser, args=FLAGS)
            count = print_book(parts, given.into.resolve(), chromium.new_page())
            chromium.close()
    except ValueError as error:
        print(f"==> The book was not printed: {error}", file=sys.stderr)
        return 1
    size = given.into.stat().st_size / 1e6
    print(f"==> {count} pages, {size:.1f} MB: {given.into}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
