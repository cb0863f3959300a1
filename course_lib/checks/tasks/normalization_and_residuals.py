r"""Tasks on normalization and residual blocks: both modes, the backward pass, the expansion.

The reference is `course_lib.reference.normalization`. Source: ioffe2015, ba2016.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import FLOAT32
from course_lib.checks.tasks._normalized_training import COMPARE_RUNS
from course_lib.checks.tasks._residual_blocks import BRANCH_SCALE, EXPANSION, SILENCE
from course_lib.reference.normalization import BatchNorm, LayerNorm, norm_backward

# --- layer normalization


def _layer_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for n, units, scale in ((4, 5, 1.0), (3, 8, 0.02), (6, 4, 30.0)):
        x = scale * rng.normal(size=(n, units)) + rng.normal(size=(n, 1))
        args = (x, rng.uniform(0.5, 2.0, size=units), rng.normal(size=units), 1e-3)
        cases.append(Case(args, f"{n} inputs of {units} units with a spread of {scale:g}"))
    return cases


def _layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> np.ndarray:
    layer = LayerNorm(x.shape[1], epsilon=eps)
    layer.gamma, layer.beta = gamma, beta
    return layer.forward(x).output


def _other_layer_norm(*, axis: int = 1, ddof: int = 0, outside: bool = False) -> Callable:
    """Return a layer norm with another axis, divisor, or place of epsilon."""

    def layer_norm(x: np.ndarray, gamma: np.ndarray, beta: np.ndarray, eps: float) -> np.ndarray:
        variance = x.var(axis=axis, ddof=ddof, keepdims=True)
        scale = np.sqrt(variance) + eps if outside else np.sqrt(variance + eps)
        return gamma * (x - x.mean(axis=axis, keepdims=True)) / scale + beta

    return layer_norm


LAYER_NORM = Task(
    id="normalization_and_residuals/layer_norm",
    function="layer_norm",
    title="Layer normalization as the frameworks compute it",
    points=1,
    cases=_layer_cases,
    reference=_layer_norm,
    rtol=1e-4,
    atol=1e-5,
    tolerance_reason=FLOAT32,
    misconceptions=(
        Misconception(
            "Lecture 1's listing",
            _other_layer_norm(ddof=1, outside=True),
            "This is the listing of Lecture 1. It divides the sum of squares by n - 1, and it adds "
            "eps to the standard deviation; both frameworks divide by n and add it inside the "
            "root.",
        ),
        Misconception(
            "n - 1",
            _other_layer_norm(ddof=1),
            "The mean squared deviation is divided by n - 1 here. Both frameworks divide by n: the "
            "numbers are normalized, nothing is estimated.",
        ),
        Misconception(
            "eps outside the root",
            _other_layer_norm(outside=True),
            "eps belongs to the variance, inside the root. Outside it weighs less: the root of "
            "0.001 is 0.03.",
        ),
        Misconception(
            "over the batch",
            _other_layer_norm(axis=0),
            "The mean was taken over the batch, which is batch normalization. Here each input is "
            "normalized over its own units.",
        ),
    ),
    hints=(
        "One mean and one variance per row, over its own entries.",
        "x.mean(axis=1, keepdims=True) and x.var(axis=1, keepdims=True), whose default divides by "
        "n. `torch.std` divides by n - 1 unless it is told otherwise.",
    ),
    time_limit=10.0,  # a framework may have to be loaded
    frameworks=("pytorch", "tf"),
)


# --- batch normalization, forward


def _batch_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for n, units, training in ((5, 3, True), (6, 4, False), (4, 2, True)):
        x = rng.normal(size=(n, units)) * rng.uniform(0.2, 3.0, size=units) + rng.normal(size=units)
        state = (rng.uniform(0.5, 2.0, size=units), rng.normal(size=units),
                 rng.normal(size=units), rng.uniform(0.5, 2.0, size=units))  # fmt: skip
        mode = "training" if training else "evaluation"
        words = f"{n} inputs of {units} units in {mode} mode"
        cases.append(Case((x, *state, training, 0.1, 1e-3), words))
    return cases


def _batch_norm(x, gamma, beta, running_mean, running_var, training, momentum, eps, *,
                unbiased=True):  # fmt: skip
    layer = BatchNorm(x.shape[1], epsilon=eps, new_share=momentum, unbiased_running=unbiased)
    layer.gamma, layer.beta = gamma, beta
    layer.running_mean, layer.running_var = running_mean, running_var
    output = layer.forward(x, training=training).output
    return {"y": output, "running_mean": layer.running_mean, "running_var": layer.running_var}


def _batch_norm_n_minus_1(x, gamma, beta, mean, var, training, momentum, eps):
    done = _batch_norm(x, gamma, beta, mean, var, training, momentum, eps)
    if training:
        scale = np.sqrt(x.var(axis=0, ddof=1) + eps)
        done["y"] = gamma * (x - x.mean(axis=0)) / scale + beta
    return done


def _batch_norm_always_batch(x, gamma, beta, mean, var, training, momentum, eps):
    return _batch_norm(x, gamma, beta, mean, var, True, momentum, eps)


BATCH_NORM = Task(
    id="normalization_and_residuals/batch_norm",
    function="batch_norm",
    title="Batch normalization in both modes",
    points=2,
    cases=_batch_cases,
    reference=_batch_norm,
    rtol=1e-4,
    atol=1e-5,
    tolerance_reason=FLOAT32,
    misconceptions=(
        Misconception(
            "normalized by n - 1",
            _batch_norm_n_minus_1,
            "The batch is normalized with the variance divided by n. Only the running variance "
            "collects the one divided by n - 1.",
        ),
        Misconception(
            "running variance by n",
            lambda *args: _batch_norm(*args, unbiased=False),
            "The running variance collects the variance divided by n, as Keras does. PyTorch "
            "collects the unbiased one, divided by n - 1.",
        ),
        Misconception(
            "Keras's momentum",
            lambda *args: _batch_norm(*args[:6], 1.0 - args[6], args[7]),
            "Here momentum was the share of the old average that is kept: Keras's convention. In "
            "PyTorch it is the share of the new batch.",
        ),
        Misconception(
            "all as in Keras",
            lambda *args: _batch_norm(*args[:6], 1.0 - args[6], args[7], unbiased=False),
            "Both running averages are Keras's. In PyTorch momentum is the share of the new batch, "
            "and the running variance collects the unbiased variance, divided by n - 1.",
        ),
        Misconception(
            "the batch in evaluation mode",
            _batch_norm_always_batch,
            "In evaluation mode the running averages normalize, and they are not changed. "
            "Otherwise the answer for one input would depend on its neighbors.",
        ),
    ),
    hints=(
        "Training: the batch's own mean and variance, divided by n. Evaluation: the running ones, "
        "untouched.",
        "PyTorch: running = (1 - momentum) * running + momentum * new, where the new variance is "
        "divided by n - 1.",
        "x.var(axis=0) normalizes; x.var(axis=0, ddof=1) goes into the running variance.",
    ),
    time_limit=10.0,  # a framework may have to be loaded
    frameworks=("pytorch", "tf"),
)


# --- batch normalization, backward


def _backward_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for n, units in ((5, 3), (4, 4), (8, 2)):
        x = rng.normal(size=(n, units)) * rng.uniform(0.3, 2.0, size=units) + rng.normal(size=units)
        args = (rng.normal(size=(n, units)), x, rng.uniform(0.5, 2.0, size=units), 1e-3)
        cases.append(Case(args, f"{n} inputs of {units} units"))
    return cases


def _batch_norm_backward(dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, eps: float) -> dict:
    layer = BatchNorm(x.shape[1], epsilon=eps)
    layer.gamma = gamma
    dx, dgamma, dbeta = norm_backward(layer.forward(x, training=True), dy)
    return {"dx": dx, "dgamma": dgamma, "dbeta": dbeta}


def _other_backward(*, mean: bool = True, variance: bool = True, raw: bool = False) -> Callable:
    """Return a backward pass without one of its paths, or with x in the place of x-hat."""

    def backward(dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, eps: float) -> dict:
        inverse = 1.0 / np.sqrt(x.var(axis=0) + eps)
        normalized = (x - x.mean(axis=0)) * inverse
        g = gamma * dy
        dx = g - mean * g.mean(axis=0) - variance * normalized * (g * normalized).mean(axis=0)
        dgamma = (dy * (x if raw else normalized)).sum(axis=0)
        return {"dx": inverse * dx, "dgamma": dgamma, "dbeta": dy.sum(axis=0)}

    return backward


def _averaged_backward(dy: np.ndarray, x: np.ndarray, gamma: np.ndarray, eps: float) -> dict:
    done = _batch_norm_backward(dy, x, gamma, eps)
    return {key: value if key == "dx" else value / len(x) for key, value in done.items()}


BATCH_NORM_BACKWARD = Task(
    id="normalization_and_residuals/batch_norm_backward",
    function="batch_norm_backward",
    title="Batch normalization, backward",
    points=3,
    cases=_backward_cases,
    reference=_batch_norm_backward,
    rtol=1e-4,
    atol=1e-5,
    tolerance_reason=FLOAT32,
    misconceptions=(
        Misconception(
            "statistics held constant",
            _other_backward(mean=False, variance=False),
            "This is the backward pass of evaluation mode. In training mean and variance are "
            "functions of x, and the gradient flows through them as well.",
        ),
        Misconception(
            "variance held constant",
            _other_backward(variance=False),
            "The path through the mean is there, the one through the variance is missing.",
        ),
        Misconception(
            "mean held constant",
            _other_backward(mean=False),
            "The path through the variance is there, the one through the mean is missing: the "
            "gradient of each unit must sum to zero over the batch.",
        ),
        Misconception(
            "averaged over the batch",
            _averaged_backward,
            "gamma and beta act on every input of the batch, so their gradients are sums over it. "
            "If the loss is a mean, dy has the division in it already.",
        ),
        Misconception(
            "x for the normalized x",
            _other_backward(raw=True),
            "gamma multiplies the normalized x, so its gradient is the sum of dy times that, not "
            "times x.",
        ),
    ),
    hints=(
        "Adding a constant to a unit's inputs, or scaling them, does not change the output (but "
        "for eps). What does that say of dx?",
        "dx is g = gamma * dy over the root, after two projections: minus the mean of g, and "
        "minus the normalized x times the mean of g times the normalized x.",
        "dx = (g - g.mean(0) - xhat * (g * xhat).mean(0)) / sqrt(var + eps).",
    ),
    time_limit=10.0,  # a framework may have to be loaded
    frameworks=("pytorch", "tf"),
)

TASKS = (
    LAYER_NORM, BATCH_NORM, BATCH_NORM_BACKWARD, EXPANSION, SILENCE, BRANCH_SCALE, COMPARE_RUNS,
)  # fmt: skip
