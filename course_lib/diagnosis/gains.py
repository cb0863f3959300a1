r"""At the first step: matrices drawn too large for how many inputs they sum up.

With entries of standard deviation s, a layer that sums up n independent inputs multiplies their
scale by its gain $s \sqrt{n}$: 1.4 by He's rule, 1 by LeCun's, 0.6 as PyTorch draws. A standard
deviation of 1 gives the root of n. A normalization behind the layer takes that back, and leaves the
layer's speed: a step turns the matrix by an angle that is as many times smaller under Adam, and by
the square under SGD. A single matrix is too large outright, or where its output is large and it is
far larger than the usual one, as a head may be among matrices drawn small. What is drawn small is
passed over: heads and branches are, on purpose; but for one matrix, far smaller than the others,
that other layers build on and that takes the gradient from all before it, as no branch does, which
is left beside the skip connection.
Only `diagnose_model` knows the gains.
Source: he2015delving (the variance that a layer keeps).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from course_lib.diagnosis.local import single_matrices
from course_lib.diagnosis.report import Finding
from course_lib.diagnosis.thresholds import (
    GAIN_ALL,
    GAIN_ONE,
    GATED_GAIN_WARNING,
    RESCALED_OUTPUT,
    RESCALED_OUTRIGHT,
)
from course_lib.monitoring import FlowRecord

LEAST = 3
"""Matrices below which there is no usual one."""


def measure_gains(
    parameters: tuple[str, ...],
    norms: np.ndarray,
    fans: Mapping[str, int],
    sizes: Mapping[str, int],
) -> np.ndarray:
    r"""Return $\sqrt{n_{in}}$ times the root mean square of every matrix's entries, NaN for others.

    Arguments:
        parameters: their names.
        norms: their Euclidean norms, in the same order.
        fans, sizes: the inputs that one output sums up, and the number of entries, by name.
    """
    return np.array([
        norm * np.sqrt(fans[name] / sizes[name]) if name in fans else np.nan
        for name, norm in zip(parameters, norms, strict=True)
    ], dtype=np.float64)  # fmt: skip


def check_gains(record: FlowRecord) -> list[Finding]:
    """Return a finding if the usual matrix is too large, or else if one is, far beyond the usual.

    None for a record without gains.
    """
    if record.gains is None:
        return []
    order = {name.split("#")[0]: k for k, name in reversed(list(enumerate(record.layers)))}
    known = sorted(
        (order[layer], p) for p, layer in enumerate(record.parameter_layers)
        if np.isfinite(record.gains[p]) and layer in order
    )  # fmt: skip
    gains = record.gains[[p for _, p in known]]
    if not len(gains):
        return []
    usual = float(np.median(gains))
    if len(gains) >= LEAST and usual >= GAIN_ALL:
        first = int(np.argmax(gains >= GAIN_ALL))
        return [
            Finding(
                "large_weights", "problem",
                f"the usual of {len(gains)} weight matrices multiplies its inputs by {usual:.1f}, "
                "at the first step", record.parameters[known[first][1]], usual, GAIN_ALL,
                "The entries are too large for how many inputs an output sums up. Layer by layer "
                "the signal and its gradient grow so; where a normalization takes that back, the "
                "weights learn as many times too slowly under Adam, and by its square under SGD.",
                "a standard deviation of gain / sqrt(fan_in): He for ReLU, Xavier for tanh.",
            )
        ]  # fmt: skip
    again = {name.split("#")[0] for name in record.layers if "#" in name}
    steps = 2 * sum("#" in name for name in record.layers) > len(record.layers)
    cells = [j for j, (k, _) in enumerate(known) if steps and record.layers[k] in again]
    large = [j for j in cells if gains[j] >= GATED_GAIN_WARNING]
    if large:
        return [
            Finding(
                "large_recurrent_matrix", "warning",
                "this matrix, applied in every step, multiplies its inputs by "
                f"{gains[large[0]]:.1f} at the first step of training",
                record.layers[known[large[0]][0]],
                float(gains[large[0]]), GATED_GAIN_WARNING,
                "From step to step the state grows until its gates saturate, and the gradient "
                "either explodes or stops there.",
                "smaller recurrent weights: a gain of 1 at most, or an orthogonal matrix.",
            )
        ]  # fmt: skip
    far = max(GAIN_ALL, 10**RESCALED_OUTRIGHT * usual)
    limit = np.where(record.activation_scales[0, [k for k, _ in known]] >= RESCALED_OUTPUT,
                     min(far, GAIN_ONE), GAIN_ONE)  # fmt: skip
    large = np.flatnonzero(gains >= limit)
    if not len(large):
        return []
    k = known[large[0]][0]
    others = f"; so do {len(large) - 1} later ones" if len(large) > 1 else ""
    return [
        Finding(
            "rescaled_layer", "warning",
            f"weights too large: this matrix multiplies its inputs by {gains[large[0]]:.0f}, the "
            f"usual one by {usual:.2g}, at the first step{others}", record.layers[k],
            float(gains[large[0]]), float(limit[large[0]]),
            "What comes out is out of scale. Where a normalization takes that back, the layer "
            "itself learns as many times too slowly under Adam, and by its square under SGD.",
            "this layer's initial weights: the same rule as for the others.",
        )
    ]  # fmt: skip


def small_matrices(record: FlowRecord) -> list[tuple[int, float]]:
    """Return (place, decades) of each matrix that is twenty times smaller than the usual of the
    others, and behind which the gradient is as many times larger than before it.

    None for a record without gains, or with fewer than three matrices.
    """
    if record.gains is None:
        return []
    pairs = [(k, p) for k, p in single_matrices(record)
             if record.gains[p] > 0 and "Embedding" not in record.kinds[k]]  # fmt: skip
    if len(pairs) < LEAST:
        return []
    logs = np.log10(record.gains[[p for _, p in pairs]])
    norms = record.activation_grad_norms[0]
    found = []
    for j, (k, _) in enumerate(pairs):
        away = logs[j] - np.median(np.delete(logs, j))
        known = np.flatnonzero(norms[:k] > 0)
        if away > -RESCALED_OUTRIGHT or not len(known) or not norms[k] > 0:
            continue
        if np.log10(norms[known[-1]] / norms[k]) <= -RESCALED_OUTRIGHT:
            found.append((k, float(away)))
    return found


def check_small_gain(record: FlowRecord) -> list[Finding]:
    """Return a finding if one of `small_matrices` is what other layers build on.

    None where nobody looked which layers are heads, or in front of a normalization.
    """
    if record.inner is None:
        return []
    found = [(k, away) for k, away in small_matrices(record) if record.layers[k] in record.inner
             and record.layers[k] not in (record.normalized or ())]  # fmt: skip
    if len(found) != 1:
        return []
    k, away = found[0]
    return [
        Finding(
            "rescaled_layer", "warning",
            f"weights too small: this matrix is {10**-away:.0f} times smaller than the usual one, "
            "for how many inputs it sums up, at the first step", record.layers[k], away,
            -RESCALED_OUTRIGHT,
            "It gives little but its bias, and no layer before it gets more than this share of the "
            "gradient (value and threshold in decades).",
            "this layer's initial weights: the same rule as for the others.",
        )
    ]  # fmt: skip
