"""Figures of initialization: signals through the depth, and the right size of a weight."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from course_lib._validation import require_array, require_integer, require_labelled
from course_lib.initialization import weight_variance
from course_lib.plots.style import CYCLE, INK, THEORY, label_line, new_axes
from course_lib.signal_propagation import SignalProfile

MARKERS = "os^Dvx"


def plot_signal_profiles(profiles: Mapping[str, SignalProfile], *, every: int = 4) -> Figure:
    """Plot the size of the activations (left) and of their gradients (right) by layer.

    Markers are measured, thin lines of the same color are the variance argument's prediction.

    Arguments:
        profiles: label -> result of `measure_signal`; networks of one depth.
        every: draw a marker in each `every`-th layer.
    """
    require_labelled("profiles", profiles, SignalProfile)
    every = require_integer("every", every, minimum=1)
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 4.2), layout="constrained")
    forward, backward = (new_axes(ax) for ax in panels)
    for k, (label, profile) in enumerate(profiles.items()):
        color, marker = CYCLE[k % len(CYCLE)], MARKERS[k % len(MARKERS)]
        layers = np.arange(profile.depth + 1)
        for ax, places, values, theory in (
            (forward, layers, profile.forward, profile.forward_theory),
            (backward, layers[1:], profile.backward, profile.backward_theory),
        ):
            draw_profile(ax, places, values, theory, every=every, color=color, marker=marker,
                         label=label)  # fmt: skip
    forward.set_title(r"activations: size of $h_l$", fontsize=10)
    finish_profiles(figure, forward, backward, unit="layer")
    return figure


def draw_profile(
    ax: Axes,
    places: np.ndarray,
    values: np.ndarray,
    theory: np.ndarray,
    *,
    every: int,
    color: str,
    marker: str,
    label: str,
) -> None:
    """Draw measured values as markers, in each `every`-th place, over a thin line of theory."""
    ax.plot(places, theory, color=color, linewidth=1.0, zorder=1)
    shown = slice((len(places) - 1) % every, None, every)  # the last place is among them
    ax.plot(places[shown], values[shown], color=color, marker=marker, markersize=4.5,
            linestyle="none", label=label)  # fmt: skip


def finish_profiles(figure: Figure, forward: Axes, backward: Axes, *, unit: str) -> None:
    """Give the two panels of a profile their scales and names, and the figure its legend."""
    backward.set_title(
        r"gradients: size of $\partial\mathcal{L}/\partial h_l$, last " + f"{unit} = 1", fontsize=10
    )
    for ax in (forward, backward):
        ax.set_yscale("log")
        ax.set_xlabel(f"{unit} $l$")
    forward.set_ylabel("root mean square")
    handles = forward.get_legend_handles_labels()
    figure.legend(*handles, frameon=False, fontsize=9, loc="outside lower center", ncols=2)


def plot_weight_sizes(
    laws: Sequence[str],
    *,
    fan_ins: np.ndarray,
    band: tuple[float, float],
    layers: Mapping[str, int] | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot the standard deviation of each law against the fan-in, with a band to compare with.

    Arguments:
        laws: names of laws, see `course_lib.initialization`; the layers are square.
        fan_ins: the horizontal axis, whole numbers >= 1.
        band: the shaded interval of standard deviations.
        layers: label -> fan-in of layers to mark with a vertical line.
        ax: where to draw; a new figure if None.
    """
    fan_ins = require_array("fan_ins", fan_ins, ndim=1)
    if len(laws) == 0:
        raise ValueError("`laws` (=[]) must hold at least one name.")
    ax = new_axes(ax)
    ax.axhspan(*band, color="#dddddd", zorder=0)
    label_line(ax, fan_ins[-1], np.sqrt(band[0] * band[1]), f"{band[0]:g} to {band[1]:g}", THEORY,
               offset=(-6, 14), ha="right")  # fmt: skip
    for k, law in enumerate(laws):
        sizes = [np.sqrt(weight_variance(law, fan_in=int(n), fan_out=int(n))) for n in fan_ins]
        color = CYCLE[k % len(CYCLE)]
        ax.plot(fan_ins, sizes, color=color, linewidth=1.8, label=law)
    for label, fan_in in (layers or {}).items():
        ax.axvline(fan_in, color=INK, linewidth=0.8, linestyle=":")
        ax.annotate(label, (fan_in, 0.02), xycoords=("data", "axes fraction"), xytext=(3, 2),
                    textcoords="offset points", rotation=90, fontsize=8, color=INK)  # fmt: skip
    ax.set_xscale("log")
    ax.set_yscale("log")
    ax.set_ylim(bottom=band[0] / 10.0)  # room for the names of the layers below the lines
    ax.set_xlabel("fan-in")
    ax.set_ylabel("standard deviation of a weight")
    ax.legend(frameon=False, fontsize=9)
    return ax
