r"""Losses of sequences: one of the course's losses at the last step, or at every step.

With $\mathcal{L}_t$ the loss of the batch's outputs at step t (see `course_lib.losses`), `over` is

| over | loss | targets for real outputs | for labels |
|---|---|---|---|
| last | $\mathcal{L}_T$ | (batch, n_out) | (batch,) |
| sum | $\sum_t \mathcal{L}_t$ | (batch, T, n_out) | (batch, T) |
| mean | $\frac{1}{T}\sum_t \mathcal{L}_t$ | (batch, T, n_out) | (batch, T) |
"""

from __future__ import annotations

import numpy as np

from course_lib._validation import require_array, require_choice, require_integer, require_labels
from course_lib.losses import LOSSES, evaluate_loss

OVER = ("last", "sum", "mean")


def check_sequences(
    x: object, y: object, *, loss: str, over: str, n_in: int, n_out: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return checked inputs of shape (batch, T, n_in) and the targets that `loss` needs."""
    require_choice("loss", loss, LOSSES)
    require_choice("over", over, OVER)
    x = require_array("x", x, shape=(None, None, n_in))
    if loss == "mean_output":
        if y is not None:
            raise ValueError("`y` must be None: the loss mean_output has no targets.")
        return x, None
    if y is None:
        raise ValueError(f"`y` (=None) must hold the targets of the loss {loss}.")
    shape = x.shape[:1] if over == "last" else x.shape[:2]
    if loss == "mean_squared_error":
        return x, require_array("y", y, shape=(*shape, n_out))
    return x, require_labels("y", y, shape=shape, classes=n_out)


def check_truncation(truncation: object) -> int | None:
    """Return the checked length of a truncated backward pass, None for the whole sequence."""
    return None if truncation is None else require_integer("truncation", truncation, minimum=1)


def cut_points(steps: int, truncation: int | None) -> list[int]:
    """Return the steps t at which truncated backpropagation cuts the state $h_t$, ascending.

    The chunks end at the last step, so that a loss there reaches exactly `truncation` steps back;
    the first chunk takes what is left over.
    """
    if truncation is None:
        return []
    return sorted(range(steps - truncation, 0, -truncation))


def evaluate_sequence_loss(
    outputs: np.ndarray, y: np.ndarray | None, *, loss: str, over: str
) -> tuple[float, np.ndarray]:
    """Return the loss of `outputs`, shape (batch, T, n_out), and its gradient of that shape."""
    if over == "last":
        value, last_grad = evaluate_loss(outputs[:, -1], y, loss=loss)
        grad = np.zeros_like(outputs)
        grad[:, -1] = last_grad
        return value, grad
    batch, steps, n_out = outputs.shape
    if y is not None:
        y = y.reshape(batch * steps, *y.shape[2:])
    value, grad = evaluate_loss(outputs.reshape(batch * steps, n_out), y, loss=loss)
    factor = steps if over == "sum" else 1
    return factor * value, factor * grad.reshape(outputs.shape)
