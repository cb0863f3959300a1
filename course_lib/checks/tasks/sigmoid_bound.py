r"""Tasks on the sigmoid bound: slopes, their supremum, what a bound says and what it does not."""

from __future__ import annotations

import math

import numpy as np

from course_lib.checks.compare import AnswerError, as_array
from course_lib.checks.task import IN_FLOAT32, Case, Misconception, Task

# The slope -------------------------------------------------------------------------------------


def _draw_preactivations(rng: np.random.Generator) -> list[Case]:
    return [
        Case((rng.normal(scale=2.0, size=4),), "four moderate preactivations"),
        Case((rng.uniform(12.0, 18.0, size=(2, 2)),), "large preactivations"),
    ]


def sigmoid_slope(z: np.ndarray) -> np.ndarray:
    output = 1.0 / (1.0 + np.exp(-z))
    return output * (1.0 - output)


SIGMOID_SLOPE = Task(
    id="sigmoid_bound/sigmoid_slope",
    function="sigmoid_slope",
    title="The slope of a sigmoid",
    points=1,
    cases=_draw_preactivations,
    reference=sigmoid_slope,
    rtol=1e-3,
    atol=1e-9,
    tolerance_reason="slopes down to 1e-8 are asked for, so that the absolute part is smaller yet",
    misconceptions=(
        Misconception(
            "formula of the output",
            lambda z: z * (1.0 - z),
            "z (1 - z) is the slope if z is the sigmoid's output. Here z is its input.",
        ),
        Misconception(
            "the output itself",
            lambda z: 1.0 / (1.0 + np.exp(-z)),
            "This is the sigmoid, not its derivative.",
        ),
        Misconception(
            "tanh's formula",
            lambda z: 1.0 - (1.0 / (1.0 + np.exp(-z))) ** 2,
            "1 - f² is the slope of a tanh with output f. A sigmoid's is f (1 - f).",
        ),
    ),
    hints=(
        "Compute the output s first, then the slope from it.",
        "Differentiate 1 / (1 + exp(-z)); the result is s (1 - s).",
    ),
)

# The largest slope -------------------------------------------------------------------------------

SUPREMA = {
    "sigmoid": 0.25, "tanh": 1.0, "relu": 1.0, "softplus": 1.0,
    "gelu": 1.1289041452, "silu": 1.0998393195,
}  # fmt: skip


def _draw_activations(rng: np.random.Generator) -> list[Case]:
    cases = []
    for name in SUPREMA:
        a, b = (round(float(value), 2) for value in rng.uniform((1.2, 0.3), (3.0, 0.8)))
        cases.append(Case((name, a, b), f"{a} {name}({b} z)"))
    return cases


def largest_slope(name: str, a: float, b: float) -> float:
    return a * b * SUPREMA[name]


LARGEST_SLOPE = Task(
    id="sigmoid_bound/largest_slope",
    function="largest_slope",
    title="The supremum of a slope",
    points=2,
    cases=_draw_activations,
    reference=largest_slope,
    rtol=1e-3,
    atol=0.0,
    tolerance_reason="a supremum found on a grid of 1000 points is right to about 1e-4",
    misconceptions=(
        Misconception(
            "inner factor forgotten",
            lambda name, a, b: a * SUPREMA[name],
            "The inner factor b is missing: the chain rule multiplies the slope of f(b z) by b.",
        ),
        Misconception(
            "outer factor forgotten",
            lambda name, a, b: b * SUPREMA[name],
            "The outer factor a is missing: it stretches the function and its slope alike.",
        ),
        Misconception(
            "never above one",
            lambda name, a, b: a * b * min(SUPREMA[name], 1.0),
            "GELU and SiLU are steeper than 1 a little to the right of zero. Draw their slopes.",
        ),
        Misconception(
            "slope at zero",
            lambda name, a, b: a * b * {"sigmoid": 0.25, "tanh": 1.0, "relu": 0.0}.get(name, 0.5),
            "This is the slope at zero. Only for sigmoid and tanh is it the largest one.",
        ),
    ),
    hints=(
        "The derivative of a f(b z) is a b f'(b z); which values can b z take?",
        "sigmoid 1/4, tanh 1, ReLU 1, softplus 1 (approached, never reached); two are left.",
        "Evaluate the slopes of GELU and SiLU on a fine grid from 0 to 5 and take the largest.",
    ),
)

# The bound ---------------------------------------------------------------------------------------


def _draw_weights(rng: np.random.Generator) -> list[Case]:
    cases = []
    for depth, width in ((2, 3), (5, 4), (10, 8)):
        weights = [rng.normal(size=(width, width)) for _ in range(depth - 1)]
        cases.append(Case((weights,), f"{depth} layers of width {width}"))
    return cases


def jacobian_bound(weights: list[np.ndarray]) -> float:
    return math.prod(0.25 * float(np.linalg.norm(weight, 2)) for weight in weights)


JACOBIAN_BOUND = Task(
    id="sigmoid_bound/jacobian_bound",
    function="jacobian_bound",
    title="The bound for a sigmoid network",
    points=1,
    cases=_draw_weights,
    reference=jacobian_bound,
    rtol=1e-4,
    atol=0.0,
    tolerance_reason=IN_FLOAT32,
    misconceptions=(
        Misconception(
            "one slope too many",
            lambda weights: 0.25 * jacobian_bound(weights),
            "There is one factor 1/4 too many: between h_1 and h_L lie L - 1 layers, as many as "
            "there are matrices.",
        ),
        Misconception(
            "Frobenius norm",
            lambda weights: math.prod(0.25 * float(np.linalg.norm(weight)) for weight in weights),
            "This uses the Frobenius norm. It gives a bound too, but a weaker one; the spectral "
            "norm is `np.linalg.norm(weight, 2)`.",
        ),
        Misconception(
            "weights forgotten",
            lambda weights: 0.25 ** len(weights),
            "This bounds the slopes alone. The weights are half of each factor.",
        ),
    ),
    hints=(
        "Bound the norm of one Jacobian diag(f'(z)) W first.",
        "Each layer contributes at most 1/4 times the spectral norm of its matrix.",
    ),
)

# The measured rate -------------------------------------------------------------------------------


def _draw_norms(rng: np.random.Generator) -> list[Case]:
    cases = []
    for depth, rate in ((3, 0.24), (10, 0.3), (40, 1.4)):
        steps = np.log(rate) * np.arange(depth)[::-1] + rng.normal(scale=0.3, size=depth)
        cases.append(Case((np.exp(steps),), f"{depth} layers"))
    return cases


def measured_factor(norms: np.ndarray) -> float:
    return float((norms[0] / norms[-1]) ** (1.0 / (len(norms) - 1)))


MEASURED_FACTOR = Task(
    id="sigmoid_bound/measured_factor",
    function="measured_factor",
    title="The factor per layer, measured",
    points=1,
    cases=_draw_norms,
    reference=measured_factor,
    rtol=1e-4,
    atol=0.0,
    tolerance_reason=IN_FLOAT32,
    misconceptions=(
        Misconception(
            "number of layers as exponent",
            lambda norms: float((norms[0] / norms[-1]) ** (1.0 / len(norms))),
            "The root is taken with the number of layers. From the first to the last there is one "
            "step fewer.",
        ),
        Misconception(
            "forward instead of backward",
            lambda norms: 1.0 / measured_factor(norms),
            "This is the factor from the input to the output. A gradient travels the other way.",
        ),
        Misconception(
            "arithmetic mean",
            lambda norms: float(np.mean(norms[:-1] / norms[1:])),
            "This is the arithmetic mean of the factors. Factors multiply, so that their mean is "
            "the geometric one.",
        ),
    ),
    hints=(
        "The gradient starts at the last layer. Which power of one factor leads to the first?",
        "With L layers: norms[0] = factor^(L - 1) times norms[-1].",
    ),
)

# A sigmoid network that keeps its gradient -------------------------------------------------------


def _draw_starts(rng: np.random.Generator) -> list[Case]:
    cases = []
    for depth in (10, 50):
        start = round(float(rng.uniform(0.05, 0.45)), 3)
        cases.append(Case((depth, start), f"{depth} layers and h_1 = {start}"))
    return cases


def _chain_of(case: Case, answer: object) -> tuple[np.ndarray, float]:
    """The weights, and the end-to-end derivative of the chain of single sigmoid units."""
    depth, h = case.args
    if not isinstance(answer, dict) or set(answer) != {"weights", "biases"}:
        raise AnswerError("expected a dict with the keys 'weights' and 'biases'.")
    weights = as_array(answer["weights"], shape=(depth - 1,), name="the weights")
    biases = as_array(answer["biases"], shape=(depth - 1,), name="the biases")
    derivative = 1.0
    for weight, bias in zip(weights, biases, strict=True):
        z = weight * h + bias
        h = 1.0 / (1.0 + np.exp(-z))
        derivative *= h * (1.0 - h) * weight
    return weights, float(derivative)


def _judge_chain(case: Case, answer: object, expected: object) -> str | None:
    weights, derivative = _chain_of(case, answer)
    if np.abs(weights).max() > 4.0:
        return f"a weight has the size {np.abs(weights).max():.3g}; at most 4 is allowed."
    if not 0.9 <= derivative <= 1.1:
        return f"the derivative of h_L by h_1 is {derivative:.3g}, not between 0.9 and 1.1."
    return None


def lossless_chain(depth: int, start: float) -> dict:
    return {"weights": [4.0] * (depth - 1), "biases": [-4.0 * start] + [-2.0] * (depth - 2)}


def _without_biases(depth: int, start: float) -> dict:
    return {"weights": [4.0] * (depth - 1), "biases": [0.0] * (depth - 1)}


def _with_small_weights(depth: int, start: float) -> dict:
    return {"weights": [1.0] * (depth - 1), "biases": [-start] + [-0.5] * (depth - 2)}


def _is_unbiased(case: Case, answer: object, expected: object) -> bool:
    return not np.any(np.asarray(answer["biases"]))


def _has_small_weights(case: Case, answer: object, expected: object) -> bool:
    weights, _ = _chain_of(case, answer)
    return bool(np.abs(weights).max() < 3.5 and np.any(np.asarray(answer["biases"])))


LOSSLESS_CHAIN = Task(
    id="sigmoid_bound/lossless_chain",
    function="lossless_chain",
    title="Sigmoids that lose nothing",
    points=3,
    cases=_draw_starts,
    reference=lossless_chain,
    rtol=0.0,
    atol=0.0,
    tolerance_reason="the product may differ from 1 by a tenth: over 50 layers 0.2 % a layer",
    judge=_judge_chain,
    misconceptions=(
        Misconception(
            "no biases",
            _without_biases,
            "Without biases the units saturate: a sigmoid's output is never negative, so that "
            "positive weights push z away from 0. Biases can bring it back.",
            _is_unbiased,
        ),
        Misconception(
            "weights too small",
            _with_small_weights,
            "A slope of at most 1/4 needs a weight of 4 to make a factor of 1. Smaller weights "
            "lose something in every layer.",
            _has_small_weights,
        ),
    ),
    hints=(
        "Each layer contributes f'(z) w. With |w| at most 4, how large must f'(z) be?",
        "The slope is 1/4 only at z = 0. Choose each bias so that z is 0 at the given start.",
        "If z is 0, the output is 1/2: from the second layer on, the bias is -4 / 2.",
    ),
)

TASKS = (SIGMOID_SLOPE, LARGEST_SLOPE, JACOBIAN_BOUND, MEASURED_FACTOR, LOSSLESS_CHAIN)
