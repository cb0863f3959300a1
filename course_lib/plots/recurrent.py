"""Figures of recurrent networks over time."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from matplotlib.axes import Axes

from course_lib._validation import require_array
from course_lib.matrix_powers import PowerGrowth
from course_lib.plots.style import CYCLE, INK, THEORY, label_line, new_axes
from course_lib.recurrent_results import (
    BPTTProfile,
    Connectivity,
    PathNorms,
    RecurrentRun,
    SaturationProfile,
)

STYLES = ("-", "--", ":", "-.")


def _require_mapping(name: str, value: object, kind: type) -> None:
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"`{name}` (={value!r}) must map labels to {kind.__name__} records.")
    for label, record in value.items():
        if not isinstance(record, kind):
            raise TypeError(f"`{name}[{label!r}]` (={record!r}) must be a {kind.__name__}.")


def _label_ends(ax: Axes, ends: list[tuple[float, float, str, str]]) -> None:
    """Write labels (x, y, text, color) beside the ends of lines, moved apart where they meet."""
    low, high = ax.get_ylim()
    gap, placed = 0.055 * (high - low), -np.inf
    for x, y, text, color in sorted(ends, key=lambda end: end[1]):
        y = max(y, placed + gap)
        placed = y
        label_line(ax, x, y, text, color, annotation_clip=False)


def plot_bptt_profile(
    profiles: Mapping[str, BPTTProfile],
    *,
    log10_bound: np.ndarray | None = None,
    ax: Axes | None = None,
) -> Axes:
    r"""Plot $\log_{10}\|\partial\mathcal{L}/\partial h_t\|$ against t, one line per label.

    Where a norm is exactly zero (a hook's underflow), the line ends.

    Arguments:
        profiles: profiles of sequences of one length.
        log10_bound: a bound relative to t = T, shape (T,), drawn as a thin line through the last
            value of the first profile.
        ax: where to draw; a new figure if None.
    """
    _require_mapping("profiles", profiles, BPTTProfile)
    first = next(iter(profiles.values()))
    ax = new_axes(ax)
    styles = _styles(len(profiles))
    for (color, style), (label, profile) in zip(styles, profiles.items(), strict=True):
        logs = np.where(np.isfinite(profile.log10_norms), profile.log10_norms, np.nan)
        ax.plot(np.arange(1, profile.length + 1), logs, color=color, linestyle=style,
                linewidth=1.8, label=label)  # fmt: skip
    if log10_bound is not None:
        bound = require_array("log10_bound", log10_bound, shape=(first.length,), finite=False)
        ax.plot(np.arange(1, first.length + 1), bound + first.log10_norms[-1], color=THEORY,
                linewidth=1.0, zorder=1, label="bound")  # fmt: skip
    ax.set_xlabel("time step $t$ (the loss is at the right end)")
    ax.set_ylabel(r"$\log_{10}\,\|\partial\mathcal{L}/\partial h_t\|$")
    ax.legend(frameon=False, fontsize=9)
    return ax


def _styles(count: int) -> list[tuple[str, str]]:
    return [(CYCLE[k % len(CYCLE)], STYLES[k % len(STYLES)]) for k in range(count)]


def plot_path_norms(
    paths: Mapping[str, PathNorms], *, ax: Axes | None = None
) -> Axes:
    r"""Plot the whole derivative of the memory (solid) and its direct path (dashed) against t."""
    _require_mapping("paths", paths, PathNorms)
    ax = new_axes(ax)
    for k, (label, path) in enumerate(paths.items()):
        color, steps = CYCLE[k % len(CYCLE)], np.arange(1, len(path.log10_whole) + 1)
        for logs, style, what in (
            (path.log10_whole, "-", "whole"), (path.log10_direct, "--", "direct path"),
        ):  # fmt: skip
            logs = np.where(np.isfinite(logs), logs, np.nan)
            ax.plot(steps, logs, color=color, linestyle=style, linewidth=1.8,
                    label=f"{label}: {what}")  # fmt: skip
    ax.set_xlabel("time step $t$")
    ax.set_ylabel(r"$\log_{10}\,\|\mathrm{d}m_T/\mathrm{d}m_t\|$")
    ax.legend(frameon=False, fontsize=9)
    return ax


def plot_connectivity(result: Connectivity, *, ax: Axes | None = None) -> Axes:
    r"""Plot $\log_{10}$ of what position s contributes to the loss of step t, as a picture."""
    if not isinstance(result, Connectivity):
        raise TypeError(f"`result` (={result!r}) must be a Connectivity.")
    ax = new_axes(ax, size=(5.6, 4.4))
    ax.grid(False)
    with np.errstate(divide="ignore"):
        logs = np.log10(result.norms)
    logs = np.where(np.isfinite(logs), logs, np.nan)
    edges = np.arange(0.5, result.length + 1)
    mesh = ax.pcolormesh(edges, edges, logs, cmap="cividis", rasterized=True)
    name = "x" if result.wrt == "input" else "h"
    ax.figure.colorbar(
        mesh, ax=ax, label=rf"$\log_{{10}}\|\partial\mathcal{{L}}_t/\partial {name}_s\|$"
    )
    ax.set_xlabel("position $s$")
    ax.set_ylabel("step $t$ of the loss")
    ax.set_aspect("equal")
    return ax


def plot_saturation(result: SaturationProfile, *, ax: Axes | None = None) -> Axes:
    """Plot every unit's value over time for one sequence, the saturated zone shaded."""
    if not isinstance(result, SaturationProfile):
        raise TypeError(f"`result` (={result!r}) must be a SaturationProfile.")
    ax = new_axes(ax)
    steps = np.arange(1, len(result.hidden_states) + 1)
    for sign in (-1.0, 1.0):
        ax.axhspan(sign * result.threshold, sign * 1.02, color="#e8e8e8", zorder=0)
    ax.plot(steps, result.hidden_states, color=CYCLE[0], linewidth=1.0, alpha=0.6)
    label_line(ax, steps[len(steps) // 2], result.threshold, "saturated above", INK,
               offset=(0, -8))  # fmt: skip
    ax.set_ylim(-1.05, 1.05)
    ax.set_xlabel("time step $t$")
    ax.set_ylabel("$h_t$, one line per unit")
    return ax


def plot_power_growth(growths: Mapping[str, PowerGrowth], *, ax: Axes | None = None) -> Axes:
    r"""Plot $\log_{10}\|W^k\|$ against k, with $k \log_{10}\rho(W)$ as a thin line."""
    _require_mapping("growths", growths, PowerGrowth)
    ax = new_axes(ax)
    ends = []
    for k, (label, growth) in enumerate(growths.items()):
        color, steps = CYCLE[k % len(CYCLE)], np.arange(1, len(growth.log10_norms) + 1)
        logs = np.where(np.isfinite(growth.log10_norms), growth.log10_norms, np.nan)
        ax.plot(steps, logs, color=color, linewidth=1.8)
        if growth.spectral_radius > 0:
            ax.plot(steps, steps * np.log10(growth.spectral_radius), color=THEORY, linewidth=1.0,
                    linestyle="--", zorder=1)  # fmt: skip
        shown = np.flatnonzero(np.isfinite(logs))
        if len(shown):
            ends.append((steps[shown[-1]], logs[shown[-1]], label, color))
    ax.set_xlabel("power $k$")
    ax.set_ylabel(r"$\log_{10}\,\|W^k\|$")
    _label_ends(ax, ends)
    return ax


def plot_recurrent_runs(runs: Mapping[str, RecurrentRun], *, ax: Axes | None = None) -> Axes:
    """Plot losses against the step, one line per label, with the baseline as a thin line."""
    _require_mapping("runs", runs, RecurrentRun)
    ax = new_axes(ax)
    ends = []
    for (color, style), (label, run) in zip(_styles(len(runs)), runs.items(), strict=True):
        losses = np.where(np.isfinite(run.losses), run.losses, np.nan)
        ax.plot(run.steps, losses, color=color, linestyle=style, linewidth=1.5)
        shown = np.flatnonzero(np.isfinite(losses))
        if len(shown):
            ends.append((run.steps[shown[-1]], losses[shown[-1]], label, color))
    baseline = next(iter(runs.values())).baseline
    ax.axhline(baseline, color=THEORY, linewidth=1.0, linestyle="--", zorder=1)
    label_line(ax, 0, baseline, "ignoring the input", THEORY, offset=(4, 7))
    ax.set_xlabel("step")
    ax.set_ylabel(r"loss $\mathcal{L}$")
    _label_ends(ax, ends)
    return ax
