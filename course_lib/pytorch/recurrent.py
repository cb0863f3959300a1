"""Recurrent networks in PyTorch: `nn.RNN`, `nn.LSTM` and `nn.GRU` with every gradient over time.

All functions take a `RecurrentNetwork` built here, or a native module of one layer and one
direction. Inputs are batch-first NumPy arrays, whatever the module's `batch_first`.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_lib._validation import require_array, require_choice
from course_lib.pytorch.models import DTYPES, compute_loss, default_device
from course_lib.recurrent_results import Connectivity, RecurrentFlow, StateJacobians
from course_lib.recurrent_specs import RecurrentSpec, RecurrentWeights, check_recurrent_weights
from course_lib.sequence_losses import check_sequences, check_truncation, cut_points

MODULES = {"tanh_rnn": nn.RNN, "relu_rnn": nn.RNN, "lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentNetwork(nn.Module):
    """A recurrent module and a readout applied at every step: (batch, T, n_in) to n_out.

    Arguments:
        recurrent: an nn.RNN, nn.LSTM or nn.GRU with batch_first=True.
        readout: an nn.Linear, or None for the hidden states themselves.
    """

    def __init__(self, recurrent: nn.RNNBase, readout: nn.Linear | None = None) -> None:
        super().__init__()
        if not isinstance(recurrent, nn.RNNBase) or not recurrent.batch_first:
            raise ValueError(
                f"`recurrent` (={recurrent!r}) must be an nn.RNN, nn.LSTM or nn.GRU with "
                f"batch_first=True."
            )
        if readout is not None and not isinstance(readout, nn.Linear):
            raise TypeError(f"`readout` (={readout!r}) must be an nn.Linear or None.")
        self.recurrent = recurrent
        self.readout = nn.Identity() if readout is None else readout

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs at every step, shape (batch, T, n_out)."""
        hidden_states, _ = self.recurrent(x)
        return self.readout(hidden_states)


def build_recurrent(
    spec: RecurrentSpec, weights: RecurrentWeights, *, dtype: str = "float32"
) -> RecurrentNetwork:
    """Return the network `spec` with a copy of `weights`, on PyTorch's default device.

    Arguments:
        spec: the network as data.
        weights: of the spec's cell and sizes; from `course_lib.draw_recurrent_weights`.
        dtype: "float32" or "float64".
    """
    check_recurrent_weights(spec, weights)
    require_choice("dtype", dtype, DTYPES)
    # Made without storage: modules would draw weights of their own from the global generator.
    place = {"dtype": DTYPES[dtype], "device": "meta"}
    extra = {"nonlinearity": spec.cell.removesuffix("_rnn")} if "rnn" in spec.cell else {}
    recurrent = MODULES[spec.cell](spec.n_in, spec.hidden, batch_first=True, **extra, **place)
    recurrent = recurrent.to_empty(device=default_device())
    readout = None
    if spec.n_out is not None:
        readout = nn.Linear(spec.hidden, spec.n_out, **place)
        readout = readout.to_empty(device=default_device())
    with torch.no_grad():
        for name, parameter in parameters_by_name(recurrent).items():
            parameter.copy_(torch.tensor(getattr(weights, name), device="cpu"))
        if readout is not None:
            readout.weight.copy_(torch.tensor(weights.w_hy, device="cpu"))
            readout.bias.copy_(torch.tensor(weights.b_y, device="cpu"))
    return RecurrentNetwork(recurrent, readout)


def cell_name(module: nn.Module) -> str:
    """Return the course's name of a recurrent module's cell; raise TypeError for another module."""
    if isinstance(module, (nn.LSTM, nn.LSTMCell)):
        return "lstm"
    if isinstance(module, (nn.GRU, nn.GRUCell)):
        return "gru"
    if isinstance(module, (nn.RNN, nn.RNNCell)):
        return f"{module.nonlinearity}_rnn"
    raise TypeError(
        f"`model` (a {type(module).__name__}) must be a RecurrentNetwork or one of nn.RNN, "
        f"nn.LSTM, nn.GRU and their cells."
    )


def read_recurrent(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    """Return the recurrent module and the readout; raise for what the course does not cover."""
    recurrent, readout = model, nn.Identity()
    if isinstance(model, RecurrentNetwork):
        recurrent, readout = model.recurrent, model.readout
    cell_name(recurrent)
    for name, want in (("num_layers", 1), ("bidirectional", False), ("proj_size", 0)):
        have = getattr(recurrent, name, want)
        if have != want:
            raise ValueError(f"`model` ({name} = {have}) must have {name} = {want}.")
    return recurrent, readout


def parameters_by_name(recurrent: nn.Module) -> dict[str, torch.Tensor]:
    """Return the recurrent parameters by the names of `RecurrentWeights`, as far as they exist."""
    suffix = "" if isinstance(recurrent, nn.RNNCellBase) else "_l0"
    names = {"w_xh": "weight_ih", "w_hh": "weight_hh", "b_xh": "bias_ih", "b_hh": "bias_hh"}
    found = {ours: getattr(recurrent, theirs + suffix, None) for ours, theirs in names.items()}
    return {name: tensor for name, tensor in found.items() if tensor is not None}


def recurrent_weights(model: nn.Module) -> RecurrentWeights:
    """Return a copy of the weights of `model` in the course's layout, in float64.

    Arguments:
        model: a `RecurrentNetwork`, or your own nn.RNN, nn.LSTM, nn.GRU (one layer, one
            direction) or one of their cells.
    """
    recurrent, readout = read_recurrent(model)
    arrays = parameters_by_name(recurrent)
    if isinstance(readout, nn.Linear):
        arrays["w_hy"] = readout.weight
        if readout.bias is not None:
            arrays["b_y"] = readout.bias
    return RecurrentWeights(
        cell_name(recurrent), **{k: v.detach().cpu().double().numpy() for k, v in arrays.items()}
    )


def as_tensor(recurrent: nn.Module, value: np.ndarray) -> torch.Tensor:
    """Return real numbers in the module's dtype, and integer labels as they are, beside it."""
    weight = parameters_by_name(recurrent)["w_hh"]
    dtype = torch.int64 if np.issubdtype(value.dtype, np.integer) else weight.dtype
    return torch.tensor(value, dtype=dtype, device=weight.device)


def as_array(x: object) -> object:
    """Return a tensor as a NumPy array, and anything else as it is."""
    return x.detach().cpu().numpy() if isinstance(x, torch.Tensor) else x


def output_size(model: nn.Module) -> int:
    """Return the number of outputs per step."""
    recurrent, readout = read_recurrent(model)
    return readout.out_features if isinstance(readout, nn.Linear) else recurrent.hidden_size


def lstm_step(
    recurrent: nn.Module, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    r"""Do one LSTM step from $(h_{t-1}, C_{t-1})$, each (1, batch, n), by its equations.

    The $C_t$ that a native module returns is a copy beside the graph: its gradient would leave
    out what reaches $C_t$ through $h_t = o \odot \tanh C_t$.
    """
    w = parameters_by_name(recurrent)
    z = F.linear(x, w["w_xh"], w.get("b_xh")) + F.linear(state[0], w["w_hh"], w.get("b_hh"))
    i, f, g, o = z.chunk(4, dim=-1)
    cell = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return torch.sigmoid(o) * torch.tanh(cell), cell


def unroll(
    recurrent: nn.RNNBase, x: torch.Tensor, cuts: list[int]
) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
    """Run one step at a time, so that every state is a node of the graph.

    Returns $h_t$ and $C_t$ (empty without C) for t = 1..T, each of shape (1, batch, n). After
    the steps in `cuts`, the state is handed on detached.
    """
    hidden_states, cell_states = [], []
    state = x.new_zeros(1, len(x), recurrent.hidden_size)
    if isinstance(recurrent, nn.LSTM):
        state = (state, state)
    for t in range(1, x.shape[1] + 1):
        if isinstance(recurrent, nn.LSTM):
            state = lstm_step(recurrent, x[:, t - 1], state)
            hidden_states.append(state[0])
            cell_states.append(state[1])
            state = tuple(s.detach() for s in state) if t in cuts else state
        else:
            _, state = recurrent(x[:, t - 1].unsqueeze(1 if recurrent.batch_first else 0), state)
            hidden_states.append(state)
            state = state.detach() if t in cuts else state
    return hidden_states, cell_states


def sequence_loss(
    outputs: torch.Tensor, y: torch.Tensor | None, *, loss: str, over: str
) -> torch.Tensor:
    """Return a loss of `course_lib.sequence_losses` for outputs of shape (batch, T, n_out)."""
    if over == "last":
        return compute_loss(outputs[:, -1], y, loss=loss)
    value = compute_loss(outputs.flatten(0, 1), None if y is None else y.flatten(0, 1), loss=loss)
    return outputs.shape[1] * value if over == "sum" else value


def _require_module(recurrent: nn.Module) -> None:
    """Raise for a single cell, and for a module with a frozen parameter."""
    if not all(parameter.requires_grad for parameter in recurrent.parameters()):
        raise ValueError("`model` (frozen) must have requires_grad for every parameter.")
    if isinstance(recurrent, nn.RNNCellBase):
        raise TypeError(
            f"`model` (a {type(recurrent).__name__}) must be a RecurrentNetwork, nn.RNN, nn.LSTM "
            f"or nn.GRU here, not a single cell."
        )


@torch.enable_grad()
def recurrent_gradient_flow(
    model: nn.Module,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "mean_output",
    over: str = "last",
    truncation: int | None = None,
) -> RecurrentFlow:
    """Return every gradient of one backward pass: one call of autograd for all states.

    The arguments are those of `course_lib.reference.recurrent_gradient_flow`.
    """
    recurrent, readout = read_recurrent(model)
    _require_module(recurrent)
    x, y = check_sequences(
        as_array(x), as_array(y), loss=loss, over=over, n_in=recurrent.input_size,
        n_out=output_size(model),
    )  # fmt: skip
    truncation = check_truncation(truncation)
    inputs = as_tensor(recurrent, x).requires_grad_(True)
    hidden, cells = unroll(recurrent, inputs, cut_points(x.shape[1], truncation))
    outputs = readout(torch.cat(hidden).transpose(0, 1))
    value = sequence_loss(
        outputs, None if y is None else as_tensor(recurrent, y), loss=loss, over=over
    )
    parameters = parameters_by_name(recurrent)
    if isinstance(readout, nn.Linear):
        parameters |= {"w_hy": readout.weight, "b_y": readout.bias}
        parameters = {name: tensor for name, tensor in parameters.items() if tensor is not None}
    grads = torch.autograd.grad(
        value, [inputs, *parameters.values(), *hidden, *cells], materialize_grads=True
    )
    first = 1 + len(parameters)
    over_time = [_over_time(part) for part in (grads[first:][: len(hidden)], hidden)]
    cells_over_time = [_over_time(p) for p in (grads[first + len(hidden) :], cells)]
    return RecurrentFlow(
        framework="PyTorch",
        dtype=str(inputs.dtype).removeprefix("torch."),
        cell=cell_name(recurrent),
        loss=value.item(),
        parameter_grads={
            name: as_array(grad) for name, grad in zip(parameters, grads[1:first], strict=True)
        },
        hidden_grads=over_time[0],
        cell_grads=cells_over_time[0],
        input_grads=as_array(grads[0]),
        hidden_states=over_time[1],
        cell_states=cells_over_time[1],
    )


def _over_time(tensors: list[torch.Tensor]) -> np.ndarray | None:
    """Return (1, batch, n) tensors for every t as one (batch, T, n) array; None for none."""
    return as_array(torch.cat(list(tensors)).transpose(0, 1)) if len(tensors) else None


@torch.enable_grad()
def state_jacobians(model: nn.Module, x: np.ndarray) -> StateJacobians:
    """Return the Jacobian of every step along one sequence x of shape (T, n_in), by autograd.

    All steps are put into one batch, each from its own state; the gradient of the sum of output j
    over the batch is then row j of every step's Jacobian.

    Arguments:
        model: a `RecurrentNetwork`, or your own nn.RNN, nn.LSTM or nn.GRU (one layer, one
            direction).
        x: one sequence, shape (T, n_in).
    """
    recurrent, _ = read_recurrent(model)
    _require_module(recurrent)
    x = require_array("x", as_array(x), shape=(None, recurrent.input_size))
    inputs = as_tensor(recurrent, x)
    with torch.no_grad():
        states = unroll(recurrent, inputs[None], [])
    starts = [
        torch.cat([torch.zeros_like(part[0]), *part[:-1]], dim=1).requires_grad_(True)
        for part in states
        if part
    ]
    is_lstm = isinstance(recurrent, nn.LSTM)
    one_step = inputs.unsqueeze(1 if recurrent.batch_first else 0)
    _, ends = recurrent(one_step, tuple(starts) if is_lstm else starts[0])
    ends = torch.cat(ends if is_lstm else [ends], dim=2)[0]
    rows = [
        torch.cat(torch.autograd.grad(column.sum(), starts, retain_graph=True), dim=2)[0]
        for column in ends.unbind(dim=1)
    ]
    jacobians = as_array(torch.stack(rows, dim=1))
    from course_lib.pytorch.bptt import direct_and_readback

    direct, readback = direct_and_readback(recurrent, inputs)
    return StateJacobians("PyTorch", cell_name(recurrent), jacobians, direct, readback)


@torch.enable_grad()
def connectivity(
    model: nn.Module,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "mean_output",
    wrt: str = "input",
) -> Connectivity:
    """Return the norm of the gradient of every step's loss with respect to every position.

    The arguments are those of `course_lib.reference.connectivity`. One forward pass, and one
    backward pass for each step.
    """
    require_choice("wrt", wrt, ("input", "hidden"))
    recurrent, readout = read_recurrent(model)
    _require_module(recurrent)
    x, y = check_sequences(
        as_array(x), as_array(y), loss=loss, over="sum", n_in=recurrent.input_size,
        n_out=output_size(model),
    )  # fmt: skip
    steps = x.shape[1]
    inputs = as_tensor(recurrent, x).requires_grad_(True)
    hidden, _ = unroll(recurrent, inputs, [])
    norms = np.zeros((steps, steps))
    for t in range(1, steps + 1):
        y_t = None if y is None else as_tensor(recurrent, y[:, t - 1])
        value = compute_loss(readout(hidden[t - 1][0]), y_t, loss=loss)
        sources = [inputs] if wrt == "input" else hidden[:t]
        grads = torch.autograd.grad(value, sources, retain_graph=t < steps)
        over_time = as_array(grads[0]) if wrt == "input" else _over_time(grads)
        norms[t - 1, :t] = np.linalg.norm(over_time.astype(np.float64), axis=(0, 2))[:t]
    return Connectivity(
        "PyTorch", str(inputs.dtype).removeprefix("torch."), cell_name(recurrent), loss, wrt, norms
    )
