r"""The gradient's norm over time in TensorFlow: with the tape, and with the closed recursion.

The recursion needs no tape: the layer runs the sequence once, every preactivation follows from its
states by one matrix product, the slopes of all steps are computed at once, and what remains is the
linear loop of `course_lib.bptt_recursion`, in float64 on the CPU.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from course_lib._validation import require_array
from course_lib.bptt_recursion import (
    Coefficients,
    accumulate_cells,
    backpropagate,
    log10_norms,
)
from course_lib.recurrent_results import BPTTProfile
from course_lib.reference.recurrent import check_last_grad
from course_lib.tf.recurrent import as_tensor, cell_name, n_inputs, read_recurrent


def _logistic_slope(z: tf.Tensor) -> tf.Tensor:
    """Return s(z)(1 - s(z)) in float64 without cancellation, however large |z|."""
    tail = tf.sigmoid(-tf.abs(tf.cast(z, tf.float64)))  # at most 1/2: 1 - tail loses nothing
    return tail * (1.0 - tail)


def _tanh_slope(z: tf.Tensor) -> tf.Tensor:
    """Return 1 - tanh(z)^2 in float64; from tanh itself it would be 0 for |z| above 19."""
    return 4.0 * _logistic_slope(2.0 * z)


def _double(tensor: tf.Tensor) -> tf.Tensor:
    return tf.cast(tensor, tf.float64)


def _rnn_coefficients(a: tf.Tensor, u: tf.Tensor, kind: str) -> Coefficients:
    z = a + u
    return Coefficients((_tanh_slope(z) if kind == "tanh_rnn" else _double(z > 0)).numpy())


def _lstm_coefficients(a: tf.Tensor, u: tf.Tensor) -> Coefficients:
    z_i, z_f, z_g, z_o = tf.unstack(a + u, axis=2)
    i, f, g, o = (_double(v) for v in (tf.sigmoid(z_i), tf.sigmoid(z_f), tf.tanh(z_g),
                                       tf.sigmoid(z_o)))  # fmt: skip
    cells = np.empty(i.shape)
    accumulate_cells(f.numpy(), (i * g).numpy(), cells, multiply=np.multiply)
    previous = np.concatenate([np.zeros_like(cells[:1]), cells[:-1]])
    gates = [
        g * _logistic_slope(z_i),
        previous * _logistic_slope(z_f),
        i * _tanh_slope(z_g),
        tf.tanh(cells) * _logistic_slope(z_o),
    ]
    readback = o * _tanh_slope(tf.constant(cells))
    return Coefficients(tf.stack(gates, axis=2).numpy(), f.numpy(), readback.numpy())


def _gru_coefficients(a: tf.Tensor, u: tf.Tensor, previous: tf.Tensor) -> Coefficients:
    a_z, a_r, a_n = tf.unstack(a, axis=2)
    u_z, u_r, u_n = tf.unstack(u, axis=2)
    r, z = _double(tf.sigmoid(a_r + u_r)), _double(tf.sigmoid(a_z + u_z))
    candidate = a_n + tf.sigmoid(a_r + u_r) * u_n
    n_delta = (1.0 - z) * _tanh_slope(candidate)
    gates = [
        _double(previous - tf.tanh(candidate)) * _logistic_slope(a_z + u_z),
        n_delta * _double(u_n) * _logistic_slope(a_r + u_r),
        n_delta * r,
    ]
    return Coefficients(tf.stack(gates, axis=2).numpy(), z.numpy())


def run_cell(cell: keras.layers.Layer, x: tf.Tensor) -> tf.Tensor:
    """Return $h_t$ for all t, time first, for x of shape (batch, T, n_in).

    As a `tf.function`: the eager loop over a thousand steps takes a hundred times as long.
    """
    layer = keras.layers.RNN(cell, return_sequences=True, dtype=cell.compute_dtype)
    return tf.transpose(tf.function(layer)(x), (1, 0, 2))


def _coefficients(cell: keras.layers.Layer, x: tf.Tensor) -> Coefficients:
    """Return the coefficients along x, shape (batch, T, n_in), gates in Keras's order."""
    hidden = run_cell(cell, x)
    finite = tf.reduce_all(tf.math.is_finite(hidden), axis=(1, 2)).numpy()
    if not finite.all():
        raise ValueError(
            f"`x` must keep the states finite; at step {int(finite.argmin()) + 1} h_t is not."
        )
    # In mixed precision the parameters have more digits than the states.
    x, hidden = (tf.cast(v, cell.kernel.value.dtype) for v in (x, hidden))
    previous = tf.concat([tf.zeros_like(hidden[:1]), hidden[:-1]], axis=0)
    a = tf.transpose(x, (1, 0, 2)) @ cell.kernel.value
    u = previous @ cell.recurrent_kernel.value
    if cell.use_bias and cell_name(cell) == "gru":
        a, u = a + cell.bias.value[0], u + cell.bias.value[1]
    elif cell.use_bias:
        a = a + cell.bias.value
    shape = (*hidden.shape[:2], -1, cell.units)
    a, u, kind = tf.reshape(a, shape), tf.reshape(u, shape), cell_name(cell)
    if kind == "lstm":
        return _lstm_coefficients(a, u)
    if kind == "gru":
        return _gru_coefficients(a, u, previous)
    return _rnn_coefficients(a, u, kind)


def bptt_profile(
    model: object, x: np.ndarray, *, grad_last: np.ndarray | None = None
) -> BPTTProfile:
    r"""Return $\log_{10}\|\partial\mathcal{L}/\partial h_t\|$ for a loss at the last step.

    Arguments:
        model: what `build_recurrent` returned, or your own built SimpleRNN, LSTM or GRU layer,
            or one of their cells.
        x: inputs, shape (batch, T, n_in).
        grad_last: $\partial\mathcal{L}/\partial h_T$, shape (batch, n); that of the mean of
            all entries of $h_T$ if None.

    The states are the layer's, in its precision; the way back is float64. Where the dynamics are
    chaotic, float32 and float64 states part within some tens of steps, and profiles at the two
    precisions then agree in their slope only.
    """
    cell, _ = read_recurrent(model)
    x = require_array("x", x, shape=(None, None, n_inputs(cell)))
    grad = check_last_grad(grad_last, batch=len(x), hidden=cell.units)
    k = _coefficients(cell, as_tensor(cell, x))
    hidden = np.empty((x.shape[1], len(x), cell.units))
    hidden[-1] = grad
    cells = None if k.readback is None else np.empty_like(hidden)
    w_hh = np.ascontiguousarray(cell.recurrent_kernel.numpy().T, dtype=np.float64)
    scale = backpropagate(k, w_hh, hidden, cells)
    logs = [None if part is None else log10_norms(part, scale) for part in (hidden, cells)]
    return BPTTProfile(
        "TensorFlow", cell.compute_dtype, cell_name(cell), "recursion", *logs,
        recurrent_gain=float(np.sqrt(np.square(w_hh).sum(axis=1).mean())),
    )  # fmt: skip


def direct_and_readback(
    cell: keras.layers.Layer, x: tf.Tensor
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return `StateJacobians.direct` and `.readback` for one sequence x of shape (T, n_in)."""
    k = _coefficients(cell, x[None])
    direct = np.zeros(k.gates.shape[::3]) if k.direct is None else k.direct[:, 0]
    return direct, None if k.readback is None else k.readback[:, 0]


def hook_profile(
    model: object, x: np.ndarray, *, grad_last: np.ndarray | None = None
) -> BPTTProfile:
    """Return the same profile as people write it: a cell, a loop, and a tape over every state.

    The arguments are those of `bptt_profile`. Norms are taken in the model's precision, so they
    underflow to exactly zero (and their logarithm to -inf) where `bptt_profile` goes on.
    """
    cell, _ = read_recurrent(model)
    x = require_array("x", x, shape=(None, None, n_inputs(cell)))
    grad = check_last_grad(grad_last, batch=len(x), hidden=cell.units)
    inputs, grad = as_tensor(cell, x), as_tensor(cell, grad)
    zeros = tf.zeros((len(x), cell.units), dtype=inputs.dtype)
    states = [zeros, zeros] if cell_name(cell) == "lstm" else [zeros]
    hidden_states = []
    with tf.GradientTape() as tape:
        for t in range(x.shape[1]):
            _, states = cell(inputs[:, t], states)
            tape.watch(states[0])
            hidden_states.append(states[0])
        loss = tf.reduce_sum(states[0] * grad)
    norms = [tf.norm(g).numpy() for g in tape.gradient(loss, hidden_states)]
    with np.errstate(divide="ignore"):
        logs = np.log10(np.array(norms, dtype=np.float64))
    return BPTTProfile("TensorFlow", cell.compute_dtype, cell_name(cell), "hooks", logs)
