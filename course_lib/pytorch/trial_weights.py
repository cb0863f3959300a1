"""What a trial of a PyTorch model knows of its matrices: how they were drawn, what comes next."""

from __future__ import annotations

from collections import Counter

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from course_lib.pytorch import graph

ROWS_ARE_OUTPUTS = (nn.Linear, nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.RNNBase, nn.RNNCellBase,
                    nn.MultiheadAttention)  # fmt: skip
CONSTANT_SIZE = ("LocalResponseNorm", "FrozenBatchNorm")
"""Called normalizations, though what they give is larger where their input is."""


def fans_in(model: nn.Module) -> dict[str, int]:
    """Return how many inputs one output sums up, by the name of the weight.

    Known for dense, convolutional, recurrent and attention layers, and for embeddings, whose output
    is one row; what a matrix does elsewhere is up to the model.
    """
    found = {}
    for name, module in model.named_modules():
        for own, p in module._parameters.items():
            if p is None or p.ndim < 2:
                continue
            if own.endswith("_g") and f"{own[:-1]}v" in module._parameters:
                continue  # the gain of a weight normalization
            full = f"{name}.{own}".lstrip(".")
            if isinstance(module, nn.Embedding):
                found[full] = 1
            elif isinstance(module, ROWS_ARE_OUTPUTS):
                found[full] = p[0].numel()
            elif own == "weight" and type(module).__name__ == "Conv1D":
                found[full] = len(p)  # a dense layer of transformers, transposed
            elif own == "weight" and _is_dense(module):
                found[full] = p.shape[1]
        for own, made in getattr(module, "parametrizations", {}).items():
            if hasattr(made, "original1") and isinstance(module, ROWS_ARE_OUTPUTS):
                direction = f"{name}.parametrizations.{own}.original1".lstrip(".")
                found[direction] = made.original1[0].numel()  # weight normalization
    return found


def _is_dense(module: nn.Module) -> bool:
    """Return whether a module of another library has a matrix of outputs by inputs, by its names
    for their numbers.
    """
    weight = module._parameters.get("weight")
    sizes = [
        (getattr(module, f"out_{kind}", None), getattr(module, f"in_{kind}", None))
        for kind in ("features", "channels")
    ]
    return weight is not None and not is_lazy(weight) and tuple(weight.shape) in sizes


@torch.no_grad()
def find_identical(model: nn.Module) -> tuple[list[str], int]:
    """Return the matrices whose rows are all the same and not 0, and how many have several rows.

    Of layers with more than one input: a filter of each channel for itself may well be the same for
    all.
    """
    alike, count, known = [], 0, fans_in(model)
    for name, module in model.named_modules():
        for own, p in module._parameters.items():
            full = f"{name}.{own}".lstrip(".")
            if full not in known or isinstance(module, nn.Embedding) or is_lazy(p):
                continue
            rows = p.detach().t() if type(module).__name__ == "Conv1D" else p.detach()
            if len(rows) < 2 or rows.shape[1] < 2:
                continue
            count += 1
            if torch.equal(rows[1], rows[0]) and bool((rows == rows[:1]).all()) and rows[0].any():
                alike.append(full)
    return alike, count


def find_unused_statistics(model: nn.Module) -> tuple[list[str], int]:
    """Return the batch normalizations in evaluation mode whose statistics are as they begin, and
    how many batch normalizations there are.
    """
    found = {
        name: m for name, m in model.named_modules()
        if isinstance(m, nn.modules.batchnorm._BatchNorm) and m.running_var is not None
    }  # fmt: skip
    unused = [
        name for name, m in found.items()
        if not m.training and not m.running_mean.any() and bool((m.running_var == 1).all())
    ]  # fmt: skip
    return unused, len(found)


class InnerWatch:
    """Finds the layers whose output goes into another layer with parameters, in one pass, and those
    whose output is a term of a sum as it is, and nothing else.

    Use it as a context manager around the pass, in which gradients are on; what is only cut off
    from the next layer is no inner one.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layers: tuple[str, ...] = ()
        self.summed: tuple[str, ...] = ()

    def __enter__(self) -> InnerWatch:
        self._made: dict[int, tuple[str, object]] = {}  # the node is kept, and its id its own
        self._given: list[object] = []
        self._handles = []
        for name, module in self.model.named_modules():
            own = any(True for _ in module.parameters(recurse=False)) or hasattr(
                module, "parametrizations"
            )
            if own and "parametrizations" not in name.split("."):
                self._handles.append(
                    module.register_forward_hook(
                        lambda module, args, output, name=name: self._see(name, args, output)
                    )
                )
        return self

    def __exit__(self, *exception: object) -> None:
        while self._handles:
            self._handles.pop().remove()
        found, ends, seen, queue = set(), [], set(), self._given
        readers = Counter(map(id, queue))
        while queue:
            node = queue.pop()
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            if id(node) in self._made:
                found.add(self._made[id(node)][0])
                continue
            terms = [following for following, _ in node.next_functions]
            readers.update(map(id, terms))
            if node.name().startswith("Add") and len(terms) == 2 and None not in terms:
                ends += [id(t) for t in terms if id(t) in self._made]
            queue += terms
        self.layers = tuple(sorted(found))
        # what others read as well is not the branch that ends here, but what leads past it
        self.summed = tuple(sorted(self._made[end][0] for end in ends if readers[end] == 1))
        self._made, self._given = {}, []

    def _see(self, name: str, args: tuple, output: object) -> None:
        if graph.transformed() or not isinstance(output, torch.Tensor) or output.grad_fn is None:
            return
        self._given += [a.grad_fn for a in args if isinstance(a, torch.Tensor)]
        # of a layer and what holds it, the layer, which is through first
        self._made.setdefault(id(output.grad_fn), (name, output.grad_fn))


class NormalizedWatch:
    """Finds the layers whose output a normalization takes as it is, in one pass.

    Use it as a context manager around the pass. What is changed in between, in place or by a
    residual sum, is not taken as it is.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self._taken: dict[str, bool] = {}
        self._last: tuple[str, int, int, int] | None = None

    @property
    def layers(self) -> tuple[str, ...]:
        """Their names; of a layer that ran several times, if it was so every time."""
        return tuple(name for name, taken in self._taken.items() if taken)

    def __enter__(self) -> NormalizedWatch:
        self._handles = []
        for name, module in self.model.named_modules():
            if _is_normalization(module):
                self._handles.append(module.register_forward_pre_hook(self._enter))
            elif not any(module.children()):
                self._handles.append(module.register_forward_hook(
                    lambda module, args, output, name=name: self._leave(name, output)))  # fmt: skip
        return self

    def __exit__(self, *exception: object) -> None:
        while self._handles:
            self._handles.pop().remove()
        self._last = None

    def _enter(self, module: nn.Module, args: tuple) -> None:
        if self._last is None or not args or not isinstance(args[0], torch.Tensor):
            return
        name, *seen = self._last
        if seen == _mark(args[0]) and (module.training or "BatchNorm" not in type(module).__name__):
            self._taken[name] = self._taken[name] is not False
        else:
            self._taken[name] = False
        self._last = None

    def _leave(self, name: str, output: object) -> None:
        if graph.transformed() or not isinstance(output, torch.Tensor):
            return
        if self._last is not None:  # what ran before is taken by another layer
            self._taken[self._last[0]] = False
        self._taken.setdefault(name, None)
        self._last = (name, *_mark(output))


def _mark(tensor: torch.Tensor) -> list[int]:
    """Return what tells a tensor, or a view of all of it, from others and from itself changed."""
    if tensor.layout is not torch.strided or tensor.is_inference():
        return [id(tensor), 0, 0]
    return [tensor.untyped_storage().data_ptr(), tensor._version, tensor.numel()]


def _is_normalization(module: nn.Module) -> bool:
    kind = type(module).__name__
    return "Norm" in kind and not kind.startswith(CONSTANT_SIZE) and not isinstance(
        module, nn.modules.container.Sequential
    ) and not type(module).__module__.startswith("torch.nn.utils")  # fmt: skip
