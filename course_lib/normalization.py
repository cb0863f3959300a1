r"""What normalization does to gradients at initialization: rates per layer, predicted and measured.

In a wide stack of random layers a normalized unit is standard normal, $\xi \sim N(0, 1)$. Its
activation $f(\xi)$ goes into the next layer's sum, whose variance over the batch is
$\sigma_w^2 \operatorname{Var} f(\xi)$ and whose mean square over the units is
$\sigma_w^2\, \mathbb{E} f(\xi)^2$. Normalizing divides by the root of the one (batch) or the other
(layer), and so does the gradient on its way back. Per layer, squared,

$$r^2_{\text{batch}} = \frac{\mathbb{E} f'(\xi)^2}{\operatorname{Var} f(\xi)}, \qquad
r^2_{\text{layer}} = \frac{\mathbb{E} f'(\xi)^2}{\mathbb{E} f(\xi)^2} :$$

the scale of the weights has gone. For ReLU $r^2_{\text{batch}} = \pi/(\pi - 1)$. Source: yang2019.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from course_lib._validation import (
    require_choice,
    require_integer,
    require_seed,
    require_sequence,
    require_type,
)
from course_lib.activations import get_activation
from course_lib.data import gaussian_batch
from course_lib.initialization import weight_variance
from course_lib.reference.stack import build_stack
from course_lib.results import format_number, per_layer_factor
from course_lib.signal_propagation import gaussian_mean, gaussian_mean_square
from course_lib.stack_results import StackProfile
from course_lib.stack_specs import StackSpec, draw_stack_weights


def normalized_rate(activation: str, *, norm: str) -> float:
    r"""Return the factor per layer of the gradient's size in a plain normalized stack.

    $\sqrt{\mathbb{E} f'^2/\operatorname{Var} f}$ for "batch", for large batches, and
    $\sqrt{\mathbb{E} f'^2/\mathbb{E} f^2}$ for "layer". The first is at least 1 whatever the
    activation, by the Gaussian Poincaré inequality (chernoff1981), and 1 only if f is affine.
    Source: yang2019 for ReLU and batch normalization.

    Arguments:
        activation: see `course_lib.ACTIVATIONS`.
        norm: "batch" or "layer".
    """
    f = get_activation(activation)
    norm = require_choice("norm", norm, ("batch", "layer"))
    square = gaussian_mean_square(f.function, 1.0)
    if norm == "batch":
        square -= gaussian_mean(f.function, 1.0) ** 2
    return float(np.sqrt(gaussian_mean_square(f.derivative, 1.0) / square))


def predict_stack(spec: StackSpec) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the predicted sizes of $h_l$ and of its gradient for l = 0..L, two (L + 1,) arrays.

    Root mean squares, for inputs of variance 1 and zero biases, a wide stack and a large batch;
    the gradient's is 1 at l = L. For a branch with output of mean square $m_l$ and variance over
    the batch $c_l$, and the state's mean square $q_l$ and variance $u_l$,

    $$q_l = q_{l-1} + \alpha^2 m_l, \quad u_l = u_{l-1} + \alpha^2 c_l, \quad
    v_{l-1} = v_l\, (1 + \alpha^2 s_l),$$

    without the 1 and the states' own part if there is no shortcut; $s_l$ is the branch's squared
    factor, which a first normalization divides by $u_{l-1}$ (batch) or $q_{l-1}$ (layer). NaN for
    the placement "post", where an activation acts on the sum. Source: yang2017, de2020.
    """
    require_type("spec", spec, StackSpec)
    if spec.placement == "post":
        return np.full(spec.blocks + 1, np.nan), np.full(spec.blocks + 1, np.nan)
    direct, alpha = float(spec.shortcut), spec.scale**2
    squares, variances, factors = [1.0], [1.0], []
    for _ in range(spec.blocks):
        square, variance, slope = _predict_branch(spec, squares[-1], variances[-1])
        squares.append(direct * squares[-1] + alpha * square)
        variances.append(direct * variances[-1] + alpha * variance)
        factors.append(direct + alpha * slope)
    return np.sqrt(squares), np.sqrt(np.append(np.cumprod(factors[::-1])[::-1], 1.0))


def _predict_branch(spec: StackSpec, square: float, variance: float) -> tuple[float, float, float]:
    """Return mean square and batch variance of a branch's output, and its squared factor."""
    f = get_activation(spec.activation)
    weight = spec.width * weight_variance(
        spec.init, fan_in=spec.width, fan_out=spec.width, gain=spec.gain
    )
    factor = 1.0
    for _ in range(spec.layers):
        q = square if spec.norm == "none" else 1.0
        divisor = {"none": 1.0, "batch": variance, "layer": square}[spec.norm]
        factor *= weight * gaussian_mean_square(f.derivative, q) / (divisor + _added(spec))
        square = weight * gaussian_mean_square(f.function, q)
        variance = square - weight * gaussian_mean(f.function, q) ** 2
    return square, variance, factor


def _added(spec: StackSpec) -> float:
    return 0.0 if spec.norm == "none" else spec.epsilon


def measure_stack(spec: StackSpec, *, inputs: int = 64, seed: int) -> StackProfile:
    """Measure the sizes of states and their gradients in one random stack, in training mode.

    Arguments:
        spec: the stack.
        inputs: number of standard normal inputs, at least 2: one batch.
        seed: of weights, inputs and the gradient handed to the outputs, which is drawn from the
            standard normal law so that it favors no direction.
    """
    forward_theory, backward_theory = predict_stack(spec)
    inputs, seed = require_integer("inputs", inputs, minimum=2), require_seed(seed)
    model = build_stack(spec, draw_stack_weights(spec, seed=seed))
    passed = model.forward(gaussian_batch(inputs, spec.n_in, seed=seed + 1), training=True)
    grads = model.backward(passed, gaussian_batch(inputs, spec.n_out, seed=seed + 2))[1]
    sizes = np.array([_root_mean_square(grad) for grad in grads])
    return StackProfile(
        spec=spec,
        inputs=inputs,
        forward=np.array([_root_mean_square(h) for h in passed.states]),
        spread=np.array([_root_mean_square(h - h.mean(axis=0)) for h in passed.states]),
        backward=sizes / sizes[-1],
        forward_theory=forward_theory,
        backward_theory=backward_theory,
    )


def _root_mean_square(array: np.ndarray) -> float:
    return float(np.sqrt(np.mean(array**2)))


@dataclass(frozen=True, eq=False)
class NormRates:
    """The gradient's factor per block at several batch sizes and depths.

    Fields:
        spec: the stack; its number of blocks is replaced by each of `depths`.
        inputs: the batch sizes, shape (K,).
        depths: the numbers of blocks, shape (D,).
        rates: the factor per block from the second block on, one for each batch size, depth and
            seed, shape (K, D, S). In the first block the scale of the inputs has its say.
        theory: the rate for large batches, `normalized_rate`; NaN without normalization.
    """

    spec: StackSpec
    inputs: np.ndarray = field(repr=False)
    depths: np.ndarray = field(repr=False)
    rates: np.ndarray = field(repr=False)
    theory: float

    def describe(self) -> str:
        """Say the mean rate at the smallest and the largest batch, and the theory's."""
        first, last = self.rates[0].mean(), self.rates[-1].mean()
        return (
            f"{self.spec.norm} norm, {self.spec.activation}: × {first:.2f} per layer at batch "
            f"size {self.inputs[0]}, × {last:.2f} at {self.inputs[-1]}; theory for large batches "
            f"× {format_number(self.theory) if self.theory < 1 else f'{self.theory:.2f}'}."
        )


def measure_norm_rates(
    spec: StackSpec, *, inputs: Sequence[int], depths: Sequence[int], seeds: Sequence[int]
) -> NormRates:
    """Measure the factor per block of the gradient's size over batch sizes, depths and seeds.

    Arguments:
        spec: a stack, usually without shortcut; its number of blocks is not used.
        inputs: batch sizes, each at least 2.
        depths: numbers of blocks, each at least 2.
        seeds: of weights, inputs and output gradients.
    """
    require_type("spec", spec, StackSpec)
    for name, values in (("inputs", inputs), ("depths", depths), ("seeds", seeds)):
        require_sequence(name, values, of="integers")
    inputs = [require_integer(f"inputs[{k}]", n, minimum=2) for k, n in enumerate(inputs)]
    depths = [require_integer(f"depths[{k}]", n, minimum=2) for k, n in enumerate(depths)]
    seeds = [require_seed(seed, name=f"seeds[{k}]") for k, seed in enumerate(seeds)]
    rates = [
        [
            [
                per_layer_factor(
                    measure_stack(replace(spec, blocks=depth), inputs=n, seed=seed).backward[1:]
                )
                for seed in seeds
            ]
            for depth in depths
        ]
        for n in inputs
    ]
    none = spec.norm == "none"
    theory = np.nan if none else normalized_rate(spec.activation, norm=spec.norm)
    return NormRates(spec, np.array(inputs), np.array(depths), np.array(rates), theory)
