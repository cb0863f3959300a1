r"""From what was measured to what is wrong, where, and what to do: `diagnose` and its report.

No threshold is an absolute size of a gradient: that depends on the units of the loss, on the batch
and on the number of parameters, and 1e-7 may be healthy. Compared are a layer with the layers of
the same run, an update with the weight that it changes, and a step with the steps before it.
"""

from __future__ import annotations

import html
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import numpy as np

from course_lib.inspection import ClipAudit, JacobianSpectrum, UnitReport
from course_lib.monitoring import ONE_SIDED, FlowRecord
from course_lib.recurrent_results import BPTTProfile
from course_lib.results import GradientFlow, format_number

SEVERITIES = ("problem", "warning", "info")

DECADES_PROBLEM = 3.0
"""Across the depth: with one learning rate, the slow end then moves a thousand times less than the
fast one, so that what one epoch teaches the one takes a thousand for the other (glorot2010)."""
DECADES_WARNING = 2.0
SPIKE = 100.0
"""A step's global norm over the median of the steps before: ten times is common noise at small
batches, a hundred times is one step that outweighs all the others (pascanu2013)."""
DEAD_PROBLEM, DEAD_WARNING = 0.5, 0.25
"""Of a layer's units. Half of a ReLU layer's *values* are 0 when all is well; a *unit* that is off
on everything is lost. In a deep healthy network up to a quarter may be off on one small batch."""
SATURATED_PROBLEM, SATURATED_WARNING = 0.5, 0.25
"""Of a layer's values, at slopes below a tenth of the largest: half of them flat halves the squared
gradient at least, in every such layer."""
UPDATE_PROBLEM, UPDATE_WARNING = 0.3, 0.1
"""Update over weight in one step: at 0.3 three steps replace the weights. 1e-3 is usual."""
UPDATE_LOST = 6e-8
"""Half a unit in the last place of float32: a smaller relative update is rounded away."""
UPDATE_STILL = 1e-6
"""A million steps to change a weight by its own size."""
ANGLE_WARNING = 30.0
"""Degrees by which clipping turns the gradient: above it, over 13 % of the length is lost to
directions that are not the gradient's (1 - cos 30)."""
SHRINK_WARNING = 100.0
"""Global norm over threshold: clipping, not the learning rate, then sets the size of the step."""


@dataclass(frozen=True)
class Finding:
    """One thing that was found.

    Fields:
        code: a short name, such as "vanishing_gradient".
        severity: "problem", "warning" or "info".
        what, where: what was seen, and in which layer, parameter or step.
        value, threshold: the number, and the one that it was compared with.
        why: why it matters, or how it comes about.
        remedy: what to try first.
    """

    code: str
    severity: str
    what: str
    where: str
    value: float
    threshold: float
    why: str
    remedy: str

    def __str__(self) -> str:
        return (
            f"[{self.severity}] {self.what} ({self.code}) at {self.where}: "
            f"{format_number(self.value)} (threshold {format_number(self.threshold)}). "
            f"{self.why} Try: {self.remedy}"
        )


@dataclass(frozen=True)
class Report:
    """All findings, the worst first; `subjects` says what was looked at."""

    findings: tuple[Finding, ...]
    subjects: tuple[str, ...]

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings of severity "problem"."""
        return tuple(f for f in self.findings if f.severity == "problem")

    @property
    def codes(self) -> tuple[str, ...]:
        """The findings' codes, the worst first."""
        return tuple(f.code for f in self.findings)

    def describe(self) -> str:
        """Say how many findings there are, and name the first."""
        if not self.findings:
            return "Nothing found: no measured quantity is beyond its threshold."
        counts = [f"{sum(f.severity == s for f in self.findings)} {s}" for s in SEVERITIES]
        first = self.findings[0]
        return f"Found {', '.join(counts)}; first: {first.what} at {first.where}."

    def __str__(self) -> str:
        return "\n".join([*self.subjects, self.describe(), *(f"- {f}" for f in self.findings)])

    def to_json(self) -> str:
        """Return the report as JSON; numbers that are not finite become strings."""

        def plain(value: object) -> object:
            finite = not isinstance(value, float) or np.isfinite(value)
            return value if finite else str(value)

        findings = [{k: plain(v) for k, v in asdict(f).items()} for f in self.findings]
        return json.dumps({"subjects": self.subjects, "findings": findings}, indent=1)

    def _repr_html_(self) -> str:
        head = "".join(f"<p>{html.escape(s)}</p>" for s in (*self.subjects, self.describe()))
        if not self.findings:
            return head
        names = ("severity", "what", "where", "value", "threshold", "why", "remedy")
        rows = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_cell(f, n))}</td>" for n in names) + "</tr>"
            for f in self.findings
        )
        titles = "".join(f'<th scope="col">{n}</th>' for n in names)
        return f"{head}<table><thead><tr>{titles}</tr></thead><tbody>{rows}</tbody></table>"


def _cell(finding: Finding, name: str) -> str:
    value = getattr(finding, name)
    return format_number(value) if isinstance(value, float) else str(value)


def _graded(value: float, problem: float, warning: float) -> str | None:
    if not value >= warning:
        return None
    return "problem" if value >= problem else "warning"


def depth_trend(norms: np.ndarray) -> float:
    """Return by how many decades `norms`, first layer first, change from the last to the first.

    The median slope over all pairs of layers (Theil and Sen), times the number of steps: a few
    layers on side branches, whose gradients are smaller, do not sway it. Zeros count as 1e-330.
    NaN for fewer than four layers.
    """
    norms = np.asarray(norms, dtype=np.float64)
    places = np.flatnonzero(np.isfinite(norms))
    if len(places) < 4:
        return float("nan")
    places = places[:: max(1, len(places) // 200)]
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log10(norms[places]), -330.0)
    i, j = np.triu_indices(len(places), k=1)
    slope = np.median((logs[j] - logs[i]) / (j - i))
    return float(-slope * (len(places) - 1))


def _typical(table: np.ndarray) -> np.ndarray:
    """Return the median over the steps, per column; NaN where there is nothing."""
    table = np.where(np.isfinite(table), table, np.nan)
    result = np.full(table.shape[1], np.nan)
    known = ~np.all(np.isnan(table), axis=0) if len(table) else np.zeros(0, dtype=bool)
    if known.any():
        result[known] = np.nanmedian(table[:, known], axis=0)
    return result


def _depth_finding(norms: np.ndarray, names: tuple[str, ...], note: str) -> list[Finding]:
    trend = depth_trend(norms)
    severity = _graded(abs(trend), DECADES_PROBLEM, DECADES_WARNING)
    if severity is None:
        return []
    known = np.flatnonzero(np.isfinite(norms))
    first, last = names[known[0]], names[known[-1]]
    per_layer = 10 ** (trend / (len(known) - 1))
    vanishing = trend < 0
    return [
        Finding(
            "vanishing_gradient" if vanishing else "exploding_gradient",
            severity,
            f"the activation gradient {'falls' if vanishing else 'grows'} by {abs(trend):.1f} "
            f"decades towards the input, a factor of {format_number(per_layer)} per layer",
            f"{last} to {first}",
            trend,
            -DECADES_PROBLEM if vanishing else DECADES_PROBLEM,
            f"The layers' Jacobians {'shrink' if vanishing else 'stretch'} what passes.{note}",
            "an initialization that fits the activation (He for ReLU, Xavier for tanh), "
            "residual connections, normalization"
            + ("; ReLU-like activations in place of sigmoid." if vanishing else "; clipping."),
        )
    ]


def _check_depth(record: FlowRecord) -> list[Finding]:
    norms = _typical(record.activation_grad_norms)
    matrices = [k for k, rank in enumerate(record.parameter_ranks) if rank >= 2]
    weights = depth_trend(_typical(record.weight_grad_norms)[matrices])
    note = ""
    if abs(weights) < DECADES_WARNING:
        note = f" Weight gradients ({weights:+.1f} decades) do not show it."
    found = _depth_finding(norms, record.layers, note)
    scale = depth_trend(_typical(record.activation_scales))
    severity = _graded(abs(scale), DECADES_PROBLEM, DECADES_WARNING)
    if severity:
        grows = scale < 0  # the trend is told from the last layer to the first
        found.append(
            Finding(
                "growing_signal" if grows else "shrinking_signal", severity,
                f"the activations' scale {'grows' if grows else 'falls'} by {abs(scale):.1f} "
                "decades towards the output",
                f"{record.layers[0]} to {record.layers[-1]}", -scale,
                DECADES_PROBLEM if grows else -DECADES_PROBLEM,
                "The forward pass loses or inflates the signal layer by layer.",
                "a gain that keeps the variance, or normalization.",
            )
        )  # fmt: skip
    return found


def _check_nonfinite(record: FlowRecord) -> list[Finding]:
    if not record.nonfinite:
        return []
    event = record.nonfinite[0]
    others = len(record.nonfinite) - 1
    return [
        Finding(
            "non_finite", "problem",
            f"the {event.quantity} is {event.value}" + (f", and {others} more" if others else ""),
            f"{event.where}, step {event.step}",
            float(event.value), float("inf"),
            "It is the first in the order of computation; what follows is its consequence.",
            "a smaller learning rate or warm-up, clipping by global norm, a guard that skips the "
            "step, and a look at logarithms, divisions and square roots near zero.",
        )
    ]  # fmt: skip


def _check_time(record: FlowRecord) -> list[Finding]:
    norms = record.global_norms
    worst, place = 0.0, 0
    for k in range(3, len(norms)):
        before = norms[:k][np.isfinite(norms[:k])]
        usual = np.median(before) if len(before) else 0.0
        if usual > 0 and np.isfinite(norms[k]) and norms[k] / usual > worst:
            worst, place = norms[k] / usual, k
    if worst < SPIKE:
        return []
    lasting = np.median(norms[place:]) >= SPIKE * np.median(norms[:place])
    return [
        Finding(
            "unstable_training", "problem" if lasting else "warning",
            "the global gradient norm jumps above what was usual before",
            f"step {int(record.steps[place])}", float(worst), SPIKE,
            "One such step can undo all before it.",
            "clipping by global norm, a smaller learning rate, warm-up.",
        )
    ]  # fmt: skip


def _check_units(record: FlowRecord) -> list[Finding]:
    found = []
    recent = slice(len(record) // 2, None)
    flat = _typical(record.saturated_fractions[recent])
    batch_dead = _typical(record.dead_fractions[recent])
    for k, (name, activation) in enumerate(zip(record.layers, record.activations, strict=True)):
        if activation is None:
            continue
        dead = batch_dead[k]
        if activation == "relu" and record.unit_last_active[k] is not None:
            half = record.steps[len(record) // 2]
            dead = float(np.mean(record.unit_last_active[k] < half))
        found += _dead_finding(name, dead, "in the sampled batches of the last half of the run")
        if activation not in ONE_SIDED:  # to be off half of the time is what those are for
            found += _saturation_finding(name, flat[k])
    return found


def _dead_finding(name: str, dead: float, scope: str) -> list[Finding]:
    severity = _graded(dead, DEAD_PROBLEM, DEAD_WARNING)
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


def _saturation_finding(name: str, flat: float) -> list[Finding]:
    severity = _graded(flat, SATURATED_PROBLEM, SATURATED_WARNING)
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


def _check_updates(record: FlowRecord) -> list[Finding]:
    found = []
    ratios = _typical(record.update_ratios)
    columns = [
        k for k, rank in enumerate(record.parameter_ranks)
        if rank >= 2 and record.trainable[k] and np.isfinite(ratios[k])
    ]  # fmt: skip
    if not columns:
        return []
    largest = max(columns, key=lambda k: ratios[k])
    severity = _graded(ratios[largest], UPDATE_PROBLEM, UPDATE_WARNING)
    if severity:
        found.append(
            Finding(
                "large_update", severity, "one step changes the weight by a large part of its size",
                record.parameters[largest], float(ratios[largest]),
                UPDATE_PROBLEM if severity == "problem" else UPDATE_WARNING,
                "A few steps replace what was learned or initialized.",
                "a smaller learning rate, warm-up.",
            )
        )  # fmt: skip
    still = [k for k in columns if 0 < ratios[k] < UPDATE_STILL]
    if still:
        k = min(still, key=lambda k: ratios[k])
        lost = ratios[k] < UPDATE_LOST
        found.append(
            Finding(
                "standing_still", "problem" if lost else "warning",
                f"{len(still)} weights hardly move", record.parameters[k], float(ratios[k]),
                UPDATE_LOST if lost else UPDATE_STILL,
                "Relative updates below half a unit in the last place are rounded away."
                if lost else "At this rate a weight needs a million steps to change by its size.",
                "see the finding on vanishing gradients, if there is one; else a larger rate.",
            )
        )  # fmt: skip
    return found


def _check_connections(record: FlowRecord) -> list[Finding]:
    if len(record) == 0:
        return []
    silent = np.all(np.isnan(record.weight_grad_norms) | (record.weight_grad_norms == 0), axis=0)
    cut = [k for k, gone in enumerate(silent) if gone and record.trainable[k]]
    if not cut:
        return []
    ran = {name.split("#")[0] for name in record.layers}
    active = [k for k in cut if record.parameter_layers[k] in ran]
    first = (active or cut)[0]
    return [
        Finding(
            "no_gradient", "problem" if active else "warning",
            f"{len(cut)} trainable parameters never receive a gradient", record.parameters[first],
            0.0, 0.0,
            "The layer runs, but no gradient path leads to it from the loss." if active
            else "The layer does not run.",
            "look for detach(), no_grad, .numpy(), stop_gradient, argmax, a dead layer behind it, "
            "or freeze the parameters if that is meant.",
        )
    ]  # fmt: skip


def diagnose_record(record: FlowRecord) -> list[Finding]:
    """Return the findings in a monitor's record."""
    if len(record) == 0:
        raise ValueError("`record` (0 samples) must hold at least one sampled step.")
    checks = (_check_nonfinite, _check_depth, _check_time, _check_units, _check_updates,
              _check_connections)  # fmt: skip
    return [finding for check in checks for finding in check(record)]


def diagnose_flow(flow: GradientFlow) -> list[Finding]:
    """Return the findings in one backward pass."""
    names = tuple(f"layer {k}" for k in range(1, flow.depth + 1))
    weights = depth_trend(flow.weight_grad_norms)
    note = ""
    if abs(weights) < DECADES_WARNING:
        note = f" Weight gradients ({weights:+.1f} decades) do not show it."
    return _depth_finding(flow.activation_grad_norms, names, note)


def diagnose_units(report: UnitReport) -> list[Finding]:
    """Return the findings in a report on the units over a whole data set."""
    found = []
    for layer in report.layers:
        dead = _dead_finding(layer.name, float(layer.dead.mean()), "on the whole data set")
        found += dead
        if layer.activation not in ONE_SIDED:
            found += _saturation_finding(layer.name, layer.saturated_fraction)
    return found


def diagnose_spectrum(spectrum: JacobianSpectrum) -> list[Finding]:
    """Return the findings in a model's Jacobian: its size, and whether it has lost its rank."""
    where = f"Jacobian of the model ({spectrum.method})"
    with np.errstate(divide="ignore"):
        size = float(np.log10(spectrum.norm))
    found = []
    severity = _graded(abs(size), DECADES_PROBLEM, DECADES_WARNING)
    if severity:
        found.append(
            Finding(
                "vanishing_jacobian" if size < 0 else "exploding_jacobian", severity,
                "even the steepest direction is shrunk" if size < 0 else "inputs are blown up",
                where, spectrum.norm, 10 ** (DECADES_PROBLEM * np.sign(size)),
                "The largest singular value bounds what passes from output to input.",
                "an initialization near an isometry (orthogonal, He), normalization.",
            )
        )  # fmt: skip
    if spectrum.complete and not spectrum.condition_resolved:
        found.append(
            Finding(
                "beyond_noise_floor", "info",
                f"the condition number is {spectrum.condition}, not a number that can be stated",
                where, spectrum.condition_number, spectrum.norm / max(spectrum.noise_floor, 1e-300),
                "Smaller singular values are rounding error, or exactly zero.",
                "float64, or the numerical rank in place of a condition number.",
            )
        )  # fmt: skip
    return found


def diagnose_clipping(audit: ClipAudit) -> list[Finding]:
    """Return the findings in what clipping does to a gradient."""
    found = []
    total = audit.global_norm
    if audit.nonfinite or (np.isfinite(total) and not np.isfinite(audit.reported_norm)):
        overflow = not audit.nonfinite
        found.append(
            Finding(
                "norm_overflow" if overflow else "non_finite", "problem",
                f"the global norm is not finite, and clipping ruins {len(audit.lost)} healthy "
                "tensors" if audit.lost else "the gradient is not finite",
                "squares overflow in the gradient's precision" if overflow
                else ", ".join(audit.nonfinite[:3]),
                audit.reported_norm, float(np.finfo(np.float32).max),
                "Every tensor is multiplied by threshold over norm: by 0, or by NaN.",
                "skip such a step (error_if_nonfinite=True, or a test before it).",
            )
        )  # fmt: skip
    if audit.angle > ANGLE_WARNING:
        found.append(
            Finding(
                "direction_changed", "warning", "clipping turns the gradient (degrees)",
                f"clipping by {audit.method.replace('_', ' ')}", audit.angle, ANGLE_WARNING,
                "The step no longer goes down the steepest way.",
                "clipping by global norm, which keeps the direction.",
            )
        )  # fmt: skip
    if audit.method != "value" and np.isfinite(total) and total > SHRINK_WARNING * audit.threshold:
        found.append(
            Finding(
                "clipping_dominates", "warning", "the gradient is far above the threshold",
                f"clipping by {audit.method.replace('_', ' ')}", total / audit.threshold,
                SHRINK_WARNING, "Clipping sets the size of the step, and hides an explosion.",
                "the cause of the explosion first; then a threshold near the usual norm.",
            )
        )  # fmt: skip
    return found


def diagnose_profile(profile: BPTTProfile) -> list[Finding]:
    """Return the findings in a profile over time; forgetting is a warning, growth a problem."""
    change = profile.decades_per_step * (profile.length - 1)
    severity = _graded(abs(change), DECADES_PROBLEM, DECADES_WARNING)
    if severity is None:
        return []
    vanishing = change < 0
    horizon = DECADES_PROBLEM / max(abs(profile.decades_per_step), 1e-300)
    return [
        Finding(
            "vanishing_over_time" if vanishing else "exploding_over_time",
            "warning" if vanishing else severity,
            f"the gradient {'falls' if vanishing else 'grows'} by three decades in "
            f"{horizon:.0f} steps back, of {profile.length}",
            f"{profile.cell}, time steps", float(change),
            -DECADES_PROBLEM if vanishing else DECADES_PROBLEM,
            "What happened earlier than that is not learned from." if vanishing
            else "Early steps outweigh all others, and the norm may overflow.",
            "an LSTM with forget bias 1 or more, orthogonal recurrent weights, attention, shorter "
            "sequences." if vanishing else "clipping by global norm, a smaller recurrent matrix.",
        )
    ]  # fmt: skip


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
    findings, subjects = [], []
    queue = [part for r in results for part in (r.values() if isinstance(r, dict) else [r])]
    for result in queue:
        result = getattr(result, "record", result)
        check = CHECKS.get(type(result))
        if check is None:
            names = ", ".join(kind.__name__ for kind in CHECKS)
            raise TypeError(f"`results` (a {type(result).__name__}) must be one of {names}.")
        findings += check(result)
        subjects.append(result.describe())
    findings.sort(key=lambda f: SEVERITIES.index(f.severity))
    return Report(tuple(findings), tuple(subjects))
