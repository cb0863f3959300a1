"""Training a recurrent network in TensorFlow: tape, gradient, clip, apply_gradients."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from course_lib.data import draw_batches
from course_lib.recurrent_recording import RunSettings, check_task
from course_lib.recurrent_results import RecurrentRun
from course_lib.sequence_losses import cut_points
from course_lib.tasks import Evaluation, SequenceTask, score
from course_lib.tf.recurrent import (
    as_tensor,
    cell_name,
    n_inputs,
    output_size,
    read_recurrent,
    sequence_loss,
)


def _check(model: object, task: object) -> tuple[keras.layers.Layer, SequenceTask]:
    if not isinstance(model, keras.Sequential):
        raise TypeError(f"`model` (a {type(model).__name__}) must be a keras.Sequential.")
    cell, readout = read_recurrent(model)
    if not model.layers[0].return_sequences:
        raise ValueError("`model` (return_sequences = False) must have return_sequences = True.")
    return cell, check_task(task, n_in=n_inputs(cell), n_out=output_size(cell, readout))


def _make_forward(model: keras.Sequential, cuts: list[int]) -> Callable:
    """Return a function of x that gives the outputs, the state cut after the steps in `cuts`."""
    if not cuts:
        return model
    cell, readout = read_recurrent(model)
    layer = keras.layers.RNN(
        cell, return_sequences=True, return_state=True, dtype=cell.compute_dtype
    )

    def forward(x: tf.Tensor) -> tf.Tensor:
        states, pieces = None, []
        for start, stop in zip([0, *cuts], [*cuts, x.shape[1]], strict=True):
            hidden, *states = layer(x[:, start:stop], initial_state=states)
            states = [tf.stop_gradient(s) for s in states]
            pieces.append(hidden)
        outputs = tf.concat(pieces, axis=1)
        return outputs if readout is None else readout(outputs)

    return forward


def _make_optimizer(settings: RunSettings) -> keras.optimizers.Optimizer:
    if settings.optimizer == "sgd":
        return keras.optimizers.SGD(settings.learning_rate)
    if settings.optimizer == "adam":
        return keras.optimizers.Adam(settings.learning_rate)
    return keras.optimizers.RMSprop(settings.learning_rate, rho=0.9)


def train_recurrent(
    model: keras.Sequential,
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

    The arguments, and what is recorded, are those of `course_lib.pytorch.train_recurrent`. The
    step is compiled by `tf.function`: the first takes a second or two, the others milliseconds.
    """
    cell, task = _check(model, task)
    settings = RunSettings(optimizer, learning_rate, steps, clip_norm, truncation, record_every)
    x, y = as_tensor(cell, task.x), as_tensor(cell, task.y)
    forward = _make_forward(model, cut_points(task.length, settings.truncation))
    rule, variables = _make_optimizer(settings), model.trainable_variables
    rule.build(variables)

    @tf.function
    def measure(rows: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, list[tf.Tensor]]:
        with tf.GradientTape() as tape:
            outputs = forward(tf.gather(x, rows))
            value = sequence_loss(outputs, tf.gather(y, rows), loss=task.loss, over=task.over)
        grads = tape.gradient(value, variables)
        norm = tf.linalg.global_norm(grads)
        if settings.clip_norm is not None:
            grads, _ = tf.clip_by_global_norm(grads, settings.clip_norm, use_norm=norm)
        return value, norm, grads

    @tf.function
    def update(grads: list[tf.Tensor]) -> None:
        rule.apply_gradients(zip(grads, variables, strict=True))

    batches = draw_batches(len(x), batch_size=batch_size, steps=settings.steps + 1, seed=seed)
    for step, rows in enumerate(batches):
        value, norm, grads = measure(tf.constant(rows))
        if not settings.record(step, float(value), float(norm)):
            break
        if step < settings.steps:
            update(grads)
    return settings.result(
        framework="TensorFlow", dtype=cell.compute_dtype, cell=cell_name(cell), task=task
    )


def evaluate_recurrent(model: keras.Sequential, task: SequenceTask) -> Evaluation:
    """Return loss and accuracy of `model` on all sequences of `task`.

    Arguments:
        model: a `keras.Sequential`, as `build_recurrent` makes it.
        task: from `course_lib.tasks`, with the model's numbers of inputs and outputs.
    """
    cell, task = _check(model, task)
    outputs = tf.function(model)(as_tensor(cell, task.x))
    value = sequence_loss(outputs, as_tensor(cell, task.y), loss=task.loss, over=task.over)
    accuracy = score(outputs.numpy(), task)
    return Evaluation(
        "TensorFlow", task.name, float(value), accuracy, task.baseline_loss, task.baseline_accuracy
    )
