"""At the first step: a matrix, or what a normalization gives, that is 0 and alone in that.

Networks are drawn with zeros on purpose: the last layer, or one matrix or scale in every block, so
that each branch begins as nothing. One matrix in the middle, or one normalization among several,
is no such plan.
"""

from __future__ import annotations

import numpy as np

from course_lib.diagnosis.connections import containers, is_position
from course_lib.diagnosis.report import Finding
from course_lib.diagnosis.training import is_scale
from course_lib.monitoring import FlowRecord

LEAST = 4
"""Matrices, or normalizations, below which one of them is no exception."""

MOST = 0.75
"""Of the matrices, tables of embeddings aside: networks begun as nothing on purpose, as diffusion
transformers, have one of about six in a block."""


def check_exact_zeros(record: FlowRecord) -> list[Finding]:
    """Return a finding for the one matrix, and the one normalization, that gives 0; or for all."""
    return [*_zero_matrix(record), *_zero_norm(record)]


def _zero_matrix(record: FlowRecord) -> list[Finding]:
    order = {name.split("#")[0]: k for k, name in reversed(list(enumerate(record.layers)))}
    outer = containers(record.parameter_layers)
    matrices = sorted(
        (order[layer], p)
        for p, (layer, rank) in enumerate(
            zip(record.parameter_layers, record.parameter_ranks, strict=True)
        )
        if rank >= 2 and layer in order and layer not in outer
        and not is_scale(record.parameters[p]) and not is_position(record.parameters[p])
    )  # fmt: skip
    inner = [p for k, p in matrices if "Embedding" not in record.kinds[k]]
    empty = [p for p in inner if record.weight_norms[0, p] == 0]
    if len(inner) > 1 and len(empty) >= MOST * len(inner):
        return [_all_zero(record.parameters[empty[0]], len(empty), len(inner))]
    zero = [(k, p) for k, p in matrices
            if record.weight_norms[0, p] == 0 and k < matrices[-1][0]]  # fmt: skip
    if len(matrices) < LEAST or len(zero) != 1:
        return []
    k, p = zero[0]
    before = [q for j, q in matrices if j < k and record.trainable[q]]
    cuts = bool(before) and not np.any(np.nan_to_num(record.weight_grad_norms[0, before]))
    why = "What goes in does not come out: the layer gives its bias, or 0, whatever it is fed with."
    if cuts:
        why += " And no gradient passes: that of every layer before is exactly 0 at the first step."
    severity = "problem" if cuts else "warning"
    if is_set_by_hand(record, record.parameter_layers[p]):
        severity, why = "info", f"{why} Its bias is of whole numbers: it begins so on purpose."
    return [
        Finding(
            "zero_weights", severity,
            "this matrix is 0 at the first step, alone of "
            f"{len(matrices)}", record.parameters[p], 0.0, 0.0, why,
            "an initialization as for the others; nothing, if the layer is to begin as nothing.",
        )
    ]  # fmt: skip


def is_set_by_hand(record: FlowRecord, layer: str) -> bool:
    """Return whether a layer's bias is of whole numbers, and not 0: its squared norm is one, too.

    A spatial transformer begins so: with no weights, and the identity for a bias. Numbers drawn at
    random give a whole one once in a hundred thousand times.
    """
    squares = [
        record.weight_norms[0, q] ** 2
        for q, (owner, rank) in enumerate(
            zip(record.parameter_layers, record.parameter_ranks, strict=True)
        )
        if owner == layer and rank == 1
    ]
    return any(0.5 < s < 1e3 and abs(s - round(s)) < 1e-5 for s in squares)


def _all_zero(where: str, zero: int, count: int) -> Finding:
    which = f"all {count}" if zero == count else f"{zero} of {count}"
    return Finding(
        "zero_weights", "problem", f"{which} matrices are 0 at the first step", where, 0.0, 0.0,
        "No signal and no gradient passes, and units that begin alike stay alike.",
        "an initialization at random: He for ReLU, Xavier for tanh.",
    )  # fmt: skip


def _zero_norm(record: FlowRecord) -> list[Finding]:
    scales = record.activation_scales[0]
    norms = [k for k, kind in enumerate(record.kinds) if "Norm" in kind and np.isfinite(scales[k])]
    own = {record.layers[k]: [p for p, layer in enumerate(record.parameter_layers)
                              if layer == record.layers[k]] for k in norms}  # fmt: skip
    zero = [
        k for k in norms
        if scales[k] == 0 and own[record.layers[k]]
        and not record.weight_norms[0, own[record.layers[k]]].any()
    ]  # fmt: skip
    if len(norms) < LEAST or len(zero) != 1:
        return []
    ending = [k for k in norms if record.layers[k] in (record.summed or ())]
    if ending == zero:  # the only one that ends a branch: all branches begin as nothing
        return []
    return [
        Finding(
            "zero_scale", "warning",
            f"this normalization gives 0 at the first step, alone of {len(norms)}",
            record.layers[zero[0]], 0.0, 0.0,
            "Its scale is 0, and so is its shift. The layers behind it get no signal, and those "
            "before it no gradient through it.",
            "a scale of 1; nothing, if the branch is to begin as nothing.",
        )
    ]  # fmt: skip
