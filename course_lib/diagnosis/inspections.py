"""Findings in a Jacobian's spectrum, in an audit of clipping, in a profile over time."""

from __future__ import annotations

import numpy as np

from course_lib.diagnosis.report import Finding, say_count
from course_lib.diagnosis.thresholds import (
    ANGLE_WARNING,
    DECADES_PROBLEM,
    DECADES_WARNING,
    GATED_GAIN_NOTE,
    GATED_GAIN_WARNING,
    GROWTH_LEAST,
    GROWTH_WARNING,
    HORIZON_PROBLEM,
    HORIZON_WARNING,
    RECURRENT_GAIN,
    SHRINK_WARNING,
    graded,
)
from course_lib.inspection import ClipAudit, JacobianSpectrum
from course_lib.recurrent_results import BPTTProfile


def diagnose_spectrum(spectrum: JacobianSpectrum) -> list[Finding]:
    """Return the findings in a model's Jacobian: its size, and whether it has lost its rank."""
    where = f"Jacobian of the model ({spectrum.method})"
    with np.errstate(divide="ignore"):
        size = float(np.log10(spectrum.norm))
    found = []
    severity = graded(abs(size), DECADES_PROBLEM, DECADES_WARNING)
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
    """Return the findings in a profile over time.

    Every recurrent layer forgets; how soon says whether that is a problem. Growth always is one.
    """
    lost = np.flatnonzero(np.isnan(profile.log10_norms) | np.isposinf(profile.log10_norms))
    if len(lost):
        step, value = lost[-1] + 1, float(profile.log10_norms[lost[-1]])
        return [
            Finding(
                "non_finite", "problem",
                f"the gradient is {value:g} at {say_count(len(lost), 'step')}",
                f"{profile.cell}, time step {step} of {profile.length}", value, float("inf"),
                "Going back in time this step is the first; what follows is its consequence.",
                "a look at the weights and the inputs: what goes in must be finite.",
            )
        ]  # fmt: skip
    return [*check_recurrent_matrix(profile), *check_horizon(profile)]


def check_recurrent_matrix(profile: BPTTProfile) -> list[Finding]:
    """Return a finding if the recurrent matrix alone makes the states chaotic.

    That is known of a plain cell. Gates divide slopes by four and more: theirs is a note, until the
    matrix is several times as large.
    """
    gain = profile.recurrent_gain
    if profile.cell in ("tanh_rnn", "relu_rnn"):
        severity, limit = graded(gain, np.inf, RECURRENT_GAIN), RECURRENT_GAIN
        remedy = "orthogonal, or divided by this number."
        why = ("Nearby states part from step to step, units saturate, and what the sequence's "
               "beginning does to its end is lost or explodes.")  # fmt: skip
    else:
        severity, limit = graded(gain, np.inf, GATED_GAIN_WARNING), GATED_GAIN_WARNING
        if severity is None and gain >= GATED_GAIN_NOTE:
            severity, limit = "info", GATED_GAIN_NOTE
        remedy = "each gate's part orthogonal, or uniform within 1/sqrt(n)."
        why = ("The state, more than the input, then decides about the gates, and they come nearer "
               "to being stuck; training may have led there.")  # fmt: skip
    if severity is None:
        return []
    return [
        Finding(
            "large_recurrent_matrix", severity,
            "the recurrent matrix stretches the state (root mean square of its singular values)",
            f"{profile.cell}, time steps", gain, limit, why,
            f"a recurrent matrix drawn anew: {remedy}",
        )
    ]  # fmt: skip


def check_horizon(profile: BPTTProfile) -> list[Finding]:
    """Return a finding if the gradient falls soon or grows, going back in time."""
    change = profile.decades_per_step * (profile.length - 1)
    severity = graded(abs(change), DECADES_PROBLEM, DECADES_WARNING)
    if profile.decades_per_step >= GROWTH_WARNING and change >= GROWTH_LEAST:
        severity = severity or "warning"
    if severity is None:
        return []
    vanishing, steps = change < 0, profile.length - 1
    limit = DECADES_PROBLEM if abs(change) >= DECADES_PROBLEM else DECADES_WARNING
    horizon = DECADES_PROBLEM / max(abs(profile.decades_per_step), 1e-300)
    way = f"the gradient {'falls' if vanishing else 'grows'} by"
    what = f"{way} three decades in {horizon:.{0 if horizon >= 10 else 1}f} steps back, of {steps}"
    if horizon > steps:
        what = f"{way} {abs(change):.1f} decades in all {say_count(steps, 'step')} back"
        limit = min(limit, DECADES_WARNING if abs(change) >= DECADES_WARNING else GROWTH_LEAST)
    if vanishing:
        short = graded(-horizon, -HORIZON_PROBLEM, -HORIZON_WARNING)
        severity = short or "info"
    return [
        Finding(
            "vanishing_over_time" if vanishing else "exploding_over_time", severity, what,
            f"{profile.cell}, time steps", float(change), -limit if vanishing else limit,
            "What happened earlier than that is not learned from." if vanishing
            else "Early steps outweigh all others, and the norm may overflow.",
            "an LSTM with forget bias 1 or more, orthogonal recurrent weights, attention, shorter "
            "sequences." if vanishing else "clipping by global norm, a smaller recurrent matrix.",
        )
    ]  # fmt: skip
