"""The gates inside Keras's SimpleRNN, LSTM and GRU, computed again on a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import keras
import tensorflow as tf

from course_lib.gates import SEQUENCES, STEPS, gate_kind, gate_limits
from course_lib.recurrent_specs import GATES
from course_lib.tf.recurrent import cell_name

ORDER = {"gru": ("z", "r", "n")}
"""Where Keras stacks the blocks otherwise than `GATES` does."""


@tf.autograph.experimental.do_not_convert
def recurrent_gates(
    layer: keras.layers.RNN, loop: Callable, sequences: tf.Tensor, states: object, share: float
) -> Iterator[tuple[str, str, tf.Tensor, tf.Tensor]]:
    """Yield (gate, kind, preactivations (n, t, units), where it is stuck) of a layer's cell.

    Arguments:
        layer: a layer around one of Keras's own cells; of any other, nothing is yielded.
        loop: its `inner_loop`.
        sequences: (batch, T, n_in), in the order of time.
        states: the initial states, as `inner_loop` takes them.
        share: the share of the largest slope below which a gate counts as stuck.
    """
    cell = getattr(layer, "cell", None)
    try:
        name = cell_name(cell)
    except (TypeError, ValueError):  # a cell of the reader's own, or an unusual activation
        return
    length = sequences.shape[1] or STEPS
    if layer.go_backwards:
        sequences = tf.reverse(sequences, [1])
    x = tf.stop_gradient(tf.cast(sequences[:SEQUENCES, :STEPS], cell.compute_dtype))
    states = [tf.stop_gradient(s[:SEQUENCES]) for s in tf.nest.flatten(states)]
    hidden = tf.stop_gradient(_states(layer, loop, x, states))
    previous = tf.concat([states[0][:, None], hidden[:, :-1]], axis=1)
    for gate, z in _preactivations(cell, name, x, previous).items():
        low, high = gate_limits(name, gate, share=share, steps=length)
        z = tf.cast(z, tf.float32)
        yield gate, gate_kind(name, gate), z, (z < low) | (z > high)


def _states(layer: keras.layers.RNN, loop: Callable, x: tf.Tensor, states: list) -> tf.Tensor:
    """Return $h_t$ for every t, from a layer that may hand out the last one alone."""
    kept, backwards = layer.return_sequences, layer.go_backwards
    object.__setattr__(layer, "return_sequences", True)
    object.__setattr__(layer, "go_backwards", False)
    try:
        return loop(x, states, None, training=False)[1]
    finally:
        object.__setattr__(layer, "return_sequences", kept)
        object.__setattr__(layer, "go_backwards", backwards)


def _preactivations(
    cell: keras.Layer, name: str, x: tf.Tensor, previous: tf.Tensor
) -> dict[str, tf.Tensor]:
    """Return each gate's preactivation by its name in `GATES`."""
    a = x @ tf.cast(cell.kernel.value, x.dtype)
    u = previous @ tf.cast(cell.recurrent_kernel.value, x.dtype)
    if cell.use_bias:
        bias = tf.cast(cell.bias.value, x.dtype)
        a, u = (a + bias[0], u + bias[1]) if name == "gru" else (a + bias, u)
    gates = ORDER.get(name, GATES[name])
    a, u = (dict(zip(gates, tf.split(v, len(gates), axis=-1), strict=True)) for v in (a, u))
    z = {gate: a[gate] + u[gate] for gate in gates}
    if name == "gru":
        z["n"] = a["n"] + tf.sigmoid(z["r"]) * u["n"]
    return z
