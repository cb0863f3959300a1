"""What no gradient reaches: cut off, unused, frozen, or behind a product with 0.

The rule. A parameter without a gradient is *unused* if the loss does not depend on it, which
`diagnose_model` finds out by changing it: a note, since a loss may leave out a head or a table on
purpose. It is *cut off* if the loss depends on it all the same: a problem. A monitor alone cannot
change a parameter. It calls unused what shares its layer with a parameter that does get a
gradient, or belongs to a container within which one does; it says that it does not know where
layers before it get theirs, and otherwise cut off.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from course_lib.diagnosis.report import Finding, say_count
from course_lib.diagnosis.thresholds import IDLE_SHARE
from course_lib.monitoring import FlowRecord


def containers(layers: tuple[str, ...], *, holding: set[str] | None = None) -> set[str]:
    """Return the layers that hold others; with `holding`, those that hold one of these.

    What they own themselves, besides those, is a scale, a token or a table of positions: often
    drawn near 0 on purpose, so that the first updates are as large as they are.
    """
    names = set(layers)
    inner = names if holding is None else holding
    held = {name[:k] for name in inner for k, c in enumerate(name) if c in "./"}
    roots = {name for name in names if "." not in name and "/" not in name}
    single = len(names) > 1 and any(c in name for name in names for c in "./")
    return (names & held) | ({r for r in roots if single and r[:1].isupper()})


def check_connections(record: FlowRecord) -> list[Finding]:
    """Return what is wrong between the parameters and the loss."""
    if len(record) == 0:
        return []
    checks = check_unseen, check_zeros, check_missing, check_frozen, check_unmoved
    return [finding for check in checks for finding in check(record)]


def check_unseen(record: FlowRecord) -> list[Finding]:
    """Return a note if no layer was seen to run, so that much of what could be wrong is not seen.

    In PyTorch, that is so under `torch.func` and `vmap`, whose tensors hold no numbers; in Keras,
    where a loop calls functions of its own instead of the layers.
    """
    if record.layers or not record.parameters:
        return []
    return [
        Finding(
            "unseen_layers", "info", "no layer was seen to run: the weights alone are judged",
            "the model", 0.0, 1.0,
            "Its layers are not called, or within a transformation that no hook can look into.",
            "Call the model itself, model(x), in the steps that are sampled.",
        )
    ]  # fmt: skip


def check_zeros(record: FlowRecord) -> list[Finding]:
    """Return a finding if gradients are exactly 0: of whole layers, or of scales and tables alone.

    A table of positions, or a scale, has none where it has nothing to choose from: attention over
    one position, a pool over one pixel.
    """
    trainable = np.array(record.trainable, dtype=bool)
    silent = trainable & np.all(record.weight_grad_norms == 0, axis=0)
    if not silent.any() or len(record) < 2:  # at the first step, a layer drawn as 0 hides others
        return []
    owners = np.array(record.parameter_layers)
    whole = np.array([
        silent[p] and rank >= 2 and owners[p] in _ran(record)
        and owners[p] not in containers(record.parameter_layers)
        and bool(np.all(silent[(owners == owners[p]) & trainable]))
        for p, rank in enumerate(record.parameter_ranks)
    ])  # fmt: skip
    dead = bool(np.any(record.dead_fractions > 0.99))
    side = not dead and whole.any() and _runs_last(record, np.flatnonzero(whole))
    where, words = place_of_cut(record, np.flatnonzero(whole if whole.any() else silent))
    quiet, count = dead or side or not whole.any(), int(silent.sum())
    why = "A path leads to them, and nothing comes through it."
    remedy = "look for a product with 0, a saturated function, or underflow in 16 bits."
    if dead:
        why = "A layer that is dead lies between them and the loss."
        remedy = "see the finding on dead units."
    elif side:
        why = ("They run last, or are the last of their role, and all before them get a gradient: "
               "outputs that the loss left out in these batches, as that of a detector's head "
               "without a match.")  # fmt: skip
        remedy = "nothing, if other batches need them."
    elif all(record.parameters[p].endswith(("bias", "beta")) for p in np.flatnonzero(silent)):
        why = ("Biases, in layers that do get a gradient: the loss takes differences, or what "
               "comes next takes out what they add.")  # fmt: skip
        remedy = "nothing; or leave the biases out."
    elif quiet:
        why = ("Scales or tables, in layers that do get a gradient: with inputs of this size they "
               "have nothing to choose from.")  # fmt: skip
        remedy = "larger inputs (attention over one position, or a pool over one pixel, gives 0)."
    return [
        Finding(
            "zero_gradient", "info" if quiet else "warning",
            f"the gradient of {count} trainable parameter{'s' * (count > 1)} is exactly 0{words}",
            where, 0.0, 0.0, why, remedy,
        )
    ]  # fmt: skip


def _runs_last(record: FlowRecord, silent: np.ndarray) -> bool:
    """Return whether what runs before these has a gradient, and nothing after them: at all, or of
    their role, such as the same matrix of a later block.
    """
    place = {name.split("#")[0]: k for k, name in reversed(list(enumerate(record.layers)))}
    owners = record.parameter_layers
    where = [place[owners[p]] for p in silent]
    alive = [
        place[owners[p]] for p, rank in enumerate(record.parameter_ranks)
        if rank >= 2 and owners[p] in place and np.any(record.weight_grad_norms[:, p] > 0)
    ]  # fmt: skip
    if not alive or min(alive) > min(where):
        return False
    roles = {p: re.sub(r"\d+", "#", record.parameters[p]) for p in range(len(owners))}
    seen = [
        {place[owners[q]] for q, role in roles.items() if role == roles[p] and q != p
         and owners[q] in place and np.any(record.weight_grad_norms[:, q] > 0)}
        for p in silent
    ]  # fmt: skip
    return min(where) > max(alive) or all(
        peers and max(peers) < k for k, peers in zip(where, seen, strict=True)
    )


def place_of_cut(record: FlowRecord, parameters: Sequence[int]) -> tuple[str, str]:
    """Return which of the parameters runs last, and words on which begins the list.

    What stops the gradient is behind the last to run.
    """
    place = {name.split("#")[0]: k for k, name in enumerate(record.layers)}
    last = max(parameters, key=lambda p: place.get(record.parameter_layers[p], -1))
    first = record.parameters[parameters[0]]
    return record.parameters[last], f"; the first is {first}" if len(parameters) > 1 else ""


def _ran(record: FlowRecord) -> set[str]:
    return {name.split("#")[0] for name in record.layers}


def missing_gradients(record: FlowRecord) -> np.ndarray:
    """Return which parameters, by their place, are trainable and never received a gradient.

    What moves has one, if only where it cannot be measured, as in a branch of a compiled step.
    """
    never = np.all(np.isnan(record.weight_grad_norms), axis=0)
    never &= ~np.any(record.update_ratios > 0, axis=0)
    return np.flatnonzero(never & np.array(record.trainable, dtype=bool))


def find_unused(groups: list[list[str]], changes_loss: Callable[[list[str]], bool]) -> list[str]:
    """Return the names in those groups, one per layer, that change nothing: by halving.

    `changes_loss` says whether the loss is another when all the named parameters are. At most 64
    trials; what is left then is not called unused.
    """
    found, queue = [], [groups]
    for _ in range(64):
        if not queue:
            break
        part = queue.pop(0)
        names = [name for group in part for name in group]
        if names and not changes_loss(names):
            found += names
        elif len(part) > 1:
            queue += [part[: len(part) // 2], part[len(part) // 2 :]]
    return found


def tell_unused(
    record: FlowRecord, prepare: Callable[[], Callable[[list[str]], bool] | None]
) -> FlowRecord:
    """Return the record with what is unused, tried layer by layer.

    `prepare` evaluates the loss, and returns the `changes_loss` of `find_unused`, or None if
    nothing can be tried; it is called only if some parameter has no gradient.
    """
    groups: dict[str, list[str]] = {}
    for p in missing_gradients(record):
        groups.setdefault(record.parameter_layers[p], []).append(record.parameters[p])
    changes_loss = prepare() if groups else None
    if changes_loss is None:
        return record
    return replace(record, unused=tuple(find_unused(list(groups.values()), changes_loss)))


def check_missing(record: FlowRecord) -> list[Finding]:
    """Return a finding for each way of never receiving a gradient; see the rule above."""
    grads, owners = record.weight_grad_norms, record.parameter_layers
    reached = {owners[p] for p in np.flatnonzero(~np.all(np.isnan(grads), axis=0))}
    if not reached:  # nothing learns: that the loss depends on none of them is no excuse
        record = replace(record, unused=None)
    reached |= containers(owners, holding=reached)
    groups: dict[str, list[int]] = {}
    for p in missing_gradients(record):
        groups.setdefault(_why_missing(record, p, reached), []).append(p)
    found = []
    for code, severity, what, why, remedy in _MISSING:
        group = groups.get(what, [])
        if what == "idle" and _few_matrices(record, group):
            severity = "info"
        if group:
            where, words = place_of_cut(record, group)
            found.append(
                Finding(
                    code, severity,
                    f"{say_count(len(group), 'trainable parameter')} never "
                    f"receive{'s' * (len(group) == 1)} a gradient{words}",
                    where, 0.0, 0.0, why, remedy,
                )
            )  # fmt: skip
    return found


def _few_matrices(record: FlowRecord, group: list[int]) -> bool:
    """Return whether hardly any of the network's matrices are in the group.

    Public networks keep a normalization or a table that a variant of theirs needs.
    """
    ranks = np.array(record.parameter_ranks)
    return np.sum(ranks[group] >= 2) < IDLE_SHARE * np.sum(ranks >= 2)


def _why_missing(record: FlowRecord, p: int, reached: set[str]) -> str:
    """Return which row of `_MISSING` a parameter without a gradient belongs to."""
    owner, ran = record.parameter_layers[p], _ran(record)
    if owner not in ran and owner not in containers(record.parameter_layers):
        return "idle"
    if record.unused is not None:
        return "unused" if record.parameters[p] in record.unused else "cut"
    if owner in reached:
        return "unused"
    order = [name.split("#")[0] for name in record.layers]
    place = order.index(owner) if owner in order else len(order)
    return "unknown" if any(name in reached for name in order[:place]) else "cut"


_CUT = ("look for detach(), no_grad, .numpy(), stop_gradient, argmax, or freeze the parameters if "
        "that is meant.")  # fmt: skip
_MISSING = (
    ("no_gradient", "problem", "cut",
     "The layer runs, but without it, or no gradient path leads there from the loss.", _CUT),
    ("no_gradient", "warning", "unknown",
     "Layers before it get theirs. Either its output is not used by the loss, or it is cut off; "
     "`diagnose_model` tells which.", _CUT),
    ("no_gradient", "warning", "idle", "The layer does not run.", _CUT),
    ("unused_parameter", "info", "unused",
     "The loss does not depend on them: changing them does not change it, or the layer works "
     "without them.", "nothing, if this loss is meant to leave them out."),
)  # fmt: skip


def is_position(parameter: str) -> bool:
    """Return whether a parameter's name says that it is a table of positions, or a mask."""
    return bool(re.search(r"pos(ition(al)?)?_?(emb|enc|table)|embed_pos|mask$", parameter.lower()))


def check_frozen(record: FlowRecord) -> list[Finding]:
    """Return a finding if matrices are frozen: a note, or a warning if some trainable ones ran
    before and most are trained, which is neither fine-tuning nor a frozen body. Tables of positions
    are often fixed by design, and so is what trained factors of low rank stand beside.
    """
    owners, order = record.parameter_layers, [name.split("#")[0] for name in record.layers]
    place = {name: k for k, name in reversed(list(enumerate(order)))}
    matrices = [p for p, rank in enumerate(record.parameter_ranks)
                if rank >= 2 and owners[p] in place]  # fmt: skip
    frozen = sorted((place[owners[p]], p) for p in matrices if not record.trainable[p])
    trained = sorted(place[owners[p]] for p in matrices if record.trainable[p])
    norms = check_frozen_norms(record, trained[0]) if trained else []
    if not frozen or not trained:
        return norms
    inside = [p for k, p in frozen if k > trained[0] and not is_position(record.parameters[p])]
    odd = bool(inside) and len(frozen) < len(trained) and not _adapted(record, matrices)
    return [
        Finding(
            "frozen_parameters", "warning" if odd else "info",
            f"{len(frozen)} of {len(matrices)} weight matrices {_are(frozen)} frozen",
            record.parameters[inside[0] if odd else frozen[0][1]], float(len(frozen)), 0.0,
            "They stay as they are, though layers before them are trained." if odd
            else "They stay as they are.",
            "requires_grad (PyTorch) or trainable (Keras), unless that is meant.",
        )
    ] + ([] if odd else norms)  # fmt: skip


def _are(things: Sequence) -> str:
    return "is" if len(things) == 1 else "are"


def _adapted(record: FlowRecord, matrices: Sequence[int]) -> bool:
    """Return whether every frozen matrix, of two or more, has two trained ones beside it: in its
    layer, or else in the container around it. So are adapters of low rank made (hu2022).
    """
    owners, trained = record.parameter_layers, [p for p in matrices if record.trainable[p]]
    frozen = [p for p in matrices if not record.trainable[p]]

    def beside(p: int) -> int:
        if own := sum(owners[q] == owners[p] for q in trained):
            return own
        around = re.sub(r"[./]?[^./]*$", "", owners[p])
        return around and sum(re.split(rf"^{re.escape(around)}([./]|$)", owners[q])[0] == ""
                              for q in trained)  # fmt: skip

    return len(frozen) > 1 and all(beside(p) == 2 for p in frozen)


def check_frozen_norms(record: FlowRecord, first: int) -> list[Finding]:
    """Return a finding if some normalizations are frozen, and most are not.

    Arguments:
        first: where the first trained matrix ran; normalizations before it belong to a frozen body.
    """
    state: dict[str, list[bool]] = {}
    for p, rank in enumerate(record.parameter_ranks):
        if rank == 1:
            state.setdefault(record.parameter_layers[p], []).append(record.trainable[p])
    norms = [(k, name) for k, name in enumerate(record.layers)
             if "Norm" in record.kinds[k] and name in state]  # fmt: skip
    frozen = [name for k, name in norms if k > first and not any(state[name])]
    if not frozen or 2 * sum(not any(state[name]) for _, name in norms) >= len(norms):
        return []
    return [
        Finding(
            "frozen_parameters", "warning",
            f"{len(frozen)} of {len(norms)} normalizations {_are(frozen)} frozen", frozen[0],
            float(len(frozen)), 0.0,
            "They scale and shift as they do now, though the others are trained.",
            "requires_grad (PyTorch) or trainable (Keras), unless that is meant.",
        )
    ]  # fmt: skip


def check_unmoved(record: FlowRecord) -> list[Finding]:
    """Return a finding if matrices get a gradient like others' and never move, while these do.

    Where the gradient is a thousand times smaller than the usual one, it may be rounded away.
    """
    ratios, grads = np.nan_to_num(record.update_ratios), np.nan_to_num(record.weight_grad_norms)
    moved = np.any(ratios > 0, axis=1)
    moving = np.any(ratios > 0, axis=0)
    if not moved.any() and len(record) > 1 and record.framework == "PyTorch":
        return _nothing_moves(record, np.any(grads > 0, axis=0) & (ratios == 0).all(axis=0))
    if moved.sum() < 2:
        return []
    least = 1e-3 * np.median(grads[moved][:, moving])
    stuck = [
        p for p, rank in enumerate(record.parameter_ranks)
        if rank >= 2 and record.trainable[p] and record.weight_norms[0, p] > 0
        and not moving[p] and np.all(grads[moved, p] > least)
    ]  # fmt: skip
    if not stuck:
        return []
    return [
        Finding(
            "not_updated", "warning",
            f"{say_count(len(stuck), 'weight matrix gets', 'weight matrices get')} a gradient and "
            f"never move{'s' * (len(stuck) == 1)}", record.parameters[stuck[0]], 0.0, 0.0,
            "The optimizer does not hold them, or its rate for them is 0, or what it adds is "
            "rounded away.",
            "all parameters for the optimizer; what is meant to stay, frozen.",
        )
    ]  # fmt: skip


def _nothing_moves(record: FlowRecord, asked: np.ndarray) -> list[Finding]:
    """Return a finding if weights have a gradient, and none moved in any step.

    Where gradients are accumulated, Keras's optimizers are called and do not move; PyTorch's are
    called when they are to.
    """
    first = np.flatnonzero(asked & np.array(record.trainable, dtype=bool))
    if not len(first):
        return []
    return [
        Finding(
            "standing_still", "problem", f"in {len(record)} steps no weight moves at all, though "
            f"{say_count(len(first), 'of them has', 'of them have')} a gradient",
            record.parameters[first[0]], 0.0, 0.0,
            "The learning rate is 0, or what the optimizer adds is rounded away.",
            "a look at the optimizer's rate and at its schedule.",
        )
    ]  # fmt: skip
