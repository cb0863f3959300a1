"""What one step does to the parameters: their gradients, their norms, and how far they move."""

from __future__ import annotations

import re

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from course_lib.monitoring import ParameterState
from course_lib.pytorch.compiled import written_name
from course_lib.pytorch.norms import distances64, norm64, norms64


def says_its_update(optimizer: torch.optim.Optimizer, group: dict) -> bool:
    """Return whether the update of a weight is lr times a tensor that is at hand.

    True for plain SGD: the gradient, or the momentum buffer. Every other rule needs a copy of the
    weight from before. What the rule asks for and what the weight then does differ by rounding, at
    most half a unit in the last place: 6e-8 of a float32 weight.
    """
    return (
        type(optimizer) is torch.optim.SGD
        and not (group["nesterov"] or group["fused"] or isinstance(group["lr"], torch.Tensor))
        and (group["momentum"] != 0 or group["weight_decay"] == 0)
    )


def rank_of(shape: torch.Size) -> int:
    """Return how many axes a parameter has, or 1 for one vector along many: (1, C, 1, 1).

    That is a scale, or a shift, of channels, whatever its name. (1, C) and (C, 1) are left: a layer
    with one input or one output has such a matrix.
    """
    return 1 if len(shape) > 2 and sum(n > 1 for n in shape) < 2 else len(shape)


def owner_of(parameter: str) -> str:
    """Return the module that a parameter belongs to: of a parametrized weight, the one that has it.
    """
    return re.sub(r"\.?parametrizations\.[^.]*$", "", parameter.rpartition(".")[0])


class WeightWatch:
    """The parameters of a model, measured in sampled steps; no hook is on them.

    `measure_gradients` is to be called when a backward pass is through, before anybody can clip.
    """

    def __init__(self, model: nn.Module) -> None:
        named = [(written_name(name), p) for name, p in model.named_parameters()]
        self.parameters = [p for _, p in named]
        self.found = {
            id(p): ParameterState(
                name, owner_of(name) or type(model).__name__, 0, p.requires_grad
            )
            for name, p in named
        }
        self.filters = {  # (1, C, 1, 1) is the matrix of one output, and no scale
            id(m._parameters.get("weight"))  # a parametrized one would be made anew
            for m in model.modules() if isinstance(m, nn.modules.conv._ConvNd)
        }  # fmt: skip
        self.buffers: dict[int, torch.Tensor] = {}  # fresh memory costs more than the copy
        self.smallest: dict[int, list[torch.Tensor]] = {}  # three of each optimizer's
        self.clear()

    def clear(self) -> None:
        """Forget what was measured, and let go of what belongs to the training."""
        for state in self.found.values():
            state.grad_norm = state.norm = state.update = None
        self.copied: set[int] = set()
        self.told: dict[int, tuple[torch.optim.Optimizer, dict]] = {}  # to be read after the step
        # What the rule is about to take: the parameter, its gradient, that one's version, the rate.
        self.foreseen: list[tuple[torch.Tensor, torch.Tensor, int, float]] = []
        # What a backward pass began with: of a parameter, the gradient and that one's version.
        self.begun: dict[int, tuple[torch.Tensor, int]] = {}

    # Gradients -----------------------------------------------------------------------------

    def measure_gradients(self, parameters: list[torch.Tensor] | None = None) -> None:
        """Measure the gradients that are there."""
        if parameters is None:
            parameters = self.parameters
        there = [p for p in parameters if p.grad is not None]
        for p, norm in zip(there, norms64([p.grad for p in there]), strict=True):
            self.found[id(p)].grad_norm = norm

    def find_left_over(self) -> torch.Tensor | None:
        """Return which gradients are there and not 0, of the three smallest parameters of each
        optimizer that has stepped; None if none is there.
        """
        asked = [p for group in self.smallest.values() for p in group]
        self.begun = {}
        if all(p.grad is None for p in asked or self.parameters):
            return None
        for p in self.parameters:
            if p.grad is not None:
                self.begun[id(p)] = p.grad, p.grad._version
        if not asked:
            return None
        return torch.stack([
            torch.zeros((), dtype=torch.bool, device=p.device) if p.grad is None
            else (p.grad != 0).any() for p in asked
        ])  # fmt: skip

    def find_fresh(self) -> list[torch.Tensor]:
        """Return the parameters whose gradient came, or was added to, since `find_left_over`."""
        fresh = [p for p in self.parameters if p.grad is not None]
        if not self.begun:
            return fresh
        def as_before(p: torch.Tensor) -> bool:
            grad, version = self.begun.get(id(p), (None, 0))
            return p.grad is grad and grad._version == version

        return [p for p in fresh if not as_before(p)]

    # Weights and updates -------------------------------------------------------------------

    def owned(self, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """Return the model's parameters that the optimizer moves."""
        found = self.found
        return [p for g in optimizer.param_groups for p in g["params"] if id(p) in found]

    @torch.no_grad()
    def before_update(
        self, parameters: list[torch.Tensor], optimizer: object = None, *, closure: bool = False
    ) -> None:
        """Measure the parameters, and keep a copy of those whose update is not told otherwise.

        A `closure` computes new gradients within the step: then nothing is known before it.
        """
        if optimizer is not None and id(optimizer) not in self.smallest:
            usual = [p for p in parameters if p.requires_grad and not is_lazy(p)
                     and (p.grad is None or p.grad.layout is torch.strided)]  # fmt: skip
            self.smallest[id(optimizer)] = sorted(usual, key=torch.Tensor.numel)[:3]
        telling = {} if closure or optimizer is None else {
            id(p): group for group in optimizer.param_groups if says_its_update(optimizer, group)
            for p in group["params"]
        }  # fmt: skip
        there, by_hand, copied, plain = [], [], [], {}
        for p in parameters:
            if not p.requires_grad or is_lazy(p):
                continue
            there.append(p)
            key, grad = id(p), p.grad
            state, group = self.found[key], telling.get(key)
            if grad is None:
                state.grad_norm = None
            elif state.grad_norm is None:  # not by a backward pass through the layers
                by_hand.append(p)
            if group is None or grad is None or p.dtype not in (torch.float32, torch.float64):
                copied.append(p)
            elif group["momentum"]:
                self.told[key] = optimizer, group
            else:  # the rule will read it next
                plain[key] = grad
                self.foreseen.append((p, grad, grad._version, group["lr"]))
        if by_hand:
            self.measure_gradients(by_hand)
        # From the last to the first, since the rule will go from the first to the last.
        keys = list(plain)[::-1]
        for key, norm in zip(keys, norms64([plain[key] for key in keys]), strict=True):
            self.found[key].update = telling[key]["lr"] * norm
        there.reverse()
        for p, norm in zip(there, norms64(there), strict=True):
            self.found[id(p)].norm = norm
        if copied:
            torch._foreach_copy_([self._buffer(p) for p in copied], copied)
            self.copied.update(map(id, copied))

    def _buffer(self, p: torch.Tensor) -> torch.Tensor:
        buffer = self.buffers.get(id(p))
        if buffer is None or buffer.shape != p.shape or buffer.dtype != p.dtype:
            buffer = self.buffers[id(p)] = torch.empty_like(p, requires_grad=False)
        return buffer

    def after_update(self, parameters: list[torch.Tensor]) -> None:
        """Measure how far the parameters moved."""
        moved = [p for p in parameters if id(p) in self.copied] if self.copied else []
        if moved:
            before = [self.buffers[id(p)] for p in moved]
            for p, distance in zip(moved, distances64(before, moved), strict=True):
                self.found[id(p)].update = distance
            self.copied.difference_update(map(id, moved))
        states, rates, taken = [], [], []
        for p in parameters if self.told else ():
            if id(p) in self.told and p.grad is not None:
                rule, group = self.told.pop(id(p))
                taken.append(rule.state[p]["momentum_buffer"])
                rates.append(group["lr"])
                states.append(self.found[id(p)])
        for p, grad, version, rate in self.foreseen:
            now = p.grad
            if now is not None and (now is not grad or now._version != version):
                taken.append(now)  # another since, as by somebody's hook on the step
                rates.append(rate)
                states.append(self.found[id(p)])
        self.foreseen.clear()
        for state, rate, norm in zip(states, rates, norms64(taken), strict=True):
            state.update = rate * norm

    def states(self) -> list[ParameterState]:
        """Return what was measured, one state per parameter, which is filled anew the next time."""
        found = []
        for p, state in zip(self.parameters, self.found.values(), strict=True):
            if state.norm is None:
                if is_lazy(p) or not (p.is_floating_point() or p.is_complex()):
                    continue
                state.norm = norm64(p)
            state.ndim = state.ndim or (p.ndim if id(p) in self.filters else rank_of(p.shape))
            state.trainable = p.requires_grad
            found.append(state)
        return found
