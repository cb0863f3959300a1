"""Framework twins become tabs; a cell without its twin is refused."""

import pytest
from bs4 import BeautifulSoup
from nbformat.v4 import new_output


def cell(framework, text):
    printed = new_output("stream", name="stdout", text=text)
    return (f"print({text!r})", [f"tab-{framework}"] if framework else [], [printed])


@pytest.fixture
def tab_page(build_book, notebook):
    def build(*cells):
        pages, problems = build_book(
            {"index.ipynb": notebook("# Title", *cells)}, "framework_tabs"
        )
        return BeautifulSoup(pages["index"], "html.parser"), problems

    return build


def test_twins_become_one_pair_of_tabs(tab_page):
    page, problems = tab_page(cell("pytorch", "from torch"), cell("tensorflow", "from tf"))
    assert problems == ""
    tabs = page.select(".tabs > [role=tablist] > [role=tab]")
    assert [tab.get_text() for tab in tabs] == ["PyTorch", "TensorFlow"]
    for tab, text in zip(tabs, ("from torch", "from tf"), strict=True):
        panel = page.find(id=tab["aria-controls"])
        assert panel["aria-labelledby"] == tab["id"]
        assert panel["role"] == "tabpanel"
        assert panel["data-framework"] == tab["data-framework"]
        assert text in panel.get_text()


def test_each_pair_has_its_own_names(tab_page):
    page, problems = tab_page(
        cell("pytorch", "1"), cell("tensorflow", "2"), "Between.",
        cell("pytorch", "3"), cell("tensorflow", "4"),
    )
    assert problems == ""
    identities = [tag["id"] for tag in page.select("[role=tab], [role=tabpanel]")]
    assert len(identities) == len(set(identities)) == 8


def test_pairs_in_a_row_stay_apart(tab_page):
    page, problems = tab_page(
        cell("pytorch", "1"), cell("tensorflow", "2"),
        cell("pytorch", "3"), cell("tensorflow", "4"),
    )
    assert problems == ""
    assert len(page.select(".tabs")) == 2


def test_several_cells_of_one_framework_share_its_tab(tab_page):
    page, problems = tab_page(
        cell("pytorch", "1"), cell("pytorch", "2"), cell("tensorflow", "3")
    )
    assert problems == ""
    assert [len(panel.select(".cell")) for panel in page.select("[role=tabpanel]")] == [2, 1]


def test_untagged_cells_are_left_alone(tab_page):
    page, problems = tab_page(cell(None, "1"), cell(None, "2"))
    assert problems == ""
    assert page.select(".tabs") == []


@pytest.mark.parametrize(
    "cells",
    [
        [cell("pytorch", "alone")],
        [cell("tensorflow", "alone")],
        [cell("tensorflow", "first"), cell("pytorch", "second")],
        [cell("pytorch", "1"), "Words between.", cell("tensorflow", "2")],
    ],
)
def test_a_cell_without_its_twin_is_refused(tab_page, cells):
    _, problems = tab_page(*cells)
    assert "has no twin" in problems
    assert "index.ipynb" in problems
