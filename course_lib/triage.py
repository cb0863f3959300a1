"""From symptom to cause: questions to a monitor's record, in an order, each one a measurement.

`course_lib.diagnosis.diagnose` lists everything that stands out. In a broken run that is much, and
most of it is consequence: after one step too long, units are dead, activations saturated and
gradients gone. `triage` looks for the cause. It asks about the first sample first, which was taken
before any update and can have no consequences yet; then about the states of units before the
gradients that they shape; and it stops at the first yes.
Source: glorot2010 (activations and gradients over layers), pascanu2013 (norms over steps).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_type
from course_lib.diagnosis import depth_trend
from course_lib.monitoring import ONE_SIDED, FlowRecord
from course_lib.results import format_number

DECADES = 2.0
"""Across the depth: the slow end then moves a hundred times less than the fast one."""
UNIT_SHARE = 0.5
"""Of a layer's units or values. Below it, chance and correlated inputs can be the reason."""
LONG_STEP = 0.5
"""Update over weight: two such steps replace what was there. (goodfellow2016 advise 0.01.)"""
SHORT_STEP = 1e-6
"""Update over weight: a million such steps are needed to replace what was there."""

Measured = tuple[float, str]


@dataclass(frozen=True)
class Question:
    """One branch: a measurement against a threshold.

    Fields:
        verdict: the cause, if the answer is yes.
        text: the question.
        measurement: what is measured, in words.
        sign: +1 if "yes" is a value of at least the threshold, -1 if of at most the threshold.
        threshold: see the constants of this module.
        remedy: what to do.
        measure: record -> (value, where); NaN where the question does not apply.
    """

    verdict: str
    text: str
    measurement: str
    sign: int
    threshold: float
    remedy: str
    measure: Callable[[FlowRecord], Measured] = field(repr=False)

    def agrees(self, value: float) -> bool:
        """Return whether a measured value means yes."""
        return bool(self.sign * value >= self.sign * self.threshold)


def _largest(values: np.ndarray, names: tuple[str, ...]) -> Measured:
    """Return the largest value that is a number, and its name."""
    if not np.any(~np.isnan(values)):
        return float("nan"), ""
    k = int(np.nanargmax(values))
    return float(values[k]), names[k]


def _first_nonfinite(record: FlowRecord) -> Measured:
    events = [event for event in record.nonfinite if event.step == record.steps[0]]
    where = f"{events[0].quantity} of {events[0].where}" if events else ""
    return float(len(events)), where


def _dead_at_first(record: FlowRecord) -> Measured:
    return _largest(record.dead_fractions[0], record.layers)


def _two_sided(record: FlowRecord, row: int) -> np.ndarray:
    """Return the saturated fractions of the layers that have no off side (tanh, sigmoid)."""
    other = (*ONE_SIDED, "forget_gate")  # a memory may be kept, or cleared, on purpose
    keep = [name is not None and name not in other for name in record.activations]
    flat = record.saturated_fractions[row]
    if record.held_fractions is not None:  # a gate that has learned is flat, now shut and now open
        content = [name.endswith(("(h)", "(g)", "(n)")) for name in record.layers]
        held = record.held_fractions[row]
        flat = np.where(np.isnan(held) | content, flat, held)
    return np.where(keep, flat, np.nan)


def _saturated_at_first(record: FlowRecord) -> Measured:
    return _largest(_two_sided(record, 0), record.layers)


def _trend_at_first(record: FlowRecord) -> Measured:
    where = f"{record.layers[-1]} to {record.layers[0]}"
    return depth_trend(record.activation_grad_norms[0]), where


def _matrices(record: FlowRecord) -> list[int]:
    return [
        k for k, rank in enumerate(record.parameter_ranks) if rank >= 2 and record.trainable[k]
    ]


def _longest_step(record: FlowRecord) -> Measured:
    if record.nonfinite:
        event = record.nonfinite[0]
        return float("inf"), f"step {event.step}: {event.quantity} of {event.where}"
    columns = _matrices(record)
    if not columns:
        return float("nan"), ""
    names = tuple(record.parameters[k] for k in columns)
    return _largest(np.max(record.update_ratios[:, columns], axis=0), names)


def _lost_at_last(record: FlowRecord) -> Measured:
    dead = _largest(record.dead_fractions[-1], record.layers)
    flat = _largest(_two_sided(record, -1), record.layers)
    pairs = [pair for pair in (dead, flat) if not np.isnan(pair[0])]
    return max(pairs) if pairs else (float("nan"), "")


def _shortest_step(record: FlowRecord) -> Measured:
    names = tuple(record.parameters[k] for k in _matrices(record))
    ratios = record.update_ratios[:, _matrices(record)]
    seen = np.any(~np.isnan(ratios), axis=0)
    typical = np.full(len(names), np.nan)
    typical[seen] = -np.nanmedian(ratios[:, seen], axis=0)
    value, where = _largest(typical, names)
    return -value, where


QUESTIONS = (
    Question("non_finite", "Is anything not finite before the first update?",
             "values inf or NaN in the first sample", 1, 1.0,
             "the data, then logarithms, divisions and roots in the loss", _first_nonfinite),
    Question("dead_units", "Are units dead before the first update?",
             "largest dead share of a layer, first sample", 1, UNIT_SHARE,
             "biases at zero, weights drawn for the activation", _dead_at_first),
    Question("saturation", "Are units saturated before the first update?",
             "largest saturated share of a layer, first sample", 1, UNIT_SHARE,
             "standardized inputs, smaller initial weights, normalization", _saturated_at_first),
    Question("vanishing_gradient", "Does the gradient fall towards the input?",
             "decades from the last layer to the first, first sample", -1, -DECADES,
             "an activation and initial weights that fit, residual connections, normalization",
             _trend_at_first),
    Question("exploding_gradient", "Does the gradient grow towards the input?",
             "decades from the last layer to the first, first sample", 1, DECADES,
             "smaller initial weights, normalization", _trend_at_first),
    Question("large_update", "Is a step too long?",
             "largest update over weight (infinite if anything is)", 1, LONG_STEP,
             "a smaller learning rate, warm-up, clipping", _longest_step),
    Question("lost_units", "Were units lost on the way?",
             "largest dead or saturated share, last sample", 1, UNIT_SHARE,
             "a smaller learning rate, normalization, an activation without a flat side",
             _lost_at_last),
    Question("standing_still", "Does a weight stand still?",
             "smallest update over weight, median of the samples", -1, SHORT_STEP,
             "a learning rate that fits the units of the loss; freeze on purpose only",
             _shortest_step),
)  # fmt: skip


@dataclass(frozen=True)
class Answer:
    """What one question found: the value, where, and whether it means yes."""

    question: Question
    value: float
    where: str
    yes: bool

    def describe(self) -> str:
        """Say the question, the number and the answer."""
        if np.isnan(self.value):
            return f"{self.question.text} Does not apply."
        place = f" at {self.where}" if self.where else ""
        word = "at least" if self.question.sign > 0 else "at most"
        return (
            f"{self.question.text} {'Yes' if self.yes else 'No'}: {format_number(self.value)}"
            f"{place} (yes means {word} {format_number(self.question.threshold)})."
        )


    def as_row(self) -> str:
        """Return the answer as a row of a table: answer, value, threshold, question, place."""
        if np.isnan(self.value):
            return f"{'-':4}{'-':>8} {'':11}{self.question.text}"
        limit = f"({'>=' if self.question.sign > 0 else '<='} {self.question.threshold:g})"
        word = "yes" if self.yes else "no"
        place = f" {self.where}" if self.where else ""
        return f"{word:4}{format_number(self.value):>8} {limit:11}{self.question.text}{place}"


@dataclass(frozen=True)
class Triage:
    """The questions asked, in order; `verdict` is the last one's, or "healthy".

    Fields:
        answers: all of them no, except perhaps the last.
    """

    answers: tuple[Answer, ...]

    @property
    def verdict(self) -> str:
        """The cause that was found, or "healthy"."""
        last = self.answers[-1]
        return last.question.verdict if last.yes else "healthy"

    def describe(self) -> str:
        """Say the verdict and the number that decided it."""
        last = self.answers[-1]
        if not last.yes:
            return f"healthy: {len(self.answers)} questions, all answered with no."
        return (
            f"{last.question.verdict}: {last.question.measurement}, {format_number(last.value)} at "
            f"{last.where}. Try: {last.question.remedy}."
        )

    def __str__(self) -> str:
        return "\n".join(answer.as_row() for answer in self.answers)


def triage(record: FlowRecord) -> Triage:
    """Ask `QUESTIONS` of a monitor's record, in order, up to the first yes.

    Arguments:
        record: of any framework, with at least one sampled step; step 0 should be among them.

    Raises TypeError for anything else, ValueError for an empty record.
    """
    require_type("record", record, FlowRecord)
    if len(record) == 0:
        raise ValueError("`record` (0 samples) must hold at least one sampled step.")
    answers = []
    for question in QUESTIONS:
        value, where = question.measure(record)
        answers.append(Answer(question, value, where, question.agrees(value)))
        if answers[-1].yes:
            break
    return Triage(tuple(answers))
