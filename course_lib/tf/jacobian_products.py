"""The Jacobian of any Keras model at one input: whole, or as products with vectors."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from course_lib.inspection import randomized_singular_values
from course_lib.tf.randomness import same_draws

_ONLY_EAGER = (TypeError, AttributeError, NotImplementedError)
"""What a model that asks for values as it runs raises when it is traced."""


def call_layer(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    return layer(x, training=False) if layer._call_has_training_arg else layer(x)


def call_first(layer: keras.Layer, x: tf.Tensor) -> tf.Tensor:
    """Return the output, or the first of several that holds real numbers."""
    parts = tf.nest.flatten(call_layer(layer, x))
    return next((part for part in parts if part.dtype.is_floating), parts[0])


def _require_path(gradient: tf.Tensor | None) -> tf.Tensor:
    """Return a gradient by x; raise ValueError if there is none, which is not a gradient of 0."""
    if gradient is None:
        raise ValueError("`model` must have a gradient path from `x` to its output; it is cut.")
    return gradient


def stage_jacobians(
    model: keras.Model, stages: Sequence[keras.Layer], x: tf.Tensor
) -> list[np.ndarray]:
    """Return each stage's float64 Jacobian (m, n) where x (1, ...) leads, one after the other.

    In a graph, whose loop goes back once per row: eager operations take longer to call than small
    layers take to compute. What asks for values as it runs, and cannot be traced, is run eagerly.
    """

    def run(x: tf.Tensor) -> list[tf.Tensor]:
        with same_draws(model):
            return differentiate(x)

    def differentiate(x: tf.Tensor) -> list[tf.Tensor]:
        found = []
        for stage in stages:
            with tf.GradientTape(persistent=True) as tape:
                tape.watch(x)
                output = call_first(stage, x)
            # pfor would hold the activations of all rows at once.
            rows = _require_path(tape.jacobian(output, x, experimental_use_pfor=False))
            found.append(tf.reshape(rows, [-1, tf.size(x)]))
            x = output
        return found

    try:
        matrices = tf.function(run, autograph=False).get_concrete_function(x)(x)
    except _ONLY_EAGER:
        matrices = run(x)
    return [tf.cast(matrix, tf.float64).numpy() for matrix in matrices]


def randomized_spectrum(
    model: keras.Model, x: tf.Tensor, *, rank: int, iterations: int, seed: int
) -> tuple[np.ndarray, tuple[int, int]]:
    """Return the largest singular values of the Jacobian at x (1, ...), and its shape (m, n)."""
    with same_draws(model), tf.GradientTape() as tape:
        tape.watch(x)
        output = call_first(model, x)
    _require_path(tape.gradient(output, x))
    m, n = int(tf.size(output)), int(tf.size(x))
    push, pull = _forward_product(model, x), _backward_product(model, x)

    def columns(function: Callable, vectors: np.ndarray, shape: object) -> np.ndarray:
        found = [function(tf.reshape(tf.cast(v, x.dtype), shape)) for v in vectors.T]
        return np.stack([np.asarray(f, np.float64).ravel() for f in found], axis=1)

    values = randomized_singular_values(
        lambda v: columns(push, v, x.shape), lambda u: columns(pull, u, [-1]),
        size=n, rank=min(rank, m, n), iterations=iterations, seed=seed,
    )  # fmt: skip
    return values, (m, n)


def _forward_product(model: keras.Model, x: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return v -> J v, by forward accumulation where TensorFlow can, else by going back twice."""

    @same_draws(model)
    def accumulate(v: tf.Tensor) -> tf.Tensor:
        with tf.autodiff.ForwardAccumulator(x, v) as accumulator:
            output = call_first(model, x)
        return accumulator.jvp(output, unconnected_gradients=tf.UnconnectedGradients.ZERO)

    @same_draws(model)
    def go_back_twice(v: tf.Tensor) -> tf.Tensor:
        """Return the derivative of J^T u, which is linear in u, by u along v."""
        with tf.GradientTape() as outer:
            with tf.GradientTape() as inner:
                inner.watch(x)
                output = call_first(model, x)
            u = tf.zeros_like(output)
            outer.watch(u)
            pulled = inner.gradient(
                output, x, output_gradients=u, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
        return outer.gradient(
            pulled, u, output_gradients=v, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    try:
        return tf.function(accumulate).get_concrete_function(tf.TensorSpec(x.shape, x.dtype))
    except TypeError:  # forward accumulation does not go through the loop of a recurrent layer
        return tf.function(go_back_twice)


def _backward_product(model: keras.Model, x: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return u -> J^T u, for u of one axis."""

    @same_draws(model)
    def pull(u: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = call_first(model, x)
        return tape.gradient(output, x, output_gradients=tf.reshape(u, tf.shape(output)))

    return tf.function(pull)
