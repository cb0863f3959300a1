r"""At the first step: one matrix out of scale among those of its role, whatever stands behind it.

A network of blocks holds the same matrix once per block, drawn by one rule: `blocks.0.fc2.weight`,
`blocks.1.fc2.weight`. Their norms agree within a few percent, so one of them times c stands out,
also where a normalization hides it from the layers behind. Only matrices of one shape may be
compared so, and a monitor's record does not know the shapes: a trial does. What c does is another
question. With h the output of the layer and g the gradient there:

* Directly in front of a normalization, c changes nothing that comes out: h becomes c h, g becomes
  g / c. Only the layer's own speed differs, by 1/c under Adam and by 1/c^2 under SGD: a note, and
  a warning from c = 20 on.
* Within a branch (attention, the second matrix of a pre-norm block), h becomes c h and g stays: the
  branch is c times what the others are, and the function is another: a warning.
* Where a layer divides its own weights by their size (weight standardization), nothing changes at
  all, and nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

import numpy as np

from course_lib.diagnosis.local import has_bias, measure_drawn, single_matrices
from course_lib.diagnosis.report import Finding
from course_lib.diagnosis.thresholds import (
    LEAST_PEERS,
    PEERS_ALIKE,
    RESCALED,
    RESCALED_APART,
    RESCALED_OUTRIGHT,
)
from course_lib.monitoring import FlowRecord


def roles_of(parameter: str) -> Iterator[str]:
    """Yield a parameter's name with one number or all of them left out: what others share with it.

    `stages.2.blocks.1.fc.weight` is compared within its stage, with the same block of every stage,
    and with all. Where there is an encoder and a decoder, with the blocks of both besides: two
    blocks each are too few by themselves.
    """
    numbers = list(re.finditer(r"_?\d+", parameter))
    for match in numbers:
        yield f"{parameter[: match.start()]}#{parameter[match.end() :]}"
    every = re.sub(r"_?\d+", "#", parameter)
    if len(numbers) > 1:
        yield every
    whole = re.sub(r"(?<=\.)\d+(?=\.)", "#", parameter)  # `linear1` is not `linear2`
    for name in dict.fromkeys((whole, every)):
        both = re.sub(r"(?<![a-z])(en|de)coder(?![a-z])", "#coder", name)
        if "#" in name and both != name:
            yield both


def measure_peers(record: FlowRecord) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Return (place, parameter) of the layers with one matrix, and four logarithms of each, (n, 4).

    At the first sample, base 10: the scale s of the output, the forward factor s / s-, the backward
    factor g- / g, and the norm of the matrix; - marks the layer that ran before, of those whose
    outputs are measured. NaN for what is unknown or 0.
    """
    pairs = [(k, p) for k, p in single_matrices(record) if "Embedding" not in record.kinds[k]]
    with np.errstate(divide="ignore", invalid="ignore"):
        s, g = np.log10(record.activation_scales[0]), np.log10(record.activation_grad_norms[0])
        norms = np.log10(measure_drawn(record)[0])
        known = np.isfinite(s)
        before = {k: int(np.flatnonzero(known[:k])[-1]) for k, _ in pairs if known[:k].any()}
        rows = [(s[k], s[k] - s[before[k]], g[before[k]] - g[k], norms[p]) if k in before
                else (s[k], np.nan, np.nan, norms[p]) for k, p in pairs]  # fmt: skip
    table = np.array(rows, dtype=np.float64).reshape(-1, 4)
    return pairs, np.where(np.isfinite(table), table, np.nan)


def may_be_head(record: FlowRecord, pairs: list[tuple[int, int]], j: int, group: list[int]) -> bool:
    """Return whether a small matrix may be the last of a chain: drawn small, that is a choice.

    In `blocks.2.fc.weight` the number counts blocks, and only the last matrix of all is the head.
    In `actor.4.weight` or `dense_4/kernel` it counts layers, and the last ones may be heads.
    """
    names = {re.split(r"[./]", record.layers[pairs[i][0]])[-1] for i in group}
    return j == len(pairs) - 1 or (len(names) > 1 and sum(i > j for i in group) < LEAST_PEERS)


def find_odd(record: FlowRecord, sizes: Mapping[str, int]) -> list[tuple[int, float, list[int]]]:
    """Return the layers that stand out of their role: (place, decades, the others' places).

    What the matrix does must be off by as much as its norm: its output, or, where a bias holds that
    up, the gradient that it passes on. Where the bias holds up the one and a skip connection the
    other, its own gradient tells: that of a small matrix is as the others', but if its size does
    not matter, as under weight standardization: then it is larger. The first and the last matrix
    may be drawn by other rules, and are no measure for the others.
    """
    pairs, table = measure_peers(record)
    biased = has_bias(record, np.array([k for k, _ in pairs], dtype=int))
    with np.errstate(divide="ignore"):
        own = np.log10(measure_drawn(record)[1][[p for _, p in pairs]])
    roles: dict[tuple[str, int], list[int]] = {}
    for j, (_, p) in enumerate(pairs):
        name = record.parameters[p]
        for role in roles_of(name):
            roles.setdefault((role, sizes[name]), []).append(j)
    found = {}
    for group in roles.values():
        for j in group:
            peers = [i for i in group if i not in (j, 0, len(pairs) - 1)]
            if len(peers) < LEAST_PEERS:
                continue
            usual = np.median(table[peers], axis=0)
            apart, away = np.abs(table[peers] - usual).max(axis=0), table[j] - usual
            if not (apart[3] <= PEERS_ALIKE and abs(away[3]) >= RESCALED):
                continue
            agrees = (np.abs(away[:3] - away[3]) <= RESCALED_APART) & (apart[:3] <= RESCALED_APART)
            if away[3] < 0 and biased[j] and np.all(np.isfinite(own[[j, *peers]])):
                agrees |= np.ptp(own[[j, *peers]]) <= RESCALED_APART
            if agrees.any() and not (away[3] < 0 and may_be_head(record, pairs, j, group)):
                found[j] = (pairs[j][0], float(away[3]), [pairs[i][0] for i in peers])
    return list(found.values())


def is_taken_back(record: FlowRecord, place: int, decades: float, others: list[int]) -> bool:
    """Return whether a normalization comes next, and the gradient is as much smaller as the output
    is larger, beside that of the nearest layers of this role.

    Told at the first step that has a gradient there: behind a head that begins at 0 there is none
    at step 0. True if there never is one. Behind a residual sum a normalization takes back what
    the whole sum is, and not the branch.
    """
    if record.normalized is not None and record.layers[place] not in record.normalized:
        return False
    if "Norm" not in "".join(record.kinds[place + 1 : place + 2]):
        return False
    near = [k for k in others if k < place][-1:] + [k for k in others if k > place][:1]
    for norms in record.activation_grad_norms:
        if norms[place] > 0 and np.all(norms[near] > 0):
            away = np.log10(norms[place]) - np.mean(np.log10(norms[near]))
            return bool(abs(away + decades) < abs(away))
    return True


def check_peers(record: FlowRecord, sizes: Mapping[str, int]) -> list[Finding]:
    """Return a finding if one matrix, and one only, is out of scale among those of its role.

    Arguments:
        record: of a network with normalization layers; elsewhere `check_scale` sees more.
        sizes: the number of entries of every parameter.
    """
    if not any("Norm" in kind for kind in record.kinds):
        return []
    odd = find_odd(record, sizes)
    if len(odd) != 1:
        return []
    place, decades, others = odd[0]
    hidden = is_taken_back(record, place, decades, others)
    side = "large" if decades > 0 else "small"
    what = (f"weights too {side}: this matrix is {10 ** abs(decades):.1f} times as {side} as the "
            f"{len(others)} others of its role")  # fmt: skip
    limit = RESCALED if decades > 0 else -RESCALED
    severity = "info" if hidden and decades < RESCALED_OUTRIGHT else "warning"
    why = (
        "A normalization behind it takes the factor back, so the function is as it was; but the "
        "layer itself learns as many times too slowly (large) or too fast (small) under Adam, and "
        "by its square under SGD (value and threshold in decades)."
        if hidden
        else "What it adds to the signal, or how sharply it attends, is out of proportion with the "
        "other blocks (value and threshold in decades)."
    )
    return [
        Finding(
            "rescaled_layer", severity, what, record.layers[place], decades,
            limit, why, "the same initialization as for the others; nothing, if training led here.",
        )
    ]  # fmt: skip
