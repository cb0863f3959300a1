"""What implementations of one training function share: checks of arguments, and the record."""

from __future__ import annotations

import numpy as np

from course_lib._validation import (
    require_batch_size,
    require_choice,
    require_integer,
    require_real,
    require_type,
)
from course_lib.data import DigitsSplit
from course_lib.results import TrainingRun

OPTIMIZERS = ("sgd", "adam")


class RunRecorder:
    """Collects what a `TrainingRun` holds, row by row."""

    def __init__(self, initial: list[np.ndarray], *, steps: int, record_every: int) -> None:
        self.initial = [np.array(w, dtype=np.float64) for w in initial]
        self.steps, self.record_every = steps, record_every
        self.rows: list[tuple[int, float, np.ndarray, np.ndarray]] = []

    def wants(self, step: int) -> bool:
        """Return whether `step` is to be recorded: every `record_every`-th, and the last."""
        return step % self.record_every == 0 or step == self.steps

    def record(
        self, step: int, loss: float, grads: list[np.ndarray], matrices: list[np.ndarray]
    ) -> None:
        """Store one row; arrays may be of any dtype and are measured in float64."""
        norms = [np.linalg.norm(np.asarray(g, np.float64)) for g in grads]
        changes = [
            np.linalg.norm(np.asarray(w, np.float64) - start) / max(np.linalg.norm(start), 1e-300)
            for w, start in zip(matrices, self.initial, strict=True)
        ]
        self.rows.append((step, float(loss), np.array(norms), np.array(changes)))

    def result(
        self, *, framework: str, dtype: str, optimizer: str, learning_rate: float
    ) -> TrainingRun:
        """Return the record."""
        steps, losses, norms, changes = zip(*self.rows, strict=True)
        return TrainingRun(
            framework=framework,
            dtype=dtype,
            optimizer=optimizer,
            learning_rate=float(learning_rate),
            steps=np.array(steps),
            losses=np.array(losses),
            weight_grad_norms=np.stack(norms),
            weight_changes=np.stack(changes),
        )


def check_training(
    *, optimizer: object, learning_rate: object, steps: object, record_every: object
) -> tuple[float, int, int]:
    """Return the checked learning rate, steps and recording interval of a `train` call."""
    require_choice("optimizer", optimizer, OPTIMIZERS)
    return (
        require_real("learning_rate", learning_rate, minimum=0.0, exclusive=True),
        require_integer("steps", steps, minimum=1),
        require_integer("record_every", record_every, minimum=1),
    )


def check_digits(
    data: object, batch_size: object, *, n_in: int, n_out: int, batch_norm: bool
) -> int:
    """Check the data of a run on the digits by a network of these sizes; return its batch size.

    Arguments:
        data: a DigitsSplit with `n_in` pixels to an image and labels below `n_out`.
        batch_size: 1 to the number of training digits; with `batch_norm` 2 at least.
    """
    require_type("data", data, DigitsSplit)
    pixels, classes = data.x_train.shape[1], 1 + int(max(data.y_train.max(), data.y_test.max()))
    if pixels != n_in or classes > n_out:
        raise ValueError(
            f"`data` ({pixels} pixels, {classes} classes) must fit the network (n_in {n_in}, "
            f"n_out {n_out})."
        )
    return require_batch_size(batch_size, count=len(data.x_train), batch_norm=batch_norm)
