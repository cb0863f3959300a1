"""A stack of blocks in TensorFlow: `keras.Model`, `BatchNormalization`, `LayerNormalization`.

Same names and signatures as `course_lib.reference.stack`, same results as NumPy arrays: weight
gradients are (n_out, n_in), the transpose of a Keras kernel.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import keras
import numpy as np
import tensorflow as tf

from course_lib._validation import require_choice, require_flag, require_labels, require_type
from course_lib.losses import check_batch
from course_lib.stack_results import StackFlow
from course_lib.stack_specs import StackSpec, check_stack_batch, check_stack_weights
from course_lib.tf.models import ACTIVATIONS, DTYPES, compute_loss

RUNNING_MOMENTUM = 0.9
"""The share that the running averages keep: PyTorch's momentum 0.1. Keras's own is 0.99."""


def _norm(spec: StackSpec, dtype: str) -> keras.layers.Layer | None:
    if spec.norm == "batch":
        return keras.layers.BatchNormalization(
            momentum=RUNNING_MOMENTUM, epsilon=spec.epsilon, dtype=dtype
        )
    if spec.norm == "layer":
        return keras.layers.LayerNormalization(epsilon=spec.epsilon, dtype=dtype)
    return None


def _dense(units: int, dtype: str) -> keras.layers.Dense:
    return keras.layers.Dense(units, kernel_initializer="zeros", dtype=dtype)


class Block(keras.layers.Layer):
    r"""One block $h + \alpha F(h)$, or $\alpha F(h)$ without shortcut; see `stack_specs`."""

    def __init__(self, spec: StackSpec, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.pre, self.shortcut = spec.placement == "pre", spec.shortcut
        self.linears = [_dense(spec.width, dtype) for _ in range(spec.layers)]
        self.norms = [_norm(spec, dtype) for _ in range(spec.layers)] if spec.norm != "none" else []
        self.activation = keras.activations.get(ACTIVATIONS.get(spec.activation, spec.activation))
        self.scale = self.add_weight(shape=(), initializer="zeros", name="scale")

    def branch(self, h: tf.Tensor, *, training: bool) -> tf.Tensor:
        """Return $F(h)$."""
        for k, linear in enumerate(self.linears):
            if self.pre:
                h = self.norms[k](h, training=training) if self.norms else h
                h = linear(self.activation(h))
            else:
                h = linear(h)
                h = self.norms[k](h, training=training) if self.norms else h
                h = h if k == len(self.linears) - 1 else self.activation(h)
        return h

    def call(self, h: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the block's output."""
        z = self.scale * self.branch(h, training=training)
        z = h + z if self.shortcut else z
        return z if self.pre else self.activation(z)


class Stack(keras.Model):
    """Stem, blocks and readout, as a StackSpec says."""

    def __init__(self, spec: StackSpec, dtype: str) -> None:
        super().__init__(dtype=dtype)
        self.spec = spec
        self.stem = _dense(spec.width, dtype)
        self.blocks = [Block(spec, dtype) for _ in range(spec.blocks)]
        pre = spec.placement == "pre"
        self.final_norm = _norm(spec, dtype) if pre else None
        name = spec.activation if pre else "linear"
        self.final_activation = keras.activations.get(ACTIVATIONS.get(name, name))
        self.head = _dense(spec.n_out, dtype)

    def call(self, x: tf.Tensor, training: bool = False) -> tf.Tensor:
        """Return the outputs, shape (n, n_out)."""
        h = self.stem(x)
        for block in self.blocks:
            h = block(h, training=training)
        return self.readout(h, training=training)

    def readout(self, h: tf.Tensor, *, training: bool) -> tf.Tensor:
        """Return the outputs for the last block's output."""
        if self.final_norm is not None:
            h = self.final_norm(h, training=training)
        return self.head(self.final_activation(h))


def named_variables(model: Stack) -> Iterator[tuple[str, keras.Variable]]:
    """Return the trainable variables with the spec's names."""
    yield from _dense_variables("stem", model.stem)
    for number, block in enumerate(model.blocks):
        yield f"blocks.{number}.scale", block.scale
        for k, linear in enumerate(block.linears):
            yield from _dense_variables(f"blocks.{number}.linears.{k}", linear)
        for k, norm in enumerate(block.norms):
            yield from _norm_variables(f"blocks.{number}.norms.{k}", norm)
    if model.final_norm is not None:
        yield from _norm_variables("final_norm", model.final_norm)
    yield from _dense_variables("head", model.head)


def _dense_variables(
    name: str, layer: keras.layers.Dense
) -> Iterator[tuple[str, keras.Variable]]:
    yield f"{name}.weight", layer.kernel
    yield f"{name}.bias", layer.bias


def _norm_variables(
    name: str, layer: keras.layers.Layer
) -> Iterator[tuple[str, keras.Variable]]:
    yield f"{name}.weight", layer.gamma
    yield f"{name}.bias", layer.beta


def build_stack(
    spec: StackSpec, weights: Mapping[str, np.ndarray], *, dtype: str = "float32"
) -> Stack:
    """Return the stack `spec` with a copy of `weights`, on TensorFlow's default device.

    Arguments:
        spec: the stack as data.
        weights: name -> array; from `course_lib.stack_specs.draw_stack_weights`.
        dtype: "float32" or "float64".
    """
    check_stack_weights(spec, weights)
    require_choice("dtype", dtype, DTYPES)
    model = Stack(spec, dtype)
    model(tf.zeros((2, spec.n_in), dtype))  # builds the layers; in evaluation mode nothing moves
    for name, variable in named_variables(model):
        variable.assign(np.transpose(weights[name]))
    return model


def stack_gradient_flow(
    model: Stack,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "mean_squared_error",
    training: bool = True,
) -> StackFlow:
    """Return every gradient of one backward pass; the model is left as it was found.

    Arguments:
        model: what `build_stack` returned.
        x: inputs, shape (n, n_in); n is at least 2 for batch normalization in training mode.
        y: the loss's targets; see `course_lib.losses`.
        loss: "mean_squared_error", "cross_entropy" or "mean_output".
        training: whether batch normalization takes the batch's own statistics.
    """
    spec = require_type("model", model, Stack).spec
    training, dtype = require_flag("training", training), model.dtype
    x, y = check_stack_batch(spec, x, y, loss=loss, training=training)
    if y is not None:
        y = tf.constant(y, dtype="int64" if loss == "cross_entropy" else dtype)
    variables = dict(named_variables(model))
    kept = [variable.numpy() for variable in model.non_trainable_variables]
    with tf.GradientTape() as tape:
        states = [model.stem(tf.constant(x, dtype=dtype))]
        tape.watch(states)
        for block in model.blocks:
            states.append(block(states[-1], training=training))
            tape.watch(states[-1])
        value = compute_loss(model.readout(states[-1], training=training), y, loss=loss)
    for variable, before in zip(model.non_trainable_variables, kept, strict=True):
        variable.assign(before)
    sources = {"states": states, "parameters": {n: v.value for n, v in variables.items()}}
    grads = tape.gradient(value, sources)
    return StackFlow(
        framework="TensorFlow",
        dtype=dtype,
        training=training,
        loss=float(value),
        states=tuple(h.numpy() for h in states),
        state_grads=tuple(g.numpy() for g in grads["states"]),
        parameter_grads={n: np.transpose(grads["parameters"][n].numpy()) for n in
                         spec.parameter_shapes},
    )  # fmt: skip


def stack_accuracy(model: Stack, x: np.ndarray, y: np.ndarray) -> float:
    """Return the fraction of rows of `x` whose largest output, in evaluation mode, is at `y`.

    Arguments:
        model: what `build_stack` returned.
        x: inputs, shape (n, n_in).
        y: integer labels in 0..n_out - 1, shape (n,).
    """
    spec = require_type("model", model, Stack).spec
    x, _ = check_batch(x, None, loss="mean_output", n_in=spec.n_in, n_out=spec.n_out)
    labels = require_labels("y", y, shape=(len(x),), classes=spec.n_out)
    outputs = model(tf.constant(x, dtype=model.dtype), training=False)
    return float(np.mean(outputs.numpy().argmax(axis=1) == labels))
