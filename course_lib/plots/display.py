"""The one way a chapter shows a figure: with the words that say what it shows."""

from __future__ import annotations

import base64
import io
import json
import re
from dataclasses import astuple

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, PngImagePlugin  # Matplotlib itself depends on it

from course_lib.plots.panels import find_panels

DOTS_PER_INCH = 150
COLOR_STEP = 17
"""Each color channel keeps 16 of 256 levels: no eye sees it, and the file is a third as large."""
PANELS = "Panels"
"""The entry of the PNG that says where its panels are: [[left, top, right, bottom, place], ...]."""


def render_png(figure: Figure) -> bytes:
    """Return the figure as PNG; the same figure gives the same bytes on one machine.

    If panels stand side by side, the file says where: the book puts them one below the other on a
    narrow screen, where the whole would be too small to read.
    """
    buffer, smaller = io.BytesIO(), io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DOTS_PER_INCH, facecolor="white")
    picture = np.asarray(Image.open(buffer).convert("RGB"), dtype=np.float64)
    image = Image.fromarray((np.rint(picture / COLOR_STEP) * COLOR_STEP).astype(np.uint8))
    if image.getcolors(maxcolors=256) is not None:  # a palette holds them all, exactly
        image = image.convert("P", palette=Image.Palette.ADAPTIVE, colors=256)
    entries, panels = PngImagePlugin.PngInfo(), find_panels(figure)
    if panels:
        edges = [[round(share, 4) for share in astuple(panel)[:4]] for panel in panels]
        places = [[*edge, panel.place] for edge, panel in zip(edges, panels, strict=True)]
        entries.add_text(PANELS, json.dumps(places))
    image.save(smaller, format="PNG", optimize=True, pnginfo=entries)
    return smaller.getvalue()


def show(figure: Axes | Figure, words: str) -> None:
    """Display a figure in a notebook, say in words what it shows, and close it.

    Two outputs are made. The picture carries `words` as its plain-text form: nbval compares them,
    and the book takes them for the picture's alternative text. A caption with the same words
    follows as Markdown, for readers in Jupyter, Colab and on GitHub.

    Arguments:
        figure: an Axes (its whole figure is shown) or a Figure.
        words: one or more sentences, computed from the result that was plotted.
    """
    from IPython.display import display  # a notebook has it; a script that plots need not

    if isinstance(figure, Axes):
        figure = figure.figure
    if not isinstance(figure, Figure):
        raise TypeError(f"`figure` (={figure!r}) must be a matplotlib Axes or Figure.")
    if not isinstance(words, str):
        raise TypeError(f"`words` (={words!r}) must be a string.")
    words = " ".join(words.split())
    if len(words) < 20:
        raise ValueError(f"`words` (={words!r}) must say in a sentence what the figure shows.")
    png = base64.b64encode(render_png(figure)).decode("ascii")
    width = round(figure.get_size_inches()[0] * 100)
    plt.close(figure)
    display(
        {"image/png": png, "text/plain": words},
        metadata={"image/png": {"alt": words, "width": width}},
        raw=True,
    )
    caption = "*Figure.* " + re.sub(r"([\\`*_{}\[\]<>#|$~])", r"\\\1", words)
    display({"text/markdown": caption, "text/plain": words}, raw=True)
