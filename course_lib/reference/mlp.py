r"""A multilayer perceptron with its backpropagation, written out in float64 NumPy.

The whole algorithm is `forward` (remember every $z_l$ and $h_l$) and `backward` (three lines per
layer). With $\delta_l = \partial\mathcal{L}/\partial z_l$, batches as rows:

$$\delta_l = \frac{\partial\mathcal{L}}{\partial h_l} \odot f'(z_l), \quad
\frac{\partial\mathcal{L}}{\partial W_l} = \delta_l^\top h_{l-1}, \quad
\frac{\partial\mathcal{L}}{\partial h_{l-1}} = \delta_l W_l .$$

Source: rumelhart1986.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_labels,
    require_sequence,
    require_type,
)
from course_lib.activations import ACTIVATIONS, get_activation
from course_lib.losses import check_batch, evaluate_loss
from course_lib.results import GradientFlow, LayerJacobians
from course_lib.specs import MLPWeights, NetworkSpec, check_weights


@dataclass(eq=False)
class MLP:
    """A network that can be run and trained: lists of matrices, biases and activation names.

    `matrices[l - 1]` is $W_l$ of shape (n_l, n_{l-1}); training changes the arrays in place.
    """

    matrices: list[np.ndarray] = field(repr=False)
    biases: list[np.ndarray] = field(repr=False)
    activations: tuple[str, ...]

    def __post_init__(self) -> None:
        require_sequence("biases", self.biases, of="vectors")
        depth = MLPWeights(self.matrices, self.biases).depth  # raises where shapes do not chain
        self.matrices = [np.asarray(w, dtype=np.float64) for w in self.matrices]
        self.biases = [np.asarray(b, dtype=np.float64) for b in self.biases]
        if len(require_sequence("activations", self.activations, of="names")) != depth:
            raise ValueError(f"`activations` (={self.activations}) must have {depth} entries.")
        for k, name in enumerate(self.activations):
            require_choice(f"activations[{k}]", name, ACTIVATIONS)

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """The sizes $(n_0, n_1, ..., n_L)$."""
        return (self.matrices[0].shape[1], *[len(w) for w in self.matrices])

    def forward(self, x: np.ndarray) -> ForwardPass:
        """Run a batch of shape (n, n_0) and remember every layer; see `ForwardPass`."""
        h = require_array("x", x, shape=(None, self.layer_sizes[0]))
        preactivations, activations = [], [h]
        for matrix, bias, name in zip(self.matrices, self.biases, self.activations, strict=True):
            z = h @ matrix.T + bias
            h = get_activation(name).function(z)
            preactivations.append(z)
            activations.append(h)
        return ForwardPass(preactivations, activations)

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the outputs $h_L$, shape (n, n_L), for inputs of shape (n, n_0)."""
        return self.forward(x).activations[-1]


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """What backpropagation needs to know of a forward pass.

    Fields:
        preactivations: $z_1, ..., z_L$, each (n, n_l); entry [l - 1] belongs to layer l.
        activations: $h_0 = x, h_1, ..., h_L$, each (n, n_l); entry [l] belongs to layer l.
    """

    preactivations: list[np.ndarray]
    activations: list[np.ndarray]


def build_mlp(spec: NetworkSpec, weights: MLPWeights, *, dtype: str = "float64") -> MLP:
    """Return the network `spec` with a copy of `weights`. The reference knows only float64."""
    check_weights(spec, weights)
    require_choice("dtype", dtype, ("float64",))
    return MLP(
        [w.copy() for w in weights.matrices], [b.copy() for b in weights.biases], spec.activations
    )


def require_mlp(model: object) -> None:
    """Raise TypeError unless `model` is an MLP."""
    if not isinstance(model, MLP):
        raise TypeError(f"`model` (a {type(model).__name__}) must be a course_lib.reference.MLP.")


def _check_backward(model: object, passed: object, output_grad: object) -> np.ndarray:
    """Return `output_grad` as an array that fits the pass, which must be one of this model."""
    require_mlp(model)
    sizes = tuple(h.shape[1] for h in require_type("passed", passed, ForwardPass).activations)
    if sizes != model.layer_sizes:
        raise ValueError(f"`passed` (layer sizes {sizes}) must have {model.layer_sizes}.")
    # A pass that overflowed has gradients all the same: inf and NaN, as in both frameworks.
    shape = passed.activations[-1].shape
    return require_array("output_grad", output_grad, shape=shape, finite=False)


def backward(
    model: MLP, passed: ForwardPass, output_grad: np.ndarray
) -> tuple[list[np.ndarray], list[np.ndarray], list[np.ndarray]]:
    r"""Backpropagate `output_grad` $= \partial\mathcal{L}/\partial h_L$, shape (n, n_L).

    Returns three lists for l = 1..L: the gradients with respect to $W_l$ (n_l, n_{l-1}),
    $b_l$ (n_l,) and $h_l$ (n, n_l).
    """
    h_grad = _check_backward(model, passed, output_grad)
    weight_grads, bias_grads, activation_grads = [], [], []
    for k in reversed(range(len(model.matrices))):
        activation_grads.append(h_grad)
        delta = h_grad * get_activation(model.activations[k]).derivative(passed.preactivations[k])
        weight_grads.append(delta.T @ passed.activations[k])
        bias_grads.append(delta.sum(axis=0))
        h_grad = delta @ model.matrices[k]
    return weight_grads[::-1], bias_grads[::-1], activation_grads[::-1]


def gradient_flow(
    model: MLP, x: np.ndarray, y: np.ndarray | None = None, *, loss: str = "mean_squared_error"
) -> GradientFlow:
    """Return every gradient of one backward pass.

    Arguments:
        model: what `build_mlp` returned.
        x: inputs, shape (n, n_0).
        y: the loss's targets; see `course_lib.losses`.
        loss: "mean_squared_error", "cross_entropy" or "mean_output".
    """
    require_mlp(model)
    sizes = model.layer_sizes
    x, y = check_batch(x, y, loss=loss, n_in=sizes[0], n_out=sizes[-1])
    passed = model.forward(x)
    value, output_grad = evaluate_loss(passed.activations[-1], y, loss=loss)
    weight_grads, bias_grads, activation_grads = backward(model, passed, output_grad)
    return GradientFlow(
        framework="NumPy",
        dtype="float64",
        loss=value,
        weight_grads=tuple(weight_grads),
        bias_grads=tuple(bias_grads),
        activation_grads=tuple(activation_grads),
        activations=tuple(passed.activations[1:]),
    )


def layer_jacobians(model: MLP, x: np.ndarray) -> LayerJacobians:
    r"""Return $J_l = \mathrm{diag}(f'(z_l))\, W_l$ for l = 1..L at one input x of shape (n_0,)."""
    require_mlp(model)
    x = require_array("x", x, shape=(model.layer_sizes[0],))
    passed = model.forward(x[None, :])
    jacobians = tuple(
        get_activation(name).derivative(z[0])[:, None] * matrix
        for name, z, matrix in zip(
            model.activations, passed.preactivations, model.matrices, strict=True
        )
    )
    return LayerJacobians(framework="NumPy", dtype="float64", jacobians=jacobians)


def accuracy(model: MLP, x: np.ndarray, y: np.ndarray) -> float:
    """Return the fraction of rows of `x` whose largest output is at the label `y`."""
    require_mlp(model)
    outputs = model(x)
    labels = require_labels("y", y, shape=(len(outputs),), classes=outputs.shape[1])
    return float(np.mean(outputs.argmax(axis=1) == labels))
