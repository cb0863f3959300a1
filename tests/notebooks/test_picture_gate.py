"""Where the tolerance of the picture gate lies: what must pass, and what must not.

Each picture is drawn by matplotlib as a chapter's figure is, then drawn again with one thing
changed. Sizes are in pixels of the stored picture.
"""

from __future__ import annotations

import io
from functools import cache
from itertools import combinations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from _tools.pictures import compare_pictures
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

WIDTH, HEIGHT, DPI = 3.0, 2.0, 150  # dots per inch as in course_lib.plots
PIXELS_PER_UNIT = 0.8 * HEIGHT * DPI / 2.0  # the axes are 0.8 of the height and show 2 units


@cache
def draw(
    *,
    shift: float = 0.0,
    moved: float = 0.0,
    color: str = "C0",
    label: str = "7",
    font_size: float = 8.0,
    hinting: str = "force_autohint",
    transparent: bool = False,
) -> bytes:
    """A small chart as PNG: markers, a thick and a thin line, tick labels of one character."""
    with plt.rc_context({"text.hinting": hinting}):
        figure = Figure(figsize=(WIDTH, HEIGHT), dpi=DPI)
        FigureCanvasAgg(figure)
        axes = figure.add_axes((0.1, 0.1, 0.8, 0.8), xlim=(-0.5, 9.5), ylim=(-0.5, 1.5))
        x = np.arange(10.0)
        y = 0.4 * np.sin(x) + x / 10 + shift / PIXELS_PER_UNIT
        points = y.copy()
        points[4] += moved / PIXELS_PER_UNIT
        axes.plot(x, points, "o", color=color, markersize=4)
        axes.plot(x, y[::-1], linewidth=1.5, color="C2")
        axes.plot(x, 0.1 * x + shift / PIXELS_PER_UNIT, linewidth=0.6, color="black")
        axes.set_xticks([2, 5, 8], ["0", label, "3"], fontsize=font_size)
        axes.set_yticks([])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", transparent=transparent)
    return buffer.getvalue()


def encode(pixels: np.ndarray) -> bytes:
    """An array of bytes as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(buffer, format="png")
    return buffer.getvalue()


def drawn_pixels(**change) -> np.ndarray:
    """The chart as a writable array, (height, width, 3)."""
    return np.array(Image.open(io.BytesIO(draw(**change))).convert("RGB"))


# What another processor, another number of threads or font hinting do to a picture.


@pytest.mark.parametrize("shift", [0.05, 0.2, 0.35, 0.5, 1.0])
def test_curves_drawn_a_part_of_a_pixel_higher_pass(shift):
    assert compare_pictures(draw(), draw(shift=shift)) is None


@pytest.mark.parametrize("hinting", ["default", "no_autohint", "none"])
def test_other_hinting_of_short_labels_passes(hinting):
    assert compare_pictures(draw(), draw(hinting=hinting)) is None


def test_a_picture_one_pixel_wider_passes():
    pixels = drawn_pixels()
    wider = np.pad(pixels, [(0, 0), (1, 0), (0, 0)], mode="edge")
    assert compare_pictures(encode(pixels), encode(wider)) is None


def test_noise_of_a_few_levels_passes():
    pixels = drawn_pixels().astype(int)
    noise = np.random.default_rng(0).integers(-8, 9, pixels.shape)
    assert compare_pictures(encode(pixels), encode(np.clip(pixels + noise, 0, 255))) is None


# What a reader would see.


@pytest.mark.parametrize("levels", [40, 255])
@pytest.mark.parametrize("corner", [(0, 0), (120, 200), (240, 390)])
def test_a_block_of_ten_by_ten_pixels_is_found_in_its_place(levels, corner):
    pixels = np.full((250, 400, 3), 255)
    row, column = corner
    pixels[row : row + 10, column : column + 10] -= levels
    difference = compare_pictures(encode(np.full((250, 400, 3), 255)), encode(pixels))
    left, top, right, bottom = difference.box
    assert abs(left - column) <= 1
    assert abs(top - row) <= 1
    assert abs(right - (column + 9)) <= 1
    assert abs(bottom - (row + 9)) <= 1
    assert f"x {left}..{right}, y {top}..{bottom}" in difference.describe()


@pytest.mark.parametrize("levels", [24, 32])
def test_a_faint_block_of_eight_by_eight_pixels_is_found(levels):
    pixels = drawn_pixels()
    faint = pixels.copy()
    faint[20:28, 330:338] -= levels
    assert compare_pictures(encode(pixels), encode(faint)) is not None


def test_an_area_one_color_step_lighter_passes():
    """`show` keeps 16 levels of each channel; another machine may round to the next one."""
    pixels = np.full((60, 80, 3), 102)
    assert compare_pictures(encode(pixels), encode(pixels + 17)) is None


def test_a_block_on_a_curve_is_found():
    pixels = drawn_pixels()
    pixels[120:130, 195:205] = (200, 0, 0)
    assert compare_pictures(draw(), encode(pixels)) is not None


@pytest.mark.parametrize("moved", [2.0, -3.0, 20.0])
def test_one_moved_point_is_found(moved):
    assert compare_pictures(draw(), draw(moved=moved)) is not None


@pytest.mark.parametrize("color", ["C1", "#1f77e4", "#4f97d4"])
def test_another_color_is_found(color):
    assert compare_pictures(draw(), draw(color=color)) is not None


@pytest.mark.parametrize("font_size", [6.0, 9.0])
def test_another_character_on_a_tick_label_is_found(font_size):
    missed = [
        one + other
        for one, other in combinations("0123456789.\N{MINUS SIGN}", 2)
        if compare_pictures(
            draw(label=one, font_size=font_size), draw(label=other, font_size=font_size)
        )
        is None
    ]
    assert missed == []


def test_curves_drawn_two_pixels_higher_are_found():
    assert compare_pictures(draw(), draw(shift=2.0)) is not None


def test_another_size_is_found_and_told():
    difference = compare_pictures(encode(np.zeros((40, 60, 3))), encode(np.zeros((40, 70, 3))))
    assert difference.describe() == "it was 60 x 40 pixels, now 70 x 40"


def test_a_background_that_is_seen_only_in_the_dark_is_found():
    assert compare_pictures(draw(), draw(transparent=True)) is not None


def test_a_change_seen_only_in_the_dark_is_found():
    pixels = np.zeros((40, 60, 4))
    changed = pixels.copy()
    changed[10:20, 10:20] = 255
    assert compare_pictures(encode(pixels), encode(changed)) is not None
