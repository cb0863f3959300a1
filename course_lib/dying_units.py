"""How ReLU units die: the share of a hidden layer that is dead, over learning rate and bias.

One hidden layer on the digits, in float64 NumPy. Its units' inputs never change, so that nothing
but a unit's own gradient can bring it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from course_lib._validation import require_array, require_integer, require_seeds, require_type
from course_lib.data import CLASSES, DigitsSplit
from course_lib.recording import check_digits
from course_lib.reference.mlp import MLP, accuracy, build_mlp, require_mlp
from course_lib.reference.training import train
from course_lib.specs import NetworkSpec, draw_weights
from course_lib.unit_states import classify_units


@dataclass(frozen=True, eq=False)
class DeathSweep:
    """Dead units before and after training, for each bias, learning rate and seed.

    Fields:
        biases: starting biases of the hidden layer, shape (B,).
        learning_rates: shape (R,).
        units: number of hidden units.
        before: fraction dead on the training set before training, shape (B, S).
        after: fraction dead after training, shape (B, R, S).
        accuracies: on the test set, shape (B, R, S).
    """

    biases: np.ndarray
    learning_rates: np.ndarray
    units: int
    before: np.ndarray
    after: np.ndarray
    accuracies: np.ndarray

    def describe(self) -> str:
        """Say the dead share at the smallest and the largest learning rate, for each bias."""
        parts = [
            f"{100 * after[0].mean():.0f} % to {100 * after[-1].mean():.0f} % with bias {bias:g}"
            for bias, after in zip(self.biases, self.after, strict=True)
        ]
        return (
            f"Dead units after training, from learning rate {self.learning_rates[0]:g} to "
            f"{self.learning_rates[-1]:g}: {', '.join(parts)}."
        )


def sweep_deaths(
    data: DigitsSplit, *, biases: Sequence[float], learning_rates: Sequence[float],
    width: int = 64, steps: int = 100, batch_size: int = 64, seeds: Sequence[int],
) -> DeathSweep:  # fmt: skip
    """Train one ReLU layer, He's weights, by SGD for each bias, learning rate and seed.

    Arguments:
        data: from `course_lib.data.load_digits_split`.
        biases, learning_rates, seeds: at least one of each; learning rates > 0.
        width: hidden units.
        steps, batch_size: of the training.

    Raises ValueError for an empty sequence, and if a run overflows.
    """
    biases = require_array("biases", biases, ndim=1)
    learning_rates = require_array("learning_rates", learning_rates, ndim=1)
    if learning_rates.min() <= 0.0:
        raise ValueError(f"`learning_rates` (with the entry {learning_rates.min()}) must be > 0.")
    seeds, width = require_seeds(seeds), require_integer("width", width, minimum=1)
    require_type("data", data, DigitsSplit)
    batch_size = check_digits(
        data, batch_size, n_in=data.x_train.shape[1], n_out=CLASSES, batch_norm=False
    )
    shape = (len(biases), len(learning_rates), len(seeds))
    before, after, scores = np.zeros((shape[0], shape[2])), np.zeros(shape), np.zeros(shape)
    for i, k in np.ndindex(shape[0], shape[2]):
        spec = NetworkSpec(data.x_train.shape[1], width, 2, CLASSES, "relu", init="he_normal",
                           bias=biases[i])  # fmt: skip
        weights = draw_weights(spec, seed=seeds[k])
        before[i, k] = dead_share(build_mlp(spec, weights), data.x_train)
        for j, rate in enumerate(learning_rates):
            model = build_mlp(spec, weights)
            train(model, data.x_train, data.y_train, learning_rate=rate, steps=steps,
                  batch_size=batch_size, seed=seeds[k], record_every=steps)  # fmt: skip
            after[i, j, k] = dead_share(model, data.x_train)
            scores[i, j, k] = accuracy(model, data.x_test, data.y_test)
    return DeathSweep(biases, learning_rates, width, before, after, scores)


def dead_share(model: MLP, x: np.ndarray, *, layer: int = 1) -> float:
    """Return the fraction of the units of layer 1, 2, ... of a reference MLP that are dead on x."""
    require_mlp(model)
    layer, depth = require_integer("layer", layer, minimum=1), len(model.activations)
    if layer > depth:
        raise ValueError(f"`layer` (={layer}) must be at most {depth}, the model's depth.")
    z = model.forward(x).preactivations[layer - 1]
    return float(classify_units(z, model.activations[layer - 1]).dead.mean())
