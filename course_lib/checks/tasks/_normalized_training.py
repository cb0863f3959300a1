r"""The last task of the notebook `normalization_and_residuals`: two trainings, compared.

The reference trains with `course_lib.reference.normalization`. Source: ioffe2015.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from course_lib.activations import get_activation
from course_lib.checks.task import Case, Misconception, Task
from course_lib.losses import evaluate_loss
from course_lib.reference.normalization import BatchNorm, norm_backward

# --- with and without batch normalization (Lecture 3's second assignment)

WIDTH, STEPS = 12, 15
SETTINGS = (("sigmoid", 5, 1.0, 0.5, "normalized"), ("relu", 2, 2.0, 0.1, "plain"))
"""Activation, layers, gain, learning rate, and which run is made to be the better one."""


def _training_cases(rng: np.random.Generator) -> list[Case]:
    return [_draw_training(rng, *setting) for setting in SETTINGS]


def _draw_training(
    rng: np.random.Generator, activation: str, depth: int, gain: float, rate: float, better: str
) -> Case:
    """Draw data and weights until the verdict is clear, so that no rounding can turn it."""
    sizes = [6, *[WIDTH] * (depth - 1), 2]
    words = f"{depth} layers of {activation} at a learning rate of {rate:g}"
    while True:
        x = rng.normal(size=(30, 6))
        y = (x[:, 0] + x[:, 1] > 0).astype(np.int64)
        weights = [rng.normal(0.0, gain / np.sqrt(n), (m, n)) for n, m in itertools.pairwise(sizes)]
        args = (x, y, weights, activation, rate, STEPS)
        ends = {normalize: train_losses(*args, normalize=normalize) for normalize in (True, False)}
        gap = np.log(ends[False][-1] / ends[True][-1]) * (1.0 if better == "normalized" else -1.0)
        keras = train_losses(*args, normalize=True, epsilon=1e-3)
        eps_matters = np.max(np.abs(keras / ends[True] - 1.0)) > 0.02
        if gap > 0.1 and (eps_matters or better == "plain"):
            return Case(args, words)


def train_losses(
    x: np.ndarray, y: np.ndarray, weights: Sequence[np.ndarray], activation: str, rate: float,
    steps: int, *, normalize: bool, epsilon: float = 1e-5, constant_statistics: bool = False,
) -> np.ndarray:  # fmt: skip
    """Return the losses before each update and after the last, shape (steps + 1,).

    Plain SGD on the whole batch, no biases; with `normalize`, batch normalization in training mode
    before every hidden activation, whose gamma and beta learn too.
    """
    weights, f = [np.array(w) for w in weights], get_activation(activation)
    norms = [BatchNorm(len(w), epsilon=epsilon) for w in weights[:-1]] if normalize else []
    losses = []
    for _ in range(steps + 1):
        inputs, passes, shifted, h = [], [], [], x
        for k, w in enumerate(weights):
            inputs.append(h)
            z = h @ w.T
            if k < len(norms):
                passes.append(norms[k].forward(z, training=True))
                z = passes[k].output
            shifted.append(z)
            h = f.function(z)
        loss, grad = evaluate_loss(z, y, loss="cross_entropy")
        losses.append(loss)
        for k in reversed(range(len(weights))):
            if k < len(weights) - 1:
                grad = grad * f.derivative(shifted[k])
            if k < len(norms):
                passed = replace(passes[k], shared_axes=()) if constant_statistics else passes[k]
                grad, gamma_grad, beta_grad = norm_backward(passed, grad)
                norms[k].gamma = norms[k].gamma - rate * gamma_grad
                norms[k].beta = norms[k].beta - rate * beta_grad
            weight_grad, grad = grad.T @ inputs[k], grad @ weights[k]
            weights[k] = weights[k] - rate * weight_grad
    return np.array(losses)


def _compare_runs(*args, without: Callable = np.asarray, **options) -> dict:
    plain = train_losses(*args, normalize=False)
    normalized = train_losses(*args, normalize=True, **options)
    better = "normalized" if normalized[-1] < plain[-1] else "plain"
    return {"plain": without(plain), "normalized": without(normalized), "better": better}


COMPARE_RUNS = Task(
    id="normalization_and_residuals/compare_runs",
    function="compare_runs",
    title="With and without batch normalization",
    points=4,
    cases=_training_cases,
    reference=_compare_runs,
    rtol=5e-3,
    atol=0.0,
    tolerance_reason=(
        "half a percent: float32 stays within a tenth of that over these few steps, and the data "
        "are drawn such that the nearest mistake, Keras's eps, is off by at least two percent"
    ),
    misconceptions=(
        Misconception(
            "statistics held constant",
            lambda *args: _compare_runs(*args, constant_statistics=True),
            "The gradient does not flow through the batch's mean and variance here. In training "
            "mode they are functions of the weights like everything else.",
        ),
        Misconception(
            "Keras's eps",
            lambda *args: _compare_runs(*args, epsilon=1e-3),
            "This is batch normalization with eps = 0.001, Keras's default. Asked for is 1e-5.",
        ),
        Misconception(
            "one loss short",
            lambda *args: _compare_runs(*args, without=lambda losses: losses[:-1]),
            "The last loss is missing: after the last update the loss is measured once more.",
        ),
        Misconception(
            "losses after the update",
            lambda *args: _compare_runs(*args[:-1], args[-1] + 1, without=lambda r: r[1:]),
            "The first loss is that of the weights as they were handed in, before any update.",
        ),
    ),
    hints=(
        "Two networks from the same weights. Record the loss before each update, and once more at "
        "the end: steps + 1 numbers.",
        "PyTorch: nn.Linear(..., bias=False), nn.BatchNorm1d, the activation; torch.optim.SGD. "
        "Keras: Dense(..., use_bias=False), BatchNormalization(epsilon=1e-5), and training=True "
        "in the call.",
        "The better run is the one with the smaller last loss. Compute it, whatever you expect.",
    ),
    time_limit=20.0,
    frameworks=("pytorch", "tf"),
)
