r"""The two tasks of the notebook `initialization` that are judged by a law, not by numbers.

How the matrices depend on the seed, their moments over many draws, their singular values: any
generator and any framework will do. Source: he2015delving, saxe2014, mezzadri2007.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from course_lib.checks.compare import as_array
from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import Fault, judge_by, shows

SIX_ERRORS = (
    "six standard errors of each mean over the draws: a right law fails about once in a hundred "
    "million checks, and the nearest wrong one lies far outside"
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
    if 0.97 < np.abs(entries).max() / np.sqrt(wanted) <= 1.0 + 1e-6:  # the limit of a uniform law
        return Fault("limit", said)
    return Fault(near[0] if near else "size", said)


def _normal_draws(std: Callable[[int, int], float]) -> Callable:
    """Return a solution whose weights have the standard deviation std(fan_in, fan_out)."""

    def draw_he(fan_in: int, fan_out: int, seeds: Sequence[int]) -> np.ndarray:
        rngs = [np.random.default_rng(seed) for seed in seeds]
        return np.stack([r.normal(0.0, std(fan_in, fan_out), (fan_out, fan_in)) for r in rngs])

    return draw_he


def _uniform_draws(fan_in: int, fan_out: int, seeds: Sequence[int]) -> np.ndarray:
    limit, shape = np.sqrt(2.0 / fan_in), (fan_out, fan_in)
    return np.stack([np.random.default_rng(s).uniform(-limit, limit, shape) for s in seeds])


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
        _he_mistake("deviation for limit", "limit", _uniform_draws,
                    "A uniform law on [-a, a] has the variance a**2 / 3. If a is the standard "
                    "deviation of He's law, a factor of three is missing."),
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
