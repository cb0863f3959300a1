"""Which activations learn from far below zero: a hidden layer that begins with biases of -k.

One hidden layer on the digits, in float64 NumPy, under each variant of ReLU. With k large enough
every unit is dead, if it is a ReLU. Two things are recorded that are easily confused: whether the
network learns, and whether its units come back above zero.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_choice, require_integer, require_real, require_seed
from course_lib.activations import LEAKY_SLOPE, ArrayFunction, get_activation
from course_lib.data import CLASSES, DigitsSplit, draw_batches
from course_lib.initialization import draw_matrix
from course_lib.losses import evaluate_loss
from course_lib.recording import check_digits

VARIANTS = {
    "ReLU": ("relu", None, None),
    "leaky 0.01": ("leaky_relu", LEAKY_SLOPE, None),
    "leaky 0.3": ("leaky_relu", 0.3, None),
    "PReLU 0.25 shared": ("leaky_relu", 0.25, "shared"),
    "PReLU 0 per unit": ("leaky_relu", 0.0, "per unit"),
    "ELU": ("elu", None, None),
    "softplus": ("softplus", None, None),
    "SiLU": ("silu", None, None),
    "GELU": ("gelu", None, None),
}
"""Label -> activation, slope below 0 (if it is a leaky one), and how that slope is learned.

0.01 and "PReLU 0.25 shared" are PyTorch's defaults, 0.3 and "PReLU 0 per unit" Keras's.
"""


@dataclass(frozen=True, eq=False)
class ShiftedTraining:
    """What became of a hidden layer that began with all its biases at -k.

    Fields:
        variant: a key of `VARIANTS`.
        depth: k.
        steps: the steps after which the rows below were recorded, shape (R,).
        accuracies: on the test set, shape (R,).
        active_shares: fraction of the units with z > 0 on some training input, shape (R,).
        slopes: the learned slopes at the end, shape (1,) or (units,); empty if none is learned.
    """

    variant: str
    depth: float
    steps: np.ndarray
    accuracies: np.ndarray
    active_shares: np.ndarray
    slopes: np.ndarray = field(repr=False)

    def steps_to(self, accuracy: float) -> float:
        """Return the first recorded step with at least this accuracy, 0 to 1; inf if none has."""
        accuracy = require_real("accuracy", accuracy, minimum=0.0, maximum=1.0)
        reached = np.flatnonzero(self.accuracies >= accuracy)
        return float(self.steps[reached[0]]) if len(reached) else float("inf")

    def describe(self) -> str:
        """Say the accuracy and the share of units that ever fire, before and after."""
        return (
            f"{self.variant}, biases from {-self.depth:g}: accuracy {self.accuracies[-1]:.2f} "
            f"after {self.steps[-1]} steps; units that fire at all: "
            f"{100 * self.active_shares[0]:.0f} % at first, {100 * self.active_shares[-1]:.0f} % "
            f"at last."
        )


def draw_shifted_layer(width: int, depth: float, *, seed: int) -> tuple[np.ndarray, ...]:
    """Return He's $W_1$ (width, 64) and $W_2$ (10, width), and $b_1 = (-k, ..., -k)$."""
    width = require_integer("width", width, minimum=1)
    rng = np.random.default_rng(require_seed(seed))
    first = draw_matrix("he_normal", fan_in=64, fan_out=width, rng=rng)
    second = draw_matrix("he_normal", fan_in=width, fan_out=10, rng=rng)
    return first, second, np.full(width, -require_real("depth", depth))


def train_shifted(
    data: DigitsSplit, variant: str, depth: float, *, width: int = 32, learning_rate: float = 0.05,
    steps: int = 800, batch_size: int = 64, record_every: int = 50, seed: int,
) -> ShiftedTraining:  # fmt: skip
    """Train one hidden layer on the digits by SGD, from biases of -`depth`.

    Arguments:
        data: from `course_lib.data.load_digits_split`.
        variant: a key of `VARIANTS`.
        depth: k >= 0.
        width, learning_rate, steps, batch_size, record_every: of the training.
        seed: of the weights; the batches are drawn from it too.
    """
    activation, slope, learned = VARIANTS[require_choice("variant", variant, VARIANTS)]
    depth = require_real("depth", depth, minimum=0.0)
    rate = require_real("learning_rate", learning_rate, minimum=0.0, exclusive=True)
    batch_size = check_digits(data, batch_size, n_in=64, n_out=CLASSES, batch_norm=False)
    w1, w2, b1 = draw_shifted_layer(width, depth, seed=seed)
    b2, a = np.zeros(10), None
    if slope is not None:
        a = np.full(width if learned == "per unit" else 1, slope)
    f, f_slope = _functions(activation, a)
    steps = require_integer("steps", steps, minimum=1)
    record_every = require_integer("record_every", record_every, minimum=1)
    rows = []
    batches = draw_batches(len(data.x_train), batch_size=batch_size, steps=steps + 1, seed=seed)
    for step, batch in enumerate(batches):
        if step % record_every == 0 or step == steps:
            outputs = f(data.x_test @ w1.T + b1) @ w2.T + b2
            fires = (data.x_train @ w1.T + b1).max(axis=0) > 0
            rows.append((step, np.mean(outputs.argmax(axis=1) == data.y_test), fires.mean()))
        if step == steps:
            break
        x = data.x_train[batch]
        z = x @ w1.T + b1
        h = f(z)
        _, output_grad = evaluate_loss(h @ w2.T + b2, data.y_train[batch], loss="cross_entropy")
        h_grad = output_grad @ w2
        delta = h_grad * f_slope(z)
        w2 -= rate * output_grad.T @ h
        b2 -= rate * output_grad.sum(axis=0)
        w1 -= rate * delta.T @ x
        b1 -= rate * delta.sum(axis=0)
        if learned is not None:
            per_unit = (h_grad * np.minimum(z, 0.0)).sum(axis=0)
            a -= rate * (per_unit if learned == "per unit" else per_unit.sum())
    at, scores, shares = (np.array(column) for column in zip(*rows, strict=True))
    slopes = np.zeros(0) if learned is None else a
    return ShiftedTraining(variant, depth, at, scores, shares, slopes)


def _functions(name: str, slopes: np.ndarray | None) -> tuple[ArrayFunction, ArrayFunction]:
    """Return f and f'; with `slopes`, the leaky ReLU that has them (they may change in place)."""
    if slopes is None:
        return get_activation(name).function, get_activation(name).derivative
    return (lambda z: np.where(z > 0, z, slopes * z), lambda z: np.where(z > 0, 1.0, slopes))
