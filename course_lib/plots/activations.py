"""Figures of activations: their slopes, their saturation, and the factor per layer they cause."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib._validation import (
    require_array,
    require_labelled,
    require_sequence,
    require_type,
)
from course_lib.plots.style import (
    BLUE,
    CYCLE,
    FRAMEWORK_STYLES,
    GREEN,
    PURPLE,
    THEORY,
    VERMILLION,
    label_line,
    layer_ticks,
    new_axes,
)
from course_lib.rates import RateSweep
from course_lib.results import GradientFlow, TrainingRun
from course_lib.saturation import ActivationCurves


def plot_activation_slopes(curves: ActivationCurves, *, ax: Axes | None = None) -> Axes:
    """Plot the slope of each activation with its name on the curve; dotted lines are suprema."""
    require_type("curves", curves, ActivationCurves)
    ax = new_axes(ax)
    for k, name in enumerate(curves.names):
        color = CYCLE[k % len(CYCLE)]
        ax.plot(curves.z, curves.slopes[k], color=color, linewidth=1.8)
        ax.axhline(curves.suprema[k], color=color, linewidth=0.7, linestyle=":")
        place = int(np.argmin(np.abs(curves.z - _LABEL_PLACES[k % len(_LABEL_PLACES)])))
        label_line(ax, curves.z[place], curves.slopes[k, place], name, color, offset=(8, 6))
    ax.set_xlabel("preactivation $z$")
    ax.set_ylabel("slope $f'(z)$")
    return ax


_LABEL_PLACES = (1.6, 0.75, 3.0, -2.0, 4.5)


def add_bound_line(ax: Axes, norms: Sequence[float], text: str) -> Axes:
    """Add a bound, one value per layer 1..L, to a figure of gradient norms and label it."""
    require_type("ax", ax, Axes)
    require_type("text", text, str)
    norms = require_array("norms", norms, ndim=1)
    layers = np.arange(1, len(norms) + 1)
    ax.plot(layers, norms, color=PURPLE, linewidth=1.2, linestyle="-.", zorder=1)
    place = len(layers) // 2
    label_line(ax, layers[place], norms[place], text, PURPLE, offset=(-6, 12), ha="right")
    return ax


def plot_flow_balance(flow: GradientFlow, *, ax: Axes | None = None) -> Axes:
    """Plot activations, activation gradients and weight gradients, each over its layer-L value."""
    require_type("flow", flow, GradientFlow)
    ax = new_axes(ax)
    layers = np.arange(1, flow.depth + 1)
    lines = (
        (flow.activation_norms, r"activations $\|h_l\|$", BLUE, 12),
        (flow.activation_grad_norms, r"activation gradients $\|\partial\mathcal{L}/\partial h_l\|$",
         VERMILLION, -14),
        (flow.weight_grad_norms, r"weight gradients $\|\partial\mathcal{L}/\partial W_l\|$",
         GREEN, 12),
    )  # fmt: skip
    place = flow.depth // 3
    for norms, text, color, lift in lines:
        relative = norms / norms[-1]
        ax.plot(layers, relative, color=color, marker="o", markersize=4, linewidth=1.4)
        label_line(ax, layers[place], relative[place], text, color, offset=(6, lift))
    ax.set_yscale("log")
    layer_ticks(ax, flow.depth)
    ax.set_xlabel("layer $l$ (1 is next to the input)")
    ax.set_ylabel("norm relative to layer $L$")
    return ax


def plot_rate_sweeps(sweeps: Mapping[str, RateSweep]) -> Figure:
    """Plot measured and predicted factors per layer above the saturated share, by weight scale."""
    require_labelled("sweeps", sweeps, RateSweep)
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(6.4, 5.6), sharex=True, layout="constrained", height_ratios=(3, 2)
    )
    new_axes(top), new_axes(bottom)
    for k, (label, sweep) in enumerate(sweeps.items()):
        color = CYCLE[k % len(CYCLE)]
        top.plot(sweep.scales, sweep.predicted, color=color, linewidth=1.0, zorder=1)
        top.plot(sweep.scales, sweep.measured, color=color, marker="os^D"[k % 4], linestyle="none")
        bottom.plot(sweep.scales, 100 * sweep.saturated, color=color, marker="os^D"[k % 4])
        middle = len(sweep.scales) // 2
        label_line(top, sweep.scales[middle], sweep.measured[middle], label, color,
                   offset=(-14, 14) if k else (8, -14), ha="right" if k else "left")  # fmt: skip
    top.axhline(1.0, color=THEORY, linewidth=0.8, linestyle="--")
    smallest = next(iter(sweeps.values())).scales[0]
    label_line(top, smallest, 1.0, "above: exploding", THEORY, offset=(0, 8))
    label_line(top, smallest, 1.0, "below: vanishing", THEORY, offset=(0, -8))
    top.set_xscale("log", base=2)
    top.set_yscale("log", base=2)
    top.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    top.set_ylabel("factor per layer of\nthe activation gradient")
    bottom.set_ylabel("saturated\nunits (%)")
    bottom.set_xlabel(r"weight scale $\sigma_w$")
    bottom.xaxis.set_major_formatter(lambda value, _: f"{value:g}")
    return figure


def _check_groups(groups: object, row: object) -> None:
    """Raise unless `groups` maps labels to lists of TrainingRuns that all have the row `row`."""
    if not isinstance(groups, Mapping) or not groups:
        raise ValueError(f"`runs` (={groups!r}) must map at least one label to TrainingRuns.")
    if isinstance(row, bool) or not isinstance(row, numbers.Integral):
        raise TypeError(f"`row` (={row!r}) must be an integer.")
    for label, group in groups.items():
        name = f"runs[{label!r}]"
        for run in require_sequence(name, group, of="TrainingRuns"):
            count = len(require_type(name, run, TrainingRun).steps)
            if not -count <= row < count:
                raise ValueError(f"`row` (={row}) must be one of the {count} rows of `{name}`.")


def plot_first_layers(
    runs: Mapping[str, Sequence[TrainingRun]], *, row: int = -1, ax: Axes | None = None
) -> Axes:
    """Plot how far each layer's weights moved, one color per labelled experiment.

    Arguments:
        runs: label -> runs of that experiment, one per framework, drawn as open circles (PyTorch)
            and crosses (TensorFlow) on one line. Labels stand at layer 1.
        row: which recorded row to draw; the last one by default.
    """
    _check_groups(runs, row)
    ax = new_axes(ax)
    for k, (label, group) in enumerate(runs.items()):
        color = CYCLE[k % len(CYCLE)]
        for run in group:
            layers = np.arange(1, run.depth + 1)
            style = {**FRAMEWORK_STYLES[run.framework], "color": color}
            ax.plot(layers, run.weight_changes[row], **style)
        ax.plot(layers, group[0].weight_changes[row], color=color, linewidth=1.0, zorder=1)
        changes = group[0].weight_changes[row]
        others = [g[0].weight_changes[row, 0] for g in runs.values() if g is not group]
        crowded = any(changes[0] < other < 2.0 * changes[0] for other in others)
        rising = len(changes) > 2 and changes[2] > changes[0]
        # Clear of the line above in the first case, of the label's own line in the second.
        lift = -24 if crowded else -13 if rising else 10
        label_line(ax, layers[0], changes[0], label, color, offset=(14, lift))
    ax.set_yscale("log")
    ax.margins(y=0.1)
    layer_ticks(ax, layers[-1])
    ax.set_xlabel("layer $l$ (1 is next to the input)")
    ax.set_ylabel(r"$\|W_l - W_l^{(0)}\| \,/\, \|W_l^{(0)}\|$")
    return ax
