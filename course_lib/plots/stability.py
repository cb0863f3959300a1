"""Figures of runs that explode and of runs that do not."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure

from course_lib._validation import (
    require_instances,
    require_labelled,
    require_real,
    require_type,
)
from course_lib.jacobians import ProductGrowth
from course_lib.plots.style import (
    BLUE,
    CYCLE,
    INK,
    ORANGE,
    SKY,
    THEORY,
    VERMILLION,
    label_line,
    new_axes,
    number_every_panel,
)
from course_lib.stability import MonitoredRun, detect_explosions
from course_lib.stability_map import StabilityMap

OUTCOME_COLORS = ("#dddddd", SKY, VERMILLION)
"""Colors of `course_lib.stability_map.OUTCOMES`, in that order."""


def _finite(values: np.ndarray) -> np.ndarray:
    """Return `values` with everything that a logarithmic axis cannot show as NaN."""
    values = np.asarray(values, dtype=np.float64)
    return np.where(np.isfinite(values) & (values > 0), values, np.nan)


def plot_stretching(
    growth: ProductGrowth, *, typical: float, ax: Axes | None = None
) -> Axes:
    r"""Plot the norm of a running product between its bounds, with a typical factor per matrix.

    Arguments:
        growth: result of `measure_product`.
        typical: factor per matrix, see `course_lib.stretching.isotropic_factor`; drawn from the
            first norm on.
        ax: where to draw; a new figure if None.
    """
    require_type("growth", growth, ProductGrowth)
    typical = require_real("typical", typical, minimum=0.0)
    ax = new_axes(ax)
    counts = np.arange(1, growth.count + 1)
    lines = (
        (growth.norm_products, r"$\prod \sigma_{max}$", VERMILLION, "--", 1.2, 14),
        (growth.smallest_products, r"$\prod \sigma_{min}$", BLUE, "--", 1.2, -18),
        (growth.norms[0] * typical ** (counts - 1), None, THEORY, "-", 1.2, 0),
        (growth.norms, "norm of the product", INK, "-", 2.2, 14),
    )
    middle = growth.count // 2
    for values, text, color, style, width, rise in lines:
        ax.plot(counts, _finite(values), color=color, linestyle=style, linewidth=width)
        if text is not None:
            label_line(ax, counts[middle], values[middle], text, color, offset=(-8, rise))
    ax.set_yscale("log")
    ax.set_xlabel("number of factors $k$")
    ax.set_ylabel(r"$\|M_k \cdots M_1\|$")
    return ax


def plot_monitored_run(run: MonitoredRun, *, threshold: float = 100.0, last: int = 2) -> Figure:
    """Plot loss, gradient norms per layer and weight norms over the steps, with the events.

    Three panels from top to bottom. A norm above `threshold` carries a cross; what is not a
    finite number cannot be drawn on an axis and is written as inf or NaN at its step.

    Arguments:
        run: result of `train_monitored`.
        threshold: on the global norm, drawn in the middle panel.
        last: how many steps to draw after the first one that is not finite.
    """
    report = detect_explosions(run, threshold=threshold)
    figure, panels = plt.subplots(3, 1, figsize=(6.4, 5.6), sharex=True, layout="constrained")
    norms = _finite(run.global_norms)
    loss_axes, grad_axes, weight_axes = (new_axes(ax) for ax in panels)
    loss_axes.plot(run.steps, _finite(run.losses), color=INK, marker="o", markersize=4)
    loss_axes.set_ylabel(r"loss $\mathcal{L}$")
    for k in range(run.depth):
        color = CYCLE[k % len(CYCLE)]
        for ax, values in ((grad_axes, run.weight_grad_norms), (weight_axes, run.weight_norms)):
            ax.plot(run.steps, _finite(values[:, k]), color=color, marker=".", linewidth=1.4,
                    label=f"$W_{{{k + 1}}}$")  # fmt: skip
    grad_axes.plot(run.steps, norms, color=INK, linewidth=1.4, label="all (global)")
    flagged = np.isin(run.steps, report.events)
    grad_axes.plot(run.steps[flagged], norms[flagged], color=INK, marker="x", markersize=8,
                   linestyle="none")  # fmt: skip
    grad_axes.axhline(threshold, color=THEORY, linewidth=1.0, linestyle="--")
    grad_axes.set_ylabel("gradient norm")
    weight_axes.set_ylabel(r"$\|W_l\|_F$")
    weight_axes.set_xlabel("step")
    grad_axes.legend(frameon=False, fontsize=8, loc="lower right")
    end = run.steps[-1]
    if report.first_nonfinite is not None:
        end = min(end, report.first_nonfinite + last)
    for ax, values in zip(
        panels, (run.losses, run.global_norms, run.weight_norms.sum(axis=1)), strict=True
    ):
        ax.set_yscale("log")
        ax.set_xlim(-0.02 * end - 0.05, end * 1.02 + 0.1)
        for step, value in zip(run.steps, values, strict=True):
            if not np.isfinite(value) and step <= end:
                ax.annotate("NaN" if np.isnan(value) else "inf", (step, 0.9), ha="center",
                            xycoords=("data", "axes fraction"), fontsize=9, weight="bold",
                            color=VERMILLION)  # fmt: skip
    if end <= 12:
        weight_axes.set_xticks(range(int(end) + 1))
    return figure


def plot_run_comparison(
    runs: Mapping[str, MonitoredRun],
    *,
    thresholds: Sequence[float] = (100.0,),
    ceiling: float = 1e6,
) -> Figure:
    """Plot loss (left) and global norm (right) of several runs, with thresholds on the norm.

    Arguments:
        runs: label -> result of `train_monitored`.
        thresholds: drawn as dashed lines in the right panel.
        ceiling: the top of both panels; a run that explodes leaves them there.
    """
    require_labelled("runs", runs, MonitoredRun)
    figure, panels = plt.subplots(1, 2, figsize=(7.2, 3.6), layout="constrained")
    loss_axes, norm_axes = (new_axes(ax) for ax in panels)
    for k, (label, run) in enumerate(runs.items()):
        color = CYCLE[k % len(CYCLE)]
        for ax, values in (
            (loss_axes, _finite(run.losses) / run.losses[0]),
            (norm_axes, _finite(run.global_norms)),
        ):
            # Matplotlib cannot lay out ticks for 1e300; the clip is far outside the panel.
            ax.plot(run.steps, np.minimum(values, 1e3 * ceiling), color=color, label=label)
    for threshold in thresholds:
        norm_axes.axhline(threshold, color=THEORY, linewidth=1.0, linestyle="--")
        norm_axes.annotate(f"{threshold:g}", (0, threshold), xytext=(2, 3), fontsize=8,
                           textcoords="offset points", color=THEORY)  # fmt: skip
    for ax, text in ((loss_axes, "loss / first loss"), (norm_axes, "global gradient norm")):
        ax.set_yscale("log")
        ax.set_ylim(top=ceiling)
        ax.set_xlabel("step")
        ax.set_title(text, fontsize=10)
    figure.legend(*loss_axes.get_legend_handles_labels(), frameon=False, fontsize=9,
                  loc="outside lower center", ncols=min(2, len(runs)))  # fmt: skip
    return figure


def plot_norm_distributions(
    norms: Mapping[str, np.ndarray], *, threshold: float = 100.0, ax: Axes | None = None
) -> Axes:
    """Plot histograms of gradient norms on a logarithmic axis, a quarter decade per bar.

    Arguments:
        norms: label -> norms, any shape; values that are zero or not finite are left out.
        threshold: drawn as a dashed line.
        ax: where to draw; a new figure if None.
    """
    require_labelled("norms", norms, np.ndarray)
    ax = new_axes(ax)
    logs = {label: np.log10(v[np.isfinite(v) & (v > 0)]) for label, v in norms.items()}
    everything = np.concatenate([v.ravel() for v in logs.values()])
    bins = np.arange(np.floor(4 * everything.min()) / 4, everything.max() + 0.25, 0.25)
    for k, (label, values) in enumerate(logs.items()):
        ax.hist(values, bins=bins, color=CYCLE[k % len(CYCLE)], alpha=0.65, label=label)
    ax.axvline(np.log10(threshold), color=THEORY, linewidth=1.2, linestyle="--")
    ax.annotate(f"threshold {threshold:g}", (np.log10(threshold), 0.97), xytext=(4, 0), va="top",
                xycoords=("data", "axes fraction"), textcoords="offset points", fontsize=8,
                color=THEORY)  # fmt: skip
    ax.set_xlabel(r"$\log_{10}$ of the global gradient norm")
    ax.set_ylabel("count")
    ax.legend(frameon=False, fontsize=9)
    return ax


def plot_stability_maps(maps: Sequence[StabilityMap]) -> Figure:
    r"""Plot maps of converge and diverge side by side, with the line $2/\lambda_{max}$."""
    require_instances("maps", maps, StabilityMap)
    figure, panels = plt.subplots(
        1, len(maps), figsize=(1.0 + 2.3 * len(maps), 3.6), sharey=True, squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for ax, result in zip(panels[0], maps, strict=True):
        scales, rates = np.log10(result.scales), np.log10(result.learning_rates)
        ax.pcolormesh(scales, rates, result.outcomes, cmap=ListedColormap(OUTCOME_COLORS),
                      vmin=-0.5, vmax=2.5, shading="nearest", rasterized=True)  # fmt: skip
        low, high = ax.get_ylim()
        ax.plot(scales, np.log10(result.limits), color=INK, linewidth=1.8, linestyle="--")
        ax.set_ylim(low, high)
        ax.set_title(f"{result.depth} layers", fontsize=10)
        ax.set_xlabel(r"$\log_{10}$ initial scale")
    panels[0, 0].set_ylabel(r"$\log_{10}$ learning rate")
    handles = [plt.Rectangle((0, 0), 1, 1, color=color) for color in OUTCOME_COLORS]
    handles.append(plt.Line2D([], [], color=INK, linewidth=1.8, linestyle="--"))
    figure.legend(handles, ["not learned", "converged", "diverged", r"$2/\lambda_{max}$"],
                  loc="outside lower center", ncols=4, frameon=False, fontsize=9)  # fmt: skip
    number_every_panel(figure)
    return figure


def plot_overflow(run: MonitoredRun, *, ax: Axes | None = None) -> Axes:
    """Plot loss, global norm and weight norm of one run up to the top of its precision."""
    require_type("run", run, MonitoredRun)
    ax = new_axes(ax)
    for values, text, color, place, offset, side in (
        (run.losses, "loss", VERMILLION, 0.8, (-8, 6), "right"),
        (run.global_norms, "gradient norm", BLUE, 0.7, (-8, 6), "right"),
        (run.weight_norms[:, 0], "weight norm", ORANGE, 0.7, (8, -8), "left"),
    ):
        logs = np.log10(_finite(values))
        ax.plot(run.steps, logs, color=color, linewidth=1.8)
        at = int(np.flatnonzero(np.isfinite(logs))[-1] * place)
        label_line(ax, run.steps[at], logs[at], text, color, offset=offset, ha=side)
    top = np.log10(float(np.finfo(run.dtype).max))
    for height, text in ((top, f"largest {run.dtype}"), (top / 2, "its square root")):
        ax.axhline(height, color=THEORY, linewidth=1.0, linestyle="--", zorder=1)
        ax.annotate(text, (0.01, height), xycoords=("axes fraction", "data"), xytext=(0, 3),
                    textcoords="offset points", fontsize=8, color=THEORY)  # fmt: skip
    ax.set_xlabel("step")
    ax.set_ylabel(r"$\log_{10}$")
    return ax
