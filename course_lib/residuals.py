r"""Residual blocks as matrices: the product of $I + M_l$ expanded, and what a shortcut guarantees.

With $M_l$ the Jacobian of the branch, a stack of L blocks has the end-to-end Jacobian

$$\prod_{l=L}^{1} (I + M_l) = \sum_{k=0}^{L} E_k, \qquad
E_k = \sum_{l_1 > l_2 > \dots > l_k} M_{l_1} M_{l_2} \cdots M_{l_k},$$

the latest block leftmost in every term. $E_k$ collects the $\binom{L}{k}$ paths through exactly k
branches. Source: veit2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import comb

import numpy as np

from course_lib._validation import require_array, require_integer, require_real, require_sequence
from course_lib.results import format_number


def _require_square(name: str, value: object) -> np.ndarray:
    matrix = require_array(name, value, ndim=2)
    if matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"`{name}` (shape {matrix.shape}) must be square.")
    return matrix


def _require_branches(branches: object) -> list[np.ndarray]:
    given = require_sequence("branches", branches, of="square matrices")
    matrices = [_require_square(f"branches[{k}]", m) for k, m in enumerate(given)]
    for k, matrix in enumerate(matrices):
        if matrix.shape != matrices[0].shape:
            raise ValueError(
                f"`branches[{k}]` (shape {matrix.shape}) must have the shape "
                f"{matrices[0].shape} of the first."
            )
    return matrices


@dataclass(frozen=True, eq=False)
class PathExpansion:
    r"""The end-to-end Jacobian of L residual blocks, sorted by how many branches a path takes.

    Fields:
        terms: $E_0 = I, E_1, \dots, E_L$, shape (L + 1, n, n).
        product: $(I + M_L) \cdots (I + M_1)$, multiplied out, shape (n, n).
    """

    terms: np.ndarray = field(repr=False)
    product: np.ndarray = field(repr=False)

    @property
    def counts(self) -> np.ndarray:
        """The number of paths in each term, shape (L + 1,)."""
        blocks = len(self.terms) - 1
        return np.array([comb(blocks, k) for k in range(blocks + 1)], dtype=float)

    @property
    def norms(self) -> np.ndarray:
        r"""$\|E_k\|_F/\sqrt{n}$, the root mean square stretch of a direction, shape (L + 1,)."""
        return np.sqrt(np.sum(self.terms**2, axis=(1, 2)) / self.terms.shape[1])

    @property
    def error(self) -> float:
        """Norm of the difference between the sum of all terms and the product, relative to it."""
        difference = self.terms.sum(axis=0) - self.product
        return float(np.linalg.norm(difference) / np.linalg.norm(self.product))

    def describe(self) -> str:
        """Say how many paths there are and which lengths carry the largest term."""
        longest = int(np.argmax(self.norms))
        return (
            f"{len(self.terms) - 1} blocks, {self.counts.sum():.0f} paths: the largest term is "
            f"that of the {self.counts[longest]:.0f} paths through {longest} branches, with norm "
            f"{format_number(self.norms[longest])}; the identity has 1."
        )


def expand_product(branches: Sequence[np.ndarray]) -> PathExpansion:
    r"""Return all ordered terms of $(I + M_L) \cdots (I + M_1)$.

    Adding one block turns every path into two: past the branch, or through it, which puts its
    matrix in front: $E_k \leftarrow E_k + M_l E_{k-1}$. So the $2^L$ paths cost $L^2/2$ products.

    Arguments:
        branches: $M_1, \dots, M_L$, square matrices of one size.

    Raises ValueError for matrices that are not square or not of one size. Source: veit2016.
    """
    matrices = _require_branches(branches)
    n = len(matrices[0])
    terms = np.zeros((len(matrices) + 1, n, n))
    terms[0], product = np.eye(n), np.eye(n)
    for blocks, matrix in enumerate(matrices, start=1):
        for k in range(blocks, 0, -1):
            terms[k] += matrix @ terms[k - 1]
        product = product + matrix @ product
    return PathExpansion(terms, product)


def shortcut_range(branch: np.ndarray) -> tuple[float, float]:
    r"""Return the smallest and the largest singular value of $I + M$.

    The length of a gradient is multiplied by something between the two in this block. Both lie in
    $[1 - \|M\|, 1 + \|M\|]$ (Weyl); the smaller is at least 1 only by accident.

    Arguments:
        branch: $M$, square.
    """
    matrix = _require_square("branch", branch)
    values = np.linalg.svd(np.eye(len(matrix)) + matrix, compute_uv=False)
    return float(values[-1]), float(values[0])


def branch_scale(blocks: int, *, growth: float) -> float:
    r"""Return the $\alpha$ at which L blocks multiply the mean square by `growth`.

    For branches that keep the mean square (He's law with ReLU), each block multiplies it by
    $1 + \alpha^2$, so $\alpha^2 = g^{1/L} - 1 \approx \ln g / L$. With $\alpha = 1/\sqrt{L}$ the
    growth is $(1 + 1/L)^L < e$. Source: de2020.

    Arguments:
        blocks: L, at least 1.
        growth: g, at least 1.
    """
    blocks = require_integer("blocks", blocks, minimum=1)
    growth = require_real("growth", growth, minimum=1.0)
    return float(np.sqrt(np.expm1(np.log(growth) / blocks)))
