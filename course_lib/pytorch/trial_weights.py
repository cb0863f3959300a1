"""What a trial of a PyTorch model knows of its matrices: how they were drawn, what comes next."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from course_lib.pytorch import graph

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
CONSTANT_SIZE = ("LocalResponseNorm", "FrozenBatchNorm")
"""Called normalizations, though what they give is larger where their input is."""


def fans_in(model: nn.Module) -> dict[str, int]:
    """Return how many inputs one output sums up, by the name of the weight.

    Known for dense and convolutional layers; what a matrix does elsewhere is up to the model.
    """
    found = {}
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is None or weight.ndim < 2:
            continue
        if isinstance(module, (nn.Linear, *CONVOLUTIONS)):
            found[f"{name}.weight".lstrip(".")] = weight[0].numel()
        elif type(module).__name__ == "Conv1D":  # a dense layer of transformers, transposed
            found[f"{name}.weight".lstrip(".")] = len(weight)
    return found


def measure_gains(
    parameters: tuple[str, ...],
    norms: np.ndarray,
    fans: Mapping[str, int],
    sizes: Mapping[str, int],
) -> np.ndarray:
    r"""Return $\sqrt{n_{in}}$ times the root mean square of every matrix's entries, NaN for others.

    Arguments:
        parameters: their names.
        norms: their Euclidean norms, in the same order.
        fans, sizes: the inputs that one output sums up, and the number of entries, by name.
    """
    return np.array([
        norm * np.sqrt(fans[name] / sizes[name]) if name in fans else np.nan
        for name, norm in zip(parameters, norms, strict=True)
    ], dtype=np.float64)  # fmt: skip


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
