r"""A map of converge and diverge over learning rate and initial scale, one network per point.

All networks of the map are trained at once, as one stack of matrices. A linear or a ReLU network
without biases is homogeneous: multiplying every matrix by s multiplies the gradient of the output
with respect to each weight by $s^{L-1}$, and the curvature that limits the learning rate by
$s^{2(L-1)}$.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_array, require_choice, require_integer
from course_lib.data import gaussian_batch
from course_lib.results import decades, format_number
from course_lib.specs import MLPWeights, NetworkSpec, draw_weights

OUTCOMES = ("not learned", "converged", "diverged")
"""The names of the codes 0, 1 and 2 in `StabilityMap.outcomes`."""

HOMOGENEOUS = {"linear": "lecun_normal", "relu": "he_normal"}
"""The activations of the map, with the law that keeps the size of a signal at scale 1."""


@dataclass(frozen=True, eq=False)
class StabilityMap:
    r"""How training ends for each learning rate and initial scale, at one depth.

    Fields:
        activation: "linear" or "relu".
        depth: number L of weight matrices.
        learning_rates: shape (R,), ascending.
        scales: factors on the law of `HOMOGENEOUS`, shape (S,), ascending.
        outcomes: codes of `OUTCOMES`, shape (R, S): "diverged" if the loss at the end is above
            the loss at the start, or not a number; "converged" if it is below half of the loss at
            the start and below half of what the output 0 would give.
        limits: $2/\lambda_{max}$ of the Gauss-Newton matrix at the start, shape (S,), the learning
            rate above which a quadratic with this curvature diverges.
        steps: number of updates of each run.
    """

    activation: str
    depth: int
    learning_rates: np.ndarray = field(repr=False)
    scales: np.ndarray = field(repr=False)
    outcomes: np.ndarray = field(repr=False)
    limits: np.ndarray = field(repr=False)
    steps: int

    def share(self, outcome: str) -> float:
        """Return the fraction of the map's runs with this outcome, one of `OUTCOMES`."""
        require_choice("outcome", outcome, OUTCOMES)
        return float(np.mean(self.outcomes == OUTCOMES.index(outcome)))

    @property
    def agreement(self) -> float:
        """The fraction of runs on the side of `limits` that theory says: diverged if above."""
        above = self.learning_rates[:, None] > self.limits[None, :]
        return float(np.mean(above == (self.outcomes == OUTCOMES.index("diverged"))))

    @property
    def slope(self) -> float:
        """Decades of learning rate that the limit falls per decade of scale."""
        return decades(self.limits[-1], self.limits[0]) / decades(self.scales[0], self.scales[-1])

    def describe(self) -> str:
        """Say the shares of the outcomes and how well the limit of the quadratic tells them."""
        shares = ", ".join(f"{100 * self.share(name):.0f} % {name}" for name in OUTCOMES[::-1])
        middle = int(np.argmin(np.abs(np.log(self.scales))))
        return (
            f"{self.depth} {self.activation} layers: {shares}; the limit 2/lambda at scale "
            f"{format_number(self.scales[middle])} is {format_number(self.limits[middle])} and "
            f"falls by {self.slope:.0f} decades per decade of scale; it foretells "
            f"{100 * self.agreement:.0f} % of the outcomes."
        )


def gauss_newton_limit(weights: MLPWeights, x: np.ndarray, *, activation: str) -> float:
    r"""Return $2/\lambda_{max}$ of the Gauss-Newton matrix of the mean squared error.

    For a network with one linear output and no biases. The matrix is $\frac{2}{n} G^\top G$, where
    row i of G is the gradient of the output at $x_i$; its nonzero eigenvalues are those of
    $\frac{2}{n} G G^\top$, which needs only one product per layer. It is the Hessian without the
    term that is multiplied by the error. Gradient descent on a quadratic with this curvature
    diverges above $2/\lambda_{max}$ (lecun1998efficient).

    Arguments:
        weights: with a single output; biases are left out.
        x: inputs, shape (n, n_0).
        activation: of the hidden layers, "linear" or "relu".
    """
    require_choice("activation", activation, HOMOGENEOUS)
    if not isinstance(weights, MLPWeights):
        raise TypeError(f"`weights` (a {type(weights).__name__}) must be MLPWeights.")
    if weights.layer_sizes[-1] != 1:
        raise ValueError(f"`weights` (with {weights.layer_sizes[-1]} outputs) must have 1 output.")
    x = require_array("x", x, shape=(None, weights.layer_sizes[0]))
    inputs = _forward(weights.matrices, x, activation)[:-1]
    kernel, delta = np.zeros((len(x), len(x))), np.ones((len(x), 1))
    for k in reversed(range(weights.depth)):
        kernel += (inputs[k] @ inputs[k].T) * (delta @ delta.T)
        if k:
            delta = delta @ weights.matrices[k]
            if activation == "relu":
                delta = delta * (inputs[k] > 0)
    largest = float(np.linalg.eigvalsh(kernel)[-1])
    return np.inf if largest == 0.0 else len(x) / largest


def _forward(matrices: list[np.ndarray], x: np.ndarray, activation: str) -> list[np.ndarray]:
    """Return $h_0 = x, ..., h_L$ of a network whose matrices may be stacks (..., n, m)."""
    activations = [x]
    for k, matrix in enumerate(matrices):
        z = activations[-1] @ np.swapaxes(matrix, -1, -2)
        last = k == len(matrices) - 1
        activations.append(z if last or activation == "linear" else np.maximum(z, 0.0))
    return activations


def _descend(
    matrices: list[np.ndarray], x: np.ndarray, y: np.ndarray, rates: np.ndarray, activation: str
) -> np.ndarray:
    """Make one step of gradient descent in place; return the losses before it, one per network."""
    activations = _forward(matrices, x, activation)
    error = activations[-1] - y
    delta = 2.0 * error / len(x)
    for k in reversed(range(len(matrices))):
        gradient = np.swapaxes(delta, -1, -2) @ activations[k]
        if k:
            delta = delta @ matrices[k]
            if activation == "relu":
                delta *= activations[k] > 0
        matrices[k] -= rates * gradient
    return np.mean(error**2, axis=(-1, -2))


def map_stability(
    *,
    activation: str = "linear",
    depth: int,
    learning_rates: np.ndarray,
    scales: np.ndarray,
    width: int = 16,
    count: int = 16,
    steps: int = 50,
    seed: int,
) -> StabilityMap:
    """Train one network for each pair of learning rate and initial scale.

    All networks have one draw of weights, multiplied by the scale, 8 inputs, no biases and one
    output; they learn a random linear function of Gaussian inputs by full-batch descent.

    Arguments:
        activation: of the hidden layers, "linear" or "relu".
        depth: number of weight matrices, at least 1.
        learning_rates: shape (R,), > 0.
        scales: factors on the law of `HOMOGENEOUS`, shape (S,), > 0.
        width, count, steps: units per layer, inputs, updates; each at least 1.
        seed: of the weights; seed + 1 of the inputs, seed + 2 of the function to learn.
    """
    require_choice("activation", activation, HOMOGENEOUS)
    spec = NetworkSpec(8, width, depth, 1, activation=activation, init=HOMOGENEOUS[activation])
    rates = require_array("learning_rates", learning_rates, ndim=1)
    scales = require_array("scales", scales, ndim=1)
    for name, values in (("learning_rates", rates), ("scales", scales)):
        if np.any(values <= 0):
            raise ValueError(f"`{name}` (smallest {values.min()}) must be > 0.")
    steps = require_integer("steps", steps, minimum=1)
    weights = draw_weights(spec, seed=seed)
    x = gaussian_batch(count, 8, seed=seed + 1)
    y = x @ gaussian_batch(8, 1, seed=seed + 2) / np.sqrt(8.0)
    stack = [
        np.tile(scales[:, None, None] * w, (len(rates), 1, 1, 1)) for w in weights.matrices
    ]
    with np.errstate(over="ignore", invalid="ignore"):  # divergence is what the map is about
        first = _descend(stack, x, y, rates[:, None, None, None], activation)
        for _ in range(steps - 1):
            _descend(stack, x, y, rates[:, None, None, None], activation)
        last = np.mean((_forward(stack, x, activation)[-1] - y) ** 2, axis=(-1, -2))
    outcomes = np.where(last <= 0.5 * np.minimum(first, np.mean(y**2)), 1, 0)
    outcomes[~(last <= first)] = 2
    limits = [
        gauss_newton_limit(MLPWeights([s * w for w in weights.matrices]), x, activation=activation)
        for s in scales
    ]
    return StabilityMap(activation, depth, rates, scales, outcomes, np.array(limits), steps)
