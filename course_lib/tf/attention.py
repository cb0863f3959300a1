"""What the softmax inside attention does: how many of its rows have settled on one position."""

from __future__ import annotations

import functools
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from course_lib.tf.layer_names import named_layers
from course_lib.tf.patching import override, restore

LAYERS = (keras.layers.MultiHeadAttention, keras.layers.GroupQueryAttention)
"""Layers whose `_compute_attention` may be fused, so that no softmax is ever seen."""


@tf.autograph.experimental.do_not_convert
def attention_weights(
    layer: keras.Layer, query: tf.Tensor, key: tf.Tensor, mask: object, causal: bool
) -> tf.Tensor | None:
    """Return the weights of the first sequence, shape (1, heads, T, S), computed once more.

    Arguments:
        layer: one of `LAYERS`.
        query, key: projected, shape (batch, T, heads, d) and (batch, S, heads, d).
        mask: of shape (batch, T, S), (batch, heads, T, S) or None; True where it may look.
        causal: whether a position sees only itself and what came before it.

    None where a row has one entry and cannot but be flat.
    """
    if query.shape.rank != 4 or key.shape.rank != 4 or (key.shape[1] or 2) < 2:
        return None
    query, key = tf.cast(query[:1], tf.float32), tf.cast(key[:1], tf.float32)
    if key.shape[2] != query.shape[2]:  # grouped queries
        key = tf.repeat(key, query.shape[2] // key.shape[2], axis=2)
    scale = tf.math.rsqrt(tf.cast(tf.shape(query)[-1], tf.float32))
    scores = tf.einsum("btnh,bsnh->bnts", query, key) * scale
    if mask is not None and mask.shape.rank in (3, 4):
        seen = tf.cast(mask[:1] if mask.shape.rank == 4 else mask[:1, None], tf.bool)
        scores = tf.where(seen, scores, tf.constant(-1e30))
    if causal:  # the first row has one entry
        ones = tf.ones(tf.shape(scores)[-2:])
        scores = tf.where(tf.linalg.band_part(ones, -1, 0) > 0, scores, tf.constant(-1e30))
        scores = scores[..., 1:, :]
    return tf.nn.softmax(scores)


def is_last(axis: int | tuple[int, ...], rank: int | None) -> bool:
    """Return whether a softmax's axis is the last; Keras's attention writes it as (3,)."""
    axes = (axis,) if isinstance(axis, int) else tuple(axis)
    return len(axes) == 1 and axes[0] in (-1, None if rank is None else rank - 1)


def flat_rows(weights: tf.Tensor, share: float) -> tf.Tensor:
    r"""Return which rows of softmax are flat: $1 - \sum p^2$ below the share of its largest value.

    The trace of softmax's Jacobian, $\sum_i p_i (1 - p_i)$, is at most $1 - 1/n$, at the uniform
    row, and 0 where one entry has it all. Shape: that of the weights without the last axis.
    """
    weights = tf.cast(weights, tf.float32)
    n = tf.cast(tf.shape(weights)[-1], tf.float32)
    return 1 - tf.reduce_sum(tf.square(weights), -1) < share * (1 - 1 / n)


class SoftmaxWatch:
    """Measures the softmax that a layer calls as a function, as attention written by hand does.

    Use it as a context manager around one eager pass. Left out are layers whose softmax is seen
    elsewhere, or is an answer: Keras's attention, Softmax, Dense and Activation.

    Fields:
        rows: layer -> which of the rows of the first sequences are flat, in the order of the calls.
    """

    SEEN = (*LAYERS, keras.layers.Softmax, keras.layers.Dense, keras.layers.Activation,
            keras.layers.EinsumDense)  # fmt: skip

    def __init__(self, model: keras.Model, share: float) -> None:
        self.model, self.share = model, share
        self.rows: dict[str, list[np.ndarray]] = {}

    @property
    def shares(self) -> dict[str, float]:
        """Layer -> the share of its rows that are flat."""
        return {name: float(np.mean(np.concatenate(rows))) for name, rows in self.rows.items()}

    def __enter__(self) -> SoftmaxWatch:
        self._patched: list = []
        self._inside: list[tuple[str, keras.Layer]] = []
        for name, layer in named_layers(self.model):
            if isinstance(layer, keras.Layer):
                override(layer, "call", self._entered(name, layer), self._patched)
        override(tf.nn, "softmax", self._measured(tf.nn.softmax), self._patched)
        return self

    def __exit__(self, *exception: object) -> None:
        restore(self._patched)

    def _entered(self, name: str, layer: keras.Layer) -> Callable:
        call = layer.call

        @functools.wraps(call)
        def entered(*args: object, **kwargs: object) -> object:
            self._inside.append((name, layer))
            try:
                return call(*args, **kwargs)
            finally:
                self._inside.pop()

        return entered

    def _measured(self, softmax: Callable) -> Callable:
        @functools.wraps(softmax)
        def measured(logits: object, axis: int | None = None, name: str | None = None) -> tf.Tensor:
            weights = softmax(logits, axis=axis, name=name)
            if self._inside and tf.executing_eagerly():
                self._note(weights, -1 if axis is None else axis)
            return weights

        return measured

    def _note(self, weights: tf.Tensor, axis: int) -> None:
        where, layer = self._inside[-1]
        if weights.shape.rank < 3 or min(weights.shape[-2:]) < 2 or isinstance(layer, self.SEEN):
            return
        if is_last(axis, weights.shape.rank):
            flat = flat_rows(weights[:4], self.share)
            self.rows.setdefault(where, []).append(flat.numpy().reshape(-1))
