"""The gates inside fused `nn.RNN`, `nn.LSTM` and `nn.GRU`, computed again on a sample."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from course_lib.gates import SEQUENCES, STEPS, gate_kind, gate_limits
from course_lib.monitoring import Site
from course_lib.pytorch.recurrent import cell_name
from course_lib.recurrent_specs import GATES

_RUN = {"tanh_rnn": "rnn_tanh", "relu_rnn": "rnn_relu", "lstm": "lstm", "gru": "gru"}


@torch.no_grad()
def measure_gates(
    module: nn.RNNBase,
    inputs: tuple,
    *,
    share: float,
    new_site: Callable[[str, str, str], Site | None],
    name: str,
) -> None:
    """Count, for every layer and direction, how often each gate of a module is stuck.

    Arguments:
        module: a fused recurrent module.
        inputs: what it was called with: padded or packed sequences, and initial states or none.
        share: the share of the largest slope below which a gate counts as stuck.
        new_site: (name, kind, activation) -> a site to fill, or None.
        name: the module's.
    """
    cell = cell_name(module)
    with torch.autocast(module.weight_hh_l0.device.type, enabled=False):
        for suffix, steps, values in _gates(module, cell, *_sample(module, *inputs)):
            for gate in GATES[cell]:
                kind = gate_kind(cell, gate)
                site = new_site(f"{name}{suffix} ({gate})", kind, kind)
                if site is None:
                    continue
                z = values[gate].flatten(0, 1)
                low, high = gate_limits(cell, gate, share=share, steps=steps)
                site.size, site.rows = z.numel(), len(z)
                site.flat = ((z < low) | (z > high)).sum(0)
                if kind == "relu":
                    site.active, site.flat = (z > 0).sum(0), None


def _sample(
    module: nn.RNNBase, x: torch.Tensor | PackedSequence, state: object = None
) -> tuple[torch.Tensor, list[torch.Tensor] | None, int]:
    """Return a few sequences (n, t, n_in), their initial states, and how long sequences are."""
    states = None if state is None else [state] if isinstance(state, torch.Tensor) else list(state)
    order = None
    if isinstance(x, PackedSequence):  # the longest come first
        order, length = x.sorted_indices, len(x.batch_sizes)
        x = longest_sequences(x, steps=STEPS)[:SEQUENCES]
    else:
        if x.ndim == 2:
            x = x.unsqueeze(0 if module.batch_first else 1)
            states = None if states is None else [s.unsqueeze(1) for s in states]
        x = x if module.batch_first else x.transpose(0, 1)
        length = x.shape[1]
        x = x[:SEQUENCES, :STEPS]
    if states is not None and order is not None:
        states = [s.index_select(1, order) for s in states]
    dtype = module.weight_hh_l0.dtype
    states = None if states is None else [s[:, : len(x)].to(dtype).contiguous() for s in states]
    return x.to(dtype), states, length


def longest_sequences(x: PackedSequence, *, steps: int | None = None) -> torch.Tensor:
    """Return the packed sequences that go on for `steps`, or None: to the end, (n, t, n_in)."""
    rows = x.data.split(x.batch_sizes.tolist())[:steps]
    return torch.stack([step[: len(rows[-1])] for step in rows], dim=1)


def _gates(
    module: nn.RNNBase, cell: str, x: torch.Tensor, states: list | None, steps: int
) -> Iterator[tuple[str, int, dict[str, torch.Tensor]]]:
    """Yield (suffix, T, preactivations by gate) of each layer and direction."""
    suffixes = ["", "_reverse"] if module.bidirectional else [""]
    run = getattr(torch._VF, _RUN[cell])
    several = module.num_layers * len(suffixes) > 1
    sizes = [getattr(module, "proj_size", 0) or module.hidden_size]
    sizes += [module.hidden_size] if cell == "lstm" else []
    for k in range(module.num_layers):
        outputs = []
        for d, direction in enumerate(suffixes):
            place = k * len(suffixes) + d
            weights = module.all_weights[place]
            given = (x.flip(1) if direction else x).contiguous()
            start = [
                given.new_zeros(1, len(x), size) if states is None else states[j][place, None]
                for j, size in enumerate(sizes)
            ]
            hidden = run(given, start if cell == "lstm" else start[0], weights, module.bias, 1,
                         0.0, False, False, True)[0]  # fmt: skip
            previous = torch.cat([start[0].transpose(0, 1), hidden[:, :-1]], dim=1)
            biases = weights[2:4] if module.bias else (None, None)
            a = F.linear(given, weights[0], biases[0])
            u = F.linear(previous, weights[1], biases[1])
            yield (f"_l{k}{direction}" if several else ""), steps, preactivations(cell, a, u)
            outputs.append(hidden.flip(1) if direction else hidden)
        x = torch.cat(outputs, dim=2)


def preactivations(cell: str, a: torch.Tensor, u: torch.Tensor) -> dict[str, torch.Tensor]:
    """Return each gate's preactivation, from the parts of the input and of the state."""
    if cell == "gru":
        (a_r, a_z, a_n), (u_r, u_z, u_n) = a.chunk(3, -1), u.chunk(3, -1)
        return {"r": a_r + u_r, "z": a_z + u_z, "n": a_n + torch.sigmoid(a_r + u_r) * u_n}
    return dict(zip(GATES[cell], (a + u).chunk(len(GATES[cell]), -1), strict=True))
