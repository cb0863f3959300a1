"""What the softmax inside attention does: how many of its rows have settled on one position."""

from __future__ import annotations

import keras
import tensorflow as tf

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
