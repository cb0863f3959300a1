"""The picture of a monitored run: layers by steps, the color a logarithm."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from course_lib._validation import require_choice
from course_lib.monitoring import FlowRecord
from course_lib.plots.style import new_axes

QUANTITIES = {
    "activation_grad_norms": (r"$\log_{10}\|\partial\mathcal{L}/\partial h\|$", "layers"),
    "activation_scales": (r"$\log_{10}$ scale of $h$", "layers"),
    "weight_grad_norms": (r"$\log_{10}\|\partial\mathcal{L}/\partial W\|$", "parameters"),
    "weight_norms": (r"$\log_{10}\|W\|$", "parameters"),
    "update_ratios": (r"$\log_{10}$ update / weight", "parameters"),
    "active_fractions": ("active fraction", "layers"),
    "dead_fractions": ("units dead on the batch", "layers"),
    "always_on_fractions": ("units always on", "layers"),
    "saturated_fractions": ("saturated fraction", "layers"),
}


def plot_flow_record(
    record: FlowRecord, *, quantity: str = "activation_grad_norms", ax: Axes | None = None
) -> Axes:
    """Plot one quantity of a record as a picture, layers (input at the bottom) by sampled steps.

    Norms and ratios are colored by their base-10 logarithm, fractions from 0 to 1. Cells without
    a value, and values that are not finite, stay white.
    """
    if not isinstance(record, FlowRecord):
        raise TypeError(f"`record` (={record!r}) must be a FlowRecord.")
    label, rows = QUANTITIES[require_choice("quantity", quantity, QUANTITIES)]
    if len(record) == 0:
        raise ValueError("`record` (0 samples) must hold at least one sampled step.")
    table, names = getattr(record, quantity), getattr(record, rows)
    known = np.flatnonzero(np.any(np.isfinite(table), axis=0))
    if len(known) == 0:
        raise ValueError(f"`quantity` (={quantity!r}) must have a value in the record.")
    table, names = table[:, known].T, [names[k] for k in known]
    limits = {"vmin": 0.0, "vmax": 1.0}
    if "fraction" not in quantity:
        limits = {}
        with np.errstate(divide="ignore", invalid="ignore"):
            table = np.log10(table)
    ax = new_axes(ax, size=(6.4, float(np.clip(1.2 + 0.2 * len(names), 3.0, 9.0))))
    ax.grid(False)
    image = np.ma.masked_invalid(table)
    mesh = ax.pcolormesh(
        _edges(record.steps), np.arange(len(names) + 1) - 0.5, image, cmap="cividis",
        rasterized=True, **limits,
    )  # fmt: skip
    ax.figure.colorbar(mesh, ax=ax, label=label)
    stride = max(1, int(np.ceil(len(names) / 30)))
    ax.set_yticks(range(0, len(names), stride), names[::stride], fontsize=7)
    ax.set_xlabel("step")
    return ax


def _edges(steps: np.ndarray) -> np.ndarray:
    """Return the borders between the sampled steps, one more than there are."""
    steps = np.asarray(steps, dtype=np.float64)
    if len(steps) == 1:
        return np.array([steps[0] - 0.5, steps[0] + 0.5])
    middles = (steps[1:] + steps[:-1]) / 2
    return np.concatenate([[2 * steps[0] - middles[0]], middles, [2 * steps[-1] - middles[-1]]])
