"""Over the depth: gradients that vanish or explode, signals that shrink or grow."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

import numpy as np

from course_lib.diagnosis.report import SEVERITIES, Finding
from course_lib.diagnosis.thresholds import (
    DECADES_PROBLEM,
    DECADES_WARNING,
    HALVED,
    INPUTS_WARNING,
    LONG_CHAIN,
    NORMALIZED,
    RESCALED_OUTRIGHT,
    graded,
)
from course_lib.monitoring import FlowRecord
from course_lib.results import GradientFlow, format_number


def depth_trend(norms: np.ndarray) -> float:
    """Return by how many decades `norms`, first layer first, change from the last to the first.

    The median slope over all pairs of layers (Theil and Sen), times the number of steps: a few
    layers on side branches, whose gradients are smaller, do not sway it. Between two networks that
    run one after the other there is a jump that is no change over the depth; so the pairs that are
    a third of the depth apart, or less, have to show it too, and the smaller of both is returned,
    unless the gradient is 0 somewhere.
    Zeros count as 1e-330. NaN for fewer than four layers.
    """
    norms = np.asarray(norms, dtype=np.float64)
    places = np.flatnonzero(np.isfinite(norms))
    if len(places) < 4:
        return float("nan")
    places = places[:: max(1, len(places) // 200)]
    with np.errstate(divide="ignore"):
        logs = np.maximum(np.log10(norms[places]), -330.0)
    i, j = np.triu_indices(len(places), k=1)
    slopes = (logs[j] - logs[i]) / (j - i)
    slope = np.median(slopes)
    if np.all(norms[places] > 0):
        near = np.median(slopes[j - i <= max(2, len(places) // 3)])
        slope = 0.0 if near * slope <= 0 else np.sign(slope) * min(abs(slope), abs(near))
    return float(-slope * (len(places) - 1)) + 0.0  # no minus in front of a zero


def main_path(
    norms: np.ndarray, names: tuple[str, ...], owners: Collection[str] = ()
) -> np.ndarray:
    """Return gradient norms over the depth, NaN for what lies beside the path from input to loss.

    Left out are zeros behind a layer that has a gradient (a head that the loss left out). The calls
    of a layer that is called again count as one, at the first: the levels of a pyramid share their
    head and run beside each other, and the steps of a cell are no depth but time. Where most calls
    are such steps, what has no parameters of its own (all but the `owners`) is left out too: of
    many steps, only the first are recorded.
    """
    norms = np.array(norms, dtype=np.float64)
    behind = np.maximum.accumulate(norms > 0) if len(norms) else False
    norms[behind & (norms == 0)] = np.nan
    place: dict[str, int] = {}
    for k, name in enumerate(names):
        first = place.setdefault(name.split("#")[0], k)
        if first != k:
            norms[first] = np.hypot(*np.nan_to_num(norms[[first, k]])) or np.nan
            norms[k] = np.nan
    if 2 * len(place) < len(names):
        norms[[name not in owners for name in names]] = np.nan
    return norms


def typical(table: np.ndarray) -> np.ndarray:
    """Return the median over the steps, per column; NaN where there is nothing."""
    table = np.where(np.isfinite(table), table, np.nan)
    result = np.full(table.shape[1], np.nan)
    known = ~np.all(np.isnan(table), axis=0) if len(table) else np.zeros(0, dtype=bool)
    if known.any():
        result[known] = np.nanmedian(table[:, known], axis=0)
    return result


def depth_finding(
    norms: np.ndarray, names: tuple[str, ...], note: str, *, slack: float = 1.0
) -> list[Finding]:
    """Return a finding if the gradient changes much over the depth; `slack` widens the bounds.

    Within the wider bounds, what would be a problem elsewhere is a note.
    """
    trend = depth_trend(norms)
    severity = graded(abs(trend), slack * DECADES_PROBLEM, slack * DECADES_WARNING)
    if severity is None and slack > 1 and abs(trend) >= DECADES_PROBLEM:
        severity = "info"
        note += " With normalization, networks that train well reach it; skip connections help."
    if severity is None:
        return []
    limit = {"problem": slack * DECADES_PROBLEM, "warning": slack * DECADES_WARNING,
             "info": DECADES_PROBLEM}[severity]  # fmt: skip
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
            -limit if vanishing else limit,
            f"The layers' Jacobians {'shrink' if vanishing else 'stretch'} what passes.{note}",
            "an initialization that fits the activation (He for ReLU, Xavier for tanh), "
            "residual connections, normalization"
            + ("; ReLU-like activations in place of sigmoid." if vanishing else "; clipping."),
        )
    ]


MOST_CALLS = 4
"""Of a network by the losses: a critic's real, made and mixed samples, and its maker's."""


def separate_networks(record: FlowRecord) -> list[np.ndarray]:
    """Return masks over the layers of the networks that are no parts of one depth, shape (layers,).

    Networks side by side in a container (`generator/...`, `discriminator/...`) that get a gradient
    in different numbers of calls are trained by different losses, one through the other: the first
    is no continuation of the second. Everything else is one network, also a decoder that is called
    in every step of time behind its encoder.
    """
    roots = [re.split(r"[./]", name.split("#")[0])[0] for name in record.layers]
    owners = set(record.parameter_layers)
    norms = typical(record.activation_grad_norms)
    calls: dict[str, dict[str, int]] = {}
    for name, root, norm in zip(record.layers, roots, norms, strict=True):
        layer = name.split("#")[0]
        if layer in owners:
            if layer == root:
                return [np.ones(len(roots), dtype=bool)]
            counts = calls.setdefault(root, {})
            counts[layer] = counts.get(layer, 0) + bool(np.isfinite(norm))
    counts = {root: set(of.values()) for root, of in calls.items()}
    single = all(len(of) == 1 and max(of) <= MOST_CALLS for of in counts.values())
    if not single or len(set(map(tuple, counts.values()))) < 2:
        return [np.ones(len(roots), dtype=bool)]
    groups: dict[int, list[str]] = {}
    for root, of in counts.items():
        groups.setdefault(min(of), []).append(root)
    return [np.array([root in group for root in roots]) for group in groups.values()]


def is_normalized(record: FlowRecord) -> bool:
    """Return whether at least every eighth layer is a normalization."""
    return 8 * sum("Norm" in kind for kind in record.kinds) >= len(record.kinds) > 0


def unbroken_growth(record: FlowRecord) -> tuple[float, int, int]:
    """Return how far the gradient grows without a fall, from normalization to normalization towards
    the input, over a long chain: decades, and the places of its last and its first one.

    A normalization before each ReLU multiplies the gradient by about 1.21 (yang2019), and each skip
    connection ends that: in front of it branch and trunk meet, and behind it the gradient is the
    trunk's again. The decades are the median step times their number, so that no single jump, as at
    a branch drawn small, makes them up.
    """
    norms = typical(record.activation_grad_norms)
    known = [k for k, kind in enumerate(record.kinds) if "Norm" in kind and norms[k] > 0]
    steps = -np.diff(np.log10(norms[known]))
    best, start = (0.0, 0, 0), 0
    for end in range(1, len(known)):
        if steps[end - 1] < 0:
            start = end
            continue
        decades = float(np.median(steps[start:end]) * (end - start))
        if decades > best[0] and end - start + 1 >= LONG_CHAIN:
            best = (decades, known[end], known[start])
    return best


def check_shortcuts(record: FlowRecord) -> list[Finding]:
    """Return a finding if the gradient grows through many normalizations without a skip connection.

    The wide bounds for normalized networks are for those with skip connections.
    """
    decades, last, first = unbroken_growth(record)
    passed = sum("Norm" in kind for kind in record.kinds[first : last + 1])
    if decades < DECADES_PROBLEM:
        return []
    return [
        Finding(
            "exploding_gradient", "warning",
            f"the activation gradient grows at every one of {passed} normalizations in a row "
            "towards the input, with nothing that leads past them",
            f"{record.layers[last]} to {record.layers[first]}", decades, DECADES_PROBLEM,
            "A normalization before each ReLU multiplies it by about 1.21, whatever the weights.",
            "skip connections past every few layers; fewer layers.",
        )
    ]  # fmt: skip


def note_halving(findings: list[Finding], record: FlowRecord) -> list[Finding]:
    """Return the findings, a slow loss in a ReLU network as a note with its reason.

    A ReLU halves the variance. Where the weights are drawn by Glorot's rule, nothing makes up for
    it, and gradient and signal fall by about 0.7 per layer; as PyTorch draws, by about 0.64.
    Networks that learn are drawn so.
    """
    steps = np.isfinite(typical(record.activation_grad_norms)).sum() - 1
    if "relu" not in record.activations or steps < 1:
        return findings
    reason = (
        "Each ReLU halves the variance, and weights by Glorot's rule, or as PyTorch draws them, do "
        "not make up for it."
    )
    return [
        replace(f, severity="info", why=f"{reason} {f.why}", remedy="He initialization.")
        if f.severity == "warning" and f.code in ("vanishing_gradient", "shrinking_signal")
        and 10 ** (-abs(f.value) / steps) >= HALVED
        else f
        for f in findings
    ]  # fmt: skip


def check_inputs(record: FlowRecord) -> list[Finding]:
    """Return a finding if what enters the network is far from standardized.

    Told by the first layer with parameters: what a module before it returns may be anything, boxes
    in pixels for example.
    """
    scales = record.activation_scales[0]
    known = np.flatnonzero(np.isfinite(scales))
    owning = [k for k in known if record.layers[k] in record.parameter_layers]
    known = owning or known
    if not len(known) or scales[known[0]] < INPUTS_WARNING:
        return []
    first = known[0]
    times = outweighs(record, record.layers[first])
    if times >= 10**RESCALED_OUTRIGHT and "Embedding" not in record.kinds[first]:
        return [
            Finding(
                "rescaled_layer", "warning",
                "weights too large: the first layer's output is large at the first step, and its "
                "matrix is many times as large as every other", record.layers[first],
                times, 10**RESCALED_OUTRIGHT,
                "Every later layer's input carries this factor.",
                "this layer's initial weights: the same rule as for the others.",
            )
        ]  # fmt: skip
    return [
        Finding(
            "large_inputs", "warning", "the first layer's output is large, at the first step",
            record.layers[first], float(scales[first]), INPUTS_WARNING,
            "Inputs, or an embedding, far from unit size make every gradient of the first layer as "
            "much larger than the others, and saturate what saturates.",
            "standardized inputs (pixels: divided by 255, less their mean), or a first layer drawn "
            "for inputs of this size.",
        )
    ]  # fmt: skip


def outweighs(record: FlowRecord, layer: str) -> float:
    """Return how many times as large a layer's matrix is as the largest of all the others, at the
    first step; NaN with fewer than two others. Widths alone explain the root of their ratio.
    """
    norms, owners = record.weight_norms[0], record.parameter_layers
    matrices = [p for p, rank in enumerate(record.parameter_ranks)
                if rank >= 2 and np.isfinite(norms[p])]  # fmt: skip
    own = [norms[p] for p in matrices if owners[p] == layer]
    others = [norms[p] for p in matrices if owners[p] != layer]
    if len(others) < 2 or not own or not max(others) > 0:
        return float("nan")
    return float(max(own) / max(others))


def check_depth(record: FlowRecord) -> list[Finding]:
    norms = main_path(
        typical(record.activation_grad_norms), record.layers, set(record.parameter_layers)
    )
    matrices = [k for k, rank in enumerate(record.parameter_ranks) if rank >= 2]
    weights = depth_trend(typical(record.weight_grad_norms)[matrices])
    note = ""
    if abs(weights) < DECADES_WARNING:
        note = f" Weight gradients ({weights:+.1f} decades) do not show it."
    slack = NORMALIZED if is_normalized(record) else 1.0
    parts = [
        depth_finding(np.where(mask, norms, np.nan), record.layers, note, slack=slack)
        for mask in separate_networks(record)
    ]
    found = max(parts, key=lambda part: max((abs(f.value) for f in part), default=0.0))
    if not any(f.severity == "problem" for f in found):
        found = check_shortcuts(record) or found
    scales = typical(record.activation_scales)
    scale = depth_trend(scales)
    if scale < 0:  # it grows; but from nothing is no growth, and what came in training is learned
        first = record.activation_scales[0]
        tables = [np.where(values > 0, values, np.nan) for values in (scales, first)]
        scale = min(0.0, np.fmax(*map(depth_trend, tables)))
    severity = graded(abs(scale), slack * DECADES_PROBLEM, slack * DECADES_WARNING)
    if severity:
        grows = scale < 0  # the trend is told from the last layer to the first
        found.append(
            Finding(
                "growing_signal" if grows else "shrinking_signal", severity,
                f"the activations' scale {'grows' if grows else 'falls'} by {abs(scale):.1f} "
                "decades towards the output",
                f"{record.layers[0]} to {record.layers[-1]}", -scale,
                (1 if grows else -1) * slack
                * (DECADES_PROBLEM if severity == "problem" else DECADES_WARNING),
                "The forward pass loses or inflates the signal layer by layer.",
                "a gain that keeps the variance, or normalization.",
            )
        )  # fmt: skip
    return note_halving(found, record)


def put_growth_first(findings: list[Finding], record: FlowRecord) -> list[Finding]:
    """Return the findings, those on dead or saturated units below the growth that they come after.

    Where a signal has grown tenfold before it reaches a layer, as it does in a residual stack whose
    branches are too large, what its units do there is a consequence: one severity less.
    """
    growth = next((f for f in findings if f.code == "growing_signal"), None)
    scales = record.activation_scales[0]
    known = scales[np.isfinite(scales) & (scales > 0)]
    if growth is None or not len(known):
        return findings
    below = SEVERITIES[min(SEVERITIES.index(growth.severity) + 1, len(SEVERITIES) - 1)]
    told = []
    for finding in findings:
        units = finding.code in ("dead_units", "saturation") and finding.where in record.layers
        reached = scales[max(record.layers.index(finding.where) - 1, 0)] if units else 0.0
        if units and reached > 10 * known[0]:
            later = max(SEVERITIES.index(finding.severity), SEVERITIES.index(below))
            why = f"{finding.why} The signal had grown before it came here: see growing_signal."
            finding = replace(finding, severity=SEVERITIES[later], why=why)
        told.append(finding)
    return told


def diagnose_flow(flow: GradientFlow) -> list[Finding]:
    """Return the findings in one backward pass."""
    names = tuple(f"layer {k}" for k in range(1, flow.depth + 1))
    weights = depth_trend(flow.weight_grad_norms)
    note = ""
    if abs(weights) < DECADES_WARNING:
        note = f" Weight gradients ({weights:+.1f} decades) do not show it."
    return depth_finding(flow.activation_grad_norms, names, note)
