"""From the book to a notebook: a button where the repository is known, and one numbering."""

from __future__ import annotations

import re

import nbformat
import pytest
from _tools import colab
from _tools.notebook_files import ROOT
from bs4 import BeautifulSoup

NUMBERED = r"(Theorem|Exercise) (\d+\.\d+)"
NUMBERS = colab.chapter_numbers()


@pytest.fixture
def pages(build_book, notebook):
    """Return a function that builds a first page, a chapter and an exercise, with the theme."""

    def build():
        text = "# Start\n\n```{toctree}\nbook/a\nexercises/a\n```\n"
        files = {"index.md": text, "book/a.ipynb": notebook("# A chapter\n\nText."),
                 "exercises/a.ipynb": notebook("# An exercise\n\nText.")}  # fmt: skip
        built, problems = build_book(files, "lean_pages")
        assert problems == ""
        return {name: BeautifulSoup(page, "html.parser") for name, page in built.items()}

    return build


def test_chapters_and_exercises_open_in_colab_where_the_repository_is_known(pages, monkeypatch):
    monkeypatch.setenv("COURSE_REPOSITORY", "some-one/gradient.course")
    built = pages()
    place = "https://colab.research.google.com/github/some-one/gradient.course/blob/colab"
    for name in ("book/a", "exercises/a"):
        button = built[name].select_one("main > .actions a")
        assert button.get_text() == "Open in Colab"
        assert button["href"] == f"{place}/{name}.ipynb"
        assert button.find_next("h1"), "the button is above the title"
    assert "colab" not in str(built["index"])


def test_no_button_leads_nowhere(pages, monkeypatch):
    monkeypatch.delenv("COURSE_REPOSITORY", raising=False)
    for page in pages().values():
        assert "colab" not in str(page).lower()
        assert "github" not in str(page).lower()


@pytest.mark.parametrize("name", NUMBERS)
def test_a_theorem_or_exercise_has_one_number_in_the_book_and_in_colab(site, name):
    page = BeautifulSoup((site / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
    titles = page.select(".theorem > .admonition-title, .exercise > .admonition-title")
    stored = nbformat.read(ROOT / f"{name}.ipynb", as_version=4)
    copy = colab.make_copy(stored, path=f"{name}.ipynb", repository=None,
                           chapter=NUMBERS[name])  # fmt: skip
    text = "\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown")
    in_the_book = [re.match(NUMBERED, title.get_text()).groups() for title in titles]
    assert in_the_book
    assert re.findall(rf"^> \*\*{NUMBERED}", text, re.MULTILINE) == in_the_book
