r"""Weights in 16 bits whose updates are rounded away: w + update == w.

A number with a significand of p bits moves only if an update is at least half a unit in its last
place, up to $2^{-p}$ of it: 0.4 % in bfloat16 (p = 8), 0.05 % in float16 (p = 11), 6e-8 in float32.
Adam moves an entry by about the learning rate whatever its gradient, so in bfloat16 at 1e-5 every
entry above 0.005 stays where it is, and the loss falls as if only the smallest were trained. (In
Keras, Adam on bfloat16 variables moves nothing at any rate: beta_2 = 0.999 is rounded to 1, and its
bias correction to 0.) The norm of the update, which a monitor records, does not show it: those few
entries make it up.
"""

from __future__ import annotations

from dataclasses import dataclass

from course_lib.diagnosis.report import Finding
from course_lib.diagnosis.thresholds import ROUNDED_PROBLEM, ROUNDED_WARNING, graded


@dataclass(frozen=True)
class RoundedWeight:
    """What became of one matrix in a trial.

    Fields:
        name: the parameter.
        dtype: its type, such as "bfloat16".
        asked: entries that had a gradient in some step.
        still: those of them that are what they were before the first step.
    """

    name: str
    dtype: str
    asked: int
    still: int

    @property
    def share(self) -> float:
        """The share of the entries with a gradient that never moved."""
        return self.still / self.asked if self.asked else 0.0


def check_rounded(weights: list[RoundedWeight], steps: int) -> list[Finding]:
    """Return a finding if most entries of 16-bit matrices never moved, though some do.

    Arguments:
        weights: every matrix in 16 bits that the optimizer was to move.
        steps: how many steps were taken.
    """
    lost = [w for w in weights if graded(w.share, ROUNDED_PROBLEM, ROUNDED_WARNING)]
    if not lost:
        return []
    worst = max(lost, key=lambda w: (w.share, w.asked))
    severity = graded(worst.share, ROUNDED_PROBLEM, ROUNDED_WARNING)
    still, asked = sum(w.still for w in lost), sum(w.asked for w in lost)
    return [
        Finding(
            "rounded_updates", severity,
            f"{100 * still / asked:.0f} % of the entries of {len(lost)} matrices in {worst.dtype} "
            f"never moved in {steps} {'step' if steps == 1 else 'steps'}, though they have a "
            "gradient", worst.name, worst.share,
            ROUNDED_PROBLEM if severity == "problem" else ROUNDED_WARNING,
            "Their updates are below half a unit in the last place, or become 0 within the "
            "optimizer: nothing is left of them.",
            "weights in float32, and 16 bits in the computation alone (torch.autocast, "
            "mixed_bfloat16 in Keras); stochastic rounding or a compensated sum in the optimizer; "
            "a larger rate.",
        )
    ]  # fmt: skip
