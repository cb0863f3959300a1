r"""How long a gated cell remembers: the direct path through its gate, and all paths together.

An LSTM's cell state is multiplied by the forget gate, $\partial C_t/\partial C_{t-1} =
\mathrm{diag}(f_t)$ with $h_{t-1}$ held, a GRU's state by the update gate, $\mathrm{diag}(z_t)$.
Those products are the *direct path*. The whole derivative also runs through $h_{t-1}$ and the
gates; `StateJacobians.path_norms` measures both, and the functions here say how they depend on the
bias, on the defaults of a framework and on the recurrent matrix.
Source: hochreiter1997, gers2000, jozefowicz2015.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_integer,
    require_real,
    require_seed,
    require_sequence,
)
from course_lib.activations import get_activation
from course_lib.recurrent_results import PathNorms, format_power
from course_lib.recurrent_specs import (
    RecurrentSpec,
    RecurrentWeights,
    draw_recurrent_weights,
)

KEEPING_GATES = {"lstm": "f", "gru": "z"}
"""The gate on the direct path of each gated cell."""


def _require_gate(name: str, value: object) -> float:
    """Return a gate strictly between 0 and 1."""
    gate = require_real(name, value, minimum=0.0, exclusive=True)
    if gate >= 1.0:
        raise ValueError(f"`{name}` (={gate}) must be < 1: no finite bias opens a gate fully.")
    return gate


def gate_bias(gate: float) -> float:
    r"""Return the bias b with $\sigma(b)$ = `gate`, for a gate strictly between 0 and 1."""
    gate = _require_gate("gate", gate)
    return float(np.log(gate) - np.log1p(-gate))


def required_gate(keep: float, *, steps: int) -> float:
    r"""Return the constant gate f with $f^{steps}$ = `keep`, for 0 < keep < 1."""
    keep = require_real("keep", keep, minimum=0.0, exclusive=True)
    if keep >= 1.0:
        raise ValueError(f"`keep` (={keep}) must be < 1: a gate below 1 always loses something.")
    return float(np.exp(np.log(keep) / require_integer("steps", steps, minimum=1)))


def add_gate_bias(weights: RecurrentWeights, gate: str, value: float) -> RecurrentWeights:
    """Return a copy of `weights` with `value` added to the bias of every unit's `gate`."""
    if not isinstance(weights, RecurrentWeights):
        raise TypeError(f"`weights` (a {type(weights).__name__}) must be RecurrentWeights.")
    rows = weights.gate_rows(gate)
    bias = weights.b_xh.copy()
    bias[rows] += require_real("value", value)
    return replace(weights, b_xh=bias)


def feedback_lstm(
    *, forget: float, factor: float, hidden: int = 1, input_scale: float = 0.01
) -> RecurrentWeights:
    r"""Return an LSTM whose direct path and whole derivative are set apart by design.

    Only the candidate sees $h_{t-1}$, unit by unit: $W_{hc} = w I$, all other blocks of $W_{hh}$
    are zero. The input and output gates stand at 1/2, the forget gate at `forget`, at every step.
    Near $C = 0$ the derivative of $C_t$ by $C_{t-1}$, all paths counted, is
    `forget` $+ \tfrac12 w \cdot \tfrac12$, and w is chosen to make that `factor`.

    Arguments:
        forget: the forget gate, strictly between 0 and 1.
        factor: the whole derivative per step near the origin, any real number.
        hidden: number of units, which do not see each other.
        input_scale: weight of the one input on every unit's candidate.
    """
    bias = gate_bias(_require_gate("forget", forget))
    factor = require_real("factor", factor)
    n = require_integer("hidden", hidden, minimum=1)
    scale = require_real("input_scale", input_scale)
    none, one = np.zeros((n, n)), np.eye(n)
    w = (factor - forget) / 0.25
    return RecurrentWeights(
        "lstm",
        w_xh=scale * np.repeat([0.0, 0.0, 1.0, 0.0], n)[:, None],
        w_hh=np.vstack([none, none, w * one, none]),
        b_xh=np.repeat([0.0, bias, 0.0, 0.0], n),
    )


def additive_path_norms(
    w_hh: np.ndarray,
    w_xh: np.ndarray,
    x: np.ndarray,
    *,
    keep: float = 1.0,
    activation: str = "tanh",
) -> PathNorms:
    r"""Measure $h_t = keep \cdot h_{t-1} + f(W_{hh} h_{t-1} + W_{xh} x_t)$, started from 0.

    Its Jacobian is $keep \cdot I + \mathrm{diag}(f') W_{hh}$, its direct path $keep^{T-t}$. With
    `keep` = 0 it is a plain cell, with $W_{hh} = 0$ and `keep` = 1 a running sum.

    Arguments:
        w_hh, w_xh: shapes (n, n) and (n, n_in).
        x: one sequence, shape (T, n_in).
        keep: the factor on the old state, at least 0.
        activation: f, by name.
    """
    w_hh = require_array("w_hh", w_hh, ndim=2)
    n = len(w_hh)
    w_hh = require_array("w_hh", w_hh, shape=(n, n))
    w_xh = require_array("w_xh", w_xh, shape=(n, None))
    x = require_array("x", x, shape=(None, w_xh.shape[1]))
    keep, f = require_real("keep", keep, minimum=0.0), get_activation(activation)
    hidden, jacobians = np.zeros(n), []
    for x_t in x:
        z = w_hh @ hidden + w_xh @ x_t
        hidden = keep * hidden + f.function(z)
        jacobians.append(keep * np.eye(n) + f.derivative(z)[:, None] * w_hh)
    product, scale, whole = np.eye(n), 0.0, np.zeros(len(x))
    with np.errstate(divide="ignore"):
        for t in range(len(x) - 1, 0, -1):
            product = product @ jacobians[t]
            size = np.abs(product).max()
            if size > 0:
                product, scale = product / size, scale + np.log10(size)
            whole[t - 1] = np.log10(np.linalg.norm(product, 2)) + scale
        steps_back = np.arange(len(x) - 1, -1, -1)
        decades = np.log10(keep) if keep > 0 else -np.inf
        direct = np.array([k * decades if k else 0.0 for k in steps_back])
    return PathNorms("NumPy", "additive cell", whole, direct, direct)


@dataclass(frozen=True, eq=False)
class MemorySummary:
    r"""What is left of a memory's derivative after some steps, for several draws of one network.

    Fields, base-10 logarithms of shape (draws,):
        cell, steps: the cell's name, and how many steps back.
        log10_whole: the spectral norm of $dm_T/dm_{T-steps}$, all paths counted.
        log10_direct: the direct path's norm, that of its best unit.
        log10_typical: the mean over units of the logarithm of the direct path.
    """

    cell: str
    steps: int
    log10_whole: np.ndarray
    log10_direct: np.ndarray
    log10_typical: np.ndarray

    def median(self, name: str) -> float:
        """Return the median over draws of "whole", "direct" or "typical"."""
        require_choice("name", name, ("whole", "direct", "typical"))
        return float(np.median(getattr(self, f"log10_{name}")))

    def describe(self) -> str:
        """Say the three medians."""
        return (
            f"{self.cell}, {self.steps} steps back, median of {len(self.log10_whole)} draws: "
            f"direct path {format_power(self.median('typical'))} in a typical unit and "
            f"{format_power(self.median('direct'))} in the best, all paths "
            f"{format_power(self.median('whole'))}."
        )


def summarize_memory(
    networks: Iterable[RecurrentWeights], *, steps: int = 50, seed: int, input_scale: float = 1.0
) -> MemorySummary:
    """Measure the memory of several networks of one cell, each along its own random sequence.

    Arguments:
        networks: weights of LSTMs, or of GRUs.
        steps: how many steps back, at least 1; the sequences have one step more.
        seed: of the inputs, which are normal with standard deviation `input_scale`.
    """
    from course_lib.reference import RecurrentNetwork, state_jacobians

    steps = require_integer("steps", steps, minimum=1)
    scale = require_real("input_scale", input_scale, minimum=0.0)
    rng = np.random.default_rng(require_seed(seed))
    if not isinstance(networks, Iterable):
        raise TypeError(f"`networks` (a {type(networks).__name__}) must be a list of weights.")
    networks = list(networks)
    cells = {getattr(w, "cell", None) for w in networks}
    if len(cells) != 1 or not cells <= set(KEEPING_GATES):
        raise ValueError(f"`networks` (cells {cells}) must be LSTMs, or GRUs, at least one.")
    rows = []
    for weights in networks:
        x = scale * rng.normal(size=(steps + 1, weights.n_in))
        paths = state_jacobians(RecurrentNetwork(weights), x).path_norms()
        rows.append((paths.log10_whole[0], paths.log10_direct[0], paths.log10_direct_mean[0]))
    return MemorySummary(cells.pop(), steps, *np.array(rows).T)


@dataclass(frozen=True, eq=False)
class GateBiasSweep:
    r"""The memory of one cell for several biases of the gate that keeps it.

    Fields:
        cell, steps: the cell's name, and how many steps back.
        biases: the biases b, ascending, shape (B,).
        summaries: a `MemorySummary` for each.
    """

    cell: str
    steps: int
    biases: np.ndarray
    summaries: tuple[MemorySummary, ...] = field(repr=False)

    @property
    def log10_theory(self) -> np.ndarray:
        r"""$\log_{10}\sigma(b)^{steps}$, shape (B,): what the bias alone would give."""
        return -self.steps * np.log1p(np.exp(-self.biases)) / np.log(10.0)

    def medians(self, name: str) -> np.ndarray:
        """Return the medians of "whole", "direct" or "typical" for every bias, shape (B,)."""
        return np.array([summary.median(name) for summary in self.summaries])

    def describe(self) -> str:
        """Say theory and measurement at the two ends, and how far apart they are."""
        theory, whole = self.log10_theory, self.medians("whole")
        ends = [
            f"at a bias of {self.biases[k]:g} the bias alone gives {format_power(theory[k])} and "
            f"all paths together {format_power(whole[k])}"
            for k in (0, -1)
        ]
        return f"{self.cell}, {self.steps} steps back: {ends[0]}; {ends[1]}."


def sweep_gate_bias(
    spec: RecurrentSpec, biases: Sequence[float], *, steps: int = 50, draws: int = 3, seed: int
) -> GateBiasSweep:
    """Set the bias of the forget gate (LSTM) or update gate (GRU), and measure the memory.

    Arguments:
        spec: an LSTM or a GRU; its own bias of that gate is replaced.
        biases: the values, distinct.
        steps: how many steps back.
        draws: networks per bias, at least 1; every bias gets the same draws and inputs.
        seed: of the first draw; the others take the numbers after it.
    """
    if not isinstance(spec, RecurrentSpec):
        raise TypeError(f"`spec` (={spec!r}) must be a RecurrentSpec.")
    gate = KEEPING_GATES.get(spec.cell)
    if gate is None:
        raise ValueError(f"`spec` (cell {spec.cell}) must be an LSTM or a GRU: no gate keeps it.")
    biases = np.unique(
        require_array("biases", list(require_sequence("biases", biases, of="numbers")), ndim=1)
    )
    seed = require_seed(seed)
    drawn = [
        draw_recurrent_weights(spec, seed=seed + k)
        for k in range(require_integer("draws", draws, minimum=1))
    ]
    summaries = []
    for value in biases:
        networks = [_set_gate_bias(weights, gate, value) for weights in drawn]
        summaries.append(summarize_memory(networks, steps=steps, seed=seed))
    return GateBiasSweep(spec.cell, summaries[0].steps, biases, tuple(summaries))


def _set_gate_bias(weights: RecurrentWeights, gate: str, value: float) -> RecurrentWeights:
    b_xh, b_hh = weights.b_xh.copy(), weights.b_hh.copy()
    rows = weights.gate_rows(gate)
    b_xh[rows], b_hh[rows] = value, 0.0
    return replace(weights, b_xh=b_xh, b_hh=b_hh)
