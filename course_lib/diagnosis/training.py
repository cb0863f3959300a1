"""Over the steps: what jumps, or moves too much or too little."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np

from course_lib.diagnosis.connections import containers
from course_lib.diagnosis.depth import typical
from course_lib.diagnosis.report import Finding, say_count
from course_lib.diagnosis.thresholds import (
    DEAD_WARNING,
    DECAY_ALIKE,
    DECAY_WARNING,
    DRAWN_FAIRLY,
    MOMENTUM,
    RISING,
    SPIKE,
    STILL_BRANCH,
    STILL_SHARE,
    UPDATE_FASTEST,
    UPDATE_FROM_ZERO,
    UPDATE_LOST,
    UPDATE_PROBLEM,
    UPDATE_STILL,
    UPDATE_WARNING,
    graded,
)
from course_lib.monitoring import FlowRecord


def check_time(record: FlowRecord) -> list[Finding]:
    norms = record.global_norms
    worst, place = 0.0, 0
    for k in range(3, len(norms)):
        before = norms[:k][np.isfinite(norms[:k])]
        usual = np.median(before) if len(before) else 0.0
        if usual > 0 and np.isfinite(norms[k]) and norms[k] / usual > worst:
            worst, place = norms[k] / usual, k
    if worst < SPIKE:
        return []
    lasting = np.median(norms[place:]) >= SPIKE * np.median(norms[:place])
    return [
        Finding(
            "unstable_training", "problem" if lasting else "warning",
            "the global gradient norm jumps above what was usual before",
            f"step {int(record.steps[place])}", float(worst), SPIKE,
            "One such step can undo all before it.",
            "clipping by global norm, a smaller learning rate, warm-up.",
        )
    ]  # fmt: skip


def blame_spike(found: list[Finding], record: FlowRecord) -> list[Finding]:
    """Return the findings, a jump of the gradient as a problem if units were lost after it.

    They were there in the first sample: what follows the jump is its consequence.
    """
    lost = any(
        f.severity == "problem" and f.code == "dead_units" and f.where in record.layers
        and not record.dead_fractions[0, record.layers.index(f.where)] >= DEAD_WARNING
        for f in found
    )  # fmt: skip
    return [replace(f, severity="problem") if lost and f.code == "unstable_training" else f
            for f in found]  # fmt: skip


SCALES = ("gamma", "gain", "scale")


def is_scale(parameter: str) -> bool:
    """Return whether a parameter's name says that it scales channels: no matrix, whatever its rank.

    Branches are scaled by 1e-5 and the like on purpose, as (channels, 1, 1) or (channels,).
    """
    return parameter.rpartition(".")[2].rpartition("/")[2].lower().endswith(SCALES)


def drawn_small(record: FlowRecord, columns: list[int], ratios: np.ndarray) -> set[int]:
    """Return the matrices that are drawn small on purpose, so that their first updates are large.

    One kind is as good as 0, as others are 0: a last layer, or the same matrix of every block
    (names alike but for their numbers). The other is smaller from block to block, and none stands
    out of its kind. None at all if most matrices move by much: then it is the rate.
    """
    if 2 * sum(ratios[k] >= UPDATE_WARNING for k in columns) >= len(columns):
        return set()
    order = [name.split("#")[0] for name in record.layers]
    place = {name: k for k, name in enumerate(order)}
    last = max(columns, key=lambda k: place.get(record.parameter_layers[k], -1))
    roles: dict[str, list[int]] = {}
    for k in columns:
        roles.setdefault(re.sub(r"(?<![A-Za-z])\d+", "", record.parameters[k]), []).append(k)
    found = {last} if ratios[last] >= UPDATE_FROM_ZERO else set()
    for group in roles.values():
        own = ratios[group]
        as_zero = len(group) > 1 and own.min() >= UPDATE_FROM_ZERO
        graded_down = len(group) >= 4 and own.max() < min(4 * np.median(own), UPDATE_PROBLEM)
        found |= set(group) if as_zero or graded_down else set()
    return found


def is_rising(values: np.ndarray, factor: float = RISING) -> bool:
    """Return whether what a weight shows grows from the first step to the last."""
    known = values[np.isfinite(values)]
    return bool(len(known) > 1 and known[-1] > factor * known[0])


def is_on_its_way(updates: np.ndarray, gradients: np.ndarray) -> bool:
    """Return whether a weight's updates grow, by more than momentum makes of equal gradients."""
    return is_rising(updates) and (is_rising(gradients) or is_rising(updates, MOMENTUM))


def check_decay(record: FlowRecord) -> list[Finding]:
    """Return a finding if all matrices lose the same large share of their size in every step."""
    columns = [k for k, rank in enumerate(record.parameter_ranks)
               if rank >= 2 and record.trainable[k]]  # fmt: skip
    if len(record) < 3 or len(columns) < 2:
        return []
    with np.errstate(divide="ignore", invalid="ignore"):
        lost = -np.diff(np.log(record.weight_norms[:, columns]), axis=0)
    lost = typical(lost / np.diff(record.steps)[:, None])
    lost = lost[np.isfinite(lost)]
    if len(lost) < 2:
        return []
    usual = float(np.median(lost))
    apart = np.median(np.abs(lost - usual))
    if usual < DECAY_WARNING or apart > DECAY_ALIKE * usual:
        return []
    return [
        Finding(
            "weights_decay", "warning", "all weights shrink by the same share in every step",
            f"{len(lost)} weight matrices", usual, DECAY_WARNING,
            "Weight decay takes away more than the loss can put back; all of them tend to 0.",
            "a smaller weight decay (it is multiplied by the learning rate in AdamW and SGD).",
        )
    ]  # fmt: skip


def normalized_layers(record: FlowRecord) -> set[str]:
    """Return the layers whose output goes into a normalization as it is.

    Where nobody looked, those that ran directly before one that takes each channel for itself: in
    front of these, residual sums are rare.
    """
    if record.normalized is not None:
        return set(record.normalized)
    kinds = ("BatchNorm", "GroupNorm", "InstanceNorm")
    return {name for name, after in zip(record.layers, record.kinds[1:], strict=False)
            if after.startswith(kinds)}  # fmt: skip


def weigh_updates(record: FlowRecord, columns: list[int], ratios: np.ndarray) -> np.ndarray:
    """Return the updates as far as they can do harm.

    What was drawn far below what suits its inputs adds as little to the signal, moved, as it did
    before. In front of a normalization a long step lengthens the weight, and so shortens the steps
    after it: no more than half a warning, unless most matrices move by much. Then it is the rate.
    Source: arora2019 (the rate that tunes itself in front of a normalization).
    """
    weighed, taken = ratios.copy(), normalized_layers(record)
    within = [k for k in columns if record.parameter_layers[k] in taken]
    if record.gains is not None:
        small = [k for k in columns if k not in within and record.gains[k] < DRAWN_FAIRLY]
        grown = record.weight_norms[:, small] / record.weight_norms[0, small]
        shares = np.minimum(1.0, record.gains[small] * grown / DRAWN_FAIRLY)
        steps = record.update_ratios[:, small] * shares
        weighed[small] = typical(steps[np.any(record.update_ratios > 0, axis=1)])
    if 2 * np.sum(weighed[columns] >= UPDATE_WARNING) < len(columns):
        weighed[within] = np.minimum(weighed[within], UPDATE_WARNING / 2)
    return weighed


def on_quiet_branches(record: FlowRecord, still: list[int], ratios: np.ndarray) -> list[int]:
    """Return which of these matrices get hardly any gradient, while some that runs before them
    moves: it gets its gradient past them.

    Told by the gradient at what the layer gives; or else, if no more than half of the matrices
    stand still, by the update over the gradient: under plain rules that is the rate, and as large
    for what stands still as for what moves.
    """
    order = [name.split("#")[0] for name in record.layers]
    place = {name: k for k, name in reversed(list(enumerate(order)))}
    norms, grads = typical(record.activation_grad_norms), typical(record.weight_grad_norms)
    moving = [p for p, rank in enumerate(record.parameter_ranks)
              if rank >= 2 and ratios[p] >= UPDATE_STILL and grads[p] > 0
              and record.parameter_layers[p] in place]  # fmt: skip
    if not moving:
        return []
    rates = ratios * typical(record.weight_norms) / np.where(grads > 0, grads, np.inf)
    few = 2 * len(still) <= sum(rank >= 2 for rank in record.parameter_ranks)
    usual = np.nanmedian([norms[place[record.parameter_layers[p]]] for p in moving])
    first = min(place[record.parameter_layers[p]] for p in moving)
    return [
        k for k in still
        if (j := place.get(record.parameter_layers[k], len(order))) > first and (
            (j < len(order) and norms[j] <= STILL_BRANCH * usual)
            or (few and rates[k] >= STILL_BRANCH * np.median(rates[moving]))
        )
    ]  # fmt: skip


def check_updates(record: FlowRecord) -> list[Finding]:
    found = []
    moved = np.any(record.update_ratios > 0, axis=1)  # none: gradients were accumulated
    ratios = typical(record.update_ratios[moved])
    outer = containers(record.parameter_layers)
    columns = [
        k for k, rank in enumerate(record.parameter_ranks)
        if rank >= 2 and record.trainable[k] and np.isfinite(ratios[k])
        and record.parameter_layers[k] not in outer and record.weight_norms[0, k] > 0
        and not is_scale(record.parameters[k])
    ]  # fmt: skip
    if not columns:
        return []
    chosen = drawn_small(record, columns, ratios)
    judged = [k for k in columns if k not in chosen]
    weighed = weigh_updates(record, columns, ratios)
    largest = max(judged, key=lambda k: weighed[k], default=None)
    severity = judged and graded(weighed[largest], UPDATE_PROBLEM, UPDATE_WARNING)
    if severity:
        found.append(
            Finding(
                "large_update", severity, "one step changes the weight by a large part of its size",
                record.parameters[largest], float(ratios[largest]),
                UPDATE_PROBLEM if severity == "problem" else UPDATE_WARNING,
                "A few steps replace what was learned or initialized.",
                "a smaller learning rate, warm-up.",
            )
        )  # fmt: skip
    still = [k for k in columns if 0 < ratios[k] < UPDATE_STILL
             and not is_on_its_way(record.update_ratios[moved, k],
                                   record.weight_grad_norms[moved, k])]  # fmt: skip
    if still:
        branches = on_quiet_branches(record, still, ratios)
        quiet = len(branches) == len(still)
        if not quiet:
            still = [k for k in still if k not in branches]
        k = min(still, key=lambda k: ratios[k])
        lost = ratios[k] < UPDATE_LOST
        why = "At this rate a weight needs a million steps to change by its size."
        remedy = "see the finding on vanishing gradients, if there is one; else a larger rate."
        if lost:
            why = "Relative updates below half a unit in the last place are rounded away."
        if quiet:
            why = (
                "Hardly any gradient reaches them, though layers before them get theirs: branches "
                "scaled by a tiny number, or attention that is still even."
            )
            remedy = "Adam, which divides by the gradient's size; else a larger scale, or time."
        few = len(still) < STILL_SHARE * len(columns) or quiet
        found.append(
            Finding(
                "standing_still", "info" if few else "problem" if lost else "warning",
                f"{say_count(len(still), 'weight')} hardly move{'s' * (len(still) == 1)}",
                record.parameters[k], float(ratios[k]),
                UPDATE_LOST if lost else UPDATE_STILL, why, remedy,
            )
        )  # fmt: skip
    if not any(f.code == "standing_still" and f.severity != "info" for f in found):
        slow = check_fastest(record, columns, ratios)
        found = slow + [f for f in found if not slow or f.code != "standing_still"]
    return found


def check_fastest(record: FlowRecord, columns: list[int], ratios: np.ndarray) -> list[Finding]:
    """Return a finding if even the matrix that moves most hardly moves."""
    k = max(columns, key=lambda k: ratios[k])
    moved = np.any(record.update_ratios > 0, axis=1)
    if not 0 < ratios[k] < UPDATE_FASTEST or is_rising(record.update_ratios[moved, k]):
        return []
    return [
        Finding(
            "standing_still", "warning",
            f"none of {len(columns)} weights moves by more than this share of itself in a step",
            record.parameters[k], float(ratios[k]), UPDATE_FASTEST,
            "At this rate the one that moves most needs fifty thousand steps to change by its "
            "size.", "a larger rate, unless this is the beginning of a warm-up.",
        )
    ]  # fmt: skip
