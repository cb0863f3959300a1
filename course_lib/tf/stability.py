"""A monitored training run in TensorFlow: every gradient is looked at before `apply_gradients`."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from course_lib.data import draw_batches
from course_lib.stability import MonitoredRun
from course_lib.stability_recording import check_monitoring
from course_lib.tf.models import (
    batch_tensors,
    compute_loss,
    dtype_name,
    read_layers,
    require_trainable,
)


def train_monitored(
    model: keras.Sequential,
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
        model: a `keras.Sequential` of Dense layers and activations; its weights are changed.
        x, y, loss: as for `gradient_flow`.
        learning_rate: > 0; Keras keeps it in float32.
        steps: number of updates, at least 1.
        batch_size, seed: as for `train`.
        loss_scale: > 0, a factor on the loss; the number of inputs turns a mean into a sum.
        stop_above: end the run *before* an update whose global norm is above this, or NaN.
        clip_norm: scale a larger gradient down to this global norm (`clip_by_global_norm`).

    The numbers of step s are those before update s + 1; the last row follows all updates.
    """
    learning_rate, steps, loss_scale, recorder = check_monitoring(
        learning_rate=learning_rate, steps=steps, loss_scale=loss_scale, stop_above=stop_above,
        clip_norm=clip_norm,
    )  # fmt: skip
    layers = read_layers(model)
    require_trainable(layers)
    x, y = batch_tensors(layers, x, y, loss=loss)
    rule = keras.optimizers.SGD(learning_rate)
    variables = model.trainable_variables
    rule.build(variables)
    kernels = [layer.dense.kernel for layer in layers]
    places = {id(variable): k for k, variable in enumerate(variables)}

    def measure(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            output = model(tf.gather(x, rows))
            targets = None if y is None else tf.gather(y, rows)
            value = loss_scale * compute_loss(output, targets, loss=loss)
        return output, value, tape.gradient(value, variables)

    batches = draw_batches(len(x), batch_size=batch_size, steps=steps + 1, seed=seed)
    for step, rows in enumerate(batches):
        output, value, grads = measure(tf.constant(rows))
        norm = tf.linalg.global_norm(grads)
        proceed = recorder.measure(
            step,
            output=output.numpy(),
            loss=float(value),
            weight_grads=[grads[places[id(kernel)]].numpy().T for kernel in kernels],
            bias_grads=[
                grads[places[id(layer.dense.bias)]].numpy()
                if layer.dense.use_bias
                else np.zeros(0)
                for layer in layers
            ],
            weights=[kernel.numpy().T for kernel in kernels],
            reported_norm=float(norm),
        )
        if not proceed or step == steps:
            break
        if clip_norm is not None:
            grads, _ = tf.clip_by_global_norm(grads, clip_norm, use_norm=norm)
        rule.apply_gradients(zip(grads, variables, strict=True))
        recorder.updated([kernel.numpy().T for kernel in kernels])
    return recorder.result(
        [variable.numpy() for variable in variables],
        framework="TensorFlow",
        dtype=dtype_name(layers),
        learning_rate=learning_rate,
    )
