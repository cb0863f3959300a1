r"""The three losses of the course: their names, and the checks of the targets they need.

| name | loss for a batch of n outputs $h_L$ | targets |
|---|---|---|
| mean_squared_error | the mean over all n · n_L entries of $(h_L - y)^2$ | (n, n_L), real |
| cross_entropy | batch mean of $-\log \mathrm{softmax}(h_L)_y$ | (n,), integer labels |
| mean_output | the mean over all n · n_L entries of $h_L$ | none |
"""

from __future__ import annotations

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_integer,
    require_labels,
)

LOSSES = ("mean_squared_error", "cross_entropy", "mean_output")


def check_batch(
    x: object, y: object, *, loss: str, n_in: int, n_out: int
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return checked inputs of shape (n, n_in) and the targets that `loss` needs."""
    require_choice("loss", loss, LOSSES)
    n_in = require_integer("n_in", n_in, minimum=1)
    n_out = require_integer("n_out", n_out, minimum=1)
    x = require_array("x", x, shape=(None, n_in))
    return x, _check_targets(y, loss=loss, count=len(x), n_out=n_out)


def _check_targets(y: object, *, loss: str, count: int, n_out: int) -> np.ndarray | None:
    if loss == "mean_output":
        if y is not None:
            raise ValueError("`y` must be None: the loss mean_output has no targets.")
        return None
    if y is None:
        raise ValueError(f"`y` (=None) must hold the targets of the loss {loss}.")
    if loss == "cross_entropy":
        return require_labels("y", y, shape=(count,), classes=n_out)
    return require_array("y", y, shape=(count, n_out))


def evaluate_loss(
    outputs: np.ndarray, y: np.ndarray | None, *, loss: str
) -> tuple[float, np.ndarray]:
    """Return the loss of `outputs`, shape (n, n_L), and its gradient of the same shape."""
    require_choice("loss", loss, LOSSES)
    outputs = require_array("outputs", outputs, ndim=2, finite=False)  # a run may have diverged
    y = _check_targets(y, loss=loss, count=len(outputs), n_out=outputs.shape[1])
    if loss == "mean_output":
        return float(outputs.mean()), np.full_like(outputs, 1.0 / outputs.size)
    if loss == "mean_squared_error":
        error = outputs - y
        return float(np.mean(error**2)), 2.0 * error / outputs.size
    shifted = outputs - outputs.max(axis=1, keepdims=True)
    log_probabilities = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    rows = np.arange(len(outputs))
    gradient = np.exp(log_probabilities)
    gradient[rows, y] -= 1.0
    return float(-log_probabilities[rows, y].mean()), gradient / len(outputs)
