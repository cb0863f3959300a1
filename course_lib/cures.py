r"""Cures as changes of a recipe, patients with one pathology each, and what a cure does to them.

A *recipe* is a network and the way it is trained, as data. A *cure* changes the recipe: another
activation, another law of the weights, a limit on the gradient. A *trial* is what a recipe does on
several seeds, and it is measured twice, because the two can disagree: how gradients flow before
the first update, and the accuracy on unseen digits after training. Everything runs in float64
NumPy on `course_lib.reference.ensemble`, all seeds at once.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

import numpy as np

from course_lib._validation import (
    require_integer,
    require_labelled,
    require_real,
    require_seeds,
    require_type,
)
from course_lib.activations import get_activation
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
from course_lib.data import DigitsSplit
from course_lib.recording import check_digits
from course_lib.reference.ensemble import Ensemble, build_ensemble, ensemble_loss
from course_lib.specs import NetworkSpec, draw_weights
from course_lib.stack_specs import NORMS

GUESSING = 0.1
"""The accuracy of a guess among ten digits; what a network counts for that is not finite."""
FLOW_INPUTS = 256
"""How many of the training digits the network is looked at with before training."""


@dataclass(frozen=True)
class Recipe(TrainedNetwork):
    """A network and how it is trained: everything that a cure can change.

    Arguments:
        network: shape, activation, law and scale of the weights, bias; at least 3 layers, so that
            a gradient flows from one hidden layer to another.
        norm: "none", "batch" or "layer", before every hidden activation.
        shortcut: whether the hidden layers from the second on add their input.
        optimizer: "sgd" or "adam".
        learning_rate: > 0.
        clip_norm: limit on the global norm of the gradient, > 0; None for no clipping.
        weight_decay: its product with each matrix is added to the gradient, >= 0.
    """

    NETWORK = NetworkSpec
    NORMS = NORMS

    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.network.depth < 3:
            raise ValueError(f"`network` (depth {self.network.depth}) must have at least 3 layers.")
        require_real("weight_decay", self.weight_decay, minimum=0.0)


def check_trial(
    recipe: object, data: object, *, steps: object, batch_size: object
) -> tuple[int, int]:
    """Return the checked steps and batch size of a trial of `recipe` on `data`."""
    network = require_type("recipe", recipe, Recipe).network
    batch_size = check_digits(
        data, batch_size, n_in=network.n_in, n_out=network.n_out,
        batch_norm=recipe.norm == "batch",
    )  # fmt: skip
    return require_integer("steps", steps, minimum=0), batch_size


def _digits_network(**options: object) -> NetworkSpec:
    return NetworkSpec(n_in=64, width=24, n_out=10, **options)


PATIENTS = MappingProxyType({
    "vanishing": Recipe(_digits_network(depth=10, activation="sigmoid", init="glorot_uniform")),
    "exploding": Recipe(_digits_network(depth=10, activation="relu", init="he_normal", gain=3.0)),
    "dead": Recipe(_digits_network(depth=6, activation="relu", init="he_normal", bias=-2.0)),
    "saturated": Recipe(_digits_network(depth=10, activation="tanh", init="glorot_normal",
                                        gain=5.0)),
})  # fmt: skip
"""One network for each pathology: the ten sigmoid layers of Lecture 3 on digits, ReLU layers with
three times He's weights, ReLU layers with biases of -2, tanh layers with five times Glorot's."""


def _initialize(recipe: Recipe) -> Recipe:
    rectifier = recipe.network.activation in ("relu", "leaky_relu")
    init = "he_normal" if rectifier else "glorot_normal"
    return change_network(recipe, init=init, gain=1.0, bias=0.0)


CURES: MappingProxyType[str, Callable[[Recipe], Recipe]] = MappingProxyType({
    "ReLU": lambda r: change_network(r, activation="relu"),
    "leaky ReLU": lambda r: change_network(r, activation="leaky_relu"),
    "He / Xavier": _initialize,
    "batch norm": lambda r: replace(r, norm="batch"),
    "layer norm": lambda r: replace(r, norm="layer"),
    "shortcuts": lambda r: replace(r, shortcut=True),
    "clip to 1": lambda r: replace(r, clip_norm=1.0),
    "rate / 10": lambda r: replace(r, learning_rate=r.learning_rate / 10),
    "decay 1e-5": lambda r: replace(r, weight_decay=1e-5),
    "Adam": lambda r: replace(r, optimizer="adam", learning_rate=1e-2),
})  # fmt: skip
"""The lectures' cures by name, and Adam. "He / Xavier" draws He's weights for ReLU and leaky ReLU
and Glorot's for the others, with zero biases, so it comes after a change of activation."""


def apply_cures(recipe: Recipe, cures: Sequence[str]) -> Recipe:
    """Return the recipe changed by the named cures, in the order of `CURES`."""
    require_type("recipe", recipe, Recipe)
    return change_by_name(recipe, cures, CURES, argument="cures")


def measure_trial(
    recipe: Recipe, data: DigitsSplit, *, seeds: Sequence[int], steps: int = 150,
    batch_size: int = 32,
) -> CureTrial:  # fmt: skip
    """Measure a recipe before its first update and after training on the digits.

    Arguments:
        recipe: the network and how it is trained.
        data: from `course_lib.data.load_digits_split`.
        seeds: at least one; each draws the weights and the batches of one network.
        steps: number of updates, at least 0.
        batch_size: digits per update, drawn without replacement within an epoch; at least 1, and
            2 with batch normalization.
    """
    recipes = {"": require_type("recipe", recipe, Recipe)}
    return measure_trials(recipes, data, seeds=seeds, steps=steps, batch_size=batch_size)[""]


def measure_trials(
    recipes: Mapping[Hashable, Recipe], data: DigitsSplit, *, seeds: Sequence[int],
    steps: int = 150, batch_size: int = 32,
) -> dict[Hashable, CureTrial]:  # fmt: skip
    """Measure several recipes, label -> recipe; a trial is what it is when measured alone.

    Arguments: as for `measure_trial`.
    """
    require_labelled("recipes", recipes, Recipe)
    seeds = require_seeds(seeds)
    for recipe in recipes.values():
        check_trial(recipe, data, steps=steps, batch_size=batch_size)

    def measure(group: list[Recipe]) -> list[CureTrial]:
        batches = draw_seed_batches(
            len(data.x_train), batch_size=batch_size, steps=steps, seeds=seeds
        )
        return _measure_group(group, data, seeds, batches)

    by_activation = sorted(recipes.items(), key=lambda pair: pair[1].network.activation)
    done = measure_groups(dict(by_activation), structure=_structure, measure=measure)
    return {label: done[label] for label in recipes}


def _structure(recipe: Recipe) -> tuple:
    """Return what recipes must share to be one ensemble: not weights, activation and steps."""
    spec, adam = recipe.network, recipe.optimizer == "adam"
    shape = (spec.n_in, spec.width, spec.depth, spec.n_out, spec.activations[-1])
    return *shape, recipe.norm, recipe.shortcut, recipe.learning_rate if adam else None


def _measure_group(
    recipes: list[Recipe], data: DigitsSplit, seeds: list[int], batches: Iterable
) -> list[CureTrial]:
    """Measure recipes of one structure; `batches` holds, for each update, one batch per seed."""
    first = recipes[0]
    weights = [draw_weights(recipe.network, seed=seed) for recipe in recipes for seed in seeds]
    model = build_ensemble(
        first.network, weights, norm=first.norm, shortcut=first.shortcut,
        hidden_activations=[recipe.network.activation for recipe in recipes for _ in seeds],
    )  # fmt: skip
    decays = np.repeat([recipe.weight_decay for recipe in recipes], len(seeds)).reshape(-1, 1, 1)

    def find_grads(rows: np.ndarray) -> list[np.ndarray] | None:
        rows = np.tile(rows, (len(recipes), 1))
        passed = model.forward(data.x_train[rows], training=True)
        output_grad = ensemble_loss(passed.activations[-1], data.y_train[rows])
        if not np.isfinite(output_grad).any():
            return None  # no network is finite any more
        grads = model.backward(passed, output_grad)[0]
        for k, matrix in enumerate(model.matrices if decays.any() else ()):
            grads[k] += decays * matrix
        return grads

    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        fields = _measure_flow(model, data)
        networks = [recipe for recipe in recipes for _ in seeds]
        train_side_by_side(networks, model.parameters, find_grads, batches)
        outputs = model.forward(data.x_test, training=False).activations[-1]
    right = (outputs.argmax(axis=2) == data.y_test).mean(axis=1)
    fields["finite"] = np.isfinite(outputs).all(axis=(1, 2))
    fields["accuracies"] = np.where(fields["finite"], right, GUESSING)
    return split_trials(fields, len(seeds))


def _measure_flow(model: Ensemble, data: DigitsSplit) -> dict[str, np.ndarray]:
    """Return the fields of a `CureTrial` that describe the network before training.

    On `FLOW_INPUTS` training digits. Running averages of a normalization are left as they were.
    """
    kept = [vars(norm).copy() for norm in model.norms]
    passed = model.forward(data.x_train[:FLOW_INPUTS], training=True)
    for norm, fields in zip(model.norms, kept, strict=True):
        vars(norm).update(fields)
    labels = np.tile(data.y_train[:FLOW_INPUTS], (model.size, 1))
    grads, states = model.backward(passed, ensemble_loss(passed.activations[-1], labels))
    hidden = range(model.spec.depth - 1)
    slopes = [np.abs(passed.slopes[k]) for k in hidden]
    zeros = [passed.values[k] == 0 for k in hidden]
    largest = [get_activation(name).supremum for name in model.hidden_activations]
    layer_norms = np.array([network_norms([g]) for g in grads[: model.spec.depth]])
    return {
        "decades": np.log10(network_norms([states[0]])) - np.log10(network_norms([states[-2]])),
        "dead_shares": np.mean([(s == 0).all(axis=1).mean(axis=1) for s in slopes], axis=0),
        "slope_shares": np.mean([s.mean(axis=(1, 2)) for s in slopes], axis=0) / largest,
        "zero_shares": np.mean([z.mean(axis=(1, 2)) for z in zeros], axis=0),
        "grad_norms": network_norms(grads),
        "smallest_grad_norms": layer_norms.min(axis=0),
        "weight_scales": np.mean([m.std(axis=(1, 2)) for m in model.matrices[1:-1]], axis=0),
    }


def compare_cures(
    data: DigitsSplit, *, patients: Sequence[str] = tuple(PATIENTS),
    cures: Sequence[str] = tuple(CURES), seeds: Sequence[int], steps: int = 150,
) -> CureTable:  # fmt: skip
    """Try every cure on every patient, and every patient untreated, with the same seeds.

    Arguments:
        data: from `course_lib.data.load_digits_split`.
        patients: keys of `PATIENTS`.
        cures: keys of `CURES`; several of them joined by " + " for a combination.
        seeds, steps: as for `measure_trial`.
    """
    treated = treat_patients(patients, cures, known=PATIENTS, changes=CURES)
    trials = measure_trials(treated, data, seeds=seeds, steps=steps)
    return CureTable(tuple(patients), tuple(cures), MappingProxyType(trials))
