"""Draw `book/images/readme.png`, the picture at the head of README.md, from computed gradients.

Run by hand when `course_lib` changes what it shows; tests/packaging/test_readme.py fails until
then. The picture holds one backward pass through each of two networks 30 layers deep, from the
same weights in NumPy, PyTorch and TensorFlow.
"""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.figure import Figure

import course_lib
from course_lib import GradientFlow, NetworkSpec
from course_lib.plots.style import BLUE, FRAMEWORK_STYLES, INK, VERMILLION, layer_ticks, new_axes

TARGET = Path(__file__).resolve().parents[1] / "images" / "readme.png"
SEED = 0
DEPTH = 30
NETWORKS = {
    "sigmoid, Glorot": NetworkSpec(20, 64, DEPTH, activation="sigmoid", init="glorot_uniform"),
    "ReLU, He": NetworkSpec(20, 64, DEPTH, activation="relu", init="he_normal"),
}
COLORS = (VERMILLION, BLUE)
LABEL_OFFSETS = ((16, -4), (0, -22))  # in points, from the first layer's mark


def compute_flows(spec: NetworkSpec) -> list[GradientFlow]:
    """One backward pass from the same weights and batch in each implementation, in float64."""
    from course_lib import pytorch, reference, tf

    rng = np.random.default_rng(SEED)
    x, y = rng.standard_normal((64, spec.n_in)), rng.standard_normal((64, 1))
    weights = course_lib.draw_weights(spec, seed=SEED)
    return [
        library.gradient_flow(library.build_mlp(spec, weights, dtype="float64"), x, y)
        for library in (reference, pytorch, tf)
    ]


def draw(flows: dict[str, list[GradientFlow]]) -> Figure:
    """Norm of the weight gradient against the layer, one color a network, one mark a framework."""
    axes = new_axes(None, size=(8.0, 3.6))
    layers = np.arange(1, DEPTH + 1)
    for (name, results), color, offset in zip(flows.items(), COLORS, LABEL_OFFSETS, strict=True):
        for flow in results:
            style = FRAMEWORK_STYLES[flow.framework] | {"color": color}
            axes.semilogy(layers, flow.weight_grad_norms, **style)
        first = results[0].weight_grad_norms[0]
        axes.annotate(
            f"{name}: {first:.1g} in layer 1",
            (1, first),
            xytext=offset,
            textcoords="offset points",
            color=color,
            fontsize=11,
        )
    for flow in next(iter(flows.values())):
        style = FRAMEWORK_STYLES[flow.framework] | {"color": INK}
        axes.plot([], [], label=flow.framework, **style)
    layer_ticks(axes, DEPTH)
    axes.set_xlabel("layer (1 is next to the input)")
    axes.set_ylabel("norm of the weight gradient")
    axes.legend(frameon=False, loc="lower right")
    return axes.figure


def render(flows: dict[str, list[GradientFlow]]) -> bytes:
    """Draw the picture and return it as PNG."""
    figure = draw(flows)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    plt.close(figure)
    return buffer.getvalue()


if __name__ == "__main__":
    TARGET.parent.mkdir(exist_ok=True)
    computed = {name: compute_flows(spec) for name, spec in NETWORKS.items()}
    TARGET.write_bytes(render(computed))
    print(f"{TARGET.name}: {TARGET.stat().st_size / 1000:.0f} KB")
