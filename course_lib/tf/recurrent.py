"""Recurrent networks in Keras: SimpleRNN, LSTM and GRU with every gradient over time.

All functions take the `keras.Sequential` built here, one written the same way (a recurrent layer
and at most one linear Dense), or a built recurrent layer of your own. Gradients come back in the
course's layout, which is PyTorch's: the transpose of a Keras kernel, with the GRU's gates in the
order r, z, n where Keras has z, r, h.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from course_lib._validation import require_array, require_choice
from course_lib.recurrent_results import Connectivity, RecurrentFlow, StateJacobians
from course_lib.recurrent_specs import RecurrentSpec, RecurrentWeights, check_recurrent_weights
from course_lib.sequence_losses import check_sequences, check_truncation, cut_points
from course_lib.tf.models import DTYPES, compute_loss

LAYERS = {
    "tanh_rnn": keras.layers.SimpleRNN,
    "relu_rnn": keras.layers.SimpleRNN,
    "lstm": keras.layers.LSTM,
    "gru": keras.layers.GRU,
}


def build_recurrent(
    spec: RecurrentSpec, weights: RecurrentWeights, *, dtype: str = "float32"
) -> keras.Sequential:
    """Return the network `spec` with a copy of `weights`; its outputs are (batch, T, n_out).

    Keras has a single bias in SimpleRNN and LSTM: the sum of ours.

    Arguments:
        spec: the network as data.
        weights: of the spec's cell and sizes; from `course_lib.draw_recurrent_weights`.
        dtype: "float32" or "float64".
    """
    check_recurrent_weights(spec, weights)
    require_choice("dtype", dtype, DTYPES)
    # Zeros, to be overwritten: any other initializer would take numbers from the reader's own
    # random generator.
    zeros = {"kernel_initializer": "zeros", "dtype": dtype}
    extra = {"activation": "relu"} if spec.cell == "relu_rnn" else {}
    model = keras.Sequential([keras.Input((None, spec.n_in), dtype=dtype)])
    model.add(
        LAYERS[spec.cell](
            spec.hidden, return_sequences=True, recurrent_initializer="zeros", **zeros, **extra
        )
    )
    model.layers[0].set_weights(
        [
            _reorder(weights.w_xh, spec.cell).T,
            _reorder(weights.w_hh, spec.cell).T,
            _to_keras_bias(weights),
        ]
    )
    if spec.n_out is not None:
        model.add(keras.layers.Dense(spec.n_out, **zeros))
        model.layers[1].set_weights([weights.w_hy.T, weights.b_y])
    return model


def _reorder(array: np.ndarray, cell: str) -> np.ndarray:
    """Exchange the first two gates' rows of a GRU: r z n to z r h, and back."""
    if cell != "gru":
        return array
    first, second, third = np.split(array, 3)
    return np.concatenate([second, first, third])


def _to_keras_bias(weights: RecurrentWeights) -> np.ndarray:
    if weights.cell == "gru":
        return np.stack([_reorder(b, "gru") for b in (weights.b_xh, weights.b_hh)])
    return weights.b_xh + weights.b_hh


def cell_name(cell: object) -> str:
    """Return the course's name of a Keras cell; raise for one that the course does not cover."""
    activation = getattr(cell, "activation", None)
    recurrent = getattr(cell, "recurrent_activation", keras.activations.sigmoid)
    if isinstance(cell, keras.layers.SimpleRNNCell):
        name = {keras.activations.tanh: "tanh_rnn", keras.activations.relu: "relu_rnn"}.get(
            activation
        )
    elif isinstance(cell, (keras.layers.LSTMCell, keras.layers.GRUCell)):
        usual = activation is keras.activations.tanh and recurrent is keras.activations.sigmoid
        is_lstm = isinstance(cell, keras.layers.LSTMCell)
        name = ("lstm" if is_lstm else "gru") if usual else None
    else:
        raise TypeError(
            f"`model` (a {type(cell).__name__}) must be a Sequential that begins with a recurrent "
            f"layer, or one of SimpleRNN, LSTM, GRU and their cells."
        )
    if name is None:
        raise ValueError(
            f"`model` (activation {getattr(activation, '__name__', activation)}) must use Keras's "
            f"standard activations; SimpleRNN may use tanh or relu."
        )
    if name == "gru" and not cell.reset_after:
        raise ValueError("`model` (a GRU with reset_after=False) must have reset_after=True.")
    return name


def read_recurrent(model: object) -> tuple[keras.layers.Layer, keras.layers.Layer | None]:
    """Return the recurrent cell of `model` and its readout (None without one)."""
    readout = None
    if isinstance(model, keras.Sequential):
        layers = list(model.layers)
        readout = layers[1] if len(layers) == 2 else None
        linear = readout is None or (
            isinstance(readout, keras.layers.Dense)
            and readout.activation is keras.activations.linear
        )
        if len(layers) not in (1, 2) or not linear:
            raise ValueError(
                "`model` (a Sequential) must be one recurrent layer and at most a linear Dense."
            )
        model = layers[0]
    if getattr(model, "go_backwards", False):
        raise ValueError("`model` (go_backwards = True) must have go_backwards = False.")
    cell = getattr(model, "cell", model)
    cell_name(cell)
    if not cell.built:
        raise ValueError("`model` (not built) must have weights: call it once, or give an Input.")
    return cell, readout


def _variables(cell: keras.layers.Layer, readout: keras.layers.Layer | None) -> dict[str, object]:
    """Return the variables by Keras's names, as far as they exist."""
    found = {"kernel": cell.kernel, "recurrent_kernel": cell.recurrent_kernel, "bias": cell.bias}
    if readout is not None:
        found |= {"readout_kernel": readout.kernel, "readout_bias": readout.bias}
    return {name: variable.value for name, variable in found.items() if variable is not None}


def _to_course_layout(cell: str, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Return Keras's weights (or their gradients) under the names of `RecurrentWeights`.

    A single bias appears as both of ours: the gradient of a sum is that of each term.
    """
    named = {
        "w_xh": _reorder(arrays["kernel"].T, cell),
        "w_hh": _reorder(arrays["recurrent_kernel"].T, cell),
    }
    if "bias" in arrays:
        rows = arrays["bias"] if cell == "gru" else [arrays["bias"]] * 2
        named |= {"b_xh": _reorder(rows[0], cell), "b_hh": _reorder(rows[1], cell)}
    if "readout_kernel" in arrays:
        named["w_hy"] = arrays["readout_kernel"].T
    if "readout_bias" in arrays:
        named["b_y"] = arrays["readout_bias"]
    return named


def recurrent_weights(model: object) -> RecurrentWeights:
    """Return a copy of the weights of `model` in the course's layout, in float64.

    Arguments:
        model: a `keras.Sequential` of a recurrent layer and at most one linear Dense, or a built
            recurrent layer.
    """
    cell, readout = read_recurrent(model)
    arrays = {k: v.numpy().astype(np.float64) for k, v in _variables(cell, readout).items()}
    named = _to_course_layout(cell_name(cell), arrays)
    if cell_name(cell) != "gru" and "b_hh" in named:
        named["b_hh"] = np.zeros_like(named["b_hh"])
    return RecurrentWeights(cell_name(cell), **named)


def as_tensor(cell: keras.layers.Layer, value: np.ndarray) -> tf.Tensor:
    """Return real numbers in the cell's dtype, and integer labels as they are."""
    is_label = np.issubdtype(value.dtype, np.integer)
    return tf.constant(value, dtype="int64" if is_label else cell.compute_dtype)


def n_inputs(cell: keras.layers.Layer) -> int:
    """Return the number of inputs per step."""
    return int(cell.kernel.shape[0])


def output_size(cell: keras.layers.Layer, readout: keras.layers.Layer | None) -> int:
    """Return the number of outputs per step."""
    return cell.units if readout is None else readout.units


def unroll(
    cell: keras.layers.Layer, x: tf.Tensor, cuts: list[int]
) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
    """Run one step at a time, so that the tape knows every state.

    Returns $h_t$ and $C_t$ (empty without C) for t = 1..T, each (batch, n). After the steps in
    `cuts`, the state is handed on behind a `tf.stop_gradient`.
    """
    is_lstm = isinstance(cell, keras.layers.LSTMCell)
    zeros = tf.zeros((x.shape[0], cell.units), dtype=x.dtype)
    states = [zeros, zeros] if is_lstm else [zeros]
    hidden_states, cell_states = [], []
    for t, x_t in enumerate(tf.unstack(x, axis=1), start=1):
        _, states = cell(x_t, states)
        hidden_states.append(states[0])
        cell_states += states[1:]
        if t in cuts:
            states = [tf.stop_gradient(s) for s in states]
    return hidden_states, cell_states


def sequence_loss(outputs: tf.Tensor, y: tf.Tensor | None, *, loss: str, over: str) -> tf.Tensor:
    """Return a loss of `course_lib.sequence_losses` for outputs of shape (batch, T, n_out)."""
    if over == "last":
        return compute_loss(outputs[:, -1], y, loss=loss)
    steps = outputs.shape[1]
    if y is not None:
        y = tf.reshape(y, (-1, *y.shape[2:]))
    value = compute_loss(tf.reshape(outputs, (-1, outputs.shape[2])), y, loss=loss)
    return steps * value if over == "sum" else value


def recurrent_gradient_flow(
    model: object,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "mean_output",
    over: str = "last",
    truncation: int | None = None,
) -> RecurrentFlow:
    """Return every gradient of one backward pass: one call of the tape for all states.

    The arguments are those of `course_lib.reference.recurrent_gradient_flow`.
    """
    cell, readout = read_recurrent(model)
    x, y = check_sequences(
        x, y, loss=loss, over=over, n_in=n_inputs(cell), n_out=output_size(cell, readout)
    )
    truncation = check_truncation(truncation)
    inputs, variables = as_tensor(cell, x), _variables(cell, readout)
    targets = None if y is None else as_tensor(cell, y)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        hidden, cells = unroll(cell, inputs, cut_points(x.shape[1], truncation))
        outputs = tf.stack(hidden, axis=1)
        if readout is not None:
            outputs = readout(outputs)
        value = sequence_loss(outputs, targets, loss=loss, over=over)
    input_grads, variable_grads, hidden_grads, cell_grads = tape.gradient(
        value, [inputs, variables, hidden, cells], unconnected_gradients="zero"
    )
    kind = cell_name(cell)
    return RecurrentFlow(
        framework="TensorFlow",
        dtype=cell.compute_dtype,
        cell=kind,
        loss=float(value),
        parameter_grads=_to_course_layout(
            kind, {name: grad.numpy() for name, grad in variable_grads.items()}
        ),
        hidden_grads=_over_time(hidden_grads),
        cell_grads=_over_time(cell_grads),
        input_grads=input_grads.numpy(),
        hidden_states=_over_time(hidden),
        cell_states=_over_time(cells),
    )


def _over_time(tensors: list[tf.Tensor]) -> np.ndarray | None:
    """Return (batch, n) tensors for every t as one (batch, T, n) array; None for none."""
    return tf.stack(tensors, axis=1).numpy() if len(tensors) else None


def state_jacobians(model: object, x: np.ndarray) -> StateJacobians:
    """Return the Jacobian of every step along one sequence x of shape (T, n_in), by the tape.

    All steps are put into one batch, each from its own state: `batch_jacobian` does the rest.

    Arguments:
        model: a `keras.Sequential` of a recurrent layer and at most one linear Dense, or a built
            recurrent layer.
        x: one sequence, shape (T, n_in).
    """
    from course_lib.tf.bptt import direct_and_readback

    cell, _ = read_recurrent(model)
    x = require_array("x", x, shape=(None, n_inputs(cell)))
    inputs = as_tensor(cell, x)
    parts = [part for part in unroll(cell, inputs[None], []) if part]
    states = tf.concat([tf.concat(part, axis=0) for part in parts], axis=1)
    starts = tf.concat([tf.zeros_like(states[:1]), states[:-1]], axis=0)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(starts)
        _, ends = cell(inputs, tf.split(starts, len(parts), axis=1))
        ends = tf.concat(ends, axis=1)
    # Without pfor: it would trace a graph for each new shape, which takes longer than the loop.
    jacobians = tape.batch_jacobian(ends, starts, experimental_use_pfor=False).numpy()
    direct, readback = direct_and_readback(cell, inputs)
    return StateJacobians("TensorFlow", cell_name(cell), jacobians, direct, readback)


def connectivity(
    model: object,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "mean_output",
    wrt: str = "input",
) -> Connectivity:
    """Return the norm of the gradient of every step's loss with respect to every position.

    The arguments are those of `course_lib.reference.connectivity`. One forward pass under a
    persistent tape, and one backward pass for each step.
    """
    require_choice("wrt", wrt, ("input", "hidden"))
    cell, readout = read_recurrent(model)
    x, y = check_sequences(
        x, y, loss=loss, over="sum", n_in=n_inputs(cell), n_out=output_size(cell, readout)
    )
    steps, inputs = x.shape[1], as_tensor(cell, x)
    with tf.GradientTape(persistent=True) as tape:
        tape.watch(inputs)
        hidden, _ = unroll(cell, inputs, [])
        values = []
        for t, h in enumerate(hidden):
            outputs = h if readout is None else readout(h)
            y_t = None if y is None else as_tensor(cell, y[:, t])
            values.append(compute_loss(outputs, y_t, loss=loss))
    norms = np.zeros((steps, steps))
    for t, value in enumerate(values, start=1):
        if wrt == "input":
            over_time = tape.gradient(value, inputs).numpy()[:, :t]
        else:
            over_time = _over_time(tape.gradient(value, hidden[:t]))
        norms[t - 1, :t] = np.linalg.norm(over_time.astype(np.float64), axis=(0, 2))
    return Connectivity("TensorFlow", cell.compute_dtype, cell_name(cell), loss, wrt, norms)
