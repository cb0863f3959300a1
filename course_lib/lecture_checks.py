"""The five checks of the lectures, as rules on a monitor's record, and how often they are right.

All of them compare a size with a fixed number. `rescale_loss` shows what that is worth: the same
training, told in other units of the loss, gets other verdicts.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from course_lib._validation import (
    require_array,
    require_labelled,
    require_real,
    require_sequence,
    require_type,
)
from course_lib.monitoring import FlowRecord
from course_lib.triage import triage

VANISHING, EXPLODING, DEAD = "vanishing_gradient", "exploding_gradient", "dead_units"
Accusations = frozenset[str]


@dataclass(frozen=True)
class Check:
    """One way to judge a run.

    Fields:
        name: with the lecture's number.
        rule: in words.
        claims: the troubles it can name.
        accuse: record -> the troubles it names at any sampled step.
    """

    name: str
    rule: str
    claims: tuple[str, ...]
    accuse: Callable[[FlowRecord], Accusations] = field(repr=False)

    def is_right(self, record: FlowRecord, cause: str) -> bool:
        """Return whether it names `cause` and nothing else, or nothing if that is not its field."""
        expected = {cause} & set(self.claims)
        return self.accuse(record) == expected


def _between(values: np.ndarray, low: float | None, high: float) -> Accusations:
    """Return what a check with a lower and an upper limit says of any of the values."""
    found = set()
    with np.errstate(invalid="ignore"):  # a NaN is neither: it passes in silence, as there
        if low is not None and np.any(values < low):
            found.add(VANISHING)
        if np.any(values > high):
            found.add(EXPLODING)
    return frozenset(found)


def _total(record: FlowRecord) -> np.ndarray:
    """Return the root of the sum of squares over the parameters, NaN where one is NaN."""
    with np.errstate(over="ignore", invalid="ignore"):
        return np.sqrt(np.sum(record.weight_grad_norms**2, axis=1))


def _check_parameters(record: FlowRecord) -> Accusations:
    return _between(record.weight_grad_norms, 1e-7, 1e3)


def _check_zeros(record: FlowRecord) -> Accusations:
    """Lecture 1 averages the share of zeros over the batches and warns of any layer."""
    rectified = [k for k, name in enumerate(record.activations) if name == "relu"]
    zeros = 1 - np.mean(record.active_fractions[:, rectified], axis=0)
    return frozenset({DEAD}) if np.any(zeros > 0.2) else frozenset()


def _check_sum(record: FlowRecord) -> Accusations:
    total = np.sum(record.weight_grad_norms, axis=1)
    found = _between(total, None, 100.0)
    return found if np.all(np.isfinite(total)) else found | {EXPLODING}


LECTURE_CHECKS = (
    Check("0 check_gradient_flow", "any parameter's gradient norm below 1e-7 or above 1e3",
          (VANISHING, EXPLODING), _check_parameters),
    Check("1 monitoring loop", "total norm below 1e-6 or above 100",
          (VANISHING, EXPLODING), lambda record: _between(_total(record), 1e-6, 100.0)),
    Check("1 check_dead_neurons", "more than 20 % of a ReLU's outputs are zero",
          (DEAD,), _check_zeros),
    Check("2 check_gradients", "total norm below 1e-7 or above 1000",
          (VANISHING, EXPLODING), lambda record: _between(_total(record), 1e-7, 1e3)),
    Check("3 detection", "sum of the norms above 100, or not finite",
          (EXPLODING,), _check_sum),
)  # fmt: skip
"""Each as the lecture states it; an accusation at any sampled step counts."""

ALL_CAUSES = (VANISHING, EXPLODING, DEAD, "saturation", "standing_still", "non_finite",
              "large_update", "lost_units")  # fmt: skip
TRIAGE_CHECK = Check(
    "triage", "the questions of course_lib.triage", ALL_CAUSES,
    lambda record: frozenset({triage(record).verdict} - {"healthy"}),
)  # fmt: skip


def rescale_loss(record: FlowRecord, factor: float) -> FlowRecord:
    r"""Return the record of the same run with the loss in other units.

    With the loss $c \mathcal{L}$ and the learning rate $\eta / c$, plain SGD makes the same updates
    step by step: every gradient is c times as large, and nothing else changes.

    Arguments:
        record: of a run by plain SGD.
        factor: c > 0.
    """
    require_type("record", record, FlowRecord)
    factor = require_real("factor", factor, minimum=0.0, exclusive=True)
    with np.errstate(over="ignore"):
        return replace(
            record,
            activation_grad_norms=factor * record.activation_grad_norms,
            weight_grad_norms=factor * record.weight_grad_norms,
        )


@dataclass(frozen=True, eq=False)
class VerdictTable:
    """What C checks say of N runs whose causes are known.

    Fields:
        checks, runs, causes: names; causes may be "healthy".
        accusations: what each check names, [check][run].
        right: shape (C, N); see `Check.is_right`.
        missed: the cause is the check's own field, and it is not named, shape (C, N).
        false: something is named that is not the cause, shape (C, N).
    """

    checks: tuple[str, ...]
    runs: tuple[str, ...]
    causes: tuple[str, ...]
    accusations: tuple[tuple[Accusations, ...], ...] = field(repr=False)
    right: np.ndarray
    missed: np.ndarray
    false: np.ndarray

    def describe(self) -> str:
        """Say for each check how often it is right, misses, and accuses falsely."""
        parts = [
            f"{name}: {int(r.sum())} right, {int(m.sum())} missed, {int(f.sum())} falsely accused"
            for name, r, m, f in zip(self.checks, self.right, self.missed, self.false, strict=True)
        ]
        return f"Of {len(self.runs)} runs: {'; '.join(parts)}."


def judge_runs(
    runs: Mapping[str, FlowRecord],
    causes: Sequence[str],
    *,
    checks: Sequence[Check] = (*LECTURE_CHECKS, TRIAGE_CHECK),
) -> VerdictTable:
    """Return what each check says of each run, beside the truth.

    Arguments:
        runs: label -> record.
        causes: the cause of each run, in the same order; "healthy" or one of `ALL_CAUSES`.
        checks: some `Check`s.
    """
    require_labelled("runs", runs, FlowRecord)
    require_sequence("causes", causes, of="names")
    if len(causes) != len(runs) or not set(causes) <= {"healthy", *ALL_CAUSES}:
        raise ValueError(f"`causes` (={causes!r}) must hold {len(runs)} names of causes.")
    for k, check in enumerate(require_sequence("checks", checks, of="Checks")):
        require_type(f"checks[{k}]", check, Check)
    accused = tuple(tuple(check.accuse(record) for record in runs.values()) for check in checks)
    cells = [list(zip(row, causes, strict=True)) for row in accused]
    return VerdictTable(
        tuple(check.name for check in checks), tuple(runs), tuple(causes), accused,
        np.array([[said == {cause} & set(check.claims) for said, cause in row]
                  for row, check in zip(cells, checks, strict=True)]),
        np.array([[cause in check.claims and cause not in said for said, cause in row]
                  for row, check in zip(cells, checks, strict=True)]),
        np.array([[bool(said - {cause}) for said, cause in row] for row in cells]),
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class UnitsSweep:
    """How many of N runs each check judges rightly, over the units of the loss.

    Fields:
        factors: c, shape (F,).
        checks: names.
        right: number of runs judged rightly, shape (C, F).
        count: N.
    """

    factors: np.ndarray
    checks: tuple[str, ...]
    right: np.ndarray
    count: int

    def describe(self) -> str:
        """Say the range of right verdicts of each check."""
        parts = [
            f"{name} {row.min()} to {row.max()}" if row.min() < row.max() else f"{name} {row[0]}"
            for name, row in zip(self.checks, self.right, strict=True)
        ]
        return (
            f"Right verdicts of {self.count} while the unit of the loss changes by "
            f"{np.log10(self.factors[-1] / self.factors[0]):.0f} decades: {', '.join(parts)}."
        )


def sweep_units(
    runs: Mapping[str, FlowRecord], causes: Sequence[str], factors: Sequence[float]
) -> UnitsSweep:
    """Return how the verdicts on `runs` depend on the units of the loss; see `rescale_loss`.

    Arguments:
        runs, causes: as for `judge_runs`.
        factors: increasing, > 0.
    """
    factors = require_array("factors", factors, ndim=1)
    if factors[0] <= 0 or np.any(np.diff(factors) <= 0):
        raise ValueError(f"`factors` (={factors}) must be increasing and above 0.")
    require_labelled("runs", runs, FlowRecord)
    tables = [
        judge_runs({name: rescale_loss(r, c) for name, r in runs.items()}, causes) for c in factors
    ]
    right = np.array([table.right.sum(axis=1) for table in tables]).T
    return UnitsSweep(factors, tables[0].checks, right, len(runs))
