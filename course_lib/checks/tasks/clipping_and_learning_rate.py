r"""Tasks on clipping and the learning rate: length, direction, what is not finite, stability.

The references are `course_lib.clipping` and the quadratic's closed form. Source: pascanu2013,
lecun1998efficient.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import FLOAT32
from course_lib.clipping import (
    angle_between,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    global_norm,
)

Grads = Sequence[np.ndarray]


def _draw_grads(rng: np.random.Generator, *, norm: float) -> list[np.ndarray]:
    """Return a matrix, a vector and a matrix of very unequal norms, with this global norm."""
    sizes = rng.permutation([0.05, 0.4, 3.0])
    grads = [s * rng.normal(size=n) for s, n in zip(sizes, ((3, 4), (5,), (2, 3)), strict=True)]
    return [norm / global_norm(grads) * g for g in grads]


# --- clipping is a learning rate


def _rate_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for low, high, limit in ((0.1, 3.0, 1.0), (0.5, 40.0, 5.0)):
        norms = np.append(np.exp(rng.uniform(np.log(low), np.log(high), size=6)), 0.0)
        rate = float(rng.uniform(0.01, 0.5))
        words = f"7 norms from 0 to {norms.max():.2f}, a rate of {rate:.2f} and a limit of {limit}"
        cases.append(Case((norms, rate, limit), words))
    return cases


def _equivalent_rates(norms: np.ndarray, rate: float, limit: float) -> np.ndarray:
    return rate * limit / np.maximum(norms, limit)


def _always_scaled(norms: np.ndarray, rate: float, limit: float) -> np.ndarray:
    with np.errstate(divide="ignore"):
        return rate * limit / norms


EQUIVALENT_RATES = Task(
    id="clipping_and_learning_rate/equivalent_rates",
    function="equivalent_rates",
    title="Clipping under SGD is a learning rate",
    points=1,
    cases=_rate_cases,
    reference=_equivalent_rates,
    rtol=1e-4,
    atol=0.0,
    tolerance_reason=FLOAT32,
    misconceptions=(
        Misconception(
            "small gradients are enlarged",
            _always_scaled,
            "This also enlarges the gradients below the limit, and has no answer for a norm of "
            "zero. Clipping never makes a gradient larger.",
        ),
        Misconception(
            "limit for rate",
            lambda norms, rate, limit: np.minimum(rate, limit / np.maximum(norms, 1e-300)),
            "Here the limit bounds the rate itself. It bounds the gradient, so the bound on the "
            "rate is rate * limit / norm.",
        ),
        Misconception(
            "skipped, not clipped",
            lambda norms, rate, limit: np.where(norms > limit, 0.0, rate),
            "Steps above the limit are left out here. Clipping takes them, and makes them shorter.",
        ),
    ),
    hints=(
        "The update is -rate * min(1, limit / norm) * gradient. Which factor stands before the "
        "gradient?",
        "rate * min(1, limit / norm); for a norm of zero the minimum is 1. "
        "np.maximum(norms, limit) in the denominator does both.",
    ),
)


# --- clipping by the global norm


def _clip_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for norm, limit in ((8.0, 1.0), (30.0, 5.0), (0.6, 1.0)):
        cases.append(Case((_draw_grads(rng, norm=norm), limit),
                          f"three tensors of global norm {norm:g} and a limit of {limit:g}"))
    zeros = [np.zeros((2, 2)), np.zeros(3)]
    return [*cases, Case((zeros, 1.0), "a gradient of zeros")]  # fmt: skip


def _scale(grads: Grads, factor: float) -> list[np.ndarray]:
    return [factor * g for g in grads]


def _sum_of_norms(grads: Grads, limit: float) -> list[np.ndarray]:
    total = sum(np.linalg.norm(g) for g in grads)
    return _scale(grads, min(1.0, limit / max(total, 1e-300)))


CLIP_GLOBAL = Task(
    id="clipping_and_learning_rate/clip_global",
    function="clip_global",
    title="Clip without turning",
    points=2,
    cases=_clip_cases,
    reference=clip_by_global_norm,
    rtol=1e-4,
    atol=1e-9,
    tolerance_reason=f"{FLOAT32}; PyTorch's 1e-6 in the denominator is within it",
    misconceptions=(
        Misconception(
            "per tensor",
            clip_by_norm,
            "Each tensor is clipped to the limit on its own: Keras's `clipnorm`. The tensors lose "
            "their proportions, and the gradient turns.",
        ),
        Misconception(
            "by value",
            clip_by_value,
            "Each entry is clipped on its own: that keeps the signs and hardly anything else of "
            "the direction.",
        ),
        Misconception(
            "sum of norms",
            _sum_of_norms,
            "The norms of the tensors were added up, as in Lecture 3's detection. The global norm "
            "is the root of the sum of their squares.",
        ),
        Misconception(
            "always to the limit",
            lambda g, limit: _scale(g, limit / max(global_norm(g), 1e-300)),
            "A gradient below the limit was enlarged to it. It has to be left as it is.",
        ),
    ),
    hints=(
        "One factor for all tensors keeps the direction. Which one?",
        "min(1, limit / norm), with norm the root of the sum of all squared entries of all "
        "tensors. Mind a norm of zero.",
    ),
    time_limit=10.0,  # a framework may have to be loaded
    frameworks=("pytorch", "tf"),
)


# --- what Keras's clipnorm does


def _angle_cases(rng: np.random.Generator) -> list[Case]:
    return [
        Case((_draw_grads(rng, norm=norm), limit),
             f"three tensors of global norm {norm:g} and a limit of {limit:g} for each")
        for norm, limit in ((8.0, 1.0), (20.0, 0.5), (0.9, 1.0))
    ]  # fmt: skip


def _clipnorm_angle(grads: Grads, limit: float) -> float:
    return abs(angle_between(grads, clip_by_norm(grads, limit)))


CLIPNORM_ANGLE = Task(
    id="clipping_and_learning_rate/clipnorm_angle",
    function="clipnorm_angle",
    title="By how much Keras's clipnorm turns",
    points=2,
    cases=_angle_cases,
    reference=_clipnorm_angle,
    rtol=1e-3,
    atol=0.05,
    tolerance_reason=(
        "a twentieth of a degree: the inverse cosine of a float32 number near 1 keeps no more; the "
        "foreseen mistakes are off by many degrees"
    ),
    misconceptions=(
        Misconception(
            "each tensor keeps its direction",
            lambda grads, limit: 0.0,
            "Zero is the angle of `global_clipnorm`. Here each tensor keeps its own direction, but "
            "they are shortened by different factors, and the gradient as a whole turns.",
        ),
        Misconception(
            "radians",
            lambda grads, limit: np.radians(_clipnorm_angle(grads, limit)),
            "The angle is right in radians. Asked for are degrees.",
        ),
        Misconception(
            "by value",
            lambda grads, limit: angle_between(grads, clip_by_value(grads, limit)),
            "This is the angle of `clipvalue`, which moves each entry on its own.",
        ),
    ),
    hints=(
        "Clip each tensor by its own norm. Then join all tensors to one long vector, before and "
        "after.",
        "The cosine is the inner product over the product of both norms; the angle is "
        "np.degrees(np.arccos(...)). Rounding may lift the cosine above 1.",
    ),
    time_limit=10.0,  # a framework may have to be loaded
    frameworks=("pytorch", "tf"),
)


# --- what is not finite


def _safe_cases(rng: np.random.Generator) -> list[Case]:
    def draw(entry: float) -> list[np.ndarray]:
        grads = _draw_grads(rng, norm=6.0)
        k = int(rng.integers(3))
        grads[k].flat[int(rng.integers(grads[k].size))] = entry
        return grads

    huge = [1e200 * g for g in _draw_grads(rng, norm=5.0)]
    return [
        Case((draw(1.0), 1.0), "a gradient of finite entries"),
        Case((draw(np.inf), 1.0), "a gradient with an infinity"),
        Case((draw(np.nan), 1.0), "a gradient with a NaN"),
        Case((huge, 2.0), "entries of 1e200, which are finite, while their squares are not"),
    ]


def _all_finite(grads: Grads) -> bool:
    return all(np.all(np.isfinite(g)) for g in grads)


def _answer(grads: Grads, step: bool) -> dict:
    return {"grads": list(grads), "step": bool(step)}


def _safe_clip(grads: Grads, limit: float) -> dict:
    if not _all_finite(grads):
        return _answer([np.zeros_like(g) for g in grads], False)
    return _answer(clip_by_global_norm(grads, limit), True)


def _naive_norm(grads: Grads) -> float:
    with np.errstate(over="ignore", invalid="ignore"):
        return float(np.sqrt(sum(np.sum(np.square(g)) for g in grads)))


def _clip_in_silence(grads: Grads, limit: float) -> dict:
    factor = min(1.0, limit / _naive_norm(grads))
    with np.errstate(invalid="ignore"):
        return _answer(_scale(grads, factor), True)


def _clip_patched(grads: Grads, limit: float) -> dict:
    return _safe_clip([np.nan_to_num(g, nan=0.0, posinf=0.0, neginf=0.0) for g in grads], limit)


def _refuse_the_huge(grads: Grads, limit: float) -> dict:
    if not np.isfinite(_naive_norm(grads)):
        return _answer([np.zeros_like(g) for g in grads], False)
    return _safe_clip(grads, limit)


SAFE_CLIP = Task(
    id="clipping_and_learning_rate/safe_clip",
    function="safe_clip",
    title="Clip what may not be finite",
    points=3,
    cases=_safe_cases,
    reference=_safe_clip,
    rtol=1e-4,
    atol=1e-9,
    tolerance_reason=FLOAT32,
    misconceptions=(
        Misconception(
            "clipped in silence",
            _clip_in_silence,
            "This is what the frameworks do. An infinite norm makes zeros of all healthy tensors "
            "and the step is lost without a word; a NaN spreads to all of them.",
        ),
        Misconception(
            "patched and taken",
            _clip_patched,
            "The entries that are not finite were replaced and the step was taken. A gradient that "
            "overflowed says nothing on its other entries either: report it, and do not step.",
        ),
        Misconception(
            "huge is not infinite",
            _refuse_the_huge,
            "A gradient of finite entries was refused, because the sum of their squares "
            "overflowed. Divide by the largest entry before squaring.",
        ),
    ),
    hints=(
        "First ask each tensor whether all of its entries are finite. Only then clip.",
        "The square of 1e200 is infinite in float64. With m the largest absolute entry, the norm "
        "is m times the norm of the gradient over m.",
        "Compute clipped = limit * (g / m) / norm_of_the_scaled_gradient; the norm itself is not "
        "needed.",
    ),
)


# --- the largest stable learning rate


def _hessian_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for n, momentum in ((2, 0.0), (4, 0.0), (3, 0.9), (5, 0.5)):
        q = np.linalg.qr(rng.normal(size=(n, n)))[0]
        curvatures = np.exp(rng.uniform(np.log(0.1), np.log(50.0), size=n))
        hessian = (q * curvatures) @ q.T
        words = f"a Hessian of {n} parameters and a momentum of {momentum:g}"
        cases.append(Case(((hessian + hessian.T) / 2.0, momentum), words))
    return cases


def _rate(pick: Callable, numerator: Callable[[float], float]) -> Callable:
    return lambda h, momentum: numerator(momentum) / pick(np.linalg.eigvalsh(h))


LARGEST_RATE = Task(
    id="clipping_and_learning_rate/largest_rate",
    function="largest_rate",
    title="The largest stable learning rate",
    points=3,
    cases=_hessian_cases,
    reference=_rate(np.max, lambda m: 2.0 * (1.0 + m)),
    rtol=1e-4,
    atol=0.0,
    tolerance_reason=FLOAT32,
    misconceptions=(
        Misconception(
            "one over the curvature",
            _rate(np.max, lambda m: 1.0 + m),
            "At this rate the steepest direction is solved in one step (without momentum). It may "
            "overshoot as far as the other side, so twice as much is still stable.",
        ),
        Misconception(
            "the smallest curvature",
            _rate(np.min, lambda m: 2.0 * (1.0 + m)),
            "The flattest direction allows this rate. The steepest one decides, for one direction "
            "that diverges is enough.",
        ),
        Misconception(
            "momentum ignored",
            _rate(np.max, lambda m: 2.0),
            "This is right without momentum. Momentum brakes the oscillation in the steepest "
            "direction and allows a larger rate.",
        ),
        Misconception(
            "momentum the other way",
            _rate(np.max, lambda m: 2.0 * (1.0 - m)),
            "That momentum multiplies the steps by 1 / (1 - m) holds along a steady slope. In the "
            "steepest direction the steps alternate, and it brakes them.",
        ),
        Misconception(
            "trace for eigenvalue",
            _rate(np.sum, lambda m: 2.0 * (1.0 + m)),
            "This divides by the trace, the sum of all curvatures. Each eigenvector is a direction "
            "of its own, and the largest curvature decides.",
        ),
    ),
    hints=(
        "Along an eigenvector w is a number, and w_new = (1 - rate * curvature) * w. For which "
        "rates does it shrink?",
        "With momentum m: w_new = w - rate * curvature * w + m * (w - w_old). At the limit w "
        "alternates: put w_new = -w and w_old = -w.",
        "2 * (1 + m) over the largest eigenvalue (`np.linalg.eigvalsh`).",
    ),
)

TASKS = (EQUIVALENT_RATES, CLIP_GLOBAL, CLIPNORM_ANGLE, SAFE_CLIP, LARGEST_RATE)
