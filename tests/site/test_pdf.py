"""The book on paper: whole, linked, tagged, nothing cut off, no answer before its question."""

from __future__ import annotations

import re
from collections import Counter

import pytest
from bs4 import BeautifulSoup

from .conftest import ROOT

pypdf = pytest.importorskip("pypdf")
from _tools import pdf  # noqa: E402  (it needs pypdf and playwright)
from _tools.print_book import Part, parts_of, read_article, whole_book  # noqa: E402

CHAPTER, EXERCISES = "book/choosing_a_cure", "exercises/choosing_a_cure"
PARTS = [Part(None, ("book/intro",)), Part("The cures", (CHAPTER,)),
         Part("Exercises", (EXERCISES,))]  # fmt: skip
KEPT = "div.tabs, figure.plot, div.quiz, details.admonition, .math-block, table"


def shorten(page: str) -> str:
    """Return a built page with one section of each kind: printing all of it takes a minute."""
    soup = BeautifulSoup(page, "html.parser")
    seen = set()
    for section in soup.select("article > section > section"):
        kinds = {kind for kind in KEPT.split(", ") if section.select_one(kind)}
        if kinds <= seen:
            section.extract()
        seen |= kinds
    return str(soup)


@pytest.fixture(scope="module")
def pages(site, tmp_path_factory):
    """Return a folder with three shortened pages of the built book."""
    built = tmp_path_factory.mktemp("built")
    for name in ("_static", "_images"):
        (built / name).symlink_to(site / name)
    for part in PARTS:
        for name in part.pages:
            (built / name).parent.mkdir(exist_ok=True)
            text = (site / f"{name}.html").read_text(encoding="utf-8")
            (built / f"{name}.html").write_text(shorten(text), encoding="utf-8")
    return built


@pytest.fixture(scope="module")
def printed(pages, browser, tmp_path_factory):
    """Return a PDF of the pages, the text of each of its pages, and the printed document."""
    target = tmp_path_factory.mktemp("pdf") / "book.pdf"
    page = browser.new_page()
    pdf.print_book(PARTS, target, page, pages)
    page.close()
    reader = pypdf.PdfReader(target)
    text = target.with_name("book.html").read_text(encoding="utf-8")
    said = [re.sub(r"\s+", " ", page.extract_text()) for page in reader.pages]
    return reader, said, BeautifulSoup(text, "html.parser")


def links(reader):
    """Yield (page, destination's name or address) for every link."""
    for number, page in enumerate(reader.pages, start=1):
        for reference in page.get("/Annots") or []:
            annotation = reference.get_object()
            if annotation.get("/Subtype") == "/Link":
                action = annotation.get("/A", {})
                yield number, annotation.get("/Dest") or action.get("/D"), action.get("/URI")


def titles(outline) -> list:
    """Return the titles of bookmarks, nested as they are."""
    return [titles(one) if isinstance(one, list) else one.title for one in outline]


def test_every_page_of_the_book_is_in_the_whole():
    toc = (ROOT / "_toc.yml").read_text(encoding="utf-8")
    listed = re.findall(r"(?:root|file): (\S+)", toc)
    assert [page for part in parts_of(ROOT / "_toc.yml") for page in part.pages] == listed


@pytest.mark.browser
def test_bookmarks_lead_from_parts_to_chapters_to_sections(printed):
    named = titles(printed[0].outline)
    tops = [one for one in named if isinstance(one, str)]
    assert tops == ["Contents", "Gradients that vanish, explode, die and saturate",
                    "The cures", "Exercises"]  # fmt: skip
    chapter, sections = named[named.index("The cures") + 1]
    assert chapter.startswith("10. Choosing a cure")
    assert "Check yourself" in sections
    assert "Answers and solutions" in sections


@pytest.mark.browser
def test_every_link_stays_in_the_book_or_leads_to_the_web(printed):
    reader, _, document = printed
    places = reader.named_destinations
    inner = 0
    for page, place, address in links(reader):
        if address is not None:
            assert re.match(r"https?://", str(address)), f"page {page}: {address}"
        else:
            inner += 1
            assert str(place).lstrip("/") in {name.lstrip("/") for name in places}, page
    anchors = [a["href"] for a in document.select("a[href^='#']")]
    assert inner >= len(anchors) > 20
    ids = Counter(tag["id"] for tag in document.find_all(id=True))
    assert [name for name, count in ids.items() if count > 1] == []
    assert {anchor[1:] for anchor in anchors} <= set(ids)


@pytest.mark.browser
def test_the_contents_name_the_page_on_which_each_chapter_begins(printed):
    reader, pages, _ = printed
    lines = reader.pages[1].extract_text()
    for title in ("Gradients that vanish", "10. Choosing a cure", "Exercises: choosing a cure"):
        (number,) = re.findall(rf"{re.escape(title)}[^\n]*?\n?(\d+)\s*(?:\n|$)", lines)
        assert title in pages[int(number) - 1], f"{title} is not on page {number}"
        assert re.search(rf"\b{number}\b", pages[int(number) - 1]), "the page bears its number"


@pytest.mark.browser
def test_both_frameworks_and_all_figures_are_printed(printed, pages):
    reader, said, document = printed
    page = BeautifulSoup((pages / f"{CHAPTER}.html").read_text(encoding="utf-8"), "html.parser")
    shown = [image["alt"] for image in document.select("figure.plot img")]
    assert shown == [image["alt"] for image in page.select("figure.plot img")]
    assert sum(len(p.images) for p in reader.pages) >= len(shown)
    assert page.select(".panels")
    assert not document.select(".panels")  # a panel below the other is for a narrow screen
    text = re.sub(r"\s+", "", "".join(said))
    for name in ("PyTorch", "TensorFlow"):
        panels = [panel.select_one("pre").get_text() for panel in page.select(".tab-panel")
                  if panel.select_one(".tab-title").get_text() == name]  # fmt: skip
        for code in panels:
            line = max(code.splitlines(), key=len)
            assert re.sub(r"\s+", "", line) in text, line


@pytest.mark.browser
def test_answers_and_solutions_stand_at_the_end(printed, pages):
    _, _, document = printed
    for name in (CHAPTER, EXERCISES):
        article = document.find(id=name.replace("/", "-"))
        page = BeautifulSoup((pages / f"{name}.html").read_text(encoding="utf-8"), "html.parser")
        asked = len(page.select(".quiz")) + len([
            box for box in page.select("details.admonition")
            if re.match("Answer|The answer|Solution", box.summary.get_text().strip())
        ])  # fmt: skip
        end = article.find_all("section", class_="answers")
        assert len(end) == 1
        assert article.find_all(True, recursive=False)[-1] is end[0]
        assert len(end[0].select(":scope > .answer")) == asked > 0
        before = str(article).partition('class="answers"')[0]
        assert "<strong>Right.</strong>" not in before
        assert article.find(["details", "form", "input", "script"]) is None


@pytest.mark.browser
def test_it_is_tagged_named_and_light(printed):
    reader, _, _ = printed
    root = reader.trailer["/Root"]
    assert root["/MarkInfo"]["/Marked"]
    assert "/StructTreeRoot" in root
    assert root["/Lang"] == "en"
    assert reader.metadata.title == "Gradient Pathologies"
    assert reader.metadata.author
    assert {tuple(map(float, page.mediabox[2:])) for page in reader.pages} == {
        tuple(map(float, reader.pages[0].mediabox[2:]))
    }  # fmt: skip


@pytest.mark.browser
def test_what_does_not_fit_is_an_error_and_what_nearly_fits_is_made_smaller(browser, tmp_path):
    page = browser.new_page()
    document = tmp_path / "wide.html"
    style = "<!DOCTYPE html><style>body{margin:0} td{white-space:nowrap; padding:0}</style>"
    table = "<div class='table-scroll'><table><tr><td>{}</td></tr></table></div>"
    document.write_text(f"{style}<article id='a'>{table.format('word ' * 24)}</article>")
    pdf.open_document(page, document)
    size = page.evaluate("document.querySelector('.table-scroll').style.fontSize")
    document.write_text(f"{style}<article id='a'>{table.format('word ' * 90)}</article>")
    with pytest.raises(ValueError, match=r"cut off:\n  a: word word"):
        pdf.open_document(page, document)
    page.close()
    assert size == "" or float(size.rstrip("%")) >= 100 * pdf.SMALLEST


def quiz_page(tmp_path, body: str) -> BeautifulSoup:
    (tmp_path / "p.html").write_text(f"<article><h1>P</h1>{body}</article>", encoding="utf-8")
    return read_article(tmp_path, "p", {"p", "q"}, "..")


def test_a_typed_question_keeps_its_answer_and_its_foreseen_mistakes(tmp_path):
    article = quiz_page(tmp_path, """
        <div class="quiz" id="a"><div class="quiz-question"><p><strong>3.</strong> How many?</p>
        </div><form class="quiz-form" data-answer="20.0"><div class="quiz-mistake" data-value="5.0"
        hidden><p><strong>No.</strong> Windows.</p></div></form>
        <details class="quiz-answer"><summary>Show</summary><p>Because.</p></details></div>""")
    shown, answers = article.find(class_="quiz"), article.find(class_="answers")
    assert "How many?" in shown.get_text()
    assert "20" not in shown.get_text()
    said = re.sub(r"\s+", " ", answers.get_text(" "))
    assert "Answer to question 3" in said
    assert "20 Because." in said
    assert "5? No. Windows." in said
    assert answers.find(hidden=True) is None


def test_links_between_pages_become_links_within_and_others_become_text(tmp_path):
    article = quiz_page(tmp_path, '<p id="x"><a href="q.html#y">q</a> <a href="#x">x</a> '
                        '<a href="_sources/p.ipynb">file</a> <a href="https://a.example">a</a></p>'
                        '<img src="_images/a.webp" alt="" loading="lazy">')  # fmt: skip
    assert [a["href"] for a in article.find_all("a")] == ["#q--y", "#p--x", "https://a.example"]
    assert article.find("p")["id"] == "p--x"
    assert article.img["src"] == "../_images/a.webp"
    assert not article.img.has_attr("loading")


def test_headings_of_a_chapter_stand_below_its_part(tmp_path):
    (tmp_path / "p.html").write_text("<article><h1>P & Q</h1><h2>S</h2></article>")
    text = whole_book(tmp_path, [Part('A "part"', ("p",))], style="", facts="", pages="..",
                      title="T", tagline="t", author="a")  # fmt: skip
    document = BeautifulSoup(text, "html.parser")
    found = document.select("section h1, article :is(h1, h2, h3)")
    levels = [(heading.name, heading.get_text()) for heading in found]
    assert levels == [("h1", 'A "part"'), ("h2", "P & Q"), ("h3", "S")]
    assert document.select_one("nav a[href='#p']").get_text() == "P & Q"
