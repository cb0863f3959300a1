r"""Over the steps: weight gradients to which every step adds, since nobody set them to 0.

With h what goes into a dense layer and g the gradient at what it gives, over a batch, the weight's
gradient is $\sum g h^\top$: its norm over the scales of g and h depends on how alike the samples
are, and hardly changes over the steps. Left over from the steps before, it grows with their number
t: as t where they agree, as $\sqrt t$ where they are noise. In four kinds of networks (dense,
convolutional with normalization, recurrent, transformer), with three rules, to the 300th step, it
grew by less than $t^{0.03}$, and by at least $t^{0.27}$ without `zero_grad`.

PyTorch's monitor need not infer it: it sees that a backward pass begins with the gradients of the
step before (`FlowRecord.left_over`).
"""

from __future__ import annotations

import numpy as np

from course_lib.diagnosis.local import single_matrices
from course_lib.diagnosis.report import Finding
from course_lib.monitoring import FlowRecord

GROWTH = 0.25
"""Exponent of t with which the usual weight gradient grows, at each sample of the later half."""
GROWTH_LEAST = 0.7
"""Decades, at the last sample: five times. A public network (wav2vec 2.0) shows 0.5 within the five
first steps of SGD, in which its loss changes altogether; so it takes more than that."""
LEAST_STEPS = 8
LEAST_SEEN = 2
"""Sampled steps in which the gradients of the step before were seen."""
REMEDY = "zero_grad() in every step, before backward()."
SHARE = 0.7
"""Of the layers, that show a factor of two at least."""


def measure_growth(record: FlowRecord) -> np.ndarray:
    """Return, for each layer with one matrix, how many decades its gradient's norm over those of
    what comes in and of what comes back has grown since the first sample, shape (layers, samples).

    Left out are layers that are called again in a pass, of which these belong to the first call.
    """
    again = {name.split("#")[0] for name in record.layers if "#" in name}
    pairs = [(k, p) for k, p in single_matrices(record) if k and record.layers[k] not in again]
    places, columns = np.array(pairs, dtype=int).reshape(-1, 2).T
    with np.errstate(divide="ignore", invalid="ignore"):
        table = (
            np.log10(record.weight_grad_norms[:, columns])
            - np.log10(record.activation_grad_norms[:, places])
            - np.log10(record.activation_scales[:, places - 1])
        ).T
        table = table - table[:, :1]
    return table[np.all(np.isfinite(table), axis=1)]


def check_accumulation(record: FlowRecord) -> list[Finding]:
    """Return a finding if the gradients of the step before were still there in every sampled step,
    or if the weight gradients of most layers grow with the number of steps.
    """
    later = record.steps[record.steps > 0]
    if len(later) >= LEAST_SEEN and set(later) <= set(record.left_over):
        return [
            Finding(
                "accumulating_gradients", "problem",
                f"in all {len(later)} sampled steps after the first, the backward pass began with "
                "the gradients of the step before", "all weights", float(len(later)), 0.0,
                "Every step adds its gradient to those of the steps before.", REMEDY,
            )
        ]  # fmt: skip
    if len(record) < 4 or record.steps[-1] - record.steps[0] < LEAST_STEPS:
        return []
    grown = measure_growth(record)
    if len(grown) < 2:
        return []
    usual, later = np.median(grown, axis=0), slice(len(record) // 2, None)
    steps = np.log10(record.steps - record.steps[0] + 1.0)
    if (
        usual[-1] < GROWTH_LEAST
        or np.any(usual[later] < GROWTH * steps[later])
        or np.mean(grown[:, -1] > np.log10(2)) < SHARE
    ):
        return []
    return [
        Finding(
            "accumulating_gradients", "problem",
            f"the weight gradients grow {10 ** usual[-1]:.1f} times in {int(record.steps[-1])} "
            "steps, beside the signals that they are made of", f"{len(grown)} weight matrices",
            float(usual[-1]), GROWTH_LEAST,
            "Every step adds its gradient to those of the steps before (value and threshold in "
            "decades).",
            REMEDY,
        )
    ]  # fmt: skip
