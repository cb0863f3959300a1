r"""How large activations and their gradients are from layer to layer, measured beside theory.

Sizes are root mean squares over batch and units, so that layers of unequal width can be compared.
The prediction is the variance argument: for zero biases and wide random layers

$$q_l = n_{l-1} \operatorname{Var}(W_l)\, m_{l-1}, \quad m_l = \mathbb{E}[f(\sqrt{q_l}\,\xi)^2],
\quad v_{l-1} = n_l \operatorname{Var}(W_l)\, \mathbb{E}[f'(\sqrt{q_l}\,\xi)^2]\, v_l$$

with $m_l$ the mean square of the activations, $v_l$ that of their gradients and
$\xi \sim N(0, 1)$. Source: glorot2010, he2015delving; poole2016 and schoenholz2017 for the
Gaussian averages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np

from course_lib._validation import require_function, require_integer, require_real, require_seed
from course_lib.activations import get_activation
from course_lib.data import gaussian_batch
from course_lib.initialization import draw_matrix, weight_variance
from course_lib.reference.mlp import MLP, backward
from course_lib.results import format_number, per_layer_factor

# No node at 0, where ReLU has its kink; the step resolves the slope of a saturated sigmoid.
_NODES = 2e-3 * (np.arange(-4000, 4000) + 0.5)
_MASSES = np.exp(-0.5 * _NODES**2) / np.exp(-0.5 * _NODES**2).sum()


def gaussian_mean(function: Callable[[np.ndarray], np.ndarray], variance: float) -> float:
    r"""Return $\mathbb{E}[g(\sqrt{q}\,\xi)]$ for $\xi \sim N(0, 1)$ and $q$ = `variance` >= 0."""
    function = require_function("function", function)
    variance = require_real("variance", variance, minimum=0.0)
    # A variance of 0 would put every node on the kink of ReLU.
    return float(_MASSES @ function(np.sqrt(max(variance, 1e-300)) * _NODES))


def gaussian_mean_square(function: Callable[[np.ndarray], np.ndarray], variance: float) -> float:
    r"""Return $\mathbb{E}[g(\sqrt{q}\,\xi)^2]$ for $\xi \sim N(0, 1)$ and $q$ = `variance` >= 0."""
    function = require_function("function", function)
    return gaussian_mean(lambda z: function(z) ** 2, variance)


@dataclass(frozen=True, eq=False)
class SignalProfile:
    r"""Sizes of the signals in one random network of L layers, with their prediction.

    Fields:
        activation, init, gain: of every layer, the last one included.
        sizes: the widths $(n_0, \dots, n_L)$.
        forward: root mean square of $h_l$ for l = 0..L, shape (L + 1,).
        spread: root mean square of $h_l$ minus its mean over the inputs, for l = 0..L: the part
            that tells inputs apart, shape (L + 1,).
        backward: root mean square of $\partial\mathcal{L}/\partial h_l$ for l = 1..L, over its
            value in layer L, shape (L,).
        forward_theory, backward_theory: the variance argument's values for `forward` and
            `backward`; same shapes.
    """

    activation: str
    init: str
    gain: float
    sizes: tuple[int, ...]
    forward: np.ndarray = field(repr=False)
    spread: np.ndarray = field(repr=False)
    backward: np.ndarray = field(repr=False)
    forward_theory: np.ndarray = field(repr=False)
    backward_theory: np.ndarray = field(repr=False)

    @property
    def depth(self) -> int:
        """The number L of layers."""
        return len(self.sizes) - 1

    @property
    def backward_factor(self) -> float:
        """The factor per layer, towards the input, of the activation gradient's size."""
        return per_layer_factor(self.backward)

    @property
    def backward_factor_theory(self) -> float:
        """The factor per layer that the variance argument predicts."""
        return per_layer_factor(self.backward_theory)

    @property
    def forward_factor(self) -> float:
        """The factor per layer, towards the output, of the activations' size from layer 1 on."""
        return per_layer_factor(self.forward[:0:-1])

    @property
    def spread_factor(self) -> float:
        """The factor per layer, towards the output, of the part that tells inputs apart."""
        return per_layer_factor(self.spread[:0:-1])

    def describe(self) -> str:
        """Say the activations' first and last size and the gradients' factor per layer."""
        law = self.init if self.gain == 1.0 else f"{self.init} times {format_number(self.gain)}"
        return (
            f"{self.activation} with {law}, {self.depth} layers: activations "
            f"{format_number(self.forward[1])} in layer 1 and {format_number(self.forward[-1])} "
            f"in layer {self.depth} (theory {format_number(self.forward_theory[-1])}); "
            f"gradients × {format_number(self.backward_factor)} per layer "
            f"(theory {format_number(self.backward_factor_theory)})."
        )


def predict_signal(
    sizes: Sequence[int], *, activation: str, init: str, gain: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the root mean squares $\sqrt{m_0}, \dots, \sqrt{m_L}$ and $\sqrt{v_1}, \dots$

    The inputs have mean square 1 and the gradients at layer L too. Shapes (L + 1,) and (L,).
    """
    sizes = _check_sizes(sizes)
    f = get_activation(activation)
    squares, slopes = [1.0], []
    variances = [
        weight_variance(init, fan_in=n_in, fan_out=n_out, gain=gain)
        for n_in, n_out in pairwise(sizes)
    ]
    for n_in, n_out, variance in zip(sizes[:-1], sizes[1:], variances, strict=True):
        q = n_in * variance * squares[-1]
        squares.append(gaussian_mean_square(f.function, q))
        slopes.append(n_out * variance * gaussian_mean_square(f.derivative, q))
    grads = np.append(np.cumprod(slopes[:0:-1])[::-1], 1.0)
    return np.sqrt(squares), np.sqrt(grads)


def measure_signal(
    sizes: Sequence[int],
    *,
    activation: str,
    init: str,
    gain: float = 1.0,
    inputs: int = 64,
    seed: int,
) -> SignalProfile:
    """Measure the sizes of activations and activation gradients in one random network.

    Arguments:
        sizes: the widths (n_0, ..., n_L), at least two layers.
        activation: of every layer, the last one included.
        init, gain: law of the weights and factor on it; biases are zero.
        inputs: number of standard normal inputs.
        seed: of weights, inputs and the gradient handed to the last layer, which is drawn from
            the standard normal law so that it favors no direction.

    Source: glorot2010 (figures 6 and 7 there).
    """
    sizes = _check_sizes(sizes)
    forward_theory, backward_theory = predict_signal(
        sizes, activation=activation, init=init, gain=gain
    )
    inputs = require_integer("inputs", inputs, minimum=1)
    rng = np.random.default_rng(require_seed(seed))
    matrices = [
        draw_matrix(init, fan_in=n_in, fan_out=n_out, gain=gain, rng=rng)
        for n_in, n_out in pairwise(sizes)
    ]
    biases = [np.zeros(n) for n in sizes[1:]]
    model = MLP(matrices, biases, (activation,) * len(matrices))
    passed = model.forward(gaussian_batch(inputs, sizes[0], seed=seed + 1))
    output_grad = gaussian_batch(inputs, sizes[-1], seed=seed + 2)
    grads = np.array([_root_mean_square(g) for g in backward(model, passed, output_grad)[2]])
    return SignalProfile(
        activation=activation,
        init=init,
        gain=float(gain),
        sizes=sizes,
        forward=np.array([_root_mean_square(h) for h in passed.activations]),
        spread=np.array([_root_mean_square(h - h.mean(axis=0)) for h in passed.activations]),
        backward=grads / grads[-1],
        forward_theory=forward_theory,
        backward_theory=backward_theory,
    )


def _check_sizes(sizes: Sequence[int]) -> tuple[int, ...]:
    if isinstance(sizes, str) or not isinstance(sizes, Sequence) or len(sizes) < 3:
        raise ValueError(f"`sizes` (={sizes!r}) must be a sequence of at least three widths.")
    return tuple(require_integer(f"sizes[{k}]", n, minimum=1) for k, n in enumerate(sizes))


def _root_mean_square(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(array**2)))
