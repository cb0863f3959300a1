"""What is not finite first, how it came about as far as a record can tell, and what to try."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from course_lib.diagnosis.depth import depth_trend
from course_lib.diagnosis.report import Finding
from course_lib.diagnosis.thresholds import DECADES_PROBLEM, HUGE
from course_lib.monitoring import FlowRecord, NonFiniteEvent


def before_nonfinite(record: FlowRecord) -> FlowRecord:
    """Return the record of the steps before anything was not finite."""
    if not record.nonfinite:
        return record
    sound = record.steps < record.nonfinite[0].step
    tables = ("steps", "activation_scales", "activation_grad_norms", "active_fractions",
              "dead_fractions", "always_on_fractions", "saturated_fractions", "weight_grad_norms",
              "weight_norms", "update_ratios", "held_fractions")  # fmt: skip
    kept = {name: getattr(record, name) for name in tables}
    return replace(record, **{n: table[sound] for n, table in kept.items() if table is not None})


def first_nonfinite(record: FlowRecord) -> NonFiniteEvent:
    """Return what was not finite first: a weight, where that was so before the first step.

    An activation may hide it: TensorFlow's ReLU may give 0 for NaN, and then a gradient elsewhere
    is the first to show it. Where the weight's own layer shows it, the layer is named.
    """
    event = record.nonfinite[0]
    if event.step != record.steps[0]:
        return event
    bad = [e for e in record.nonfinite if e.quantity == "weight" and e.step == event.step]
    owner = dict(zip(record.parameters, record.parameter_layers, strict=True))
    layer = owner.get(event.where, event.where).split("#")[0]
    if not bad or any(owner[e.where] in (layer, layer.partition(" ")[0]) for e in bad):
        return event
    place = {name: k for k, name in reversed(list(enumerate(record.layers)))}
    return min(bad, key=lambda e: place.get(owner[e.where], len(place)))


def check_nonfinite(record: FlowRecord) -> list[Finding]:
    if not record.nonfinite:
        return []
    event = first_nonfinite(record)
    others = len(record.nonfinite) - 1
    why, remedy = _explain(event, record)
    return [
        Finding(
            "non_finite", "problem",
            f"the {event.quantity} is {event.value}" + (f", and {others} more" if others else ""),
            f"{event.where}, step {event.step}", float(event.value), float("inf"), why, remedy,
        )
    ]  # fmt: skip


_POLES = "logarithms, divisions and square roots near zero"


def _explain(event: NonFiniteEvent, record: FlowRecord) -> tuple[str, str]:
    """Return why the first value that is not finite came about, as far as can be told, and what to
    try: what is there before the first update was made by no step.
    """
    begun = event.step == record.steps[0]
    bad = [e.where for e in record.nonfinite if e.quantity == "weight" and e.step <= event.step]
    if begun and bad:
        what = "It" if event.quantity == "weight" else f"The weight {bad[0]}"
        why = f"{what} was so before the first step; what follows, or hides it, is a consequence."
        return why, "weights drawn anew, or loaded from before they were lost."
    if _is_given(event, record) and not bad:
        why = "It is the output of the first layer, whose weights are finite: what goes in is not."
        return why, ("a look at this batch: missing values, and a preprocessing that divides or "
                     "takes logarithms; a guard that skips such a batch.")  # fmt: skip
    why = "It is the first in the order of computation; what follows is its consequence."
    if begun:
        why += " It was so before the first update, so that no step is to blame."
        return why, f"a look at {_POLES}, in the loss too, and at weights and inputs that are huge."
    return why, ("a smaller learning rate or warm-up, clipping by global norm, a guard that skips "
                 f"the step, and a look at {_POLES}.")  # fmt: skip


def _is_given(event: NonFiniteEvent, record: FlowRecord) -> bool:
    """Return whether the first layer gives NaN, with weights too small to have made it of numbers.

    Infinity may come about in it; and the gradients of a sum of finite terms are finite.
    """
    owning = next((name for name in record.layers if name in record.parameter_layers), None)
    if event.quantity != "activation" or event.value != "nan" or event.where != owning:
        return False
    row = int(np.flatnonzero(record.steps == event.step)[0]) if event.step in record.steps else -1
    own = [k for k, layer in enumerate(record.parameter_layers) if layer == owning]
    return bool(np.all(record.weight_norms[row, own] < HUGE))


AT_FIRST = ("large_weights", "rescaled_layer", "exploding_over_time", "growing_signal",
            "exploding_gradient")  # fmt: skip
"""What makes numbers overflow in the end. The first three are measured at the first step alone."""


def point_to_first(findings: list[Finding], record: FlowRecord) -> list[Finding]:
    """Return the findings; a value that is not finite later on points to what was there at first.

    What is wrong before the first update was made by no step, and no rate is to blame for it.
    """
    scales, norms = record.activation_scales[0], record.activation_grad_norms[0]
    with np.errstate(divide="ignore", invalid="ignore"):
        begun = {"growing_signal": -depth_trend(np.where(scales > 0, scales, np.nan)),
                 "exploding_gradient": depth_trend(norms)}  # fmt: skip
    causes = [f.code for f in findings if f.severity == "problem" and f.code in AT_FIRST
              and not begun.get(f.code, np.inf) < DECADES_PROBLEM]  # fmt: skip
    if not causes or record.nonfinite[:1] == () or record.nonfinite[0].step == record.steps[0]:
        return findings
    first = min(causes, key=AT_FIRST.index).replace("_", " ")
    return [
        replace(f, remedy=f"first what the finding on {first} says, which was there before any "
                          f"step; then {f.remedy}") if f.code == "non_finite" else f
        for f in findings
    ]  # fmt: skip
