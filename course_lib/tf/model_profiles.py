"""The gradient's norm over time, for the recurrent layers inside any Keras model."""

from __future__ import annotations

from collections.abc import Callable

import keras
import tensorflow as tf

from course_lib.recurrent_results import BPTTProfile
from course_lib.tf.bptt import bptt_profile
from course_lib.tf.layer_names import named_layers
from course_lib.tf.patching import override, restore

KINDS = (keras.layers.SimpleRNN, keras.layers.LSTM, keras.layers.GRU)


def profile_recurrent_layers(
    model: keras.Model, run: Callable[[], object], *, strict: bool
) -> dict[str, BPTTProfile]:
    """Return the profile over time of each SimpleRNN, LSTM and GRU that `run()` calls, by name.

    Cells without a closed recursion (an activation that is not the usual one) raise ValueError or
    TypeError if `strict`, else they are left out.
    """
    found = [(n, layer) for n, layer in named_layers(model) if isinstance(layer, KINDS)]
    caught: dict[str, tf.Tensor] = {}
    patched: list = []

    def catch(name: str, call: Callable) -> Callable:
        def caught_call(sequences: tf.Tensor, *args: object, **kwargs: object) -> object:
            if isinstance(sequences, tf.Tensor) and tf.executing_eagerly():
                caught.setdefault(name, sequences)
            return call(sequences, *args, **kwargs)

        return caught_call

    try:
        for name, layer in found:
            override(layer, "call", catch(name, layer.call), patched)
        if found:
            run()
    finally:
        restore(patched)
    profiles = {}
    for name, layer in found:
        if name not in caught:
            continue
        x = tf.cast(caught[name], tf.float32) if caught[name].dtype.size == 2 else caught[name]
        x = tf.reverse(x, [1]) if layer.go_backwards else x
        try:
            profiles[name] = bptt_profile(layer.cell, x.numpy())
        except (TypeError, ValueError):
            if strict:
                raise
    return profiles
