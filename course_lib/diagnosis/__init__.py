"""From what was measured to what is wrong, where, and what to do: `diagnose` and its report.

`thresholds` says what is compared with what; `nonfinite`, `depth`, `local`, `gains`, `zeros`,
`training`, `accumulation`, `connections`, `units` and `inspections` hold the checks; `report` holds
what comes of them.
`inputs`, `outputs`, `targets`, `peers`, `rounding` and `states` hold the checks that a record is
not enough for: `diagnose_model` makes them, which has the batches, the loss and the weights at
hand. What cannot be told, or is harmless, and so is passed over, is said at the head of each.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from course_lib.diagnosis.accumulation import check_accumulation
from course_lib.diagnosis.connections import check_connections
from course_lib.diagnosis.depth import (
    check_depth,
    check_inputs,
    depth_trend,
    diagnose_flow,
    put_growth_first,
)
from course_lib.diagnosis.gains import check_gains, check_small_gain
from course_lib.diagnosis.inspections import (
    diagnose_clipping,
    diagnose_profile,
    diagnose_spectrum,
)
from course_lib.diagnosis.local import check_growth_in_time, check_scale, point_to_scale
from course_lib.diagnosis.nonfinite import before_nonfinite, check_nonfinite, point_to_first
from course_lib.diagnosis.report import (
    SEVERITIES,
    Finding,
    Report,
    raise_causes,
    sort_findings,
)
from course_lib.diagnosis.thresholds import (
    ANGLE_WARNING,
    DEAD_PROBLEM,
    DEAD_WARNING,
    DECADES_PROBLEM,
    DECADES_WARNING,
    SATURATED_PROBLEM,
    SATURATED_WARNING,
    SHRINK_WARNING,
    SPIKE,
    UPDATE_LOST,
    UPDATE_PROBLEM,
    UPDATE_STILL,
    UPDATE_WARNING,
)
from course_lib.diagnosis.training import (
    blame_spike,
    check_decay,
    check_time,
    check_updates,
)
from course_lib.diagnosis.units import check_units, diagnose_units
from course_lib.diagnosis.zeros import check_exact_zeros
from course_lib.inspection import ClipAudit, JacobianSpectrum, UnitReport
from course_lib.monitoring import FlowRecord
from course_lib.recurrent_results import BPTTProfile
from course_lib.results import GradientFlow

__all__ = [
    "ANGLE_WARNING",
    "CHECKS",
    "DEAD_PROBLEM",
    "DEAD_WARNING",
    "DECADES_PROBLEM",
    "DECADES_WARNING",
    "SATURATED_PROBLEM",
    "SATURATED_WARNING",
    "SEVERITIES",
    "SHRINK_WARNING",
    "SPIKE",
    "UPDATE_LOST",
    "UPDATE_PROBLEM",
    "UPDATE_STILL",
    "UPDATE_WARNING",
    "Finding",
    "Report",
    "depth_trend",
    "diagnose",
    "diagnose_clipping",
    "diagnose_flow",
    "diagnose_profile",
    "diagnose_record",
    "diagnose_spectrum",
    "diagnose_units",
]


_EMPTY = (
    "A step has ended when an optimizer that holds the model's parameters has stepped: is the loop "
    "inside `with monitor:`, or the monitor among the callbacks of `fit`, and was optimizer.step() "
    "called? (Who updates by hand in PyTorch passes optimizer=False and calls monitor.step().)"
)


def diagnose_record(record: FlowRecord) -> list[Finding]:
    """Return the findings in a monitor's record."""
    if len(record) == 0:
        raise ValueError(f"`record` (0 samples) must hold at least one sampled step. {_EMPTY}")
    found = check_nonfinite(record)
    sound = before_nonfinite(record)  # what comes later is a consequence
    if len(sound) == 0:
        return found + check_inputs(record)  # they may be why
    checks = (check_inputs, check_weights, check_exact_zeros, check_depth, check_growth_in_time,
              check_time, check_units, check_updates, check_accumulation, check_decay,
              check_connections)  # fmt: skip
    found += put_growth_first([f for check in checks for f in check(sound)], sound)
    found = point_to_first(point_to_scale(blame_spike(found, sound), record), record)
    return raise_causes(found, record.layers)


def check_weights(record: FlowRecord) -> list[Finding]:
    """Return what is out of scale, named once: by what it does, or else by its entries."""
    by_size = check_gains(record)
    by_effect = check_scale(record)
    if any(f.code == "large_weights" for f in by_size):
        return by_size
    return by_effect or by_size or check_small_gain(record)


CHECKS: dict[type, Callable] = {
    FlowRecord: diagnose_record,
    GradientFlow: diagnose_flow,
    UnitReport: diagnose_units,
    JacobianSpectrum: diagnose_spectrum,
    ClipAudit: diagnose_clipping,
    BPTTProfile: diagnose_profile,
}


def diagnose(*results: object) -> Report:
    """Return a report on any number of results: what, where, value, threshold, why, remedy.

    Arguments:
        results: a monitor (its record is read), `FlowRecord`, `GradientFlow`, `UnitReport`,
            `JacobianSpectrum`, `ClipAudit`, `BPTTProfile`, or a dict of these.

    Raises TypeError for anything else, and ValueError for a record without samples.
    """
    if not results:
        raise ValueError("`results` (=()) must hold at least one result to diagnose.")
    findings, subjects, found = [], [], []
    queue = [
        part
        for result in results
        for part in (result.items() if isinstance(result, dict) else [("", result)])
    ]
    for name, result in queue:
        result = getattr(result, "record", result)
        check = CHECKS.get(type(result))
        if check is None:
            names = ", ".join(kind.__name__ for kind in CHECKS)
            raise TypeError(
                f"`results` (a {type(result).__name__}) must be one of {names}, or a monitor. (For "
                "a model itself there is diagnose_model.)"
            )
        part = check(result)
        if name and isinstance(result, BPTTProfile):  # only its key says which layer it is of
            part = [replace(finding, where=f"{name}, {finding.where}") for finding in part]
        findings += part
        found.append(result)
        subjects.append(result.describe())
    return Report(sort_findings(_once(findings)), tuple(subjects), tuple(found))


def _once(findings: list[Finding]) -> list[Finding]:
    """Return the findings; growth over time as a profile tells it, if one does: step by step."""
    growth = [f for f in findings if f.code == "exploding_over_time"]
    profiled = any(f.where.endswith("time steps") for f in growth)
    return [f for f in findings
            if f not in growth or not profiled or f.where.endswith("time steps")]  # fmt: skip
