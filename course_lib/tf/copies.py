"""A Keras model at many copies of one input, through which as many vectors go together.

TensorFlow takes many vectors back through one pass only by tracing a function that does it, which
takes longer than a small model does. A batch of copies of the input is an ordinary pass; each copy
has a vector of its own to take back. That is the same as one after the other for models that treat
every input of a batch by itself, as nearly all do in evaluation mode; so what comes out has to be
compared with one vector alone (`course_lib._together`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import keras
import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_callbacks

from course_lib._together import AT_ONCE
from course_lib.tf.randomness import same_draws


@contextmanager
def counting_bytes() -> Iterator[list[float]]:
    """Note how many bytes every operation returns that runs inside, except variables.

    It is infinity if a `tf.function` is among them, or traced: what it holds is not seen.
    """
    noted: list[float] = []

    def note(
        kind: str | bytes, inputs: tuple, attributes: tuple, outputs: tuple, op_name: object = None,
        graph: object = None,
    ) -> None:  # fmt: skip
        kind = kind.decode() if isinstance(kind, bytes) else kind  # as it comes
        if graph is not None or kind.startswith("__"):
            noted.append(float("inf"))
        elif kind != "ReadVariableOp":
            noted.extend(o.shape.num_elements() * o.dtype.size for o in outputs)

    op_callbacks.add_op_callback(note)
    try:
        yield noted
    finally:
        op_callbacks.remove_op_callback(note)


class Copies:
    """A model or layer at copies of one input.

    Arguments:
        model: whose random generators start anew.
        call: what is called with a batch, and returns a tensor.
        x, output: one input and its output, both with a batch axis of 1.
        wanted: how many vectors there are.
        each: the bytes that a pass with one input leaves behind.
        twice: whether vectors have to go forwards too, for which it is derived twice.

    Raises ArithmeticError if it is not worth while, or returns no output for each copy.
    """

    def __init__(
        self, model: keras.Model, call: Callable[[tf.Tensor], tf.Tensor], x: tf.Tensor,
        output: tf.Tensor, *, wanted: int, each: float, twice: bool,
    ) -> None:  # fmt: skip
        # What a pass leaves is held, and about as much again on the way back.
        fit = AT_ONCE / max((4 if twice else 2) * each, 1)
        self.count = int(min(wanted, fit))
        if self.count < min(wanted, 8):
            raise ArithmeticError("Too large for several at once.")
        self.x = tf.repeat(x, self.count, axis=0)
        self.inner = tf.GradientTape(persistent=True)
        self.outer = tf.GradientTape(persistent=True) if twice else None
        with ExitStack() as tapes, same_draws(model):
            if twice:
                tapes.enter_context(self.outer)
            with self.inner:
                self.inner.watch(self.x)
                self.output = call(self.x)
            if self.output.shape != (self.count, *output.shape[1:]):
                raise ArithmeticError("Not one output for each input.")
            if twice:
                self.u = tf.zeros_like(self.output)
                self.outer.watch(self.u)
                self.pulled = self._gradient(self.inner, self.output, self.x, self.u)

    @staticmethod
    def _gradient(tape: tf.GradientTape, of: tf.Tensor, by: tf.Tensor, along: tf.Tensor) -> object:
        return tape.gradient(
            of, by, output_gradients=along, unconnected_gradients=tf.UnconnectedGradients.ZERO
        )

    def pull(self, rows: np.ndarray) -> np.ndarray:
        """Return J^T u for every row u, as rows."""
        return self._back(rows, len(rows))

    def push(self, rows: np.ndarray) -> np.ndarray:
        """Return J v for every row v, as rows: J^T u is linear in u, and J its derivative."""
        return self._forth(rows, len(rows))

    def rows(self) -> np.ndarray:
        """Return J, from one vector for each of its rows."""
        return self._back(None, int(tf.size(self.output)) // self.count)

    def columns(self) -> np.ndarray:
        """Return J, from one vector for each of its columns."""
        return self._forth(None, int(tf.size(self.x)) // self.count).T

    def _back(self, vectors: np.ndarray | None, number: int) -> np.ndarray:
        return self._go(vectors, number, self.inner, self.output, self.x)

    def _forth(self, vectors: np.ndarray | None, number: int) -> np.ndarray:
        return self._go(vectors, number, self.outer, self.pulled, self.u)

    def _go(
        self, vectors: np.ndarray | None, number: int, tape: tf.GradientTape, of: tf.Tensor,
        by: tf.Tensor,
    ) -> np.ndarray:  # fmt: skip
        """Take vectors, or all unit vectors, from one side to the other, as many as fit."""
        found, size = [], int(tf.size(of)) // self.count
        for first in range(0, number, self.count):
            some = min(self.count, number - first)
            if vectors is None:
                block = np.eye(self.count, size, first)
            else:  # always of the same size, or a function of the model's own is traced anew
                block = np.zeros((self.count, size))
                block[:some] = vectors[first : first + some]
            along = tf.reshape(tf.cast(block, of.dtype), of.shape)
            gradient = tf.convert_to_tensor(self._gradient(tape, of, by, along))
            gradient = tf.cast(gradient, tf.float64)
            found.append(tf.reshape(gradient, [self.count, -1]).numpy()[:some])
        return np.concatenate(found)
