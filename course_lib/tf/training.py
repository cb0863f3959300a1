"""The training loop in TensorFlow: GradientTape, gradient, apply_gradients."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from course_lib._validation import require_real
from course_lib.data import draw_batches
from course_lib.recording import RunRecorder, check_training
from course_lib.results import TrainingRun
from course_lib.tf.models import (
    batch_tensors,
    compute_loss,
    dtype_name,
    read_layers,
    require_trainable,
)

COMPILED_FROM = 20
"""Number of steps from which compiling pays. Many short runs would also make TensorFlow warn."""


def train(
    model: keras.Sequential,
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
    epsilon: float = 1e-7,
) -> TrainingRun:
    """Train `model` in place and return the record of the run.

    Arguments:
        model: a `keras.Sequential` of Dense layers and activations; its weights are changed.
        x, y, loss: as for `gradient_flow`.
        optimizer: "sgd" (`keras.optimizers.SGD`) or "adam" (`keras.optimizers.Adam`).
        learning_rate: > 0; Keras keeps it in float32.
        steps: number of updates, at least 1.
        batch_size: inputs per step, drawn without replacement within an epoch; all if None.
        seed: of the batches; required with `batch_size`.
        record_every: interval of the recorded steps; step 0 and the last are always recorded.
        epsilon: Adam's, > 0; the default is Keras's.

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
        rule = keras.optimizers.Adam(learning_rate, epsilon=epsilon)
    else:
        rule = keras.optimizers.SGD(learning_rate)
    variables = model.trainable_variables
    rule.build(variables)
    kernels = [layer.dense.kernel for layer in layers]

    def measure(rows: tf.Tensor) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            targets = None if y is None else tf.gather(y, rows)
            value = compute_loss(model(tf.gather(x, rows)), targets, loss=loss)
        return value, tape.gradient(value, variables)

    def update(grads: list[tf.Tensor]) -> None:
        rule.apply_gradients(zip(grads, variables, strict=True))

    if steps >= COMPILED_FROM:
        measure, update = tf.function(measure), tf.function(update)

    recorder = RunRecorder([k.numpy().T for k in kernels], steps=steps, record_every=record_every)
    batches = draw_batches(len(x), batch_size=batch_size, steps=steps + 1, seed=seed)
    of_kernel = [next(k for k, v in enumerate(variables) if v is kernel) for kernel in kernels]
    for step, rows in enumerate(batches):
        value, grads = measure(tf.constant(rows))
        if recorder.wants(step):
            weight_grads = [grads[k].numpy().T for k in of_kernel]
            recorder.record(step, float(value), weight_grads, [k.numpy().T for k in kernels])
        if step < steps:
            update(grads)
    return recorder.result(
        framework="TensorFlow",
        dtype=dtype_name(layers),
        optimizer=optimizer,
        learning_rate=learning_rate,
    )
