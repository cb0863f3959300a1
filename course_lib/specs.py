r"""A network as data, and its initial weights as NumPy arrays.

Everything else in the package is a function of these two: the reference, PyTorch and TensorFlow
build the same network from one spec and one set of weights, and can be compared number by number.

Conventions: $h_0 = x$, $z_l = W_l h_{l-1} + b_l$, $h_l = f_l(z_l)$ for $l = 1, \dots, L$, with
$W_l$ of shape $(n_l, n_{l-1})$. Entry `[l - 1]` of a per-layer sequence belongs to layer $l$.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_integer,
    require_real,
    require_seed,
    require_sequence,
)
from course_lib.activations import ACTIVATIONS, get_activation
from course_lib.initialization import INITIALIZERS, draw_matrix


@dataclass(frozen=True)
class NetworkSpec:
    """A fully connected network of `depth` weight layers.

    Arguments:
        n_in: number of inputs $n_0$, at least 1.
        width: units in each hidden layer, at least 1.
        depth: number $L$ of weight matrices, at least 1; there are L - 1 hidden layers.
        n_out: number of outputs $n_L$, at least 1.
        activation: name of the hidden layers' activation (see `course_lib.ACTIVATIONS`).
        output_activation: name of the last layer's activation.
        init: name of the law of the weights (see `course_lib.initialization`).
        gain: factor on every weight, at least 0.
        bias: the value of every bias.
    """

    n_in: int
    width: int
    depth: int
    n_out: int = 1
    activation: str = "sigmoid"
    output_activation: str = "linear"
    init: str = "glorot_uniform"
    gain: float = 1.0
    bias: float = 0.0

    def __post_init__(self) -> None:
        for name in ("n_in", "width", "depth", "n_out"):
            object.__setattr__(self, name, require_integer(name, getattr(self, name), minimum=1))
        get_activation(self.activation)
        require_choice("output_activation", self.output_activation, ACTIVATIONS)
        require_choice("init", self.init, INITIALIZERS)
        object.__setattr__(self, "gain", require_real("gain", self.gain, minimum=0.0))
        object.__setattr__(self, "bias", require_real("bias", self.bias))

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """The sizes $(n_0, n_1, ..., n_L)$."""
        return (self.n_in, *[self.width] * (self.depth - 1), self.n_out)

    @property
    def activations(self) -> tuple[str, ...]:
        """The activation's name for each layer 1..L."""
        return (*[self.activation] * (self.depth - 1), self.output_activation)


def _read_only(name: str, value: object, ndim: int) -> np.ndarray:
    array = require_array(name, value, ndim=ndim).copy()
    array.setflags(write=False)
    return array


@dataclass(frozen=True, eq=False)
class MLPWeights:
    """The parameters of a fully connected network, as read-only float64 arrays.

    Arguments:
        matrices: $W_1, ..., W_L$, with $W_l$ of shape (n_l, n_{l-1}).
        biases: $b_1, ..., b_L$ of shape (n_l,); zeros if left out.

    Raises ValueError if shapes do not chain, or an entry is not finite (naming the layer).
    """

    matrices: Sequence[np.ndarray]
    biases: Sequence[np.ndarray] | None = None

    def __post_init__(self) -> None:
        given = require_sequence("matrices", self.matrices, of="matrices")
        matrices = tuple(_read_only(f"matrices[{k}]", w, 2) for k, w in enumerate(given))
        biases = self.biases
        if biases is None:
            biases = [np.zeros(len(w)) for w in matrices]
        require_sequence("biases", biases, of="vectors")
        biases = tuple(_read_only(f"biases[{k}]", b, 1) for k, b in enumerate(biases))
        if len(biases) != len(matrices):
            raise ValueError(f"`biases` (length {len(biases)}) must have {len(matrices)} entries.")
        for k, (w, b) in enumerate(zip(matrices, biases, strict=True)):
            if k and w.shape[1] != matrices[k - 1].shape[0]:
                raise ValueError(
                    f"`matrices[{k}]` (shape {w.shape}) must have {matrices[k - 1].shape[0]} "
                    f"columns, the number of rows of `matrices[{k - 1}]`."
                )
            if b.shape != (w.shape[0],):
                raise ValueError(f"`biases[{k}]` (shape {b.shape}) must have shape ({len(w)},).")
        object.__setattr__(self, "matrices", matrices)
        object.__setattr__(self, "biases", biases)

    @property
    def depth(self) -> int:
        """The number L of weight matrices."""
        return len(self.matrices)

    @property
    def layer_sizes(self) -> tuple[int, ...]:
        """The sizes $(n_0, n_1, ..., n_L)$."""
        return (self.matrices[0].shape[1], *[len(w) for w in self.matrices])

    @property
    def spectral_norms(self) -> np.ndarray:
        r"""The largest singular value $\|W_l\|$ of each matrix, shape (L,)."""
        return np.array([np.linalg.norm(w, 2) for w in self.matrices])


def check_weights(spec: NetworkSpec, weights: MLPWeights) -> None:
    """Raise unless `spec` is a NetworkSpec and `weights` have exactly its layer sizes."""
    if not isinstance(spec, NetworkSpec):
        raise TypeError(f"`spec` (={spec!r}) must be a NetworkSpec.")
    if not isinstance(weights, MLPWeights):
        raise TypeError(f"`weights` (a {type(weights).__name__}) must be MLPWeights.")
    if weights.layer_sizes != spec.layer_sizes:
        raise ValueError(
            f"`weights` (layer sizes {weights.layer_sizes}) must have the spec's layer sizes "
            f"{spec.layer_sizes}."
        )


def draw_weights(spec: NetworkSpec, *, seed: int) -> MLPWeights:
    """Draw the initial weights of `spec` with NumPy's PCG64, one stream for the whole network.

    The same spec and seed give the same numbers on every machine and for every framework.
    """
    if not isinstance(spec, NetworkSpec):
        raise TypeError(f"`spec` (={spec!r}) must be a NetworkSpec.")
    rng = np.random.default_rng(require_seed(seed))
    sizes = spec.layer_sizes
    matrices = [
        draw_matrix(spec.init, fan_in=n_in, fan_out=n_out, gain=spec.gain, rng=rng)
        for n_in, n_out in pairwise(sizes)
    ]
    return MLPWeights(matrices, [np.full(n, spec.bias) for n in sizes[1:]])


def rescale_spectral_norms(weights: MLPWeights, norm: float) -> MLPWeights:
    r"""Return the weights with every matrix scaled to $\|W_l\| =$ `norm`; biases stay.

    Raises ValueError if a matrix is zero, because nothing can scale it.
    """
    if not isinstance(weights, MLPWeights):
        raise TypeError(f"`weights` (a {type(weights).__name__}) must be MLPWeights.")
    norm = require_real("norm", norm, minimum=0.0, exclusive=True)
    for k, size in enumerate(weights.spectral_norms):
        if size == 0.0:
            raise ValueError(f"`weights.matrices[{k}]` (all zeros) must have a nonzero norm.")
    scaled = [
        w * (norm / size) for w, size in zip(weights.matrices, weights.spectral_norms, strict=True)
    ]
    return MLPWeights(scaled, weights.biases)
