"""Many vectors that go through a model together: how many, and whether it did them right."""

from __future__ import annotations

import math

import numpy as np

AT_ONCE = 2**27
"""How many bytes may be on their way at once."""


def mixing_weights(count: int) -> np.ndarray:
    """Return weights of which none is small and no two are alike, of either sign."""
    drawn = np.random.default_rng(0).uniform(-1.0, 1.0, count)
    return drawn + np.copysign(1.0, drawn)


def require_agreement(rows: np.ndarray, weights: np.ndarray, alone: np.ndarray, eps: float) -> None:
    r"""Raise ArithmeticError unless the weighted sum of all rows is what one pass found.

    Rounding leaves up to some thirty $\epsilon$ of the rows' norm times the mean weight; rows that
    are wrong, as where a framework mixes them up, leave about 1.
    """
    with np.errstate(all="ignore"):
        off = np.linalg.norm(weights @ rows - alone)
        usual = np.sqrt(np.mean(np.square(weights))) * np.linalg.norm(rows)
    if not off <= min(100 * eps, math.sqrt(eps)) * usual:  # NaN is no agreement
        raise ArithmeticError("What went together is not what goes alone.")
