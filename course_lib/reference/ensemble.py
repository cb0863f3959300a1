r"""Several fully connected networks of one shape at once: S of them as one array, in float64 NumPy.

What is done to one network in `course_lib.reference.mlp` is done here to S networks that differ in
their weights and batches alone, so that a table over many seeds costs little more than one run:
matrices have the shape (S, n_l, n_{l-1}), batches (S, n, n_l). Hidden layers may be normalized
before the activation, and may have a shortcut around them:

$$h_l = [h_{l-1} +]\; f(\gamma_l \odot \mathrm{norm}(W_l h_{l-1} + b_l) + \beta_l),
\quad l = 2, \dots, L - 1,$$

layer 1 without the shortcut, since its input has another size. The normalization itself is that of
`course_lib.reference.normalization`. Source: ioffe2015, ba2016, he2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_flag,
    require_sequence,
    require_type,
)
from course_lib.activations import get_activation, sigmoid_and_slope
from course_lib.losses import evaluate_loss
from course_lib.reference.normalization import (
    BatchNorm,
    LayerNorm,
    NormPass,
    standardize_backward,
)
from course_lib.specs import MLPWeights, NetworkSpec, check_weights
from course_lib.stack_specs import NORMS


@dataclass(eq=False)
class Ensemble:
    """S networks of one shape that can be run and trained; training changes the arrays in place.

    Fields:
        spec: their common shape and activations.
        matrices, biases: one array per layer, (S, n_l, n_{l-1}) and (S, 1, n_l).
        gammas, betas: one per hidden layer, (S, 1, width); empty without normalization.
        norms: what normalizes, one per hidden layer; empty without normalization.
        shortcut: whether the hidden layers from the second on add their input.
    """

    spec: NetworkSpec
    matrices: list[np.ndarray] = field(repr=False)
    biases: list[np.ndarray] = field(repr=False)
    gammas: list[np.ndarray] = field(repr=False)
    betas: list[np.ndarray] = field(repr=False)
    norms: list[BatchNorm | LayerNorm] = field(repr=False)
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
        passed = EnsemblePass([], [h], [], [])
        for k, name in enumerate(self.spec.activations):
            z = h @ self.matrices[k].transpose(0, 2, 1)
            z += self.biases[k]
            if k < len(self.norms):
                passed.normed.append(_normalize(self.norms[k], z, training))
                normalized = _split(passed.normed[k].normalized, self.norms[k], z.shape)
                z = self.gammas[k] * normalized
                z += self.betas[k]
            f, slope = _value_and_slope(name, z)
            h = h + f if self.adds_input(k + 1) else f
            passed.preactivations.append(z)
            passed.slopes.append(slope)
            passed.activations.append(h)
        return passed

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
                normed = _split(passed.normed[k].normalized, self.norms[k], delta.shape)
                gammas.append((delta * normed).sum(axis=1, keepdims=True))
                betas.append(delta.sum(axis=1, keepdims=True))
                inside = _join(self.gammas[k] * delta, self.norms[k])
                delta = _split(standardize_backward(passed.normed[k], inside), self.norms[k],
                               delta.shape)  # fmt: skip
            weights.append(delta.transpose(0, 2, 1) @ passed.activations[k])
            biases.append(delta.sum(axis=1, keepdims=True))
            through = delta @ self.matrices[k]
            h_grad = h_grad + through if self.adds_input(k + 1) else through
        grads = [part[::-1] for part in (weights, biases, gammas, betas)]
        return [g for part in grads for g in part], states[::-1]


@dataclass(eq=False)
class EnsemblePass:
    """What backpropagation needs to know of a forward pass.

    Fields:
        preactivations: what each activation received, (S, n, n_l); entry [l - 1] is layer l's.
        activations: $h_0 = x, h_1, ..., h_L$.
        normed: what each normalization did, one per hidden layer; empty without.
        slopes: the derivative of each activation at what it received; 1.0 in a linear layer.
    """

    preactivations: list[np.ndarray]
    activations: list[np.ndarray]
    normed: list[NormPass]
    slopes: list[np.ndarray | float]


def _value_and_slope(name: str, z: np.ndarray) -> tuple[np.ndarray, np.ndarray | float]:
    """Return f(z) and f'(z), without what the two have in common being computed twice."""
    if name == "sigmoid":
        return sigmoid_and_slope(z)
    if name == "linear":
        return z, 1.0
    f = get_activation(name)
    return f.function(z), f.derivative(z)


def _join(z: np.ndarray, norm: BatchNorm | LayerNorm) -> np.ndarray:
    """Put the networks side by side, (n, S units), for a norm over the batch, else leave z."""
    if isinstance(norm, LayerNorm):
        return z
    return z.transpose(1, 0, 2).reshape(z.shape[1], -1)


def _split(joined: np.ndarray, norm: BatchNorm | LayerNorm, shape: tuple) -> np.ndarray:
    if isinstance(norm, LayerNorm):
        return joined
    return joined.reshape(shape[1], shape[0], shape[2]).transpose(1, 0, 2)


def _normalize(norm: BatchNorm | LayerNorm, z: np.ndarray, training: bool) -> NormPass:
    return norm.forward(_join(z, norm), training=training)


def build_ensemble(
    spec: NetworkSpec,
    weights: Sequence[MLPWeights],
    *,
    norm: str = "none",
    shortcut: bool = False,
) -> Ensemble:
    """Return one network per entry of `weights`, with copies of them.

    Arguments:
        spec: their common shape and activations.
        weights: at least one draw.
        norm: "none", "batch" or "layer", in every hidden layer, before the activation.
        shortcut: whether the hidden layers from the second on add their input.
    """
    require_sequence("weights", weights, of="MLPWeights")
    for drawn in weights:
        check_weights(spec, drawn)
    require_choice("norm", norm, NORMS)
    size, width = len(weights), spec.width
    hidden = range(spec.depth - 1 if norm != "none" else 0)
    return Ensemble(
        spec=spec,
        matrices=[np.stack(layer) for layer in zip(*(w.matrices for w in weights), strict=True)],
        biases=[np.stack(b)[:, None] for b in zip(*(w.biases for w in weights), strict=True)],
        gammas=[np.ones((size, 1, width)) for _ in hidden],
        betas=[np.zeros((size, 1, width)) for _ in hidden],
        norms=[BatchNorm(size * width) if norm == "batch" else LayerNorm(width) for _ in hidden],
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
