"""Initial weights for a whole Keras model: dense layers, convolutions, normalization layers."""

from __future__ import annotations

from collections.abc import Iterator

import keras
import numpy as np

from course_lib._validation import require_choice, require_real, require_seed
from course_lib.initialization import INITIALIZERS, draw_kernel

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)
NORMALIZATIONS = (
    keras.layers.BatchNormalization, keras.layers.LayerNormalization,
    keras.layers.GroupNormalization,
)  # fmt: skip


def initialize_model(
    model: keras.Model, scheme: str, *, gain: float = 1.0, bias: float = 0.0, seed: int
) -> keras.Model:
    """Draw every weight of `model` anew, in place, and return it.

    Dense layers and convolutions get kernels from the law `scheme` with their true fans, groups
    included, drawn in NumPy in the order of `model.layers`; their biases become `bias`.
    Normalization layers get scale 1, shift 0, moving mean 0 and moving variance 1. The PyTorch
    model with the same layers in the same order gets the same numbers from `course_lib.pytorch`.

    Arguments:
        model: a built model whose weights belong to the layers above, models within it included.
        scheme: name of a law, see `course_lib.initialization`.
        gain: factor on every kernel, at least 0.
        bias: the value of every bias of a dense layer or convolution.
        seed: of the draws; no generator of TensorFlow's or Keras's is touched.

    Raises ValueError, before anything is changed, if the model is not built or a layer has
    weights that this function does not know how to initialize (a recurrent or transposed layer,
    an embedding), naming it.
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` (a {type(model).__name__}) must be a keras.Model.")
    if not model.built:
        raise ValueError("`model` (not built) must know its shapes: begin with keras.Input((n,)).")
    require_choice("scheme", scheme, INITIALIZERS)
    gain, bias = require_real("gain", gain, minimum=0.0), require_real("bias", bias)
    rng = np.random.default_rng(require_seed(seed))
    layers = list({id(layer): layer for layer in _flat_layers(model)}.values())
    for layer in layers:
        _require_known(layer)
    kernels = [
        None if isinstance(layer, NORMALIZATIONS) else _draw(layer, scheme, gain, rng)
        for layer in layers
    ]
    for layer, kernel in zip(layers, kernels, strict=True):
        if kernel is None:
            _reset_normalization(layer)
        else:
            layer.kernel.assign(kernel)
            if layer.use_bias:
                layer.bias.assign(np.full(layer.bias.shape, bias))
    return model


def _flat_layers(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        if isinstance(layer, keras.Model):
            yield from _flat_layers(layer)
        elif layer.weights:
            yield layer


def _require_known(layer: keras.layers.Layer) -> None:
    known = (keras.layers.Dense, *CONVOLUTIONS, *DEPTHWISE, *NORMALIZATIONS)
    if not isinstance(layer, known):
        raise ValueError(
            f"`model` (layer {layer.name} is a {type(layer).__name__}) must have its weights in "
            f"Dense, convolution and normalization layers."
        )


def _draw(
    layer: keras.layers.Layer, scheme: str, gain: float, rng: np.random.Generator
) -> np.ndarray:
    """Return a kernel in Keras's layout: (*window, n_in / groups, n_out)."""
    *window, n_in, n_out = layer.kernel.shape
    if isinstance(layer, DEPTHWISE):  # (*window, n_in, multiplier): each input is its own group
        shape = (n_in * n_out, 1, *window)
        kernel = draw_kernel(scheme, shape=shape, groups=n_in, gain=gain, rng=rng)
        return np.moveaxis(kernel[:, 0], 0, -1).reshape(*window, n_in, n_out)
    shape = (n_out, n_in, *window)
    groups = getattr(layer, "groups", 1)
    kernel = draw_kernel(scheme, shape=shape, groups=groups, gain=gain, rng=rng)
    return np.moveaxis(kernel, (0, 1), (-1, -2))


def _reset_normalization(layer: keras.layers.Layer) -> None:
    values = (("gamma", 1.0), ("beta", 0.0), ("moving_mean", 0.0), ("moving_variance", 1.0))
    for name, value in values:
        weight = getattr(layer, name, None)
        if weight is not None:
            weight.assign(np.full(weight.shape, value))
