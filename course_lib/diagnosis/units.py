"""Layer by layer: units that are dead, values that are saturated."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from course_lib.diagnosis.depth import typical
from course_lib.diagnosis.report import SEVERITIES, Finding, say_count
from course_lib.diagnosis.thresholds import (
    ATTENTION_PROBLEM,
    ATTENTION_WARNING,
    CHANCE,
    DEAD_PROBLEM,
    DEAD_WARNING,
    GATE_PROBLEM,
    GATE_WARNING,
    PRIOR,
    SATURATED_PROBLEM,
    SATURATED_WARNING,
    graded,
)
from course_lib.inspection import UnitReport
from course_lib.monitoring import GATE_KINDS, HELD, ONE_SIDED, FlowRecord

SAMPLED = "in the sampled batches of the last half of the run"

MANY_LAYERS = 8
"""Layers with units that are off on all inputs, of which one may be off altogether by chance."""


def check_units(record: FlowRecord) -> list[Finding]:
    """Return what is dead and what is saturated, one finding each that names every layer."""
    dead_layers, flat_layers, attention, gates = [], [], [], []
    recent = slice(len(record) // 2, None)
    flat = typical(record.saturated_fractions[recent])
    batch_dead = typical(record.dead_fractions[recent])
    always_on = typical(record.always_on_fractions[recent])
    held = flat if record.held_fractions is None else typical(record.held_fractions[recent])
    judged = sum(activation in ONE_SIDED for activation in record.activations)
    for k, (name, activation) in enumerate(zip(record.layers, record.activations, strict=True)):
        if activation is None:
            continue
        dead = batch_dead[k]
        ran = np.isfinite(record.active_fractions[recent, k]).any()
        if ran and activation == "relu" and record.unit_last_active[k] is not None:
            half = record.steps[len(record) // 2]
            dead = float(np.mean(record.unit_last_active[k] < half))
        dead_layers += dead_finding(
            name, dead, SAMPLED, always_on=always_on[k], units=record.unit_active_fractions[k],
            among=judged,
        )  # fmt: skip
        if activation == "softmax":
            attention += attention_finding(name, flat[k])
        elif activation in GATE_KINDS:
            drawn = np.fmin(flat[k], record.saturated_fractions[0, k])
            gates += gate_finding(name, activation, drawn, held[k])
        elif activation == "sigmoid" and says_no(record, k):
            continue
        elif activation not in ONE_SIDED:  # to be off half of the time is what those are for
            share = flat[k]
            if activation in ("sigmoid", "tanh") and is_last(record, k):
                share = np.fmin(share, record.saturated_fractions[0, k])
            flat_layers += saturation_finding(name, share)
    at_once = {name for k, name in enumerate(record.layers)
               if record.dead_fractions[0, k] >= DEAD_PROBLEM}  # fmt: skip
    if one_of_many(record, batch_dead):
        dead_layers = [f for f in dead_layers if f.value < 1]
    first = sorted(dead_layers, key=lambda f: f.where not in at_once)  # others may die of that
    word = "later" if first == dead_layers else "other"
    found = join_findings(first, word)
    return found + [f for group in (flat_layers, attention, gates) for f in join_findings(group)]


def one_of_many(record: FlowRecord, dead: np.ndarray) -> bool:
    """Return whether a single small layer among many is off altogether, and so by chance.

    On inputs that are nearly alike, half of a sound layer's units are off on all: all n of them
    once in 2^n times. Among m layers with a tenth of their units off, as the bottlenecks of gates
    have, one as small is off in more than one of a hundred networks if 2^n < 100 m.

    Arguments:
        record: of the run.
        dead: the share of every layer's units that is off on all inputs, NaN if not known.
    """
    off, alike = np.flatnonzero(dead == 1), int(np.sum(dead >= 0.1))
    units = record.unit_active_fractions[off[0]] if len(off) else None
    return (
        alike >= MANY_LAYERS and len(off) == 1 and units is not None
        and 2.0 ** len(units) < 100 * alike
    )  # fmt: skip


def is_last(record: FlowRecord, k: int) -> bool:
    """Return whether an activation is at the output: no layer with a matrix runs after it.

    There it is an answer, and a sure one is flat: what it was at the first step counts besides.
    """
    owners = {layer for layer, rank in zip(record.parameter_layers, record.parameter_ranks,
                                           strict=True) if rank >= 2}  # fmt: skip
    return not any(name.split("#")[0] in owners for name in record.layers[k + 1 :])


def says_no(record: FlowRecord, k: int) -> bool:
    """Return whether a sigmoid is at the output, and near 0 nearly everywhere, as rare classes."""
    return is_last(record, k) and bool(record.activation_scales[-1, k] < PRIOR)


def join_findings(findings: list[Finding], word: str = "later") -> list[Finding]:
    """Return the findings of one kind as one per severity: what begins in one layer goes on.

    The first layer, in the order of computation, gives the place; the others are named besides, as
    "later" ones or by another `word`.
    """
    joined = []
    for severity in SEVERITIES:
        group = [f for f in findings if f.severity == severity]
        if len(group) > 1:
            others = ", ".join(f.where for f in group[1:4]) + (", ..." if len(group) > 4 else "")
            more = say_count(len(group) - 1, f"{word} layer")
            what = f"{group[0].what}; so in {more}: {others}"
            group[0] = replace(group[0], what=what)
        joined += group[:1]
    return joined


def dead_finding(
    name: str, dead: float, scope: str, *, always_on: float, units: np.ndarray | None,
    among: int = 1,
) -> list[Finding]:
    """Return a finding if many units are off on all inputs, by more than chance `among` layers.

    On a few inputs, or inputs that a deep network has made alike, a healthy unit is on for all or
    off for all, one as often as the other. Only what is off beyond that is dead. And a unit that
    is on for every third input is off on all of four as often as not on one.
    """
    if units is not None and not np.isnan(always_on):
        always_on = max(always_on, on_wherever_any(units))
        excess = (dead - always_on) * len(units)
        deviations = CHANCE if dead == 1 else np.sqrt(CHANCE**2 + 2 * np.log(max(among, 1)))
        chance = deviations * np.sqrt((dead + always_on) * len(units))
        by_chance = max(always_on, missed_by_chance(units))
        if dead - by_chance < DEAD_WARNING or excess < chance:
            return []
    return _share_finding(
        "dead_units", dead, (DEAD_PROBLEM, DEAD_WARNING), f"of the units were never active {scope}",
        name,
        "A unit that is off on every input passes no gradient and cannot come back by itself.",
        "a smaller learning rate, biases near 0, He initialization, normalization, a leaky "
        "activation; confirm with dead_units on the whole data set.",
    )  # fmt: skip


def on_wherever_any(active: np.ndarray) -> float:
    """Return which share of units is on wherever any is: where rows are padded, no unit is.

    Two or more units that share the largest active fraction, of half at least.
    """
    top = active == active.max(initial=0.0)
    return float(top.mean()) if top.sum() > 1 and active.max() >= 0.5 else 0.0


def missed_by_chance(active: np.ndarray) -> float:
    r"""Return which share of sound units is off on all of the few values that were seen.

    That is $(1 - p)^n$ with p the mean active fraction of the units that are not always off. How
    many values n there are per unit is told by the smallest fraction; at least that many.

    Arguments:
        active: active fraction per unit, in [0, 1], shape (units,).
    """
    alive = active[active > 0]
    if not len(alive):
        return 0.0
    return float((1.0 - alive.mean()) ** (1.0 / alive.min()))


def saturation_finding(name: str, flat: float) -> list[Finding]:
    """Return a finding if many values lie where the activation is flat."""
    return _share_finding(
        "saturation", flat, (SATURATED_PROBLEM, SATURATED_WARNING), "of the values are saturated",
        name, "Where the slope is below a tenth of the largest, little gradient passes.",
        "smaller initial weights, standardized inputs, normalization before the activation.",
    )  # fmt: skip


def attention_finding(name: str, flat: float) -> list[Finding]:
    """Return a finding if most rows of an attention have settled on one position."""
    return _share_finding(
        "saturated_attention", flat, (ATTENTION_PROBLEM, ATTENTION_WARNING),
        "of the attention's rows have settled on one position", name,
        "Softmax is flat there: no gradient reaches the queries and keys.",
        "the scale 1/sqrt(d) of the logits, smaller query and key weights, normalized queries "
        "and keys, warm-up.",
    )  # fmt: skip


def check_attention(shares: Mapping[str, float]) -> list[Finding]:
    """Return what is saturated of the attention that a record does not show.

    Arguments:
        shares: of the rows that have settled on one position, by layer, in order.
    """
    return join_findings([f for name, s in shares.items() for f in attention_finding(name, s)])


def gate_finding(name: str, kind: str, flat: float, held: float) -> list[Finding]:
    """Return a finding if most units of a recurrent gate hold still; a forget gate may well.

    A gate that has learned is flat on most of its values, now shut and now open: that is a note,
    if it was so from the first sample on. What is no gate but the state, or what is written to it,
    is judged by its values.

    Arguments:
        name, kind: the gate's, and one of `GATE_KINDS`.
        flat: share of the values that are saturated, from the first sample on.
        held: share of the units that are, on nearly all of their values.
    """
    if kind != "gate":
        return []
    limits = (GATE_PROBLEM, GATE_WARNING)
    if held >= GATE_WARNING:
        return _share_finding(
            "stuck_gate", held, limits, "of the gate's units hold still", name,
            "A unit that is always shut, or always open, decides nothing, and no gradient reaches "
            "the weights that should move it.",
            "this gate's bias nearer to 0, smaller recurrent and input weights, standardized "
            "inputs.",
        )  # fmt: skip
    content = {"h": "state's", "g": "cell input's", "n": "new state's"}
    own = content.get(name.rpartition("(")[2].rstrip(")"))
    whose = own or "gate's"
    found = _share_finding(
        "stuck_gate", flat, limits, f"of the {whose} values are saturated", name,
        "Where the slope is below a tenth of the largest, little gradient passes"
        + (", and states that jump from end to end forget what came in." if own else "; but hardly "
           "a unit holds still, and a gate that has learned may be so."),
        "smaller recurrent and input weights, standardized inputs.",
    )  # fmt: skip
    return found if own else [replace(f, severity="info") for f in found]


def _share_finding(
    code: str, share: float, limits: tuple[float, float], of_what: str, where: str, why: str,
    remedy: str,
) -> list[Finding]:  # fmt: skip
    """Return a finding if a share reaches one of its `limits`, for a problem and for a warning."""
    severity = graded(share, *limits)
    if severity is None:
        return []
    limit = limits[0] if severity == "problem" else limits[1]
    what = f"{100 * share:.0f} % {of_what}"
    return [Finding(code, severity, what, where, float(share), limit, why, remedy)]


def diagnose_units(report: UnitReport) -> list[Finding]:
    """Return the findings in a report on the units over a whole data set."""
    dead, flat, gates = [], [], []
    for layer in report.layers:
        if layer.activation in GATE_KINDS:
            held = float(np.mean(layer.flat >= HELD))
            gates += gate_finding(layer.name, layer.activation, layer.saturated_fraction, held)
            continue
        on = float("nan") if layer.active is None else float(np.mean(layer.active == 1))
        dead += dead_finding(
            layer.name,
            float(layer.dead.mean()),
            "on the whole data set",
            always_on=on,
            units=layer.active,
        )
        if layer.activation not in (*ONE_SIDED, "softmax"):
            flat += saturation_finding(layer.name, layer.saturated_fraction)
    return [*join_findings(dead), *join_findings(flat), *join_findings(gates)]
