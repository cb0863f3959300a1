r"""At the first step: matrices far too large whose layer is no plain one, or that serve twice.

What one output of a layer sums up is known for the layers that the frameworks bring. Two kinds of
matrices are left, of which a trial knows more than a record:

* Several in one layer that a reader wrote (the W_q, W_k, W_v of an attention, the W and U of a
  cell). An output sums up one of the two axes, and the shorter of them gives a lower bound for the
  gain. A table that is added or looked up multiplies nothing, whatever its size; so only what goes
  into a product as it is counts.
* A head that shares its table with an embedding: its gain is that of the use as a head. Where the
  model scales its input down for that (T5), what comes out is small, and nothing is said.

Named is what is twenty times the usual matrix of the network, and five by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import numpy as np

from course_lib.diagnosis.gains import LEAST
from course_lib.diagnosis.report import Finding
from course_lib.diagnosis.thresholds import GAIN_ALL, RESCALED_OUTPUT, RESCALED_OUTRIGHT
from course_lib.monitoring import FlowRecord


def shorter_axis(shape: tuple[int, ...]) -> int:
    """Return the least number of inputs that an output of such a matrix may sum up."""
    if len(shape) < 4:
        return min(shape[-2:])
    return min(shape[0], int(np.prod(shape[1:])))


def find_far(record: FlowRecord, least: Mapping[str, float]) -> tuple[dict[str, float], float]:
    """Return the gains that are far beyond the usual one, by name, and the usual one.

    Arguments:
        record: with the gains of what is known.
        least: gains of the others, by name of the parameter or layer.
    """
    known = [] if record.gains is None else record.gains[np.isfinite(record.gains)].tolist()
    values = np.array([*known, *least.values()])
    values = values[values > 0]
    if len(values) < LEAST:
        return {}, float("nan")
    usual = float(np.median(values))
    limit = max(GAIN_ALL, 10**RESCALED_OUTRIGHT * usual)
    return {name: gain for name, gain in least.items() if gain >= limit}, usual


def check_several(
    record: FlowRecord, least: Mapping[str, float], multiplied: Callable[[], Collection[str]]
) -> list[Finding]:
    """Return a finding if a matrix of a layer with several is far too large.

    Arguments:
        record: of the trial.
        least: lower bounds of the gains, by the parameter's name.
        multiplied: () -> the names of the parameters that go into a product as they are; it is
            called only on suspicion.
    """
    far, usual = find_far(record, least)
    if far:
        used = set(multiplied())
        far = {name: gain for name, gain in far.items() if name in used}
    if not far:
        return []
    where = max(far, key=far.__getitem__)
    others = f"; so do {len(far) - 1} others" if len(far) > 1 else ""
    return [_finding(where, f"by {far[where]:.0f} at least", far[where], usual, others)]


def check_heads(record: FlowRecord, heads: Mapping[str, float]) -> list[Finding]:
    """Return a finding if a layer with a shared table gives outputs far too large.

    Arguments:
        record: of the trial.
        heads: gains of what is used a second time, by the layer's name.
    """
    far, usual = find_far(record, heads)
    scales = dict(zip(record.layers, record.activation_scales[0], strict=True))
    for where, gain in far.items():
        if scales.get(where, 0.0) >= RESCALED_OUTPUT:
            return [_finding(where, f"by {gain:.0f}", gain, usual, "")]
    return []


def _finding(where: str, how: str, gain: float, usual: float, others: str) -> Finding:
    return Finding(
        "rescaled_layer", "warning",
        f"weights too large: this matrix multiplies its inputs {how}, the usual one by "
        f"{usual:.2g}, at the first step{others}", where, float(gain), GAIN_ALL,
        "What comes out is out of scale: outputs that are sure of nothing learned, attention that "
        "has settled, states that saturate.",
        "this matrix's initial values: the same rule as for the others.",
    )  # fmt: skip
