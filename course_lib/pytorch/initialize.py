"""Initial weights for a whole PyTorch model: linear layers, convolutions, normalization layers."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from course_lib._validation import require_choice, require_real, require_seed
from course_lib.initialization import INITIALIZERS, draw_kernel

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMALIZATIONS = (
    nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.LayerNorm, nn.GroupNorm,
    nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d,
)  # fmt: skip


def initialize_model(
    model: nn.Module, scheme: str, *, gain: float = 1.0, bias: float = 0.0, seed: int
) -> nn.Module:
    """Draw every weight of `model` anew, in place, and return it.

    Linear layers and convolutions get kernels from the law `scheme` with their true fans, groups
    included, drawn in NumPy in the order of `model.modules()`; their biases become `bias`.
    Normalization layers get scale 1, shift 0, running mean 0 and running variance 1. The Keras
    model with the same layers in the same order gets the same numbers from `course_lib.tf`.

    Arguments:
        model: any module whose parameters belong to the layers above.
        scheme: name of a law, see `course_lib.initialization`.
        gain: factor on every kernel, at least 0.
        bias: the value of every bias of a linear layer or convolution.
        seed: of the draws; no generator of PyTorch's is touched.

    Raises ValueError, before anything is changed, if a module has parameters that this function
    does not know how to initialize (a recurrent or transposed layer, an embedding), naming it.
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"`model` (a {type(model).__name__}) must be a torch.nn.Module.")
    require_choice("scheme", scheme, INITIALIZERS)
    gain, bias = require_real("gain", gain, minimum=0.0), require_real("bias", bias)
    rng = np.random.default_rng(require_seed(seed))
    layers = [(name, module) for name, module in model.named_modules() if _has_weights(module)]
    for name, module in layers:
        _require_known(name, module)
    kernels = [
        None if isinstance(module, NORMALIZATIONS) else
        draw_kernel(scheme, shape=tuple(module.weight.shape), gain=gain,
                    groups=getattr(module, "groups", 1), rng=rng)
        for _, module in layers
    ]  # fmt: skip
    with torch.no_grad():
        for (_, module), kernel in zip(layers, kernels, strict=True):
            if kernel is None:
                _reset_normalization(module)
            else:
                module.weight.copy_(torch.from_numpy(kernel))
                if module.bias is not None:
                    module.bias.fill_(bias)
    return model


def _has_weights(module: nn.Module) -> bool:
    own = any(True for _ in module.parameters(recurse=False))
    return own or isinstance(module, NORMALIZATIONS)


def _require_known(name: str, module: nn.Module) -> None:
    known = (nn.Linear, *CONVOLUTIONS)
    plain = isinstance(getattr(module, "weight", None), nn.Parameter) and not isinstance(
        module, nn.modules.lazy.LazyModuleMixin
    )
    if not isinstance(module, NORMALIZATIONS) and not (isinstance(module, known) and plain):
        place = f"module {name}" if name else "the module itself"
        raise ValueError(
            f"`model` ({place} is a {type(module).__name__}) must have its "
            f"parameters in Linear, convolution and normalization layers whose shapes are known."
        )


def _reset_normalization(module: nn.Module) -> None:
    if module.weight is not None:
        module.weight.fill_(1.0)
    if module.bias is not None:
        module.bias.fill_(0.0)
    if getattr(module, "running_mean", None) is not None:
        module.reset_running_stats()
