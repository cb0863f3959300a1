"""What one step does to the parameters: their gradients, their norms, and how far they move."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from course_lib.monitoring import ParameterState
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


class WeightWatch:
    """The parameters of a model, measured in sampled steps; no hook is on them.

    `measure_gradients` is to be called when a backward pass is through, before anybody can clip.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.named = list(model.named_parameters())
        self.names = {id(p): name for name, p in self.named}
        self.layers = {name: name.rpartition(".")[0] or type(model).__name__
                       for name, _ in self.named}  # fmt: skip
        self.buffers: dict[int, torch.Tensor] = {}  # fresh memory costs more than the copy
        self.clear()

    def clear(self) -> None:
        """Forget what was measured, and let go of what belongs to the training."""
        self.gradients: dict[int, object] = {}
        self.norms: dict[int, object] = {}
        self.updates: dict[int, object] = {}
        self.copied: set[int] = set()
        self.told: dict[int, tuple[torch.optim.Optimizer, dict]] = {}

    # Gradients -----------------------------------------------------------------------------

    def measure_gradients(self, parameters: list[torch.Tensor] | None = None) -> None:
        """Measure the gradients that are there."""
        if parameters is None:
            parameters = [p for _, p in self.named if p.grad is not None]
        norms = norms64([p.grad for p in parameters])
        self.gradients.update(zip(map(id, parameters), norms, strict=True))

    # Weights and updates -------------------------------------------------------------------

    def owned(self, optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
        """Return the model's parameters that the optimizer moves."""
        names = self.names
        return [p for g in optimizer.param_groups for p in g["params"] if id(p) in names]

    @torch.no_grad()
    def before_update(
        self, parameters: list[torch.Tensor], optimizer: object = None, *, closure: bool = False
    ) -> None:
        """Measure the parameters, and keep a copy of those whose update is not told otherwise.

        A `closure` computes new gradients within the step: then nothing is known before it.
        """
        there = [p for p in parameters if p.requires_grad and not is_lazy(p)]
        by_hand = [p for p in there if p.grad is not None and id(p) not in self.gradients]
        if by_hand:  # not by a backward pass through the layers
            self.measure_gradients(by_hand)
        for p in there:
            if p.grad is None:
                self.gradients.pop(id(p), None)
        told = {} if closure or optimizer is None else {
            id(p): (optimizer, group)
            for group in optimizer.param_groups if says_its_update(optimizer, group)
            for p in group["params"] if p.grad is not None and p.dtype in
            (torch.float32, torch.float64)
        }  # fmt: skip
        self.told.update(told)
        self.norms.update(zip(map(id, there), norms64(there), strict=True))
        moved = [p for p in there if id(p) not in told]
        if moved:
            torch._foreach_copy_([self._buffer(p) for p in moved], moved)
            self.copied.update(map(id, moved))

    def _buffer(self, p: torch.Tensor) -> torch.Tensor:
        buffer = self.buffers.get(id(p))
        if buffer is None or buffer.shape != p.shape or buffer.dtype != p.dtype:
            buffer = self.buffers[id(p)] = torch.empty_like(p, requires_grad=False)
        return buffer

    def after_update(self, parameters: list[torch.Tensor]) -> None:
        """Measure how far the parameters moved."""
        moved = [p for p in parameters if id(p) in self.copied]
        if moved:
            before = [self.buffers[id(p)] for p in moved]
            self.updates.update(zip(map(id, moved), distances64(before, moved), strict=True))
            self.copied.difference_update(map(id, moved))
        told = [p for p in parameters if id(p) in self.told and p.grad is not None]
        if not told:
            return
        rules = [self.told.pop(id(p)) for p in told]
        taken = [
            rule.state[p]["momentum_buffer"] if group["momentum"] else p.grad
            for p, (rule, group) in zip(told, rules, strict=True)
        ]
        for p, (_, group), norm in zip(told, rules, norms64(taken), strict=True):
            self.updates[id(p)] = group["lr"] * norm

    def states(self) -> list[ParameterState]:
        """Return what was measured, one state per parameter."""
        found = []
        for name, p in self.named:
            if is_lazy(p) or not (p.is_floating_point() or p.is_complex()):
                continue
            key = id(p)
            norm = self.norms.get(key)
            found.append(
                ParameterState(
                    name, self.layers[name], rank_of(p.shape), p.requires_grad,
                    self.gradients.get(key), norm64(p) if norm is None else norm,
                    self.updates.get(key),
                )
            )  # fmt: skip
        return found
