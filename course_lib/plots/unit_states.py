"""Figures of units: their slopes, their states on a data set, how they die and how they return."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib._validation import (
    require_instances,
    require_labelled_lists,
    require_real,
    require_sequence,
    require_type,
)
from course_lib.dying_units import DeathSweep
from course_lib.plots.style import (
    BLUE,
    CYCLE,
    GREEN,
    ORANGE,
    PURPLE,
    THEORY,
    VERMILLION,
    label_line,
    new_axes,
    number_every_panel,
)
from course_lib.recovery import ShiftedTraining
from course_lib.saturation import ActivationCurves
from course_lib.slope_ranges import ClimbTimes
from course_lib.unit_states import IdleCounts, UnitStates


def plot_slope_families(
    panels: Sequence[tuple[ActivationCurves, Sequence[tuple[float, float, float]]]],
) -> Figure:
    """Plot the slopes of several families of activations side by side.

    Arguments:
        panels: for each panel the sampled curves, and for each curve the place of its name:
            the z of the point it names, and the offset of the text in points.
    """
    for k, panel in enumerate(require_sequence("panels", panels, of="panels")):
        if len(require_sequence(f"panels[{k}]", panel, of="curves and places")) != 2:
            raise ValueError(f"`panels[{k}]` (length {len(panel)}) must be curves and places.")
        require_type(f"panels[{k}][0]", panel[0], ActivationCurves)
    figure, axes = plt.subplots(
        1, len(panels), figsize=(7.0, 3.4), sharey=True, layout="constrained", squeeze=False
    )
    for ax, (curves, places) in zip(axes[0], panels, strict=True):
        new_axes(ax)
        ax.axhline(0.0, color=THEORY, linewidth=0.8)
        for k, (name, (at, dx, dy)) in enumerate(zip(curves.names, places, strict=True)):
            color = CYCLE[k % len(CYCLE)]
            ax.plot(curves.z, curves.slopes[k], color=color, linewidth=1.8)
            point = int(np.argmin(np.abs(curves.z - at)))
            label_line(ax, curves.z[point], curves.slopes[k, point], name.replace("_", " "), color,
                       offset=(dx, dy))  # fmt: skip
        ax.set_xlabel("preactivation $z$")
        ax.set_ylabel("slope $f'(z)$")
    axes[0, 0].margins(y=0.12)
    number_every_panel(figure)
    return figure


def plot_unit_ranges(states: UnitStates, *, ax: Axes | None = None) -> Axes:
    """Plot each unit's range of preactivations as a bar, sorted, colored by the unit's state."""
    require_type("states", states, UnitStates)
    ax = new_axes(ax)
    order = np.argsort(states.highest + states.lowest, kind="stable")
    colors = np.where(states.dead, VERMILLION, np.where(states.always_on, GREEN, BLUE))[order]
    ax.vlines(np.arange(states.units), states.lowest[order], states.highest[order],
              colors=list(colors), linewidth=260.0 / states.units)  # fmt: skip
    ax.axhline(0.0, color=THEORY, linewidth=1.0)
    for mask, color, text in (
        (states.dead, VERMILLION, "dead"),
        (states.always_on, GREEN, "always on"),
        (~states.dead & ~states.always_on, BLUE, "active on some inputs"),
    ):
        members = np.flatnonzero(mask[order])
        if len(members):
            label_line(ax, members.mean(), states.highest[order][members].max(), text, color,
                       offset=(0, 10), ha="center")  # fmt: skip
    ax.margins(y=0.12)
    ax.set_xlabel("unit, sorted by the middle of its range")
    ax.set_ylabel("preactivation $z$ over the data set")
    return ax


def plot_idle_counts(counts: IdleCounts, *, ax: Axes | None = None) -> Axes:
    """Plot the share of units that never fire, against the number of inputs looked at."""
    require_type("counts", counts, IdleCounts)
    ax = new_axes(ax)
    for k, idle in enumerate(counts.idle):
        color = CYCLE[k % len(CYCLE)]
        share = 100 * idle / counts.units[k]
        ax.plot(counts.counts, share, color=color, marker="os^D"[k % 4], linewidth=1.4)
        middle = len(share) // 3
        label_line(ax, counts.counts[middle], share[middle], f"layer {k + 1}", color,
                   offset=(8, 8) if k else (-10, -4), ha="left" if k else "right")  # fmt: skip
    ax.set_xscale("log", base=2)
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel("inputs looked at")
    ax.set_ylabel("units that never fired (%)")
    return ax


def plot_death_sweep(sweep: DeathSweep, *, ax: Axes | None = None) -> Axes:
    """Plot the dead share after training (circles) over the learning rate, one line per bias.

    The dotted line of the same color is the share before training; thin marks are single seeds.
    """
    require_type("sweep", sweep, DeathSweep)
    ax = new_axes(ax)
    for k, bias in enumerate(sweep.biases):
        color = CYCLE[k % len(CYCLE)]
        means = 100 * sweep.after[k].mean(axis=1)
        ax.plot(sweep.learning_rates, means, color=color, marker="o", linewidth=1.5)
        for seed in range(sweep.after.shape[2]):
            ax.plot(sweep.learning_rates, 100 * sweep.after[k, :, seed], color=color,
                    marker="_", linestyle="none", alpha=0.7)  # fmt: skip
        ax.axhline(100 * sweep.before[k].mean(), color=color, linewidth=0.9, linestyle=":")
        label_line(ax, sweep.learning_rates[0], means[0], f"bias {bias:g}", color, offset=(4, 8))
    ax.set_xscale("log")
    ax.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    ax.set_xlabel("learning rate of SGD")
    ax.set_ylabel("dead hidden units (%)")
    return ax


def plot_climb_times(climbs: Sequence[ClimbTimes], *, ax: Axes | None = None) -> Axes:
    """Plot the steps from -k to 0: counted as markers, the integral as thin lines."""
    require_instances("climbs", climbs, ClimbTimes)
    ax = new_axes(ax)
    for k, climb in enumerate(climbs):
        color = (BLUE, VERMILLION, GREEN, PURPLE, ORANGE)[k % 5]
        ax.plot(climb.depths, climb.predicted, color=color, linewidth=1.0, zorder=1)
        ax.plot(climb.depths, climb.counted, color=color, marker="os^Dv"[k % 5], linestyle="none")
        label_line(ax, climb.depths[0], climb.predicted[0], climb.name.replace("_", " "), color,
                   offset=(-9, 0), ha="right")  # fmt: skip
    ax.set_yscale("log")
    ax.set_xlabel("starting depth $k$")
    ax.set_ylabel("steps from $z = -k$ to $z = 0$")
    first, last = climbs[0].depths[0], climbs[0].depths[-1]
    ax.set_xlim(first - 0.2 * (last - first), last + 0.05 * (last - first))
    return ax


def plot_shifted_training(
    runs: Mapping[str, Sequence[ShiftedTraining]], *, target: float
) -> Figure:
    """Plot, per variant, the steps to the target accuracy and the share of units that fire.

    Arguments:
        runs: label -> runs, of any depths and seeds; the color tells the depth.
        target: the accuracy that counts as learned. A run that never reached it has an open
            marker beyond the dashed line.
    """
    require_labelled_lists("runs", runs, ShiftedTraining)
    target = require_real("target", target, minimum=0.0, maximum=1.0)
    figure, (left, right) = plt.subplots(
        1, 2, figsize=(7.0, 3.9), sharey=True, layout="constrained", width_ratios=(3, 2)
    )
    new_axes(left), new_axes(right)
    last = max(run.steps[-1] for group in runs.values() for run in group)
    depths = sorted({run.depth for group in runs.values() for run in group})
    for row, group in enumerate(runs.values()):
        for run in group:
            k = depths.index(run.depth)
            height = row + 0.3 * (k - (len(depths) - 1) / 2)
            steps, style = run.steps_to(target), dict(color=CYCLE[k], marker="os^D"[k % 4])
            never = not np.isfinite(steps)
            left.plot([1.1 * last if never else steps], [height], linestyle="none",
                      markerfacecolor="none" if never else CYCLE[k], **style)  # fmt: skip
            right.plot([100 * run.active_shares[-1]], [height], linestyle="none", **style)
    for k, depth in enumerate(depths):
        right.plot([], [], color=CYCLE[k], marker="os^D"[k % 4], linestyle="none",
                   label=f"biases from {-depth:g}")  # fmt: skip
    figure.legend(frameon=False, fontsize=9, loc="outside upper right", ncols=len(depths))
    left.axvline(1.04 * last, color=THEORY, linewidth=0.8, linestyle="--")
    left.set_yticks(range(len(runs)), list(runs))
    left.invert_yaxis()
    left.set_xlabel(f"steps to {100 * target:.0f} % accuracy\n(open, at the right: never)")
    right.set_xlabel("units that fire on\nsome input, at last (%)")
    right.set_xlim(-5, 105)
    number_every_panel(figure)
    return figure
