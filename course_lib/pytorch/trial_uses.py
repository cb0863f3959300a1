"""How a PyTorch model uses the matrices that belong to no plain layer, or to two."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.nn.parameter import is_lazy

from course_lib.diagnosis.uses import shorter_axis
from course_lib.monitoring import FlowRecord
from course_lib.pytorch.weight_watch import rank_of

PRODUCTS = ("Mm", "Addmm", "Bmm", "Baddbmm", "Mv", "Convolution", "Linear", "ScaledDotProduct")
VIEWS = ("T", "Transpose", "Permute", "View", "ReshapeAlias", "UnsafeView", "Unsqueeze", "Squeeze",
         "Expand", "Select", "Slice", "Split", "SplitWithSizes", "Unbind", "Clone", "ToCopy",
         "AsStrided")  # fmt: skip
"""Nodes behind which a matrix is still itself, or a part of itself."""


def least_gains(
    model: nn.Module, record: FlowRecord, fans: Mapping[str, int]
) -> dict[str, float]:
    """Return lower bounds of the gains that matrices had at the first step, by name.

    Arguments:
        model: whose parameters they are.
        record: of its trial.
        fans: the inputs that an output sums up, of those matrices for which that is known.
    """
    norms = dict(zip(record.parameters, record.weight_norms[0], strict=True))
    found = {}
    for name, p in model.named_parameters():
        plain = name not in fans and p.requires_grad and not is_lazy(p)
        if plain and rank_of(p.shape) > 1 and name in norms and p.numel():
            found[name] = float(norms[name] * np.sqrt(shorter_axis(tuple(p.shape)) / p.numel()))
    return found


def shared_heads(
    model: nn.Module, record: FlowRecord, fans: Mapping[str, int]
) -> dict[str, float]:
    """Return the gains of layers whose matrix has its name from an embedding, by layer."""
    norms = dict(zip(record.parameters, record.weight_norms[0], strict=True))
    names = {id(p): name for name, p in model.named_parameters()}
    found = {}
    for name, module in model.named_modules():
        p, full = module._parameters.get("weight"), f"{name}.weight"
        first = names.get(id(p))
        if first not in (None, full) and fans.get(full, 1) > 1 and first in norms:
            found[name] = float(norms[first] * np.sqrt(fans[full] / p.numel()))
    return found


def multiplied(model: nn.Module, loss: torch.Tensor) -> set[str]:
    """Return the names of the parameters that a loss's graph takes into a product as they are."""
    names = {id(p): name for name, p in model.named_parameters()}
    above: dict[object, list[object]] = {}
    seen, queue, leaves = set(), [loss.grad_fn], []
    while queue:
        node = queue.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if variable is not None and id(variable) in names:
            leaves.append(node)
        for following, _ in node.next_functions:
            if following is not None:
                above.setdefault(following, []).append(node)
                queue.append(following)
    found = set()
    for leaf in leaves:
        climbing = [leaf]
        while climbing:
            for node in above.get(climbing.pop(), ()):
                kind = node.name().removeprefix("torch::autograd::").partition("Backward")[0]
                if kind.startswith(PRODUCTS):
                    found.add(names[id(leaf.variable)])
                elif kind in VIEWS:
                    climbing.append(node)
    return found
