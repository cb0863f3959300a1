"""Remedies as changes of a run, and the rule by which one counts as a cure.

`treat` performs a run again with one change; `compare_remedies` does it for every run and remedy.
A run is cured if `course_lib.triage` finds nothing in it any more *and* its loss falls: either
alone can be had without the other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from course_lib._validation import require_choice, require_labelled, require_sequence, require_type
from course_lib.digit_runs import FinishedRun, RunSpec, perform_run
from course_lib.triage import triage

FIRST_UPDATE = 0.01
"""Update over weight that `match_rate` sets at step 0. (1e-3 is usual; eighty steps want more.)"""
LEARNED = 0.7 * np.log(10)
"""Seven tenths of the loss of a network that answers every digit with probability 1/10."""


def _lower_rate(run: FinishedRun) -> RunSpec:
    return replace(run.spec, learning_rate=run.spec.learning_rate / 10)


def _match_rate(run: FinishedRun) -> RunSpec:
    """The learning rate at which the first update is one percent of the weights, in the median."""
    ratio = np.median(run.record.update_ratios[0, run.matrices])
    return replace(run.spec, learning_rate=run.spec.learning_rate * FIRST_UPDATE / float(ratio))


def _clip(run: FinishedRun) -> RunSpec:
    return replace(run.spec, clip_norm=1.0)


def _redraw(run: FinishedRun) -> RunSpec:
    """Glorot's law for sigmoid and tanh, He's for the others, with gain 1."""
    kind = run.spec.network.activation
    init = "glorot_normal" if kind in ("sigmoid", "tanh") else "he_normal"
    return replace(run.spec, network=replace(run.spec.network, init=init, gain=1.0))


def _rectify(run: FinishedRun) -> RunSpec:
    network = replace(run.spec.network, activation="relu", init="he_normal", gain=1.0)
    return replace(run.spec, network=network)


def _zero_biases(run: FinishedRun) -> RunSpec:
    network = replace(run.spec.network, bias=0.0)
    return replace(run.spec, network=network, silenced_layer=None, silenced_share=0.0)


def _standardize(run: FinishedRun) -> RunSpec:
    return replace(run.spec, input_scale=1.0, input_shift=0.0)


REMEDIES: dict[str, Callable[[FinishedRun], RunSpec]] = {
    "lower_rate": _lower_rate,
    "match_rate": _match_rate,
    "clip": _clip,
    "redraw": _redraw,
    "rectify": _rectify,
    "zero_biases": _zero_biases,
    "standardize": _standardize,
}
"""Learning rate by ten; learning rate set by the first update; clipping by global norm to 1;
weights drawn anew for the activation; ReLU with He's weights; biases at zero; standardized
inputs."""


def treat(run: FinishedRun, remedy: str) -> FinishedRun:
    """Return the run performed again with one change, one of `REMEDIES`.

    A remedy that changes nothing in this run (zero biases that are zero) returns the run itself.
    """
    require_type("run", run, FinishedRun)
    spec = REMEDIES[require_choice("remedy", remedy, REMEDIES)](run)
    return run if spec == run.spec else perform_run(spec)


def is_cured(run: FinishedRun) -> bool:
    """Return whether triage finds nothing in the run and its loss ends below `LEARNED`."""
    require_type("run", run, FinishedRun)
    return triage(run.record).verdict == "healthy" and run.final_loss < LEARNED


@dataclass(frozen=True, eq=False)
class RemedyTable:
    """Which remedy cures which run: N runs, M remedies.

    Fields:
        runs, remedies: their names.
        verdicts: the verdict of triage before treatment, (N,).
        cured: shape (N, M).
        changed: whether the remedy changed anything at all, shape (N, M).
        treated: the runs after treatment, [run][remedy].
    """

    runs: tuple[str, ...]
    remedies: tuple[str, ...]
    verdicts: tuple[str, ...]
    cured: np.ndarray
    changed: np.ndarray
    treated: tuple[tuple[FinishedRun, ...], ...] = field(repr=False)

    @property
    def accuracies(self) -> np.ndarray:
        """The share of held-out digits right after treatment, shape (N, M)."""
        return np.array([[run.accuracy for run in row] for row in self.treated])

    def find(self, run: str, remedy: str) -> FinishedRun:
        """Return one run after one treatment."""
        row = self.runs.index(require_choice("run", run, self.runs))
        return self.treated[row][self.remedies.index(
            require_choice("remedy", remedy, self.remedies))]  # fmt: skip

    def cures(self, run: str) -> tuple[str, ...]:
        """Return the remedies that cure a run."""
        row = self.runs.index(require_choice("run", run, self.runs))
        return tuple(n for n, ok in zip(self.remedies, self.cured[row], strict=True) if ok)

    def describe(self) -> str:
        """Say for each run what cures it."""
        return " ".join(
            f"Run {name}: {', '.join(self.cures(name)) or 'none'}." for name in self.runs
        )


def compare_remedies(
    runs: Mapping[str, FinishedRun], *, remedies: Sequence[str] = tuple(REMEDIES)
) -> RemedyTable:
    """Treat every run with every remedy and return what was cured.

    Arguments:
        runs: label -> run.
        remedies: some of `REMEDIES`.
    """
    require_labelled("runs", runs, FinishedRun)
    for k, remedy in enumerate(require_sequence("remedies", remedies, of="names")):
        require_choice(f"remedies[{k}]", remedy, REMEDIES)
    treated = [[treat(run, remedy) for remedy in remedies] for run in runs.values()]
    befores = list(runs.values())
    return RemedyTable(
        tuple(runs),
        tuple(remedies),
        tuple(triage(run.record).verdict for run in befores),
        np.array([[is_cured(t) for t in row] for row in treated]),
        np.array([[t is not b for t in row] for row, b in zip(treated, befores, strict=True)]),
        tuple(tuple(row) for row in treated),
    )
