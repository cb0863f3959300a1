r"""Closed forms to hold against what was measured; each with its source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_integer,
    require_real,
    require_sequence,
)
from course_lib.activations import get_activation
from course_lib.results import decades, format_number
from course_lib.specs import MLPWeights

FLOAT_TYPES = ("float16", "float32", "float64")


def spectral_bound(weights: MLPWeights, activation: str) -> float:
    r"""Return $\gamma^{L-1} \prod_{l=2}^{L} \|W_l\|$, a bound on $\|\partial h_L/\partial h_1\|$.

    $\gamma = \sup|f'|$ of `activation`, which every layer 2..L must use (pascanu2013 for the
    recurrent form). With a single layer the product is empty and the bound is 1.
    """
    if not isinstance(weights, MLPWeights):
        raise TypeError(f"`weights` (a {type(weights).__name__}) must be MLPWeights.")
    gamma = get_activation(activation).supremum
    return float(gamma ** (weights.depth - 1) * np.prod(weights.spectral_norms[1:]))


def power_chain(factor: float, depth: int, *, dtype: str = "float64") -> np.ndarray:
    """Return factor^1, ..., factor^depth by repeated multiplication in `dtype`, shape (depth,).

    This is what backpropagation through `depth` identical scalar layers computes, rounding,
    overflow and underflow included.
    """
    factor = require_real("factor", factor)
    depth = require_integer("depth", depth, minimum=1)
    require_choice("dtype", dtype, FLOAT_TYPES)
    with np.errstate(over="ignore", under="ignore"):
        return np.multiply.accumulate(np.full(depth, factor, dtype=dtype))


@dataclass(frozen=True)
class ChainLimits:
    """The depths at which a chain of equal factors leaves the range of a floating-point type.

    Fields:
        factor: the factor per layer, > 0.
        dtype: "float16", "float32" or "float64".
        first_subnormal: the first depth whose power is subnormal (stored with fewer digits).
        first_zero: the first depth whose power is stored as 0.
        first_infinite: the first depth whose power is stored as inf.

    Each is None if it never happens: rounding keeps 0.9 times the smallest number at that number.
    """

    factor: float
    dtype: str
    first_subnormal: int | None
    first_zero: int | None
    first_infinite: int | None

    def describe(self) -> str:
        """Say where the chain leaves the range."""
        head = f"{self.dtype}, factor {self.factor:g}: "
        if self.factor > 1.0:
            return f"{head}infinite from {self.first_infinite} layers on."
        parts = []
        if self.first_subnormal is not None:
            parts.append(f"subnormal from {self.first_subnormal} layers on")
        zero = self.first_zero
        parts.append("never zero" if zero is None else f"zero from {zero} layers on")
        return f"{head}{', '.join(parts)}."


def chain_limits(factor: float, *, dtype: str = "float32") -> ChainLimits:
    """Return the depths at which `power_chain(factor, ...)` underflows or overflows in `dtype`.

    Arguments:
        factor: > 0, and at least 0.01 away from 1, where a chain leaves the range late or never.
        dtype: "float16", "float32" or "float64".

    Source: ieee754 (gradual underflow, rounding to nearest), higham2002.
    """
    factor = require_real("factor", factor, minimum=0.0, exclusive=True)
    if abs(factor - 1.0) < 0.01:
        raise ValueError(f"`factor` (={factor}) must differ from 1 by at least 0.01.")
    require_choice("dtype", dtype, FLOAT_TYPES)
    limits = np.finfo(dtype)
    edge = limits.smallest_subnormal if factor < 1.0 else limits.max
    # Two rounds beyond the exact crossing: rounding can delay it, but not by so much.
    depth = 2 * int(np.ceil(np.log(float(edge)) / np.log(factor))) + 2
    chain = power_chain(factor, depth, dtype=dtype)

    def first(where: np.ndarray) -> int | None:
        return int(np.argmax(where)) + 1 if where.any() else None

    return ChainLimits(
        factor,
        dtype,
        first_subnormal=first((chain > 0.0) & (chain < limits.smallest_normal)),
        first_zero=first(chain == 0.0),
        first_infinite=first(np.isinf(chain)),
    )


@dataclass(frozen=True)
class MeanFieldRate:
    r"""The mean-field fixed point of an infinitely wide random network (poole2016, schoenholz2017).

    Fields:
        activation: the activation's name.
        weight_scale: $\sigma_w = \sqrt{n \operatorname{Var} W}$.
        preactivation_variance: $q^*$, the fixed point of
            $q = \sigma_w^2\, \mathbb{E}[f(\sqrt{q}\,\xi)^2] + \sigma_b^2$, $\xi \sim N(0, 1)$.
        rate: $\sqrt{\chi}$ with $\chi = \sigma_w^2\, \mathbb{E}[f'(\sqrt{q^*}\,\xi)^2]$, the factor
            by which the norm of an activation gradient changes per layer towards the input.
    """

    activation: str
    weight_scale: float
    preactivation_variance: float
    rate: float

    def describe(self) -> str:
        """Say the predicted factor per layer."""
        return (
            f"Mean-field theory for {self.activation} at weight scale "
            f"{format_number(self.weight_scale)} predicts a factor of {format_number(self.rate)} "
            f"per layer."
        )


def mean_field_rate(
    activation: str, *, weight_scale: float, bias_scale: float = 0.0, iterations: int = 500
) -> MeanFieldRate:
    r"""Return the gradient's factor per layer in a wide random network, by mean-field theory.

    Expectations over a standard normal are taken with the midpoint rule at 18,000 nodes; the
    fixed point is found by iteration from $q = 1$. Raises ValueError if $q$ does not settle, as
    for ReLU above He's scale, where it grows without bound.

    Source: poole2016, schoenholz2017.
    """
    f = get_activation(activation)
    weight_scale = require_real("weight_scale", weight_scale, minimum=0.0)
    bias_scale = require_real("bias_scale", bias_scale, minimum=0.0)
    iterations = require_integer("iterations", iterations, minimum=1)
    # Gauss-Hermite nodes would lie too far apart for a saturated sigmoid, whose slope is a narrow
    # peak of width 1/sqrt(q); and no node may lie on the kink of ReLU.
    nodes = 1e-3 * (np.arange(-9000, 9000) + 0.5)
    masses = np.exp(-0.5 * nodes**2)
    masses = masses / masses.sum()
    q, previous = 1.0, np.inf
    for _ in range(iterations):
        previous = q
        q = weight_scale**2 * float(masses @ f.function(np.sqrt(q) * nodes) ** 2) + bias_scale**2
        if not np.isfinite(q) or q > 1e12 or abs(q - previous) <= 1e-14 * (1.0 + q):
            break
    if not abs(q - previous) <= 1e-6 * (1.0 + q):
        raise ValueError(
            f"`weight_scale` (={weight_scale}) must let the preactivation variance settle for "
            f"{activation}; after {iterations} iterations it is still moving."
        )
    # A variance that underflows to 0 would put every node on the kink of ReLU.
    spread = np.sqrt(max(q, 1e-300))
    chi = weight_scale**2 * float(masses @ f.derivative(spread * nodes) ** 2)
    return MeanFieldRate(activation, weight_scale, q, float(np.sqrt(chi)))


@dataclass(frozen=True, eq=False)
class NormBounds:
    r"""Two bounds around the norm of a product of Jacobians.

    Fields:
        lower: $\prod_l \sigma_{min}(J_l)$, a bound from below if no matrix has more columns
            than rows.
        norm: $\|J_L \cdots J_1\|$, measured.
        upper: $\prod_l \sigma_{max}(J_l)$, a bound from above by submultiplicativity.
    """

    lower: float
    norm: float
    upper: float

    def describe(self) -> str:
        """Say the measured norm, both bounds and how many decades lie between."""
        spread = decades(self.lower, self.upper) if self.lower > 0 else np.inf
        return (
            f"The product's norm is {format_number(self.norm)}, between "
            f"{format_number(self.lower)} and {format_number(self.upper)}, "
            f"bounds that lie {spread:.1f} decades apart."
        )


def product_norm_bounds(matrices: list[np.ndarray]) -> NormBounds:
    r"""Return $\prod \sigma_{min} \le \|M_k \cdots M_1\| \le \prod \sigma_{max}$.

    Arguments:
        matrices: $M_1, \dots, M_k$ in the order in which they act; the product is formed with the
            last one leftmost.

    The lower bound is 0 where a matrix has more columns than rows: it then has a null space.
    Source: hornjohnson2013 (theorem 3.3.4 and its corollaries).
    """
    require_sequence("matrices", matrices, of="matrices")
    checked = [require_array(f"matrices[{k}]", m, ndim=2) for k, m in enumerate(matrices)]
    product, lower, upper = np.eye(checked[0].shape[1]), 1.0, 1.0
    for k, m in enumerate(checked):
        if m.shape[1] != product.shape[0]:
            raise ValueError(
                f"`matrices[{k}]` (shape {m.shape}) must have {product.shape[0]} columns."
            )
        values = np.linalg.svd(m, compute_uv=False)
        lower *= values[-1] if m.shape[0] >= m.shape[1] else 0.0
        upper *= values[0]
        product = m @ product
    return NormBounds(float(lower), float(np.linalg.norm(product, 2)), float(upper))
