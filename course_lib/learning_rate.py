r"""The learning rate on a quadratic loss, where everything is known, and what a spike does to Adam.

For $\mathcal{L}(w) = \tfrac12 \sum_i \lambda_i w_i^2$ gradient descent multiplies $w_i$ by
$1 - \eta\lambda_i$ in each step and converges if and only if $0 < \eta < 2/\lambda_{max}$.
Source: lecun1998efficient; kingma2015 (Adam).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_array, require_choice, require_integer, require_real
from course_lib.clipping import clip_by_global_norm
from course_lib.reference.training import SGD, Adam
from course_lib.results import format_number


def linear_warmup(step: int, *, warmup_steps: int, base_rate: float) -> float:
    r"""Return the learning rate of update `step` = 0, 1, ...: $\eta\,(step + 1)/warmup\_steps$.

    From update `warmup_steps - 1` on it is `base_rate`; no update has the rate zero.
    """
    step = require_integer("step", step, minimum=0)
    warmup_steps = require_integer("warmup_steps", warmup_steps, minimum=1)
    base_rate = require_real("base_rate", base_rate, minimum=0.0, exclusive=True)
    return base_rate * min(1.0, (step + 1) / warmup_steps)


@dataclass(frozen=True, eq=False)
class QuadraticDescent:
    r"""Gradient descent on $\tfrac12 \sum_i \lambda_i w_i^2$ in n dimensions, S steps long.

    Fields:
        curvatures: the $\lambda_i$, shape (n,).
        learning_rate: the step size $\eta$.
        clip_norm: the limit on the gradient's norm, or None.
        weights: w before each step and at the end, shape (S + 1, n).
    """

    curvatures: np.ndarray
    learning_rate: float
    clip_norm: float | None
    weights: np.ndarray = field(repr=False)

    @property
    def losses(self) -> np.ndarray:
        """The loss at each row of `weights`, shape (S + 1,)."""
        return 0.5 * np.sum(self.curvatures * self.weights**2, axis=1)

    @property
    def rate_limit(self) -> float:
        r"""$2/\lambda_{max}$, from which on descent without clipping does not converge."""
        return 2.0 / float(self.curvatures.max())

    def describe(self) -> str:
        """Say the rate relative to the limit, and the loss at both ends."""
        clip = "" if self.clip_norm is None else f", gradient clipped to {self.clip_norm:g}"
        return (
            f"learning rate {self.learning_rate / self.rate_limit:.3g} times 2/lambda_max{clip}: "
            f"the loss goes from {format_number(self.losses[0])} to "
            f"{format_number(self.losses[-1])} in {len(self.weights) - 1} steps."
        )


def _check_limit(clip_norm: object) -> float | None:
    """Return the checked limit on a gradient's norm, None for none."""
    if clip_norm is None:
        return None
    return require_real("clip_norm", clip_norm, minimum=0.0, exclusive=True)


def descend_quadratic(
    curvatures: np.ndarray,
    *,
    start: np.ndarray,
    learning_rate: float,
    steps: int,
    clip_norm: float | None = None,
) -> QuadraticDescent:
    """Return the path of gradient descent on a quadratic, with or without clipping.

    Arguments:
        curvatures: positive, shape (n,).
        start: the first weights, shape (n,).
        learning_rate: > 0.
        steps: at least 1.
        clip_norm: limit on the gradient's norm, > 0; None for none.
    """
    curvatures = require_array("curvatures", curvatures, ndim=1)
    if curvatures.min() <= 0:
        raise ValueError(f"`curvatures` (={curvatures}) must all be > 0.")
    start = require_array("start", start, shape=(len(curvatures),))
    learning_rate = require_real("learning_rate", learning_rate, minimum=0.0, exclusive=True)
    steps = require_integer("steps", steps, minimum=1)
    clip_norm = _check_limit(clip_norm)
    weights = [start]
    for _ in range(steps):
        grad = curvatures * weights[-1]
        if clip_norm is not None:
            grad = clip_by_global_norm([grad], clip_norm)[0]
        weights.append(weights[-1] - learning_rate * grad)
    return QuadraticDescent(curvatures, learning_rate, clip_norm, np.array(weights))


@dataclass(frozen=True, eq=False)
class SpikeResponse:
    """The updates that one optimizer makes of a given sequence of S gradients.

    Fields:
        optimizer: "sgd" or "adam".
        learning_rate: the step size.
        clip_norm: the limit on each gradient's norm, or None.
        grad_norms: norms before clipping, shape (S,).
        step_lengths: norms of the updates, shape (S,).
    """

    optimizer: str
    learning_rate: float
    clip_norm: float | None
    grad_norms: np.ndarray = field(repr=False)
    step_lengths: np.ndarray = field(repr=False)

    @property
    def spike(self) -> int:
        """The index of the largest gradient."""
        return int(np.argmax(self.grad_norms))

    @property
    def jump(self) -> float:
        """The spike's update relative to the median update before it; NaN without one before."""
        before = self.step_lengths[: self.spike]
        return float(self.step_lengths[self.spike] / np.median(before)) if len(before) else np.nan

    @property
    def steps_to_recover(self) -> int | None:
        """Updates from the spike until they are back at half their median length before it.

        Counted from the last update that is shorter; 0 if none is, None if the record ends first.
        """
        if self.spike == 0:
            return None
        short = self.step_lengths < 0.5 * np.median(self.step_lengths[: self.spike])
        after = np.flatnonzero(short[self.spike :])
        if after.size == 0:
            return 0
        last = int(after[-1])
        return None if self.spike + last == len(short) - 1 else last + 1

    def describe(self) -> str:
        """Say how long the spike's update is and how long the optimizer needs to recover."""
        clip = "no clipping" if self.clip_norm is None else f"clipped to {self.clip_norm:g}"
        wait = self.steps_to_recover
        late = "not within the record" if wait is None else f"after {wait} steps"
        tail = "no update after it is short" if wait == 0 else f"half the usual length {late}"
        jump = format_number(self.jump)
        return f"{self.optimizer}, {clip}: the spike's update is {jump} times the usual one; {tail}"


def respond_to_grads(
    grads: np.ndarray,
    *,
    optimizer: str,
    learning_rate: float,
    clip_norm: float | None = None,
) -> SpikeResponse:
    """Return what SGD or Adam (PyTorch's form) makes of given gradients, one row per step.

    Arguments:
        grads: shape (S, n), whatever the weights are: the sequence is given, not computed.
        optimizer: "sgd" or "adam".
        learning_rate: > 0.
        clip_norm: limit on the norm of each row, > 0; None for none.
    """
    grads = require_array("grads", grads, ndim=2)
    require_choice("optimizer", optimizer, ("sgd", "adam"))
    clip_norm = _check_limit(clip_norm)
    rule = (Adam if optimizer == "adam" else SGD)(learning_rate)
    weights, lengths = np.zeros(grads.shape[1]), []
    for grad in grads:
        if clip_norm is not None:
            grad = clip_by_global_norm([grad], clip_norm)[0]
        before = weights.copy()
        rule.update([weights], [grad])
        lengths.append(np.linalg.norm(weights - before))
    norms = np.linalg.norm(grads, axis=1)
    return SpikeResponse(optimizer, rule.learning_rate, clip_norm, norms, np.array(lengths))
