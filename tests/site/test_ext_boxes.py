"""Folding boxes and hidden cells are native elements; pages get a description and safe roles."""

import lean_pages
import pytest
from bs4 import BeautifulSoup


def test_a_dropdown_box_is_a_details_element(build_book):
    text = "# Title\n\n:::{admonition} A *long* proof\n:class: dropdown\nIts text.\n:::\n"
    pages, problems = build_book({"index.md": text}, "folding_boxes")
    assert problems == ""
    box = BeautifulSoup(pages["index"], "html.parser").select_one("details.admonition")
    assert box.find("summary").get_text() == "A long proof"
    assert "Its text." in box.get_text()
    assert not box.has_attr("open")


def test_a_box_without_a_title_is_named_by_its_kind(build_book):
    text = "# Title\n\n:::{hint}\n:class: dropdown\nLook closer.\n:::\n"
    pages, _ = build_book({"index.md": text}, "folding_boxes")
    box = BeautifulSoup(pages["index"], "html.parser").select_one("details.hint")
    assert box.find("summary").get_text() == "Hint"


def test_a_solution_folds_and_its_summary_holds_no_link(build_book):
    text = (
        "# Title\n\n:::{exercise}\n:label: one\nShow it.\n:::\n\n"
        ":::{solution} one\n:class: dropdown\nLike so.\n:::\n"
    )
    pages, problems = build_book({"index.md": text}, "sphinx_exercise", "folding_boxes")
    assert problems == ""
    box = BeautifulSoup(pages["index"], "html.parser").select_one("details.solution")
    assert box.find("summary").get_text() == "Solution to Exercise 1"
    assert box.find("summary").find("a") is None


def test_an_open_box_stays_as_it_is(build_book):
    pages, _ = build_book({"index.md": "# Title\n\n:::{note}\nSeen.\n:::\n"}, "folding_boxes")
    assert "<details" not in pages["index"]


def test_a_hidden_cell_is_named_by_what_is_seen(build_book, notebook):
    page = notebook("# Title", ("x = 1", ["hide-input"], []), ("y = 2", [], []))
    pages, problems = build_book({"index.ipynb": page}, "folding_boxes")
    assert problems == ""
    summary = BeautifulSoup(pages["index"], "html.parser").select_one("details > summary")
    assert not summary.has_attr("aria-label")
    assert summary.get_text().strip() != ""


LONG = "A sigmoid layer multiplies a gradient by at most a quarter, which is $\\tfrac14$, and ten "
LONG += "layers in a row leave about a millionth of it, as this chapter shows in two frameworks."


def test_the_description_is_the_first_paragraph_cut_at_a_word(build_book):
    pages, _ = build_book({"index.md": f"# Title\n\n:::{{note}}\nNot this.\n:::\n\n{LONG}\n"},
                          "lean_pages")
    page = BeautifulSoup(pages["index"], "html.parser")
    description = page.select_one("meta[name=description]")["content"]
    assert description.startswith("A sigmoid layer multiplies")
    assert description.endswith(" …")
    assert 50 <= len(description) <= lean_pages.DESCRIPTION_LENGTH + 2
    assert "\\" not in description


def test_a_description_in_the_text_is_kept(build_book):
    front = "---\nmyst:\n  html_meta:\n    description: Said by the author.\n---\n"
    pages, _ = build_book({"index.md": f"{front}# Title\n\n{LONG}\n"}, "lean_pages")
    metas = BeautifulSoup(pages["index"], "html.parser").select("meta[name=description]")
    assert [meta["content"] for meta in metas] == ["Said by the author."]


def test_no_button_without_a_repository(monkeypatch):
    monkeypatch.delenv("COURSE_REPOSITORY", raising=False)
    assert lean_pages.repository_links("book/chain_rule.ipynb") == {}


@pytest.mark.parametrize(
    ("source", "opened"), [("exercises/a.ipynb", "exercises/a.ipynb"), ("book/a.md", None)]
)
def test_links_when_the_environment_names_the_repository(monkeypatch, source, opened):
    monkeypatch.setenv("COURSE_REPOSITORY", "owner/name")
    monkeypatch.setenv("COURSE_BRANCH", "release")
    links = lean_pages.repository_links(source)
    assert links.pop("source_url").endswith(f"owner/name/blob/release/{source}")
    if opened is not None:
        assert links.pop("colab_url").endswith(f"github/owner/name/blob/colab/{opened}")
    assert links == {}


def test_roles_that_checkers_reject_are_gone(build_book):
    text = "# Title\n\nClaim[^one].\n\n[^one]: A footnote.\n"
    pages, _ = build_book({"index.md": text}, "lean_pages")
    page = BeautifulSoup(pages["index"], "html.parser")
    assert page.select_one(".footnote") is not None
    assert page.find("aside") is None
    assert page.find(attrs={"role": "doc-footnote"}) is None


@pytest.mark.parametrize(
    ("printed", "columns"),
    [
        ("vanishing  ReLU        helps\nvanishing  batch norm  helps\ndead       ReLU\n", True),
        ("He: factor per layer 1.0\nGlorot: factor per layer 0.7\nboth agree: True\n", False),
        ("loss     1.5\n", False),
    ],
)
def test_what_is_printed_in_columns_scrolls_and_the_rest_wraps(
    build_book, notebook, printed, columns
):
    from nbformat.v4 import new_output

    page = notebook("# Title", ("x = 1", [], [new_output("stream", name="stdout", text=printed)]))
    pages, problems = build_book({"index.ipynb": page}, "lean_pages")
    assert problems == ""
    output = BeautifulSoup(pages["index"], "html.parser").select_one(".cell_output .output")
    assert ("columns" in output["class"]) == columns
