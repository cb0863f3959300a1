r"""What goes wrong between outputs and targets, told by a trial, which may call the loss itself.

* Outputs of shape (n, 1) less targets of shape (n,) are a table of n by n differences: every output
  is compared with every target, and the mean of the targets is the best answer to every input.
  Such a loss does not change when the outputs change places. Losses of Keras put the shapes right;
  those that are written by hand do not, and PyTorch's only warn.
* The negative log-likelihood of log-probabilities is a straight line in them. Given scores it has
  no lower bound, and falls for ever as they grow; given probabilities, it ends at -1 and learns
  slowly. So it is with a divergence of Kullback and Leibler that takes logarithms.

Passed over are losses that compare whole sets of outputs and targets on purpose: only shapes that
are broadcast to more than either are asked about.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from course_lib.diagnosis.outputs import ROWS_SUM, Gradient, name_output
from course_lib.diagnosis.report import Finding
from course_lib.monitoring import FlowRecord

UNCHANGED = 1e-4
"""Relative change of a loss, below which it does not tell its pairs: float32 rounds by 1e-6, and
pairs that are exchanged change a paired loss by as much as the targets differ."""
FAR_FROM_ONE = 0.05
"""How far exp of a row of log-probabilities may be from summing up to 1; 16 bits round by 0.01."""


def check_pairing(
    record: FlowRecord, output: np.ndarray, value: Callable, targets: np.ndarray | None
) -> list[Finding]:
    """Return a finding if broadcasting makes the loss compare every output with every target.

    Arguments:
        record: of the trial.
        output: what the model gave in its first step, float64.
        value: of the loss, for outputs of this shape; may be NaN.
        targets: of the same batch, or None.
    """
    wide = _broadcast(output, targets)
    if wide is None:
        return []
    spread = float(np.std(targets)) or 1.0
    rng = np.random.default_rng(0)
    first, second = (np.mean(targets) + spread * rng.normal(size=output.shape) for _ in range(2))
    moved, other, before = value(np.roll(first, 1, axis=0)), value(second), value(first)
    room = UNCHANGED * abs(before)
    if not (abs(moved - before) <= room < abs(other - before)):
        return []
    count = len(output)
    return [
        Finding(
            "broadcast_targets", "problem",
            f"the loss compares every output with all {count} targets of the batch", "targets",
            float(count), 1.0,
            f"Outputs of shape {output.shape} and targets of shape {targets.shape} are broadcast "
            f"to {wide}: the best answer to every input is then the mean of the targets.",
            "targets of the outputs' shape, by y[:, None], or outputs of theirs, by squeeze.",
        )
    ]  # fmt: skip


def _broadcast(output: np.ndarray, targets: np.ndarray | None) -> tuple[int, ...] | None:
    """Return the shape of both together, if that is larger than either and the targets differ."""
    if targets is None or targets.ndim == 0 or output.ndim == targets.ndim or len(output) < 2:
        return None
    if len(output) != len(targets) or not np.issubdtype(targets.dtype, np.number):
        return None
    try:
        wide = np.broadcast_shapes(output.shape, targets.shape)
    except ValueError:
        return None
    larger = np.prod(wide) > max(output.size, targets.size)
    return wide if larger and np.any(targets != targets.flat[0]) else None


def check_log_probabilities(
    record: FlowRecord, output: np.ndarray, gradient: Gradient, targets: np.ndarray | None
) -> list[Finding]:
    """Return a finding if a loss of log-probabilities is given what is none.

    Arguments:
        record: of the trial.
        output: what the model gave in its first step, float64.
        gradient: of the loss, for outputs of this shape.
        targets: of the same batch, or None.
    """
    if targets is None or output.ndim < 2 or not np.all(np.isfinite(output)):
        return []
    for axis in dict.fromkeys((output.ndim - 1, 1)):
        if not _names_classes(output, targets, axis):
            continue
        with np.errstate(over="ignore"):
            sums = np.sum(np.exp(output), axis=axis)
        if np.mean(np.abs(sums - 1) > FAR_FROM_ONE) < 0.5 or not _falls_straight(
            gradient, output.shape
        ):  # fmt: skip
            return []
        total = float(np.median(sums))
        return [
            Finding(
                "missing_activation", "problem",
                "the loss takes log-probabilities, and the outputs are none: their exponentials "
                f"add up to {total:.3g}, not to 1", name_output(record, output), total, 1.0,
                "The loss is a straight line in the outputs. It has no lower bound and falls as "
                "they grow, whether the answers get better or not.",
                "log_softmax at the end of the model; or a loss that applies it itself, such as "
                "cross_entropy.",
            )
        ]  # fmt: skip
    return []


def _names_classes(output: np.ndarray, targets: np.ndarray, axis: int) -> bool:
    """Return whether the targets are classes along an axis of the outputs, or shares of them."""
    if output.shape[axis] < 2:
        return False
    if np.issubdtype(targets.dtype, np.integer):
        rest = tuple(n for k, n in enumerate(output.shape) if k != axis)
        return targets.shape == rest and bool(targets.max() < output.shape[axis])
    if targets.shape != output.shape or not np.issubdtype(targets.dtype, np.floating):
        return False
    return bool(np.all(targets >= 0) and np.all(np.abs(targets.sum(axis=axis) - 1) <= ROWS_SUM))


def _falls_straight(gradient: Gradient, shape: tuple[int, ...]) -> bool:
    """Return whether a loss falls with every output that counts, everywhere as much."""
    rng = np.random.default_rng(0)
    first, second = (gradient(rng.normal(size=shape)) for _ in range(2))
    if first is None or second is None or not np.all(np.isfinite(first)):
        return False
    return bool(np.all(first <= 0) and first.any() and np.allclose(first, second, rtol=1e-3))
