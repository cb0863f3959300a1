r"""Cures as changes of a recipe, patients with one pathology each, and what a cure does to them.

A *recipe* is a network and the way it is trained, as data. A *cure* changes the recipe: another
activation, another law of the weights, a limit on the gradient. A *trial* is what a recipe does on
several seeds, and it is measured twice, because the two can disagree: how gradients flow before
the first update, and the accuracy on unseen digits after training. Everything runs in float64
NumPy on `course_lib.reference.ensemble`, all seeds at once.
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
from course_lib.activations import get_activation
from course_lib.cure_results import CureTable, CureTrial
from course_lib.data import DigitsSplit, draw_batches
from course_lib.recording import OPTIMIZERS
from course_lib.reference.ensemble import Ensemble, build_ensemble, ensemble_loss
from course_lib.reference.training import Adam
from course_lib.specs import NetworkSpec, draw_weights
from course_lib.stack_specs import NORMS

GUESSING = 0.1
"""The accuracy of a guess among ten digits; what a network counts for that is not finite."""
FLOW_INPUTS = 512
"""How many of the training digits the network is looked at with before training."""


@dataclass(frozen=True)
class Recipe:
    """A network and how it is trained: everything that a cure can change.

    Arguments:
        network: shape, activation, law and scale of the weights, bias.
        norm: "none", "batch" or "layer", before every hidden activation.
        shortcut: whether the hidden layers from the second on add their input.
        optimizer: "sgd" or "adam".
        learning_rate: > 0.
        clip_norm: limit on the global norm of the gradient, > 0; None for no clipping.
        weight_decay: its product with each matrix is added to the gradient, >= 0.
    """

    network: NetworkSpec
    norm: str = "none"
    shortcut: bool = False
    optimizer: str = "sgd"
    learning_rate: float = 0.1
    clip_norm: float | None = None
    weight_decay: float = 0.0

    def __post_init__(self) -> None:
        require_type("network", self.network, NetworkSpec)
        require_choice("norm", self.norm, NORMS)
        require_flag("shortcut", self.shortcut)
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require_real("learning_rate", self.learning_rate, minimum=0.0, exclusive=True)
        if self.clip_norm is not None:
            require_real("clip_norm", self.clip_norm, minimum=0.0, exclusive=True)
        require_real("weight_decay", self.weight_decay, minimum=0.0)


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


def _change_network(recipe: Recipe, **changes: object) -> Recipe:
    return replace(recipe, network=replace(recipe.network, **changes))


def _initialize(recipe: Recipe) -> Recipe:
    rectifier = recipe.network.activation in ("relu", "leaky_relu")
    init = "he_normal" if rectifier else "glorot_normal"
    return _change_network(recipe, init=init, gain=1.0, bias=0.0)


CURES: MappingProxyType[str, Callable[[Recipe], Recipe]] = MappingProxyType({
    "ReLU": lambda r: _change_network(r, activation="relu"),
    "leaky ReLU": lambda r: _change_network(r, activation="leaky_relu"),
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
    names = [] if len(cures) == 0 else require_sequence("cures", cures, of="names of cures")
    for k, name in enumerate(names):
        require_choice(f"cures[{k}]", name, CURES)
    for name, change in CURES.items():
        recipe = change(recipe) if name in names else recipe
    return recipe


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
        batch_size: digits per update, drawn without replacement within an epoch.
    """
    network = require_type("recipe", recipe, Recipe).network
    require_type("data", data, DigitsSplit)
    require_sequence("seeds", seeds, of="seeds")
    seeds = [require_seed(seed, name=f"seeds[{k}]") for k, seed in enumerate(seeds)]
    weights = [draw_weights(network, seed=seed) for seed in seeds]
    model = build_ensemble(network, weights, norm=recipe.norm, shortcut=recipe.shortcut)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        flow = _measure_flow(model, data)
        batches = zip(
            *(draw_batches(len(data.x_train), batch_size=batch_size,
                           steps=require_integer("steps", steps, minimum=0), seed=seed)
              for seed in seeds), strict=True,
        )  # fmt: skip
        _train(model, recipe, data, batches)
        outputs = model.forward(data.x_test, training=False).activations[-1]
    right = (outputs.argmax(axis=2) == data.y_test).mean(axis=1)
    finite = np.isfinite(outputs).all(axis=(1, 2))
    return CureTrial(**flow, accuracies=np.where(finite, right, GUESSING), finite=finite)


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
    f = get_activation(model.spec.activation)
    slopes = [np.abs(f.derivative(passed.preactivations[k])) for k in hidden]
    layer_norms = np.array([_norms([g]) for g in grads[: model.spec.depth]])
    return {
        "decades": np.log10(_norms([states[0]])) - np.log10(_norms([states[-2]])),
        "dead_shares": np.mean([(s == 0).all(axis=1).mean(axis=1) for s in slopes], axis=0),
        "slope_shares": np.mean([s.mean(axis=(1, 2)) for s in slopes], axis=0) / f.supremum,
        "zero_shares": np.mean(
            [(f.function(passed.preactivations[k]) == 0).mean(axis=(1, 2)) for k in hidden], axis=0
        ),
        "grad_norms": _norms(grads),
        "smallest_grad_norms": layer_norms.min(axis=0),
        "weight_scales": np.mean([m.std(axis=(1, 2)) for m in model.matrices[1:-1]], axis=0),
    }


def _norms(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """Return each network's norm of several arrays (S, ...) together, shape (S,)."""
    return np.sqrt(np.sum([np.sum(a**2, axis=tuple(range(1, a.ndim))) for a in arrays], axis=0))


def _train(model: Ensemble, recipe: Recipe, data: DigitsSplit, batches: object) -> None:
    """Train in place, one update per entry of `batches`, each S arrays of indices."""
    adam = Adam(recipe.learning_rate) if recipe.optimizer == "adam" else None
    for rows in map(np.stack, batches):
        passed = model.forward(data.x_train[rows], training=True)
        output_grad = ensemble_loss(passed.activations[-1], data.y_train[rows])
        if not np.isfinite(output_grad).any():
            break  # no network is finite any more
        grads = model.backward(passed, output_grad)[0]
        for k, matrix in enumerate(model.matrices if recipe.weight_decay else ()):
            grads[k] = grads[k] + recipe.weight_decay * matrix
        if recipe.clip_norm is not None:
            factors = np.minimum(1.0, recipe.clip_norm / _norms(grads))
            grads = [g * factors.reshape(-1, *[1] * (g.ndim - 1)) for g in grads]
        if adam is not None:
            adam.update(model.parameters, grads)
            continue
        for parameter, grad in zip(model.parameters, grads, strict=True):
            parameter -= recipe.learning_rate * grad


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
    trials: dict[tuple[str, str], CureTrial] = {}
    done: dict[Recipe, CureTrial] = {}  # a cure may leave a recipe as it is
    for k, patient in enumerate(require_sequence("patients", patients, of="patients")):
        recipe = PATIENTS[require_choice(f"patients[{k}]", patient, PATIENTS)]
        for cure in ("", *require_sequence("cures", cures, of="cures")):
            treated = apply_cures(recipe, cure.split(" + ") if cure else ())
            if treated not in done:
                done[treated] = measure_trial(treated, data, seeds=seeds, steps=steps)
            trials[patient, cure] = done[treated]
    return CureTable(tuple(patients), tuple(cures), MappingProxyType(trials))
