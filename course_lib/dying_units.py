"""How ReLU units die: the share of a hidden layer that is dead, over learning rate and bias.

One hidden layer on the digits, in float64 NumPy. Its units' inputs never change, so that nothing
but a unit's own gradient can bring it back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from course_lib._validation import require_integer, require_seed
from course_lib.data import DigitsSplit
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
    for name, values in (("biases", biases), ("learning_rates", learning_rates), ("seeds", seeds)):
        if len(values) == 0:
            raise ValueError(f"`{name}` (={values!r}) must not be empty.")
    shape = (len(biases), len(learning_rates), len(seeds))
    before, after, scores = np.zeros((shape[0], shape[2])), np.zeros(shape), np.zeros(shape)
    for i, k in np.ndindex(shape[0], shape[2]):
        spec = NetworkSpec(data.x_train.shape[1], width, 2, 10, "relu", init="he_normal",
                           bias=biases[i])  # fmt: skip
        weights = draw_weights(spec, seed=require_seed(seeds[k]))
        before[i, k] = dead_share(build_mlp(spec, weights), data.x_train)
        for j, rate in enumerate(learning_rates):
            model = build_mlp(spec, weights)
            train(model, data.x_train, data.y_train, learning_rate=rate, steps=steps,
                  batch_size=batch_size, seed=seeds[k], record_every=steps)  # fmt: skip
            after[i, j, k] = dead_share(model, data.x_train)
            scores[i, j, k] = accuracy(model, data.x_test, data.y_test)
    return DeathSweep(
        np.array(biases, np.float64), np.array(learning_rates, np.float64), width,
        before, after, scores,
    )  # fmt: skip


def dead_share(model: MLP, x: np.ndarray, *, layer: int = 1) -> float:
    """Return the fraction of the units of layer 1, 2, ... of a reference MLP that are dead on x."""
    require_mlp(model)
    layer = require_integer("layer", layer, minimum=1)
    z = model.forward(x).preactivations[layer - 1]
    return float(classify_units(z, model.activations[layer - 1]).dead.mean())
