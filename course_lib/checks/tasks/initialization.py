r"""Tasks on initialization: the variance of the weights, derived, drawn and chosen.

Random matrices are judged by their law and not by their numbers: how they depend on the seed,
their moments over many draws, their singular values. So any generator and any framework will do.
Source: lecun1998efficient, glorot2010, he2015delving, saxe2014, mezzadri2007.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from course_lib.checks.compare import as_array, as_number
from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import FLOAT32, Fault, judge_by, shows
from course_lib.initialization import draw_matrix
from course_lib.reference.mlp import MLP, backward
from course_lib.results import decades

SIX_ERRORS = (
    "six standard errors of each mean over the draws: a right law fails about once in a hundred "
    "million checks, and the nearest wrong one lies far outside"
)


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


# --- He's law, drawn


def _repeat_first(rng: np.random.Generator, count: int) -> list[int]:
    """Return `count` different seeds, and the first one once more at the end."""
    seeds = [int(s) for s in rng.choice(10_000, size=count, replace=False)]
    return [*seeds, seeds[0]]


def _he_cases(rng: np.random.Generator) -> list[Case]:
    wide, narrow = int(rng.integers(90, 130)), int(rng.integers(30, 50))
    seeds = _repeat_first(rng, 6)
    return [
        Case((a, b, seeds), f"{a} inputs, {b} units and {len(seeds)} seeds, two of them equal")
        for a, b in ((wide, narrow), (narrow, wide))
    ]


def _read_draws(
    answer: object, shape: tuple[int, int], seeds: list[int]
) -> tuple[np.ndarray, Fault | None]:
    """Return one matrix per seed, and what is wrong with their shapes or their seeds, if it is."""
    if shape[0] != shape[1] and np.shape(answer) == (len(seeds), *shape[::-1]):
        said = f"got shape {shape[::-1]} for each matrix, expected {shape}."
        return np.zeros(0), Fault("transposed", said)
    draws = as_array(answer, shape=(len(seeds), *shape), name="the matrices")
    if not np.array_equal(draws[0], draws[-1]):
        return draws, Fault("unseeded", "the first and the last seed are equal, the matrices not.")
    if any(np.array_equal(draws[0], other) for other in draws[1:-1]):
        return draws, Fault("one matrix", "two different seeds give the same matrix.")
    return draws, None


def _fault_of_he(case: Case, answer: object) -> Fault | None:
    n_in, n_out, seeds = case.args
    draws, fault = _read_draws(answer, (n_out, n_in), seeds)
    if fault:
        return fault
    entries = draws[:-1].ravel()
    wanted, found = 2.0 / n_in, float(np.mean(entries**2))
    # What independent entries have as their largest singular value, to within a few percent.
    edge = np.sqrt(found) * (np.sqrt(n_in) + np.sqrt(n_out))
    top = float(np.max(np.linalg.norm(draws, 2, axis=(1, 2))))
    if abs(top - edge) > 0.2 * edge:
        said = f"independent entries have a largest singular value near {edge:.3g}, got {top:.3g}."
        return Fault("dependent", said)
    if abs(entries.mean()) > 6.0 * np.sqrt(found / entries.size):
        return Fault("mean", f"expected weights with mean 0, got a mean of {entries.mean():.3g}.")
    laws = {"he": wanted, "variance": wanted**2, "fan_out": 2.0 / n_out,
            "glorot": 2.0 / (n_in + n_out)}  # fmt: skip
    # The mean square of N normal entries has a relative standard error of sqrt(2/N).
    near = [k for k, v in laws.items() if abs(found / v - 1.0) <= 6.0 * np.sqrt(2.0 / entries.size)]
    if "he" in near:
        return None
    said = f"expected weights with mean square {wanted:.4g}, got {found:.4g}."
    return Fault(near[0] if near else "size", said)


def _normal_draws(std: Callable[[int, int], float]) -> Callable:
    """Return a solution whose weights have the standard deviation std(fan_in, fan_out)."""

    def draw_he(fan_in: int, fan_out: int, seeds: Sequence[int]) -> np.ndarray:
        rngs = [np.random.default_rng(seed) for seed in seeds]
        return np.stack([r.normal(0.0, std(fan_in, fan_out), (fan_out, fan_in)) for r in rngs])

    return draw_he


_he = _normal_draws(lambda n_in, n_out: np.sqrt(2.0 / n_in))


def _he_mistake(name: str, key: str, wrong: Callable, message: str) -> Misconception:
    return Misconception(name, wrong, message, recognizes=shows(_fault_of_he, key))


DRAW_HE = Task(
    id="initialization/draw_he",
    function="draw_he",
    title="He's law, drawn",
    points=2,
    cases=_he_cases,
    reference=_he,
    rtol=0.0,
    atol=0.0,
    tolerance_reason=SIX_ERRORS,
    judge=judge_by(_fault_of_he),
    misconceptions=(
        _he_mistake("variance for standard deviation", "variance",
                    _normal_draws(lambda n, m: 2.0 / n),
                    "The generator was given the variance where it wants a standard deviation."),
        _he_mistake("fan_out", "fan_out", _normal_draws(lambda n, m: np.sqrt(2.0 / m)),
                    "This is the law with fan_out, which keeps the size of the gradients. The "
                    "activations are sums of fan_in terms."),
        _he_mistake("Glorot's law", "glorot", _normal_draws(lambda n, m: np.sqrt(2.0 / (n + m))),
                    "This is Glorot's law. It was derived without an activation, and behind ReLU "
                    "it loses a factor per layer."),
        _he_mistake("Keras's layout", "transposed", lambda n, m, s: _he(n, m, s).swapaxes(1, 2),
                    "This is Keras's kernel, for x @ kernel. Asked for is W with z = W h, one row "
                    "for each unit."),
        _he_mistake("seed ignored", "unseeded", lambda n, m, s: _he(n, m, range(len(s))),
                    "Each matrix must be a function of its seed alone: make a new generator from "
                    "each seed."),
        _he_mistake("one seed for all", "one matrix", lambda n, m, s: _he(n, m, [0] * len(s)),
                    "A seed that is written into the function makes all layers equal, and equal "
                    "layers learn the same. Use the seeds that are handed in."),
        _he_mistake("equal rows", "dependent", lambda n, m, s: np.repeat(_he(n, 1, s), m, axis=1),
                    "The variance is right and the entries are not independent. Units that start "
                    "equal get equal gradients and stay equal."),
    ),
    hints=(
        "Keep the mean square of the activations behind a ReLU. Which of the two fans is the "
        "number of terms in z?",
        "The variance is 2 / fan_in. NumPy's `normal` wants a standard deviation. In PyTorch it is "
        "`nn.init.kaiming_normal_(w, nonlinearity='relu', generator=...)`; in Keras "
        "`keras.initializers.HeNormal(seed)`, and its kernel is the transpose.",
        "For each seed: rng = np.random.default_rng(seed), then "
        "rng.normal(0, np.sqrt(2 / fan_in), (fan_out, fan_in)).",
    ),
    time_limit=10.0,  # a framework may have to be loaded
    frameworks=("pytorch", "tf"),
)  # fmt: skip


# --- orthogonal weights


def _orthogonal_cases(rng: np.random.Generator) -> list[Case]:
    long, short = int(rng.integers(20, 30)), int(rng.integers(8, 16))
    few, many = _repeat_first(rng, 3), _repeat_first(rng, 150)
    return [
        Case((long, short, few), f"a tall matrix of shape ({long}, {short})"),
        Case((short, long, few), f"a wide matrix of shape ({short}, {long})"),
        Case((4, 4, many), f"{len(many)} square matrices of shape (4, 4)"),
    ]


def _fault_of_orthogonal(case: Case, answer: object) -> Fault | None:
    rows, columns, seeds = case.args
    draws, fault = _read_draws(answer, (rows, columns), seeds)
    if fault:
        return fault
    values = np.linalg.svd(draws, compute_uv=False)
    if np.max(np.abs(values - 1.0)) > 1e-4:
        said = f"expected singular values of 1, got {values.min():.3g} to {values.max():.3g}."
        if np.max(np.abs(np.linalg.norm(draws, axis=2) - 1.0)) < 1e-4:
            return Fault("unit rows", said)
        return Fault("top" if np.max(np.abs(values[:, 0] - 1.0)) < 1e-4 else "values", said)
    # The entries of a uniform orthogonal n x n matrix have mean 0 and variance 1/n.
    mean = np.abs(draws[:-1].mean(axis=0)).max()
    if len(seeds) > 100 and mean > 6.0 / np.sqrt(rows * (len(seeds) - 1)):
        said = f"expected every entry to have mean 0 over the seeds, got up to {mean:.2f}."
        return Fault("signs", said)
    return None


def _finished(finish: Callable[[np.ndarray], np.ndarray]) -> Callable:
    """Return a solution that makes each matrix of a Gaussian one."""

    def draw_orthogonal(rows: int, columns: int, seeds: Sequence[int]) -> np.ndarray:
        gaussians = [np.random.default_rng(s).normal(size=(rows, columns)) for s in seeds]
        return np.stack([finish(a) for a in gaussians])

    return draw_orthogonal


def _plain_qr(gaussian: np.ndarray) -> np.ndarray:
    rows, columns = gaussian.shape
    return np.linalg.qr(gaussian)[0] if rows >= columns else np.linalg.qr(gaussian.T)[0].T


def _signed_qr(gaussian: np.ndarray) -> np.ndarray:
    rows, columns = gaussian.shape
    if rows < columns:
        return _signed_qr(gaussian.T).T
    q, r = np.linalg.qr(gaussian)
    return q * np.sign(np.diag(r))


def _orthogonal_mistake(name: str, key: str, wrong: Callable, message: str) -> Misconception:
    return Misconception(name, wrong, message, recognizes=shows(_fault_of_orthogonal, key))


DRAW_ORTHOGONAL = Task(
    id="initialization/draw_orthogonal",
    function="draw_orthogonal",
    title="Orthogonal weights, drawn",
    points=2,
    cases=_orthogonal_cases,
    reference=_finished(_signed_qr),
    rtol=0.0,
    atol=1e-4,
    tolerance_reason=f"singular values to 1e-4, which float32 keeps; means to {SIX_ERRORS}",
    judge=judge_by(_fault_of_orthogonal),
    misconceptions=(
        _orthogonal_mistake(
            "unit rows", "unit rows",
            _finished(lambda a: a / np.linalg.norm(a, axis=1, keepdims=True)),
            "Every row has length 1, but they do not stand at right angles: lengths alone do not "
            "make a matrix orthogonal.",
        ),
        _orthogonal_mistake(
            "spectral norm 1", "top", _finished(lambda a: a / np.linalg.norm(a, 2)),
            "Only the largest singular value is 1. A factor on the whole matrix cannot bring the "
            "others up to it.",
        ),
        _orthogonal_mistake(
            "seed ignored", "unseeded",
            lambda rows, columns, s: _finished(_signed_qr)(rows, columns, range(len(s))),
            "Two layers with one seed must be equal, or no run could be repeated: make a new "
            "generator from each seed.",
        ),
        _orthogonal_mistake(
            "signs left to QR", "signs", _finished(_plain_qr),
            "Each matrix is orthogonal, but their law is not uniform: QR leaves the signs of its "
            "columns to the algorithm. Multiply them by the signs of R's diagonal.",
        ),
    ),
    hints=(
        "The QR decomposition of a Gaussian matrix has orthonormal columns. A wide matrix cannot "
        "have them: what can it have instead?",
        "Decompose whichever of the matrix and its transpose is tall, and transpose back.",
        "Q times the signs of R's diagonal, column by column, is uniform over the orthogonal "
        "matrices. `nn.init.orthogonal_` and `keras.initializers.Orthogonal` do just that.",
    ),
    time_limit=10.0,  # a framework may have to be loaded
    frameworks=("pytorch", "tf"),
)  # fmt: skip


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
    time_limit=10.0,
)  # fmt: skip

TASKS = (WEIGHT_STD, DRAW_HE, DRAW_ORTHOGONAL, RELU_MOMENTS, DEFAULT_FACTOR, LEVEL_GAIN)
