"""What trials of cures are judged by: conditions before training, verdicts on training.

The rules are stated here once, with their numbers; they hold for feed-forward and for recurrent
networks. They are quantitative so that other seeds can be put to the same question.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_function,
    require_instances,
    require_real,
)

DECADES = 2.0
"""Change of the activation gradient between the last hidden layer (the last step) and the first,
from which it counts as vanishing or exploding: the warning level of `course_lib.diagnosis`."""
DEAD = 0.25
"""Share of the hidden units that are dead on the data, from which the layer counts as dead."""
FLAT = 0.25
"""Mean slope, as a share of the largest, below which the units count as saturated. A ReLU layer
in good health has about one half; a sigmoid or tanh near 0 has nearly all of it."""
CHANGE = 0.2
"""Change of the accuracy, twenty points in a hundred, from which a cure has helped or harmed."""
PAIR_CHANGE = 0.1
"""How far a pair must be from the better of its two cures, to add or to spoil: ten points."""
AGREEMENT = 0.8
"""Share of the seeds that must agree; otherwise the verdict is that it varies with the seed."""

CONDITIONS = ("vanishing", "exploding", "dead", "saturated")
VERDICTS = ("helps", "no effect", "harms", "varies")


@dataclass(frozen=True, eq=False)
class CureTrial:
    r"""What one recipe does on S seeds.

    Fields, arrays of shape (S,); the first seven are measured before the first update:
        decades: $\log_{10}$ of the norm of the activation gradient in the first hidden layer (at
            the first step of a sequence) over that in the last; -inf where nothing arrives.
        dead_shares: share of the hidden units with slope 0 on all inputs.
        slope_shares: mean slope over the largest slope of the activation.
        zero_shares: share of the hidden outputs that are exactly 0.
        grad_norms: global norm of the gradient.
        smallest_grad_norms: norm of the smallest gradient among the weight matrices.
        weight_scales: standard deviation of the hidden weights.
        accuracies: on unseen inputs, after training.
        finite: whether the trained network's outputs are finite.
    """

    decades: np.ndarray
    dead_shares: np.ndarray
    slope_shares: np.ndarray
    zero_shares: np.ndarray = field(repr=False)
    grad_norms: np.ndarray = field(repr=False)
    smallest_grad_norms: np.ndarray = field(repr=False)
    weight_scales: np.ndarray = field(repr=False)
    accuracies: np.ndarray
    finite: np.ndarray = field(repr=False)

    @property
    def conditions(self) -> Mapping[str, np.ndarray]:
        """For each of `CONDITIONS`, in which seeds it is present before training."""
        dead = self.dead_shares > DEAD
        return {
            "vanishing": self.decades < -DECADES,
            "exploding": ~(self.decades <= DECADES),
            "dead": dead,
            "saturated": (self.slope_shares < FLAT) & ~dead,  # what is dead is flat as well
        }

    @property
    def condition(self) -> str:
        """What is wrong in enough of the seeds, joined by " + "; "healthy", or "varies"."""
        shares = {name: present.mean() for name, present in self.conditions.items()}
        present = [name for name, share in shares.items() if share >= AGREEMENT]
        unclear = any(max(share, 1.0 - share) < AGREEMENT for share in shares.values())
        return " + ".join(present) or ("varies" if unclear else "healthy")

    def describe(self) -> str:
        """Say the condition, the decades and the accuracies, with their spread over the seeds."""
        low, middle, high = np.percentile(self.decades, [0, 50, 100], method="nearest")
        scores = 100 * np.percentile(self.accuracies, [0, 50, 100])
        return (
            f"{self.condition}; gradients change by {_decades(middle)} decades ({_decades(low)} to "
            f"{_decades(high)}); accuracy {scores[1]:.0f} % ({scores[0]:.0f} to {scores[2]:.0f})"
        )


def _decades(value: float) -> str:
    return "-inf" if value == -np.inf else f"{round(value, 1) + 0.0:+.1f}"  # never -0.0


def judge_change(before: np.ndarray, after: np.ndarray) -> str:
    """Return the verdict on the accuracies of the same seeds without and with a cure.

    - "helps": the median change is at least `CHANGE`, and `AGREEMENT` of the seeds rise;
    - "harms": the median change is at most minus `CHANGE`, and `AGREEMENT` of the seeds fall;
    - "no effect": the median change is smaller, and in `AGREEMENT` of the seeds the change is
      below twice `CHANGE`;
    - "varies": anything else; the seed decides.
    """
    before = require_array("before", before, ndim=1)
    changes = require_array("after", after, shape=before.shape) - before
    middle = float(np.median(changes))
    if middle >= CHANGE and np.mean(changes > 0) >= AGREEMENT:
        return "helps"
    if middle <= -CHANGE and np.mean(changes < 0) >= AGREEMENT:
        return "harms"
    small = np.abs(changes) < 2.0 * CHANGE
    return "no effect" if abs(middle) < CHANGE and np.mean(small) >= AGREEMENT else "varies"


def judge_pair(first: np.ndarray, second: np.ndarray, both: np.ndarray) -> str:
    """Return what two cures together make of what each makes alone, from accuracies.

    "adds" or "spoils" if the median of `both` is `PAIR_CHANGE` above or below the better of the two
    medians, "no better than the better one" in between.
    """
    best = max(np.median(require_array("first", first, ndim=1)),
               np.median(require_array("second", second, ndim=1)))  # fmt: skip
    change = float(np.median(require_array("both", both, ndim=1)) - best)
    if abs(change) < PAIR_CHANGE:
        return "no better than the better one"
    return "adds" if change > 0 else "spoils"


@dataclass(frozen=True, eq=False)
class CureTable:
    """Trials of every cure on every patient.

    Fields:
        patients, cures: their names.
        trials: (patient, cure) -> CureTrial; the cure "" is the patient untreated.
    """

    patients: tuple[str, ...]
    cures: tuple[str, ...]
    trials: Mapping[tuple[str, str], CureTrial] = field(repr=False)

    def trial(self, patient: str, cure: str = "") -> CureTrial:
        """Return one trial; untreated without a `cure`."""
        require_choice("patient", patient, self.patients)
        return self.trials[patient, require_choice("cure", cure, ("", *self.cures))]

    def verdict(self, patient: str, cure: str) -> str:
        """Return one of `VERDICTS`: what the cure does to the accuracy."""
        before = self.trial(patient).accuracies
        return judge_change(before, self.trial(patient, cure).accuracies)

    def verdicts(self) -> dict[tuple[str, str], str]:
        """Return the verdict of every patient and cure."""
        return {(p, c): self.verdict(p, c) for p in self.patients for c in self.cures}

    def conditions(self) -> dict[tuple[str, str], str]:
        """Return the condition before training of every patient and cure, untreated included."""
        return {key: trial.condition for key, trial in self.trials.items()}

    def row(self, patient: str, cure: str = "") -> str:
        """Return one line of text: condition and decades before training, verdict on training.

        No accuracy: near an explosion training is chaotic, and the last digits of another machine's
        arithmetic may move it by points. The verdicts survive that.
        """
        trial = self.trial(patient, cure)
        middle = float(np.percentile(trial.decades, 50, method="nearest"))
        verdict = self.verdict(patient, cure) if cure else ""
        line = (
            f"{patient:10}{cure or 'untreated':13}{trial.condition:22}{_decades(middle):>5}  "
            f"{verdict}"
        )
        return line.rstrip()

    def describe(self) -> str:
        """Say for each patient which cures help, which harm, and which do nothing."""
        parts = []
        for patient in self.patients:
            groups = [
                f"{verdict}: " + ", ".join(c for c in self.cures
                                           if self.verdict(patient, c) == verdict)
                for verdict in VERDICTS
                if any(self.verdict(patient, c) == verdict for c in self.cures)
            ]  # fmt: skip
            parts.append(f"{patient} ({'; '.join(groups)})")
        return f"Verdicts on training: {', '.join(parts)}."


@dataclass(frozen=True)
class AlarmCounts:
    """How a test for illness does on networks of which it is known whether they learned.

    Fields:
        sick, healthy: how many did not learn, and how many did.
        found: how many of the sick the test flags.
        accused: how many of the healthy it flags.
    """

    sick: int
    healthy: int
    found: int
    accused: int

    def describe(self) -> str:
        """Say both shares, to ten percent: which networks learn hangs on a few chaotic runs."""
        return (
            f"finds {_say_share(self.found, self.sick)} of the sick, accuses "
            f"{_say_share(self.accused, self.healthy)} of the healthy"
        )


def _say_share(count: int, total: int) -> str:
    if count in (0, total):
        return "none" if count == 0 else "all"
    tenths = 10 * count / total
    if tenths < 1 or tenths > 9:  # rounded it would be none or all
        return "under 10 %" if tenths < 1 else "over 90 %"
    return f"about {10 * round(tenths)} %"


Alarm = Callable[[CureTrial], np.ndarray]

THRESHOLDS: MappingProxyType[str, tuple[str, Alarm]] = MappingProxyType({
    "early layers < 1e-7": ("smallest weight gradient; Lectures 0 and 1",
                            lambda t: t.smallest_grad_norms < 1e-7),
    "total norm < 1e-6": ("Lecture 1's loop", lambda t: t.grad_norms < 1e-6),
    "total norm > 100": ("Lectures 1 and 3", lambda t: ~(t.grad_norms <= 100)),
    "total norm > 1000": ("Lectures 0 and 2", lambda t: ~(t.grad_norms <= 1000)),
    "zeros > 20 %": ("Lecture 1", lambda t: t.zero_shares > 0.2),
    "weights not 0.01..0.1": ("Lecture 1, standard deviation",
                              lambda t: (t.weight_scales < 0.01) | (t.weight_scales > 0.1)),
    "our four conditions": ("this chapter", lambda t: np.any([*t.conditions.values()], axis=0)),
})  # fmt: skip
"""The lectures' thresholds and this chapter's: name -> (source, which seeds are flagged)."""


def count_alarms(trials: Sequence[CureTrial], alarm: Alarm, *, learned: float = 0.3) -> AlarmCounts:
    """Count what an alarm before training finds, and whom it accuses, over all seeds.

    Arguments:
        trials: at least one; the same one twice counts once.
        alarm: which seeds of a trial are flagged, booleans of shape (S,).
        learned: the accuracy above which a network counts as healthy.
    """
    require_instances("trials", trials, CureTrial)
    alarm = require_function("alarm", alarm)
    learned = require_real("learned", learned, minimum=0.0, maximum=1.0)
    sick = found = healthy = accused = 0
    for trial in dict.fromkeys(trials):
        well = trial.accuracies > learned
        flags = np.asarray(alarm(trial), dtype=bool)
        sick, healthy = sick + int(np.sum(~well)), healthy + int(np.sum(well))
        found, accused = found + int(np.sum(flags & ~well)), accused + int(np.sum(flags & well))
    return AlarmCounts(sick, healthy, found, accused)
