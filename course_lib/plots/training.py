"""Figures of training runs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from course_lib._validation import require_labelled
from course_lib.plots.style import CYCLE, label_line, layer_ticks, new_axes
from course_lib.results import TrainingRun


def plot_losses(runs: Mapping[str, TrainingRun], *, ax: Axes | None = None) -> Axes:
    """Plot the recorded losses against the step, one line per labelled run."""
    require_labelled("runs", runs, TrainingRun)
    ax = new_axes(ax)
    for color, (label, run) in zip(_cycle(len(runs)), runs.items(), strict=True):
        ax.plot(run.steps, run.losses, color=color, linewidth=1.6)
        label_line(ax, run.steps[-1], run.losses[-1], label, color, annotation_clip=False)
    ax.set_xlabel("step")
    ax.set_ylabel(r"loss $\mathcal{L}$")
    return ax


def plot_weight_changes(runs: Mapping[str, TrainingRun], *, ax: Axes | None = None) -> Axes:
    """Plot how far each layer's weights moved in the whole run, relative to their norm."""
    require_labelled("runs", runs, TrainingRun)
    ax = new_axes(ax)
    depth = next(iter(runs.values())).depth
    layers = np.arange(1, depth + 1)
    for color, (label, run) in zip(_cycle(len(runs)), runs.items(), strict=True):
        changes = run.weight_changes[-1]
        ax.plot(layers, changes, color=color, marker="o", linewidth=1.6, markersize=5)
        label_line(ax, layers[-1], changes[-1], label, color, annotation_clip=False)
    ax.set_yscale("log")
    layer_ticks(ax, depth)
    ax.set_xlabel("layer $l$ (1 is next to the input)")
    ax.set_ylabel(r"$\|W_l - W_l^{(0)}\| \,/\, \|W_l^{(0)}\|$")
    return ax


def _cycle(count: int) -> list[str]:
    return [CYCLE[k % len(CYCLE)] for k in range(count)]
