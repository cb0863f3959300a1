"""The training loop in PyTorch: zero_grad, forward, loss, backward, step."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from course_lib._validation import require_real
from course_lib.data import draw_batches
from course_lib.pytorch.models import (
    batch_tensors,
    compute_loss,
    dtype_name,
    read_layers,
    require_trainable,
    to_numpy,
)
from course_lib.recording import RunRecorder, check_training
from course_lib.results import TrainingRun


def train(
    model: nn.Sequential,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "cross_entropy",
    optimizer: str = "sgd",
    learning_rate: float,
    steps: int,
    batch_size: int | None = None,
    seed: int | None = None,
    record_every: int = 1,
    epsilon: float = 1e-8,
) -> TrainingRun:
    """Train `model` in place and return the record of the run.

    Arguments:
        model: an `nn.Sequential` of Linear layers and activations; its weights are changed.
        x, y, loss: as for `gradient_flow`.
        optimizer: "sgd" (`torch.optim.SGD`) or "adam" (`torch.optim.Adam`).
        learning_rate: > 0.
        steps: number of updates, at least 1.
        batch_size: inputs per step, drawn without replacement within an epoch; all if None.
        seed: of the batches; required with `batch_size`.
        record_every: interval of the recorded steps; step 0 and the last are always recorded.
        epsilon: Adam's, > 0; the default is PyTorch's.

    The loss and the gradients recorded at step s are those before update s + 1, so that the last
    row, at step `steps`, is measured after all updates, on one more batch.
    """
    learning_rate, steps, record_every = check_training(
        optimizer=optimizer, learning_rate=learning_rate, steps=steps, record_every=record_every
    )
    epsilon = require_real("epsilon", epsilon, minimum=0.0, exclusive=True)
    layers = read_layers(model)
    require_trainable(layers)
    x, y = batch_tensors(layers, x, y, loss=loss)
    if optimizer == "adam":
        rule = torch.optim.Adam(model.parameters(), lr=learning_rate, eps=epsilon)
    else:
        rule = torch.optim.SGD(model.parameters(), lr=learning_rate)
    matrices = [layer.linear.weight for layer in layers]
    recorder = RunRecorder([to_numpy(w) for w in matrices], steps=steps, record_every=record_every)
    batches = draw_batches(len(x), batch_size=batch_size, steps=steps + 1, seed=seed)
    with torch.enable_grad():
        for step, rows in enumerate(batches):
            rows = torch.from_numpy(rows).to(x.device)
            rule.zero_grad()
            value = compute_loss(model(x[rows]), None if y is None else y[rows], loss=loss)
            value.backward()
            if recorder.wants(step):
                grads = [to_numpy(w.grad) for w in matrices]
                recorder.record(step, value.item(), grads, [to_numpy(w) for w in matrices])
            if step < steps:
                rule.step()
    rule.zero_grad()
    return recorder.result(
        framework="PyTorch",
        dtype=dtype_name(layers),
        optimizer=optimizer,
        learning_rate=learning_rate,
    )
