"""Fully connected networks as `keras.Sequential`: built from a spec, or written by hand and read.

A layer is a `Dense` with its activation, or a linear `Dense` followed by at most one elementwise
activation layer; a network is a `keras.Sequential` of such layers (which may be nested).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import keras
import numpy as np
import tensorflow as tf

from course_lib._validation import require_array, require_choice, require_labels
from course_lib.activations import LEAKY_SLOPE
from course_lib.losses import check_batch
from course_lib.specs import MLPWeights, NetworkSpec, check_weights

ELEMENTWISE = (
    keras.layers.Activation, keras.layers.ReLU, keras.layers.LeakyReLU, keras.layers.ELU,
)  # fmt: skip
"""The layers accepted as an activation after a linear Dense in a network written by hand."""

NOT_ELEMENTWISE = (
    keras.activations.softmax, keras.activations.log_softmax, keras.activations.glu,
)  # fmt: skip

DTYPES = ("float32", "float64")


def leaky_relu(z: tf.Tensor) -> tf.Tensor:
    """Leaky ReLU with the course's slope. Keras's rounds its slope to float32 in float64 too."""
    return tf.where(z > 0, z, LEAKY_SLOPE * z)


def gelu(z: tf.Tensor) -> tf.Tensor:
    r"""Exact GELU. Keras's own rounds its $1/\sqrt{2}$ to float32 in float64 too."""
    return 0.5 * z * tf.math.erfc(-z / tf.sqrt(tf.constant(2.0, z.dtype)))


def elu(z: tf.Tensor) -> tf.Tensor:
    r"""ELU with expm1. TensorFlow's own takes $e^z - 1$, which loses the digits of a small z."""
    return tf.where(z > 0, z, tf.math.expm1(tf.minimum(z, 0)))


ACTIVATIONS = {"leaky_relu": leaky_relu, "gelu": gelu, "elu": elu}
"""The activations that are not Keras's own; all others go by the same name there."""


@dataclass(frozen=True)
class Layer:
    """One layer $h_l = f_l(W_l h_{l-1} + b_l)$ of a network, as the layers that compute it."""

    dense: keras.layers.Dense
    activation: keras.layers.Layer | None = None

    @property
    def n_in(self) -> int:
        """The number of inputs $n_{l-1}$."""
        return int(self.dense.kernel.shape[0])

    @property
    def n_out(self) -> int:
        """The number of units $n_l$."""
        return int(self.dense.kernel.shape[1])

    def __call__(self, h: tf.Tensor) -> tf.Tensor:
        """Return $h_l$ for $h_{l-1}$, a batch of rows."""
        h = self.dense(h)
        return h if self.activation is None else self.activation(h)


def build_mlp(
    spec: NetworkSpec, weights: MLPWeights, *, dtype: str = "float32"
) -> keras.Sequential:
    """Return the network `spec` with a copy of `weights`, on TensorFlow's default device.

    Arguments:
        spec: the network as data.
        weights: of the spec's layer sizes; from `course_lib.draw_weights`.
        dtype: "float32" or "float64".
    """
    check_weights(spec, weights)
    require_choice("dtype", dtype, DTYPES)
    # The dtype of the Input counts: a float32 Input would round what float64 layers receive.
    model = keras.Sequential([keras.Input((spec.n_in,), dtype=dtype)])
    for n_out, name in zip(spec.layer_sizes[1:], spec.activations, strict=True):
        model.add(
            keras.layers.Dense(
                n_out,
                activation=ACTIVATIONS.get(name, name),
                # Zeros, to be overwritten: any other initializer takes a number from the
                # reader's own random generator.
                kernel_initializer="zeros",
                dtype=dtype,
            )
        )
    return load_weights(model, weights)


def load_weights(model: keras.Sequential, weights: MLPWeights) -> keras.Sequential:
    """Copy `weights` into `model` and return it. A Keras kernel is the transpose of $W_l$.

    Arguments:
        model: a `keras.Sequential` of Dense layers and activations; changed in place.
        weights: as many matrices as the model has layers, each (n_l, n_{l-1}).

    Raises ValueError, before anything is changed, where a shape differs, and for a bias that is
    not zero in a layer that has none.
    """
    if not isinstance(weights, MLPWeights):
        raise TypeError(f"`weights` (a {type(weights).__name__}) must be MLPWeights.")
    layers = read_layers(model)
    if weights.depth != len(layers):
        raise ValueError(
            f"`weights` (depth {weights.depth}) must have the model's depth {len(layers)}."
        )
    for k, (layer, matrix, bias) in enumerate(
        zip(layers, weights.matrices, weights.biases, strict=True)
    ):
        shape = (layer.n_out, layer.n_in)
        if matrix.shape != shape:
            raise ValueError(
                f"`weights.matrices[{k}]` (shape {matrix.shape}) must have the shape {shape} of "
                f"the model's layer {k + 1}."
            )
        if not layer.dense.use_bias and np.any(bias):
            raise ValueError(
                f"`weights.biases[{k}]` (not zero) must be zero: the model's layer {k + 1} has "
                f"no bias."
            )
    for layer, matrix, bias in zip(layers, weights.matrices, weights.biases, strict=True):
        layer.dense.set_weights([matrix.T, bias] if layer.dense.use_bias else [matrix.T])
    return model


def accuracy(model: keras.Sequential, x: np.ndarray, y: np.ndarray) -> float:
    """Return the fraction of rows of `x` whose largest output is at the label `y`.

    Arguments:
        model: a `keras.Sequential` of Dense layers and activations.
        x: inputs, shape (n, n_0).
        y: integer labels in 0..n_L - 1, shape (n,).
    """
    layers = read_layers(model)
    x = require_array("x", x, shape=(None, layers[0].n_in))
    labels = require_labels("y", y, shape=(len(x),), classes=layers[-1].n_out)
    outputs = model(tf.constant(x, dtype=dtype_name(layers)))
    return float(np.mean(outputs.numpy().argmax(axis=1) == labels))


def _flat_layers(model: keras.Sequential) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Sequential):
            yield from _flat_layers(layer)
        elif not isinstance(layer, keras.layers.InputLayer):
            yield layer


def read_layers(model: keras.Sequential) -> list[Layer]:
    """Return the layers of `model`; raise an error that names the first layer that is no part
    of a dense network, or whose shape or precision does not fit.
    """
    if not isinstance(model, keras.Sequential):
        raise TypeError(f"`model` (a {type(model).__name__}) must be a keras.Sequential.")
    layers: list[Layer] = []
    for position, layer in enumerate(_flat_layers(model)):
        function = getattr(layer, "activation", None)
        if type(layer) is keras.layers.Dense and function not in NOT_ELEMENTWISE:
            layers.append(Layer(layer))
        elif (
            isinstance(layer, ELEMENTWISE)
            and function not in NOT_ELEMENTWISE
            and layers
            and layers[-1].activation is None
            and layers[-1].dense.activation is keras.activations.linear
        ):
            layers[-1] = Layer(layers[-1].dense, layer)
        else:
            name = getattr(function, "__name__", None)
            what = type(layer).__name__ + (f" with activation {name}" if name else "")
            raise ValueError(
                f"`model` (layer {position}, {layer.name}, is {what}) must be made of Dense "
                f"layers with at most one elementwise activation each."
            )
    if not layers:
        raise ValueError("`model` (no layer) must have at least one Dense layer.")
    _check_layers(model, layers)
    return layers


def _check_layers(model: keras.Sequential, layers: list[Layer]) -> None:
    if not model.built:
        raise ValueError("`model` (not built) must know its shapes: begin with keras.Input((n,)).")
    first = layers[0].dense.compute_dtype
    for k, layer in enumerate(layers, start=1):
        dtypes = {layer.dense.compute_dtype, layer.dense.variable_dtype}
        if dtypes != {first} or first not in DTYPES:
            raise ValueError(
                f"`model` (layer {k} is {', '.join(sorted(dtypes))}) must be all float32 or all "
                f"float64."
            )
        if any(layer.dense is other.dense for other in layers[: k - 1]):
            raise ValueError(f"`model` (layer {k} is an earlier layer again) must not tie weights.")
    given = keras.backend.standardize_dtype(model.inputs[0].dtype)
    if given != first:
        raise ValueError(
            f"`model` (its Input is {given}, its layers {first}) must have one precision: write "
            f'keras.Input(..., dtype="{first}").'
        )


def require_trainable(layers: list[Layer]) -> None:
    """Raise ValueError if a layer is frozen."""
    for k, layer in enumerate(layers, start=1):
        if not layer.dense.trainable:
            raise ValueError(f"`model` (layer {k} is frozen) must have trainable layers only.")


def batch_tensors(
    layers: list[Layer], x: object, y: object, *, loss: str
) -> tuple[tf.Tensor, tf.Tensor | None]:
    """Return checked inputs and targets as tensors of the model's dtype; labels stay integers."""
    x, y = check_batch(x, y, loss=loss, n_in=layers[0].n_in, n_out=layers[-1].n_out)
    dtype = dtype_name(layers)
    if y is not None:
        y = tf.constant(y, dtype="int64" if loss == "cross_entropy" else dtype)
    return tf.constant(x, dtype=dtype), y


def compute_loss(outputs: tf.Tensor, y: tf.Tensor | None, *, loss: str) -> tf.Tensor:
    """Return one of the losses of `course_lib.losses` as Keras computes it."""
    if loss == "mean_output":
        return tf.reduce_mean(outputs)
    dtype = outputs.dtype.name  # left to itself, a Keras loss rounds float64 to float32
    if loss == "mean_squared_error":
        return keras.losses.MeanSquaredError(dtype=dtype)(y, outputs)
    return keras.losses.SparseCategoricalCrossentropy(from_logits=True, dtype=dtype)(y, outputs)


def dtype_name(layers: list[Layer]) -> str:
    """Return "float32" or "float64"."""
    return layers[0].dense.compute_dtype
