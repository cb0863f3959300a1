"""Figures of gated cells: the paths through an LSTM, and how long its memory lasts."""

from __future__ import annotations

from collections.abc import Mapping

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from course_lib._validation import require_array
from course_lib.contributions import InputContributions
from course_lib.memory import GateBiasSweep
from course_lib.plots.recurrent import STYLES, _label_ends, _require_mapping
from course_lib.plots.style import (
    BLUE,
    CYCLE,
    INK,
    THEORY,
    VERMILLION,
    label_line,
    new_axes,
    number_every_panel,
)
from course_lib.recurrent_results import PathNorms

DIRECT, DETOUR = BLUE, VERMILLION


def _arrow(ax: Axes, start: tuple, end: tuple, color: str, *, dashed: bool = False) -> None:
    ax.annotate(
        "", end, start,
        arrowprops={"arrowstyle": "-|>", "color": color, "linewidth": 2.0, "shrinkA": 0,
                    "shrinkB": 0, "linestyle": "--" if dashed else "-"},
    )  # fmt: skip


def _operation(ax: Axes, x: float, y: float, text: str) -> None:
    ax.plot([x], [y], "o", markersize=21, markerfacecolor="white", markeredgecolor=INK, zorder=3)
    ax.text(x, y, text, ha="center", va="center", fontsize=13, color=INK, zorder=4)


def _box(ax: Axes, x: float, y: float, width: float, text: str) -> None:
    ax.add_patch(
        FancyBboxPatch((x - width / 2, y - 0.2), width, 0.4, boxstyle="round,pad=0.04",
                       facecolor="#f2f2f2", edgecolor=INK, zorder=3)
    )  # fmt: skip
    ax.text(x, y, text, ha="center", va="center", fontsize=11, color=INK, zorder=4)


def plot_lstm_paths(*, ax: Axes | None = None) -> Axes:
    """Draw one step of an LSTM: the direct path of the cell state, and the paths through h."""
    ax = new_axes(ax, size=(6.8, 3.6))
    ax.set_axis_off()
    top, low = 2.0, 0.0
    for start, end in ((0.4, 1.78), (2.22, 3.58), (4.02, 6.9)):
        _arrow(ax, (start, top), (end, top), DIRECT)
    _operation(ax, 2.0, top, "×")
    _operation(ax, 3.8, top, "+")
    _box(ax, 2.0, 1.0, 0.6, "$f_t$")
    _box(ax, 3.8, 1.0, 1.3, r"$i_t \odot \tilde C_t$")
    _box(ax, 5.9, 1.0, 0.6, "$o_t$")
    for x in (2.0, 3.8):
        _arrow(ax, (x, 1.24), (x, top - 0.2), DETOUR, dashed=True)
        _arrow(ax, (x, low), (x, 0.76), DETOUR, dashed=True)
    ax.plot([0.4, 5.0, 5.0], [low, low, 1.0], "--", color=DETOUR, linewidth=2.0)
    _arrow(ax, (5.0, 1.0), (5.56, 1.0), DETOUR, dashed=True)
    _arrow(ax, (5.9, top), (5.9, 1.24), DETOUR, dashed=True)
    ax.plot([5.9, 5.9], [0.76, low], "--", color=DETOUR, linewidth=2.0)
    _arrow(ax, (5.9, low), (6.9, low), DETOUR, dashed=True)
    for x, y, text in (
        (0.0, top, "$C_{t-1}$"), (7.15, top, "$C_t$"),
        (0.0, low, "$h_{t-1}$"), (7.15, low, "$h_t$"),
    ):  # fmt: skip
        ax.text(x, y, text, ha="center", va="center", fontsize=13, color=INK)
    ax.text(0.5, top + 0.15, "direct path", color=DIRECT, fontsize=10)
    ax.text(0.5, low - 0.24, "through $h$ and the gates", color=DETOUR, fontsize=10)
    ax.text(6.0, 1.5, r"$\tanh$", color=DETOUR, fontsize=10)
    ax.set_xlim(-0.35, 7.5)
    ax.set_ylim(-0.4, 2.5)
    return ax


def plot_path_panels(paths: Mapping[str, PathNorms]) -> Figure:
    r"""Plot each network's whole derivative and direct path against t, one panel per network."""
    _require_mapping("paths", paths, PathNorms)
    figure, axes = plt.subplots(
        1, len(paths), figsize=(2.9 * len(paths), 3.4), layout="constrained", sharey=True,
        squeeze=False,
    )  # fmt: skip
    for ax, (label, path) in zip(axes[0], paths.items(), strict=True):
        new_axes(ax)
        steps = np.arange(1, len(path.log10_whole) + 1)
        for logs, color, style, what in (
            (path.log10_direct, DIRECT, "--", "direct path"),
            (path.log10_whole, DETOUR, "-", "all paths"),
        ):
            logs = np.where(np.isfinite(logs), logs, np.nan)
            ax.plot(steps, logs, color=color, linestyle=style, linewidth=1.8, label=what)
        ax.set_title(label, fontsize=10)
        ax.set_xlabel("time step $t$")
    memory = "C" if next(iter(paths.values())).cell == "lstm" else "h"
    axes[0, 0].set_ylabel(rf"$\log_{{10}}\,\|\mathrm{{d}}{memory}_T/\mathrm{{d}}{memory}_t\|$")
    axes[0, 0].legend(frameon=False, fontsize=9, loc="center left")
    number_every_panel(figure)
    return figure


def plot_gate_bias_sweep(sweep: GateBiasSweep, *, ax: Axes | None = None) -> Axes:
    r"""Plot theory $\sigma(b)^{steps}$ and the measured memory against the bias b."""
    if not isinstance(sweep, GateBiasSweep):
        raise TypeError(f"`sweep` (={sweep!r}) must be a GateBiasSweep.")
    ax = new_axes(ax)
    gate, memory = ("forget", "C") if sweep.cell == "lstm" else ("update", "h")
    ax.plot(sweep.biases, sweep.log10_theory, color=THEORY, linewidth=1.0, zorder=1)
    ax.plot(sweep.biases, sweep.medians("typical"), "o", color=DIRECT, markersize=5)
    ax.plot(sweep.biases, sweep.medians("whole"), "s-", color=DETOUR, markersize=5, linewidth=1.6)
    k = len(sweep.biases) // 3
    words = rf"theory $\sigma(b)^{{{sweep.steps}}}$ (line) and" "\ndirect path, typical unit"
    label_line(ax, sweep.biases[k], sweep.log10_theory[k], words, DIRECT, offset=(12, -14))
    label_line(ax, sweep.biases[k], sweep.medians("whole")[k], "all paths", DETOUR,
               offset=(-18, 14), ha="right")  # fmt: skip
    ax.axhline(0.0, color="#bbbbbb", linewidth=0.8, zorder=0)
    ax.set_xlabel(f"bias $b$ of the {gate} gate")
    ax.set_ylabel(
        rf"$\log_{{10}}\,\|\mathrm{{d}}{memory}_T/\mathrm{{d}}{memory}_{{T-{sweep.steps}}}\|$"
    )
    return ax


def plot_input_contributions(
    results: Mapping[str, InputContributions],
    *,
    ideal: np.ndarray | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""Plot what each position contributes, on a logarithmic axis, one line per label.

    Arguments:
        results: contributions over sequences of one length.
        ideal: what a perfect solution would show, shape (T,), as a thin line.
        ax: where to draw; a new figure if None.
    """
    _require_mapping("results", results, InputContributions)
    ax, ends = new_axes(ax), []
    for k, (label, result) in enumerate(results.items()):
        color, positions = CYCLE[k % len(CYCLE)], np.arange(1, result.length + 1)
        with np.errstate(divide="ignore"):
            logs = np.log10(result.norms)
        logs = np.where(np.isfinite(logs), logs, np.nan)
        ax.plot(positions, logs, color=color, linestyle=STYLES[k % len(STYLES)], linewidth=1.8)
        ends.append((positions[0], logs[0], label, color))
    if ideal is not None:
        values = require_array("ideal", ideal, shape=(result.length,))
        ax.plot(positions, np.log10(values), color=THEORY, linewidth=1.0, zorder=1)
    ax.set_xlabel("position $t$ (the result is read at the right end)")
    ax.set_ylabel(r"$\log_{10}\,\|\partial y_T/\partial x_t\|$")
    ax.set_xlim(-0.2 * result.length, result.length + 1)
    ax.set_xticks([t for t in (1, 5, 10, 15, 20, 25, 30, 40, 50) if t <= result.length])
    _label_ends(ax, [(-0.2 * result.length, y, text, color) for _, y, text, color in ends])
    return ax
