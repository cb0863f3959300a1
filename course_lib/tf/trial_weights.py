"""What a trial of a Keras model knows of its matrices: how they were drawn, what comes next."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
import tensorflow as tf

from course_lib.tf.layer_names import PASSING, named_layers, named_variables
from course_lib.tf.patching import override, restore

CONSTANT_SIZE = (keras.layers.Normalization, keras.layers.SpectralNormalization)
"""Called normalizations, though what they give is larger where their input is."""
DENSE = (keras.layers.Dense, keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


def fans_in(model: keras.Model) -> dict[str, int]:
    """Return how many inputs one output sums up, by the name of the matrix.

    Known for dense and convolutional layers, and for embeddings, whose output is one row; what a
    matrix does elsewhere is up to the model.
    """
    names, found = named_variables(model), {}
    for layer in model._flatten_layers():
        if isinstance(layer, keras.layers.Embedding):
            table, count = getattr(layer, "_embeddings", None), 1
        else:
            table, count = getattr(layer, "_kernel", None), _summed_up(layer)
        if count is not None and id(table) in names and len(table.shape) > 1:
            found[names[id(table)][0]] = count
    return found


def _summed_up(layer: keras.Layer) -> int | None:
    """Return the number of inputs that one output of a dense or convolutional layer sums up."""
    if isinstance(layer, DENSE):
        return layer._kernel.shape[:-1].num_elements() if layer.built else None
    if not isinstance(layer, keras.layers.EinsumDense) or not layer.built:
        return None
    given, result = layer.equation.split("->")
    kernel = given.split(",")[1]
    summed = [size for letter, size in zip(kernel, layer._kernel.shape, strict=True)
              if letter not in result]  # fmt: skip
    count = 1
    for size in summed:
        count *= size
    return count


class NormalizedWatch:
    """Finds the layers whose output a normalization takes as it is, in one eager pass.

    Use it as a context manager around the pass. What is changed in between, or goes into a sum, is
    not taken as it is; a new shape changes nothing.
    """

    def __init__(self, model: keras.Model) -> None:
        self.model = model
        self._taken: dict[str, bool] = {}
        self._last: tuple[str, tf.Tensor] | None = None

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
            if is_normalization(layer):
                override(layer, "call", self._entered(layer), self._patched)
            elif isinstance(layer, PASSING):
                override(layer, "call", self._passed(layer), self._patched)
            else:
                override(layer, "call", self._left(name, layer), self._patched)
        return self

    def __exit__(self, *exception: object) -> None:
        restore(self._patched)
        self._last = None

    def _entered(self, layer: keras.Layer) -> Callable:
        call = layer.call

        @functools.wraps(call)
        def entered(x: object, *args: object, **kwargs: object) -> object:
            if self._last is not None:
                name, output = self._last
                constant = isinstance(layer, keras.layers.BatchNormalization) and not (
                    layer.trainable and kwargs.get("training")
                )
                self._taken[name] = (
                    output is x and not constant and self._taken[name] is not False
                )
            self._last = None
            return call(x, *args, **kwargs)

        return entered

    def _passed(self, layer: keras.Layer) -> Callable:
        call = layer.call

        @functools.wraps(call)
        def passed(x: object, *args: object, **kwargs: object) -> object:
            output = call(x, *args, **kwargs)
            if self._last is not None and self._last[1] is x:
                self._last = (self._last[0], output)
            return output

        return passed

    def _left(self, name: str, layer: keras.Layer) -> Callable:
        call = layer.call

        @functools.wraps(call)
        def left(*args: object, **kwargs: object) -> object:
            output = call(*args, **kwargs)
            if isinstance(output, tf.Tensor) and tf.executing_eagerly():
                if self._last is not None:  # what ran before is taken by another layer
                    self._taken[self._last[0]] = False
                self._taken.setdefault(name, None)
                self._last = (name, output)
            return output

        return left


def is_normalization(layer: keras.Layer) -> bool:
    """Return whether what a layer gives has a size of its own."""
    return "Norm" in type(layer).__name__ and not isinstance(layer, CONSTANT_SIZE)
