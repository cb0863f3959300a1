"""Figures of a diagnosis: one run's chart, the order of questions, magnitudes of gradients."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from course_lib._validation import require_choice, require_type
from course_lib.digit_runs import FinishedRun
from course_lib.gradient_histograms import MagnitudeHistogram, MagnitudeHistory
from course_lib.lecture_checks import UnitsSweep
from course_lib.plots.monitor import plot_flow_record
from course_lib.plots.style import (
    BLUE,
    CYCLE,
    GREEN,
    INK,
    PURPLE,
    THEORY,
    VERMILLION,
    label_line,
    new_axes,
)
from course_lib.triage import LONG_STEP, QUESTIONS, SHORT_STEP, Triage
from course_lib.unlabelled_runs import UnlabelledRun

HEAT_DECADES = 4.0
"""The colors of a run's chart span at least this much."""
LOSS_CEILING = 1e6


def plot_run_chart(run: UnlabelledRun | FinishedRun) -> Figure:
    """Plot a run as four panels: loss, activation gradients, states of units, lengths of steps.

    Top right are layers by steps, colored by the logarithm of the gradient. Bottom left, per
    layer at the first sample: the share of values inactive or saturated (wide, pale), and of
    units dead (narrow). Bottom right is update over weight, per matrix; what is not finite is
    left out everywhere.
    """
    finished = run.run if isinstance(run, UnlabelledRun) else run
    require_type("run", finished, FinishedRun)
    # A layout by hand: with five axes the constrained one takes longer than all the drawing.
    figure, axes = plt.subplots(2, 2, figsize=(6.6, 4.4), width_ratios=(1, 1.35))
    figure.subplots_adjust(0.09, 0.11, 0.97, 0.92, wspace=0.34, hspace=0.42)
    _draw_loss(new_axes(axes[0, 0]), finished)
    plot_flow_record(finished.record, ax=axes[0, 1])
    mesh = axes[0, 1].collections[0]  # so that a fifth of a decade does not look like a fall
    mesh.set_clim(min(mesh.norm.vmin, mesh.norm.vmax - HEAT_DECADES), mesh.norm.vmax)
    _draw_units(new_axes(axes[1, 0]), finished)
    _draw_updates(new_axes(axes[1, 1]), finished)
    if isinstance(run, UnlabelledRun):
        figure.suptitle(f"Run {run.name}", fontsize=11)
    return figure


def _draw_loss(ax: Axes, run: FinishedRun) -> None:
    known = np.isfinite(run.losses)
    ax.plot(np.flatnonzero(known), run.losses[known], color=BLUE, linewidth=1.2)
    ax.axhline(np.log(10), color=THEORY, linewidth=1.0, linestyle="--")
    label_line(ax, len(run.losses), np.log(10), "guessing", THEORY, offset=(0, -7), ha="right")
    if known.any() and run.losses[known].max() > 50:
        ax.set_yscale("log")
        ax.set_ylim(0.5, min(LOSS_CEILING, 3 * run.losses[known].max()))
    else:
        ax.set_ylim(bottom=0)
    ax.set_xlim(-2, len(run.losses) + 1)
    ax.set_xlabel("step")
    ax.set_ylabel("loss")


def _draw_units(ax: Axes, run: FinishedRun) -> None:
    record = run.record
    hidden = [k for k, name in enumerate(record.activations) if name is not None]
    places = np.arange(len(hidden)) + 1
    flat = record.saturated_fractions[0, hidden]
    off = 1 - record.active_fractions[0, hidden]
    one_sided = np.isfinite(off)
    values, words = (off, "inactive") if one_sided.any() else (flat, "saturated")
    ax.bar(places, 100 * values, width=0.8, color="#cccccc" if one_sided.any() else PURPLE,
           label=f"values {words}")  # fmt: skip
    if one_sided.any():
        dead = np.nan_to_num(record.dead_fractions[0, hidden])
        ax.bar(places, 100 * dead, width=0.35, color=VERMILLION, label="units dead")
    ax.set_ylim(0, 135)
    ax.set_yticks([0, 50, 100])
    ax.set_xticks(places)
    ax.set_xlabel("layer")
    ax.set_ylabel("at step 0 (%)")
    ax.legend(fontsize=7, loc="upper right", framealpha=0.9)


def _draw_updates(ax: Axes, run: FinishedRun) -> None:
    record = run.record
    matrices = run.matrices
    ratios = record.update_ratios[:, matrices]
    shown = np.where(np.isfinite(ratios) & (ratios > 0), ratios, np.nan)
    for k, color in ((0, BLUE), (len(matrices) // 2, GREEN), (len(matrices) - 1, VERMILLION)):
        ax.plot(record.steps, shown[:, k], color=color, marker="os^"[min(k, 2)], markersize=3,
                linewidth=1.0, label=f"layer {k + 1}")  # fmt: skip
    ax.axhspan(SHORT_STEP, LONG_STEP, color="#eef5ee", zorder=0)
    ax.set_yscale("log")
    known = shown[np.isfinite(shown)]
    low, high = (known.min(), known.max()) if known.size else (1e-3, 1e-3)
    ax.set_ylim(min(1e-8, low / 1000), max(3.0, 3 * high))
    ax.set_xlim(-2, len(run.losses) + 1)
    ax.set_xlabel("step")
    ax.set_ylabel("update / weight")
    ax.legend(fontsize=7, loc="lower right", ncols=3, framealpha=0.9)


def plot_triage(result: Triage | None = None, *, ax: Axes | None = None) -> Axes:
    """Plot the questions from top to bottom, each with the cause that a yes names.

    Arguments:
        result: if given, its answers stand in the boxes, and what was not asked is pale.
        ax: where to draw; a new figure if None.
    """
    if result is not None:
        require_type("result", result, Triage)
    ax = new_axes(ax, size=(6.6, 6.2))
    ax.grid(False)
    ax.axis("off")
    count = len(QUESTIONS)
    asked = count if result is None else len(result.answers)
    for k, question in enumerate(QUESTIONS):
        top = count - k
        said_yes = result is not None and k < asked and result.answers[k].yes
        pale = k >= asked
        color = "#999999" if pale else INK
        number = ""
        if result is not None and not pale:
            value = result.answers[k].value
            number = "does not apply" if np.isnan(value) else f"here {value:.2g}"
        sign = r"$\geq$" if question.sign > 0 else r"$\leq$"
        lines = f"{question.text}\n{question.measurement}"
        _box(ax, 0.0, top, 6.3, lines, color, "#ffffff")
        fill = "#fbe3d6" if said_yes else "#ffffff"
        name = question.verdict.replace("_", " ")
        text = f"yes: {sign} {question.threshold:g}  {number}\n{name}"
        _box(ax, 6.9, top, 3.1, text, color, fill, bold=said_yes)
        ax.annotate("", (6.85, top), (6.35, top), arrowprops={"arrowstyle": "->", "color": color})
        end = top - 0.63
        ax.annotate("", (0.8, end), (0.8, top - 0.37),
                    arrowprops={"arrowstyle": "->", "color": color})  # fmt: skip
        ax.text(0.95, top - 0.5, "no", fontsize=7, color=color, va="center")
    healthy = result is not None and result.verdict == "healthy"
    _box(ax, 0.0, 0.0, 6.3, "healthy, as far as gradients go\ndata, labels, capacity, metric next",
         INK if asked == count and (result is None or healthy) else "#999999",
         "#dcefe6" if healthy else "#ffffff", bold=healthy)  # fmt: skip
    ax.set_xlim(-0.1, 10.1)
    ax.set_ylim(-0.45, count + 0.45)
    return ax


def _box(ax: Axes, x: float, y: float, width: float, text: str, color: str, fill: str,
         *, bold: bool = False) -> None:  # fmt: skip
    ax.add_patch(
        FancyBboxPatch((x, y - 0.33), width, 0.66, boxstyle="round,pad=0,rounding_size=0.1",
                       edgecolor=color, facecolor=fill, linewidth=1.8 if bold else 0.9)
    )  # fmt: skip
    ax.text(x + 0.12, y, text, fontsize=8, color=color, va="center", linespacing=1.35,
            weight="bold" if bold else "normal")  # fmt: skip


def plot_magnitudes(histogram: MagnitudeHistogram, *, ax: Axes | None = None) -> Axes:
    """Plot a histogram of magnitudes as one row per tensor, the first at the bottom.

    The color is the share of the tensor's entries in the bin; the white mark is their median; on
    the right stand the shares of exact zeros, and of what is not finite.
    """
    require_type("histogram", histogram, MagnitudeHistogram)
    rows = len(histogram.names)
    ax = new_axes(ax, size=(6.4, float(np.clip(1.3 + 0.26 * rows, 2.6, 8.0))))
    ax.grid(False)
    _draw_shares(ax, histogram.edges, np.arange(rows + 1) - 0.5, histogram.shares)
    with np.errstate(divide="ignore", invalid="ignore"):
        ax.plot(np.log10(histogram.medians), range(rows), color="white", marker="|", markersize=9,
                markeredgewidth=2.0, linestyle="none")  # fmt: skip
    ax.set_yticks(range(rows), histogram.names, fontsize=8)
    for k, (zeros, bad) in enumerate(zip(histogram.zeros, histogram.nonfinite, strict=True)):
        text = f"{100 * zeros / histogram.sizes[k]:.0f} %"
        text += f", {int(bad)} not finite" if bad else ""
        ax.annotate(text, (1.01, k), xycoords=("axes fraction", "data"), fontsize=8, va="center")
    ax.annotate("zeros", (1.01, rows - 0.35), xycoords=("axes fraction", "data"), fontsize=8)
    ax.set_xlabel(r"$\log_{10}|g|$")
    return ax


def plot_magnitude_history(
    history: MagnitudeHistory, name: str, *, ax: Axes | None = None
) -> Axes:
    """Plot one tensor's magnitudes over the steps: a column per step, zeros below the axis.

    Arguments:
        history: of `count_magnitudes` at several steps.
        name: one of its tensors.
        ax: where to draw; a new figure if None.
    """
    require_type("history", history, MagnitudeHistory)
    row = history.names.index(require_choice("name", name, history.names))
    ax = new_axes(ax)
    ax.grid(False)
    edges = history.histograms[0].edges
    shares = np.array([histogram.shares[row] for histogram in history.histograms])
    middles = (history.steps[1:] + history.steps[:-1]) / 2
    ends = (2 * history.steps[0] - middles[0], 2 * history.steps[-1] - middles[-1])
    _draw_shares(ax, np.array([ends[0], *middles, ends[1]]), edges, shares.T)
    with np.errstate(divide="ignore", invalid="ignore"):
        ax.plot(history.steps, np.log10(history.medians()[:, row]), color="white", linewidth=1.6)
    zeros = ax.twinx()
    zeros.plot(history.steps, 100 * history.zero_shares()[:, row], color=VERMILLION, linewidth=1.6)
    zeros.set_ylim(0, 100)
    zeros.set_ylabel("exact zeros (%)", color=VERMILLION)
    ax.set_xlabel("step")
    ax.set_ylabel(r"$\log_{10}|g|$, " + name)
    return ax


def _draw_shares(ax: Axes, x: np.ndarray, y: np.ndarray, shares: np.ndarray) -> None:
    """Draw shares as colors, an empty bin left white."""
    mesh = ax.pcolormesh(x, y, np.ma.masked_equal(100 * shares, 0), cmap="cividis", vmin=0,
                         rasterized=True)  # fmt: skip
    ax.figure.colorbar(mesh, ax=ax, label="entries in the bin (%)", pad=0.13)


def plot_units_sweep(sweep: UnitsSweep, *, ax: Axes | None = None) -> Axes:
    """Plot the number of right verdicts against the factor on the loss, one line per check."""
    require_type("sweep", sweep, UnitsSweep)
    ax = new_axes(ax)
    for k, name in enumerate(sweep.checks):
        color = CYCLE[k % len(CYCLE)]
        shift = 0.05 * (k - (len(sweep.checks) - 1) / 2)  # lines that coincide stay visible
        ax.plot(sweep.factors, sweep.right[k] + shift, color=color, marker="os^Dv*"[k % 6],
                markersize=4, linewidth=1.4, label=name)  # fmt: skip
    ax.set_xscale("log")
    ax.set_ylim(-0.3, sweep.count + 0.4)
    ax.set_xlabel("factor on the loss (the run is the same)")
    ax.set_ylabel(f"right verdicts of {sweep.count}")
    ax.figure.legend(fontsize=8, frameon=False, loc="outside upper center", ncols=3)
    return ax
