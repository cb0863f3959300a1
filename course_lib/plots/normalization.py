"""Figures of normalization and residual connections."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import LogLocator, NullFormatter

from course_lib._validation import (
    require_integer,
    require_labelled,
    require_sequence,
    require_type,
)
from course_lib.normalization import NormRates
from course_lib.plots.initialization import MARKERS, draw_profile, finish_profiles
from course_lib.plots.style import BLUE, CYCLE, INK, THEORY, VERMILLION, label_line, new_axes
from course_lib.residuals import PathExpansion
from course_lib.stack_results import StackProfile, StackRun


def plot_shared_entries(inputs: int = 5, units: int = 8) -> Figure:
    """Draw a batch as a grid twice, with the entries that share a mean: a column, then a row.

    Arguments:
        inputs: rows of the grid, at least 2.
        units: columns, at least 2.
    """
    inputs = require_integer("inputs", inputs, minimum=2)
    units = require_integer("units", units, minimum=2)
    figure, panels = plt.subplots(1, 2, figsize=(6.8, 2.9), layout="constrained")
    for ax, title, color, column in zip(
        panels, ("batch normalization", "layer normalization"), (BLUE, VERMILLION), (True, False),
        strict=True,
    ):  # fmt: skip
        for row in range(inputs):
            for place in range(units):
                shared = place == 2 if column else row == 1
                ax.add_patch(
                    Rectangle((place, -row), 0.9, 0.8, facecolor=color if shared else "#e6e6e6")
                )
        ax.set_xlim(-0.2, units)
        ax.set_ylim(0.9 - inputs, 1.0)
        ax.set_aspect("equal")
        ax.set_xticks([])
        ax.set_yticks([])
        ax.spines[:].set_visible(False)
        ax.set_xlabel("units")
        ax.set_ylabel("inputs of the batch")
        ax.set_title(title, fontsize=10, color=INK)
    return figure


def plot_stack_profiles(profiles: Mapping[str, StackProfile], *, every: int = 4) -> Figure:
    """Plot the size of the states (left) and of their gradients (right) by block.

    Markers are measured, thin lines of the same color are the prediction, where there is one.

    Arguments:
        profiles: label -> result of `measure_stack`; stacks of one depth.
        every: draw a marker in each `every`-th block.
    """
    require_labelled("profiles", profiles, StackProfile)
    every = require_integer("every", every, minimum=1)
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 4.2), layout="constrained")
    forward, backward = (new_axes(ax) for ax in panels)
    for k, (label, profile) in enumerate(profiles.items()):
        style = dict(every=every, color=CYCLE[k % len(CYCLE)], marker=MARKERS[k % len(MARKERS)],
                     label=label)  # fmt: skip
        places = np.arange(profile.spec.blocks + 1)
        draw_profile(forward, places, profile.forward, profile.forward_theory, **style)
        draw_profile(backward, places, profile.backward, profile.backward_theory, **style)
    forward.set_title("states: size of $h_l$", fontsize=10)
    finish_profiles(figure, forward, backward, unit="block")
    for ax in (forward, backward):
        low, high = ax.get_ylim()
        if high < 10.0 * low:  # an axis of less than a decade has hardly a number on it
            ax.set_ylim(low / 3.0, high * 3.0)
        number_short_axis(ax)
    return figure


def number_short_axis(ax: Axes) -> None:
    """Write 0.2, 0.5, 1 on a logarithmic axis of less than two decades, and not powers of ten."""
    low, high = ax.get_ylim()
    if high < 100.0 * low:
        ax.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        ax.yaxis.set_major_formatter("{x:g}")
        ax.yaxis.set_minor_formatter(NullFormatter())


def plot_norm_rates(tables: Mapping[str, NormRates], *, ax: Axes | None = None) -> Axes:
    """Plot the gradient's factor per layer against the batch size, theory as a dashed line.

    Each point is one network: all depths and seeds of a table are shown.

    Arguments:
        tables: label -> result of `measure_norm_rates`.
        ax: where to draw; a new figure if None.
    """
    require_labelled("tables", tables, NormRates)
    ax = new_axes(ax)
    for k, (label, table) in enumerate(tables.items()):
        color, marker = CYCLE[k % len(CYCLE)], MARKERS[k % len(MARKERS)]
        points = table.rates.reshape(len(table.inputs), -1)
        x = np.repeat(table.inputs, points.shape[1])
        ax.plot(x, points.ravel(), color=color, marker=marker, markersize=5, alpha=0.7,
                linestyle="none")  # fmt: skip
        ax.axhline(table.theory, color=color, linewidth=1.0, linestyle="--", zorder=1)
        label_line(ax, table.inputs[-1], float(points[-1].max()), label, color, ha="right",
                   offset=(4, 11), annotation_clip=False)  # fmt: skip
    ax.axhline(1.0, color=THEORY, linewidth=0.8, zorder=0)
    ax.set_xscale("log")
    ax.set_xticks([*next(iter(tables.values())).inputs], minor=False)
    ax.set_xticks([], minor=True)
    ax.xaxis.set_major_formatter("{x:.0f}")
    ax.set_xlabel("batch size $B$")
    ax.set_ylabel("factor per layer of the gradient")
    return ax


def plot_stack_runs(runs: Mapping[str, Sequence[StackRun]], *, ax: Axes | None = None) -> Axes:
    """Plot the losses of training runs on a logarithmic axis, one color per label.

    Arguments:
        runs: label -> runs that differ by their seed.
        ax: where to draw; a new figure if None.
    """
    if not isinstance(runs, Mapping) or not runs:
        raise ValueError(f"`runs` (={runs!r}) must map at least one label to runs.")
    ax = new_axes(ax)
    for k, (label, group) in enumerate(runs.items()):
        color = CYCLE[k % len(CYCLE)]
        for n, run in enumerate(require_sequence(f"runs[{label!r}]", group, of="runs")):
            losses = require_type(f"runs[{label!r}][{n}]", run, StackRun).losses
            ax.plot(losses, color=color, linewidth=0.9, alpha=0.85, label=None if n else label)
    ax.set_yscale("log")
    ax.set_xlabel("step")
    ax.set_ylabel(r"loss $\mathcal{L}$ on the step's batch")
    number_short_axis(ax)
    legend = ax.legend(frameon=False, fontsize=9)
    for line in legend.get_lines():
        line.set_linewidth(2.5)
    return ax


def plot_path_lengths(expansions: Mapping[str, PathExpansion], *, ax: Axes | None = None) -> Axes:
    """Plot the size of each ordered term of the product against the number of branches in it.

    Arguments:
        expansions: label -> result of `expand_product`.
        ax: where to draw; a new figure if None.
    """
    require_labelled("expansions", expansions, PathExpansion)
    ax = new_axes(ax)
    for k, (label, expansion) in enumerate(expansions.items()):
        color, marker = CYCLE[k % len(CYCLE)], MARKERS[k % len(MARKERS)]
        ax.plot(expansion.norms, color=color, marker=marker, markersize=5, linewidth=1.2,
                label=label)  # fmt: skip
    ax.axhline(1.0, color=THEORY, linewidth=1.0, linestyle="--", zorder=1)
    ax.set_yscale("log")
    ax.set_ylim(bottom=1e-3)
    ax.set_xlabel("branches on the path, $k$")
    ax.set_ylabel(r"size of the term $E_k$")
    ax.legend(frameon=False, fontsize=9)
    return ax
