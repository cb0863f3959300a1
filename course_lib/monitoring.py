r"""What a monitor records of a training run, for any model: framework-free and bounded in memory.

`GradientFlowMonitor` in `course_lib.pytorch` and `course_lib.tf` measures on the device, hands over
one `Sample` per sampled step, and a `course_lib.flow_recorder.FlowRecorder` keeps them; `record` is
what came of it.

Four states of a unit are told apart (see also `course_lib.inspection`): *inactive* on an input
(a ReLU whose output is 0 there), *dead* (inactive on every input looked at), *always-on* (active on
every input, so that the unit is linear), and *saturated* (its slope is below a share s of the
largest slope its activation can have, $|f'(z)| < s \sup|f'|$, as in `course_lib.saturation`).
Source: glorot2010 (activations and gradients over layers and steps as the thing to watch).
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from operator import attrgetter

import numpy as np

from course_lib.activations import get_activation
from course_lib.results import decades, format_number

ONE_SIDED = ("relu", "relu6", "leaky_relu", "elu", "selu", "gelu", "silu", "mish", "hardswish",
             "softplus")  # fmt: skip
"""Activations with an active side, h > 0. The others (sigmoid, tanh) are only flat or steep."""

ACTIVATION_KINDS = (*ONE_SIDED, "sigmoid", "tanh", "hardsigmoid", "hardtanh", "softmax")
"""Softmax counts rows, not values: attention that has settled on one position passes nothing."""

GATE_KINDS = ("gate", "forget_gate")
"""What is inside a recurrent layer: see `course_lib.gates`."""

HELD = 0.95
"""Share of its values at which a gate's unit is flat, from which on it holds still. In networks
that have learned, more than half of a gate's values may be flat, and one unit in twenty holds."""


@lru_cache(maxsize=64)
def flat_below(name: str, share: float) -> float:
    r"""Return the largest z on a fine grid such that $|f'| < s \sup|f'|$ everywhere below it."""
    z = np.linspace(-40.0, 5.0, 45001)
    if name == "mish":  # z tanh(softplus(z)), whose slope reaches 1.0886
        gate = np.tanh(np.logaddexp(0.0, z))
        slopes, supremum = gate + z * (1 - gate**2) / (1 + np.exp(-z)), 1.0886
    else:
        f = get_activation(name)
        slopes, supremum = f.derivative(z), f.supremum
    steep = np.abs(slopes) >= share * supremum
    return float(z[np.argmax(steep)]) if steep.any() else np.inf


def flat_mask(name: str, h: object, z: object, share: float) -> object | None:
    """Return where an activation is saturated, as a mask of h's framework and shape.

    Arguments:
        name: one of `ACTIVATION_KINDS`.
        h: the outputs, an array of NumPy, PyTorch or TensorFlow.
        z: the preactivations, or None if they are not at hand.
        share: the share s of the largest slope.

    None where nothing can be said: a leaky ReLU is nowhere flat, and a GELU, SiLU or Mish cannot
    be judged from its output alone, which takes the same value at two preactivations.
    """
    if name == "relu":
        return h <= 0
    if name == "relu6":
        return (h <= 0) | (h >= 6)
    if name == "sigmoid":
        return 4 * h * (1 - h) < share
    if name == "tanh":
        return 1 - h * h < share
    if name == "elu":  # the slope is h + 1 on the left, with alpha = 1
        return h < share - 1
    if name == "softplus":  # the slope is 1 - exp(-h)
        return h < -np.log1p(-share)
    if name == "selu":  # its steepest slope, at 0 from the left, is 1.7581
        return h + 1.7581 < share * 1.7581
    if name == "hardswish":  # 0 below -3, and nowhere else but at 0 itself
        return h == 0
    if name == "hardsigmoid":
        return (h <= 0) | (h >= 1)
    if name == "hardtanh":
        return (h <= -1) | (h >= 1)
    if name in ("gelu", "silu", "mish") and z is not None:
        return z < flat_below(name, share)
    return None


@dataclass(eq=False)
class Site:
    """What one call of one layer gave in one sampled step; numbers may still be on the device.

    Fields:
        name: the layer, with "#2" for its second call in the same pass.
        kind: its class.
        activation: one of `ACTIVATION_KINDS` or `GATE_KINDS`, or None.
        size: number of entries of the output.
        rows: number of values per unit: inputs, times positions for images and sequences.
        norm, grad_norm: Euclidean norms of the output and of the loss's gradient at it.
        active, flat: how many of a unit's values are above 0, or saturated, shape (units,).
    """

    name: str
    kind: str
    activation: str | None
    size: int
    rows: int
    norm: object = None
    grad_norm: object = None
    active: object = None
    flat: object = None


@dataclass
class ParameterState:
    """What one parameter gave in one sampled step; `layer` owns it, `ndim` is its rank."""

    name: str
    layer: str
    ndim: int
    trainable: bool
    grad_norm: object = None
    norm: object = None
    update: object = None


_SITE_SLOTS = ("norm", "grad_norm", "active", "flat")
_PARAMETER_SLOTS = ("grad_norm", "norm", "update")


@dataclass
class Sample:
    """One sampled step.

    `gradient_scale` is what a loss scaler multiplied the loss by; `left_over` whether gradients of
    the step before were still there whenever a backward pass began, None if nobody looked.
    """

    step: int
    sites: list[Site]
    parameters: list[ParameterState]
    gradient_scale: object = None
    left_over: object = None

    def slots(self, kind: type) -> list[tuple[object, str]]:
        """Return every (object, field) that holds something of a framework's `kind`, in order."""
        found = []
        for owners, names in (
            (self.sites, _SITE_SLOTS), (self.parameters, _PARAMETER_SLOTS),
            ([self], ("gradient_scale", "left_over")),
        ):  # fmt: skip
            for name in names:  # of a field, most often all owners have it there or none
                column = list(map(attrgetter(name), owners))
                if any(issubclass(held, kind) for held in set(map(type, column))):
                    found += [
                        (owner, name)
                        for owner, value in zip(owners, column, strict=True)
                        if isinstance(value, kind)
                    ]
        return found

    def fill(self, values: list, slots: list[tuple[object, str]]) -> None:
        """Replace what the slots hold by numbers on the host."""
        for (owner, name), value in zip(slots, values, strict=True):
            counts = name in ("active", "flat")
            setattr(owner, name, value if counts else float(value.reshape(())))

    def unscale(self) -> None:
        """Undo the loss scaling."""
        if self.gradient_scale is not None:
            for owner in (*self.sites, *self.parameters):
                if owner.grad_norm is not None:
                    owner.grad_norm /= self.gradient_scale


@dataclass(frozen=True)
class NonFiniteEvent:
    """The first time that a quantity of one layer or parameter was not finite.

    Fields:
        step: the sampled step, counted from 0.
        where: the layer or the parameter.
        quantity: "activation", "activation gradient", "weight gradient" or "weight".
        value: "nan" or "inf".
    """

    step: int
    where: str
    quantity: str
    value: str


@dataclass(frozen=True, eq=False)
class FlowRecord:
    r"""What a `GradientFlowMonitor` saw: R sampled steps, K layers, P parameters.

    Layers stand in the order in which they ran, so that column 0 is nearest to the input; a layer
    that ran twice in a pass has a second column "name#2". NaN marks what does not apply or was not
    there (the active fraction of a linear layer, the gradient of a frozen one).

    Fields:
        framework: "PyTorch", "TensorFlow" or "NumPy".
        every: sampling interval asked for; `steps` shows the one in force after thinning.
        layers, kinds, activations: name, class and activation (or None) per layer.
        steps: the sampled steps, shape (R,); step 0 is before the first update.
        activation_scales: root mean square of the output's entries, (R, K).
        activation_grad_norms: $\|\partial\mathcal{L}/\partial h\|$ over the batch, (R, K).
        active_fractions: fraction of the values above 0, one-sided activations only, (R, K).
        dead_fractions: fraction of the units off on the whole sampled batch, one-sided
            activations only, (R, K).
        always_on_fractions: fraction of the units above 0 on the whole batch, (R, K).
        saturated_fractions: fraction of the values at which the activation is flat, (R, K).
        parameters, parameter_layers, parameter_ranks, trainable: per parameter.
        weight_grad_norms: norm of the gradient as the backward pass left it, before any
            clipping, (R, P).
        weight_norms: norm of the parameter before the update, (R, P).
        update_ratios: norm of the update over that norm, (R, P); NaN for an all-zero parameter.
        unit_active_fractions: per layer, in the last sampled batch, shape (units,), or None.
        unit_last_active: per layer, the last sampled step at which each unit was active on any
            input, -1 if at none, shape (units,), or None.
        nonfinite: the first time per place, in the order in which a step computes them.
        lost_steps: the sampled steps in which some gradient was there and was not finite.
        left_over: the sampled steps at which every backward pass began with the gradients of the
            step before still there; empty where nobody looked (PyTorch's monitor does).
        unused: parameters without a gradient that, changed, did not change the loss either; None
            if nobody tried (`diagnose_model` does).
        normalized: layers whose output went into a normalization as it was; None if nobody looked
            (`diagnose_model` does).
        gains: of the matrices of dense and convolutional layers at the first step, the root mean
            square of the entries times the root of how many inputs one output sums up: by this
            they multiply independent inputs, 1.4 by He's rule. Shape (P,), NaN for all others;
            None if nobody looked.
        inner: layers whose output goes, by whatever way, into another layer with parameters: no
            heads; None if nobody looked (`diagnose_model` does, in Keras where a matrix is small).
        held_fractions: of a recurrent gate's units, the fraction that is flat on nearly all values
            of the sampled batch (`HELD`), (R, K); None if nobody counted.
        summed: layers whose output is a term of a sum as it is, and nothing else, as that of the
            last layer of a residual branch; None if nobody looked (`diagnose_model` in PyTorch
            does).
    """

    framework: str
    every: int
    layers: tuple[str, ...]
    kinds: tuple[str, ...] = field(repr=False)
    activations: tuple[str | None, ...] = field(repr=False)
    steps: np.ndarray = field(repr=False)
    activation_scales: np.ndarray = field(repr=False)
    activation_grad_norms: np.ndarray = field(repr=False)
    active_fractions: np.ndarray = field(repr=False)
    dead_fractions: np.ndarray = field(repr=False)
    always_on_fractions: np.ndarray = field(repr=False)
    saturated_fractions: np.ndarray = field(repr=False)
    parameters: tuple[str, ...] = field(repr=False)
    parameter_layers: tuple[str, ...] = field(repr=False)
    parameter_ranks: tuple[int, ...] = field(repr=False)
    trainable: tuple[bool, ...] = field(repr=False)
    weight_grad_norms: np.ndarray = field(repr=False)
    weight_norms: np.ndarray = field(repr=False)
    update_ratios: np.ndarray = field(repr=False)
    unit_active_fractions: tuple[np.ndarray | None, ...] = field(repr=False)
    unit_last_active: tuple[np.ndarray | None, ...] = field(repr=False)
    nonfinite: tuple[NonFiniteEvent, ...] = ()
    lost_steps: tuple[int, ...] = field(default=(), repr=False)
    left_over: tuple[int, ...] = field(default=(), repr=False)
    unused: tuple[str, ...] | None = field(default=None, repr=False)
    normalized: tuple[str, ...] | None = field(default=None, repr=False)
    gains: np.ndarray | None = field(default=None, repr=False)
    inner: tuple[str, ...] | None = field(default=None, repr=False)
    summed: tuple[str, ...] | None = field(default=None, repr=False)
    held_fractions: np.ndarray | None = field(default=None, repr=False)

    def __len__(self) -> int:
        """The number R of sampled steps."""
        return len(self.steps)

    @property
    def global_norms(self) -> np.ndarray:
        """The norm of all parameters' gradients as one vector, in float64, shape (R,)."""
        with np.errstate(over="ignore", invalid="ignore"):
            kept = np.where(np.isnan(self.weight_grad_norms), 0.0, self.weight_grad_norms)
            total = np.sqrt(np.sum(kept**2, axis=1))
        lost = {e.step for e in self.nonfinite if e.quantity == "weight gradient"}
        total[np.isin(self.steps, [*lost, *self.lost_steps])] = np.nan
        return total

    def describe(self) -> str:
        """Say how many steps were sampled, and how the gradient changes from last to first."""
        if len(self) == 0:
            return f"{self.framework}: no step was sampled."
        norms = self.activation_grad_norms[-1]
        known = np.flatnonzero(np.isfinite(norms) & (norms > 0))
        text = (
            f"{self.framework}, {len(self)} sampled steps from {self.steps[0]} to "
            f"{self.steps[-1]}, {len(self.layers)} layer outputs, {len(self.parameters)} parameters"
        )
        if len(known) > 1:
            first, last = known[0], known[-1]
            text += (
                f"; in the last one the activation gradient goes from {format_number(norms[last])} "
                f"at {self.layers[last]} to {format_number(norms[first])} at {self.layers[first]} "
                f"({decades(norms[last], norms[first]):+.1f} decades)"
            )
        if self.nonfinite:
            event = self.nonfinite[0]
            text += (
                f"; first not finite: the {event.quantity} of {event.where} ({event.value}) at "
                f"step {event.step}"
            )
        return text + "."

    def to_json(self) -> str:
        """Return the whole record as JSON; what is not finite becomes null, "inf" or "-inf"."""
        return json.dumps({name: _plain(value) for name, value in vars(self).items()})


def _plain(value: object) -> object:
    """Return `value` in JSON's types."""
    if isinstance(value, (np.ndarray, tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, NonFiniteEvent):
        return vars(value)
    if isinstance(value, (np.bool_, np.integer)):
        return value.item()
    if isinstance(value, (float, np.floating)):
        number = float(value)
        if np.isnan(number):
            return None
        return number if np.isfinite(number) else str(number)
    return value
