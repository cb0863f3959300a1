r"""Recurrent patients and their cures: the twin of `course_lib.cures` for networks in time.

The task is to name, at the end of a sequence, the symbol that was shown at its beginning
(`course_lib.tasks.recall_task`), so what counts is the gradient that comes back to the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from course_lib._validation import (
    require_batch_size,
    require_integer,
    require_seeds,
    require_type,
)
from course_lib.cure_results import CureTable, CureTrial
from course_lib.cure_trials import (
    TrainedNetwork,
    change_by_name,
    change_network,
    draw_seed_batches,
    measure_groups,
    network_norms,
    split_trials,
    train_side_by_side,
    treat_patients,
)
from course_lib.recurrent_specs import RecurrentSpec, draw_recurrent_weights
from course_lib.reference.ensemble import ensemble_loss
from course_lib.reference.recurrent_ensemble import (
    PLAIN_CELLS,
    RecurrentEnsemble,
    build_recurrent_ensemble,
)
from course_lib.tasks import recall_task

GUESSING = 0.5
"""The accuracy of a guess between two symbols; what a network counts for that is not finite."""


@dataclass(frozen=True)
class RecurrentRecipe(TrainedNetwork):
    """A recurrent network and how it is trained: everything that a cure can change.

    Arguments:
        network: cell, shape, laws and scales of the weights, biases; 2 inputs and 2 outputs, for
            the two symbols to recall.
        norm: "none", or "layer" in a plain cell.
        shortcut: whether a plain cell adds its old state.
        optimizer: "sgd" or "adam".
        learning_rate: > 0.
        clip_norm: limit on the global norm of the gradient, > 0; None for no clipping.
        lag: how many steps before the end the symbol is shown; it comes first.
    """

    NETWORK = RecurrentSpec
    NORMS = ("none", "layer")

    lag: int = 40

    def __post_init__(self) -> None:
        super().__post_init__()
        require_integer("lag", self.lag, minimum=1)
        sizes = self.network.n_in, self.network.n_out
        if sizes != (2, 2):
            raise ValueError(f"`network` (n_in {sizes[0]}, n_out {sizes[1]}) must have 2 and 2.")


def _recall_network(**options: object) -> RecurrentSpec:
    return RecurrentSpec(n_in=2, hidden=12, n_out=2, **options)


RECURRENT_PATIENTS = MappingProxyType({
    "vanishing": RecurrentRecipe(
        _recall_network(recurrent_init="normal", gain=0.05), optimizer="adam", learning_rate=0.005
    ),
    "exploding": RecurrentRecipe(
        _recall_network(cell="relu_rnn", gain=2.3), learning_rate=0.05, lag=20
    ),
    "dead": RecurrentRecipe(
        _recall_network(cell="relu_rnn", bias=-2.0), optimizer="adam", learning_rate=0.005
    ),
    "saturated": RecurrentRecipe(
        _recall_network(recurrent_init="gaussian", gain=5.0), optimizer="adam", learning_rate=0.005
    ),
})  # fmt: skip
"""One network for each pathology: tanh with recurrent weights of standard deviation 0.05, ReLU
with 2.3 times an orthogonal matrix, ReLU with biases of -2, tanh with a spectral radius near 5."""


def _gate(recipe: RecurrentRecipe, **changes: object) -> RecurrentRecipe:
    """Another cell, drawn anew: blocks of gates cannot inherit the law of a plain matrix."""
    fresh = {"recurrent_init": "orthogonal", "gain": 1.0, "bias": 0.0}
    return change_network(recipe, **fresh, **changes)


RECURRENT_CURES: MappingProxyType[str, Callable] = MappingProxyType({
    "ReLU": lambda r: change_network(r, cell="relu_rnn"),
    "orthogonal": lambda r: change_network(r, recurrent_init="orthogonal", gain=1.0, bias=0.0),
    "identity": lambda r: change_network(r, recurrent_init="identity", gain=1.0, bias=0.0),
    "LSTM": lambda r: _gate(r, cell="lstm"),
    "LSTM, bias 1": lambda r: _gate(r, cell="lstm", forget_bias=1.0),
    "GRU": lambda r: _gate(r, cell="gru"),
    "layer norm": lambda r: replace(r, norm="layer"),
    "shortcut": lambda r: replace(r, shortcut=True),
    "clip to 1": lambda r: replace(r, clip_norm=1.0),
    "rate / 10": lambda r: replace(r, learning_rate=r.learning_rate / 10),
    "Adam": lambda r: replace(r, optimizer="adam", learning_rate=0.005),
})  # fmt: skip
"""The lectures' cures for recurrent networks by name, the forget bias, and Adam."""


def apply_recurrent_cures(recipe: RecurrentRecipe, cures: Sequence[str]) -> RecurrentRecipe:
    """Return the recipe changed by the named cures, in the order of `RECURRENT_CURES`."""
    require_type("recipe", recipe, RecurrentRecipe)
    return change_by_name(recipe, cures, RECURRENT_CURES, argument="cures")


def measure_recurrent_trial(
    recipe: RecurrentRecipe, *, seeds: Sequence[int], steps: int = 100,
    batch_size: int = 16, sequences: int = 128,
) -> CureTrial:  # fmt: skip
    """Measure a recipe before its first update and after training to recall a symbol.

    Arguments:
        recipe: the network and how it is trained.
        seeds: at least one; each draws the weights, the sequences and the batches of one network.
        steps: number of updates, at least 0.
        batch_size: sequences per update, at least 1.
        sequences: how many there are in each of the two sets, for training and testing.
    """
    recipes = {"": require_type("recipe", recipe, RecurrentRecipe)}
    return _measure_trials(recipes, seeds, steps, batch_size, sequences)[""]


def _measure_trials(
    recipes: Mapping[Hashable, RecurrentRecipe], seeds: Sequence[int], steps: int = 100,
    batch_size: int = 16, sequences: int = 128,
) -> dict[Hashable, CureTrial]:  # fmt: skip
    seeds, steps = require_seeds(seeds), require_integer("steps", steps, minimum=0)
    sequences = require_integer("sequences", sequences, minimum=1)
    batch_size = require_batch_size(batch_size, count=sequences)

    def measure(group: list[RecurrentRecipe]) -> list[CureTrial]:
        batches = draw_seed_batches(sequences, batch_size=batch_size, steps=steps, seeds=seeds)
        return _measure_group(group, seeds, sequences, batches)

    return measure_groups(recipes, structure=_structure, measure=measure)


def _structure(recipe: RecurrentRecipe) -> tuple:
    """Return what recipes must have in common to share an ensemble: all but weights and steps."""
    spec, adam = recipe.network, recipe.optimizer == "adam"
    shape = (spec.n_in, spec.hidden, spec.cell, spec.n_out)
    rate = recipe.learning_rate if adam else None
    return *shape, recipe.norm, recipe.shortcut, recipe.lag, rate


def _measure_group(
    recipes: list[RecurrentRecipe], seeds: list[int], sequences: int, batches: Iterable
) -> list[CureTrial]:
    """Measure recipes of one structure; `batches` holds, for each update, one batch per seed."""
    first, count = recipes[0], len(recipes)
    weights = [draw_recurrent_weights(r.network, seed=seed) for r in recipes for seed in seeds]
    model = build_recurrent_ensemble(
        first.network, weights, norm=first.norm, shortcut=first.shortcut
    )
    (x, y), (x_test, y_test) = (
        _draw_sequences(sequences, first.lag, [2 * seed + part for seed in seeds], count)
        for part in (0, 1)
    )
    networks = np.arange(model.size)[:, None]

    def find_grads(rows: np.ndarray) -> list[np.ndarray] | None:
        rows = np.tile(rows, (count, 1))
        passed = model.forward(x[networks, rows])
        output_grad = ensemble_loss(passed.outputs, y[networks, rows])
        if not np.isfinite(output_grad).any():
            return None  # no network is finite any more
        return list(model.backward(passed, output_grad)[0].values())

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        fields = _measure_flow(model, x, y)
        each = [recipe for recipe in recipes for _ in seeds]
        train_side_by_side(each, list(model.arrays.values()), find_grads, batches)
        outputs = model.forward(x_test).outputs
    right = (outputs.argmax(axis=2) == y_test).mean(axis=1)
    fields["finite"] = np.isfinite(outputs).all(axis=(1, 2))
    fields["accuracies"] = np.where(fields["finite"], right, GUESSING)
    return split_trials(fields, len(seeds))


def _draw_sequences(
    sequences: int, lag: int, seeds: list[int], copies: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return inputs (S, n, T, 2) and labels (S, n): those of each seed, `copies` times over."""
    tasks = [recall_task(sequences, lag=lag, seed=seed) for seed in seeds] * copies
    return np.stack([task.x for task in tasks]), np.stack([task.y for task in tasks])


def _measure_flow(
    model: RecurrentEnsemble, x: np.ndarray, y: np.ndarray
) -> dict[str, np.ndarray]:
    """Return the fields of a `CureTrial` that describe the network before training."""
    passed = model.forward(x)
    grads, states = model.backward(passed, ensemble_loss(passed.outputs, y))
    slopes, zeros = np.full((1, model.size, 1, 1), np.nan), np.zeros((1, model.size, 1, 1))
    if model.cell in PLAIN_CELLS:
        shape = (model.size, x.shape[1], -1)
        slopes = np.stack([done.slope.reshape(shape) for done in passed.steps])
        zeros = np.stack([done.hidden.reshape(shape) == 0 for done in passed.steps])
    return {
        "decades": np.log10(network_norms([states[0]])) - np.log10(network_norms([states[-1]])),
        "dead_shares": (slopes == 0).all(axis=(0, 2)).mean(axis=1),
        "slope_shares": slopes.mean(axis=(0, 2, 3)),  # both activations have slopes up to 1
        "zero_shares": zeros.mean(axis=(0, 2, 3)),
        "grad_norms": network_norms(list(grads.values())),
        "smallest_grad_norms": np.min(
            [network_norms([grads[name]]) for name in ("w_xh", "w_hh", "w_hy")], axis=0
        ),
        "weight_scales": model.arrays["w_hh"].std(axis=(1, 2)),
    }


def compare_recurrent_cures(
    *, patients: Sequence[str] = tuple(RECURRENT_PATIENTS),
    cures: Sequence[str] = tuple(RECURRENT_CURES), seeds: Sequence[int], **options: int,
) -> CureTable:  # fmt: skip
    """Try every cure on every patient, and every patient untreated, with the same seeds.

    Arguments:
        patients: keys of `RECURRENT_PATIENTS`.
        cures: keys of `RECURRENT_CURES`; several of them joined by " + " for a combination.
        seeds, options: as for `measure_recurrent_trial`.
    """
    treated = treat_patients(patients, cures, known=RECURRENT_PATIENTS, changes=RECURRENT_CURES)
    trials = _measure_trials(treated, seeds, **options)
    return CureTable(tuple(patients), tuple(cures), MappingProxyType(trials))
