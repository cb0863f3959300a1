r"""The gradient's factor per step of time in a tanh network, measured beside two theories.

The *size* of the recurrent matrix does not decide it: the slopes answer. For $W_{hh} = g I$ each
unit is a map of its own, $h \mapsto \tanh(g h)$, that settles at a stable point $h^*$, where the
factor $g (1 - h^{*2})$ is below 1 for every g (and the smaller, the larger g). For a wide Gaussian
matrix of gain g the states stay in motion, and mean-field theory gives the factor $\sqrt\chi$ with
$\chi = g^2\, \mathbb{E}[f'(z)^2]$. Source: sompolinsky1988, poole2016.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from course_lib._validation import require_array, require_integer, require_real, require_seed
from course_lib.recurrent_specs import RecurrentSpec, draw_recurrent_weights
from course_lib.reference.recurrent import bptt_profile, build_recurrent
from course_lib.results import format_number


@dataclass(frozen=True)
class FixedPoint:
    r"""The stable fixed point $h^* = \tanh(g h^*)$ with $h^* \ge 0$ of one unit without input.

    Fields:
        gain: g.
        state: $h^*$; 0 for g <= 1.
        factor: $g (1 - h^{*2})$, what a gradient is multiplied by per step there.
    """

    gain: float
    state: float
    factor: float

    def describe(self) -> str:
        """Say where the unit settles, and the factor there."""
        return (
            f"gain {format_number(self.gain)}: the state settles at "
            f"{format_number(self.state)}, where the factor per step is "
            f"{format_number(self.factor)}."
        )


def tanh_fixed_point(gain: float) -> FixedPoint:
    r"""Return the stable fixed point of $h \mapsto \tanh(g h)$ with $h \ge 0$, for g >= 0.

    Above g = 1 it is found by bisection in the preactivation $z = g h$, since $z = g \tanh z$ has
    exactly one positive solution, below g.
    """
    gain = require_real("gain", gain, minimum=0.0)
    if gain <= 1.0:
        return FixedPoint(gain, 0.0, gain)
    low, high = 0.0, gain
    for _ in range(200):
        middle = 0.5 * (low + high)
        # g tanh(z) - z is positive before the solution and negative after it.
        low, high = (middle, high) if gain * np.tanh(middle) > middle else (low, middle)
    slope = 1.0 / np.cosh(middle) ** 2  # 1 - tanh^2 would lose its digits near 1
    return FixedPoint(gain, float(np.tanh(middle)), float(gain * slope))


@dataclass(frozen=True, eq=False)
class GainSweep:
    r"""Factors per step back of the gradient's norm, for several gains of the recurrent matrix.

    Fields:
        recurrent_init: the law of $W_{hh}$.
        hidden, length: n and T.
        input_scale, bias: standard deviation of each unit's input $W_{xh} x_t$, and the bias.
        gains: shape (K,).
        factors: $(\|dL/dh_1\| / \|dL/dh_T\|)^{1/(T-1)}$, shape (K,).
        mean_slopes: mean of $\tanh'$ over units and time, shape (K,).
    """

    recurrent_init: str
    hidden: int
    length: int
    input_scale: float
    bias: float
    gains: np.ndarray
    factors: np.ndarray
    mean_slopes: np.ndarray

    def describe(self) -> str:
        """Say the factor at each gain."""
        pairs = ", ".join(
            f"{format_number(f)} at {format_number(g)}"
            for g, f in zip(self.gains, self.factors, strict=True)
        )
        return (
            f"{self.recurrent_init} recurrent matrix, {self.hidden} units, inputs of size "
            f"{format_number(self.input_scale)}: factor per step back {pairs}."
        )


def sweep_recurrent_gain(
    gains: Sequence[float],
    *,
    recurrent_init: str,
    hidden: int = 100,
    input_scale: float = 0.1,
    bias: float = 0.0,
    length: int = 300,
    seed: int,
) -> GainSweep:
    r"""Measure the gradient's factor per step for tanh networks of several gains.

    As many inputs as units, from N(0, 1) at each step, and input weights from
    N(0, input_scale^2 / hidden), so that what a unit receives has standard deviation
    `input_scale`; one bias for all units, the loss at the last step; all in float64.

    Arguments:
        gains: factors g > 0 on the recurrent matrix.
        recurrent_init: "identity", "orthogonal", "gaussian" or another law of `RecurrentSpec`.
        hidden: n, at least 1.
        input_scale: at least 0. With 0 and no bias all states stay exactly 0.
        bias: of every unit.
        length: T, at least 2.
        seed: of weights and inputs; the same weights at every gain, but for the factor.
    """
    gains = require_array("gains", gains, ndim=1)
    hidden = require_integer("hidden", hidden, minimum=1)
    length = require_integer("length", length, minimum=2)
    seed = require_seed(seed)
    x = np.random.default_rng(seed + 1).standard_normal((1, length, hidden))
    factors, slopes = [], []
    for gain in gains:
        spec = RecurrentSpec(
            hidden, hidden, input_init="lecun_normal", input_scale=input_scale,
            recurrent_init=recurrent_init, gain=require_real("gains", float(gain), minimum=0.0,
                                                             exclusive=True), bias=bias,
        )  # fmt: skip
        model = build_recurrent(spec, draw_recurrent_weights(spec, seed=seed))
        factors.append(10.0 ** bptt_profile(model, x).decades_per_step)
        slopes.append(np.mean(1.0 - model.forward(x).hidden_states ** 2))
    return GainSweep(
        recurrent_init, spec.hidden, length, spec.input_scale, spec.bias, gains,
        np.array(factors), np.array(slopes),
    )  # fmt: skip
