r"""Several fully connected networks of one shape at once: S of them as one array, in float64 NumPy.

What is done to one network in `course_lib.reference.mlp` is done here to S networks that differ in
their weights and batches alone, so that a table over many seeds costs little more than one run:
matrices have the shape (S, n_l, n_{l-1}), batches (S, n, n_l). The activation of the hidden layers
may be each network's own. Hidden layers may be normalized before the activation, and may have a
shortcut around them:

$$h_l = [h_{l-1} +]\; f(\gamma_l \odot \mathrm{norm}(W_l h_{l-1} + b_l) + \beta_l),
\quad l = 2, \dots, L - 1,$$

layer 1 without the shortcut, since its input has another size. The normalization computes what
`course_lib.reference.normalization` does, for all S at once. Source: ioffe2015, ba2016, he2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_flag,
    require_sequence,
    require_type,
)
from course_lib.activations import ACTIVATIONS, get_activation, sigmoid_and_slope
from course_lib.losses import evaluate_loss
from course_lib.specs import MLPWeights, NetworkSpec, check_weights
from course_lib.stack_specs import NORMS


@dataclass(eq=False)
class EnsembleNorm:
    r"""Subtracts a mean and divides by $\sqrt{v + \epsilon}$, each network for itself.

    Fields:
        axis: over which mean and variance are taken: 1, the batch, or 2, the units of a layer.
        epsilon: $\epsilon \ge 0$, by default PyTorch's.
        new_share: the share of a new batch in the running averages, by default PyTorch's.
        mean, variance: running averages (S, 1, n_l), which evaluation uses if the axis is 1.
    """

    axis: int
    epsilon: float = 1e-5
    new_share: float = 0.1
    mean: np.ndarray | float = 0.0
    variance: np.ndarray | float = 1.0

    def forward(self, z: np.ndarray, training: bool) -> NormedLayer:
        """Normalize `z`, shape (S, n, n_l); with the batch as axis, training moves the averages."""
        if self.axis == 1 and not training:
            inverse = 1.0 / np.sqrt(self.variance + self.epsilon)
            return NormedLayer((z - self.mean) * inverse, inverse, None)
        mean = _average(z, self.axis)
        centered = z - mean
        variance = _average(centered**2, self.axis)
        if self.axis == 1:
            n = z.shape[1]
            self.mean = self.mean + self.new_share * (mean - self.mean)
            unbiased = variance * n / (n - 1)
            self.variance = self.variance + self.new_share * (unbiased - self.variance)
        inverse = 1.0 / np.sqrt(variance + self.epsilon)
        return NormedLayer(centered * inverse, inverse, self.axis)


@dataclass(eq=False)
class NormedLayer:
    r"""What a normalization did: $\hat z$, the factor $1/\sqrt{v + \epsilon}$, and the shared axis.

    The axis is None where mean and variance did not depend on the batch: in evaluation.
    """

    normalized: np.ndarray
    inverse: np.ndarray
    axis: int | None

    def backward(self, grad: np.ndarray) -> np.ndarray:
        r"""Return the gradient by z from the one by $\hat z$."""
        if self.axis is not None:
            along = _average(grad * self.normalized, self.axis)
            grad = grad - _average(grad, self.axis) - self.normalized * along
        return self.inverse * grad


def _average(a: np.ndarray, axis: int) -> np.ndarray:
    """Return the mean over one axis, which is kept; `np.mean` takes as long for its checks."""
    return np.add.reduce(a, axis=axis, keepdims=True) / a.shape[axis]


@dataclass(eq=False)
class Ensemble:
    """S networks of one shape that can be run and trained; training changes the arrays in place.

    Fields:
        spec: their common shape.
        hidden_activations: each network's.
        matrices, biases: one array per layer, (S, n_l, n_{l-1}) and (S, 1, n_l).
        gammas, betas: one per hidden layer, (S, 1, width); empty without normalization.
        norms: what normalizes, one per hidden layer; empty without normalization.
        shortcut: whether the hidden layers from the second on add their input.
    """

    spec: NetworkSpec
    hidden_activations: tuple[str, ...]
    matrices: list[np.ndarray] = field(repr=False)
    biases: list[np.ndarray] = field(repr=False)
    gammas: list[np.ndarray] = field(repr=False)
    betas: list[np.ndarray] = field(repr=False)
    norms: list[EnsembleNorm] = field(repr=False)
    shortcut: bool

    @property
    def size(self) -> int:
        """The number S of networks."""
        return len(self.matrices[0])

    @property
    def parameters(self) -> list[np.ndarray]:
        """All trained arrays: matrices, biases, then gammas and betas."""
        return [*self.matrices, *self.biases, *self.gammas, *self.betas]

    def adds_input(self, layer: int) -> bool:
        """Return whether `layer`, counted from 1, has a shortcut around it."""
        return self.shortcut and 1 < layer < self.spec.depth

    def forward(self, x: np.ndarray, *, training: bool) -> EnsemblePass:
        """Run S batches of shape (S, n, n_0), or one of shape (n, n_0) through all."""
        x = require_array("x", x)
        if x.ndim == 2:
            x = np.broadcast_to(x, (self.size, *x.shape))
        h = require_array("x", x, shape=(self.size, None, self.spec.n_in))
        require_flag("training", training)
        passed = EnsemblePass([], [], [h], [], [])
        for k in range(self.spec.depth):
            z = h @ self.matrices[k].transpose(0, 2, 1)
            z += self.biases[k]
            if k < len(self.norms):
                passed.normed.append(self.norms[k].forward(z, training))
                z = self.gammas[k] * passed.normed[k].normalized
                z += self.betas[k]
            f, slope = self._activate(k, z)
            h = h + f if self.adds_input(k + 1) else f
            passed.preactivations.append(z)
            passed.values.append(f)
            passed.slopes.append(slope)
            passed.activations.append(h)
        return passed

    def _activate(self, k: int, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return f(z) and f'(z) in layer k + 1: neighbours of one activation at one go."""
        if k == self.spec.depth - 1:
            return _value_and_slope(self.spec.activations[k], z)
        done, start = [], 0
        for name, same in groupby(self.hidden_activations):
            stop = start + len(list(same))
            done.append(_value_and_slope(name, z[start:stop]))
            start = stop
        values, slopes = zip(*done, strict=True)
        return (values[0], slopes[0]) if len(done) == 1 else (
            np.concatenate(values), np.concatenate(slopes)
        )  # fmt: skip

    def backward(
        self, passed: EnsemblePass, output_grad: np.ndarray
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        r"""Backpropagate `output_grad`, shape (S, n, n_L).

        Returns the gradients of `parameters`, and $\partial\mathcal{L}/\partial h_l$, l = 1..L.
        """
        shape = require_type("passed", passed, EnsemblePass).activations[-1].shape
        h_grad = require_array("output_grad", output_grad, shape=shape, finite=False)
        weights, biases, gammas, betas, states = [], [], [], [], []
        for k in reversed(range(self.spec.depth)):
            states.append(h_grad)
            delta = h_grad * passed.slopes[k]
            if k < len(self.norms):
                gammas.append(_sum(delta * passed.normed[k].normalized))
                betas.append(_sum(delta))
                delta = passed.normed[k].backward(self.gammas[k] * delta)
            weights.append(delta.transpose(0, 2, 1) @ passed.activations[k])
            biases.append(_sum(delta))
            through = delta @ self.matrices[k]
            h_grad = h_grad + through if self.adds_input(k + 1) else through
        grads = [part[::-1] for part in (weights, biases, gammas, betas)]
        return [g for part in grads for g in part], states[::-1]


@dataclass(eq=False)
class EnsemblePass:
    """What backpropagation needs to know of a forward pass.

    Fields:
        preactivations: what each activation received, (S, n, n_l); entry [l - 1] is layer l's.
        values: what each activation returned; $h_l$, but for a shortcut.
        activations: $h_0 = x, h_1, ..., h_L$.
        normed: what each normalization did, one per hidden layer; empty without.
        slopes: the derivative of each activation at what it received.
    """

    preactivations: list[np.ndarray]
    values: list[np.ndarray]
    activations: list[np.ndarray]
    normed: list[NormedLayer]
    slopes: list[np.ndarray]


def _value_and_slope(name: str, z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return f(z) and f'(z), without what the two have in common being computed twice."""
    if name == "sigmoid":
        return sigmoid_and_slope(z)
    if name == "linear":
        return z, np.ones_like(z)
    if name == "relu":
        return np.maximum(z, 0.0), (z > 0).astype(np.float64)
    if name == "tanh":
        value = np.tanh(z)
        return value, 1.0 - value**2  # as in the frameworks; from |z| = 19 on it is exactly 0
    f = get_activation(name)
    return f.function(z), f.derivative(z)


def _sum(a: np.ndarray) -> np.ndarray:
    """Return the sum over the batch, (S, n, n_l) -> (S, 1, n_l)."""
    return np.ones((1, a.shape[1])) @ a  # a product of matrices takes half as long as a sum


def build_ensemble(
    spec: NetworkSpec,
    weights: Sequence[MLPWeights],
    *,
    norm: str = "none",
    shortcut: bool = False,
    hidden_activations: Sequence[str] | None = None,
) -> Ensemble:
    """Return one network per entry of `weights`, with copies of them.

    Arguments:
        spec: their common shape and activations.
        weights: at least one draw.
        norm: "none", "batch" or "layer", in every hidden layer, before the activation.
        shortcut: whether the hidden layers from the second on add their input.
        hidden_activations: one for each network; fastest with equal ones side by side. None for
            the activation of `spec` in all.
    """
    require_sequence("weights", weights, of="MLPWeights")
    for drawn in weights:
        check_weights(spec, drawn)
    require_choice("norm", norm, NORMS)
    size, width = len(weights), spec.width
    if hidden_activations is None:
        hidden_activations = [spec.activation] * size
    if len(require_sequence("hidden_activations", hidden_activations, of="names")) != size:
        raise ValueError(
            f"`hidden_activations` (length {len(hidden_activations)}) must have one name for each "
            f"of the {size} networks."
        )
    for k, name in enumerate(hidden_activations):
        require_choice(f"hidden_activations[{k}]", name, ACTIVATIONS)
    hidden = range(spec.depth - 1 if norm != "none" else 0)
    return Ensemble(
        spec=spec,
        hidden_activations=tuple(hidden_activations),
        matrices=[np.stack(layer) for layer in zip(*(w.matrices for w in weights), strict=True)],
        biases=[np.stack(b)[:, None] for b in zip(*(w.biases for w in weights), strict=True)],
        gammas=[np.ones((size, 1, width)) for _ in hidden],
        betas=[np.zeros((size, 1, width)) for _ in hidden],
        norms=[EnsembleNorm(axis=1 if norm == "batch" else 2) for _ in hidden],
        shortcut=require_flag("shortcut", shortcut),
    )


def ensemble_loss(outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
    r"""Return the gradient of each network's mean cross-entropy by its outputs.

    Arguments:
        outputs: (S, n, n_L).
        y: labels, (S, n).
    """
    outputs = require_array("outputs", outputs, ndim=3, finite=False)
    labels = np.asarray(y).reshape(-1)
    _, grad = evaluate_loss(outputs.reshape(-1, outputs.shape[2]), labels, loss="cross_entropy")
    return len(outputs) * grad.reshape(outputs.shape)
