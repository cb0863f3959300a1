"""One look for every figure: colors, markers, sizes.

The colors are Okabe and Ito's, told apart with every common color vision deficiency. Figures keep
an opaque white ground, so that they are the same in a light and in a dark page.
"""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

FIGURE_SIZE = (6.4, 3.8)
"""Width and height in inches; `show` draws 150 dots per inch."""

INK = "#222222"
THEORY = "#666666"
BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#AA4499"
ORANGE, SKY = "#E69F00", "#56B4E9"
CYCLE = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE, SKY)

FRAMEWORK_STYLES = {
    "NumPy": {"color": "#999999", "linewidth": 5.0, "alpha": 0.55, "solid_capstyle": "round"},
    "PyTorch": {
        "color": VERMILLION,
        "marker": "o",
        "markersize": 8,
        "markerfacecolor": "none",
        "linestyle": "none",
    },
    "TensorFlow": {"color": BLUE, "marker": "x", "markersize": 6, "linestyle": "none"},
}
"""Coinciding results stay visible: a broad band, open circles and crosses on top of each other."""


def new_axes(ax: Axes | None, *, size: tuple[float, float] = FIGURE_SIZE) -> Axes:
    """Return `ax`, or the axes of a new figure that belongs to the caller."""
    if ax is None:
        _, ax = plt.subplots(figsize=size, layout="constrained")
    elif not isinstance(ax, Axes):
        raise TypeError(f"`ax` (={ax!r}) must be a matplotlib Axes or None.")
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(True, color="#e4e4e4", linewidth=0.6)
    ax.set_axisbelow(True)
    return ax


def label_line(ax: Axes, x: float, y: float, text: str, color: str, **kwargs: object) -> None:
    """Write `text` beside the point (x, y), in the color of what it names."""
    offset = kwargs.pop("offset", (6, 0))
    ax.annotate(
        text,
        (x, y),
        xytext=offset,
        textcoords="offset points",
        color=color,
        va="center",
        fontsize=9,
        **kwargs,
    )


def number_every_panel(figure: Figure) -> None:
    """Write the numbers of shared axes at each panel: on a narrow screen each stands alone."""
    for ax in figure.axes:
        ax.tick_params(labelleft=True, labelbottom=True)


def layer_ticks(ax: Axes, depth: int) -> None:
    """Give the horizontal axis whole layer numbers 1..depth, at most about a dozen of them."""
    stride = max(1, int(np.ceil(depth / 12)))
    ax.set_xticks([*range(1, depth + 1, stride)])
    ax.set_xlim(0.5, depth + 0.5)
