r"""Tasks on normalization and residual blocks: both modes, the backward pass, the expansion.

The reference is `course_lib.reference.normalization`. Source: ioffe2015, ba2016, he2016identity.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from course_lib.activations import get_activation
from course_lib.checks.compare import AnswerError, as_array
from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import FLOAT32, Fault, judge_by, shows
from course_lib.losses import evaluate_loss
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


# --- the ordered expansion


def _expansion_cases(rng: np.random.Generator) -> list[Case]:
    return [
        Case(([rng.normal(size=(n, n)) / n for _ in range(count)],), f"{count} blocks of {n} units")
        for count, n in ((2, 2), (3, 3), (5, 3))
    ]


def _expand(jacobians: Sequence[np.ndarray]) -> np.ndarray:
    """Order k of the product up to block l is that up to l - 1, plus J_l times its order k - 1."""
    n, count = len(jacobians[0]), len(jacobians)
    terms = np.zeros((count + 1, n, n))
    terms[0] = np.eye(n)
    for jacobian in jacobians:
        terms[1:] += jacobian @ terms[:-1]
    return terms


def _sum_over(choose: Callable, order: int) -> Callable:
    """Return a solution that multiplies each choice of blocks, the latest first or last."""

    def expand(jacobians: Sequence[np.ndarray]) -> np.ndarray:
        n, count = len(jacobians[0]), len(jacobians)
        terms = np.zeros((count + 1, n, n))
        for k in range(count + 1):
            for chosen in choose(range(count), k):
                factors = [jacobians[i] for i in chosen][::order]
                terms[k] += np.linalg.multi_dot([np.eye(n), np.eye(n), *factors])
        return terms

    return expand


EXPANSION = Task(
    id="normalization_and_residuals/expansion",
    function="expand_product",
    title="The ordered expansion of a residual stack",
    points=3,
    cases=_expansion_cases,
    reference=_expand,
    rtol=1e-4,
    atol=1e-6,
    tolerance_reason=FLOAT32,
    misconceptions=(
        Misconception(
            "earliest leftmost",
            _sum_over(itertools.combinations, 1),
            "In each product the earliest block stands leftmost, as in Lecture 0's second sum. "
            "The block that acts last must stand there.",
        ),
        Misconception(
            "a block used twice",
            _sum_over(itertools.combinations_with_replacement, -1),
            "Some products use a block twice. A path goes through each block once: through its "
            "branch or past it.",
        ),
        Misconception(
            "every order of the blocks",
            _sum_over(itertools.permutations, -1),
            "Each set of blocks is counted in all its orders. Only one exists: the order of the "
            "network.",
        ),
    ),
    hints=(
        "Multiply (I + J_2)(I + J_1) by hand and sort by the number of factors.",
        "Order k is the sum over all sets of k blocks of their product, the latest leftmost: "
        "itertools.combinations, then multiply in reverse.",
        "Or block by block: terms[k] gains J_l @ (the old terms[k - 1]).",
    ),
)


# --- "the identity ensures a gradient of at least 1"


def _silence_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for n in (3, 5, 8):
        h = rng.uniform(0.3, 2.0, size=n) * rng.permutation(np.where(np.arange(n) % 2, 1.0, -1.0))
        cases.append(Case((h, rng.normal(size=n)), f"a block of {n} units"))
    return cases


def _fault_of_silence(case: Case, answer: object) -> Fault | None:
    h, gradient = case.args
    n = len(h)
    if not isinstance(answer, list) or len(answer) != 2:
        raise AnswerError("expected the pair (W1, W2).")
    first = as_array(answer[0], shape=(None, n), name="W1")
    second = as_array(answer[1], shape=(n, len(first)), name="W2")
    top = max(np.linalg.norm(first, 2), np.linalg.norm(second, 2))
    if top > 1.0 + 1e-5:
        return Fault("norm", f"a spectral norm is {top:.3g}; at most 1 is allowed.")
    on = (first @ h > 0.0).astype(np.float64)
    passed = gradient + first.T @ (on * (second.T @ gradient))
    share = float(np.linalg.norm(passed) / np.linalg.norm(gradient))
    if share <= 1e-3:
        return None
    # What reaches the units with h > 0 and with h < 0, each relative to what came in.
    left = [np.linalg.norm(passed[s]) / np.linalg.norm(gradient[s]) for s in (h > 0, h < 0)]
    key = "half" if left[0] < 1e-3 else "doubled" if share > 1.0 else "too large"
    return Fault(key, f"{share:.3g} of the gradient's norm arrives; at most 0.001 is asked for.")


def _silence_mistake(name: str, key: str, wrong: Callable, message: str) -> Misconception:
    return Misconception(name, wrong, message, recognizes=shows(_fault_of_silence, key))


SILENCE = Task(
    id="normalization_and_residuals/silence",
    function="silent_branch",
    title="A shortcut through which nothing comes back",
    points=2,
    cases=_silence_cases,
    reference=lambda h, g: (np.diag(np.sign(h)), -np.diag(np.sign(h))),
    rtol=0.0,
    atol=1e-3,
    tolerance_reason="a thousandth of the gradient, which float32 reaches with ease",
    judge=judge_by(_fault_of_silence),
    misconceptions=(
        _silence_mistake(
            "ReLU forgotten", "half", lambda h, g: (np.eye(len(h)), -np.eye(len(h))),
            "The branch cancels the shortcut where h is positive. Where it is negative the ReLU is "
            "off, and the shortcut alone passes everything.",
        ),
        _silence_mistake(
            "sign of the branch", "doubled",
            lambda h, g: (np.diag(np.sign(h)), np.diag(np.sign(h))),
            "The branch adds to the shortcut. It has to be the negative of the identity.",
        ),
        _silence_mistake(
            "larger weights", "norm", lambda h, g: (2.0 * np.eye(len(h)), -np.eye(len(h))),
            "No large weights are needed: the branch must undo the identity, whose norm is 1.",
        ),
    ),
    hints=(
        "The gradient that arrives is (I + J)^T g. For which J is that zero, whatever g is?",
        "J = W2 diag(on) W1 = -I. All units must be on at this h: which signs in W1 see to that?",
        "W1 = diag(sign(h)) makes every preactivation |h|. Then W2 W1 = -I.",
    ),
)  # fmt: skip


# --- growth with depth


def _growth_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for normalized in (False, True):
        for depth in rng.choice([10, 25, 50, 100, 200], size=2, replace=False):
            growth = float(rng.uniform(2.0, 12.0))
            kind = "with" if normalized else "without"
            words = f"{depth} blocks {kind} normalization and a growth by {growth:.1f}"
            cases.append(Case((int(depth), growth, normalized), words))
    return cases


def _branch_scale(depth: int, growth: float, normalized: bool) -> float:
    per_block = (growth - 1.0) / depth if normalized else growth ** (1.0 / depth) - 1.0
    return np.sqrt(per_block)


BRANCH_SCALE = Task(
    id="normalization_and_residuals/branch_scale",
    function="branch_scale",
    title="A factor on the branches",
    points=2,
    cases=_growth_cases,
    reference=_branch_scale,
    rtol=1e-4,
    atol=0.0,
    tolerance_reason=FLOAT32,
    misconceptions=(
        Misconception(
            "growth adds up",
            lambda depth, growth, normalized: _branch_scale(depth, growth, True),
            "Without normalization each branch reads what has grown so far, so the growth is "
            "multiplied from block to block. It adds up only if every branch is normalized.",
        ),
        Misconception(
            "growth multiplies",
            lambda depth, growth, normalized: _branch_scale(depth, growth, False),
            "A normalized branch adds the same mean square in every block, however large its input "
            "is. So the growth adds up and is not multiplied.",
        ),
        Misconception(
            "root forgotten",
            lambda *args: _branch_scale(*args) ** 2,
            "The factor multiplies the branch, so the mean square gains its square.",
        ),
        Misconception(
            "1 / sqrt(L)",
            lambda depth, growth, normalized: 1.0 / np.sqrt(depth),
            "1 / sqrt(L) is one choice: it makes the mean square grow by about e without "
            "normalization and by 2 with it, whatever growth was asked for.",
        ),
    ),
    hints=(
        "One block: the mean square m becomes m + s**2 * m without normalization, and m + s**2 "
        "with it.",
        "After L blocks: (1 + s**2)**L, and 1 + L * s**2.",
    ),
)


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

TASKS = (
    LAYER_NORM, BATCH_NORM, BATCH_NORM_BACKWARD, EXPANSION, SILENCE, BRANCH_SCALE, COMPARE_RUNS,
)  # fmt: skip
