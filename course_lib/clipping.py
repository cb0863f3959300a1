r"""Gradient clipping in float64: by value, per tensor, by global norm, and what each changes.

A gradient is a list of arrays $g_1, \dots, g_K$, one per parameter tensor, and one long vector $g$
at the same time. With a limit $\tau > 0$ (elementwise for the first),

$$\text{value: } \max(-\tau, \min(\tau, g_i)), \quad
\text{tensor: } g_k \min(1, \tau/\|g_k\|), \quad
\text{global: } g_k \min(1, \tau/\|g\|) .$$

Norms are computed without over- or underflow, so a gradient with entries of 1e300 is clipped
rightly. A gradient that is not finite has no direction to keep: clipping it is an error here.
Source: pascanu2013 (the global norm).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_array, require_choice, require_real
from course_lib.results import format_number
from course_lib.stability import measure_norm

WAYS = ("value", "tensor", "global")
"""The three ways to clip: `clip_by_value`, `clip_by_norm`, `clip_by_global_norm`."""


def _require_grads(grads: object, *, finite: bool = True, name: str = "grads") -> list[np.ndarray]:
    if isinstance(grads, (str, bytes)) or not isinstance(grads, Sequence):
        raise TypeError(f"`{name}` (a {type(grads).__name__}) must be a sequence of arrays.")
    if len(grads) == 0:
        raise ValueError(f"`{name}` (=[]) must hold at least one array.")
    return [require_array(f"{name}[{k}]", g, finite=finite) for k, g in enumerate(grads)]


def _joint_norm(grads: list[np.ndarray]) -> float:
    with np.errstate(over="ignore"):  # finite entries may have a norm beyond float64: inf
        return measure_norm([measure_norm(g) for g in grads])


def _require_limit(limit: object) -> float:
    return require_real("limit", limit, minimum=0.0, exclusive=True)


def global_norm(grads: Sequence[np.ndarray]) -> float:
    r"""Return $\sqrt{\sum_k \|g_k\|^2}$, in float64; inf or NaN if an entry is."""
    return _joint_norm(_require_grads(grads, finite=False))


def clip_by_value(grads: Sequence[np.ndarray], limit: float) -> list[np.ndarray]:
    """Return each entry of each array, moved into [-limit, limit].

    Raises ValueError for a limit that is not positive or an entry that is not finite.
    """
    limit = _require_limit(limit)
    return [np.clip(g, -limit, limit) for g in _require_grads(grads)]


def clip_by_norm(grads: Sequence[np.ndarray], limit: float) -> list[np.ndarray]:
    """Return each array, scaled down to the norm `limit` if its own norm is above it.

    What `tf.clip_by_norm` on each gradient and Keras's `clipnorm=` do. Errors as `clip_by_value`.
    """
    limit = _require_limit(limit)
    return [_scale_together([g], limit)[0] for g in _require_grads(grads)]


def clip_by_global_norm(grads: Sequence[np.ndarray], limit: float) -> list[np.ndarray]:
    """Return all arrays, scaled by one factor so that the global norm is at most `limit`.

    What `torch.nn.utils.clip_grad_norm_`, `tf.clip_by_global_norm` and Keras's
    `global_clipnorm=` do, but for PyTorch's 1e-6 in the denominator. Errors as `clip_by_value`.
    """
    return _scale_together(_require_grads(grads), _require_limit(limit))


def _scale_together(grads: list[np.ndarray], limit: float) -> list[np.ndarray]:
    if _joint_norm(grads) <= limit:
        return [g.copy() for g in grads]
    # The norm itself may be beyond float64's range although every entry is finite.
    largest = max(float(np.max(np.abs(g))) for g in grads)
    units = [g / largest for g in grads]
    length = _joint_norm(units)
    return [limit * (u / length) for u in units]


def angle_between(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> float:
    r"""Return the angle in degrees, 0 to 180, between two gradients taken as one vector each.

    With unit vectors $u, v$ it is $2\operatorname{atan2}(\|u - v\|, \|u + v\|)$, which is exact
    for small angles, where the inverse cosine of a number near 1 has only half the digits.
    NaN if either gradient is zero. Raises ValueError if shapes differ or an entry is not finite.
    """
    first, second = _require_grads(first, name="first"), _require_grads(second, name="second")
    shapes = [g.shape for g in first], [g.shape for g in second]
    if shapes[0] != shapes[1]:
        raise ValueError(f"`second` (shapes {shapes[1]}) must have the shapes {shapes[0]}.")
    vectors = [np.concatenate([g.ravel() for g in grads]) for grads in (first, second)]
    sizes = [float(np.max(np.abs(v))) for v in vectors]
    if min(sizes) == 0.0:
        return float("nan")
    u, v = (v / size for v, size in zip(vectors, sizes, strict=True))
    u, v = u / np.linalg.norm(u), v / np.linalg.norm(v)
    return float(np.degrees(2.0 * np.arctan2(np.linalg.norm(u - v), np.linalg.norm(u + v))))


@dataclass(frozen=True, eq=False)
class ClipReport:
    r"""What one way of clipping does to one gradient of K tensors.

    Fields:
        way: "value", "tensor" or "global".
        limit: the limit $\tau$.
        names: the tensors' names, K of them.
        norms_before, norms_after: norm of each tensor, shape (K,).
        global_before, global_after: global norm.
        angle: degrees by which the gradient as a whole is turned.
        tensor_angles: degrees by which each tensor is turned in itself, shape (K,).
        clipped: which tensors were changed, booleans of shape (K,).
        nonfinite: names of the tensors with an entry that is inf or NaN. If there are any, what
            comes after clipping is undefined: those fields are NaN, and nothing counts as clipped.
    """

    way: str
    limit: float
    names: tuple[str, ...]
    norms_before: np.ndarray = field(repr=False)
    norms_after: np.ndarray = field(repr=False)
    global_before: float
    global_after: float
    angle: float
    tensor_angles: np.ndarray = field(repr=False)
    clipped: np.ndarray = field(repr=False)
    nonfinite: tuple[str, ...]

    def describe(self) -> str:
        """Say how many tensors were clipped, both global norms, and the angle."""
        label = {"value": "by value", "tensor": "per tensor", "global": "by global norm"}[self.way]
        head = f"Clipping {label} to {self.limit:g}"
        if self.nonfinite:
            return f"{head} is undefined: not finite in {', '.join(self.nonfinite)}."
        turned = "0" if self.angle < 1e-6 else format_number(self.angle)
        return (
            f"{head} changes {int(self.clipped.sum())} of {len(self.names)} tensors, takes the "
            f"global norm from {format_number(self.global_before)} to "
            f"{format_number(self.global_after)} and turns the gradient by {turned} degrees."
        )


def measure_clipping(
    grads: Sequence[np.ndarray], limit: float, *, way: str, names: Sequence[str] | None = None
) -> ClipReport:
    """Return what clipping `grads` to `limit` in one `way` does to norms and directions.

    Arguments:
        grads: K arrays; they are not changed.
        limit: > 0.
        way: "value", "tensor" or "global".
        names: K names; "tensor 1" and so on if left out.

    Entries that are not finite are reported rather than an error.
    """
    grads, limit = _require_grads(grads, finite=False), _require_limit(limit)
    way = require_choice("way", way, WAYS)
    names = tuple(f"tensor {k + 1}" for k in range(len(grads))) if names is None else tuple(names)
    if len(names) != len(grads):
        raise ValueError(f"`names` (={names}) must have {len(grads)} entries, one per array.")
    before = np.array([_joint_norm([g]) for g in grads])
    nonfinite = tuple(n for n, g in zip(names, grads, strict=True) if not np.all(np.isfinite(g)))
    if nonfinite:
        undefined = np.full(len(grads), np.nan)
        return ClipReport(
            way, limit, names, before, undefined, global_norm(grads), np.nan, np.nan,
            undefined, np.zeros(len(grads), bool), nonfinite,
        )  # fmt: skip
    clip = {"value": clip_by_value, "tensor": clip_by_norm, "global": clip_by_global_norm}[way]
    after = clip(grads, limit)
    pairs = list(zip(grads, after, strict=True))
    return ClipReport(
        way=way,
        limit=limit,
        names=names,
        norms_before=before,
        norms_after=np.array([_joint_norm([g]) for g in after]),
        global_before=global_norm(grads),
        global_after=global_norm(after),
        angle=angle_between(grads, after),
        tensor_angles=np.array([angle_between([g], [h]) for g, h in pairs]),
        clipped=np.array([not np.array_equal(g, h) for g, h in pairs]),
        nonfinite=(),
    )


def clipped_minimum(targets: np.ndarray, limit: float) -> float:
    r"""Return the w at which the *clipped* gradients of $\tfrac12(w - t_i)^2$ average to zero.

    It is where single-example descent with clipping comes to rest: the mean of `targets` for a
    large limit, their median for a small one. Found by bisection, to the last digit.

    Arguments:
        targets: the $t_i$, shape (n,).
        limit: > 0, on each example's gradient $w - t_i$.
    """
    targets, limit = require_array("targets", targets, ndim=1), _require_limit(limit)
    low, high = float(targets.min()), float(targets.max())
    for _ in range(200):
        middle = 0.5 * (low + high)
        if np.mean(np.clip(middle - targets, -limit, limit)) > 0:
            high = middle
        else:
            low = middle
    return 0.5 * (low + high)


def say_change(first: Sequence[np.ndarray], second: Sequence[np.ndarray]) -> str:
    """Return "same", or by which factor and how many degrees `second` differs from `first`.

    "same" means a difference below 1e-6 of the norm of `first`. Raises ValueError as
    `angle_between`.
    """
    turned = angle_between(first, second)
    pairs = zip(_require_grads(first), _require_grads(second), strict=True)
    size = global_norm(first)
    if global_norm([b - a for a, b in pairs]) <= 1e-6 * size:
        return "same"
    if size == 0.0:
        return "no longer 0"
    ratio = global_norm(second) / size
    return "0" if ratio == 0.0 else f"× {format_number(ratio)}, {abs(turned):.0f}°"
