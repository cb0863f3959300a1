"""A monitored training run in PyTorch: every gradient is looked at before `optimizer.step()`."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from course_lib.data import draw_batches
from course_lib.pytorch.models import (
    batch_tensors,
    compute_loss,
    dtype_name,
    read_layers,
    require_trainable,
    to_numpy,
)
from course_lib.stability import MonitoredRun
from course_lib.stability_recording import check_monitoring


def train_monitored(
    model: nn.Sequential,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "mean_squared_error",
    learning_rate: float,
    steps: int,
    batch_size: int | None = None,
    seed: int | None = None,
    loss_scale: float = 1.0,
    stop_above: float | None = None,
    clip_norm: float | None = None,
) -> MonitoredRun:
    """Train `model` in place with plain SGD, watch every step, and return the record.

    Arguments:
        model: an `nn.Sequential` of Linear layers and activations; its weights are changed.
        x, y, loss: as for `gradient_flow`.
        learning_rate: > 0.
        steps: number of updates, at least 1.
        batch_size, seed: as for `train`.
        loss_scale: > 0, a factor on the loss; the number of inputs turns a mean into a sum.
        stop_above: end the run *before* an update whose global norm is above this, or NaN.
        clip_norm: scale a larger gradient down to this global norm (`clip_grad_norm_`).

    The numbers of step s are those before update s + 1; the last row follows all updates.
    """
    learning_rate, steps, loss_scale, recorder = check_monitoring(
        learning_rate=learning_rate, steps=steps, loss_scale=loss_scale, stop_above=stop_above,
        clip_norm=clip_norm,
    )  # fmt: skip
    layers = read_layers(model)
    require_trainable(layers)
    x, y = batch_tensors(layers, x, y, loss=loss)
    rule = torch.optim.SGD(model.parameters(), lr=learning_rate)
    linears = [layer.linear for layer in layers]
    batches = draw_batches(len(x), batch_size=batch_size, steps=steps + 1, seed=seed)
    with torch.enable_grad():
        for step, rows in enumerate(batches):
            rows = torch.from_numpy(rows).to(x.device)
            rule.zero_grad()
            output = model(x[rows])
            targets = None if y is None else y[rows]
            value = loss_scale * compute_loss(output, targets, loss=loss)
            value.backward()
            norm = torch.nn.utils.get_total_norm([p.grad for p in model.parameters()])
            proceed = recorder.measure(
                step,
                output=to_numpy(output),
                loss=value.item(),
                weight_grads=[to_numpy(linear.weight.grad) for linear in linears],
                bias_grads=[
                    to_numpy(None if linear.bias is None else linear.bias.grad)
                    for linear in linears
                ],
                weights=[to_numpy(linear.weight) for linear in linears],
                reported_norm=norm.item(),
            )
            if not proceed or step == steps:
                break
            if clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(model.parameters(), clip_norm)
            rule.step()
            recorder.updated([to_numpy(linear.weight) for linear in linears])
    rule.zero_grad()
    return recorder.result(
        [to_numpy(p) for p in model.parameters()],
        framework="PyTorch",
        dtype=dtype_name(layers),
        learning_rate=learning_rate,
    )
