"""The Jacobian of any Keras model at one input: whole, or as products with vectors."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf
from ml_dtypes import finfo

from course_lib._together import mixing_weights, require_agreement
from course_lib.inspection import randomized_singular_values
from course_lib.tf.copies import Copies, counting_bytes
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


@dataclass(frozen=True)
class Pass:
    """One pass through a layer: what goes together is compared with it.

    Fields:
        call: what was called.
        x, output: one input and its output, both with a batch axis of 1.
        weights, reached: u without zeros, shape (m,), and J^T u, shape (n,).
        tape: for other u.
        each: the bytes that the pass left behind.
    """

    call: Callable[[tf.Tensor], tf.Tensor]
    x: tf.Tensor
    output: tf.Tensor
    weights: np.ndarray
    reached: np.ndarray
    tape: tf.GradientTape
    each: float

    @property
    def shape(self) -> tuple[int, int]:
        return int(tf.size(self.output)), int(tf.size(self.x))

    def pull(self, u: np.ndarray) -> np.ndarray:
        return _pull(self.tape, self.output, self.x, u)

    def copies(self, model: keras.Model, wanted: int, *, twice: bool) -> Copies:
        return Copies(model, self.call, self.x, self.output, wanted=wanted, each=self.each,
                      twice=twice)  # fmt: skip

    @property
    def eps(self) -> float:
        return float(finfo(self.x.dtype.as_numpy_dtype).eps)


def _pull(tape: tf.GradientTape, output: tf.Tensor, x: tf.Tensor, u: np.ndarray) -> np.ndarray:
    along = tf.reshape(tf.cast(u, output.dtype), output.shape)
    gradient = _require_path(tape.gradient(output, x, output_gradients=along))
    return tf.reshape(tf.cast(tf.convert_to_tensor(gradient), tf.float64), [-1]).numpy()


def _pass_through(layer: keras.Layer, x: tf.Tensor) -> Pass:
    call = functools.partial(call_first, layer)
    with counting_bytes() as noted, tf.GradientTape(persistent=True) as tape:
        tape.watch(x)
        output = call(x)
    weights = tf.cast(mixing_weights(int(tf.size(output))), output.dtype)
    weights = tf.cast(weights, tf.float64).numpy()
    reached = _pull(tape, output, x, weights)
    return Pass(call, x, output, weights, reached, tape, sum(noted))


def stage_jacobians(
    model: keras.Model, stages: Sequence[keras.Layer], x: tf.Tensor
) -> list[np.ndarray]:
    """Return each stage's float64 Jacobian (m, n) where x (1, ...) leads, one after the other."""
    try:
        passes, h = [], x
        with same_draws(model):
            for stage in stages:
                passes.append(_pass_through(stage, h))
                h = passes[-1].output
        return [_jacobian(model, one) for one in passes]
    except Exception:  # whatever it was: one row after the other is the measure of all
        return _jacobians_by_rows(model, stages, x)


def _jacobian(model: keras.Model, one: Pass) -> np.ndarray:
    m, n = one.shape
    if 2 * n <= m:
        with contextlib.suppress(Exception):  # not everything can be derived twice
            matrix = one.copies(model, n, twice=True).columns()
            require_agreement(matrix, one.weights, one.reached, one.eps)
            return matrix
    matrix = one.copies(model, m, twice=False).rows()
    require_agreement(matrix, one.weights, one.reached, one.eps)
    return matrix


def _jacobians_by_rows(
    model: keras.Model, stages: Sequence[keras.Layer], x: tf.Tensor
) -> list[np.ndarray]:
    """Return the same, one row after the other.

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
    with same_draws(model):
        one = _pass_through(model, x)
    m, n = one.shape
    options = {"size": n, "rank": min(rank, m, n), "iterations": iterations, "seed": seed}
    try:
        values = randomized_singular_values(*_products_together(model, one, rank), **options)
    except Exception:  # as for the whole matrix
        push, pull = _forward_product(model, x), _backward_product(model, x)

        def columns(function: Callable, vectors: np.ndarray, shape: object) -> np.ndarray:
            found = [function(tf.reshape(tf.cast(v, x.dtype), shape)) for v in vectors.T]
            return np.stack([np.asarray(f, np.float64).ravel() for f in found], axis=1)

        values = randomized_singular_values(
            lambda v: columns(push, v, x.shape), lambda u: columns(pull, u, [-1]), **options
        )
    return values, (m, n)


def _products_together(model: keras.Model, one: Pass, rank: int) -> tuple[Callable, Callable]:
    """Return V -> J V and U -> J^T U; what they return first is compared with one pass."""
    m, n = one.shape
    copies = one.copies(model, min(min(rank, m, n) + 4, n), twice=True)
    compared: set[str] = set()

    def push(vectors: np.ndarray) -> np.ndarray:
        found = copies.push(vectors.T).T
        if "push" not in compared:  # u J, which is known alone, times V
            require_agreement(found, one.weights, one.reached @ vectors, one.eps)
            compared.add("push")
        return found

    def pull(vectors: np.ndarray) -> np.ndarray:
        found = copies.pull(vectors.T)
        if "pull" not in compared:
            weights = mixing_weights(len(found))
            require_agreement(found, weights, one.pull(vectors @ weights), one.eps)
            compared.add("pull")
        return found.T

    return push, pull


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
