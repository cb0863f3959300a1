"""Layer by layer: units that are dead, values that are saturated."""

from __future__ import annotations

import numpy as np

from course_lib.diagnosis.depth import typical
from course_lib.diagnosis.report import Finding
from course_lib.diagnosis.thresholds import (
    DEAD_PROBLEM,
    DEAD_WARNING,
    SATURATED_PROBLEM,
    SATURATED_WARNING,
    graded,
)
from course_lib.inspection import UnitReport
from course_lib.monitoring import ONE_SIDED, FlowRecord


def check_units(record: FlowRecord) -> list[Finding]:
    found = []
    recent = slice(len(record) // 2, None)
    flat = typical(record.saturated_fractions[recent])
    batch_dead = typical(record.dead_fractions[recent])
    for k, (name, activation) in enumerate(zip(record.layers, record.activations, strict=True)):
        if activation is None:
            continue
        dead = batch_dead[k]
        if activation == "relu" and record.unit_last_active[k] is not None:
            half = record.steps[len(record) // 2]
            dead = float(np.mean(record.unit_last_active[k] < half))
        found += dead_finding(name, dead, "in the sampled batches of the last half of the run")
        if activation not in ONE_SIDED:  # to be off half of the time is what those are for
            found += saturation_finding(name, flat[k])
    return found


def dead_finding(name: str, dead: float, scope: str) -> list[Finding]:
    severity = graded(dead, DEAD_PROBLEM, DEAD_WARNING)
    if severity is None:
        return []
    return [
        Finding(
            "dead_units", severity, f"{100 * dead:.0f} % of the units were never active {scope}",
            name, float(dead), DEAD_PROBLEM if severity == "problem" else DEAD_WARNING,
            "A unit that is off on every input passes no gradient and cannot come back by itself.",
            "a smaller learning rate, biases near 0, He initialization, normalization, a leaky "
            "activation; confirm with dead_units on the whole data set.",
        )
    ]  # fmt: skip


def saturation_finding(name: str, flat: float) -> list[Finding]:
    severity = graded(flat, SATURATED_PROBLEM, SATURATED_WARNING)
    if severity is None:
        return []
    return [
        Finding(
            "saturation", severity, f"{100 * flat:.0f} % of the values are saturated", name,
            float(flat), SATURATED_PROBLEM if severity == "problem" else SATURATED_WARNING,
            "Where the slope is below a tenth of the largest, little gradient passes.",
            "smaller initial weights, standardized inputs, normalization before the activation.",
        )
    ]  # fmt: skip


def diagnose_units(report: UnitReport) -> list[Finding]:
    """Return the findings in a report on the units over a whole data set."""
    found = []
    for layer in report.layers:
        dead = dead_finding(layer.name, float(layer.dead.mean()), "on the whole data set")
        found += dead
        if layer.activation not in ONE_SIDED:
            found += saturation_finding(layer.name, layer.saturated_fraction)
    return found
