r"""A stack of blocks as data: residual or plain, normalized or not, and its initial weights.

$$h_0 = W_{in} x + b_{in}, \qquad h_l = h_{l-1} + \alpha_l F_l(h_{l-1}), \quad l = 1, \dots, L,$$

and a readout. Without shortcut, $h_l = \alpha_l F_l(h_{l-1})$. The branch $F_l$ has one or more
weight layers, in one of two orders:

| placement | one layer of the branch | after the addition | before the readout | source |
|---|---|---|---|---|
| pre | norm, activation, weights | nothing | norm, activation | he2016identity |
| post | weights, norm, activation (not in the last layer) | activation | nothing | he2016 |

Parameters are a dictionary from name to array; the names are those of the PyTorch twin:
"stem.weight", "blocks.0.linears.0.weight", "blocks.0.norms.0.weight" (gamma), "blocks.0.scale".
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_flag,
    require_integer,
    require_real,
    require_seed,
    require_type,
)
from course_lib.activations import get_activation
from course_lib.initialization import INITIALIZERS, draw_matrix
from course_lib.losses import check_batch

NORMS = ("none", "batch", "layer")
PLACEMENTS = ("pre", "post")


@dataclass(frozen=True)
class StackSpec:
    r"""A stack of `blocks` blocks of one width between a linear stem and a linear readout.

    Arguments:
        n_in, width, n_out: numbers of inputs, of units of every block, of outputs; at least 1.
        blocks: number $L$ of blocks, at least 1.
        layers: weight layers in each branch, at least 1.
        activation: name of the activation, see `course_lib.ACTIVATIONS`.
        norm: "none", "batch" or "layer".
        placement: "pre" or "post", see the table above.
        shortcut: whether $h_{l-1}$ is added.
        scale: the initial $\alpha_l$ of every block; it is a parameter and can be trained.
        init: law of the branches' matrices; stem and readout are drawn from "lecun_normal".
        gain: factor on the branches' matrices, at least 0.
        epsilon: of the normalization, at least 0.
    """

    n_in: int
    width: int
    blocks: int
    n_out: int = 1
    layers: int = 1
    activation: str = "relu"
    norm: str = "none"
    placement: str = "pre"
    shortcut: bool = True
    scale: float = 1.0
    init: str = "he_normal"
    gain: float = 1.0
    epsilon: float = 1e-5

    def __post_init__(self) -> None:
        for name in ("n_in", "width", "blocks", "n_out", "layers"):
            object.__setattr__(self, name, require_integer(name, getattr(self, name), minimum=1))
        get_activation(self.activation)
        require_choice("norm", self.norm, NORMS)
        require_choice("placement", self.placement, PLACEMENTS)
        require_choice("init", self.init, INITIALIZERS)
        object.__setattr__(self, "shortcut", require_flag("shortcut", self.shortcut))
        object.__setattr__(self, "scale", require_real("scale", self.scale))
        for name in ("gain", "epsilon"):
            object.__setattr__(self, name, require_real(name, getattr(self, name), minimum=0.0))

    @property
    def parameter_shapes(self) -> Mapping[str, tuple[int, ...]]:
        """The shape of every parameter by name, in the order of the forward pass."""
        n = self.width
        shapes: dict[str, tuple[int, ...]] = {"stem.weight": (n, self.n_in), "stem.bias": (n,)}
        norms: list[str] = []
        for block in range(self.blocks):
            shapes[f"blocks.{block}.scale"] = ()
            for k in range(self.layers):
                shapes[f"blocks.{block}.linears.{k}.weight"] = (n, n)
                shapes[f"blocks.{block}.linears.{k}.bias"] = (n,)
                norms.append(f"blocks.{block}.norms.{k}")
        norms += ["final_norm"] if self.placement == "pre" else []
        for name in norms if self.norm != "none" else []:
            shapes[f"{name}.weight"] = shapes[f"{name}.bias"] = (n,)
        return shapes | {"head.weight": (self.n_out, n), "head.bias": (self.n_out,)}


def draw_stack_weights(spec: StackSpec, *, seed: int) -> Mapping[str, np.ndarray]:
    """Draw the initial parameters of `spec`, float64 and read-only; biases and betas are zero."""
    require_type("spec", spec, StackSpec)
    rng = np.random.default_rng(require_seed(seed))
    parameters: dict[str, np.ndarray] = {}
    for name, shape in spec.parameter_shapes.items():
        if len(shape) == 2:
            inside = "linears" in name
            array = draw_matrix(
                spec.init if inside else "lecun_normal",
                fan_in=shape[1], fan_out=shape[0], gain=spec.gain if inside else 1.0, rng=rng,
            )  # fmt: skip
        elif name.endswith("scale"):
            array = np.array(spec.scale)
        else:
            array = np.full(shape, 1.0 if name.endswith("weight") else 0.0)
        array.setflags(write=False)
        parameters[name] = array
    return MappingProxyType(parameters)


def apply_fixup(
    spec: StackSpec, weights: Mapping[str, np.ndarray], *, zero_head: bool = True
) -> Mapping[str, np.ndarray]:
    r"""Return `weights` rescaled by Fixup's rules, for a residual stack without normalization.

    In a stack of L blocks with m matrices per branch, the last matrix of every branch becomes
    zero, so that each block starts as the identity, and the others are multiplied by

    $$L^{-1/(2m-2)} ,$$

    so that the L branches together change the outputs in the first steps by an amount that does
    not grow with L. Biases and the scale of each branch, which Fixup asks for, a stack has anyway.
    Source: zhang2019fixup.

    Arguments:
        spec: with shortcuts, without normalization, at least two layers per branch.
        weights: of `spec`, usually `draw_stack_weights` with He's law; not changed.
        zero_head: whether the readout's matrix becomes zero too, as Fixup has it. The first step
            then moves the readout alone, since no gradient comes through it.

    Raises ValueError for a stack to which the rules do not apply.
    """
    check_stack_weights(spec, weights)
    require_flag("zero_head", zero_head)
    if spec.norm != "none" or not spec.shortcut or spec.layers < 2:
        raise ValueError(
            f"`spec` (norm={spec.norm!r}, shortcut={spec.shortcut}, layers={spec.layers}) must "
            "have shortcuts, no normalization and at least 2 layers per branch."
        )
    factor = spec.blocks ** (-1.0 / (2 * spec.layers - 2))
    last = f".linears.{spec.layers - 1}.weight"
    rescaled: dict[str, np.ndarray] = {}
    for name, value in weights.items():
        array = np.array(value, dtype=np.float64)
        if name.endswith(last) or (name == "head.weight" and zero_head):
            array = np.zeros_like(array)
        elif ".linears." in name and array.ndim == 2:
            array *= factor
        array.setflags(write=False)
        rescaled[name] = array
    return MappingProxyType(rescaled)


def check_stack_weights(spec: StackSpec, weights: Mapping[str, np.ndarray]) -> None:
    """Raise unless `weights` holds exactly the parameters of `spec`, finite and of its shapes."""
    shapes = require_type("spec", spec, StackSpec).parameter_shapes
    if not isinstance(weights, Mapping):
        raise TypeError(f"`weights` (a {type(weights).__name__}) must map names to arrays.")
    if weights.keys() != shapes.keys():
        odd = sorted(map(str, weights.keys() ^ shapes.keys()))[0]
        raise ValueError(f"`weights` (with or without {odd!r}) must have the spec's parameters.")
    for name, shape in shapes.items():
        require_array(f"weights[{name!r}]", weights[name], shape=shape)


def check_stack_batch(
    spec: StackSpec, x: object, y: object, *, loss: str, training: bool
) -> tuple[np.ndarray, np.ndarray | None]:
    """Return checked inputs of shape (n, n_in) and the targets that `loss` needs.

    Raises ValueError for a single input in training mode where the stack has batch normalization:
    it has no variance. (PyTorch raises too; Keras would go on, and every gradient would be 0.)
    """
    require_type("spec", spec, StackSpec)
    training = require_flag("training", training)
    x, y = check_batch(x, y, loss=loss, n_in=spec.n_in, n_out=spec.n_out)
    if training and spec.norm == "batch" and len(x) == 1:
        raise ValueError("`x` (with 1 entry per unit) must have at least 2 in training mode.")
    return x, y
