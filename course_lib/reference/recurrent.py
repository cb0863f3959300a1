r"""Backpropagation through time, written out in float64 NumPy, for every cell of the course.

A cell (`rnn`, `lstm`, `gru`) knows one step and its reverse. What is the same for all stands here:
with $a_t = W_{xh} x_t + b_{xh}$ and $u_t = W_{hh} h_{t-1} + b_{hh}$, the complete gradient at $h_t$
is the loss's own part plus what step t + 1 sends back,

$$\frac{\partial\mathcal{L}}{\partial h_{t-1}} = \frac{\partial\mathcal{L}_{t-1}}{\partial h_{t-1}}
+ W_{hh}^\top \frac{\partial\mathcal{L}}{\partial u_t} + \text{(the cell's direct part)},$$

and every step adds its outer product to the gradients of the shared matrices. Source: werbos1990.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import ModuleType

import numpy as np

from course_lib._validation import require_array, require_choice
from course_lib.recurrent_results import (
    BPTTProfile,
    Connectivity,
    RecurrentFlow,
    StateJacobians,
)
from course_lib.recurrent_specs import RecurrentSpec, RecurrentWeights, check_recurrent_weights
from course_lib.reference import gru, lstm, rnn
from course_lib.sequence_losses import (
    check_sequences,
    check_truncation,
    cut_points,
    evaluate_sequence_loss,
)

CELLS: dict[str, ModuleType] = {"tanh_rnn": rnn, "relu_rnn": rnn, "lstm": lstm, "gru": gru}


@dataclass(frozen=True, eq=False)
class RecurrentNetwork:
    """A recurrent layer with an optional linear readout; it holds its weights."""

    weights: RecurrentWeights = field(repr=False)

    @property
    def n_out(self) -> int:
        """The number of outputs: the readout's, or the hidden units'."""
        return self.weights.hidden if self.weights.n_out is None else self.weights.n_out

    def forward(self, x: np.ndarray) -> SequencePass:
        """Run a batch of shape (batch, T, n_in) from zero states; see `SequencePass`."""
        w = self.weights
        x = require_array("x", x, shape=(None, None, w.n_in))
        cell = CELLS[w.cell]
        hidden = np.zeros((len(x), w.hidden))
        memory = np.zeros_like(hidden) if w.cell == "lstm" else None
        inputs = x @ w.w_xh.T + w.b_xh
        steps, previous = [], []
        for t in range(x.shape[1]):
            previous.append(hidden)
            with np.errstate(over="ignore", invalid="ignore"):
                done = cell.step(w.cell, inputs[:, t], hidden @ w.w_hh.T + w.b_hh, hidden, memory)
            hidden, memory = done.hidden, done.cell
            if not np.all(np.isfinite(hidden)):
                raise ValueError(f"`x` must keep the states finite; at step {t + 1} h_t is not.")
            steps.append(done)
        return SequencePass(x, steps, previous)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the outputs at every step, shape (batch, T, n_out)."""
        return self.readout(self.forward(x).hidden_states)

    def readout(self, hidden_states: np.ndarray) -> np.ndarray:
        """Return the outputs for hidden states of shape (..., n)."""
        if self.weights.w_hy is None:
            return hidden_states
        return hidden_states @ self.weights.w_hy.T + self.weights.b_y


@dataclass(frozen=True, eq=False)
class SequencePass:
    """What backpropagation through time needs to know of a forward pass.

    Fields:
        inputs: x, shape (batch, T, n_in).
        steps: each cell's `Step`; entry [t - 1] belongs to step t.
        previous: $h_{t-1}$, (batch, n) each; entry [t - 1] belongs to step t.
    """

    inputs: np.ndarray
    steps: list
    previous: list[np.ndarray]

    @property
    def hidden_states(self) -> np.ndarray:
        """$h_t$, shape (batch, T, n)."""
        return np.stack([done.hidden for done in self.steps], axis=1)

    @property
    def cell_states(self) -> np.ndarray | None:
        """$C_t$, shape (batch, T, n); None without C."""
        if self.steps[0].cell is None:
            return None
        return np.stack([done.cell for done in self.steps], axis=1)


def check_model(model: object) -> RecurrentNetwork:
    """Return `model` if it is a network of this module; raise TypeError otherwise."""
    if not isinstance(model, RecurrentNetwork):
        raise TypeError(
            f"`model` (a {type(model).__name__}) must be a reference RecurrentNetwork."
        )
    return model


def build_recurrent(
    spec: RecurrentSpec, weights: RecurrentWeights, *, dtype: str = "float64"
) -> RecurrentNetwork:
    """Return the network `spec` with `weights`. The reference knows only float64."""
    check_recurrent_weights(spec, weights)
    require_choice("dtype", dtype, ("float64",))
    return RecurrentNetwork(weights)


def backward(
    model: RecurrentNetwork,
    passed: SequencePass,
    hidden_grads: np.ndarray,
    *,
    truncation: int | None = None,
) -> tuple[dict[str, np.ndarray], np.ndarray, np.ndarray | None, np.ndarray]:
    r"""Backpropagate through time.

    Arguments:
        hidden_grads: the loss's own part of the gradient at each $h_t$, shape (batch, T, n).
        truncation: cut the states every so many steps; see `sequence_losses.cut_points`.

    Returns the recurrent parameters' gradients by name; the complete gradients at $h_t$ and at
    $C_t$ (None without C), shape (batch, T, n); and those at $x_t$, shape (batch, T, n_in).
    """
    w, cell = model.weights, CELLS[model.weights.cell]
    grads = {name: np.zeros_like(getattr(w, name)) for name in ("w_xh", "w_hh", "b_xh", "b_hh")}
    complete, cells = np.array(hidden_grads), np.zeros_like(hidden_grads)
    input_grads = np.zeros_like(passed.inputs)
    cuts = set(cut_points(len(passed.steps), truncation))
    from_later = np.zeros_like(complete[:, 0])
    cell_from_later = np.zeros_like(from_later)
    for t in range(len(passed.steps), 0, -1):
        if t in cuts:
            from_later, cell_from_later = np.zeros_like(from_later), np.zeros_like(from_later)
        complete[:, t - 1] += from_later
        back = cell.step_backward(passed.steps[t - 1], complete[:, t - 1], cell_from_later)
        grads["w_xh"] += back.a.T @ passed.inputs[:, t - 1]
        grads["w_hh"] += back.u.T @ passed.previous[t - 1]
        grads["b_xh"] += back.a.sum(axis=0)
        grads["b_hh"] += back.u.sum(axis=0)
        input_grads[:, t - 1] = back.a @ w.w_xh
        from_later = back.u @ w.w_hh + back.hidden
        if w.cell == "lstm":
            cells[:, t - 1], cell_from_later = back.total_cell, back.cell
    return grads, complete, (cells if w.cell == "lstm" else None), input_grads


def recurrent_gradient_flow(
    model: RecurrentNetwork,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "mean_output",
    over: str = "last",
    truncation: int | None = None,
) -> RecurrentFlow:
    """Return every gradient of one backward pass through time.

    Arguments:
        model: what `build_recurrent` returned.
        x: inputs, shape (batch, T, n_in).
        y, loss, over: the loss and its targets; see `course_lib.sequence_losses`.
        truncation: length of truncated backpropagation through time; None for the whole sequence.
    """
    w = check_model(model).weights
    x, y = check_sequences(x, y, loss=loss, over=over, n_in=w.n_in, n_out=model.n_out)
    truncation = check_truncation(truncation)
    passed = model.forward(x)
    states = passed.hidden_states
    value, output_grads = evaluate_sequence_loss(model.readout(states), y, loss=loss, over=over)
    readout_grads, hidden_grads = {}, output_grads
    if w.w_hy is not None:
        readout_grads["w_hy"] = np.einsum("bto,btn->on", output_grads, states)
        readout_grads["b_y"] = output_grads.sum(axis=(0, 1))
        hidden_grads = output_grads @ w.w_hy
    grads, complete, cells, inputs = backward(model, passed, hidden_grads, truncation=truncation)
    return RecurrentFlow(
        framework="NumPy",
        dtype="float64",
        cell=w.cell,
        loss=value,
        parameter_grads=grads | readout_grads,
        hidden_grads=complete,
        cell_grads=cells,
        input_grads=inputs,
        hidden_states=states,
        cell_states=passed.cell_states,
    )


def check_last_grad(grad_last: object, *, batch: int, hidden: int) -> np.ndarray:
    r"""Return $\partial\mathcal{L}/\partial h_T$, (batch, n); that of the mean of $h_T$ if None."""
    if grad_last is None:
        return np.full((batch, hidden), 1.0 / (batch * hidden))
    grad = require_array("grad_last", grad_last, shape=(batch, hidden))
    if not grad.any():
        raise ValueError("`grad_last` (all zeros) must have a nonzero entry.")
    return grad


def bptt_profile(
    model: RecurrentNetwork, x: np.ndarray, *, grad_last: np.ndarray | None = None
) -> BPTTProfile:
    r"""Return $\log_{10}\|\partial\mathcal{L}/\partial h_t\|$ for a loss at the last step.

    The backward recursion, with the gradient divided by its largest entry at every step and the
    logarithm of that kept beside it: a norm of 1e-400 is as good a number as any.

    Arguments:
        model: what `build_recurrent` returned.
        x: inputs, shape (batch, T, n_in).
        grad_last: $\partial\mathcal{L}/\partial h_T$, shape (batch, n); that of the mean of
            all entries of $h_T$ if None.
    """
    w, cell = check_model(model).weights, CELLS[model.weights.cell]
    passed = model.forward(x)
    grad = check_last_grad(grad_last, batch=len(passed.inputs), hidden=w.hidden)
    cell_grad, log_scale = np.zeros_like(grad), 0.0
    hidden_logs, cell_logs = [], []
    with np.errstate(divide="ignore"):
        for done in reversed(passed.steps):
            size = max(np.abs(grad).max(), np.abs(cell_grad).max())
            if size > 0:
                grad, cell_grad = grad / size, cell_grad / size
                log_scale += np.log10(size)
            back = cell.step_backward(done, grad, cell_grad)
            hidden_logs.append(np.log10(np.linalg.norm(grad)) + log_scale)
            grad = back.u @ w.w_hh + back.hidden
            if w.cell == "lstm":
                cell_logs.append(np.log10(np.linalg.norm(back.total_cell)) + log_scale)
                cell_grad = back.cell
    cells = np.array(cell_logs[::-1]) if cell_logs else None
    return BPTTProfile(
        "NumPy", "float64", w.cell, "recursion", np.array(hidden_logs[::-1]), cells
    )


def state_jacobians(model: RecurrentNetwork, x: np.ndarray) -> StateJacobians:
    """Return the cell's Jacobian at every step of one sequence x of shape (T, n_in)."""
    w, cell = check_model(model).weights, CELLS[model.weights.cell]
    x = require_array("x", x, shape=(None, w.n_in))
    steps = model.forward(x[None]).steps
    readback = None
    if w.cell == "lstm":
        readback = np.stack([(s.o * lstm.TANH.derivative(s.cell))[0] for s in steps])
    return StateJacobians(
        framework="NumPy",
        cell=w.cell,
        jacobians=np.stack([cell.state_jacobian(done, w.w_hh) for done in steps]),
        direct=np.stack([cell.direct_path(done) for done in steps]),
        readback=readback,
    )


def connectivity(
    model: RecurrentNetwork,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "mean_output",
    wrt: str = "input",
) -> Connectivity:
    r"""Return $\|\partial\mathcal{L}_t/\partial x_s\|$ (or by $h_s$) for every t and s.

    Arguments:
        model, x: as for `recurrent_gradient_flow`.
        y: targets of every step, shape (batch, T) or (batch, T, n_out); None for mean_output.
        loss: the loss $\mathcal{L}_t$ of each step.
        wrt: "input" or "hidden".
    """
    require_choice("wrt", wrt, ("input", "hidden"))
    check_model(model)
    x, y = check_sequences(
        x, y, loss=loss, over="sum", n_in=model.weights.n_in, n_out=model.n_out
    )
    steps = x.shape[1]
    norms = np.zeros((steps, steps))
    for t in range(1, steps + 1):
        y_t = None if y is None else y[:, t - 1]
        flow = recurrent_gradient_flow(model, x[:, :t], y_t, loss=loss)
        grads = flow.input_grads if wrt == "input" else flow.hidden_grads
        norms[t - 1, :t] = np.linalg.norm(grads, axis=(0, 2))
    return Connectivity("NumPy", "float64", model.weights.cell, loss, wrt, norms)
