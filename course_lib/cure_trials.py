r"""What trials of cures have in common, for feed-forward and for recurrent networks.

Changes are made by name. Recipes that differ only in their weights, or in the rate and the limit of
their steps, are trained side by side as one ensemble: S networks cost little more than one.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, TypeVar

import numpy as np
from threadpoolctl import threadpool_limits

from course_lib._validation import (
    require_choice,
    require_flag,
    require_real,
    require_sequence,
    require_type,
)
from course_lib.cure_results import CureTrial
from course_lib.data import draw_batches
from course_lib.recording import OPTIMIZERS
from course_lib.reference.training import Adam

R = TypeVar("R")

GROUP = 5
"""How many recipes are trained side by side, at most: larger arrays do not stay in the cache."""


@dataclass(frozen=True)
class TrainedNetwork:
    """The fields that both kinds of recipe share, and their checks.

    Arguments:
        network: shape, activation or cell, law and scale of the weights, bias.
        norm: "none", or one of the kind's normalizations.
        shortcut: whether layers, or steps, add their input.
        optimizer: "sgd" or "adam".
        learning_rate: > 0.
        clip_norm: limit on the global norm of the gradient, > 0; None for no clipping.
    """

    NETWORK: ClassVar[type]
    NORMS: ClassVar[tuple[str, ...]]

    network: object
    norm: str = "none"
    shortcut: bool = False
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    clip_norm: float | None = None

    def __post_init__(self) -> None:
        require_type("network", self.network, self.NETWORK)
        require_choice("norm", self.norm, self.NORMS)
        require_flag("shortcut", self.shortcut)
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require_real("learning_rate", self.learning_rate, minimum=0.0, exclusive=True)
        if self.clip_norm is not None:
            require_real("clip_norm", self.clip_norm, minimum=0.0, exclusive=True)


def change_network(subject: R, **changes: object) -> R:
    """Return the recipe `subject` with fields of its network replaced."""
    return replace(subject, network=replace(subject.network, **changes))


def change_by_name(
    subject: R, names: Sequence[str], changes: Mapping[str, Callable[[R], R]], *, argument: str
) -> R:
    """Return `subject` with the named changes made, in the order of `changes`.

    Raises ValueError for a name that `changes` lacks, and calls it an entry of `argument`.
    """
    for k, name in enumerate(require_sequence(argument, names, of="names", empty=True)):
        require_choice(f"{argument}[{k}]", name, changes)
    for name, change in changes.items():
        subject = change(subject) if name in names else subject
    return subject


def treat_patients(
    patients: Sequence[str], cures: Sequence[str], *, known: Mapping[str, R],
    changes: Mapping[str, Callable[[R], R]],
) -> dict[tuple[str, str], R]:  # fmt: skip
    """Return the recipe of every patient, untreated (the cure "") and given each of the cures.

    Arguments:
        patients: keys of `known`.
        cures: keys of `changes`; several of them joined by " + " for a combination.
    """
    treated = {}
    for k, patient in enumerate(require_sequence("patients", patients, of="patients")):
        recipe = known[require_choice(f"patients[{k}]", patient, known)]
        for k, cure in enumerate(("", *require_sequence("cures", cures, of="cures"))):
            names = require_type(f"cures[{k - 1}]", cure, str).split(" + ") if k else ()
            treated[patient, cure] = change_by_name(recipe, names, changes, argument="cures")
    return treated


def measure_groups(
    recipes: Mapping[Hashable, R], *, structure: Callable[[R], Hashable],
    measure: Callable[[list[R]], list[CureTrial]],
) -> dict[Hashable, CureTrial]:  # fmt: skip
    """Return the trial of every recipe; equal recipes are measured once, equal structures together.

    NumPy's matrix products run on one thread meanwhile: of matrices as small as these, more threads
    only wait for each other, and each count of them may round otherwise.

    Arguments:
        recipes: label -> recipe.
        structure: what recipes must have in common to share an ensemble.
        measure: recipes of one structure -> their trials.
    """
    groups: dict[Hashable, list[R]] = {}
    for recipe in dict.fromkeys(recipes.values()):  # a cure may leave a recipe as it is
        groups.setdefault(structure(recipe), []).append(recipe)
    done: dict[R, CureTrial] = {}
    with threadpool_limits(limits=1, user_api="blas"):
        for group in groups.values():
            for k in range(0, len(group), GROUP):
                done |= zip(group[k : k + GROUP], measure(group[k : k + GROUP]), strict=True)
    return {label: done[recipe] for label, recipe in recipes.items()}


def split_trials(fields: Mapping[str, np.ndarray], count: int) -> list[CureTrial]:
    """Return one trial for every `count` networks, from fields of all of them, shape (S,) each."""
    starts = range(0, len(fields["accuracies"]), count)
    return [CureTrial(**{name: f[k : k + count] for name, f in fields.items()}) for k in starts]


def network_norms(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return each network's norm of several arrays (S, ...) together, shape (S,)."""
    return np.sqrt(np.sum([np.sum(a**2, axis=tuple(range(1, a.ndim))) for a in arrays], axis=0))


def draw_seed_batches(
    count: int, *, batch_size: int, steps: int, seeds: Sequence[int]
) -> Iterator[np.ndarray]:
    """Return an iterator over `steps` arrays of indices, (seeds, batch_size): each seed's batch."""
    options = {"batch_size": batch_size, "steps": steps}
    return map(np.stack, zip(*(draw_batches(count, seed=s, **options) for s in seeds), strict=True))


def train_side_by_side(
    recipes: Sequence[TrainedNetwork], parameters: list[np.ndarray],
    find_grads: Callable[[np.ndarray], list[np.ndarray] | None], batches: Iterable[np.ndarray],
) -> None:  # fmt: skip
    """Train S networks in place, one update for each of `batches`.

    Arguments:
        recipes: each network's, S in all. Limits may differ, and with SGD the learning rates.
        parameters: float64 arrays of shape (S, rows, columns).
        find_grads: what returns the gradients of `parameters` on one of `batches`; it may return
            None to end the training.
    """
    rates = np.array([recipe.learning_rate for recipe in recipes]).reshape(-1, 1, 1)
    adam = Adam(recipes[0].learning_rate) if recipes[0].optimizer == "adam" else None
    clipped = [k for k, recipe in enumerate(recipes) if recipe.clip_norm is not None]
    limits = np.array([recipes[k].clip_norm for k in clipped])
    for rows in batches:
        grads = find_grads(rows)
        if grads is None:
            break
        if clipped:
            factors = np.minimum(1.0, limits / network_norms([g[clipped] for g in grads]))
            for grad in grads:
                grad[clipped] *= factors.reshape(-1, 1, 1)
        if adam is not None:
            adam.update(parameters, grads)
            continue
        for parameter, grad in zip(parameters, grads, strict=True):
            parameter -= rates * grad
