r"""Whether a training run is stable: what is recorded of it, and what counts as an explosion.

A step computes, in this order, the output, the loss, the gradients from layer L down to layer 1,
their global norm $\|g\| = \sqrt{\sum_k \|g_k\|^2}$, and the new weights from layer 1 to layer L.
The first of them that is no longer a finite number is where a run broke.

`train_monitored` in `course_lib.reference`, `course_lib.pytorch` and `course_lib.tf` fills a
`MonitoredRun` by way of `course_lib.stability_recording`; what is here knows no framework.
Source: pascanu2013 (the global norm as the quantity to watch), ieee754 (inf and NaN).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_real
from course_lib.results import decades, format_number


def measure_norm(array: np.ndarray) -> float:
    """Return the Euclidean norm of all entries, in float64 and without over- or underflow.

    inf if an entry is infinite, NaN if one is NaN.
    """
    entries = np.abs(np.asarray(array, dtype=np.float64))
    largest = float(entries.max()) if entries.size else 0.0
    if largest == 0.0 or not np.isfinite(largest):
        return largest
    return float(largest * np.linalg.norm(entries / largest))


@dataclass(frozen=True)
class NonFinite:
    """The first time that one quantity of a run was not finite.

    Fields:
        step: the step, counted from 0.
        quantity: "output", "loss", "global norm", "gradient of W_l" or "W_l".
        value: "nan" if the quantity holds a NaN, else "inf".
    """

    step: int
    quantity: str
    value: str


@dataclass(frozen=True, eq=False)
class MonitoredRun:
    r"""The record of a training run by plain SGD, stable or not, of an L-layer network.

    Fields:
        framework: "NumPy", "PyTorch" or "TensorFlow".
        dtype: "float32" or "float64".
        learning_rate: the step size.
        steps: numbers of the steps, shape (R,); step 0 is before the first update.
        losses: the loss before the step's update, shape (R,).
        weight_grad_norms, bias_grad_norms: Frobenius norms there, measured in float64, (R, L).
        reported_norms: the global norm as the framework itself computes it, in the run's own
            precision, shape (R,). Its squares overflow long before the gradient does.
        weight_norms: $\|W_l\|_F$ before the step's update, shape (R, L).
        nonfinite: the first time of each quantity, in the order in which they were computed.
        stopped_at: the step whose update was refused, or None.
        weights_finite: whether all weights and biases are finite after the run.
    """

    framework: str
    dtype: str
    learning_rate: float
    steps: np.ndarray = field(repr=False)
    losses: np.ndarray = field(repr=False)
    weight_grad_norms: np.ndarray = field(repr=False)
    bias_grad_norms: np.ndarray = field(repr=False)
    reported_norms: np.ndarray = field(repr=False)
    weight_norms: np.ndarray = field(repr=False)
    nonfinite: tuple[NonFinite, ...]
    stopped_at: int | None
    weights_finite: bool

    @property
    def depth(self) -> int:
        """The number L of layers."""
        return self.weight_norms.shape[1]

    @property
    def tensor_norms(self) -> np.ndarray:
        """The norm of every gradient tensor, weights and biases, shape (R, 2L)."""
        return np.concatenate([self.weight_grad_norms, self.bias_grad_norms], axis=1)

    @property
    def global_norms(self) -> np.ndarray:
        r"""$\sqrt{\sum_k \|g_k\|^2}$ over all tensors, in float64, shape (R,)."""
        return np.array([measure_norm(row) for row in self.tensor_norms])

    @property
    def norm_sums(self) -> np.ndarray:
        r"""$\sum_k \|g_k\|$ over all tensors, shape (R,): never below the global norm."""
        return self.tensor_norms.sum(axis=1)

    @property
    def update_ratios(self) -> np.ndarray:
        r"""Learning rate times gradient norm over weight norm, all matrices together, shape (R,).

        The size of the step that plain SGD makes (before any clipping), relative to what it
        changes. Unlike the gradient's norm it does not depend on the units of the loss.
        """
        rows = zip(self.weight_grad_norms, self.weight_norms, strict=True)
        sizes = np.array([(measure_norm(grads), measure_norm(weights)) for grads, weights in rows])
        with np.errstate(divide="ignore", invalid="ignore"):
            return self.learning_rate * sizes[:, 0] / sizes[:, 1]

    @property
    def diverged(self) -> bool:
        """Whether the run ends with a loss that is not finite or above where it began."""
        return not self.losses[-1] <= self.losses[0]

    def describe(self) -> str:
        """Say the loss at both ends, the norms, and what was first not finite."""
        norms = self.global_norms
        largest = format_number(norms[np.isfinite(norms)].max(initial=0.0))
        text = (
            f"{self.framework} ({self.dtype}), learning rate {self.learning_rate:g}: the loss goes "
            f"from {format_number(self.losses[0])} to {format_number(self.losses[-1])} in "
            f"{int(self.steps[-1])} steps, the largest finite global norm is {largest}"
        )
        if self.nonfinite:
            first = self.nonfinite[0]
            text += f"; first not finite: {first.quantity} ({first.value}) at step {first.step}"
        if self.stopped_at is not None:
            text += f"; the update of step {self.stopped_at} was refused"
        return text + "."


@dataclass(frozen=True, eq=False)
class ExplosionReport:
    """What a threshold on the global norm says about one run; Lecture 3's four metrics and two.

    Fields:
        threshold: a step is an event if its global norm is above this, or not a number.
        count: number of steps looked at.
        events: the steps flagged, shape (E,).
        largest: the largest finite global norm.
        largest_jump: the largest factor between the finite norms of two consecutive steps.
        spread: decades between the smallest and the largest finite norm.
        first_nonfinite: the first step at which anything was not finite, or None.
    """

    threshold: float
    count: int
    events: np.ndarray
    largest: float
    largest_jump: float
    spread: float
    first_nonfinite: int | None

    @property
    def frequency(self) -> float:
        """The fraction of steps flagged."""
        return len(self.events) / self.count

    @property
    def first_event(self) -> int | None:
        """The first step flagged, or None."""
        return int(self.events[0]) if len(self.events) else None

    def describe(self) -> str:
        """Say how often, from when on, how far and how fast."""
        if self.first_event is None:
            head = f"No step of {self.count} is above {self.threshold:g}"
        else:
            head = (
                f"{len(self.events)} of {self.count} steps are above {self.threshold:g}, the first "
                f"is step {self.first_event}"
            )
        end = "" if self.first_nonfinite is None else (
            f"; not finite from step {self.first_nonfinite} on"
        )  # fmt: skip
        return (
            f"{head}; largest finite norm {format_number(self.largest)}, largest jump × "
            f"{format_number(self.largest_jump)} in one step, {self.spread:.1f} decades in "
            f"all{end}."
        )


def detect_explosions(run: MonitoredRun, *, threshold: float = 100.0) -> ExplosionReport:
    """Return what a threshold on the global norm flags in `run`.

    Unlike `norm > threshold`, which is false for a NaN, every norm that is not at most the
    threshold is an event. Raises TypeError or ValueError for a bad run or threshold.
    """
    if not isinstance(run, MonitoredRun):
        raise TypeError(f"`run` (a {type(run).__name__}) must be a MonitoredRun.")
    threshold = require_real("threshold", threshold, minimum=0.0, exclusive=True)
    norms = run.global_norms
    events = run.steps[~(norms <= threshold)]
    finite = norms[np.isfinite(norms) & (norms > 0)]
    before, after = norms[:-1], norms[1:]
    both = np.isfinite(before) & np.isfinite(after) & (before > 0)
    jumps = after[both] / before[both]
    return ExplosionReport(
        threshold=threshold,
        count=len(run.steps),
        events=events,
        largest=float(finite.max(initial=0.0)),
        largest_jump=float(jumps.max(initial=0.0)),
        spread=decades(finite.min(), finite.max()) if finite.size else 0.0,
        first_nonfinite=run.nonfinite[0].step if run.nonfinite else None,
    )
