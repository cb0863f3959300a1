r"""Tasks on diagnosis: norms, histograms, monitoring, a check that fails, six unlabelled runs.

Source: glorot2010, pascanu2013.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np

from course_lib.checks.compare import AnswerError, as_array, as_number
from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import Fault, judge_by, shows
from course_lib.checks.tasks._six_runs import DIAGNOSE
from course_lib.losses import evaluate_loss
from course_lib.reference.mlp import MLP, backward
from course_lib.stability import measure_norm

# --- a norm that can be trusted


def _norm_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for size, said in ((1.0, "entries around 1"), (1e-30, "entries around 1e-30"),
                       (1e25, "entries around 1e25"), (0.0, "zeros")):  # fmt: skip
        g = (size * rng.normal(size=(4, int(rng.integers(3, 9))))).astype(np.float32)
        cases.append(Case((g,), f"a float32 gradient with {said}"))
    return cases


def _norm_in_float32(g: np.ndarray) -> float:
    with np.errstate(over="ignore", under="ignore"):
        return float(np.sqrt(np.sum(np.square(g), dtype=np.float32)))


SAFE_NORM = Task(
    id="diagnosis/safe_norm",
    function="safe_norm",
    title="A norm that can be trusted",
    points=1,
    cases=_norm_cases,
    reference=lambda g: measure_norm(g.astype(np.float64)),
    rtol=1e-5,
    atol=0.0,
    tolerance_reason="a float32 sum over forty entries is right to 1e-6 or better",
    misconceptions=(
        Misconception(
            "squares in float32",
            _norm_in_float32,
            "The squares were taken in float32: 1e-30 squared is zero there, and 1e25 squared is "
            "infinite. A healthy gradient is then reported as vanished or exploded.",
        ),
        Misconception(
            "squared norm",
            lambda g: float(np.sum(g.astype(np.float64) ** 2)),
            "The root is missing: this is the square of the norm.",
        ),
        Misconception(
            "spectral norm",
            lambda g: float(np.linalg.norm(g.astype(np.float64), 2)),
            "This is the largest singular value of the matrix. The norm of a gradient is the "
            "length of all its entries as one vector.",
        ),
    ),
    hints=(
        "What is the square of 1e-30 in float32, whose smallest number is about 1e-45?",
        "Convert to float64 before squaring.",
    ),
    time_limit=10.0,  # a framework may have to be loaded
    frameworks=("pytorch", "tf"),
)


# --- a histogram over decades


def _histogram_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for count in (40, 60):
        g = rng.choice([-1.0, 1.0], size=count) * 10.0 ** rng.uniform(-7.95, -0.05, size=count)
        g[rng.choice(count, size=12, replace=False)] = [0.0] * 8 + [np.nan, np.inf, -np.inf, np.nan]
        edges = np.arange(-8.0, 1.0)
        words = f"{count} entries, 8 of them zero, and the edges -8 to 0"
        cases.append(Case((g, edges), words))
    return cases


def _histogram(g: np.ndarray, edges: np.ndarray, *, floor: float = 0.0, top: bool = False) -> dict:
    """Count by decades; `floor` is added to every magnitude, `top` keeps the infinities."""
    finite = np.isfinite(g)
    magnitudes = np.abs(g[finite]) + floor
    counts = np.histogram(np.log10(magnitudes[magnitudes > 0.0]), edges)[0]
    if top:
        counts = counts + (np.arange(len(counts)) == len(counts) - 1) * int(np.isinf(g).sum())
    lost = int((~finite).sum()) - (int(np.isinf(g).sum()) if top else 0)
    return {"counts": counts, "zeros": int((magnitudes == 0.0).sum()), "nonfinite": lost}


def _positive_only(g: np.ndarray, edges: np.ndarray) -> dict:
    """What `log10` without the absolute value leaves: negative entries become NaN."""
    with np.errstate(invalid="ignore", divide="ignore"):
        logs = np.log10(g)
    counts = np.histogram(logs[np.isfinite(logs)], edges)[0]
    return {"counts": counts, "zeros": int((g == 0.0).sum()),
            "nonfinite": int((~np.isfinite(g)).sum())}  # fmt: skip


HISTOGRAM = Task(
    id="diagnosis/histogram",
    function="count_by_decade",
    title="A histogram that hides nothing",
    points=2,
    cases=_histogram_cases,
    reference=_histogram,
    rtol=0.0,
    atol=0.0,
    tolerance_reason="whole numbers: nothing is rounded",
    misconceptions=(
        Misconception(
            "sign forgotten",
            _positive_only,
            "Half of the entries are missing: a negative number has no logarithm. Count "
            "magnitudes.",
        ),
        Misconception(
            "zeros hidden in the lowest bin",
            lambda g, edges: _histogram(g, edges, floor=10.0 ** (edges[0] + 0.01)),
            "A small number was added before the logarithm, so the zeros appear as tiny gradients. "
            "A gradient that is exactly zero is another finding: count it apart.",
        ),
        Misconception(
            "infinities in the highest bin",
            functools.partial(_histogram, top=True),
            "The infinities were counted as large gradients. They are not finite, like NaN, and "
            "belong beside the histogram.",
        ),
    ),
    hints=(
        "Three groups: not finite, exactly zero, and the rest. Only the rest has a logarithm.",
        "np.histogram(np.log10(np.abs(rest)), edges)[0] counts it.",
    ),
)


# --- monitoring in the training loop (Lecture 3's first assignment)


def _monitor_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for sizes, rate in (((5, 7, 6, 3), 0.5), ((4, 5, 5, 5, 2), 1.0)):
        x = rng.normal(size=(20, sizes[0]))
        y = rng.integers(0, sizes[-1], size=20)
        pairs = list(pairwise(sizes))
        weights = [rng.normal(0.0, 1.5 / np.sqrt(n), (m, n)) for n, m in pairs]
        biases = [0.1 * rng.normal(size=m) for _, m in pairs]
        steps = int(rng.integers(6, 10))
        words = f"{len(pairs)} layers, {steps} steps and a learning rate of {rate:g}"
        cases.append(Case((x, y, weights, biases, rate, steps), words))
    return cases


def _monitor(
    x: np.ndarray, y: np.ndarray, weights: Sequence[np.ndarray], biases: Sequence[np.ndarray],
    rate: float, steps: int, *, accumulate: bool = False,
    measure: Callable[[np.ndarray, np.ndarray], float] = lambda w, b: np.linalg.norm(w),
) -> np.ndarray:  # fmt: skip
    """Train a tanh network by SGD and return the norms that `measure` takes before each update."""
    activations = ("tanh",) * (len(weights) - 1) + ("linear",)
    model = MLP([w.copy() for w in weights], [b.copy() for b in biases], activations)
    held, norms = None, []
    for _ in range(steps):
        passed = model.forward(x)
        _, output_grad = evaluate_loss(passed.activations[-1], y, loss="cross_entropy")
        weight_grads, bias_grads, _ = backward(model, passed, output_grad)
        grads = [*weight_grads, *bias_grads]
        held = [a + g for a, g in zip(held, grads, strict=True)] if accumulate and held else grads
        depth = len(weights)
        norms.append([measure(w, b) for w, b in zip(held[:depth], held[depth:], strict=True)])
        for parameter, grad in zip([*model.matrices, *model.biases], held, strict=True):
            parameter -= rate * grad
    return np.array(norms)


def _after_the_update(*args: object) -> np.ndarray:
    return _monitor(*args[:-1], args[-1] + 1)[1:]


MONITOR = Task(
    id="diagnosis/monitor_training",
    function="monitor_training",
    title="Monitoring in the training loop",
    points=3,
    cases=_monitor_cases,
    reference=_monitor,
    rtol=1e-3,
    atol=1e-6,
    tolerance_reason=(
        "a part in a thousand: ten steps in float32 stay within 1e-4, and every foreseen mistake "
        "is off by a percent and more"
    ),
    misconceptions=(
        Misconception(
            "gradients that add up",
            functools.partial(_monitor, accumulate=True),
            "From the second step on each gradient holds those of all steps before: in PyTorch "
            "`zero_grad` is missing. The training goes wrong with it, not only the monitor.",
        ),
        Misconception(
            "one step late",
            _after_the_update,
            "The first row must belong to the weights as they were handed in: measure after the "
            "backward pass and before the update.",
        ),
        Misconception(
            "biases included",
            functools.partial(
                _monitor, measure=lambda w, b: np.hypot(np.linalg.norm(w), np.linalg.norm(b))
            ),
            "The gradients of the biases are in these norms. Asked for are the weight matrices.",
        ),
        Misconception(
            "squares",
            functools.partial(_monitor, measure=lambda w, b: np.sum(w**2)),
            "These are squared norms: the root is missing.",
        ),
        Misconception(
            "mean of magnitudes",
            functools.partial(_monitor, measure=lambda w, b: np.mean(np.abs(w))),
            "This is the mean of the absolute entries. It is no norm, and it depends on how many "
            "entries a matrix has.",
        ),
    ),
    hints=(
        "In each step: forward, loss, backward; then write down the norms; then update.",
        "PyTorch: p.grad.norm() after loss.backward() and before optimizer.step(), with "
        "optimizer.zero_grad() in front. TensorFlow: tape.gradient, then tf.norm, then assign_sub; "
        "a Keras kernel is the transpose of W.",
        "In NumPy `course_lib.reference.gradient_flow(model, x, y, loss='cross_entropy')` has "
        "`weight_grad_norms`.",
    ),
    time_limit=20.0,
    frameworks=("pytorch", "tf"),
)


# --- the check of Lecture 2, deceived


def _check_cases(rng: np.random.Generator) -> list[Case]:
    cases = []
    for layers in rng.choice(np.arange(6, 20), size=2, replace=False):
        norms = np.exp(rng.uniform(-1.0, 1.0, size=layers))
        low, high = 10.0 ** rng.uniform(-8.0, -5.0), 10.0 ** rng.uniform(2.0, 3.5)
        words = f"{layers} layers and the limits {low:.1e} and {high:.0f}"
        cases.append(Case((norms, float(low), float(high)), words))
    return cases


def _fault_of_deception(case: Case, answer: object) -> Fault | None:
    norms, low, high = case.args
    if not isinstance(answer, dict) or not {"small", "large", "missed"} <= answer.keys():
        raise AnswerError("expected a dictionary with the keys 'small', 'large' and 'missed'.")
    small, large = (as_number(answer[k], name=f"the factor {k!r}") for k in ("small", "large"))
    missed = as_array(answer["missed"], shape=norms.shape, name="the norms 'missed'")
    total, hidden = np.linalg.norm(norms), np.linalg.norm(missed)
    if small <= 0.0 or large <= 0.0 or missed.min() <= 0.0:
        return Fault("sign", "expected factors and norms above zero, got one that is not.")
    if small * total >= low:
        said = f"with the factor {small:.3g} the total norm is {small * total:.3g}"
        return Fault("small", f"{said}, which the check accepts.")
    if large * total <= high:
        said = f"with the factor {large:.3g} the total norm is {large * total:.3g}"
        return Fault("large", f"{said}, which the check accepts.")
    if not low <= hidden <= high:
        return Fault("seen", f"the norms 'missed' have a total of {hidden:.3g}: the check warns.")
    ratio = missed[-1] / missed[0]
    if ratio < 1e6:
        said = f"expected the last of 'missed' at 1e6 times the first, got {ratio:.3g} times."
        return Fault("reversed" if ratio <= 1e-6 else "flat", said)
    return None


def _deceive(*, ratio: float = 1e7, step: float = 10.0) -> Callable:
    """Return a solution whose missed norms fall from the last layer to the first by `ratio`."""

    def deceive(norms: np.ndarray, low: float, high: float) -> dict:
        total = np.linalg.norm(norms)
        missed = np.geomspace(1.0 / max(ratio, 1.0), 1.0 / max(1.0 / ratio, 1.0), len(norms))
        return {"small": low / step / total, "large": step * high / total, "missed": missed}

    return deceive


def _deception(name: str, key: str, wrong: Callable, message: str) -> Misconception:
    return Misconception(name, wrong, message, recognizes=shows(_fault_of_deception, key))


DECEIVE = Task(
    id="diagnosis/deceive",
    function="deceive",
    title="The check of Lecture 2, deceived",
    points=2,
    cases=_check_cases,
    reference=_deceive(),
    rtol=0.0,
    atol=0.0,
    tolerance_reason="inequalities that a factor of ten satisfies with room to spare",
    judge=judge_by(_fault_of_deception),
    misconceptions=(
        _deception("first and last exchanged", "reversed", _deceive(ratio=1e-7),
                   "The norms are listed from the first layer on. A gradient vanishes on its way "
                   "back, so the first layer's must be the small one."),
        _deception("all layers small", "seen",
                   lambda norms, low, high: _deceive()(norms, low, high)
                   | {"missed": np.geomspace(1e-17, 1e-10, len(norms))},
                   "With all norms small the check is right to warn. It looks at the total, which "
                   "the largest layer decides: keep that one ordinary."),
        _deception("a factor of zero", "sign",
                   lambda norms, low, high: _deceive()(norms, low, high) | {"small": 0.0},
                   "A loss times zero is another loss. In other units it is multiplied by a "
                   "positive number, and nothing about the training changes but the rate."),
    ),
    hints=(
        "Multiply a loss by c, and every gradient is multiplied by c. Divide the learning rate by "
        "c, and the training is the same.",
        "The total norm is the root of the sum of squares: the largest layer hides the others.",
        "np.geomspace(1e-7, 1, layers) has an ordinary total and has vanished all the same.",
    ),
)  # fmt: skip

TASKS = (SAFE_NORM, HISTOGRAM, MONITOR, DECEIVE, DIAGNOSE)
