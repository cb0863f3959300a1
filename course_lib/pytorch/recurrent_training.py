"""Training a recurrent network in PyTorch: forward, backward, clip, step."""

from __future__ import annotations

import numpy as np
import torch

from course_lib.data import draw_batches
from course_lib.pytorch.recurrent import (
    RecurrentNetwork,
    as_array,
    as_tensor,
    cell_name,
    output_size,
    sequence_loss,
)
from course_lib.recurrent_recording import RunSettings, check_task
from course_lib.recurrent_results import RecurrentRun
from course_lib.sequence_losses import cut_points
from course_lib.tasks import Evaluation, SequenceTask, score


def _check(model: object, task: object) -> SequenceTask:
    if not isinstance(model, RecurrentNetwork):
        raise TypeError(f"`model` (a {type(model).__name__}) must be a RecurrentNetwork.")
    return check_task(task, n_in=model.recurrent.input_size, n_out=output_size(model))


def _outputs(model: RecurrentNetwork, x: torch.Tensor, cuts: list[int]) -> torch.Tensor:
    """Return the outputs at every step, the state detached after the steps in `cuts`."""
    if not cuts:
        return model(x)
    state, pieces = None, []
    for start, stop in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
        hidden, state = model.recurrent(x[:, start:stop], state)
        state = tuple(s.detach() for s in state) if isinstance(state, tuple) else state.detach()
        pieces.append(hidden)
    return model.readout(torch.cat(pieces, dim=1))


def _make_optimizer(model: RecurrentNetwork, settings: RunSettings) -> torch.optim.Optimizer:
    parameters, rate = model.parameters(), settings.learning_rate
    if settings.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=rate)
    if settings.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate)
    return torch.optim.RMSprop(parameters, lr=rate, alpha=0.9)  # Keras's rho; torch's is 0.99


def train_recurrent(
    model: RecurrentNetwork,
    task: SequenceTask,
    *,
    optimizer: str = "adam",
    learning_rate: float,
    steps: int,
    batch_size: int | None = None,
    seed: int | None = None,
    clip_norm: float | None = None,
    truncation: int | None = None,
    record_every: int = 1,
) -> RecurrentRun:
    """Train `model` on `task` in place and return the record of the run.

    Arguments:
        model: a `RecurrentNetwork`; its weights are changed.
        task: from `course_lib.tasks`.
        optimizer: "sgd", "adam" or "rmsprop" (with a decay of 0.9).
        learning_rate: > 0.
        steps: number of updates, at least 1.
        batch_size: sequences per step, drawn without replacement within an epoch; all if None.
        seed: of the batches; required with `batch_size`.
        clip_norm: largest global norm of the gradients, > 0; None for no clipping.
        truncation: length of truncated backpropagation; None for the whole sequence.
        record_every: interval of the recorded steps; step 0 and the last are always recorded.

    Loss and gradient norm of step s are those before update s + 1, the norm before clipping; the
    last row, at step `steps`, is measured after all updates, on one more batch. A run stops, and
    says so, at the first loss or norm that is not finite, before the update would use it.

    PyTorch's plain and LSTM cells have two biases that only act as a sum, Keras's have one: with
    the same weights and learning rate the sum moves twice as fast here, and the runs part slowly.
    """
    task = _check(model, task)
    settings = RunSettings(optimizer, learning_rate, steps, clip_norm, truncation, record_every)
    x, y = as_tensor(model.recurrent, task.x), as_tensor(model.recurrent, task.y)
    cuts = cut_points(task.length, settings.truncation)
    rule = _make_optimizer(model, settings)
    limit = np.inf if settings.clip_norm is None else settings.clip_norm
    batches = draw_batches(len(x), batch_size=batch_size, steps=settings.steps + 1, seed=seed)
    with torch.enable_grad():
        for step, rows in enumerate(batches):
            rows = torch.from_numpy(rows).to(x.device)
            rule.zero_grad()
            outputs = _outputs(model, x[rows], cuts)
            value = sequence_loss(outputs, y[rows], loss=task.loss, over=task.over)
            value.backward()
            norm = torch.nn.utils.clip_grad_norm_(model.parameters(), limit)
            if not settings.record(step, value.item(), norm.item()):
                break
            if step < settings.steps:
                rule.step()
    rule.zero_grad()
    return settings.result(
        framework="PyTorch",
        dtype=str(x.dtype).removeprefix("torch."),
        cell=cell_name(model.recurrent),
        task=task,
    )


def evaluate_recurrent(model: RecurrentNetwork, task: SequenceTask) -> Evaluation:
    """Return loss and accuracy of `model` on all sequences of `task`.

    Arguments:
        model: a `RecurrentNetwork`.
        task: from `course_lib.tasks`, with the model's numbers of inputs and outputs.
    """
    task = _check(model, task)
    with torch.no_grad():
        outputs = model(as_tensor(model.recurrent, task.x))
        targets = as_tensor(model.recurrent, task.y)
        value = sequence_loss(outputs, targets, loss=task.loss, over=task.over).item()
    accuracy = score(as_array(outputs), task)
    return Evaluation(
        "PyTorch", task.name, value, accuracy, task.baseline_loss, task.baseline_accuracy
    )
