"""The gradient's norm over time, for the recurrent layers inside any PyTorch model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack

import torch
from torch import nn
from torch.nn.utils.rnn import PackedSequence

from course_lib.pytorch.bptt import bptt_profile
from course_lib.pytorch.compiled import written_name
from course_lib.pytorch.gates import longest_sequences
from course_lib.recurrent_results import BPTTProfile


def recurrent_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Return the fused recurrent modules and the cells of a model, by name."""
    return {
        written_name(name) or type(module).__name__: module
        for name, module in model.named_modules()
        if isinstance(module, (nn.RNNBase, nn.RNNCellBase))
    }


def profile_recurrent_layers(
    model: nn.Module, run: Callable[[], object], *, strict: bool
) -> dict[str, BPTTProfile]:
    """Return the profile over time of each recurrent module that `run()` calls, by name.

    Projections have none, nor have inputs or states that are not finite: ValueError if `strict`,
    else they are left out. So is a cell that is not called again and again on its own state.
    """
    modules = recurrent_modules(model)
    caught: dict[str, list] = {name: [] for name in modules}
    with ExitStack() as hooks, torch.no_grad():
        for name, module in modules.items():
            hook = module.register_forward_hook(_keep(caught[name]), with_kwargs=True)
            hooks.callback(hook.remove)
        run()
    profiles = {}
    for name, calls in caught.items():
        module, profile = modules[name], _profile_cell
        if isinstance(module, nn.RNNBase):
            profile = _profile_fused
        try:
            profiles |= profile(name, module, calls)
        except ValueError:
            if strict:
                raise
    return profiles


def _keep(calls: list) -> Callable:
    """Return a hook that notes what a module was given, (x, state), and what it returned."""

    def hook(module: nn.Module, args: tuple, kwargs: dict, output: object) -> None:
        x, state, *_ = *args, *(kwargs.get(k) for k in ("input", "hx")[len(args) :]), None
        # Of a fused module the first call counts; what it returns is not needed.
        if isinstance(module, nn.RNNCellBase) or not calls:
            calls.append((x, state, output))

    return hook


def _profile_fused(name: str, module: nn.RNNBase, calls: list) -> dict[str, BPTTProfile]:
    """Return the profiles of each layer and direction of a fused module, or none if not called."""
    if not calls:
        return {}
    if getattr(module, "proj_size", 0):
        raise ValueError(f"`model` has an LSTM with `proj_size` ({name}): no closed recursion.")
    x = calls[0][0]
    if isinstance(x, PackedSequence):
        x = longest_sequences(x)
    else:
        x = x.unsqueeze(0 if module.batch_first else 1) if x.ndim == 2 else x
        x = x if module.batch_first else x.transpose(0, 1)
    return {
        name + suffix: bptt_profile(layer, _readable(h))
        for suffix, layer, h in _single_layers(module, x)
    }


def _profile_cell(name: str, cell: nn.RNNCellBase, calls: list) -> dict[str, BPTTProfile]:
    """Return the profile of a cell that was called on its own state, step by step, or none."""
    if len(calls) < 2:
        return {}
    states = [_hidden(given) for _, given, _ in calls[1:]]
    outputs = [_hidden(output) for _, _, output in calls[:-1]]
    chained = all(
        isinstance(state, torch.Tensor) and torch.equal(state, output)
        for state, output in zip(states, outputs, strict=True)
    )
    if not chained:
        return {}
    steps = [x if x.ndim == 2 else x.unsqueeze(0) for x, _, _ in calls]
    return {name: bptt_profile(cell, _readable(torch.stack(steps, dim=1)))}


def _readable(x: torch.Tensor) -> torch.Tensor:
    """Return x in a precision that NumPy has too."""
    return x.detach().float() if x.dtype is torch.bfloat16 else x.detach()


def _hidden(state: object) -> object:
    """Return $h_t$ of a cell's state, which is (h, C) in an LSTM."""
    return state[0] if isinstance(state, tuple | list) else state


@torch.no_grad()
def _single_layers(
    module: nn.RNNBase, x: torch.Tensor
) -> Iterator[tuple[str, nn.RNNBase, torch.Tensor]]:
    """Yield (suffix, one-layer copy, its inputs (batch, T, n)) for each layer and direction."""
    suffixes = ["", "_reverse"] if module.bidirectional else [""]
    several = module.num_layers * len(suffixes) > 1
    options = {"nonlinearity": module.nonlinearity} if isinstance(module, nn.RNN) else {}
    # Without storage, so that the copy draws no weights of its own from the reader's generators.
    options |= {"device": "meta", "dtype": x.dtype}
    for k in range(module.num_layers):
        outputs = []
        for direction in suffixes:
            layer = type(module)(
                x.shape[2], module.hidden_size, bias=module.bias, batch_first=True, **options
            ).to_empty(device=x.device)
            for name, parameter in layer.named_parameters():
                parameter.copy_(getattr(module, f"{name.removesuffix('_l0')}_l{k}{direction}"))
            given = x.flip(1) if direction else x
            yield (f"_l{k}{direction}" if several else ""), layer, given
            h = layer(given)[0]
            outputs.append(h.flip(1) if direction else h)
        x = torch.cat(outputs, dim=2)
