"""A picture and its stored words become one figure, and a picture without words is refused."""

import base64
import io
import json

import numpy as np
import pytest
import worded_figures
from bs4 import BeautifulSoup
from nbformat.v4 import new_output
from PIL import Image, PngImagePlugin

WORDS = 'The norm falls by 5.7 decades: "W_l" has n_l = 64 units, a < b & *c*.'


def png(width=80, height=40, panels=None) -> str:
    pixels = np.full((height, width, 3), 255, dtype=np.uint8)
    pixels[10:20, 5:60] = (0, 114, 178)
    buffer = io.BytesIO()
    entries = PngImagePlugin.PngInfo()
    if panels:
        entries.add_text(worded_figures.PANELS, json.dumps(panels))
    Image.fromarray(pixels).save(buffer, "PNG", pnginfo=entries)
    return base64.b64encode(buffer.getvalue()).decode()


def picture(words=WORDS, panels=None):
    data = {"image/png": png(panels=panels), "text/plain": words}
    return new_output("display_data", data=data)


def caption(words=WORDS):
    return new_output("display_data", data={"text/markdown": f"*Figure.* {words}"})


@pytest.fixture
def figure_page(build_book, notebook):
    def build(*outputs):
        page = notebook("# Title", ("show(ax, words)", [], list(outputs)))
        pages, problems = build_book({"index.ipynb": page}, "worded_figures")
        return BeautifulSoup(pages["index"], "html.parser"), problems

    return build


def test_the_alternative_text_is_the_stored_words(figure_page):
    page, problems = figure_page(picture(), caption())
    assert problems == ""
    assert page.select_one("figure img")["alt"] == WORDS


def test_the_caption_is_shown_once(figure_page):
    page, _ = figure_page(picture(), caption())
    shown = page.select_one("figcaption")
    assert shown.get_text() == WORDS
    assert shown["aria-hidden"] == "true"
    assert page.get_text().count("falls by 5.7 decades") == 1
    assert page.find("em") is None


def test_each_of_two_figures_keeps_its_own_words(figure_page):
    page, problems = figure_page(
        picture("First words."), caption("First words."),
        picture("Other words."), caption("Other words."),
    )
    assert problems == ""
    assert [image["alt"] for image in page.select("img")] == ["First words.", "Other words."]


def test_a_figure_without_words_is_refused(figure_page):
    _, problems = figure_page(picture("<Figure size 640x480 with 1 Axes>"))
    assert "a figure without words" in problems
    assert "index.ipynb" in problems


def test_a_caption_that_differs_from_the_words_is_refused(figure_page):
    _, problems = figure_page(picture(), caption(WORDS.replace("5.7", "5.8")))
    assert "differs from its words" in problems


def test_other_outputs_after_a_figure_stay(figure_page):
    page, problems = figure_page(
        picture(), new_output("display_data", data={"text/markdown": "A *remark*."})
    )
    assert problems == ""
    assert "A remark." in page.get_text()


def test_size_is_known_before_the_picture_comes(figure_page):
    page, _ = figure_page(picture(), caption())
    image = page.select_one("img")
    assert (image["width"], image["height"]) == ("53", "27")  # 80 x 40 stored pixels
    assert image["loading"] == "lazy"


def test_a_picture_of_one_panel_is_shown_as_it_is(figure_page):
    page, _ = figure_page(picture(), caption())
    assert page.select(".panels, .panelled") == []


def test_panels_are_cuttings_of_the_same_picture(figure_page):
    stored = [[0.0, 0.0, 0.25, 1.0, "left"], [0.25, 0.0, 1.0, 0.5, "right"],
              [0.25, 0.5, 1.0, 1.0, ""]]  # fmt: skip
    page, problems = figure_page(picture(panels=stored), caption())
    assert problems == ""
    whole, parts = page.select_one("figure.panelled img"), page.select(".panels > .panel")
    assert [place.get_text() for place in page.select(".place")] == ["left", "right"]
    assert all(f"url('{whole['src']}')" in part["style"] for part in parts)
    # The picture is 53 pixels wide. A quarter of it, at its left edge, and three at the right.
    assert "width:min(100%,13px)" in parts[0]["style"]
    assert "0.00% 0.00%/400.00% auto" in parts[0]["style"]
    assert "100.00% 0.00%/133.33% auto" in parts[1]["style"]
    assert "100.00% 100.00%/133.33% auto" in parts[2]["style"]


def test_a_screen_reader_hears_the_words_with_either(figure_page):
    page, _ = figure_page(picture(panels=[[0, 0, 0.5, 1, "left"], [0.5, 0, 1, 1, "right"]]))
    box = page.select_one(".panels")
    assert (box["role"], box["aria-label"]) == ("img", WORDS)
    assert page.select_one("img")["alt"] == WORDS


def test_the_book_and_the_library_call_the_entry_the_same():
    from course_lib.plots.display import PANELS

    assert worded_figures.PANELS == PANELS


def test_the_lighter_copy_has_the_same_pixels(tmp_path):
    noise = np.random.default_rng(0).integers(0, 4, (200, 200, 3), dtype=np.uint8) * 60
    original = tmp_path / "picture.png"
    Image.fromarray(noise).save(original)
    copy = worded_figures.lighter_copy(original)
    assert copy.suffix == ".webp"
    with Image.open(copy) as stored:
        np.testing.assert_array_equal(np.asarray(stored.convert("RGB")), noise)
