r"""Which way a step goes, and whether the loss has a lower end: told by a trial.

A minus too many, or one too few, trains towards the worst answer. A loss can be called on outputs
of a trial's own, and then shows by its gradient g whether it is one of those that are made to be
small: cross-entropy with its softmax (see `outputs`), or a loss that is convex in every output by
itself (squares, absolute values, the logistic loss), where g rises from z - t to z to z + t. With a
minus in front, g falls, and the loss has no lower end: training only makes it larger without bound.
Everything else tells nothing: a critic's loss is linear, that of a policy rises and falls.

The other half is the optimizer. Momentum may point anywhere, and a decay points to 0; but the step
for a gradient less the step for its negative has a cosine below 0 with it under every rule that
goes down. `maximize=True` is no fault where nothing is known of the loss, or it has an upper end.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from course_lib.diagnosis.outputs import Gradient, takes_softmax
from course_lib.diagnosis.report import Finding

UPHILL = 0.01
"""Cosine above which an optimizer climbs. Where Adam gives a few large gradients no more than all
the small ones it is 0.07; what rounding leaves of 0 is far below."""
APART = (4.0, 1000.0)
"""How far the outputs are moved: the second for targets that are far from 0."""
ROUNDED = 1e-4
"""Of the largest entry of the gradient: what is less is rounding."""
LOGARITHM = 1e-3
"""How far the sum of a row's powers may be from 1, for it to be a logarithm of probabilities."""


def loss_sign(gradient: Gradient, shape: tuple[int, ...]) -> int:
    """Return 1 for a loss that is made to be small, -1 for one with the sign turned, 0 if untold.

    Arguments:
        gradient: of the loss, for outputs of this shape.
        shape: of the outputs.
    """
    for axis in dict.fromkeys((len(shape) - 1, 1)) if len(shape) > 1 else ():
        if shape[axis] > 1:
            for sign in (1, -1):
                if takes_softmax(_times(gradient, sign), shape, axis):
                    return sign
    middle = np.random.default_rng(0).normal(size=shape)
    for apart in APART:
        grads = [gradient(middle + k * apart) for k in (-1, 0, 1)]
        if any(g is None or not np.all(np.isfinite(g)) for g in grads):
            continue
        steps = np.diff(grads, axis=0)
        steps[np.abs(steps) <= ROUNDED * np.abs(grads).max()] = 0.0
        if steps.any():
            return int(np.all(steps >= 0)) - int(np.all(steps <= 0))
    return 0


def _times(gradient: Gradient, sign: int) -> Gradient:
    def turned(values: np.ndarray) -> np.ndarray | None:
        found = gradient(values)
        return None if found is None else sign * found

    return turned


def lowers_likelihood(output: np.ndarray, gradient: Gradient) -> bool:
    """Return whether outputs are logarithms of probabilities, and the loss their sum, or its like:
    what makes it smaller makes the likelihood smaller.
    """
    if output.ndim < 2 or not np.all(np.isfinite(output)):
        return False
    for axis in dict.fromkeys((output.ndim - 1, 1)):
        sums = np.exp(output).sum(axis=axis)
        if output.shape[axis] > 1 and np.all(np.abs(sums - 1) <= LOGARITHM):
            grads = [gradient(output), gradient(output - 1)]
            if all(g is not None and np.all(np.isfinite(g)) for g in grads):
                same = np.array_equal(*grads)
                return same and bool(np.all(grads[0] >= 0) and grads[0].any())
    return False


def uphill(pairs: Iterable[tuple[np.ndarray, np.ndarray]]) -> float:
    """Return the cosine of a step with the gradient; NaN if either is 0.

    Arguments:
        pairs: of each parameter, the step and the gradient.
    """
    along = moved = steep = 0.0
    for step, grad in pairs:
        step, grad = step.ravel().astype(np.float64), grad.ravel().astype(np.float64)
        along, moved, steep = along + step @ grad, moved + step @ step, steep + grad @ grad
    return float(along / np.sqrt(moved * steep)) if moved * steep > 0 else float("nan")


def check_direction(sign: int, cosine: float, *, asked: bool = False) -> list[Finding]:
    """Return a finding if the steps make worse what the loss stands for.

    Arguments:
        sign: of the loss, as `loss_sign` returns it.
        cosine: of what the optimizer does with the gradient, NaN if not known.
        asked: whether the optimizer was told to make the loss larger.
    """
    up = cosine >= UPHILL
    if sign < 0 and not up:
        return [
            Finding(
                "wrong_sign", "problem", "the sign of the loss is turned round", "loss", -1.0, 0.0,
                "It has no lower end: what makes it smaller makes the answers worse, step by step.",
                "the loss without its minus (or with it, for logarithms of probabilities). Where "
                "the targets are rewards, a baseline: all of them were negative.",
            )
        ]  # fmt: skip
    if not up or sign < 0 or (sign == 0 and asked):
        return []
    return [
        Finding(
            "wrong_sign", "problem" if sign > 0 else "warning",
            "the optimizer moves the weights along the gradient, not against it", "optimizer",
            cosine, UPHILL,
            "Every step makes the loss larger (value: cosine of what it does and the gradient).",
            "maximize=False, a rate above 0, and a look at what is done to the gradients.",
        )
    ]  # fmt: skip
