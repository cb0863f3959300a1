"""Checks of the built pages that need no browser: words, links, weight of meaning, no strangers."""

from __future__ import annotations

import copy
import functools
import itertools
import json
import os
import re
from collections import Counter
from urllib.parse import unquote, urldefrag

import pytest
from bs4 import BeautifulSoup

from .conftest import ROOT, docnames

FOREIGN = re.compile(r"^(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
LOADED = {"link": "href", "script": "src", "img": "src", "iframe": "src", "source": "src",
          "audio": "src", "video": "src", "object": "data", "embed": "src"}


@functools.cache
def parsed(path):
    return BeautifulSoup(path.read_text(encoding="utf-8"), "html.parser")


@pytest.fixture
def soup(site, page):
    return parsed(site / f"{page}.html")


def stored_figures(docname) -> list[str]:
    """Return the words stored with the pictures of a notebook, in order."""
    path = ROOT / f"{docname}.ipynb"
    if not path.exists():
        return []
    cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
    bundles = [output.get("data", {}) for cell in cells for output in cell.get("outputs", [])]
    return ["".join(bundle.get("text/plain", "")).strip() for bundle in bundles
            if "image/png" in bundle]


def test_each_picture_says_the_stored_words(site, docname):
    soup = parsed(site / f"{docname}.html")
    assert [image["alt"] for image in soup.select("figure.plot img")] == stored_figures(docname)
    captions = [caption.get_text() for caption in soup.select("figure.plot figcaption")]
    assert captions == stored_figures(docname)


def test_the_caption_is_not_repeated(site, docname):
    text = parsed(site / f"{docname}.html").select_one("main").get_text()
    for words in set(stored_figures(docname)):
        assert text.count(words) == stored_figures(docname).count(words), words


def test_every_picture_has_an_alternative_text_and_a_size(soup):
    for image in soup.find_all("img"):
        assert image.has_attr("alt"), image
        if image.find_parent("main"):
            assert image["alt"].strip(), image
        assert image.has_attr("width") or image["src"].endswith(".svg"), image


def test_nothing_is_loaded_from_another_host(soup):
    for name, attribute in LOADED.items():
        for tag in soup.find_all(name):
            if name == "link" and "canonical" in tag.get("rel", []):
                continue
            assert not FOREIGN.match(tag.get(attribute, "")), tag
            assert not tag.get("srcset"), tag
    for style in soup.find_all("style"):
        assert "//" not in style.get_text()


def test_stylesheets_and_scripts_stay_here_and_what_they_name_exists(site):
    sheets = list((site / "_static").glob("*.css"))
    assert sheets
    for sheet in sheets:
        for target in re.findall(r"url\(\s*['\"]?([^'\")]+)", sheet.read_text(encoding="utf-8")):
            if target.startswith(("data:", "#")):
                continue
            assert not FOREIGN.match(target), f"{sheet.name}: {target}"
            if sheet.name == "course.css":
                assert (sheet.parent / target).exists(), f"{sheet.name}: {target}"


def test_the_page_describes_itself(site, page, soup):
    assert soup.html["lang"] == "en"
    assert soup.title.get_text().strip()
    descriptions = soup.select("meta[name=description]")
    assert len(descriptions) == 1
    if page != "search":
        assert 40 <= len(descriptions[0]["content"]) <= 170
    assert len(soup.select("meta[name=viewport]")) == 1


def test_titles_and_descriptions_tell_pages_apart(site):
    pages = [parsed(site / f"{docname}.html") for docname in docnames()]
    for values in (
        [page.title.get_text() for page in pages],
        [page.select_one("meta[name=description]")["content"] for page in pages],
    ):
        assert [value for value, count in Counter(values).items() if count > 1] == []


def test_headings_form_an_outline(soup):
    levels = [int(heading.name[1]) for heading in soup.select("h1, h2, h3, h4, h5, h6")]
    assert levels.count(1) == 1
    assert levels[0] == 1
    jumps = [(above, below) for above, below in itertools.pairwise(levels)
             if below > above + 1]
    assert jumps == []


def test_ids_are_unique(soup):
    ids = Counter(tag["id"] for tag in soup.find_all(id=True))
    assert [name for name, count in ids.items() if count > 1] == []


def test_links_and_anchors_lead_somewhere(site, page, soup):
    here = site / f"{page}.html"
    for link in soup.select("a[href], form[action]"):
        address = link.get("href", link.get("action"))
        if re.match(r"^(https?|mailto):", address) or address == "":
            continue
        assert not address.startswith("/"), f"{address} works only at the root of a host"
        path, anchor = urldefrag(address)
        target = (here.parent / unquote(path)).resolve() if path else here
        assert target.is_file(), f"{address} leads to no file"
        if anchor and target.suffix == ".html":
            names = parsed(target).find_all(id=unquote(anchor))
            assert names, f"{address}: no such anchor"


def test_no_trace_of_what_was_left_out(soup):
    text = str(soup).lower()
    strangers = ["mathjax", "fontawesome", "font-awesome", "thebe", "jsdelivr", "unpkg", "mybinder"]
    if not os.environ.get("COURSE_REPOSITORY"):  # then no button may lead to a repository
        strangers.append("colab.research.google.com")
    assert [stranger for stranger in strangers if stranger in text] == []


def test_every_formula_was_rendered(soup):
    assert soup.select(".math-error") == []
    article = copy.copy(soup.select_one("article"))
    for code in article.find_all(["pre", "code", "annotation"]):
        code.extract()
    leftovers = re.findall(r"\$[^$\n]{1,80}\$|\\\(|\\\[|\\frac|\\partial", article.get_text())
    assert leftovers == []


def test_the_front_door_leads_to_the_first_page(site):
    door = parsed(site / "index.html")
    target = door.select_one("a")["href"]
    assert (site / target).is_file()
    assert target == f"{docnames()[0]}.html"
    assert door.title.get_text().strip()


def chapters() -> list[str]:
    """Return the chapters: the notebooks in `book/`, as the table of contents lists them."""
    return [name for name in docnames() if (ROOT / f"{name}.ipynb").exists()
            and name.startswith("book/")]


@pytest.mark.parametrize("chapter", chapters())
def test_a_chapter_asks_questions_that_answer_at_once(site, chapter):
    page = parsed(site / f"{chapter}.html")
    assert len(page.select(".quiz")) >= 4
    assert page.select(".quiz-form"), "at least one answer is typed"
    for quiz in page.select(".quiz:not(:has(.quiz-form))"):
        assert len(quiz.select(".quiz-option.right")) == 1, quiz["id"]


@pytest.mark.parametrize(
    "question",
    ["sigmoid activations cause vanishing", "gradient clipping prevent explosion",
     "intuition behind He initialization", "residual connections help gradient flow",
     "backpropagation through time\u201d mean", "most important mathematical reason",
     "which one crashes training", "clipping help with the vanishing",
     "loss suddenly becomes NaN"],
)  # fmt: skip
def test_each_question_of_the_lectures_is_asked(site, question):
    asked = [quiz.get_text() for chapter in chapters()
             for quiz in parsed(site / f"{chapter}.html").select(".quiz-question")]
    assert any(question in text for text in asked)
