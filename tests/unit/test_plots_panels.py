"""Where a figure says its panels are: everything drawn lies in one, and none cuts another."""

import base64
import io
import json
from pathlib import Path

import matplotlib.pyplot as plt
import nbformat
import numpy as np
import pytest
from matplotlib.backends.backend_svg import FigureCanvasSVG
from PIL import Image

from course_lib.plots.display import PANELS, render_png
from course_lib.plots.panels import find_panels

NOTEBOOKS = sorted((Path(__file__).parents[2] / "book").glob("*.ipynb"))


def draw(rows, columns, **options):
    figure, axes = plt.subplots(rows, columns, figsize=(7, 4), layout="constrained", squeeze=False,
                                **options)  # fmt: skip
    for ax in axes.flat:
        ax.plot([1, 2], [3, 4], label="one")
        ax.set(title="title", xlabel="x", ylabel="y")
    return figure, axes


def panels_of(figure):
    png = render_png(figure)
    plt.close(figure)
    picture = Image.open(io.BytesIO(png))
    stored = json.loads(picture.text.get(PANELS, "[]"))
    return stored, np.asarray(picture.convert("L"))


def uncovered(stored, picture) -> int:
    """Pixels that are not white and in no panel."""
    height, width = picture.shape
    ink = picture < 255
    for left, top, right, bottom, _ in stored:
        rows = slice(int(np.floor(top * height)), int(np.ceil(bottom * height)))
        ink[rows, int(np.floor(left * width)) : int(np.ceil(right * width))] = False
    return int(ink.sum())


def overlap(a, b) -> float:
    across, down = (min(a[k + 2], b[k + 2]) - max(a[k], b[k]) for k in (0, 1))
    return max(across, 0.0) * max(down, 0.0)


def assert_parted(stored, picture):
    assert uncovered(stored, picture) == 0
    for k, one in enumerate(stored):
        assert 0 <= one[0] < one[2] <= 1
        assert 0 <= one[1] < one[3] <= 1
        assert all(overlap(one, other) < 1e-6 for other in stored[:k])


def test_two_panels_and_their_legend_are_three_parts():
    figure, axes = draw(1, 2)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center")
    stored, picture = panels_of(figure)
    assert [panel[-1] for panel in stored] == ["left", "right", ""]
    assert stored[2][1] >= max(panel[3] for panel in stored[:2])
    assert_parted(stored, picture)


def test_a_legend_too_wide_for_a_phone_is_taken_apart_into_its_columns():
    figure, axes = draw(1, 2)
    for k in range(3):
        axes[0, 0].plot([1, 2], [k, 4], marker="o", label=f"a label of some length, {k}")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2,
                  frameon=False)  # fmt: skip
    stored, picture = panels_of(figure)
    assert [panel[-1] for panel in stored] == ["left", "right", "", ""]
    assert max(panel[2] - panel[0] for panel in stored) * 7 <= 3.8
    assert_parted(stored, picture)


def test_four_panels_come_in_reading_order_under_their_title():
    figure, _ = draw(2, 2)
    figure.suptitle("Run A")
    stored, picture = panels_of(figure)
    assert [panel[-1] for panel in stored] == ["", "top left", "top right", "bottom left",
                                               "bottom right"]  # fmt: skip
    assert_parted(stored, picture)


def test_a_color_bar_stays_with_its_axes():
    figure, axes = draw(1, 2)
    mesh = axes[0, 0].pcolormesh(np.arange(6).reshape(2, 3))
    figure.colorbar(mesh, ax=axes[0, 0], label="height")
    stored, picture = panels_of(figure)
    assert [panel[-1] for panel in stored] == ["left", "right"]
    assert_parted(stored, picture)


def test_what_overlaps_stays_together():
    figure, axes = plt.subplots(1, 3, gridspec_kw={"wspace": 0.5})
    axes[0].set_title("words that reach as far as the next panel")
    stored, picture = panels_of(figure)
    assert [panel[-1] for panel in stored] == ["left", "right"]
    assert_parted(stored, picture)


def test_an_empty_place_in_the_grid_is_no_panel():
    figure, axes = plt.subplots(2, 2, layout="constrained")
    for ax in axes.flat[:3]:
        ax.plot([1, 2])
    axes[1, 1].set_axis_off()
    stored, picture = panels_of(figure)
    assert len(stored) == 3
    assert_parted(stored, picture)


@pytest.mark.parametrize("rows", [1, 3])
def test_panels_that_are_below_each_other_already_are_left_alone(rows):
    figure, axes = draw(rows, 1)
    axes[0, 0].twinx().plot([1, 2], [5, 9])
    assert panels_of(figure)[0] == []


def test_any_backend_will_do():
    figure, _ = draw(1, 2)
    FigureCanvasSVG(figure)  # it draws without a renderer that one could ask for
    stored, picture = panels_of(figure)
    assert [panel[-1] for panel in stored] == ["left", "right"]
    assert_parted(stored, picture)


def test_a_figure_without_axes_has_no_panels():
    assert find_panels(plt.figure()) == []
    plt.close("all")


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_every_picture_of_the_book_is_shown_whole_by_its_panels(path):
    for cell in nbformat.read(path, 4).cells:
        for output in cell.get("outputs", []):
            encoded = output.get("data", {}).get("image/png")
            if encoded is None:
                continue
            picture = Image.open(io.BytesIO(base64.b64decode(encoded)))
            stored = json.loads(picture.text.get(PANELS, "[]"))
            if stored:
                assert_parted(stored, np.asarray(picture.convert("L")))
                # On a screen of 390 pixels a panel is shown at nearly its own size.
                wide = [(p[2] - p[0]) * picture.width / 1.5 for p in stored if p[-1]]
                assert max(wide) <= 1.25 * 382, f"{path.stem}, {cell.id}"
