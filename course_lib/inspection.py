r"""What an inspection of a model found: units, Jacobian spectra, clipping. Framework-free results.

The functions that fill them, `dead_units`, `saturation`, `jacobian_spectrum` and `clip_audit`, are
in `course_lib.pytorch` and `course_lib.tf`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib import clipping
from course_lib._validation import require_choice, require_real
from course_lib.monitoring import ONE_SIDED
from course_lib.results import format_number
from course_lib.stability import measure_norm

SPECTRUM_METHODS = ("exact", "product", "randomized")
CLIP_METHODS = ("value", "norm", "global_norm")


@dataclass(frozen=True, eq=False)
class LayerUnits:
    """How often each unit of one activation was on, and how often flat, over a whole data set.

    Fields:
        name, activation: the layer, and one of `ACTIVATION_KINDS` or `GATE_KINDS` of
            `course_lib.monitoring`.
        active: fraction of each unit's values above 0, shape (units,); None for sigmoid and tanh.
        flat: fraction at which the unit is saturated, shape (units,); None where not defined.
    """

    name: str
    activation: str
    active: np.ndarray | None = field(repr=False)
    flat: np.ndarray | None = field(repr=False)

    @property
    def dead(self) -> np.ndarray:
        """Which units are dead: switched off on every input of the data set, shape (units,).

        A sigmoid or tanh unit has no off side: it may be `saturated`, and is never dead.
        """
        if self.activation in ("relu", "relu6"):
            return self.active == 0
        return self.saturated & (self.activation in ONE_SIDED)

    @property
    def saturated(self) -> np.ndarray:
        """Which units are flat on every input of the data set, shape (units,)."""
        flat = 1 - self.active if self.activation == "relu" else self.flat
        return np.zeros(self.count, dtype=bool) if flat is None else flat == 1

    @property
    def always_on(self) -> np.ndarray:
        """Which units are above 0 on every input, so that they are linear, shape (units,)."""
        if self.active is None:
            return np.zeros(self.count, dtype=bool)
        return self.active == 1

    @property
    def count(self) -> int:
        """The number of units."""
        return len(self.active if self.active is not None else self.flat)

    @property
    def inactive_fraction(self) -> float:
        """Fraction of the values that are inactive; about one half in a healthy ReLU layer."""
        return float("nan") if self.active is None else float(1 - self.active.mean())

    @property
    def saturated_fraction(self) -> float:
        """Fraction of the values at which the activation is flat; NaN where not defined."""
        flat = 1 - self.active if self.activation == "relu" else self.flat
        return float("nan") if flat is None else float(flat.mean())


@dataclass(frozen=True, eq=False)
class UnitReport:
    """The units of every activation of a model, over a whole data set, in evaluation mode.

    Fields:
        framework: "PyTorch" or "TensorFlow".
        inputs: number of inputs looked at.
        share: the share of the largest slope below which a value counts as saturated.
        layers: one `LayerUnits` per activation, in the order in which they ran.
    """

    framework: str
    inputs: int
    share: float
    layers: tuple[LayerUnits, ...]

    def describe(self) -> str:
        """Say how many units are dead and always on, and how many values inactive."""
        total = sum(layer.count for layer in self.layers)
        if total == 0:
            return f"{self.framework}: no activation was found in the model."
        dead = sum(int(layer.dead.sum()) for layer in self.layers)
        always = sum(int(layer.always_on.sum()) for layer in self.layers)
        text = (
            f"{self.framework}, {self.inputs} inputs, {len(self.layers)} activations with {total} "
            f"units: {dead} dead on the whole data set, {always} always on"
        )
        one_sided = [layer for layer in self.layers if layer.activation in ONE_SIDED]
        if one_sided:
            values = np.concatenate([1 - layer.active for layer in one_sided])
            text += f"; {100 * values.mean():.0f} % of the values inactive"
        known = [layer.saturated_fraction for layer in self.layers]
        known = [(value, k) for k, value in enumerate(known) if value == value]
        if known:
            value, k = max(known)
            text += f"; most saturated: {self.layers[k].name} ({100 * value:.0f} %)"
        return text + "."


@dataclass(frozen=True, eq=False)
class JacobianSpectrum:
    r"""Singular values of the Jacobian of a model's output by its input, at one input.

    Fields:
        framework, dtype, method: how it was computed; see `SPECTRUM_METHODS`.
        shape: (m, n), outputs by inputs.
        singular_values: largest first; all min(m, n), or the k largest if randomized.
        noise_floor: values at or below this are rounding error, $K \max(m, n)\,\epsilon\,
            \sigma_1$ with K matrices multiplied. Nothing below it is known. Source: higham2002.
    """

    framework: str
    dtype: str
    method: str
    shape: tuple[int, int]
    singular_values: np.ndarray = field(repr=False)
    noise_floor: float

    @property
    def norm(self) -> float:
        r"""$\sigma_1$, the factor by which the steepest direction is stretched."""
        return float(self.singular_values[0])

    @property
    def complete(self) -> bool:
        """Whether all min(m, n) singular values were computed."""
        return len(self.singular_values) == min(self.shape)

    @property
    def numerical_rank(self) -> int:
        """How many of the computed singular values lie above the noise floor."""
        return int(np.sum(self.singular_values > self.noise_floor))

    @property
    def condition_number(self) -> float:
        r"""$\sigma_1/\sigma_{min}$, or the largest lower bound that is known (see `condition`)."""
        if self.norm == 0:
            return float("inf")
        return self.norm / max(float(self.singular_values[-1]), self.noise_floor)

    @property
    def condition_resolved(self) -> bool:
        """Whether `condition_number` is the number itself rather than a lower bound."""
        whole = self.complete and self.numerical_rank == len(self.singular_values)
        return whole and self.norm > 0

    @property
    def condition(self) -> str:
        """The condition number in words, "> 1.2e+06" where it is beyond what can be seen."""
        sign = "" if self.condition_resolved else "> "
        return sign + format_number(self.condition_number)

    def describe(self) -> str:
        """Say the norm, the condition number and the number of directions seen."""
        seen = f"{self.numerical_rank} of {min(self.shape)} singular values"
        return (
            f"{self.framework} ({self.dtype}, {self.method}), Jacobian {self.shape[0]} by "
            f"{self.shape[1]}: norm {format_number(self.norm)}, condition number {self.condition}, "
            f"{seen} above the noise floor {format_number(self.noise_floor)}."
        )


@dataclass(frozen=True, eq=False)
class ClipAudit:
    r"""What one way of clipping does to one gradient.

    Fields:
        framework: "PyTorch" or "TensorFlow".
        method: "value" (each entry to [-c, c]), "norm" (each tensor to norm c) or "global_norm".
        threshold: c > 0.
        names: the tensors.
        norms: their norms, in float64, shape (P,).
        clipped_norms: after clipping, shape (P,).
        angles: angle between raw and clipped tensor in degrees, shape (P,); NaN if undefined.
        angle: the same for all tensors as one vector.
        reported_norm: the global norm in the gradient's own precision, which the framework's
            clipping by global norm divides by. Its squares may over- or underflow.
        nonfinite: names of the tensors with an inf or NaN before clipping.
        lost: names of finite, nonzero tensors that clipping turns into zeros or NaN.
    """

    framework: str
    method: str
    threshold: float
    names: tuple[str, ...]
    norms: np.ndarray = field(repr=False)
    clipped_norms: np.ndarray = field(repr=False)
    angles: np.ndarray = field(repr=False)
    angle: float
    reported_norm: float
    nonfinite: tuple[str, ...]
    lost: tuple[str, ...]

    @property
    def global_norm(self) -> float:
        """The norm of all tensors as one vector, in float64."""
        return measure_norm(self.norms)

    @property
    def changed(self) -> tuple[str, ...]:
        """Names of the tensors that clipping changed."""
        same = np.isclose(self.norms, self.clipped_norms, rtol=1e-6, atol=0.0)
        return tuple(name for name, kept in zip(self.names, same, strict=True) if not kept)

    def describe(self) -> str:
        """Say what was clipped, by how much and by which angle, and what was not finite."""
        text = (
            f"{self.framework}, clipping by {self.method.replace('_', ' ')} at "
            f"{self.threshold:g}: {len(self.changed)} of {len(self.names)} tensors changed, global "
            f"norm {format_number(self.global_norm)} to "
            f"{format_number(measure_norm(self.clipped_norms))}, direction turned by "
            f"{self.angle:.0f} degrees"
        )
        if self.nonfinite:
            text += f"; not finite: {', '.join(self.nonfinite[:3])}"
        if self.lost:
            text += f"; {len(self.lost)} healthy tensors lost"
        return text + "."


def angle_between(a: np.ndarray, b: np.ndarray) -> float:
    """Return the angle between two vectors in degrees, in float64; NaN if one is 0 or not finite.

    `course_lib.clipping.angle_between`, for an audit that must go on when a gradient overflowed.
    """
    a, b = (np.asarray(v, dtype=np.float64).ravel() for v in (a, b))
    if not (np.all(np.isfinite(a)) and np.all(np.isfinite(b))):
        return float("nan")
    return clipping.angle_between([a], [b])


def read_gradients(
    gradients: object, variables: Sequence[tuple[str, tuple[int, ...]]], *, convert: Callable
) -> tuple[list[str], list]:
    """Return the names of the variables that have a gradient, and those gradients.

    Arguments:
        gradients: one entry for each variable, in the same order and of its shape, or None.
        variables: names and shapes.
        convert: what makes a floating-point tensor of an entry, or raises for what is none.
    """
    if isinstance(gradients, (str, bytes)) or not isinstance(gradients, Iterable):
        raise TypeError(f"`gradients` (={gradients!r}) must be a list of tensors.")
    gradients, names, found = list(gradients), [], []
    if len(gradients) != len(variables):
        count = len(variables)
        raise ValueError(f"`gradients` (length {len(gradients)}) must have length {count}.")
    for k, (gradient, (name, shape)) in enumerate(zip(gradients, variables, strict=True)):
        if gradient is None:
            continue
        try:
            tensor = convert(gradient)
        except (TypeError, ValueError, RuntimeError, AttributeError) as error:
            raise TypeError(
                f"`gradients[{k}]` (a {type(gradient).__name__}) must be a tensor of real numbers."
            ) from error
        if tuple(tensor.shape) != tuple(shape):
            raise ValueError(
                f"`gradients[{k}]` (shape {tuple(tensor.shape)}) must have the shape "
                f"{tuple(shape)} of {name}."
            )
        names.append(name)
        found.append(tensor)
    return names, found


def audit_clipping(
    names: Sequence[str],
    grads: Sequence[np.ndarray],
    *,
    method: str,
    threshold: float,
    reported_norm: float,
    framework: str,
    slack: float = 0.0,
) -> ClipAudit:
    """Return what clipping does to `grads`, arrays of one gradient tensor each, of any precision.

    `reported_norm` is the framework's own global norm, and `slack` what it adds to it before it
    divides (PyTorch 1e-6).
    """
    method = require_choice("method", method, CLIP_METHODS)
    threshold = require_real("threshold", threshold, minimum=0.0, exclusive=True)
    if len(grads) == 0:
        raise ValueError("`gradients` (=[]) must hold at least one tensor; run backward first.")
    raw = [np.asarray(g, dtype=np.float64) for g in grads]
    norms = np.array([measure_norm(g) for g in raw])
    with np.errstate(invalid="ignore", over="ignore"):
        if method == "value":
            clipped = [np.clip(g, -threshold, threshold) for g in raw]
        elif method == "norm":
            clipped = [
                g * (threshold / n) if n > threshold else g
                for g, n in zip(raw, norms, strict=True)
            ]
        else:
            factor = np.minimum(threshold / (reported_norm + slack), 1.0)
            clipped = [g * factor for g in raw]
    after = np.array([measure_norm(g) for g in clipped])
    finite = np.isfinite(norms)
    lost = finite & (norms > 0) & ~(np.isfinite(after) & (after > 0))
    return ClipAudit(
        framework,
        method,
        threshold,
        tuple(names),
        norms,
        after,
        np.array([angle_between(a, b) for a, b in zip(raw, clipped, strict=True)]),
        angle_between(
            np.concatenate([g.ravel() for g in raw]), np.concatenate([g.ravel() for g in clipped])
        ),
        float(reported_norm),
        tuple(n for n, ok in zip(names, finite, strict=True) if not ok),
        tuple(n for n, gone in zip(names, lost, strict=True) if gone),
    )


def randomized_singular_values(
    forward: object, backward: object, *, size: int, rank: int, iterations: int, seed: int
) -> np.ndarray:
    r"""Return the `rank` largest singular values of J from products alone, by subspace iteration.

    Arguments:
        forward: V of shape (n, r) -> J V, shape (m, r).
        backward: U of shape (m, r) -> J^T U, shape (n, r).
        size: n.
        iterations: rounds of J^T J; each squares the ratio between wanted and unwanted values.

    The values are lower bounds: no method of this kind finds a direction that it never met.
    """
    rng = np.random.default_rng(seed)
    extra = min(rank + 4, size)  # more columns than wanted, so that the last wanted converge
    basis = np.linalg.qr(rng.standard_normal((size, extra)))[0]
    for _ in range(iterations):
        image = np.asarray(forward(basis), np.float64)
        basis = np.linalg.qr(np.asarray(backward(np.linalg.qr(image)[0]), np.float64))[0]
    image = np.asarray(forward(basis), np.float64)
    if not np.all(np.isfinite(image)):
        raise ValueError("`model` must have a finite Jacobian at `x`.")
    return np.linalg.svd(image, compute_uv=False)[:rank]


def noise_floor(values: np.ndarray, shape: tuple[int, int], eps: float, *, factors: int) -> float:
    r"""Return $K \max(m, n)\,\epsilon\,\sigma_1$, below which singular values are rounding."""
    return float(factors * max(shape) * eps * values[0])


def require_finite_layer(name: str, norm: object) -> None:
    """Raise ValueError if the values of a layer have no finite norm (None if it has none)."""
    if norm is not None and not np.isfinite(float(norm)):
        raise ValueError(
            f"`x` must keep the values of the model finite; those of layer {name} are not."
        )
