"""What a trial of a Keras model knows of its matrices: how they were drawn, what comes next."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator

import keras
import numpy as np
import tensorflow as tf

from course_lib.tf.layer_names import PASSING, named_layers, named_variables
from course_lib.tf.model_profiles import CELLS
from course_lib.tf.patching import override, restore

CONSTANT_SIZE = (keras.layers.Normalization, keras.layers.SpectralNormalization)
"""Called normalizations, though what they give is larger where their input is."""
DENSE = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
DEPTHWISE = (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D,
             keras.layers.SeparableConv1D, keras.layers.SeparableConv2D)  # fmt: skip


def fans_in(model: keras.Model) -> dict[str, int]:
    """Return how many inputs one output sums up, by the name of the matrix.

    Known for dense, convolutional and recurrent layers, and for embeddings, whose output is one
    row; what a matrix does elsewhere is up to the model.
    """
    found = {}
    for name, matrix, outputs in _matrices(model):
        sizes = [n for k, n in enumerate(matrix.shape) if k not in outputs]
        found[name] = math.prod(sizes)
    names = named_variables(model)
    for layer in model._flatten_layers():
        table, filters = getattr(layer, "_embeddings", None), None
        if isinstance(layer, DEPTHWISE):
            filters = getattr(layer, "depthwise_kernel", getattr(layer, "kernel", None))
        if isinstance(layer, keras.layers.Embedding) and id(table) in names:
            found[names[id(table)][0]] = 1
        elif id(filters) in names:  # (..., channels, outputs of each)
            found[names[id(filters)][0]] = math.prod(filters.shape[:-2])
    return found


def find_identical(model: keras.Model) -> tuple[list[str], int]:
    """Return the matrices that are the same for all units and not 0, and how many there are.

    Of layers with two units or more, and more than one input: a filter of each channel for itself
    may well be the same for all.
    """
    alike, count = [], 0
    for name, matrix, outputs in _matrices(model):
        values = np.asarray(tf.cast(matrix.value, tf.float32))
        summed = [k for k in range(values.ndim) if k not in outputs]
        rows = values.transpose(*outputs, *summed).reshape(
            math.prod(values.shape[k] for k in outputs), -1
        )
        if len(rows) > 1 and rows.shape[1] > 1:
            count += 1
            if np.array_equal(rows[1], rows[0]) and np.all(rows == rows[0]) and rows[0].any():
                alike.append(name)
    return alike, count


def find_unused_statistics(model: keras.Model) -> tuple[list[str], int]:
    """Return the batch normalizations that are frozen with the statistics that they begin with, and
    how many there are.
    """
    found = [(name, layer) for name, layer in named_layers(model)
             if isinstance(layer, keras.layers.BatchNormalization) and layer.built]  # fmt: skip
    unused = [
        name for name, layer in found
        if not layer.trainable and not np.any(layer.moving_mean.numpy())
        and np.all(layer.moving_variance.numpy() == 1)
    ]  # fmt: skip
    return unused, len(found)


def find_single_values(model: keras.Model) -> tuple[list[str], int]:
    """Return the layer normalizations over one value, and how many there are with a weight."""
    found = [(name, layer) for name, layer in named_layers(model)
             if isinstance(layer, keras.layers.LayerNormalization) and layer.weights]  # fmt: skip
    single = [name for name, layer in found if math.prod(layer.weights[0].shape) == 1]
    return single, len(found)


def _matrices(model: keras.Model) -> Iterator[tuple[str, keras.Variable, list[int]]]:
    """Yield the name of each matrix whose use is known, itself, and the axes of its outputs."""
    names, seen = named_variables(model), set()
    for layer in model._flatten_layers():
        if isinstance(layer, CELLS):
            found = [getattr(layer, own, None) for own in ("kernel", "recurrent_kernel")]
        elif isinstance(layer, (*DENSE, keras.layers.EinsumDense)):
            found = [getattr(layer, "_kernel", None)]
        else:
            continue
        for matrix in found:
            if id(matrix) not in names or id(matrix) in seen or len(matrix.shape) < 2:
                continue
            seen.add(id(matrix))
            outputs = [len(matrix.shape) - 1]
            if isinstance(layer, keras.layers.EinsumDense):
                given, result = layer.equation.split("->")
                letters = given.split(",")[1]
                outputs = [k for k, letter in enumerate(letters) if letter in result]
            yield names[id(matrix)][0], matrix, outputs


class NormalizedWatch:
    """Finds the layers whose output a normalization, and nothing else, takes as it is.

    Use it as a context manager around one eager pass. What is changed in between, or goes into a
    sum as well, is not taken as it is; a new shape changes nothing.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._taken: dict[str, bool] = {}
        self._outputs: dict[int, tuple[str, tf.Tensor]] = {}
        self._used: set[int] = set()

    @property
    def layers(self) -> tuple[str, ...]:
        """Their names; of a layer that ran several times, if it was so every time."""
        return tuple(name for name, taken in self._taken.items() if taken)

    def __enter__(self) -> NormalizedWatch:
        self._patched: list = []
        seen = set()
        for name, layer in named_layers(self.model):
            if not isinstance(layer, keras.Layer) or layer._layers or id(layer) in seen:
                continue
            seen.add(id(layer))
            override(layer, "call", self._watched(name, layer), self._patched)
        return self

    def __exit__(self, *exception: object) -> None:
        restore(self._patched)
        for key, (name, _) in self._outputs.items():
            if key not in self._used:
                self._taken[name] = False
        self._outputs = {}

    def _watched(self, name: str, layer: keras.Layer) -> Callable:
        call = layer.call

        @functools.wraps(call)
        def watched(*args: object, **kwargs: object) -> object:
            output = call(*args, **kwargs)
            if not isinstance(output, tf.Tensor) or not tf.executing_eagerly():
                return output
            given = [t for t in tf.nest.flatten((args, kwargs)) if isinstance(t, tf.Tensor)]
            if isinstance(layer, PASSING) and len(given) == 1:
                before = self._outputs.get(id(given[0]))
                if before is not None:
                    self._used.add(id(given[0]))
                    self._outputs[id(output)] = (before[0], output)
                return output
            self._note(layer, given, kwargs)
            if not is_normalization(layer):
                self._taken.setdefault(name, None)
                self._outputs[id(output)] = (name, output)
            return output

        return watched

    def _note(self, layer: keras.Layer, given: list[tf.Tensor], kwargs: dict) -> None:
        """Note of whose outputs a layer takes whether it is a normalization."""
        constant = isinstance(layer, keras.layers.BatchNormalization) and not (
            layer.trainable and kwargs.get("training")
        )
        for tensor in given:
            name = self._outputs.get(id(tensor), (None, None))[0]
            if name is not None:
                self._used.add(id(tensor))
                sound = is_normalization(layer) and not constant
                self._taken[name] = sound and self._taken[name] is not False


def find_inner(model: keras.Model, call: Callable[[], object]) -> tuple[str, ...]:
    """Return the layers whose output goes, by whatever way, into another layer with parameters.

    What is only cut off from the next layer is no inner one.

    Arguments:
        model: whose layers these are.
        call: () -> what the model gives; it is called once, eagerly.
    """
    made: list[tuple[str, tf.Tensor]] = []
    given: list[tf.Tensor] = []
    patched: list = []

    def watched(name: str, layer: keras.Layer) -> Callable:
        inside = layer.call

        @functools.wraps(inside)
        def seen(*args: object, **kwargs: object) -> object:
            output = inside(*args, **kwargs)
            floats = [t for t in tf.nest.flatten((args, kwargs))
                      if isinstance(t, tf.Tensor) and t.dtype.is_floating]  # fmt: skip
            if isinstance(output, tf.Tensor) and tf.executing_eagerly():
                given.extend(floats)
                made.append((name, output))
            return output

        return seen

    try:
        for name, layer in named_layers(model):
            if isinstance(layer, keras.Layer) and layer.weights and not layer._layers:
                override(layer, "call", watched(name, layer), patched)
        with tf.GradientTape() as tape:
            call()
    finally:
        restore(patched)
    reached = tape.gradient(given, [output for _, output in made])
    pairs = zip(made, reached, strict=True)
    return tuple(sorted({name for (name, _), grad in pairs if grad is not None}))


def is_normalization(layer: keras.Layer) -> bool:
    """Return whether what a layer gives has a size of its own."""
    return "Norm" in type(layer).__name__ and not isinstance(layer, CONSTANT_SIZE)
