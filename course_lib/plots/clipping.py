"""Figures of clipping and of learning rates."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle, Rectangle

from course_lib._validation import (
    require_array,
    require_instances,
    require_labelled,
    require_labelled_lists,
    require_real,
)
from course_lib.clipped_training import ClippedRun
from course_lib.clipping import ClipReport, clip_by_global_norm, clip_by_value
from course_lib.learning_rate import QuadraticDescent, SpikeResponse
from course_lib.plots.style import (
    BLUE,
    CYCLE,
    GREEN,
    INK,
    THEORY,
    VERMILLION,
    label_line,
    new_axes,
)

WAY_STYLES = {
    "value": ("by value", VERMILLION, "s"),
    "tensor": ("per tensor", GREEN, "^"),
    "global": ("by global norm", BLUE, "o"),
}


def plot_clip_regions(gradient: np.ndarray, limit: float, *, ax: Axes | None = None) -> Axes:
    """Plot a gradient of two entries, the square and the circle it is clipped to, and the results.

    Arguments:
        gradient: shape (2,).
        limit: half the side of the square and radius of the circle.
        ax: where to draw; a new figure if None.
    """
    gradient = require_array("gradient", gradient, shape=(2,))
    limit = require_real("limit", limit, minimum=0.0, exclusive=True)
    ax = new_axes(ax, size=(6.4, 3.4))
    ax.add_patch(Rectangle((-limit, -limit), 2 * limit, 2 * limit, fill=False,
                           edgecolor=VERMILLION, linestyle="--"))  # fmt: skip
    ax.add_patch(Circle((0, 0), limit, fill=False, edgecolor=BLUE, linestyle="--"))
    arrows = (
        (gradient, INK, "gradient", (6, 0)),
        (clip_by_value([gradient], limit)[0], VERMILLION, "by value", (6, 6)),
        (clip_by_global_norm([gradient], limit)[0], BLUE, "by norm", (10, -12)),
    )
    for end, color, text, offset in arrows:
        ax.annotate("", end, (0, 0), arrowprops={"arrowstyle": "-|>", "color": color, "lw": 2,
                                                 "shrinkA": 0, "shrinkB": 0})  # fmt: skip
        label_line(ax, *end, text, color, offset=offset)
    reach = 1.25 * max(limit, float(np.max(np.abs(gradient))))
    ax.set_xlim(-1.25 * limit, reach)
    ax.set_ylim(-1.25 * limit, max(1.5 * limit, 1.25 * float(gradient[1])))
    ax.set_aspect("equal")
    ax.set_xlabel("first entry")
    ax.set_ylabel("second entry")
    return ax


def plot_clip_norms(reports: Sequence[ClipReport], *, ax: Axes | None = None) -> Axes:
    """Plot the norm of each tensor before (gray bars) and after each of the ways to clip.

    Arguments:
        reports: results of `measure_clipping` for the same gradient, one or more ways.
        ax: where to draw; a new figure if None.
    """
    require_instances("reports", reports, ClipReport)
    ax = new_axes(ax)
    places = np.arange(len(reports[0].names))
    before = reports[0].norms_before
    after = np.concatenate([report.norms_after for report in reports])
    floor = 0.3 * np.min(after[after > 0])
    ax.bar(places, before - floor, bottom=floor, width=0.6, color="#cccccc")
    for k, report in enumerate(reports):
        label, color, marker = WAY_STYLES[report.way]
        shift = 0.2 * (k - 0.5 * (len(reports) - 1))
        ax.plot(places + shift, report.norms_after, color=color, marker=marker, markersize=8,
                linestyle="none", label=f"{label}, {abs(report.angle):.0f}°")  # fmt: skip
    ax.set_yscale("log")
    ax.set_xticks(places, reports[0].names)
    ax.set_ylabel("norm of the gradient")
    ax.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1),
              ncols=3, handletextpad=0.2, columnspacing=1.2)  # fmt: skip
    return ax


def plot_final_losses(
    runs: Mapping[str, Sequence[ClippedRun]], *, ax: Axes | None = None
) -> Axes:
    """Plot the loss at the end against the limit on the norm; without clipping as dashed lines.

    Arguments:
        runs: label -> runs with different limits; one of them may be without clipping.
        ax: where to draw; a new figure if None.
    """
    require_labelled_lists("runs", runs, ClippedRun)
    ax = new_axes(ax)
    for k, (label, group) in enumerate(runs.items()):
        color = CYCLE[k % len(CYCLE)]
        clipped = sorted((r for r in group if r.clip_norm is not None), key=lambda r: r.clip_norm)
        limits = np.array([r.clip_norm for r in clipped])
        losses = np.array([r.final_loss for r in clipped])
        ax.plot(limits, losses, color=color, marker="o", markersize=5)
        label_line(ax, limits[0], losses[0], label, color, offset=(0, 12))
        for run in group:
            if run.clip_norm is None:
                ax.axhline(run.final_loss, color=color, linewidth=1.2, linestyle=(5 * k, (5, 5)))
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_xlabel(r"limit $\tau$ on the global norm")
    ax.set_ylabel("loss at the end")
    return ax


def plot_spike_responses(
    responses: Mapping[str, SpikeResponse], *, before: int = 100, ax: Axes | None = None
) -> Axes:
    """Plot lengths of updates, relative to the median before the spike, around the spike.

    Arguments:
        responses: label -> result of `respond_to_grads`.
        before: how many steps before the spike to show.
        ax: where to draw; a new figure if None.
    """
    require_labelled("responses", responses, SpikeResponse)
    ax = new_axes(ax)
    for k, (label, response) in enumerate(responses.items()):
        spike = response.spike
        usual = np.median(response.step_lengths[:spike])
        lengths = response.step_lengths[max(0, spike - before) :] / usual
        steps = np.arange(len(lengths)) - min(before, spike)
        color = CYCLE[k % len(CYCLE)]
        ax.plot(steps, lengths, color=color, linewidth=0.8, label=label, zorder=2 + k)
    ax.axvline(0, color=THEORY, linewidth=1.0, linestyle="--", zorder=1)
    ax.set_yscale("log")
    ax.set_xlabel("steps since the spike")
    ax.set_ylabel("length of the update\nrelative to the usual one")
    legend = ax.legend(frameon=False, fontsize=9, loc="upper right")
    for line in legend.get_lines():
        line.set_linewidth(2.5)
    return ax


def plot_descents(
    descents: Mapping[str, QuadraticDescent], *, ceiling: float = 1e6, ax: Axes | None = None
) -> Axes:
    """Plot losses of gradient descent on a quadratic on a logarithmic axis.

    Arguments:
        descents: label -> result of `descend_quadratic`.
        ceiling: top of the axis; its inverse is the bottom.
        ax: where to draw; a new figure if None.
    """
    require_labelled("descents", descents, QuadraticDescent)
    ax = new_axes(ax)
    for k, (label, descent) in enumerate(descents.items()):
        color = CYCLE[k % len(CYCLE)]
        inside = np.flatnonzero((descent.losses <= ceiling) & (descent.losses >= 1 / ceiling))
        last = int(inside[-1])
        ax.plot(np.arange(last + 1), descent.losses[: last + 1], color=color)
        label_line(ax, last, descent.losses[last], label, color)
    ax.set_yscale("log")
    ax.set_ylim(1 / ceiling, ceiling)
    longest = max(len(descent.losses) for descent in descents.values())
    ax.set_xlim(0, 1.3 * longest)
    ax.set_xlabel("step")
    ax.set_ylabel(r"loss $\mathcal{L}$")
    return ax
