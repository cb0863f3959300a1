r"""The factor per layer by which activation gradients change: bounded, predicted and measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_flag,
    require_integer,
    require_real,
    require_seed,
)
from course_lib.activations import get_activation
from course_lib.data import gaussian_batch
from course_lib.reference.mlp import MLP, backward, build_mlp
from course_lib.results import format_number, per_layer_factor
from course_lib.saturation import center_sigmoid_inputs, measure_saturation
from course_lib.specs import MLPWeights, NetworkSpec, check_weights, draw_weights
from course_lib.theory import mean_field_rate


def bound_activation_grads(
    spec: NetworkSpec, weights: MLPWeights, *, output_norm: float
) -> np.ndarray:
    r"""Return the bound $\prod_{k=l+1}^{L} \gamma_k \|W_k\|$ times `output_norm` for l = 1..L.

    With $\gamma_k = \sup|f_k'|$ and `output_norm` $= \|\partial\mathcal{L}/\partial h_L\|_F$ over a
    batch, entry [l - 1] is at least $\|\partial\mathcal{L}/\partial h_l\|_F$. Shape (L,).
    """
    check_weights(spec, weights)
    output_norm = require_real("output_norm", output_norm, minimum=0.0)
    gammas = np.array([get_activation(name).supremum for name in spec.activations])
    factors = gammas * weights.spectral_norms
    tail = np.append(np.cumprod(factors[:0:-1])[::-1], 1.0)
    return output_norm * tail


@dataclass(frozen=True, eq=False)
class RateSweep:
    r"""The gradient's factor per layer at several weight scales.

    Fields:
        activation: the activation's name.
        centered: whether the biases of `center_sigmoid_inputs` were used.
        depth, width: of the square networks that were measured.
        scales: $\sigma_w = \sqrt{n \operatorname{Var} W}$, shape (K,).
        measured: the factor from layer to layer of $\|\partial\mathcal{L}/\partial h_l\|_F$ in one
            random network for each scale, shape (K,).
        predicted: mean-field theory's factor, NaN where it has no settled state, shape (K,).
        saturated: fraction of units with a slope below a tenth of the supremum, shape (K,).
    """

    activation: str
    centered: bool
    depth: int
    width: int
    scales: np.ndarray
    measured: np.ndarray
    predicted: np.ndarray
    saturated: np.ndarray

    def describe(self) -> str:
        """Say the factor and the saturated share at the smallest and the largest scale."""
        kind = f"{self.activation}, inputs centered" if self.centered else self.activation
        ends = [
            f"{format_number(self.measured[k])} at weight scale {self.scales[k]:g} "
            f"({100 * self.saturated[k]:.0f} % of units saturated)"
            for k in (0, -1)
        ]
        return (
            f"{kind}, {self.depth} layers of {self.width}: the factor per layer goes from "
            f"{ends[0]} to {ends[1]}."
        )


def sweep_weight_scale(
    scales: Sequence[float],
    *,
    activation: str = "sigmoid",
    centered: bool = False,
    width: int = 64,
    depth: int = 30,
    inputs: int = 32,
    seed: int,
) -> RateSweep:
    """Measure the gradient's factor per layer in one random network for each weight scale.

    Arguments:
        scales: standard deviations of the weights times the square root of the width, each > 0.
        activation: of every layer, the last one included.
        centered: whether to cancel a sigmoid's mean with biases; only for "sigmoid".
        width, depth: of the square networks; depth >= 2.
        inputs: number of standard normal inputs.
        seed: of weights and inputs; every scale multiplies the same draws.

    The gradient handed to the last layer is drawn from the standard normal law, so that it favors
    no direction. The prediction is `mean_field_rate` (for a centered sigmoid that of tanh at a
    quarter of the scale).
    """
    scales = require_array("scales", scales, ndim=1)
    if np.any(scales <= 0):
        raise ValueError(f"`scales` (={scales.tolist()}) must all be > 0.")
    get_activation(activation)
    depth = require_integer("depth", depth, minimum=2)
    width = require_integer("width", width, minimum=1)
    inputs = require_integer("inputs", inputs, minimum=1)
    seed = require_seed(seed)
    centered = require_flag("centered", centered)
    if centered:
        require_choice("activation", activation, ("sigmoid",))
    x = gaussian_batch(inputs, width, seed=seed + 1)
    output_grad = gaussian_batch(inputs, width, seed=seed + 2)
    rows = []
    for scale in scales:
        model = _square_network(activation, float(scale), centered, width, depth, seed)
        passed = model.forward(x)
        norms = [np.linalg.norm(grad) for grad in backward(model, passed, output_grad)[2]]
        flat = measure_saturation(passed.preactivations, model.activations)
        rows.append((per_layer_factor(np.array(norms)), flat.fractions.mean()))
    measured, saturated = np.array(rows).T
    predicted = np.array([_predict(activation, float(scale), centered) for scale in scales])
    return RateSweep(activation, centered, depth, width, scales, measured, predicted, saturated)


def _square_network(
    activation: str, scale: float, centered: bool, width: int, depth: int, seed: int
) -> MLP:
    spec = NetworkSpec(
        width, width, depth, width, activation, activation, init="lecun_normal", gain=scale
    )
    weights = draw_weights(spec, seed=seed)
    return build_mlp(spec, center_sigmoid_inputs(weights) if centered else weights)


def _predict(activation: str, scale: float, centered: bool) -> float:
    try:
        if centered:
            return mean_field_rate("tanh", weight_scale=scale / 4.0).rate
        return mean_field_rate(activation, weight_scale=scale).rate
    except ValueError:  # no settled state, as for ReLU above He's scale
        return float("nan")
