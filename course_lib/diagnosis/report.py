"""A finding, and the report of all findings: as text, as HTML in a notebook, as JSON."""

from __future__ import annotations

import html
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace

import numpy as np

from course_lib.monitoring import FlowRecord
from course_lib.results import format_number

SEVERITIES = ("problem", "warning", "info")

CAUSES_FIRST = (
    "non_finite", "wrong_sign", "norm_overflow", "constant_inputs", "no_gradient",
    "activation_twice", "missing_activation", "broadcast_targets", "constant_output",
    "accumulating_gradients", "missing_statistics",
    "normalized_away", "constant_targets", "unstable_training",
    "zero_weights", "identical_units", "zero_scale", "large_weights", "rescaled_layer",
    "small_inputs", "unequal_features", "large_inputs", "rounded_updates", "large_update",
    "dead_units", "saturation", "saturated_attention", "large_recurrent_matrix", "stuck_gate",
    "weights_decay", "strong_dropout", "large_outputs", "growing_signal", "exploding_gradient",
)  # fmt: skip
"""What is more often a cause than a consequence; what is not named here comes after these."""

RAISED = ("large_inputs", "unequal_features", "rescaled_layer")
HARM = (
    "dead_units", "saturation", "saturated_attention", "stuck_gate", "growing_signal",
    "shrinking_signal", "exploding_gradient", "vanishing_gradient", "exploding_over_time",
    "vanishing_over_time",
)  # fmt: skip


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
    """All findings, the worst first, and of equals the cause before the consequence.

    Printed it is text, as the last line of a notebook's cell a table; `to_json()` is for programs.
    `subjects` says what was looked at, and `results` holds it: a `FlowRecord` for
    `course_lib.plots.plot_flow_record`, for example.
    """

    findings: tuple[Finding, ...]
    subjects: tuple[str, ...]
    results: tuple = field(default=(), repr=False, compare=False)

    @property
    def problems(self) -> tuple[Finding, ...]:
        """The findings of severity "problem"."""
        return tuple(f for f in self.findings if f.severity == "problem")

    @property
    def codes(self) -> tuple[str, ...]:
        """The findings' codes, the worst first."""
        return tuple(f.code for f in self.findings)

    def with_findings(self, found: Iterable[Finding]) -> Report:
        """Return the report with further findings, in their places.

        A fault that two checks see at one place is named once, at its worst.
        """
        layers = next((r.layers for r in self.results if isinstance(r, FlowRecord)), ())
        worst = {}
        for finding in sort_findings(raise_causes([*self.findings, *found], layers)):
            worst.setdefault((finding.code, finding.where), finding)
        return replace(self, findings=tuple(worst.values()))

    def describe(self) -> str:
        """Say how many findings there are, and name the first."""
        if not self.findings:
            return "Nothing found: no measured quantity is beyond its threshold."
        counts = {s: sum(f.severity == s for f in self.findings) for s in SEVERITIES}
        told = [f"{n} {s}{'s' * (n > 1 and s != 'info')}" for s, n in counts.items() if n]
        first = self.findings[0]
        return f"Found {', '.join(told)}; first: {first.what} at {first.where}."

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


def say_count(count: int, what: str, plural: str = "") -> str:
    """Return "1 layer", "2 layers"; `plural` where it is no s that is added."""
    return f"{count} {what if count == 1 else plural or what + 's'}"


def _cell(finding: Finding, name: str) -> str:
    value = getattr(finding, name)
    return format_number(value) if isinstance(value, float) else str(value)


def raise_causes(findings: Sequence[Finding], layers: Sequence[str]) -> list[Finding]:
    """Return the findings, a warning on a cause as a problem if one lies behind it.

    Inputs, or one layer's weights, that are too large are a warning: a network may live with them.
    Where a layer behind is dead or saturated for the most part, that is what they do.

    Arguments:
        findings: all findings of one model.
        layers: its layers, in the order in which they ran.
    """
    place = {name: k for k, name in reversed(list(enumerate(layers)))}
    harms = [f for f in findings if f.severity == "problem" and f.code in HARM]
    behind = max((place.get(f.where, -1) for f in harms), default=-1)
    raised = []
    for f in findings:
        # inputs lie before everything, also before what has no single place, as a trend
        harm = bool(harms) if f.code != "rescaled_layer" else (
            behind >= place.get(f.where, len(layers)))  # fmt: skip
        if f.severity == "warning" and f.code in RAISED and harm:
            f = replace(f, severity="problem")
        raised.append(f)
    return raised


def sort_findings(findings: list[Finding]) -> tuple[Finding, ...]:
    """Return the findings, the worst first; of equals, causes first, then as they were found."""

    def rank(finding: Finding) -> tuple[int, int, bool]:
        known = finding.code in CAUSES_FIRST
        cause = CAUSES_FIRST.index(finding.code) if known else len(CAUSES_FIRST)
        return SEVERITIES.index(finding.severity), cause, finding.where not in ("inputs", "targets")

    return tuple(sorted(findings, key=rank))
