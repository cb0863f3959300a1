"""The gradient's norm over time, for the recurrent layers and cells inside any Keras model."""

from __future__ import annotations

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from course_lib.recurrent_results import BPTTProfile
from course_lib.tf.bptt import bptt_profile, run_cell
from course_lib.tf.layer_names import named_layers
from course_lib.tf.patching import override, restore

CELLS = (keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell)


def cells_of(layer: object) -> list[keras.Layer]:
    """Return the cells of an RNN layer, the first to run first, if all are Keras's own; else []."""
    if not isinstance(layer, keras.layers.RNN):
        return []
    cell = layer.cell
    cells = cell.cells if isinstance(cell, keras.layers.StackedRNNCells) else [cell]
    return list(cells) if all(isinstance(c, CELLS) for c in cells) else []


def profile_recurrent_layers(
    model: keras.Model, run: Callable[[], object], *, strict: bool
) -> dict[str, BPTTProfile]:
    """Return the profile over time of what `run()` calls, by name: SimpleRNN, LSTM, GRU, an RNN
    around cells of theirs, and such a cell that a loop calls again and again on its own state.

    Cells without a closed recursion (an activation that is not the usual one) raise ValueError or
    TypeError if `strict`, else they are left out. So is a cell whose state the loop changes.
    """
    found = dict(named_layers(model))
    layers = {name: layer for name, layer in found.items() if cells_of(layer)}
    loose = {name: layer for name, layer in found.items() if isinstance(layer, CELLS)}
    caught: dict[str, list] = {name: [] for name in (*layers, *loose)}
    patched: list = []

    def catch(name: str, call: Callable) -> Callable:
        def caught_call(x: tf.Tensor, *args: object, **kwargs: object) -> object:
            output = call(x, *args, **kwargs)
            if isinstance(x, tf.Tensor) and tf.executing_eagerly():
                given = kwargs.get("states", args[0] if args else None)
                if name in loose:
                    caught[name].append((x, _hidden(given), _hidden(output[1])))
                elif not caught[name]:
                    caught[name].append((x, None, None))
            return output

        return caught_call

    try:
        for name in caught:
            override(found[name], "call", catch(name, found[name].call), patched)
        if caught:
            run()
    finally:
        restore(patched)
    profiles = {}
    for name, calls in caught.items():
        if not calls:
            continue
        profile = _profile_layer if name in layers else _profile_loop
        try:
            profiles |= profile(name, found[name], calls)
        except (TypeError, ValueError):
            if strict:
                raise
    return profiles


def _profile_layer(name: str, layer: keras.layers.RNN, calls: list) -> dict[str, BPTTProfile]:
    """Return the profile of a layer's cell, or of each of its cells by their names."""
    x, cells = _readable(calls[0][0]), cells_of(layer)
    x = tf.reverse(x, [1]) if layer.go_backwards else x
    profiles = {}
    for cell in cells:
        title = name if len(cells) == 1 else f"{name}/{cell.name}"
        profiles[title] = bptt_profile(cell, x.numpy())
        if cell is not cells[-1]:
            x = _readable(tf.transpose(run_cell(cell, tf.cast(x, cell.compute_dtype)), (1, 0, 2)))
    return profiles


def _profile_loop(name: str, cell: keras.Layer, calls: list) -> dict[str, BPTTProfile]:
    """Return the profile of a cell that was called on its own state, step by step, or none."""
    states = [given for _, given, _ in calls[1:]]
    outputs = [output for _, _, output in calls[:-1]]
    chained = all(
        isinstance(state, tf.Tensor) and np.array_equal(state.numpy(), output.numpy())
        for state, output in zip(states, outputs, strict=True)
    )
    if len(calls) < 2 or not chained:
        return {}
    return {name: bptt_profile(cell, _readable(tf.stack([x for x, *_ in calls], 1)).numpy())}


def _readable(x: tf.Tensor) -> tf.Tensor:
    """Return x in a precision that NumPy has too."""
    return tf.cast(x, tf.float32) if x.dtype.size == 2 else x


def _hidden(states: object) -> object:
    """Return $h_t$ of a cell's states, which are (h, C) in an LSTM."""
    return states[0] if isinstance(states, tuple | list) else states
