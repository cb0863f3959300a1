r"""Saturation as a property of the slope, and what shifting a sigmoid's inputs does to it.

A unit is called saturated at an input if its slope there is small against the largest slope its
activation can have: $|f'(z)| < s \cdot \sup|f'|$ with a stated share $s$. The definition fits every
activation: a sigmoid near 0 or 1, a tanh near -1 or 1 (not near 0, where it is steepest), and a
ReLU that is switched off.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_integer,
    require_real,
    require_sequence,
)
from course_lib.activations import ACTIVATIONS
from course_lib.results import format_number
from course_lib.specs import MLPWeights


@dataclass(frozen=True, eq=False)
class ActivationCurves:
    """Activations and their slopes, sampled on one grid.

    Fields:
        names: the activations' names, K of them.
        z: the preactivations, shape (m,).
        values: $f(z)$, shape (K, m).
        slopes: $f'(z)$, shape (K, m).
        suprema: $\\sup|f'|$ over the whole line, shape (K,).
    """

    names: tuple[str, ...]
    z: np.ndarray = field(repr=False)
    values: np.ndarray = field(repr=False)
    slopes: np.ndarray = field(repr=False)
    suprema: np.ndarray

    def describe(self) -> str:
        """Say each activation's largest slope, and its slope at the end of the grid."""
        parts = [
            f"{name} at most {format_number(top)} ({format_number(slope[0])} at "
            f"{self.z[0]:g} and {format_number(slope[-1])} at {self.z[-1]:g})"
            for name, top, slope in zip(self.names, self.suprema, self.slopes, strict=True)
        ]
        return f"Slopes: {', '.join(parts)}."


def sample_activation_curves(
    names: Sequence[str], *, limit: float = 6.0, points: int = 601
) -> ActivationCurves:
    """Return the activations `names` and their slopes at `points` values from -limit to limit.

    Raises TypeError or ValueError for no name, an unknown name, a limit that is not positive, or
    fewer than 3 points.
    """
    require_sequence("names", names, of="names")
    functions = [
        ACTIVATIONS[require_choice(f"names[{k}]", name, ACTIVATIONS)]
        for k, name in enumerate(names)
    ]
    limit = require_real("limit", limit, minimum=0.0, exclusive=True)
    z = np.linspace(-limit, limit, require_integer("points", points, minimum=3))
    return ActivationCurves(
        names=tuple(names),
        z=z,
        values=np.stack([f.function(z) for f in functions]),
        slopes=np.stack([f.derivative(z) for f in functions]),
        suprema=np.array([f.supremum for f in functions]),
    )


@dataclass(frozen=True, eq=False)
class LayerSaturation:
    r"""How flat an L-layer network's activations are where its preactivations lie.

    Fields:
        activations: the activation's name per layer.
        share: the share s of the supremum below which a slope counts as saturated.
        fractions: fraction of the (input, unit) pairs with $|f'(z_l)| < s\,\sup|f'|$, shape (L,).
        relative_slopes: mean of $|f'(z_l)|/\sup|f'|$ over inputs and units, shape (L,).
    """

    activations: tuple[str, ...]
    share: float
    fractions: np.ndarray
    relative_slopes: np.ndarray

    @property
    def depth(self) -> int:
        """The number L of layers."""
        return len(self.fractions)

    def describe(self) -> str:
        """Say the saturated share of all layers and the mean slope against the supremum."""
        return (
            f"Averaged over {self.depth} layers, {100 * self.fractions.mean():.0f} % of the units "
            f"have a slope below {100 * self.share:g} % of the supremum, and the mean slope is "
            f"{100 * self.relative_slopes.mean():.0f} % of it."
        )


def measure_saturation(
    preactivations: Sequence[np.ndarray], activations: Sequence[str], *, share: float = 0.1
) -> LayerSaturation:
    """Return, layer by layer, how many units are saturated and how steep they are on average.

    Arguments:
        preactivations: $z_1, ..., z_L$, each of shape (n, n_l), from whatever computed them; the
            reference keeps them in `model.forward(x).preactivations`.
        activations: the activation's name for each layer, as in `NetworkSpec.activations`.
        share: the share s of the supremum, above 0 and at most 1.
    """
    require_sequence("preactivations", preactivations, of="arrays")
    require_sequence("activations", activations, of="names")
    if len(activations) != len(preactivations):
        raise ValueError(
            f"`activations` (={activations!r}) must name one activation for each of the "
            f"{len(preactivations)} layers."
        )
    share = require_real("share", share, minimum=0.0, exclusive=True, maximum=1.0)
    relative = []
    for k, (z, name) in enumerate(zip(preactivations, activations, strict=True)):
        f = ACTIVATIONS[require_choice(f"activations[{k}]", name, ACTIVATIONS)]
        z = require_array(f"preactivations[{k}]", z, ndim=2)
        relative.append(np.abs(f.derivative(z)) / f.supremum)
    return LayerSaturation(
        activations=tuple(activations),
        share=share,
        fractions=np.array([np.mean(r < share) for r in relative]),
        relative_slopes=np.array([r.mean() for r in relative]),
    )


def center_sigmoid_inputs(weights: MLPWeights) -> MLPWeights:
    r"""Return the weights with $b_l = -\tfrac12 W_l \mathbf{1}$ for l >= 2 and $b_1$ as it was.

    A sigmoid's outputs scatter around 1/2; these biases subtract it, so that the preactivations
    scatter around 0, where sigmoids are steepest. With zero $b_1$, the network is then the tanh
    network of the matrices $W_1/2, W_2/4, ..., W_L/4$: with $h = (1 + u)/2$ and $z = 2a$,
    $a_l = \tfrac14 W_l u_{l-1}$ and $u_l = \tanh(a_l)$, because $\tanh(a) = 2\sigma(2a) - 1$.
    """
    if not isinstance(weights, MLPWeights):
        raise TypeError(f"`weights` (a {type(weights).__name__}) must be MLPWeights.")
    biases = [weights.biases[0], *[-0.5 * w.sum(axis=1) for w in weights.matrices[1:]]]
    return MLPWeights(weights.matrices, biases)
