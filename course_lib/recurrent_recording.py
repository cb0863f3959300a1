"""What both implementations of `train_recurrent` share: checked arguments and the record."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_choice, require_integer, require_real
from course_lib.recurrent_results import RecurrentRun
from course_lib.sequence_losses import check_truncation
from course_lib.tasks import SequenceTask

RECURRENT_OPTIMIZERS = ("sgd", "adam", "rmsprop")


def check_task(task: object, *, n_in: int, n_out: int) -> SequenceTask:
    """Return `task` if it is one and fits a network with these inputs and outputs."""
    if not isinstance(task, SequenceTask):
        raise TypeError(f"`task` (={task!r}) must be a SequenceTask; see course_lib.tasks.")
    if (task.n_in, task.n_out) != (n_in, n_out):
        raise ValueError(
            f"`task` (n_in {task.n_in}, n_out {task.n_out}) must fit the model "
            f"(n_in {n_in}, n_out {n_out})."
        )
    return task


@dataclass
class RunSettings:
    """The arguments of `train_recurrent`, checked, and the rows recorded so far."""

    optimizer: str
    learning_rate: float
    steps: int
    clip_norm: float | None
    truncation: int | None
    record_every: int
    rows: list[tuple[int, float, float]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        require_choice("optimizer", self.optimizer, RECURRENT_OPTIMIZERS)
        self.learning_rate = require_real(
            "learning_rate", self.learning_rate, minimum=0.0, exclusive=True
        )
        self.steps = require_integer("steps", self.steps, minimum=1)
        self.record_every = require_integer("record_every", self.record_every, minimum=1)
        self.truncation = check_truncation(self.truncation)
        if self.clip_norm is not None:
            self.clip_norm = require_real("clip_norm", self.clip_norm, minimum=0, exclusive=True)

    def record(self, step: int, loss: float, grad_norm: float) -> bool:
        """Store the step if it is to be recorded; return whether training may go on.

        It may not after a loss or a norm that is not finite, and that step is always recorded.
        """
        broken = not (np.isfinite(loss) and np.isfinite(grad_norm))
        if broken or step % self.record_every == 0 or step == self.steps:
            self.rows.append((step, float(loss), float(grad_norm)))
        return not broken

    def result(self, *, framework: str, dtype: str, cell: str, task: SequenceTask) -> RecurrentRun:
        """Return the record."""
        steps, losses, norms = (np.array(column) for column in zip(*self.rows, strict=True))
        return RecurrentRun(
            framework=framework, dtype=dtype, cell=cell, task=task.name,
            optimizer=self.optimizer, learning_rate=self.learning_rate, clip_norm=self.clip_norm,
            truncation=self.truncation, baseline=task.baseline_loss, steps=steps, losses=losses,
            grad_norms=norms,
        )  # fmt: skip
