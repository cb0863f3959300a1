"""A stack of blocks in PyTorch: `nn.Module`, `nn.BatchNorm1d`, `nn.LayerNorm`.

Same names and signatures as `course_lib.reference.stack`, same results as NumPy arrays. The names
of the parameters in `state_dict` are those of the spec.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from course_lib._validation import require_choice, require_flag, require_labels, require_type
from course_lib.losses import check_batch
from course_lib.pytorch.flow import own_gradients
from course_lib.pytorch.models import DTYPES, MODULES, compute_loss, to_numpy
from course_lib.pytorch.randomness import generators_kept
from course_lib.stack_results import StackFlow
from course_lib.stack_specs import StackSpec, check_stack_batch, check_stack_weights


def _norm(spec: StackSpec) -> nn.Module:
    if spec.norm == "batch":
        return nn.BatchNorm1d(spec.width, eps=spec.epsilon)
    return nn.LayerNorm(spec.width, eps=spec.epsilon) if spec.norm == "layer" else nn.Identity()


class Block(nn.Module):
    r"""One block $h + \alpha F(h)$, or $\alpha F(h)$ without shortcut; see `stack_specs`."""

    def __init__(self, spec: StackSpec) -> None:
        super().__init__()
        self.pre, self.shortcut = spec.placement == "pre", spec.shortcut
        self.linears = nn.ModuleList(nn.Linear(spec.width, spec.width) for _ in range(spec.layers))
        self.norms = nn.ModuleList(_norm(spec) for _ in range(spec.layers))
        self.activation = MODULES[spec.activation]()
        self.scale = nn.Parameter(torch.tensor(spec.scale))

    def branch(self, h: torch.Tensor) -> torch.Tensor:
        """Return $F(h)$."""
        for k, (linear, norm) in enumerate(zip(self.linears, self.norms, strict=True)):
            if self.pre:
                h = linear(self.activation(norm(h)))
            else:
                h = norm(linear(h))
                h = h if k == len(self.linears) - 1 else self.activation(h)
        return h

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """Return the block's output."""
        z = self.scale * self.branch(h)
        z = h + z if self.shortcut else z
        return z if self.pre else self.activation(z)


class Stack(nn.Module):
    """Stem, blocks and readout, as a StackSpec says."""

    def __init__(self, spec: StackSpec) -> None:
        super().__init__()
        self.spec = spec
        self.stem = nn.Linear(spec.n_in, spec.width)
        self.blocks = nn.ModuleList(Block(spec) for _ in range(spec.blocks))
        self.final_norm = _norm(spec) if spec.placement == "pre" else nn.Identity()
        self.final_activation = MODULES[spec.activation if spec.placement == "pre" else "linear"]()
        self.head = nn.Linear(spec.width, spec.n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the outputs, shape (n, n_out)."""
        h = self.stem(x)
        for block in self.blocks:
            h = block(h)
        return self.head(self.final_activation(self.final_norm(h)))


def build_stack(
    spec: StackSpec, weights: Mapping[str, np.ndarray], *, dtype: str = "float32"
) -> Stack:
    """Return the stack `spec` with a copy of `weights`, on PyTorch's default device.

    Arguments:
        spec: the stack as data.
        weights: name -> array; from `course_lib.stack_specs.draw_stack_weights`.
        dtype: "float32" or "float64".
    """
    check_stack_weights(spec, weights)
    require_choice("dtype", dtype, DTYPES)
    with generators_kept(seed=0):  # nn.Linear draws weights of its own before we overwrite them
        model = Stack(spec).to(DTYPES[dtype])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.copy_(torch.tensor(weights[name], device="cpu"))
    return model


def _like(model: Stack, array: np.ndarray) -> torch.Tensor:
    weight = model.stem.weight
    return torch.tensor(array, dtype=weight.dtype, device=weight.device)


def stack_gradient_flow(
    model: Stack,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "mean_squared_error",
    training: bool = True,
) -> StackFlow:
    """Return every gradient of one backward pass; the model is left as it was found.

    Arguments:
        model: what `build_stack` returned.
        x: inputs, shape (n, n_in); n is at least 2 for batch normalization in training mode.
        y: the loss's targets; see `course_lib.losses`.
        loss: "mean_squared_error", "cross_entropy" or "mean_output".
        training: whether batch normalization takes the batch's own statistics.
    """
    spec = require_type("model", model, Stack).spec
    training = require_flag("training", training)
    x, y = check_stack_batch(spec, x, y, loss=loss, training=training)
    if y is not None:
        place = model.stem.weight.device
        y = torch.tensor(y, device=place) if loss == "cross_entropy" else _like(model, y)
    states: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        output.retain_grad()
        states.append(output)

    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    mode = model.training
    handles = [m.register_forward_hook(keep) for m in (model.stem, *model.blocks)]
    try:
        with own_gradients(model), torch.enable_grad():
            model.train(training)
            value = compute_loss(model(_like(model, x)), y, loss=loss)
            value.backward()
            grads = {name: to_numpy(p.grad) for name, p in model.named_parameters()}
    finally:
        for handle in handles:
            handle.remove()
        model.train(mode)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return StackFlow(
        framework="PyTorch",
        dtype=str(model.stem.weight.dtype).removeprefix("torch."),
        training=training,
        loss=value.item(),
        states=tuple(to_numpy(h) for h in states),
        state_grads=tuple(to_numpy(h.grad) for h in states),
        parameter_grads={name: grads[name] for name in spec.parameter_shapes},
    )


def stack_accuracy(model: Stack, x: np.ndarray, y: np.ndarray) -> float:
    """Return the fraction of rows of `x` whose largest output, in evaluation mode, is at `y`.

    Arguments:
        model: what `build_stack` returned.
        x: inputs, shape (n, n_in).
        y: integer labels in 0..n_out - 1, shape (n,).
    """
    spec = require_type("model", model, Stack).spec
    x, _ = check_batch(x, None, loss="mean_output", n_in=spec.n_in, n_out=spec.n_out)
    labels = require_labels("y", y, shape=(len(x),), classes=spec.n_out)
    mode = model.training
    try:
        with torch.no_grad():
            outputs = model.eval()(_like(model, x))
    finally:
        model.train(mode)
    return float(np.mean(outputs.argmax(dim=1).cpu().numpy() == labels))
