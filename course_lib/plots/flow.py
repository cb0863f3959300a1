"""Figures of one backward pass."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes

from course_lib._validation import require_choice, require_real, require_sequence, require_type
from course_lib.plots.style import FRAMEWORK_STYLES, THEORY, label_line, layer_ticks, new_axes
from course_lib.results import GradientFlow

QUANTITIES = {
    "weight": ("weight_grad_norms", r"$\|\partial\mathcal{L}/\partial W_l\|$"),
    "activation": ("activation_grad_norms", r"$\|\partial\mathcal{L}/\partial h_l\|$"),
}


def plot_gradient_norms(
    flows: Sequence[GradientFlow],
    *,
    quantity: str = "weight",
    theory_rate: float | None = None,
    ax: Axes | None = None,
) -> Axes:
    """Plot the gradient's norm against the layer for one network in several frameworks.

    Arguments:
        flows: results for the same network and batch, one per framework.
        quantity: "weight" or "activation", the gradient whose norm is drawn.
        theory_rate: a predicted factor per layer; drawn as a thin line through the last layer.
        ax: where to draw; a new figure if None.
    """
    require_choice("quantity", quantity, QUANTITIES)
    for k, flow in enumerate(require_sequence("flows", flows, of="GradientFlows")):
        require_type(f"flows[{k}]", flow, GradientFlow)
    if theory_rate is not None:
        theory_rate = require_real("theory_rate", theory_rate, minimum=0.0, exclusive=True)
    attribute, label = QUANTITIES[quantity]
    ax = new_axes(ax)
    for flow in flows:
        layers = np.arange(1, flow.depth + 1)
        ax.plot(layers, getattr(flow, attribute), label=flow.framework,
                **FRAMEWORK_STYLES[flow.framework])  # fmt: skip
    depth = flows[0].depth
    if theory_rate is not None:
        layers = np.arange(1, depth + 1)
        line = getattr(flows[0], attribute)[-1] * theory_rate ** (depth - layers)
        ax.plot(layers, line, color=THEORY, linewidth=1.0, linestyle="--", zorder=1)
        middle = depth // 2
        text = f"theory: × {theory_rate:.2g} per layer"
        label_line(ax, layers[middle], line[middle], text, THEORY, offset=(10, -10))
    ax.set_yscale("log")
    layer_ticks(ax, depth)
    ax.set_xlabel("layer $l$ (1 is next to the input)")
    ax.set_ylabel(label)
    ax.legend(frameon=False, fontsize=9)
    return ax
