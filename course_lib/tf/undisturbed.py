"""A Keras model that is looked at: what it remembers from call to call is put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import keras
import tensorflow as tf

from course_lib.tf.patching import override, restore
from course_lib.tf.randomness import shared_generators_kept


@contextmanager
def undisturbed(model: keras.Model) -> Iterator[None]:
    """Call stateful recurrent layers from states of zero inside, for batches of any size.

    On leaving, they go on from the states that they had, and every variable that no optimizer
    moves has its value back, those of the random generators too.
    """
    patched: list = []
    kept = [(v, tf.identity(v.value)) for v in model.non_trainable_variables]
    try:
        for layer in model._flatten_layers():
            if layer.built and getattr(layer, "stateful", False):
                override(layer, "stateful", False, patched)
        with shared_generators_kept():
            yield
    finally:
        restore(patched)
        for variable, value in kept:
            variable.assign(value)
