"""Figures of products of Jacobians."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from course_lib._validation import (
    require_array,
    require_flag,
    require_integer,
    require_labelled,
    require_sequence,
)
from course_lib.jacobians import ProductGrowth
from course_lib.plots.style import (
    CYCLE,
    INK,
    SKY,
    THEORY,
    VERMILLION,
    label_line,
    new_axes,
    number_every_panel,
)

RESOLVED = 1e-13
"""Singular values below this fraction of the largest are rounding error and are not drawn."""


def plot_shape_chain(layer_sizes: Sequence[int], *, ax: Axes | None = None) -> Axes:
    """Draw the product dh_L/dh_1 = J_L ... J_2 as blocks: height is rows, width is columns.

    Arguments:
        layer_sizes: $(n_0, ..., n_L)$ with L >= 2.
        ax: where to draw; a new figure if None.
    """
    if len(require_sequence("layer_sizes", layer_sizes, of="sizes")) < 3:
        raise ValueError(f"`layer_sizes` (={layer_sizes!r}) must hold at least 3 sizes.")
    sizes = [require_integer(f"layer_sizes[{k}]", n, minimum=1) for k, n in enumerate(layer_sizes)]
    depth = len(sizes) - 1
    ax = new_axes(ax, size=(6.4, 2.6))
    ax.set_axis_off()
    blocks = [(f"$J_{{{k}}}$", sizes[k], sizes[k - 1]) for k in range(depth, 1, -1)]
    blocks.append((rf"$\partial h_{{{depth}}}/\partial h_1$", sizes[depth], sizes[1]))
    gap, x, top = 0.28 * max(sizes), 0.0, max(sizes)
    for place, (name, rows, columns) in enumerate(blocks):
        result = place == len(blocks) - 1
        color = VERMILLION if result else SKY
        ax.add_patch(Rectangle((x, -rows / 2), columns, rows, facecolor=color, alpha=0.35))
        ax.add_patch(Rectangle((x, -rows / 2), columns, rows, fill=False, edgecolor=INK))
        ax.text(x + columns / 2, 0, name, ha="center", va="center", fontsize=11, color=INK)
        ax.text(x + columns / 2, -rows / 2 - 0.06 * top, f"{rows} × {columns}", ha="center",
                va="top", fontsize=9, color=INK)  # fmt: skip
        x += columns + gap
        if not result:
            sign = "=" if place == len(blocks) - 2 else "·"
            ax.text(x - gap / 2, 0, sign, ha="center", va="center", fontsize=15, color=INK)
    ax.set_xlim(-0.1 * top, x - gap + 0.1 * top)
    ax.set_ylim(-0.75 * top, 0.6 * top)
    ax.set_aspect("equal")
    return ax


def plot_power_chains(chains: Mapping[str, np.ndarray], *, ax: Axes | None = None) -> Axes:
    """Plot repeated products against depth, with the range of their floating-point type.

    Arguments:
        chains: label -> powers as `course_lib.theory.power_chain` returns them, all of one
            floating-point type. A power stored as zero or inf ends its line with a cross.
        ax: where to draw; a new figure if None.
    """
    require_labelled("chains", chains, np.ndarray)
    for label, chain in chains.items():
        require_array(f"chains[{label!r}]", chain, ndim=1, finite=False)
        if chain.dtype.kind != "f":
            raise TypeError(f"`chains[{label!r}]` (dtype {chain.dtype}) must be of a float type.")
    ax = new_axes(ax)
    limits = np.finfo(next(iter(chains.values())).dtype)
    for color, (label, chain) in zip(_colors(len(chains)), chains.items(), strict=True):
        depths = np.arange(1, len(chain) + 1)
        inside = (chain != 0) & np.isfinite(chain)
        values = np.log10(chain[inside].astype(np.float64))
        ax.plot(depths[inside], values, color=color, linewidth=1.8)
        if not inside.all():
            ax.plot(depths[inside][-1], values[-1], color=color, marker="x", markersize=9,
                    markeredgewidth=2)  # fmt: skip
        middle, rise = len(values) // 2, 8 if values[-1] > values[0] else -8
        label_line(ax, depths[inside][middle], values[middle], label, color, offset=(-8, rise),
                   ha="right")  # fmt: skip
    for text, edge in (
        ("largest number", limits.max),
        ("smallest normal number", limits.smallest_normal),
        ("smallest subnormal number", limits.smallest_subnormal),
    ):
        height = np.log10(float(edge))
        ax.axhline(height, color=THEORY, linewidth=1.0, linestyle="--", zorder=1)
        ax.annotate(text, (1, height), xytext=(0, 3), textcoords="offset points", va="bottom",
                    fontsize=8, color=THEORY)  # fmt: skip
    ax.set_xlabel("number of factors")
    ax.set_ylabel(f"log10 of the product ({limits.dtype})")
    return ax


def plot_product_norms(
    growths: Mapping[str, ProductGrowth], *, bound: bool = False, ax: Axes | None = None
) -> Axes:
    """Plot the norm of the running product against the number of factors, one line per chain.

    Arguments:
        growths: label -> result of `measure_product`.
        bound: also draw the product of the norms, as a thin dashed line.
        ax: where to draw; a new figure if None.
    """
    require_labelled("growths", growths, ProductGrowth)
    bound = require_flag("bound", bound)
    ax = new_axes(ax)
    for style, color, (label, growth) in _styled(growths):
        counts = np.arange(1, growth.count + 1)
        ax.plot(counts, growth.norms, color=color, label=label, **style)
        if bound:
            ax.plot(counts, growth.norm_products, color=color, linewidth=0.9, linestyle="--")
    ax.set_yscale("log")
    ax.set_xlabel("number of factors $k$")
    ax.set_ylabel(r"$\|M_k \cdots M_1\|$")
    ax.legend(frameon=False, fontsize=9)
    return ax


def plot_condition_numbers(
    growths: Mapping[str, ProductGrowth], *, ax: Axes | None = None
) -> Axes:
    """Plot the condition number of the running product, one line per labelled chain."""
    require_labelled("growths", growths, ProductGrowth)
    ax = new_axes(ax)
    for style, color, (label, growth) in _styled(growths):
        finite = np.isfinite(growth.condition_numbers)
        counts = np.arange(1, growth.count + 1)[finite]
        ax.plot(counts, growth.condition_numbers[finite], color=color, label=label, **style)
    ax.set_yscale("log")
    ax.set_xlabel("number of factors $k$")
    ax.set_ylabel(r"$\kappa(M_k \cdots M_1)$")
    ax.legend(frameon=False, fontsize=9)
    return ax


def plot_spectra(growths: Mapping[str, ProductGrowth], *, lines: int = 9) -> Figure:
    """Plot singular values of the running product, one panel per labelled chain.

    Arguments:
        growths: label -> result of `measure_product`.
        lines: how many of the singular values to draw, evenly spread by rank, the largest (bold)
            and the smallest included; all of them if there are fewer.

    Values too small beside the largest for float64 to resolve are left out; exact zeros cannot
    be drawn on a logarithmic axis.
    """
    require_labelled("growths", growths, ProductGrowth)
    lines = require_integer("lines", lines, minimum=1)
    columns = min(2, len(growths))
    rows = -(-len(growths) // columns)
    figure, panels = plt.subplots(
        rows, columns, figsize=(7.0, 0.6 + 2.4 * rows), sharex=True, sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax in panels.flat[len(growths) :]:
        ax.set_axis_off()
    for place, (label, growth) in enumerate(growths.items()):
        ax, color = new_axes(panels.flat[place]), CYCLE[place % len(CYCLE)]
        counts = np.arange(1, growth.count + 1)
        values = np.where(
            growth.singular_values > RESOLVED * growth.norms[:, None],
            growth.singular_values,
            np.nan,
        )
        ranks = np.unique(np.linspace(0, values.shape[1] - 1, lines).round().astype(int))
        ax.plot(counts, values[:, ranks], color=color, linewidth=1.0)
        ax.plot(counts, growth.norms, color=color, linewidth=2.0)
        ax.set_yscale("log")
        ax.set_title(label, fontsize=10, color=color)
        ax.set_xlabel("number of layers")
        ax.set_ylabel("singular values")
    number_every_panel(figure)
    return figure


def _colors(count: int) -> list[str]:
    return [CYCLE[k % len(CYCLE)] for k in range(count)]


def _styled(growths: Mapping[str, ProductGrowth]) -> list[tuple]:
    """Give each chain a color and a width; earlier lines are broader, so coinciding ones show."""
    widths = np.linspace(4.0, 1.6, len(growths)) if len(growths) > 1 else [2.0]
    return [
        ({"linewidth": width}, color, item)
        for width, color, item in zip(widths, _colors(len(growths)), growths.items(), strict=True)
    ]
