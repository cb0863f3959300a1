r"""Tasks on initialization: the variance of the weights, derived, drawn and chosen.

Source: lecun1998efficient, glorot2010, he2015delving.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from course_lib.checks.compare import as_number
from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import FLOAT32, Fault, judge_by
from course_lib.checks.tasks._random_laws import DRAW_HE, DRAW_ORTHOGONAL
from course_lib.initialization import draw_matrix
from course_lib.reference.mlp import MLP, backward
from course_lib.results import decades

# --- the standard deviation of a weight


def _std_cases(rng: np.random.Generator) -> list[Case]:
    slopes = [0.0, *rng.uniform(0.2, 0.6, size=2), 1.0]
    return [
        Case((int(n), float(a)), f"{n} inputs and a slope of {a:.3g} below zero")
        for n, a in zip(rng.integers(16, 1024, size=4), slopes, strict=True)
    ]


def _std(fan_in: int, slope: float) -> float:
    return np.sqrt(2.0 / ((1.0 + slope**2) * fan_in))


WEIGHT_STD = Task(
    id="initialization/weight_std",
    function="weight_std",
    title="The size of a weight before a leaky ReLU",
    points=1,
    cases=_std_cases,
    reference=_std,
    rtol=1e-5,
    atol=0.0,
    tolerance_reason="one formula; float32 is right to 1e-6, and a missing factor is not",
    misconceptions=(
        Misconception(
            "variance for standard deviation",
            lambda fan_in, slope: 2.0 / ((1.0 + slope**2) * fan_in),
            "This is the variance of a weight; its standard deviation is the root of that.",
        ),
        Misconception(
            "nothing is cut off",
            lambda fan_in, slope: np.sqrt(1.0 / fan_in),
            "This is LeCun's law, which is right without an activation. Here the half below zero "
            "passes only a part of its mean square on, and the weights must make up for that.",
        ),
        Misconception(
            "slope forgotten",
            lambda fan_in, slope: np.sqrt(2.0 / fan_in),
            "This is He's law for a ReLU. A leaky one lets something through below zero as well, "
            "so that its weights must be smaller.",
        ),
        Misconception(
            "slope not squared",
            lambda fan_in, slope: np.sqrt(2.0 / ((1.0 + slope) * fan_in)),
            "The slope multiplies z, so it multiplies the mean square by its own square.",
        ),
    ),
    hints=(
        "Which share of its mean square does z keep on its way through the leaky ReLU, if it is "
        "symmetric around zero?",
        "One half comes from z > 0 and is kept. The other half is multiplied by the square of the "
        "slope. That share, times fan_in, times the variance must be 1.",
        "The variance is 2 / ((1 + slope**2) * fan_in).",
    ),
)


# --- one ReLU layer


def _moment_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for bias_variance in (0.0, *rng.uniform(0.1, 0.5, size=2)):
        n, m, v = int(rng.integers(20, 400)), rng.uniform(0.5, 2.0), rng.uniform(1.0, 3.0)
        words = f"{n} inputs of mean square {m:.2f} and a bias of variance {bias_variance:.2f}"
        cases.append(Case((m, n, v / n, float(bias_variance)), words))
    return cases


def _relu_moments(m: float, n: int, v: float, bias_variance: float) -> np.ndarray:
    q = n * v * m + bias_variance
    return np.array([q, np.sqrt(q / (2.0 * np.pi)), q / 2.0, q / 2.0 - q / (2.0 * np.pi)])


def _edited(edit: Callable[[np.ndarray], Sequence[float]]) -> Callable:
    return lambda m, n, v, b: np.array(edit(_relu_moments(m, n, v, b)))


RELU_MOMENTS = Task(
    id="initialization/relu_moments",
    function="relu_moments",
    title="What a ReLU layer makes of a mean square",
    points=2,
    cases=_moment_cases,
    reference=_relu_moments,
    rtol=1e-4,
    atol=0.0,
    tolerance_reason=FLOAT32,
    misconceptions=(
        Misconception(
            "mean square for variance",
            _edited(lambda r: [r[0], r[1], r[2], r[2]]),
            "The last entry repeats the mean square. Behind a ReLU the mean is not zero, so the "
            "variance is smaller: the square of the mean has to go.",
        ),
        Misconception(
            "mean zero",
            _edited(lambda r: [r[0], 0.0, r[2], r[2]]),
            "z has mean zero, relu(z) has not: nothing negative is left to balance it.",
        ),
        Misconception(
            "half the size",
            _edited(lambda r: [r[0], r[1], r[0] / 4.0, r[0] / 4.0 - r[0] / (2.0 * np.pi)]),
            "Half of the mean square is lost, not half of its root: one half of all z is cut off, "
            "and the other keeps its square.",
        ),
        Misconception(
            "one term of the sum",
            lambda m, n, v, b: _relu_moments(m, 1, v, b),
            "z is a sum over all inputs; their number is missing in its mean square.",
        ),
        Misconception(
            "bias forgotten",
            lambda m, n, v, b: _relu_moments(m, n, v, 0.0),
            "The bias is independent of the weights and adds its own variance to z.",
        ),
    ),
    hints=(
        "z is a sum of independent terms: add the mean squares.",
        "By symmetry relu(z) keeps half of the mean square of z. Its mean is half of E|z|.",
        "For a normal z of variance q, E|z| = sqrt(2 q / pi). A variance is a mean square minus "
        "the square of a mean.",
    ),
)


# --- what the frameworks draw

LINEAR, DENSE = "torch.nn.Linear", "keras.layers.Dense"


def _default_cases(rng: np.random.Generator) -> list[Case]:
    widths = [int(n) for n in rng.integers(32, 512, size=4)]
    return [
        Case((layer, n), f"{layer} with {n} inputs and {n} units")
        for layer, n in zip((LINEAR, DENSE, LINEAR, DENSE), widths, strict=True)
    ]


def _defaults(
    of_linear: float = 1.0 / 3.0, of_dense: float = 1.0, kept: float = 0.5, power: float = 0.5
) -> Callable:
    """Return a solution: n times the variance in each layer, and (n v kept)^power as the factor."""

    def default_factor(layer: str, width: int) -> np.ndarray:
        scaled = of_linear if layer == LINEAR else of_dense
        return np.array([scaled / width, (scaled * kept) ** power])

    return default_factor


DEFAULT_FACTOR = Task(
    id="initialization/default_factor",
    function="default_factor",
    title="What the frameworks draw, and what it costs",
    points=2,
    cases=_default_cases,
    reference=_defaults(),
    rtol=1e-4,
    atol=0.0,
    tolerance_reason=FLOAT32,
    misconceptions=(
        Misconception(
            "named after Kaiming, so He's",
            _defaults(of_linear=2.0),
            "`nn.Linear` calls `kaiming_uniform_`, but with a=sqrt(5), the slope of a leaky ReLU "
            "that nobody uses. That makes the limit 1 / sqrt(fan_in), which is not He's law.",
        ),
        Misconception(
            "limit for deviation",
            _defaults(of_linear=1.0, of_dense=3.0),
            "A uniform law on [-a, a] has the variance a^2 / 3, not a^2.",
        ),
        Misconception(
            "slope 1",
            _defaults(kept=1.0),
            "The slope of ReLU is 1 where a unit is on, but half of the units are off: only half "
            "of the squared gradient passes.",
        ),
        Misconception(
            "root forgotten",
            _defaults(power=1.0),
            "This is the factor of the squared norm. The norm itself changes by its root.",
        ),
    ),
    hints=(
        "Both draw a uniform law on [-a, a]. What is a in each, and what variance does it give?",
        "`nn.Linear`: a = 1 / sqrt(fan_in). `Dense`: a = sqrt(6 / (fan_in + fan_out)). The "
        "variance is a^2 / 3.",
        "Per layer the squared gradient is multiplied by width * variance / 2.",
    ),
)


# --- a gain that keeps fifty layers level

LEVEL_DEPTHS = {"relu": 50, "tanh": 50, "elu": 50, "sigmoid": 20}
GOOD_SCALES = {"relu": 2**0.5, "tanh": 1.15, "elu": 1.2, "sigmoid": 10.0}


def _gain_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for activation, depth in LEVEL_DEPTHS.items():
        width, std = int(rng.integers(90, 111)), float(np.exp(rng.uniform(np.log(0.02), 0.0)))
        words = f"{depth} layers of {width} units of {activation}, weights of deviation {std:.3g}"
        cases.append(Case((activation, depth, width, std), words, hidden=int(rng.integers(2**31))))
    return cases


def measure_decades(
    activation: str, weight_scale: float, *, depth: int, width: int, seed: int
) -> float:
    """Return log10 of the first layer's activation gradient over the last's, in one random network.

    The weights have the standard deviation `weight_scale` / sqrt(width), the biases are zero,
    inputs and the gradient at the last layer normal.
    """
    rng = np.random.default_rng(seed)
    draw = {"fan_in": width, "fan_out": width, "gain": weight_scale, "rng": rng}
    matrices = [draw_matrix("lecun_normal", **draw) for _ in range(depth)]
    model = MLP(matrices, [np.zeros(width)] * depth, (activation,) * depth)
    passed = model.forward(rng.standard_normal((16, width)))
    grads = backward(model, passed, rng.standard_normal((16, width)))[2]
    return decades(np.linalg.norm(grads[-1]), np.linalg.norm(grads[0]))


def _fault_of_gain(case: Case, answer: object) -> Fault | None:
    activation, depth, width, std = case.args
    gain = as_number(answer, name="the gain")
    scale = gain * std * np.sqrt(width)
    if not 0.0 < scale <= 100.0:
        return Fault("range", f"a gain of {gain:.3g} makes a weight scale of {scale:.3g}.")
    found = measure_decades(activation, scale, depth=depth, width=width, seed=case.hidden)
    if abs(found) <= 1.0:
        return None
    said = "larger" if found > 0 else "smaller"
    return Fault("steep", (
        f"with the gain {gain:.3g} the gradient in layer 1 is {abs(found):.1f} decades {said} "
        f"than in layer {depth}; at most 1 is asked for."
    ))  # fmt: skip


def _scales(scales: dict[str, float], otherwise: float = 1.0) -> Callable:
    """Return a solution that brings the weights to these weight scales."""
    return lambda activation, depth, width, std: (
        scales.get(activation, otherwise) / (std * np.sqrt(width))
    )


def _gives(wrong: Callable) -> Callable[[Case, object, object], bool]:
    """Return whether the gain is that of `wrong`, to within 2 %."""
    return lambda case, answer, expected: abs(answer / wrong(*case.args) - 1.0) < 0.02


def _gain_mistake(name: str, wrong: Callable, message: str) -> Misconception:
    return Misconception(name, wrong, message, recognizes=_gives(wrong))


LEVEL_GAIN = Task(
    id="initialization/level_gain",
    function="level_gain",
    title="A gain that keeps the gradient level",
    points=3,
    cases=_gain_cases,
    reference=_scales(GOOD_SCALES),
    rtol=0.0,
    atol=1.0,
    tolerance_reason=(
        "one decade between the first and the last layer. At the critical gain the draw of the "
        "weights moves it by a quarter of one; the usual tables are off by two and more"
    ),
    judge=judge_by(_fault_of_gain),
    misconceptions=(
        _gain_mistake("one law for all", _scales({}),
                      "This is LeCun's law for every activation. What a layer takes from a "
                      "gradient is decided by its slopes, and they differ."),
        _gain_mistake("He for all", _scales({}, 2**0.5),
                      "He's gain is made for ReLU. For tanh and ELU it is too much, for the "
                      "sigmoid, with its slope of at most a quarter, far too little."),
        _gain_mistake("the table of gains",
                      _scales({"tanh": 5 / 3, "relu": 2**0.5}),
                      "These are the gains of `calculate_gain`. The 5/3 for tanh keeps activations "
                      "level and lets gradients grow; the 1 for the sigmoid does nothing at all."),
        _gain_mistake("weight scale for gain", lambda *args: GOOD_SCALES[args[0]],
                      "These are good weight scales, sqrt(width) times the standard deviation. The "
                      "gain multiplies weights that have a size already: divide by it."),
    ),
    hints=(
        "What counts is the weight scale, gain * std * sqrt(width). Measure: draw a network at "
        "some scale, send one random gradient back, compare the first layer with the last.",
        "Larger weights make the gradient in layer 1 larger, so bisect on the scale between 0.5 "
        "and 30, on a logarithmic axis, with a few networks of width 100.",
        "ReLU: the root of 2. Tanh and ELU: a little above 1. Sigmoid: about 10; then many of its "
        "units are saturated, and the others steep.",
    ),
    time_limit=60.0,
)  # fmt: skip

TASKS = (WEIGHT_STD, DRAW_HE, DRAW_ORTHOGONAL, RELU_MOMENTS, DEFAULT_FACTOR, LEVEL_GAIN)
