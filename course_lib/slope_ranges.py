r"""The range of an activation's slope, and how long a slope lets a unit climb back.

A unit at $z = -k$ whose loss asks for more output, $\partial\mathcal{L}/\partial h = -1$, moves
its bias by $\eta f'(z)$ per step of gradient descent. In the limit of small steps
$\mathrm{d}z/\mathrm{d}t = f'(z)$ with time $t = \eta \cdot \text{steps}$, so that the way from
$-k$ to 0 takes

$$T(k) = \int_{-k}^{0} \frac{\mathrm{d}z}{f'(z)},$$

and infinitely long if $f'$ is not positive all the way.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from course_lib._validation import require_choice, require_integer, require_real, require_sequence
from course_lib.activations import ACTIVATIONS, ArrayFunction, get_activation


@dataclass(frozen=True)
class SlopeRange:
    """The smallest and the largest slope of an activation on an interval.

    Fields:
        name: the activation's name.
        limit: the interval is [-limit, limit].
        smallest, largest: of f' on the interval.
        smallest_at, largest_at: the z there (the one nearest to 0 if there are several).
        turning_point: the largest z at which f' changes its sign; NaN if it does not.
    """

    name: str
    limit: float
    smallest: float
    largest: float
    smallest_at: float
    largest_at: float
    turning_point: float

    def describe(self) -> str:
        """Say the range, and where the slope is negative if it is anywhere."""
        low = f"{self.smallest:.3g}"
        if 0.0 < self.smallest < 1e-9:
            low = "0 (approached, not reached)"
        text = f"{self.name}: slope from {low} to {self.largest:.3g}"
        if np.isnan(self.turning_point):
            return f"{text}."
        return (
            f"{text} (smallest at z = {self.smallest_at:.2f}, largest at {self.largest_at:.2f}), "
            f"negative below z = {self.turning_point:.2f}."
        )


def _slope_of(name: object) -> ArrayFunction:
    return get_activation(require_choice("name", name, ACTIVATIONS)).derivative


def measure_slope_range(name: str, *, limit: float = 30.0, points: int = 60_001) -> SlopeRange:
    """Return the range of `name`'s slope, read off a grid of `points` values up to +-`limit`."""
    slope_of = _slope_of(name)
    limit = require_real("limit", limit, minimum=0.0, exclusive=True)
    points = require_integer("points", points, minimum=3)
    z = np.linspace(-limit, limit, points)
    slopes = slope_of(z)
    nearest = np.argsort(np.abs(z), kind="stable")  # ties go to the z nearest to 0
    low, high = nearest[np.argmin(slopes[nearest])], nearest[np.argmax(slopes[nearest])]
    crossings = np.flatnonzero((slopes[:-1] < 0) & (slopes[1:] > 0))
    return SlopeRange(
        name=name,
        limit=limit,
        smallest=float(slopes[low]),
        largest=float(slopes[high]),
        smallest_at=float(z[low]),
        largest_at=float(z[high]),
        turning_point=_bisect(slope_of, z[crossings[-1]], z[crossings[-1] + 1])
        if len(crossings)
        else float("nan"),
    )


def _bisect(function: ArrayFunction, low: float, high: float) -> float:
    for _ in range(60):
        middle = 0.5 * (low + high)
        low, high = (middle, high) if function(np.array(middle)) < 0 else (low, middle)
    return float(0.5 * (low + high))


@dataclass(frozen=True, eq=False)
class ClimbTimes:
    """How long a unit needs from z = -k to 0 under a constant pull, by theory and step by step.

    Fields:
        name: the activation's name.
        depths: the starting depths k, shape (K,).
        learning_rate: of the counted steps.
        predicted: the integral T(k) over the learning rate, in steps; inf for never, shape (K,).
        counted: the steps of gradient descent it took; inf if over `max_steps`, shape (K,).
        ends: where z was after the last step, shape (K,).
    """

    name: str
    depths: np.ndarray
    learning_rate: float
    predicted: np.ndarray
    counted: np.ndarray
    ends: np.ndarray

    def describe(self) -> str:
        """Say the steps for each depth."""
        parts = [
            f"{steps:.2g}" if np.isfinite(steps) else "never" for steps in self.predicted
        ]
        depths = ", ".join(f"-{k:g}" for k in self.depths)
        return f"{self.name}: steps from {depths} to 0: {', '.join(parts)}."


def predict_climb_time(name: str, depth: float, *, points: int = 20_001) -> float:
    r"""Return $T(k) = \int_{-k}^{0} \mathrm{d}z / f'(z)$, or inf if f' <= 0 somewhere below 0."""
    depth = require_real("depth", depth, minimum=0.0, exclusive=True)
    points = require_integer("points", points, minimum=3)
    z = np.linspace(-depth, 0.0, points)
    slopes = _slope_of(name)(z)
    if np.any(slopes[:-1] <= 0.0):
        return float("inf")
    return float(np.trapezoid(1.0 / slopes, z))


def measure_climb_times(
    name: str, depths: Sequence[float], *, learning_rate: float = 0.1, max_steps: int = 10_000
) -> ClimbTimes:
    """Let one unit per depth climb by gradient descent on its bias, and count the steps to z >= 0.

    Arguments:
        name: the activation's name.
        depths: starting points -k, each k > 0, at least one.
        learning_rate: > 0.
        max_steps: after so many steps a unit that is still below 0 is counted as never arriving.
    """
    slope_of = _slope_of(name)
    depths = np.array([
        require_real(f"depths[{k}]", depth, minimum=0.0, exclusive=True)
        for k, depth in enumerate(require_sequence("depths", depths, of="depths"))
    ])  # fmt: skip
    learning_rate = require_real("learning_rate", learning_rate, minimum=0.0, exclusive=True)
    z, counted = -depths, np.full(len(depths), np.inf)
    for step in range(1, require_integer("max_steps", max_steps, minimum=1) + 1):
        climbing = np.isinf(counted)
        z = np.where(climbing, z + learning_rate * slope_of(z), z)
        counted[climbing & (z >= 0.0)] = step
        if np.all(np.isfinite(counted)):
            break
    return ClimbTimes(
        name=name,
        depths=depths,
        learning_rate=learning_rate,
        predicted=np.array([predict_climb_time(name, k) for k in depths]) / learning_rate,
        counted=counted,
        ends=z,
    )
