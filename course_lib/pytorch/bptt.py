r"""The gradient's norm over time in PyTorch: with a hook per step, and with the closed recursion.

The recursion needs no graph: the native module runs the sequence once, every preactivation
follows from its states by one matrix product, the slopes of all steps are computed at once, and
what remains is the linear loop of `course_lib.bptt_recursion`, in float64.
"""

from __future__ import annotations

from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_lib._validation import require_array
from course_lib.bptt_recursion import (
    Coefficients,
    accumulate_cells,
    backpropagate,
    log10_norms,
)
from course_lib.pytorch.recurrent import (
    as_array,
    as_tensor,
    cell_name,
    parameters_by_name,
    read_recurrent,
)
from course_lib.recurrent_results import BPTTProfile
from course_lib.reference.recurrent import check_last_grad


def _logistic_slope(z: torch.Tensor) -> torch.Tensor:
    """Return s(z)(1 - s(z)) in float64 without cancellation, however large |z|."""
    tail = torch.sigmoid(-z.double().abs())  # at most 1/2, so that 1 - tail loses nothing
    return tail * (1.0 - tail)


def _tanh_slope(z: torch.Tensor) -> torch.Tensor:
    """Return 1 - tanh(z)^2 in float64; from tanh itself it would be 0 for |z| above 19."""
    return 4.0 * _logistic_slope(2.0 * z)


def _split_gates(z: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return each gate's (T, batch, n) of z (T, batch, G, n), contiguous for the sake of speed."""
    return z.movedim(2, 0).contiguous().unbind()


def _rnn_coefficients(a: torch.Tensor, u: torch.Tensor, kind: str) -> Coefficients:
    z = a + u
    return Coefficients(_tanh_slope(z) if kind == "tanh_rnn" else (z > 0).double())


def _lstm_coefficients(a: torch.Tensor, u: torch.Tensor) -> Coefficients:
    z_i, z_f, z_g, z_o = _split_gates(a + u)
    i, f, g, o = torch.sigmoid(z_i), torch.sigmoid(z_f), torch.tanh(z_g), torch.sigmoid(z_o)
    f, written, cells = f.double(), (i * g).double(), torch.empty_like(f, dtype=torch.float64)
    if cells.is_cpu:
        accumulate_cells(f.numpy(), written.numpy(), cells.numpy(), multiply=np.multiply)
    else:
        accumulate_cells(f, written, cells, multiply=torch.mul)
    previous = torch.cat([torch.zeros_like(cells[:1]), cells[:-1]])
    gates = [
        g * _logistic_slope(z_i),
        previous * _logistic_slope(z_f),
        i * _tanh_slope(z_g),
        torch.tanh(cells) * _logistic_slope(z_o),
    ]
    return Coefficients(torch.stack(gates, dim=2), f, o * _tanh_slope(cells))


def _gru_coefficients(a: torch.Tensor, u: torch.Tensor, previous: torch.Tensor) -> Coefficients:
    a_r, a_z, a_n = _split_gates(a)
    u_r, u_z, u_n = _split_gates(u)
    r, z = torch.sigmoid(a_r + u_r), torch.sigmoid(a_z + u_z)
    candidate = a_n + r * u_n
    n_delta = (1.0 - z) * _tanh_slope(candidate)
    gates = [
        n_delta * u_n * _logistic_slope(a_r + u_r),
        (previous - torch.tanh(candidate)) * _logistic_slope(a_z + u_z),
        n_delta * r,
    ]
    return Coefficients(torch.stack(gates, dim=2), z.double())


def _run(recurrent: nn.Module, x: torch.Tensor) -> torch.Tensor:
    """Return $h_t$ for x of shape (T, batch, n_in), time first, as the module computes it."""
    if isinstance(recurrent, nn.RNNCellBase):
        state, states = None, []
        for x_t in x:
            state = recurrent(x_t, state)
            states.append(state[0] if isinstance(recurrent, nn.LSTMCell) else state)
        return torch.stack(states)
    if recurrent.batch_first:
        return recurrent(x.transpose(0, 1))[0].transpose(0, 1)
    return recurrent(x)[0]


def _coefficients(recurrent: nn.Module, x: torch.Tensor) -> Coefficients:
    """Return the coefficients along x, shape (T, batch, n_in)."""
    hidden = _run(recurrent, x)
    if not torch.isfinite(hidden).all():
        step = int(torch.argmin(torch.isfinite(hidden).all(dim=2).all(dim=1).int())) + 1
        raise ValueError(f"`x` must keep the states finite; at step {step} h_t is not.")
    w = parameters_by_name(recurrent)
    previous = torch.cat([torch.zeros_like(hidden[:1]), hidden[:-1]])
    shape = (*hidden.shape[:2], -1, hidden.shape[2])
    a = F.linear(x, w["w_xh"], w.get("b_xh")).view(shape)
    u = F.linear(previous, w["w_hh"], w.get("b_hh")).view(shape)
    kind = cell_name(recurrent)
    if kind == "lstm":
        return _lstm_coefficients(a, u)
    if kind == "gru":
        return _gru_coefficients(a, u, previous)
    return _rnn_coefficients(a, u, kind)


def _recur(
    k: Coefficients, w_hh: torch.Tensor, grad_last: torch.Tensor
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return log10 of the gradients' norms at h_t and at C_t (None without C), shape (T,)."""
    steps, batch, _, n = k.gates.shape
    hidden = grad_last.new_empty(steps, batch, n)
    hidden[-1] = grad_last
    cells = torch.empty_like(hidden) if k.readback is not None else None
    tensors = (*k, w_hh, hidden, cells)
    if hidden.is_cpu:  # the same memory, seen by NumPy, whose small calls are faster
        arrays = [None if part is None else part.numpy() for part in tensors]
        scale = backpropagate(Coefficients(*arrays[:3]), *arrays[3:])
    else:
        scale = backpropagate(k, *tensors[3:], multiply=torch.mul, matmul=torch.mm)
    cell_logs = None if cells is None else log10_norms(as_array(cells), scale)
    return log10_norms(as_array(hidden), scale), cell_logs


def bptt_profile(
    model: nn.Module, x: np.ndarray, *, grad_last: np.ndarray | None = None
) -> BPTTProfile:
    r"""Return $\log_{10}\|\partial\mathcal{L}/\partial h_t\|$ for a loss at the last step.

    Arguments:
        model: a `RecurrentNetwork`, or your own nn.RNN, nn.LSTM, nn.GRU (one layer, one
            direction) or one of their cells.
        x: inputs, shape (batch, T, n_in), on any device.
        grad_last: $\partial\mathcal{L}/\partial h_T$, shape (batch, n); that of the mean of
            all entries of $h_T$ if None.

    The states are the module's, in its precision, on its device; the way back is float64. Where
    the dynamics are chaotic, float32 and float64 states part within some tens of steps, and
    profiles at the two precisions then agree in their slope only.
    """
    recurrent, _ = read_recurrent(model)
    x = require_array("x", as_array(x), shape=(None, None, recurrent.input_size))
    grad = check_last_grad(grad_last, batch=len(x), hidden=recurrent.hidden_size)
    with torch.inference_mode():
        inputs = as_tensor(recurrent, x).transpose(0, 1)
        k = _coefficients(recurrent, inputs)
        last = torch.tensor(grad, device=inputs.device)
        w_hh = parameters_by_name(recurrent)["w_hh"].detach().double()
        logs = _recur(k, w_hh, last)
    return BPTTProfile(
        "PyTorch", str(inputs.dtype).removeprefix("torch."), cell_name(recurrent), "recursion",
        *logs, recurrent_gain=w_hh.square().sum(1).mean().sqrt().item(),
    )  # fmt: skip


def direct_and_readback(
    recurrent: nn.Module, x: torch.Tensor
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return `StateJacobians.direct` and `.readback` for one sequence x of shape (T, n_in)."""
    with torch.no_grad():
        k = _coefficients(recurrent, x.unsqueeze(1))
    direct = np.zeros(k.gates.shape[::3]) if k.direct is None else as_array(k.direct[:, 0])
    return direct, None if k.readback is None else as_array(k.readback[:, 0])


CELL_MODULES = {
    "tanh_rnn": partial(nn.RNNCell, nonlinearity="tanh"),
    "relu_rnn": partial(nn.RNNCell, nonlinearity="relu"),
    "lstm": nn.LSTMCell,
    "gru": nn.GRUCell,
}


@torch.enable_grad()
def hook_profile(
    model: nn.Module, x: np.ndarray, *, grad_last: np.ndarray | None = None
) -> BPTTProfile:
    """Return the same profile as people write it: a cell, a loop, and a hook on every state.

    The arguments are those of `bptt_profile`. Norms are taken in the model's precision, so they
    underflow to exactly zero (and their logarithm to -inf) where `bptt_profile` goes on.
    """
    recurrent, _ = read_recurrent(model)
    x = require_array("x", as_array(x), shape=(None, None, recurrent.input_size))
    grad = check_last_grad(grad_last, batch=len(x), hidden=recurrent.hidden_size)
    kind, inputs, grad = cell_name(recurrent), as_tensor(recurrent, x), as_tensor(recurrent, grad)
    cell = _copy_as_cell(recurrent)
    norms: list[float] = []
    state = None
    for x_t in inputs.unbind(dim=1):
        state = cell(x_t, state)
        hidden = state[0] if kind == "lstm" else state
        hidden.register_hook(lambda g: norms.append(g.norm().item()))
    hidden.backward(grad)
    with np.errstate(divide="ignore"):
        logs = np.log10(norms[::-1])
    dtype = str(inputs.dtype).removeprefix("torch.")
    return BPTTProfile("PyTorch", dtype, kind, "hooks", logs)


def _copy_as_cell(recurrent: nn.Module) -> nn.RNNCellBase:
    """Return a cell with a copy of the module's weights: its .grad stays untouched."""
    parameters = parameters_by_name(recurrent)
    w_hh, has_bias = parameters["w_hh"], "b_xh" in parameters
    # Without storage: a cell that draws weights of its own would move the reader's generators.
    cell = CELL_MODULES[cell_name(recurrent)](
        recurrent.input_size, recurrent.hidden_size, has_bias, device="meta", dtype=w_hh.dtype
    ).to_empty(device=w_hh.device)
    with torch.no_grad():
        for name, tensor in parameters_by_name(cell).items():
            tensor.copy_(parameters[name])
    return cell
