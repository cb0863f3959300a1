r"""What repeated multiplication by one matrix does: eigenvalues decide the end, singular values
the start.

$\rho(W) \le \|W^k\|^{1/k}$ for every k, with equality in the limit (Gelfand's formula). In between
a non-normal matrix may grow by decades though $\rho < 1$. Norms are spectral, as base-10
logarithms, so that no power over- or underflows. Source: trefethenembree2005, hornjohnson2013.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_array, require_integer, require_real
from course_lib.activations import get_activation
from course_lib.results import format_number


def _square(name: str, value: object) -> np.ndarray:
    matrix = require_array(name, value, ndim=2)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"`{name}` (shape {matrix.shape}) must be square.")
    return matrix


def spectral_radius(matrix: np.ndarray) -> float:
    r"""Return $\rho(W) = \max_i |\lambda_i|$ of a square matrix."""
    return float(np.abs(np.linalg.eigvals(_square("matrix", matrix))).max())


def nonnormal_matrix(size: int, *, eigenvalue: float, coupling: float) -> np.ndarray:
    r"""Return a matrix with `eigenvalue` on the diagonal and `coupling` just above it.

    Its only eigenvalue is `eigenvalue`; the larger `coupling`, the more its powers grow before
    they follow it. A Jordan block if `coupling` is 1.
    """
    size = require_integer("size", size, minimum=1)
    eigenvalue = require_real("eigenvalue", eigenvalue)
    coupling = require_real("coupling", coupling)
    return eigenvalue * np.eye(size) + coupling * np.eye(size, k=1)


@dataclass(frozen=True, eq=False)
class PowerGrowth:
    r"""The norms of the powers of one matrix.

    Fields:
        log10_norms: $\log_{10}\|W^k\|$ for k = 1..steps, shape (steps,); -inf for a zero power.
        spectral_radius: $\rho(W)$, the factor per step in the end.
        spectral_norm: $\|W\| = \sigma_{max}$, the factor of the first step.
    """

    log10_norms: np.ndarray = field(repr=False)
    spectral_radius: float
    spectral_norm: float

    @property
    def peak_step(self) -> int:
        """The k at which the norm is largest."""
        return int(np.argmax(self.log10_norms)) + 1

    @property
    def peak_decades(self) -> float:
        r"""$\log_{10}$ of the largest norm over the steps."""
        return float(self.log10_norms.max())

    def describe(self) -> str:
        """Say both factors, the peak and the end."""
        return (
            f"Spectral radius {format_number(self.spectral_radius)}, spectral norm "
            f"{format_number(self.spectral_norm)}: the largest of the first "
            f"{len(self.log10_norms)} powers is number {self.peak_step}, at "
            f"{self.peak_decades:.1f} decades, and the last lies at "
            f"{self.log10_norms[-1]:.1f} decades."
        )


def power_growth(matrix: np.ndarray, steps: int) -> PowerGrowth:
    r"""Return $\log_{10}\|W^k\|$ for k = 1..`steps`, rescaling after every product."""
    matrix = _square("matrix", matrix)
    steps = require_integer("steps", steps, minimum=1)
    power, scale = np.eye(len(matrix)), 0.0
    logs = np.full(steps, -np.inf)
    for k in range(steps):
        power = matrix @ power
        norm = np.linalg.norm(power, 2)
        if norm == 0.0:
            break
        power, scale = power / norm, scale + np.log10(norm)
        logs[k] = scale
    return PowerGrowth(logs, spectral_radius(matrix), float(np.linalg.norm(matrix, 2)))


@dataclass(frozen=True)
class RecurrentBounds:
    r"""What a plain recurrent cell's matrix alone says about its gradients.

    The Jacobian of a step is $\mathrm{diag}(f'(z_t)) W_{hh}$, so one step back changes a gradient's
    norm by at most $\gamma\,\sigma_{max}$ with $\gamma = \sup|f'|$ (pascanu2013).

    Fields:
        gamma: $\gamma$.
        sigma_max, sigma_min: extreme singular values of $W_{hh}$.
        spectral_radius: $\rho(W_{hh})$; it decides only where the slopes are all equal to one
            value and constant in time (a linear network, or tanh at the fixed point 0).
    """

    gamma: float
    sigma_max: float
    sigma_min: float
    spectral_radius: float

    @property
    def factor(self) -> float:
        r"""$\gamma\,\sigma_{max}$, the most that a step back can multiply a gradient's norm by."""
        return self.gamma * self.sigma_max

    @property
    def must_vanish(self) -> bool:
        r"""True if $\sigma_{max} < 1/\gamma$, which is sufficient for vanishing."""
        return self.factor < 1.0

    @property
    def may_explode(self) -> bool:
        r"""True if $\sigma_{max} > 1/\gamma$, which is necessary for explosion, not sufficient."""
        return self.factor > 1.0

    def log10_bound(self, steps: int) -> np.ndarray:
        r"""Return $\log_{10}(\gamma\sigma_{max})^{T-t}$ for t = 1..T = `steps`, shape (T,).

        The bound on $\log_{10}$ of $\|\partial\mathcal{L}/\partial h_t\|$ over
        $\|\partial\mathcal{L}/\partial h_T\|$. -inf, except at t = T, for a zero matrix.
        """
        steps = require_integer("steps", steps, minimum=1)
        if self.factor == 0.0:
            return np.array([-np.inf] * (steps - 1) + [0.0])
        return np.log10(self.factor) * np.arange(steps - 1, -1, -1)

    def describe(self) -> str:
        """Say the factor and what follows from it."""
        verdict = "it settles nothing"
        if self.must_vanish:
            verdict = "every gradient must vanish"
        elif self.may_explode:
            verdict = "gradients may explode, but need not"
        return (
            f"gamma {format_number(self.gamma)} times sigma_max {format_number(self.sigma_max)} "
            f"is {format_number(self.factor)}: {verdict} (spectral radius "
            f"{format_number(self.spectral_radius)})."
        )


def recurrent_bounds(w_hh: np.ndarray, activation: str = "tanh") -> RecurrentBounds:
    r"""Return the bounds that $W_{hh}$, shape (n, n), sets to a plain cell's gradients.

    Arguments:
        w_hh: the recurrent matrix of a plain cell.
        activation: its activation, whose $\sup|f'|$ counts.
    """
    matrix = _square("w_hh", w_hh)
    values = np.linalg.svd(matrix, compute_uv=False)
    return RecurrentBounds(
        get_activation(activation).supremum,
        float(values[0]),
        float(values[-1]),
        spectral_radius(matrix),
    )
