"""Figures of backpropagation through time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Circle

from course_lib._validation import require_array, require_integer
from course_lib.echo import EchoCurve
from course_lib.growth_in_time import GainSweep
from course_lib.plots.style import (
    BLUE,
    CYCLE,
    INK,
    SKY,
    THEORY,
    VERMILLION,
    label_line,
    new_axes,
)
from course_lib.time_contributions import TimeContributions

MARKERS = ("o", "s", "^", "D", "v", "P")


def _require_mapping(name: str, value: object, kind: type) -> None:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"`{name}` (={value!r}) must map labels to {kind.__name__} records.")
    for label, record in value.items():
        if not isinstance(record, kind):
            raise TypeError(f"`{name}[{label!r}]` (={record!r}) must be a {kind.__name__}.")


def _arrow(ax: Axes, start: tuple, end: tuple, color: str, **style: object) -> None:
    options = {"arrowstyle": "-|>", "color": color, "linewidth": 1.6, "shrinkA": 0, "shrinkB": 0}
    ax.annotate("", end, start, arrowprops=options | style)


def plot_unrolled_graph(steps: int, *, ax: Axes | None = None) -> Axes:
    """Draw a plain recurrent network unrolled over `steps` steps, with both directions.

    Forward arrows are blue and carry the matrix's name, the gradient's way back is red and
    carries the transposed Jacobian's. The loss stands at the last step.

    Arguments:
        steps: at least 2 and at most 6.
        ax: where to draw; a new figure if None.
    """
    steps = require_integer("steps", steps, minimum=2)
    if steps > 6:
        raise ValueError(f"`steps` (={steps}) must be <= 6 to stay readable.")
    ax = new_axes(ax, size=(6.8, 3.0))
    ax.set_axis_off()
    gap, radius = 2.0, 0.36
    for t in range(steps + 1):
        x = gap * t
        ax.add_patch(Circle((x, 0), radius, facecolor=SKY if t else "white", alpha=0.5))
        ax.add_patch(Circle((x, 0), radius, fill=False, edgecolor=INK))
        ax.text(x, 0, f"$h_{t}$", ha="center", va="center", fontsize=12, color=INK)
        if t == 0:
            continue
        _arrow(ax, (x - gap + radius, 0.08), (x - radius, 0.08), BLUE)
        ax.text(x - gap / 2, 0.16, "$W_{hh}$", ha="center", va="bottom", fontsize=10, color=BLUE)
        if t > 1:
            _arrow(ax, (x - radius, -0.1), (x - gap + radius, -0.1), VERMILLION, linestyle="--")
            ax.text(x - gap / 2, -0.2, rf"$J_{t}^\top$", ha="center", va="top", fontsize=11,
                    color=VERMILLION)  # fmt: skip
        ax.text(x, -1.5, f"$x_{t}$", ha="center", va="center", fontsize=12, color=INK)
        _arrow(ax, (x, -1.25), (x, -radius), BLUE)
        ax.text(x + 0.08, -0.95, "$W_{xh}$", ha="left", va="center", fontsize=10, color=BLUE)
    end = gap * steps
    ax.text(end, 1.45, r"$\mathcal{L}$", ha="center", va="center", fontsize=14, color=INK)
    _arrow(ax, (end - 0.08, radius), (end - 0.08, 1.2), BLUE)
    _arrow(ax, (end + 0.1, 1.2), (end + 0.1, radius), VERMILLION, linestyle="--")
    ax.text(end + 0.2, 0.8, rf"$\partial\mathcal{{L}}/\partial h_{steps}$", ha="left",
            va="center", fontsize=11, color=VERMILLION)  # fmt: skip
    ax.set_xlim(-0.6, end + 1.5)
    ax.set_ylim(-1.8, 1.8)
    ax.set_aspect("equal")
    return ax


def plot_time_contributions(
    contributions: Mapping[str, TimeContributions], *, ax: Axes | None = None
) -> Axes:
    r"""Plot $\log_{10}\|\delta_t h_{t-1}^\top\|$ over the lag T - t, relative to $\|G\|$.

    Arguments:
        contributions: label -> result of `time_contributions`.
        ax: where to draw; a new figure if None.
    """
    _require_mapping("contributions", contributions, TimeContributions)
    ax = new_axes(ax)
    for k, (label, result) in enumerate(contributions.items()):
        with np.errstate(divide="ignore"):
            logs = np.log10(result.norms[::-1] / result.total_norm)
        ax.plot(np.arange(result.length), np.where(np.isfinite(logs), logs, np.nan),
                color=CYCLE[k % len(CYCLE)], marker=MARKERS[k % len(MARKERS)], markersize=3.5,
                linewidth=1.4, label=label)  # fmt: skip
    ax.set_xlabel("steps before the loss, $T - t$")
    ax.set_ylabel(r"$\log_{10}$ of step $t$'s share in $d\mathcal{L}/dW_{hh}$")
    ax.legend(frameon=False, fontsize=9)
    return ax


def plot_gain_sweeps(
    sweeps: Mapping[str, GainSweep],
    *,
    theories: Mapping[str, np.ndarray] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot the factor per step back against the gain, measured (markers) and predicted (lines).

    Arguments:
        sweeps: label -> result of `sweep_recurrent_gain`.
        theories: label -> pairs (gain, factor), shape (K, 2), drawn as thin lines.
        ax: where to draw; a new figure if None.
    """
    _require_mapping("sweeps", sweeps, GainSweep)
    ax = new_axes(ax)
    for pairs in (theories or {}).values():
        pairs = require_array("theories", pairs, shape=(None, 2))
        ax.plot(pairs[:, 0], pairs[:, 1], color=THEORY, linewidth=1.2, zorder=1)
    ax.axhline(1.0, color=INK, linewidth=1.0, linestyle="--")
    for k, (label, sweep) in enumerate(sweeps.items()):
        ax.plot(sweep.gains, sweep.factors, color=CYCLE[k % len(CYCLE)], linestyle="none",
                marker=MARKERS[k % len(MARKERS)], markersize=6, label=label)  # fmt: skip
    ax.set_yscale("log")
    ax.set_xlabel("gain $g$ of the recurrent matrix")
    ax.set_ylabel("factor per step back")
    ax.legend(frameon=False, fontsize=9)
    return ax


def plot_echo_curves(curves: Mapping[str, EchoCurve], *, ax: Axes | None = None) -> Axes:
    """Plot the accuracy of trained networks against the lag of what they have to remember."""
    _require_mapping("curves", curves, EchoCurve)
    ax = new_axes(ax)
    for k, (label, curve) in enumerate(curves.items()):
        ax.plot(curve.lags, 100 * curve.accuracies, color=CYCLE[k % len(CYCLE)],
                marker=MARKERS[k % len(MARKERS)], linewidth=1.6, label=label)  # fmt: skip
    ax.axhline(50.0, color=THEORY, linewidth=1.0, linestyle="--", zorder=1)
    label_line(ax, 0, 50.0, "guessing", THEORY, offset=(4, -8))
    ax.set_ylim(35, 104)
    ax.set_xlabel("lag of the bit to be named (steps)")
    ax.set_ylabel("accuracy (%)")
    ax.legend(frameon=False, fontsize=9, loc="lower left", bbox_to_anchor=(0.0, 0.22))
    return ax
