"""Fully connected networks as `nn.Sequential`: built from a spec, or written by hand and read.

A layer is an `nn.Linear` followed by at most one elementwise activation module; a network is an
`nn.Sequential` of such layers (which may be nested).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from course_lib._validation import require_array, require_choice, require_labels
from course_lib.activations import LEAKY_SLOPE
from course_lib.losses import check_batch
from course_lib.specs import MLPWeights, NetworkSpec, check_weights

MODULES = {
    "linear": nn.Identity,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "leaky_relu": lambda: nn.LeakyReLU(LEAKY_SLOPE),
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "softplus": nn.Softplus,
}
"""The activation modules by the course's names."""

ELEMENTWISE = (
    nn.Identity, nn.Sigmoid, nn.LogSigmoid, nn.Hardsigmoid, nn.Tanh, nn.Hardtanh, nn.Tanhshrink,
    nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.CELU, nn.GELU, nn.SiLU, nn.Hardswish,
    nn.Mish, nn.Softplus, nn.Softsign,
)  # fmt: skip
"""The modules accepted as a layer's activation in a network written by hand."""

DTYPES = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Layer:
    """One layer $h_l = f_l(W_l h_{l-1} + b_l)$ of a network, as the modules that compute it."""

    linear: nn.Linear
    activation: nn.Module | None = None

    @property
    def last(self) -> nn.Module:
        """The module whose output is $h_l$."""
        return self.linear if self.activation is None else self.activation

    def __call__(self, h: torch.Tensor) -> torch.Tensor:
        """Return $h_l$ for $h_{l-1}$."""
        z = self.linear(h)
        return z if self.activation is None else self.activation(z)


def default_device() -> torch.device:
    """Return where PyTorch makes a new tensor.

    `torch.get_default_device` does not see a `with torch.device(...)` in PyTorch 2.6.
    """
    return torch.empty(0).device


def blank_linear(n_in: int, n_out: int, *, dtype: torch.dtype) -> nn.Linear:
    """Return a Linear on the default device that has drawn no weights from a generator."""
    return nn.utils.skip_init(nn.Linear, n_in, n_out, dtype=dtype, device=default_device())


def build_mlp(spec: NetworkSpec, weights: MLPWeights, *, dtype: str = "float32") -> nn.Sequential:
    """Return the network `spec` with a copy of `weights`, on PyTorch's default device.

    Arguments:
        spec: the network as data.
        weights: of the spec's layer sizes; from `course_lib.draw_weights`.
        dtype: "float32" or "float64".
    """
    check_weights(spec, weights)
    require_choice("dtype", dtype, DTYPES)
    modules: list[nn.Module] = []
    sizes = spec.layer_sizes
    for n_in, n_out, name in zip(sizes[:-1], sizes[1:], spec.activations, strict=True):
        modules.append(blank_linear(n_in, n_out, dtype=DTYPES[dtype]))
        if name != "linear":
            modules.append(MODULES[name]())
    return load_weights(nn.Sequential(*modules), weights)


def load_weights(model: nn.Sequential, weights: MLPWeights) -> nn.Sequential:
    """Copy `weights` into `model` and return it.

    Arguments:
        model: an `nn.Sequential` of Linear layers and activations; changed in place.
        weights: as many matrices as the model has layers, each (n_l, n_{l-1}).

    Raises ValueError, before anything is changed, where a shape differs, and for a bias that is
    not zero in a layer that has none.
    """
    if not isinstance(weights, MLPWeights):
        raise TypeError(f"`weights` (a {type(weights).__name__}) must be MLPWeights.")
    layers = read_layers(model)
    if weights.depth != len(layers):
        raise ValueError(
            f"`weights` (depth {weights.depth}) must have the model's depth {len(layers)}."
        )
    for k, (layer, matrix, bias) in enumerate(
        zip(layers, weights.matrices, weights.biases, strict=True)
    ):
        shape = tuple(layer.linear.weight.shape)
        if matrix.shape != shape:
            raise ValueError(
                f"`weights.matrices[{k}]` (shape {matrix.shape}) must have the shape {shape} of "
                f"the model's layer {k + 1}."
            )
        if layer.linear.bias is None and np.any(bias):
            raise ValueError(
                f"`weights.biases[{k}]` (not zero) must be zero: the model's layer {k + 1} has "
                f"no bias."
            )
    with torch.no_grad():
        for layer, matrix, bias in zip(layers, weights.matrices, weights.biases, strict=True):
            layer.linear.weight.copy_(torch.tensor(matrix, device="cpu"))
            if layer.linear.bias is not None:
                layer.linear.bias.copy_(torch.tensor(bias, device="cpu"))
    return model


def accuracy(model: nn.Sequential, x: np.ndarray, y: np.ndarray) -> float:
    """Return the fraction of rows of `x` whose largest output is at the label `y`.

    Arguments:
        model: an `nn.Sequential` of Linear layers and activations.
        x: inputs, shape (n, n_0).
        y: integer labels in 0..n_L - 1, shape (n,).
    """
    layers = read_layers(model)
    x = require_array("x", x, shape=(None, layers[0].linear.in_features))
    labels = require_labels("y", y, shape=(len(x),), classes=layers[-1].linear.out_features)
    with torch.no_grad():
        outputs = model(tensor_like(layers, x))
    return float(np.mean(outputs.argmax(dim=1).cpu().numpy() == labels))


def _flat_modules(model: nn.Sequential, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    for k, module in enumerate(model):
        if isinstance(module, nn.Sequential):
            yield from _flat_modules(module, f"{prefix}{k}.")
        else:
            yield f"{prefix}{k}", module


def read_layers(model: nn.Sequential) -> list[Layer]:
    """Return the layers of `model`; raise an error that names the first module that is no part
    of a dense network, or the first layer whose shape or precision does not fit.
    """
    if not isinstance(model, nn.Sequential):
        raise TypeError(f"`model` (a {type(model).__name__}) must be a torch.nn.Sequential.")
    layers: list[Layer] = []
    for position, module in _flat_modules(model):
        if isinstance(module, nn.Linear) and not isinstance(module, nn.LazyLinear):
            layers.append(Layer(module))
        elif isinstance(module, ELEMENTWISE) and layers and layers[-1].activation is None:
            layers[-1] = Layer(layers[-1].linear, module)
        else:
            raise ValueError(
                f"`model` (module {position} is {module}) must be made of Linear layers, each "
                f"followed by at most one elementwise activation."
            )
    if not layers:
        raise ValueError("`model` (no module) must have at least one Linear layer.")
    _check_layers(layers)
    return layers


def _check_layers(layers: list[Layer]) -> None:
    first = layers[0].linear.weight.dtype
    for k, layer in enumerate(layers, start=1):
        linear = layer.linear
        if not isinstance(linear.weight, nn.Parameter):
            raise ValueError(f"`model` (layer {k} is {linear}) must have a plain weight matrix.")
        if linear.weight.dtype != first or first not in DTYPES.values():
            raise ValueError(
                f"`model` (layer {k} is {linear.weight.dtype}) must be all float32 or all float64."
            )
        if any(linear is other.linear for other in layers[: k - 1]):
            raise ValueError(f"`model` (layer {k} is an earlier layer again) must not tie weights.")
        if k > 1 and linear.in_features != layers[k - 2].linear.out_features:
            raise ValueError(
                f"`model` (layer {k} takes {linear.in_features} inputs) must chain: layer {k - 1} "
                f"has {layers[k - 2].linear.out_features} outputs."
            )


def require_trainable(layers: list[Layer]) -> None:
    """Raise ValueError if a parameter of a layer does not ask for its gradient."""
    for k, layer in enumerate(layers, start=1):
        if not all(parameter.requires_grad for parameter in layer.linear.parameters()):
            raise ValueError(f"`model` (layer {k} is frozen) must have requires_grad everywhere.")


def tensor_like(layers: list[Layer], array: np.ndarray) -> torch.Tensor:
    """Return `array` as a tensor of the model's dtype on the model's device."""
    weight = layers[0].linear.weight
    return torch.tensor(array, dtype=weight.dtype, device=weight.device)


def batch_tensors(
    layers: list[Layer], x: object, y: object, *, loss: str
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Return checked inputs and targets as tensors beside the model; labels stay integers."""
    n_in, n_out = layers[0].linear.in_features, layers[-1].linear.out_features
    x, y = check_batch(x, y, loss=loss, n_in=n_in, n_out=n_out)
    if y is None:
        return tensor_like(layers, x), None
    if loss == "cross_entropy":
        return tensor_like(layers, x), torch.tensor(y, device=layers[0].linear.weight.device)
    return tensor_like(layers, x), tensor_like(layers, y)


def compute_loss(outputs: torch.Tensor, y: torch.Tensor | None, *, loss: str) -> torch.Tensor:
    """Return one of the losses of `course_lib.losses` as PyTorch computes it."""
    if loss == "mean_output":
        return outputs.mean()
    if loss == "mean_squared_error":
        return F.mse_loss(outputs, y)
    return F.cross_entropy(outputs, y)


def dtype_name(layers: list[Layer]) -> str:
    """Return "float32" or "float64"."""
    return str(layers[0].linear.weight.dtype).removeprefix("torch.")


def to_numpy(tensor: torch.Tensor | None) -> np.ndarray:
    """Return a tensor as a NumPy array of its dtype; an empty one for what does not exist."""
    return np.zeros(0) if tensor is None else tensor.detach().cpu().numpy()
