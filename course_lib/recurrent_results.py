r"""What the recurrent functions return: frozen records that can describe themselves.

Time runs from t = 1 to T; entry [t - 1] of an array over time belongs to step t. Norms that may
lie anywhere between 1e-400 and 1e+400 are held as their base-10 logarithms.
"""

from __future__ import annotations

import numbers
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_array, require_integer, require_real
from course_lib.results import format_number


def format_power(log10: float) -> str:
    """Return 10**log10 in words that cannot under- or overflow: 0.24, 3.1e-80, 1e-412, 0."""
    if isinstance(log10, (bool, np.bool_)) or not isinstance(log10, numbers.Real):
        raise TypeError(f"`log10` (={log10!r}) must be a real number.")
    if log10 == -np.inf:
        return "0"
    if not np.isfinite(log10):
        return str(log10)
    if -300 < log10 < 300:
        return format_number(10.0**log10)
    whole = int(np.floor(log10))
    return f"{10.0 ** (log10 - whole):.1f}e{whole:+d}"


def _log10_norms(grads: np.ndarray) -> np.ndarray:
    """Return log10 of the Frobenius norm over batch and units for each t; grads (batch, T, n)."""
    with np.errstate(divide="ignore"):
        return np.log10(np.linalg.norm(np.asarray(grads, np.float64), axis=(0, 2)))


@dataclass(frozen=True, eq=False)
class RecurrentFlow:
    r"""Every gradient of one backward pass through time, for a batch of sequences.

    Fields:
        framework: "NumPy", "PyTorch" or "TensorFlow".
        dtype: "float32" or "float64".
        cell: "tanh_rnn", "relu_rnn", "lstm" or "gru".
        loss: the value of the loss.
        parameter_grads: gradients by the names of `RecurrentWeights`, of the same shapes.
        hidden_grads: the complete $\partial\mathcal{L}/\partial h_t$, shape (batch, T, n).
        cell_grads: the complete $\partial\mathcal{L}/\partial C_t$, same shape; None without C.
        input_grads: $\partial\mathcal{L}/\partial x_t$, shape (batch, T, n_in).
        hidden_states: $h_t$, shape (batch, T, n).
        cell_states: $C_t$, same shape; None without C.
    """

    framework: str
    dtype: str
    cell: str
    loss: float
    parameter_grads: dict[str, np.ndarray] = field(repr=False)
    hidden_grads: np.ndarray = field(repr=False)
    cell_grads: np.ndarray | None = field(repr=False)
    input_grads: np.ndarray = field(repr=False)
    hidden_states: np.ndarray = field(repr=False)
    cell_states: np.ndarray | None = field(repr=False)

    @property
    def length(self) -> int:
        """The number T of steps."""
        return self.hidden_grads.shape[1]

    @property
    def hidden_grad_norms(self) -> np.ndarray:
        r"""$\|\partial\mathcal{L}/\partial h_t\|_F$ over the batch for t = 1..T, shape (T,)."""
        return np.linalg.norm(np.asarray(self.hidden_grads, np.float64), axis=(0, 2))

    @property
    def global_norm(self) -> float:
        """The norm of all parameter gradients taken as one vector."""
        return float(
            np.sqrt(sum(np.sum(np.asarray(g, float) ** 2) for g in self.parameter_grads.values()))
        )

    @property
    def profile(self) -> BPTTProfile:
        """The gradient's norm over time, as a `BPTTProfile`."""
        cell = None if self.cell_grads is None else _log10_norms(self.cell_grads)
        return BPTTProfile(
            self.framework, self.dtype, self.cell, "autograd", _log10_norms(self.hidden_grads), cell
        )

    def describe(self) -> str:
        """Say the loss, the global norm and how the gradient changes over time."""
        ends = [format_number(v) for v in self.hidden_grad_norms[[-1, 0]]]
        return (
            f"{self.framework} ({self.dtype}), {self.cell}, {self.length} steps: loss "
            f"{self.loss:.3f}, global gradient norm {format_number(self.global_norm)}; the norm of "
            f"dL/dh_t goes from {ends[0]} at t = {self.length} to {ends[1]} at t = 1."
        )


@dataclass(frozen=True, eq=False)
class BPTTProfile:
    r"""The norm of $\partial\mathcal{L}/\partial h_t$ over time, with the loss at the last step.

    Fields:
        framework: "NumPy", "PyTorch" or "TensorFlow".
        dtype: the precision of the network's states.
        cell: "tanh_rnn", "relu_rnn", "lstm" or "gru".
        method: "recursion" (logarithms, cannot underflow), "hooks" or "autograd" (can).
        log10_norms: $\log_{10}\|\partial\mathcal{L}/\partial h_t\|_F$ over the batch, shape (T,);
            -inf where the norm is zero.
        log10_cell_norms: the same for $C_t$; None without C.
        recurrent_gain: $\|W_{hh}\|_F / \sqrt{G n}$ for G gates, the root mean square of the
            blocks' singular values; NaN if it was not measured.
    """

    framework: str
    dtype: str
    cell: str
    method: str
    log10_norms: np.ndarray
    log10_cell_norms: np.ndarray | None = field(default=None, repr=False)
    recurrent_gain: float = field(default=float("nan"), repr=False)

    @property
    def length(self) -> int:
        """The number T of steps."""
        return len(self.log10_norms)

    @property
    def norms(self) -> np.ndarray:
        """The norms themselves, shape (T,); 0 or inf where float64 cannot hold them."""
        with np.errstate(over="ignore", under="ignore"):
            return 10.0**self.log10_norms

    @property
    def decades_per_step(self) -> float:
        """The mean slope going back: (log10 at t = 1 minus log10 at t = T) / (T - 1)."""
        if self.length < 2:
            return float("nan")
        return float((self.log10_norms[0] - self.log10_norms[-1]) / (self.length - 1))

    @property
    def zero_steps(self) -> int:
        """The number of steps whose norm came out as exactly zero."""
        return int(np.sum(np.isneginf(self.log10_norms)))

    def describe(self) -> str:
        """Say the norm at both ends, the factor per step, and how many norms are exactly zero."""
        first, last = self.log10_norms[0], self.log10_norms[-1]
        text = (
            f"{self.framework} ({self.dtype}, {self.method}), {self.cell}, {self.length} steps: "
            f"the norm of dL/dh_t goes from {format_power(last)} at t = {self.length} to "
            f"{format_power(first)} at t = 1"
        )
        if np.isfinite(first) and np.isfinite(last) and self.length > 1:
            text += f", a factor of {format_power(self.decades_per_step)} per step back"
        if self.zero_steps:
            text += f"; it is exactly zero at {self.zero_steps} of {self.length} steps"
        return text + "."


@dataclass(frozen=True, eq=False)
class StateJacobians:
    r"""The Jacobians of a recurrent cell along one sequence.

    The state is $s_t = h_t$, or $s_t = (h_t, C_t)$ for an LSTM.

    Fields:
        framework, cell: as in `RecurrentFlow`.
        jacobians: $\partial s_t/\partial s_{t-1}$ for t = 1..T, shape (T, s, s).
        direct: the diagonal of the direct path, shape (T, n): the LSTM's $f_t$, the GRU's $z_t$,
            zeros for a plain cell.
        readback: $\partial h_t/\partial C_t = o_t \odot \tanh'(C_t)$ as a diagonal, shape (T, n);
            None without C.
    """

    framework: str
    cell: str
    jacobians: np.ndarray = field(repr=False)
    direct: np.ndarray = field(repr=False)
    readback: np.ndarray | None = field(default=None, repr=False)

    @property
    def length(self) -> int:
        """The number T of steps."""
        return len(self.jacobians)

    @property
    def spectral_norms(self) -> np.ndarray:
        """The largest singular value of each step's Jacobian, shape (T,)."""
        return np.linalg.norm(np.asarray(self.jacobians, np.float64), 2, axis=(1, 2))

    def path_norms(self) -> PathNorms:
        r"""Compare the direct path with the whole derivative, from step T back to every t.

        The whole derivative of the memory $m$ ($C$ for an LSTM, else $h$) is
        $dm_T/dm_t$, with every path counted. For an LSTM, $C_t$ also changes $h_t$ at once, so
        $dC_T/dC_t = P_{CC} + P_{Ch}\, \mathrm{diag}(o_t \odot \tanh' C_t)$ with
        $P = \partial s_T/\partial s_t$ the product of the steps' Jacobians.
        """
        n, steps = self.direct.shape[1], self.length
        product, scale = np.eye(self.jacobians.shape[1]), 0.0
        whole, direct = np.zeros(steps), np.zeros((steps, n))
        with np.errstate(divide="ignore"):
            log_direct = np.log10(np.asarray(self.direct, np.float64))
            for t in range(steps - 1, 0, -1):
                product = product @ self.jacobians[t]
                size = np.abs(product).max()
                if size > 0:
                    product, scale = product / size, scale + np.log10(size)
                block = product[-n:, -n:]
                if self.readback is not None:
                    block = block + product[-n:, :n] * self.readback[t - 1]
                whole[t - 1] = np.log10(np.linalg.norm(block, 2)) + scale
                direct[t - 1] = direct[t] + log_direct[t]
        return PathNorms(self.framework, self.cell, whole, direct.max(axis=1), direct.mean(axis=1))


@dataclass(frozen=True, eq=False)
class PathNorms:
    r"""How much of a memory's derivative over time the direct path accounts for.

    Fields, each of shape (T,) and base-10 logarithms; the entry of t = T is 0:
        log10_whole: the spectral norm of $dm_T/dm_t$, all paths counted.
        log10_direct: the spectral norm of the direct path's product, which is diagonal:
            $\max_j \prod_{k=t+1}^{T} d_{k,j}$ with d the forget (LSTM) or update gate (GRU).
        log10_direct_mean: the mean over units of $\log_{10}\prod_k d_{k,j}$: a typical unit.
    """

    framework: str
    cell: str
    log10_whole: np.ndarray
    log10_direct: np.ndarray
    log10_direct_mean: np.ndarray = field(repr=False)

    @property
    def gaps(self) -> np.ndarray:
        """Decades by which the whole derivative exceeds the direct path, shape (T,)."""
        return self.log10_whole - self.log10_direct

    def describe(self) -> str:
        """Say both norms over the whole sequence and the decades between them."""
        whole, direct = self.log10_whole[0], self.log10_direct[0]
        memory = "C" if self.cell == "lstm" else "h"
        text = (
            f"{self.cell}, {len(self.log10_whole)} steps: the direct path from {memory}_1 to "
            f"{memory}_T has norm {format_power(direct)}, the whole derivative "
            f"{format_power(whole)}"
        )
        if np.isfinite(whole - direct):
            side = "more" if whole > direct else "less"
            text += f", {abs(whole - direct):.1f} decades {side}"
        return text + "."


@dataclass(frozen=True, eq=False)
class Connectivity:
    r"""What each position of a sequence contributes to the loss of each step.

    Fields:
        framework, dtype, cell, loss: as in `RecurrentFlow`; `loss` is the loss's name.
        wrt: "input" or "hidden", what the losses are differentiated by.
        norms: $\|\partial\mathcal{L}_t/\partial x_s\|_F$ over the batch (or by $h_s$) at
            [t - 1, s - 1], shape (T, T); zero for s > t. Not normalized.
    """

    framework: str
    dtype: str
    cell: str
    loss: str
    wrt: str
    norms: np.ndarray = field(repr=False)

    @property
    def length(self) -> int:
        """The number T of steps."""
        return len(self.norms)

    @property
    def last_row(self) -> np.ndarray:
        """The contribution of each position to the last step's loss, shape (T,)."""
        return self.norms[-1]

    def reach(self, *, fraction: float = 0.01) -> int:
        """Return how many steps back the last loss's largest contribution stays above `fraction`.

        The largest lag T - s with a norm of at least `fraction` times the largest of the row.
        """
        fraction = require_real("fraction", fraction, minimum=0.0, exclusive=True, maximum=1.0)
        row = self.last_row
        return int(self.length - 1 - np.flatnonzero(row >= fraction * row.max())[0])

    def describe(self) -> str:
        """Say the contributions of the last and the first position, and the reach."""
        last, first = self.last_row[-1], self.last_row[0]
        name = "x" if self.wrt == "input" else "h"
        return (
            f"{self.framework} ({self.dtype}), {self.cell}, {self.length} steps: the last step's "
            f"loss has a gradient of norm {format_number(last)} with respect to {name}_T and of "
            f"{format_number(first)} with respect to {name}_1; it stays above 1 % of its largest "
            f"value for {self.reach()} steps back."
        )


@dataclass(frozen=True, eq=False)
class SaturationProfile:
    r"""How saturated tanh units are over time.

    Fields:
        threshold: a unit counts as saturated where $|h| \ge$ `threshold`.
        fractions: the saturated fraction of batch and units at each t, shape (T,).
        mean_slopes: the mean over batch and units of $\tanh' = 1 - h_t^2$, shape (T,).
        hidden_states: one sequence's $h_t$, shape (T, n), for a picture of every unit.
    """

    threshold: float
    fractions: np.ndarray
    mean_slopes: np.ndarray
    hidden_states: np.ndarray = field(repr=False)

    def describe(self) -> str:
        """Say the saturated fraction and the mean slope at the last step."""
        return (
            f"At step {len(self.fractions)}, {100 * self.fractions[-1]:.0f} % of the units have "
            f"|h| of at least {self.threshold:g}, and the mean slope of tanh is "
            f"{format_number(self.mean_slopes[-1])} (at step 1: {100 * self.fractions[0]:.0f} % "
            f"and {format_number(self.mean_slopes[0])})."
        )


def saturation_profile(
    hidden_states: np.ndarray, *, threshold: float = 0.95, sequence: int = 0
) -> SaturationProfile:
    """Measure the saturation of tanh units from their values.

    Arguments:
        hidden_states: shape (batch, T, n), from a `RecurrentFlow` of any framework.
        threshold: in (0, 1].
        sequence: which sequence of the batch to keep for the picture.

    Raises ValueError if a value lies outside [-1, 1]: then it is not a tanh's.
    """
    states = require_array("hidden_states", hidden_states, shape=(None, None, None))
    threshold = require_real("threshold", threshold, minimum=0.0, exclusive=True, maximum=1.0)
    sequence = require_integer("sequence", sequence, minimum=0)
    if sequence >= len(states):
        raise ValueError(f"`sequence` (={sequence}) must be below the batch's size {len(states)}.")
    if np.abs(states).max() > 1.0:
        raise ValueError(
            f"`hidden_states` (up to {np.abs(states).max():.3g}) must lie in [-1, 1], as tanh's do."
        )
    return SaturationProfile(
        threshold,
        np.mean(np.abs(states) >= threshold, axis=(0, 2)),
        np.mean(1.0 - states**2, axis=(0, 2)),
        states[sequence].copy(),
    )


@dataclass(frozen=True, eq=False)
class RecurrentRun:
    r"""The record of one training run of a recurrent network.

    Fields:
        framework, dtype, cell: as in `RecurrentFlow`.
        task: the task's name.
        optimizer, learning_rate: as given.
        clip_norm: the global norm that gradients were clipped to, None without clipping.
        truncation: the length of truncated backpropagation, None for the whole sequence.
        baseline: the loss of the best answer that ignores the inputs.
        steps: numbers of the recorded steps, shape (R,); a loss is measured before its update.
        losses: the losses on those steps' batches, shape (R,).
        grad_norms: global gradient norms there, before clipping, shape (R,).
    """

    framework: str
    dtype: str
    cell: str
    task: str
    optimizer: str
    learning_rate: float
    clip_norm: float | None
    truncation: int | None
    baseline: float
    steps: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)
    grad_norms: np.ndarray = field(repr=False)

    @property
    def first_nonfinite(self) -> int | None:
        """The first recorded step whose loss or gradient norm is not finite, None if all are."""
        bad = np.flatnonzero(~(np.isfinite(self.losses) & np.isfinite(self.grad_norms)))
        return int(self.steps[bad[0]]) if len(bad) else None

    def final_loss(self, *, window: int = 10) -> float:
        """Return the mean of the last `window` recorded losses."""
        return float(np.mean(self.losses[-require_integer("window", window, minimum=1) :]))

    def describe(self) -> str:
        """Say the final loss beside the baseline's, and where the run broke if it did."""
        text = f"{self.framework} ({self.dtype}), {self.cell} on {self.task}, {self.optimizer}"
        if self.clip_norm is not None:
            text += f", clipped at {self.clip_norm:g}"
        if self.truncation is not None:
            text += f", truncated at {self.truncation}"
        text += f", {int(self.steps[-1])} updates: "
        if self.first_nonfinite is not None:
            return text + f"the run is no longer finite from step {self.first_nonfinite} on."
        return text + (
            f"the loss goes from {self.losses[0]:.2f} to {self.final_loss():.2f}, against "
            f"{self.baseline:.2f} for the best answer that ignores the input."
        )
