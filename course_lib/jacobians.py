r"""Products of Jacobians: in which order they are multiplied, and how they grow with depth.

A chain of matrices $M_1, \dots, M_K$ is given in the order in which it acts, so that the product
$P_k = M_k \cdots M_1$ has the latest matrix leftmost, as $\partial h_L/\partial h_1$ has.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_integer,
    require_seed,
    require_sequence,
)
from course_lib.activations import get_activation
from course_lib.initialization import draw_matrix, orthogonal_matrix
from course_lib.reference.mlp import MLP, backward, require_mlp
from course_lib.results import decades, format_number

CHAINS = ("random", "aligned", "orthogonal")
READINGS = (
    "row g, then W_l^T D_(l-1) for l = 2..L",
    "row g, then W_l^T D_l for l = 2..L",
    "W_l^T D_l for l = 2..L, then column g",
    "row g, then D_l W_l for l = L..2",
)
"""Ways to read the formula for dL/dh_1; the first is Lecture 0's, the last two are right."""


@dataclass(frozen=True, eq=False)
class ProductGrowth:
    r"""The running products $P_k = M_k \cdots M_1$ of a chain of (n, n) matrices, k = 1..K.

    Fields:
        singular_values: of $P_k$, largest first, shape (K, n). Values below about 1e-13 of the
            largest are rounding error.
        norm_products: $\prod_{j \le k} \sigma_{max}(M_j)$, the bound above $\|P_k\|$, shape (K,).
        smallest_products: $\prod_{j \le k} \sigma_{min}(M_j)$, the bound below, shape (K,).
        condition_numbers: $\kappa(P_k) = \|P_k\| \|P_k^{-1}\|$, shape (K,), from the product of
            the inverses and therefore good far beyond 1e16; inf once a matrix is singular.
    """

    singular_values: np.ndarray = field(repr=False)
    norm_products: np.ndarray = field(repr=False)
    smallest_products: np.ndarray = field(repr=False)
    condition_numbers: np.ndarray = field(repr=False)

    @property
    def count(self) -> int:
        """The number K of matrices."""
        return len(self.norm_products)

    @property
    def norms(self) -> np.ndarray:
        r"""$\|P_k\|$ for k = 1..K, shape (K,)."""
        return self.singular_values[:, 0]

    @property
    def slack(self) -> float:
        r"""How many decades $\prod\|M_k\|$ lies above the norm of the whole product."""
        return decades(self.norms[-1], self.norm_products[-1])

    def describe(self) -> str:
        """Say the norm of the whole product, its bound and its condition number."""
        if self.norms[-1] == 0.0:
            return f"After {self.count} factors the product is exactly zero."
        slack = abs(round(self.slack, 1))
        gap = "equal to the bound" if slack == 0 else f"{slack:.1f} decades below the bound"
        kappa = self.condition_numbers[-1]
        if not np.isfinite(kappa):
            said = "infinite"
        elif kappa < 1e3:
            said = format_number(kappa)
        else:
            said = f"10^{np.log10(kappa):.0f}"
        return (
            f"After {self.count} factors the norm of the product is "
            f"{format_number(self.norms[-1])}, {gap} {format_number(self.norm_products[-1])}; "
            f"its condition number is {said}."
        )


def _check_chain(matrices: Sequence[np.ndarray]) -> list[np.ndarray]:
    require_sequence("matrices", matrices, of="matrices")
    size = require_array("matrices[0]", matrices[0], ndim=2).shape[0]
    return [
        require_array(f"matrices[{k}]", m, shape=(size, size)) for k, m in enumerate(matrices)
    ]


def measure_product(matrices: Sequence[np.ndarray]) -> ProductGrowth:
    r"""Multiply a chain of square matrices out and measure every running product.

    Arguments:
        matrices: $M_1, \dots, M_K$, each (n, n), in the order in which they act.

    Raises ValueError if the shapes differ, or if the product leaves the range of float64, naming
    the matrix at which it does. Source: hornjohnson2013.
    """
    chain = _check_chain(matrices)
    product = inverse = np.eye(len(chain[0]))
    values, largest, smallest, conditions = [], [], [], []
    for k, matrix in enumerate(chain):
        own = np.linalg.svd(matrix, compute_uv=False)
        with np.errstate(over="ignore", invalid="ignore"):  # named below, with its place
            product = matrix @ product
        if not np.all(np.isfinite(product)):
            raise ValueError(f"`matrices[{k}]` (norm {own[0]:.3g}) must not overflow the product.")
        singular = own[-1] <= len(matrix) * np.finfo(np.float64).eps * own[0]
        inverse = None if singular or inverse is None else inverse @ np.linalg.inv(matrix)
        values.append(np.linalg.svd(product, compute_uv=False))
        largest.append(own[0])
        smallest.append(0.0 if singular else own[-1])
        inverse_norm = np.inf if inverse is None else np.linalg.norm(inverse, 2)
        conditions.append(values[-1][0] * inverse_norm if values[-1][0] > 0 else np.inf)
    return ProductGrowth(
        np.array(values), np.cumprod(largest), np.cumprod(smallest), np.array(conditions)
    )


def draw_chain(kind: str, *, width: int, depth: int, seed: int) -> list[np.ndarray]:
    r"""Draw `depth` matrices of shape (width, width), each of norm $\|M_k\| = 1$.

    Arguments:
        kind: "random", Gaussian matrices scaled to norm 1; "aligned", matrices with the very
            same singular values, but each one's left singular vectors are the next one's right
            singular vectors; "orthogonal", Haar-distributed orthogonal matrices.
        width, depth: at least 1.
        seed: of the draw.
    """
    require_choice("kind", kind, CHAINS)
    width = require_integer("width", width, minimum=1)
    depth = require_integer("depth", depth, minimum=1)
    rng = np.random.default_rng(require_seed(seed))
    if kind == "orthogonal":
        return [orthogonal_matrix(width, width, rng=rng) for _ in range(depth)]
    drawn = [draw_matrix("normal", fan_in=width, fan_out=width, rng=rng) for _ in range(depth)]
    chain = [m / np.linalg.norm(m, 2) for m in drawn]
    if kind == "random":
        return chain
    bases = [orthogonal_matrix(width, width, rng=rng) for _ in range(depth + 1)]
    return [
        (bases[k + 1] * np.linalg.svd(m, compute_uv=False)) @ bases[k].T
        for k, m in enumerate(chain)
    ]


@dataclass(frozen=True, eq=False)
class ProductReadings:
    r"""What several readings of the chain rule give for $\partial\mathcal{L}/\partial h_1$.

    Fields:
        gradient: the true gradient, by backpropagation, shape (n_1,).
        readings: one entry per reading of `READINGS`: the vector it gives, or None if its
            factors cannot be multiplied.
        obstacles: for each reading, the two shapes that do not fit, or "".
    """

    gradient: np.ndarray
    readings: tuple[np.ndarray | None, ...]
    obstacles: tuple[str, ...]

    @property
    def errors(self) -> np.ndarray:
        """Relative error of each reading, shape (4,); inf if it gives no vector of this shape."""
        size = np.linalg.norm(self.gradient)
        return np.array(
            [
                np.inf
                if value is None or value.shape != self.gradient.shape
                else np.linalg.norm(value - self.gradient) / size
                for value in self.readings
            ]
        )

    def describe(self) -> str:
        """Say, one line per reading, whether it is right, wrong or impossible."""
        lines = []
        for name, obstacle, error in zip(READINGS, self.obstacles, self.errors, strict=True):
            if obstacle:
                verdict = f"impossible, {obstacle}"
            elif error < 1e-12:
                verdict = "right"
            else:
                verdict = f"wrong by {100 * error:.0f} % of the gradient"
            lines.append(f"{name}: {verdict}")
        return "\n".join(lines)


def _multiply(factors: Sequence[np.ndarray]) -> tuple[np.ndarray | None, str]:
    """Return the product of `factors`, or None and the two shapes that do not fit."""
    product = factors[0]
    for factor in factors[1:]:
        if product.shape[1] != factor.shape[0]:
            return None, f"shapes {product.shape} and {factor.shape} do not fit"
        product = product @ factor
    return product, ""


def _read(parts: Sequence[Sequence[np.ndarray]]) -> tuple[np.ndarray | None, str]:
    """Multiply within each part first, then the parts; return a flat vector or the obstacle."""
    factors = []
    for part in parts:
        factor, obstacle = _multiply(part)
        if factor is None:
            return None, obstacle
        factors.append(factor)
    product, obstacle = _multiply(factors)
    return (None if product is None else product.ravel()), obstacle


def compare_readings(model: MLP, x: np.ndarray, output_grad: np.ndarray) -> ProductReadings:
    r"""Evaluate the `READINGS` of the chain rule literally, at one input.

    Arguments:
        model: a reference MLP of depth L >= 2.
        x: the input, shape (n_0,).
        output_grad: $\partial\mathcal{L}/\partial h_L$, shape (n_L,).
    """
    require_mlp(model)
    x = require_array("x", x, shape=(model.layer_sizes[0],))
    g = require_array("output_grad", output_grad, shape=(model.layer_sizes[-1],))
    if len(model.matrices) < 2:
        raise ValueError(f"`model` (depth {len(model.matrices)}) must have at least 2 layers.")
    passed = model.forward(x[None, :])
    w = model.matrices
    d = [
        np.diag(get_activation(name).derivative(z[0]))
        for name, z in zip(model.activations, passed.preactivations, strict=True)
    ]
    layers = range(1, len(w))  # entry [k] belongs to layer k + 1, so these are layers 2..L
    row, column = g[None, :], g[:, None]
    outcomes = [
        _read([[row], *((w[k].T, d[k - 1]) for k in layers)]),
        _read([[row], *((w[k].T, d[k]) for k in layers)]),
        _read([*((w[k].T, d[k]) for k in layers), [column]]),
        _read([[row], *((d[k], w[k]) for k in reversed(layers))]),
    ]
    _, _, activation_grads = backward(model, passed, row)
    return ProductReadings(
        activation_grads[0][0], tuple(v for v, _ in outcomes), tuple(o for _, o in outcomes)
    )
