"""Vectors carried back through autograd's graph: many together, or one after the other.

`torch.func.vmap` takes many together, as `torch.func.jacrev` does. Here only so many go at once
that what is on its way stays below `AT_ONCE` bytes, and they go one after the other wherever
together might not be the same.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.autograd.function import BackwardCFunction
from torch.nn.modules import module as every_module

from course_lib._together import AT_ONCE, mixing_weights, require_agreement


def watches_gradients(model: nn.Module) -> bool:
    """Return whether a hook on a module may look at the gradients that pass."""
    kinds = ("backward_hooks", "backward_pre_hooks", "forward_hooks", "forward_pre_hooks")
    return any(getattr(every_module, f"_global_{kind}") for kind in kinds) or any(
        m._backward_hooks or m._backward_pre_hooks for m in model.modules()
    )


@contextmanager
def noting_watchers() -> Iterator[list[str]]:
    """Note when a model's own code asks inside to be shown a gradient, or to have it kept."""
    noted: list[str] = []

    def noting(name: str, method: Callable) -> Callable:
        def watch(tensor: torch.Tensor, *args: object, **kwargs: object) -> object:
            noted.append(name)
            return method(tensor, *args, **kwargs)

        return watch

    before = {name: vars(torch.Tensor).get(name) for name in ("register_hook", "retain_grad")}
    for name in before:
        setattr(torch.Tensor, name, noting(name, getattr(torch.Tensor, name)))
    try:
        yield noted
    finally:
        for name, method in before.items():
            if method is None:
                delattr(torch.Tensor, name)
            else:
                setattr(torch.Tensor, name, method)


class Passage:
    """The linear map from vectors at `source` to gradients at `wrt`, along their graph.

    Arguments:
        source, wrt: tensors, the first computed from the second.
        together: False to take the vectors one after the other.

    So they go in any case if a `torch.autograd.Function` of somebody's own is on the way, unless
    it declares `generate_vmap_rule`, and if two of them exceed `AT_ONCE`.
    """

    def __init__(self, source: torch.Tensor, wrt: torch.Tensor, *, together: bool) -> None:
        self.source, self.wrt = source, wrt
        size = _bytes_between(source, wrt) if together else None
        self.together = size is not None and 2 * size <= AT_ONCE
        if not self.together:  # all that is kept of one is itself and what it becomes
            size = (source.numel() + wrt.numel()) * source.element_size()
        self.count = max(1, AT_ONCE // max(size, 1))
        self.compared = not self.together

    def carry_one(self, vector: torch.Tensor) -> torch.Tensor:
        """Return the gradient along one vector, both of one axis."""
        (found,) = torch.autograd.grad(
            self.source, self.wrt, vector.reshape(self.source.shape), retain_graph=True
        )
        return found.reshape(-1)

    def carry(self, rows: torch.Tensor) -> np.ndarray:
        """Return the gradients along vectors, given and returned as rows, in float64.

        The first that go together are compared with one pass alone; ArithmeticError is raised if
        they are something else.
        """
        found = self._carry_blocks(rows.split(self.count), len(rows))
        if not self.compared:
            weights = mixing_weights(len(rows))
            eps = torch.finfo(rows.dtype).eps
            mixed = torch.from_numpy(weights).to(rows) @ rows
            require_agreement(found, weights, float64(self.carry_one(mixed)), eps)
            self.compared = True
        return found

    def matrix(self) -> np.ndarray:
        """Return the gradients along all unit vectors, as rows, in float64."""
        return self._carry_blocks(self._unit_rows(), self.source.numel())

    def _unit_rows(self) -> Iterator[torch.Tensor]:
        size = self.source.numel()
        for first in range(0, size, self.count):
            block = self.source.new_zeros(min(self.count, size - first), size)
            block.diagonal(first).fill_(1)
            yield block

    def _carry_blocks(self, blocks: Iterable[torch.Tensor], count: int) -> np.ndarray:
        found, first = np.empty((count, self.wrt.numel())), 0
        for block in blocks:
            found[first : first + len(block)] = float64(self._carry_block(block))
            first += len(block)
        return found

    def _carry_block(self, block: torch.Tensor) -> torch.Tensor:
        if not self.together:
            return torch.stack([self.carry_one(vector) for vector in block])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of operations that take them one by one all the same
            return torch.func.vmap(self.carry_one)(block)


def float64(tensor: torch.Tensor) -> np.ndarray:
    """Return a tensor's values as an array in float64."""
    return tensor.detach().cpu().double().numpy()


def _bytes_between(source: torch.Tensor, wrt: torch.Tensor) -> int | None:
    """Return the bytes of one gradient at every step from source back to wrt.

    None if a step runs somebody's own code, or is one of which PyTorch does not say the sizes.
    """
    leads: dict[object, bool] = {}
    stack, size = [source.grad_fn], 0
    while stack:
        node = stack[-1]
        if node in leads:
            stack.pop()
            continue
        after = [n for n, _ in node.next_functions if n is not None]
        ahead = [n for n in after if n not in leads]
        if ahead:
            stack.extend(ahead)
            continue
        leads[node] = any(leads[n] for n in after) or getattr(node, "variable", None) is wrt
        if leads[node]:
            own = _bytes_at(node)
            if own is None:
                return None
            size += own
    return size


def _bytes_at(node: torch.autograd.graph.Node) -> int | None:
    if isinstance(node, BackwardCFunction):
        function = getattr(type(node), "_forward_cls", None)
        if not getattr(function, "generate_vmap_rule", False):
            return None
    try:
        return sum(math.prod(m.shape) * m.dtype.itemsize for m in node._input_metadata)
    except (AttributeError, RuntimeError):
        return None
