"""At the first step: layers whose weights are out of scale, with the others' or altogether."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from course_lib.diagnosis.report import Finding
from course_lib.diagnosis.thresholds import (
    DECADES_PROBLEM,
    RESCALED,
    RESCALED_APART,
    RESCALED_FED,
    RESCALED_OUTPUT,
    RESCALED_OUTRIGHT,
    RESCALED_SPREADS,
)
from course_lib.monitoring import GATE_KINDS, FlowRecord

LEAST_LAYERS = 4
"""Layers with one matrix each, below which there is no usual factor to compare with."""


def weight_gains(record: FlowRecord) -> dict[int, int]:
    """Return, for every direction v of a weight normalization, where its gain g is.

    The weight is g v / |v|, output by output: of norm |g|, whatever the size of v. PyTorch names
    the two `weight_g` and `weight_v`, or `original0` and `original1`.
    """
    place = {name: p for p, name in enumerate(record.parameters)}
    pairs = (("_v", "_g"), (".original1", ".original0"))
    return {
        p: place[f"{name.removesuffix(v)}{g}"] for name, p in place.items() for v, g in pairs
        if name.endswith(v) and f"{name.removesuffix(v)}{g}" in place
    }  # fmt: skip


def measure_drawn(record: FlowRecord) -> tuple[np.ndarray, np.ndarray]:
    """Return the norms of the parameters and of their gradients at the first sample, shape (P,).

    Of a direction, those of the weight that is made of it: its gradient is |v| / |g| of v's.
    """
    norms, grads = record.weight_norms[0].copy(), record.weight_grad_norms[0].copy()
    for direction, gain in weight_gains(record).items():
        with np.errstate(divide="ignore", invalid="ignore"):
            grads[direction] *= norms[direction] / norms[gain]
        norms[direction] = norms[gain]
    return norms, grads


def single_matrices(record: FlowRecord) -> list[tuple[int, int]]:
    """Return (place, parameter) of the layers with one matrix, in the order in which they ran."""
    owned: dict[str, list[int]] = {}
    gains = set(weight_gains(record).values())
    for p, (layer, rank) in enumerate(
        zip(record.parameter_layers, record.parameter_ranks, strict=True)
    ):
        if rank >= 2 and p not in gains:
            owned.setdefault(layer, []).append(p)
    return [(k, owned[name][0]) for k, name in enumerate(record.layers)
            if len(owned.get(name, ())) == 1]  # fmt: skip


def measure_factors(record: FlowRecord) -> tuple[np.ndarray, np.ndarray]:
    r"""Return the layers with one weight matrix, and four logarithms (base 10) of each, (n, 4).

    At the first sample, with s the scale of a layer's output, g the norm of the gradient at it, and
    the layer that ran before marked by -: the forward factor s / s-, the backward factor g- / g,
    the norm of the matrix, and the norm of its gradient over g s-. A matrix multiplied by c moves
    the first three by log c and moves no other layer's, in a network without normalization. The
    fourth stays; it is off where the layer before is not what the layer was fed with (a branch, a
    second head, a mean). Left out are the first layer, whose input is not recorded, what follows
    an embedding, and what is 0 or not finite.
    """
    scales, norms = record.activation_scales[0], record.activation_grad_norms[0]
    drawn, grads = measure_drawn(record)
    places, rows = [], []
    for k, p in single_matrices(record):
        if k == 0 or any("Embedding" in kind for kind in record.kinds[k - 1 : k + 1]):
            continue
        values = np.array([scales[k], scales[k - 1], norms[k - 1], norms[k], drawn[p], grads[p]])
        if np.all(np.isfinite(values)) and np.all(values > 0):
            logs = np.log10(values)
            places.append(k)
            rows.append((logs[0] - logs[1], logs[2] - logs[3], logs[4],
                         logs[5] - logs[3] - logs[1]))  # fmt: skip
    return np.array(places, dtype=int), np.array(rows).reshape(-1, 4)


def has_bias(record: FlowRecord, places: np.ndarray) -> np.ndarray:
    """Return which of the layers at `places` have a vector that is not 0 beside their matrix."""
    owners = {
        layer
        for p, layer in enumerate(record.parameter_layers)
        if record.parameter_ranks[p] == 1 and record.weight_norms[0, p] > 0
    }
    return np.array([record.layers[k] in owners for k in places], dtype=bool)


def is_masked(away: np.ndarray) -> np.ndarray:
    """Return where the gradient's factor and the matrix agree, and the signal's lies between.

    A bias adds to the signal and takes nothing from the gradient: where it is not small beside
    what the matrix gives, as in PyTorch's default initialization, the signal keeps its scale.
    """
    along = away[:, 0] * np.sign(away[:, 1])
    agree = np.abs(away[:, 1] - away[:, 2]) <= RESCALED_APART
    return agree & (away[:, 1] * away[:, 2] > 0) & (
        (along >= -RESCALED_APART / 2) & (along <= np.abs(away[:, 1]) + RESCALED_APART)
    )  # fmt: skip


def find_rescaled(
    record: FlowRecord, places: np.ndarray, factors: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return how far each layer is from the usual one, and where one stands out: with the signal,
    or with its bias holding the signal up.

    Small heads are a choice (small first predictions), and left out: the last layer, and one whose
    successor was fed with something much larger, or answers otherwise than usual.
    """
    away = factors - np.median(factors, axis=0)
    spread = 1.4826 * np.median(np.abs(away), axis=0)  # the standard deviation, if it is normal
    size = np.abs(away)
    far = size[:, :3] >= np.maximum(RESCALED, RESCALED_SPREADS * spread[:3])
    open_sight = (
        (np.abs(np.sign(away[:, :3]).sum(axis=1)) == 3) & far[:, 0] & far[:, 1]
        & (size[:, 2] >= RESCALED_APART)
        & (np.abs(away[:, 0] - away[:, 1]) <= RESCALED_APART)
    )  # fmt: skip
    behind_bias = has_bias(record, places) & far[:, 1] & far[:, 2] & is_masked(away)
    kept = away[:, 1] > 0  # a large one is never a head
    successors = (away[1:, 3] > RESCALED) | np.any(size[1:, :2] > RESCALED, axis=1)
    kept[:-1] |= ~successors
    return away, open_sight & kept, behind_bias & kept & ~open_sight


def find_outright(record: FlowRecord, places: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """Return where a layer multiplies signal and gradient by more than any sound one does.

    No usual factor is needed, so this holds for small networks, and in front of a normalization.
    Of the last matrix the signal is enough, if what it gives is large. Where there are enough
    layers to compare with, the matrix must be larger than usual too, and fed by the layer before:
    what follows a branch that is drawn small shows large factors, and is sound.
    """
    if not len(places):
        return np.zeros(0, dtype=bool)
    high = factors[:, :2] >= RESCALED_OUTRIGHT
    owners = {layer for layer, rank in zip(record.parameter_layers, record.parameter_ranks,
                                           strict=True) if rank >= 2}  # fmt: skip
    last = places == max(k for k, layer in enumerate(record.layers) if layer in owners)
    large = record.activation_scales[0, places] >= RESCALED_OUTPUT
    found = high[:, 0] & (high[:, 1] | (last & large))
    if len(places) >= LEAST_LAYERS:
        away = factors - np.median(factors, axis=0)
        found &= (away[:, 2] >= RESCALED_APART) & (away[:, 3] <= RESCALED_FED)
    return found


def check_scale(record: FlowRecord) -> list[Finding]:
    """Return a finding if a layer multiplies by too much, or if one layer's factors stand alone."""
    places, factors = measure_factors(record)
    outright = find_outright(record, places, factors)
    if outright.any():
        j = int(np.argmax(outright))
        forward, backward = 10 ** factors[j, :2]
        others = int(outright.sum()) - 1
        how = (f"the signal grows here by {forward:.0f} times, and its gradient by {backward:.0f} "
               "times" + (f"; so in {others} later layers" if others else ""))  # fmt: skip
        value = factors[j, 0] if factors[j, 1] < RESCALED_OUTRIGHT else factors[j, :2].mean()
        return [_finding(record.layers[places[j]], "large", how, value, RESCALED_OUTRIGHT)]
    if any("Norm" in kind for kind in record.kinds):
        return []  # a normalization takes any factor back; see `peers`
    return check_alone(record, places, factors)


def check_alone(record: FlowRecord, places: np.ndarray, factors: np.ndarray) -> list[Finding]:
    """Return a finding if one layer's factors stand alone."""
    if len(places) < LEAST_LAYERS:
        return []
    away, open_sight, behind_bias = find_rescaled(record, places, factors)
    alone = open_sight | behind_bias
    if alone.sum() != 1:
        return []
    j = int(np.argmax(alone))
    side, word = ("large", "more") if away[j, 1] > 0 else ("small", "less")
    forward, backward = 10 ** np.abs(away[j, :2])
    how = (
        f"the signal and its gradient change here by {forward:.0f} and {backward:.0f} times {word} "
        "than in the usual layer"
        if open_sight[j]
        else f"the gradient changes here by {backward:.0f} times {word} than in the usual layer, "
        "while the biases hold the signal up"
    )
    told = [0, 1] if open_sight[j] else [1, 2]
    limit = RESCALED if side == "large" else -RESCALED
    return [_finding(record.layers[places[j]], side, how, away[j, told].mean(), limit)]


def _finding(where: str, side: str, how: str, value: float, limit: float) -> Finding:
    return Finding(
        "rescaled_layer", "warning", f"weights too {side}: {how}, at the first step", where,
        float(value), limit,
        "Every earlier layer's gradient, and every later layer's input, carries this factor "
        "(value and threshold in decades). A normalization behind it takes the factor back, and "
        "leaves a layer that learns too slowly or too fast.",
        "this layer's initial weights: the same rule as for the others (He for ReLU, Xavier for "
        "tanh).",
    )  # fmt: skip


def point_to_scale(findings: list[Finding], record: FlowRecord) -> list[Finding]:
    """Return the findings; of a weight that is far too large and hardly moves, this is the reason.

    A step is as long as the others', and small beside it.
    """
    large = {f.where for f in findings if f.code == "rescaled_layer" and f.value > 0}
    owner = dict(zip(record.parameters, record.parameter_layers, strict=True))
    return [
        replace(
            f, why="It is so large that an ordinary step is small beside it.",
            remedy="see the finding on this layer's weights.",
        )
        if f.code == "standing_still" and f.severity == "info" and owner.get(f.where) in large
        else f
        for f in findings
    ]  # fmt: skip


def check_growth_in_time(record: FlowRecord) -> list[Finding]:
    """Return a finding if the gradient is far larger in front of a recurrent layer than behind it.

    A fused layer shows a monitor its output and, by the layer before it, its input: what lies
    between them is the way back through all its steps.
    """
    insides = {re.sub(r"(_l\d+(_reverse)?)? \(\w+\)$", "", name)
               for name, kind in zip(record.layers, record.activations, strict=True)
               if kind in GATE_KINDS}  # fmt: skip
    norms = record.activation_grad_norms[0]
    found = []
    for k, name in enumerate(record.layers):
        before = [j for j in range(k) if norms[j] > 0 and np.isfinite(norms[j])]
        if name not in insides or not before or not 0 < norms[k] < np.inf:
            continue
        decades = float(np.log10(norms[before[-1]] / norms[k]))
        if decades < DECADES_PROBLEM:
            continue
        found.append(
            Finding(
                "exploding_over_time", "problem",
                f"the gradient grows by {decades:.1f} decades on its way back through the layer, "
                "at the first step", name, decades, DECADES_PROBLEM,
                "Going back in time, each step stretches it: early steps outweigh all others.",
                "a smaller recurrent matrix, orthogonal or as the framework draws it; clipping by "
                "global norm. `bptt_gradient_profile` shows it step by step.",
            )
        )  # fmt: skip
    return found
