r"""A softmax, or a sigmoid, in front of a loss that applies one itself, or missing in front of one
that does not: told by a trial.

Outputs that lie in [0, 1] are poor logits. With C classes and cross-entropy, softmax of such a row
gives the right class at most e / (e + C - 1), so that no loss falls below log(1 + (C - 1) / e):
1.46 for ten classes. And the gradient passes softmax's Jacobian a second time, which divides it by
C where all classes are alike, as at the start. Behind a sigmoid, a loss that applies one again
cannot be told "no": sigmoid(0) is 1/2, and the loss of a 0 is at least log 2.

A monitor's record cannot tell: at the start both losses are near log C, and how large a gradient
should be depends on how the loss is averaged. A trial can, since it may call the loss on outputs of
its own. For cross-entropy with its softmax, whatever the labels, weights and smoothing, the
gradients at two outputs a and b differ by a factor times softmax(a) - softmax(b), row by row. A
loss of probabilities refuses such outputs, or is no such function; of one that takes logarithms of
them `targets` knows. Silent therefore are losses that
a model computes itself, and those that are neither (focal loss, a temperature). A logarithm of
softmax in front of such a loss is harmless: softmax takes it back.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from course_lib.diagnosis.report import Finding
from course_lib.diagnosis.thresholds import FIRST_LOSS, RESCALED_OUTPUT
from course_lib.monitoring import FlowRecord

ROWS_SUM = 0.01
"""How far a row's sum may be from 1: 16-bit softmax rounds by 0.004 per entry."""
ALIGNED = 0.999
"""Cosine between the two differences; rounding in float32 leaves 1 - 1e-9, in 16 bits 1 - 1e-5."""
SAME_FACTOR = 0.05
"""And how far the factors of two pairs of outputs may differ, relative to the larger one."""
NEGATIVE_SHARE = 0.05
"""Of the outputs, that are below 0 and so no probabilities: at random, half of all logits are."""

Gradient = Callable[[np.ndarray], np.ndarray | None]
"""From made-up outputs to the loss's gradient there, or None where the loss refuses them."""


def softmax(values: np.ndarray, axis: int) -> np.ndarray:
    """Return softmax along an axis."""
    powers = np.exp(values - values.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def distribution_axis(output: np.ndarray) -> int | None:
    """Return the axis along which an output is a distribution over two classes or more, or None."""
    if output.ndim < 2 or not np.all(np.isfinite(output)) or output.min() < 0:
        return None
    for axis in dict.fromkeys((output.ndim - 1, 1)):
        sums = output.sum(axis=axis)
        if output.shape[axis] > 1 and np.all(np.abs(sums - 1) <= ROWS_SUM):
            return axis
    return None


def sums_over_batch(output: np.ndarray) -> bool:
    """Return whether rows of several columns sum up to 1 column by column, and not row by row."""
    if output.ndim != 2 or min(output.shape) < 2 or distribution_axis(output) is not None:
        return False
    sound = bool(np.all(np.isfinite(output))) and output.min() >= 0
    return sound and bool(np.all(np.abs(output.sum(axis=0) - 1) <= ROWS_SUM))


def name_output(record: FlowRecord, output: np.ndarray) -> str:
    """Return the last layer of the record whose output has the size of the model's, or "output".

    The last to run need not be it: a checkpoint runs layers again, and a head may come first.
    """
    size, scales = np.sqrt(np.mean(np.square(output))), record.activation_scales[0]
    alike = np.flatnonzero(np.abs(scales - size) <= 1e-2 * size)
    return record.layers[alike[-1]] if len(alike) else "output"


def is_sigmoid(record: FlowRecord, output: np.ndarray) -> bool:
    """Return whether the last activation of the record is a sigmoid, and is what came out."""
    if not len(record.layers) or record.activations[-1] != "sigmoid":
        return False
    size, scale = np.sqrt(np.mean(np.square(output))), record.activation_scales[0, -1]
    return bool(output.min() >= 0 and output.max() <= 1 and abs(size - scale) <= 1e-2 * scale)


def takes_softmax(gradient: Gradient, shape: tuple[int, ...], axis: int) -> bool:
    """Return whether a loss applies softmax along an axis of its outputs.

    Rows that the loss leaves out (padding, an ignored class) have no gradient, and count for
    nothing.
    """
    rng = np.random.default_rng(0)
    points = [rng.normal(size=shape) for _ in range(3)]
    grads = [gradient(point) for point in points]
    if any(g is None or not np.all(np.isfinite(g)) for g in grads):
        return False
    factors = []
    for i in (0, 1):
        moved = np.moveaxis(grads[i] - grads[i + 1], axis, -1)
        wanted = np.moveaxis(softmax(points[i], axis) - softmax(points[i + 1], axis), axis, -1)
        size, unit = np.linalg.norm(moved, axis=-1), np.linalg.norm(wanted, axis=-1)
        used = size > 1e-3 * size.max()
        along = np.sum(moved * wanted, axis=-1)[used]
        if not used.any() or np.any(along < ALIGNED * (size * unit)[used]):
            return False
        far = unit > 1e-2 * unit.max()  # where the two made-up rows are alike, nothing can be told
        factors.append(np.where(far, np.where(used, size, 0.0) / np.where(far, unit, 1.0), np.nan))
    told = np.isfinite(factors[0] + factors[1])
    return _agree(factors[0][told], factors[1][told])


def takes_sigmoid(gradient: Gradient, shape: tuple[int, ...]) -> bool:
    """Return whether a loss applies the logistic sigmoid to its outputs, entry by entry."""
    points = (-4.0, 0.0, 2.0)
    grads = [gradient(np.full(shape, point)) for point in points]
    if any(g is None or not np.all(np.isfinite(g)) for g in grads):
        return False
    heights = [1 / (1 + np.exp(-point)) for point in points]
    first, second = ((grads[i + 1] - grads[i]) / (heights[i + 1] - heights[i]) for i in (0, 1))
    return bool(np.all(first >= 0) and first.any() and _agree(first, second))


def _agree(first: np.ndarray, second: np.ndarray) -> bool:
    larger = np.maximum(np.abs(first), np.abs(second))
    return bool(np.all(np.abs(first - second) <= SAME_FACTOR * larger + 1e-6 * larger.max()))


def check_output(
    record: FlowRecord,
    output: np.ndarray,
    gradient: Gradient,
    *,
    mended: bool = False,
    sigmoid: bool = False,
) -> list[Finding]:
    """Return a finding if an output lies in [0, 1] by design and the loss takes it for logits.

    Arguments:
        record: of the trial.
        output: what the model gave in its first step, float64.
        gradient: of the loss, for outputs of this shape.
        mended: whether the loss looks behind the softmax and takes the logits after all.
        sigmoid: whether the output is known to have passed a sigmoid, of no layer in the record.
    """
    if output.size == 0:
        return []
    if sums_over_batch(output):
        return [
            Finding(
                "activation_twice", "problem", "the output sums up to 1 over the samples of the "
                "batch, as by a softmax over its first axis", name_output(record, output), 1.0, 0.0,
                "What a sample gets depends on which others are in its batch.",
                "the axis of the classes: dim=-1 in PyTorch, axis=-1 in Keras.",
            )
        ]  # fmt: skip
    axis = distribution_axis(output)
    if axis is None and not (sigmoid or is_sigmoid(record, output)):
        return []
    own = "softmax" if axis is not None else "sigmoid"
    likely = (axis,) if axis is not None else (output.ndim - 1, 1)  # classes of pixels: axis 1
    for columns in dict.fromkeys(likely) if output.ndim > 1 else ():
        count = output.shape[columns]
        if count > 1 and takes_softmax(gradient, output.shape, columns):
            floor = float(np.log1p((count - 1) / np.e))
            return [_finding(name_output(record, output), own, "softmax", floor, mended)]
    if takes_sigmoid(gradient, output.shape):
        return [_finding(name_output(record, output), own, "sigmoid", float(np.log(2)), mended)]
    return []


def check_first_loss(
    record: FlowRecord, output: np.ndarray, gradient: Gradient, value: Callable
) -> list[Finding]:
    """Return a finding if cross-entropy begins far above that of equal answers for all classes.

    Arguments:
        record: of the trial.
        output: what the model gave in its first step, float64.
        gradient, value: of the loss, for outputs of this shape; `value` may be NaN.
    """
    if output.ndim < 2 or not np.all(np.isfinite(output)):
        return []
    for axis in dict.fromkeys((output.ndim - 1, 1)):
        spread = np.sqrt(np.mean(output.var(axis=axis)))
        if not RESCALED_OUTPUT / 2 <= spread < np.inf or not takes_softmax(
            gradient, output.shape, axis
        ):  # fmt: skip
            continue
        ratio = value(output) / value(np.zeros(output.shape))
        if not FIRST_LOSS <= ratio < np.inf:
            return []
        return [
            Finding(
                "large_outputs", "warning",
                f"the first loss is {ratio:.1f} times that of equal answers for all classes",
                name_output(record, output), float(ratio), FIRST_LOSS,
                f"The outputs differ by {spread:.1f} between classes (standard deviation): the "
                "model is sure of what it has not learned, and the first steps only undo that.",
                "a smaller last layer, or a normalization before it; for a trained model, a look "
                "at the order of the classes.",
            )
        ]  # fmt: skip
    return []


def takes_probabilities(gradient: Gradient, value: Callable, shape: tuple[int, ...]) -> bool:
    """Return whether a loss takes its outputs for probabilities, and cuts off negative ones.

    It is flat there, since it cuts them off at 0; or, where it divides by their sum first, it is
    cross-entropy of what is left: the same for -p as for p, with half the gradient at 2 p.
    """
    points = np.random.default_rng(0).uniform(0.1, 0.4, size=shape)
    grads = [gradient(point) for point in (points, 2 * points, -points)]
    if any(g is None or not np.all(np.isfinite(g)) for g in grads) or not grads[0].any():
        return False
    if not grads[2].any():
        return True
    same = abs(value(points) - value(-points)) <= 1e-4 * abs(value(points))
    return bool(same) and _agree(grads[0], 2 * grads[1])


def check_missing_activation(
    record: FlowRecord, output: np.ndarray, gradient: Gradient, value: Callable
) -> list[Finding]:
    """Return a finding if a loss of probabilities is given what is none, or if all outputs are 1.

    Arguments:
        record: of the trial.
        output: what the model gave in its first step, float64.
        gradient, value: of the loss, for outputs of this shape; `value` may be NaN.
    """
    if output.size < 2 or not np.all(np.isfinite(output)):
        return []
    if output.ndim > 1 and output.shape[-1] == 1 and np.all(output == 1):
        return [
            Finding(
                "constant_output", "problem", "every output is exactly 1, whatever goes in",
                name_output(record, output), 1.0, 0.0,
                "A softmax over one unit gives 1 always, and so does a sigmoid that is saturated.",
                "a sigmoid for one unit, or two units for a softmax.",
            )
        ]  # fmt: skip
    negative = float(np.mean(output < 0))
    if negative < NEGATIVE_SHARE or not takes_probabilities(gradient, value, output.shape):
        return []
    return [
        Finding(
            "missing_activation", "problem",
            f"{100 * negative:.0f} % of the outputs are negative, and the loss takes them for "
            "probabilities", name_output(record, output), negative, NEGATIVE_SHARE,
            "Where the loss cuts them off at 0 it is flat, and no gradient comes back from there.",
            "a softmax or sigmoid at the end of the model, or a loss of logits (from_logits=True "
            "in Keras).",
        )
    ]  # fmt: skip


def _finding(where: str, own: str, second: str, floor: float, mended: bool) -> Finding:
    bound = f"log(1 + (C - 1)/e) = {floor:.2f}" if second == "softmax" else f"log 2 = {floor:.2f}"
    of_what = "" if second == "softmax" else " of a target 0"
    why = (
        f"The loss looks behind the {own} here and takes the logits; another framework, or a model "
        "that was saved and loaded, may not."
        if mended
        else f"Outputs between 0 and 1 are no logits: the loss{of_what} cannot fall below {bound}, "
        f"and the gradient passes the slope of the {own} once more than it should."
    )
    return Finding(
        "activation_twice", "info" if mended else "problem",
        f"the output has passed a {own}, and the loss applies a {second} to it", where,
        floor, 0.0, why,
        f"no {own} at the end of the model; or a loss of probabilities (from_logits=False in "
        "Keras; NLLLoss of log_softmax, or BCELoss, in PyTorch).",
    )  # fmt: skip
