r"""Where the gates inside a recurrent layer are stuck, told from their preactivations.

A fused LSTM or GRU shows its inputs and its states $h_t$ to a monitor, and no gate. But a gate's
preactivation needs nothing else: $z_t = W_{xh} x_t + W_{hh} h_{t-1} + b$. The frameworks compute it
again on a sample, and count where it lies outside of `gate_limits`. Framework-free.
Source: gers2000 (what a forget gate is for), tallec2018 (biases for memories as long as T).
"""

from __future__ import annotations

import math

from course_lib._validation import require_choice, require_integer, require_real
from course_lib.recurrent_specs import GATES

SEQUENCES, STEPS = 8, 64
"""How many sequences of a batch, and steps of each, are looked at in a sampled step."""


def gate_kind(cell: str, gate: str) -> str:
    """Return what a monitor should call a gate: "gate", "forget_gate", or "relu" for such a state.

    A forget gate that is open, or shut, is a choice about memory, and no fault by itself. What it
    does to the gradient is seen over time: `bptt_gradient_profile`.
    """
    require_choice("cell", cell, GATES)
    require_choice("gate", gate, GATES[cell])
    if cell == "relu_rnn":
        return "relu"
    return "forget_gate" if (cell, gate) == ("lstm", "f") else "gate"


def gate_limits(cell: str, gate: str, *, share: float, steps: int) -> tuple[float, float]:
    r"""Return (low, high): below or above them a gate's preactivation counts as stuck.

    In general, where the slope is below the share s of the largest slope: $\tanh' < s$, or
    $4\sigma(1 - \sigma) < s$. Two sides are judged by what they do over a whole sequence of T
    steps, since long memories are made by gates that write seldom: the LSTM's i counts as shut
    where $\sigma T < s$, and the GRU's z as keeping everything where $(1 - \sigma) T < s$.

    Arguments:
        cell, gate: see `course_lib.recurrent_specs.GATES`; the state "h" of a plain cell too.
        share: in (0, 1].
        steps: T, at least 1.
    """
    require_choice("cell", cell, GATES)
    require_choice("gate", gate, GATES[cell])
    share = require_real("share", share, minimum=0.0, exclusive=True, maximum=1.0)
    steps = require_integer("steps", steps, minimum=1)
    if cell == "relu_rnn":
        return 0.0, math.inf
    root = math.sqrt(1 - share)
    if gate in ("g", "n", "h"):
        limit = math.atanh(root)
        return -limit, limit
    low = math.log((1 - root) / (1 + root))
    seldom = min(low, math.log(share / steps) - math.log1p(-min(share / steps, 0.5)))
    if (cell, gate) == ("lstm", "i"):
        return seldom, -low
    return low, -seldom if (cell, gate) == ("gru", "z") else -low
