"""A monitored training run on the hand-written gradients: the twin of both frameworks'."""

from __future__ import annotations

import numpy as np

from course_lib.data import draw_batches
from course_lib.losses import check_batch
from course_lib.reference.mlp import MLP, gradient_flow, require_mlp
from course_lib.reference.training import SGD
from course_lib.stability import MonitoredRun, measure_norm
from course_lib.stability_recording import check_monitoring


def train_monitored(
    model: MLP,
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
        model: what `build_mlp` returned; its weights are changed.
        x, y, loss: as for `gradient_flow`.
        learning_rate: > 0.
        steps: number of updates, at least 1.
        batch_size, seed: as for `train`.
        loss_scale: > 0, a factor on the loss; the number of inputs turns a mean into a sum.
        stop_above: end the run *before* an update whose global norm is above this, or NaN.
        clip_norm: scale a larger gradient down to this global norm.

    The numbers of step s are those before update s + 1; the last row follows all updates.
    Source: pascanu2013.
    """
    learning_rate, steps, loss_scale, recorder = check_monitoring(
        learning_rate=learning_rate, steps=steps, loss_scale=loss_scale, stop_above=stop_above,
        clip_norm=clip_norm,
    )  # fmt: skip
    require_mlp(model)
    x, y = check_batch(x, y, loss=loss, n_in=model.layer_sizes[0], n_out=model.layer_sizes[-1])
    rule = SGD(learning_rate)
    batches = draw_batches(len(x), batch_size=batch_size, steps=steps + 1, seed=seed)
    # An exploding run is the subject here: it must overflow as quietly as in a framework.
    with np.errstate(over="ignore", invalid="ignore"):
        for step, rows in enumerate(batches):
            flow = gradient_flow(model, x[rows], None if y is None else y[rows], loss=loss)
            weight_grads = [loss_scale * grad for grad in flow.weight_grads]
            bias_grads = [loss_scale * grad for grad in flow.bias_grads]
            norm = measure_norm([measure_norm(g) for g in (*weight_grads, *bias_grads)])
            proceed = recorder.measure(
                step,
                output=flow.activations[-1],
                loss=loss_scale * flow.loss,
                weight_grads=weight_grads,
                bias_grads=bias_grads,
                weights=model.matrices,
                reported_norm=norm,
            )
            if not proceed or step == steps:
                break
            factor = recorder.factor(norm)
            grads = [factor * grad for grad in (*weight_grads, *bias_grads)]
            rule.update([*model.matrices, *model.biases], grads)
            recorder.updated(model.matrices)
    return recorder.result(
        [*model.matrices, *model.biases],
        framework="NumPy",
        dtype="float64",
        learning_rate=learning_rate,
    )
