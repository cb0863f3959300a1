"""Batches as readers of Keras have them, as tensors."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import keras
import numpy as np
import tensorflow as tf

Batch = tuple[object, object]
"""Inputs and targets; None for targets that are not there."""


def read_batches(inputs: object, targets: object, *, limit: int, model: keras.Model) -> list[Batch]:
    """Return one batch, or the first batches of an iterable, as tensors.

    Arguments:
        inputs: a tensor, an array, a tuple or a dict of one batch, or an iterable of batches.
        targets: of one batch, or None.
        limit: how many batches are read from an iterable.
        model: floating-point arrays get the precision of its weights.
    """
    if isinstance(inputs, (int, float, str, bytes)) or inputs is None:
        raise TypeError(f"`inputs` (={inputs!r}) must be a batch or an iterable of batches.")
    alone = isinstance(inputs, (tf.Tensor, tf.Variable, np.ndarray, tuple, dict))
    if targets is not None or alone:
        batches = [(inputs, targets)]
    elif isinstance(inputs, Iterable):
        batches = [_split(batch) for batch in itertools.islice(inputs, limit)]
    else:
        raise TypeError(
            f"`inputs` (a {type(inputs).__name__}) must be a batch or an iterable of batches."
        )
    if not batches:
        raise ValueError("`inputs` (no batch) must hold at least one batch.")
    batches = [
        (_place("inputs", x, model), y if y is None else _place("targets", y, model))
        for x, y in batches
    ]
    if any(len(t.shape) > 0 and t.shape[0] == 0 for x, _ in batches for t in tf.nest.flatten(x)):
        raise ValueError("`inputs` (an empty batch) must hold at least one input.")
    return batches


def _split(batch: object) -> Batch:
    """Return what a loader gave as inputs and targets."""
    if not isinstance(batch, (tuple, list)):
        return batch, None
    if len(batch) > 2:
        raise ValueError(
            f"`inputs` (batches of {len(batch)} parts) must be pairs (inputs, targets)."
        )
    return batch[0], batch[1] if len(batch) == 2 else None


def _place(name: str, data: object, model: keras.Model) -> object:
    """Return the data, however nested, as tensors."""

    def convert(part: object) -> object:
        if isinstance(part, tf.RaggedTensor | tf.SparseTensor):
            return part
        if isinstance(part, (bool, int, float, str, bytes)):
            raise TypeError(f"`{name}` (={part!r}) must hold arrays or tensors.")
        try:
            tensor = tf.convert_to_tensor(part)
        except (TypeError, ValueError) as error:
            raise TypeError(
                f"`{name}` (a {type(part).__name__}) must hold arrays or tensors."
            ) from error
        if isinstance(part, np.ndarray) and tensor.dtype.is_floating:
            return tf.cast(tensor, model.variable_dtype)
        return tensor

    return tf.nest.map_structure(convert, data)
