r"""Recurrent patients and their cures: the twin of `course_lib.cures` for networks in time.

The task is to name, at the end of a sequence, the symbol that was shown at its beginning
(`course_lib.tasks.recall_task`), so what counts is the gradient that comes back to the first step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from course_lib._validation import (
    require_choice,
    require_flag,
    require_integer,
    require_real,
    require_seed,
    require_sequence,
    require_type,
)
from course_lib.cure_results import CureTable, CureTrial
from course_lib.data import draw_batches
from course_lib.recording import OPTIMIZERS
from course_lib.recurrent_specs import RecurrentSpec, draw_recurrent_weights
from course_lib.reference.ensemble import ensemble_loss
from course_lib.reference.recurrent_ensemble import (
    PLAIN_CELLS,
    RecurrentEnsemble,
    build_recurrent_ensemble,
)
from course_lib.reference.training import SGD, Adam
from course_lib.tasks import SequenceTask, recall_task

GUESSING = 0.5
"""The accuracy of a guess between two symbols; what a network counts for that is not finite."""


@dataclass(frozen=True)
class RecurrentRecipe:
    """A recurrent network and how it is trained: everything that a cure can change.

    Arguments:
        network: cell, shape, laws and scales of the weights, biases.
        norm: "none", or "layer" in a plain cell.
        shortcut: whether a plain cell adds its old state.
        optimizer: "sgd" or "adam".
        learning_rate: > 0.
        clip_norm: limit on the global norm of the gradient, > 0; None for no clipping.
        lag: how many steps before the end the symbol is shown; it comes first.
    """

    network: RecurrentSpec
    norm: str = "none"
    shortcut: bool = False
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    clip_norm: float | None = None
    lag: int = 60

    def __post_init__(self) -> None:
        require_type("network", self.network, RecurrentSpec)
        require_choice("norm", self.norm, ("none", "layer"))
        require_flag("shortcut", self.shortcut)
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require_real("learning_rate", self.learning_rate, minimum=0.0, exclusive=True)
        if self.clip_norm is not None:
            require_real("clip_norm", self.clip_norm, minimum=0.0, exclusive=True)
        require_integer("lag", self.lag, minimum=1)


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


def _change_network(recipe: RecurrentRecipe, **changes: object) -> RecurrentRecipe:
    return replace(recipe, network=replace(recipe.network, **changes))


def _gate(recipe: RecurrentRecipe, **changes: object) -> RecurrentRecipe:
    """Another cell, drawn anew: blocks of gates cannot inherit the law of a plain matrix."""
    fresh = {"recurrent_init": "orthogonal", "gain": 1.0, "bias": 0.0}
    return _change_network(recipe, **fresh, **changes)


RECURRENT_CURES: MappingProxyType[str, Callable] = MappingProxyType({
    "ReLU": lambda r: _change_network(r, cell="relu_rnn"),
    "orthogonal": lambda r: _change_network(r, recurrent_init="orthogonal", gain=1.0, bias=0.0),
    "identity": lambda r: _change_network(r, recurrent_init="identity", gain=1.0, bias=0.0),
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
    names = [] if len(cures) == 0 else require_sequence("cures", cures, of="names of cures")
    for k, name in enumerate(names):
        require_choice(f"cures[{k}]", name, RECURRENT_CURES)
    for name, change in RECURRENT_CURES.items():
        recipe = change(recipe) if name in names else recipe
    return recipe


def measure_recurrent_trial(
    recipe: RecurrentRecipe, *, seeds: Sequence[int], steps: int = 100,
    batch_size: int = 16, sequences: int = 128,
) -> CureTrial:  # fmt: skip
    """Measure a recipe before its first update and after training to recall a symbol.

    Arguments:
        recipe: the network and how it is trained.
        seeds: at least one; each draws the weights, the sequences and the batches of one network.
        steps: number of updates, at least 0.
        batch_size, sequences: per update, and in each of the two sets for training and testing.
    """
    options = {"steps": steps, "batch_size": batch_size, "sequences": sequences}
    return _measure_group([require_type("recipe", recipe, RecurrentRecipe)], seeds, **options)[0]


def _measure_group(
    recipes: Sequence[RecurrentRecipe], seeds: Sequence[int], *, steps: int, batch_size: int,
    sequences: int,
) -> list[CureTrial]:  # fmt: skip
    """Measure recipes that differ only in what is drawn, all networks in one ensemble."""
    recipe = recipes[0]
    require_sequence("seeds", seeds, of="seeds")
    seeds = [require_seed(seed, name=f"seeds[{k}]") for k, seed in enumerate(seeds)]
    steps = require_integer("steps", steps, minimum=0)
    weights = [draw_recurrent_weights(r.network, seed=seed) for r in recipes for seed in seeds]
    model = build_recurrent_ensemble(
        recipe.network, weights, norm=recipe.norm, shortcut=recipe.shortcut
    )
    train, test = (
        [recall_task(sequences, lag=recipe.lag, seed=2 * seed + part) for seed in seeds]
        * len(recipes)
        for part in (0, 1)
    )
    batches = [
        draw_batches(sequences, batch_size=batch_size, steps=steps, seed=seed)
        for seed in [*seeds] * len(recipes)
    ]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        fields = _measure_flow(model, train)
        _train(model, recipe, train, batches)
        outputs = model.forward(np.stack([task.x for task in test])).outputs
    right = (outputs.argmax(axis=2) == np.stack([task.y for task in test])).mean(axis=1)
    fields["finite"] = np.isfinite(outputs).all(axis=(1, 2))
    fields["accuracies"] = np.where(fields["finite"], right, GUESSING)
    count = len(seeds)
    return [
        CureTrial(**{name: values[k * count : (k + 1) * count] for name, values in fields.items()})
        for k in range(len(recipes))
    ]


def _measure_flow(model: RecurrentEnsemble, tasks: list[SequenceTask]) -> dict[str, np.ndarray]:
    """Return the fields of a `CureTrial` that describe the network before training."""
    x, y = np.stack([task.x for task in tasks]), np.stack([task.y for task in tasks])
    passed = model.forward(x)
    grads, states = model.backward(passed, ensemble_loss(passed.outputs, y))
    norms = {name: np.sqrt(np.sum(g**2, axis=(1, 2))) for name, g in grads.items()}
    first, last = (np.sqrt(np.sum(s**2, axis=(1, 2))) for s in (states[0], states[-1]))
    slopes, zeros = np.full((1, model.size, 1, 1), np.nan), np.zeros((1, model.size, 1, 1))
    if model.cell in PLAIN_CELLS:
        shape = (model.size, x.shape[1], -1)
        slopes = np.stack([done.slope.reshape(shape) for done in passed.steps])
        zeros = np.stack([done.hidden.reshape(shape) == 0 for done in passed.steps])
    return {
        "decades": np.log10(first) - np.log10(last),
        "dead_shares": (slopes == 0).all(axis=(0, 2)).mean(axis=1),
        "slope_shares": slopes.mean(axis=(0, 2, 3)),  # both activations have slopes up to 1
        "zero_shares": zeros.mean(axis=(0, 2, 3)),
        "grad_norms": np.sqrt(np.sum([n**2 for n in norms.values()], axis=0)),
        "smallest_grad_norms": np.min([norms[n] for n in ("w_xh", "w_hh", "w_hy")], axis=0),
        "weight_scales": model.arrays["w_hh"].std(axis=(1, 2)),
    }


def _train(
    model: RecurrentEnsemble, recipe: RecurrentRecipe, tasks: list[SequenceTask], batches: list
) -> None:
    rule = (Adam if recipe.optimizer == "adam" else SGD)(recipe.learning_rate)
    for rows in zip(*batches, strict=True):
        pairs = list(zip(tasks, rows, strict=True))
        passed = model.forward(np.stack([task.x[r] for task, r in pairs]))
        output_grad = ensemble_loss(passed.outputs, np.stack([task.y[r] for task, r in pairs]))
        if not np.isfinite(output_grad).any():
            break  # no network is finite any more
        grads = model.backward(passed, output_grad)[0]
        if recipe.clip_norm is not None:
            squares = [np.sum(g**2, axis=(1, 2)) for g in grads.values()]
            factors = np.minimum(1.0, recipe.clip_norm / np.sqrt(np.sum(squares, axis=0)))
            grads = {name: g * factors[:, None, None] for name, g in grads.items()}
        rule.update(list(model.arrays.values()), list(grads.values()))


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
    treated: dict[tuple[str, str], RecurrentRecipe] = {}
    for k, patient in enumerate(require_sequence("patients", patients, of="patients")):
        require_choice(f"patients[{k}]", patient, RECURRENT_PATIENTS)
        for cure in ("", *require_sequence("cures", cures, of="cures")):
            names = cure.split(" + ") if cure else ()
            treated[patient, cure] = apply_recurrent_cures(RECURRENT_PATIENTS[patient], names)
    groups: dict[RecurrentRecipe, list[RecurrentRecipe]] = {}
    for recipe in dict.fromkeys(treated.values()):
        groups.setdefault(_structure(recipe), []).append(recipe)
    done: dict[RecurrentRecipe, CureTrial] = {}
    standing = {"steps": 100, "batch_size": 16, "sequences": 128}
    for group in groups.values():
        done |= zip(group, _measure_group(group, seeds, **standing | options), strict=True)
    trials = {key: done[recipe] for key, recipe in treated.items()}
    return CureTable(tuple(patients), tuple(cures), MappingProxyType(trials))


def _structure(recipe: RecurrentRecipe) -> RecurrentRecipe:
    """Return the recipe without what is only drawn: equal structures can share an ensemble."""
    spec = recipe.network
    plain = RecurrentSpec(n_in=spec.n_in, hidden=spec.hidden, cell=spec.cell, n_out=spec.n_out)
    return replace(recipe, network=plain)
