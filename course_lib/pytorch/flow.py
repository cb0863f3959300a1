"""What flows backwards, in PyTorch: forward hooks with `retain_grad`, and autograd's `jacobian`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn
from torch.autograd.functional import jacobian

from course_lib._validation import require_array
from course_lib.pytorch.models import (
    Layer,
    batch_tensors,
    compute_loss,
    dtype_name,
    read_layers,
    require_trainable,
    tensor_like,
    to_numpy,
)
from course_lib.results import GradientFlow, LayerJacobians


@contextmanager
def recorded_activations(layers: list[Layer]) -> Iterator[list[torch.Tensor]]:
    """Collect $h_1, ..., h_L$ of the forward pass run inside, each with its gradient retained.

    The hooks are removed on leaving, whatever happens inside.
    """
    activations: list[torch.Tensor] = []

    def keep(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        output.retain_grad()  # autograd forgets the gradients of all but the leaves otherwise
        activations.append(output)

    # One activation module may serve several layers; it needs one hook, which runs every time.
    ends = {id(layer.last): layer.last for layer in layers}
    handles = [module.register_forward_hook(keep) for module in ends.values()]
    try:
        yield activations
    finally:
        for handle in handles:
            handle.remove()


@contextmanager
def own_gradients(model: nn.Module) -> Iterator[None]:
    """Lend the parameters an empty `.grad` and give back on leaving what they had before."""
    before = [(parameter, parameter.grad) for parameter in model.parameters()]
    for parameter, _ in before:
        parameter.grad = None
    try:
        yield
    finally:
        for parameter, grad in before:
            parameter.grad = grad


def gradient_flow(
    model: nn.Sequential,
    x: np.ndarray,
    y: np.ndarray | None = None,
    *,
    loss: str = "mean_squared_error",
) -> GradientFlow:
    """Return every gradient of one backward pass; the model is left as it was found.

    Arguments:
        model: an `nn.Sequential` of Linear layers and activations; see `course_lib.pytorch`.
        x: inputs, shape (n, n_0).
        y: the loss's targets; see `course_lib.losses`.
        loss: "mean_squared_error", "cross_entropy" or "mean_output".

    A layer without bias has an empty entry in `bias_grads`.
    """
    layers = read_layers(model)
    require_trainable(layers)
    x, y = batch_tensors(layers, x, y, loss=loss)
    with own_gradients(model), torch.enable_grad(), recorded_activations(layers) as activations:
        value = compute_loss(model(x), y, loss=loss)
        value.backward()
        linears = [layer.linear for layer in layers]
        return GradientFlow(
            framework="PyTorch",
            dtype=dtype_name(layers),
            loss=value.item(),
            weight_grads=tuple(to_numpy(linear.weight.grad) for linear in linears),
            bias_grads=tuple(
                to_numpy(None if linear.bias is None else linear.bias.grad) for linear in linears
            ),
            activation_grads=tuple(to_numpy(h.grad) for h in activations),
            activations=tuple(to_numpy(h) for h in activations),
        )


def layer_jacobians(model: nn.Sequential, x: np.ndarray) -> LayerJacobians:
    r"""Return $J_l = \partial h_l/\partial h_{l-1}$ for l = 1..L at one input x of shape (n_0,).

    `torch.autograd.functional.jacobian` takes each layer as a function of its input.

    Arguments:
        model: an `nn.Sequential` of Linear layers and activations.
        x: one input, shape (n_0,).
    """
    layers = read_layers(model)
    h = tensor_like(layers, require_array("x", x, shape=(layers[0].linear.in_features,)))
    jacobians = []
    for layer in layers:
        jacobians.append(to_numpy(jacobian(layer, h)))
        with torch.no_grad():
            h = layer(h)
    return LayerJacobians(framework="PyTorch", dtype=dtype_name(layers), jacobians=tuple(jacobians))
