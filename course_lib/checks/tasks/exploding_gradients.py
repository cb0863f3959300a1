r"""Tasks on exploding gradients: what grows, what only seems to, and how to see it in time."""

from __future__ import annotations

import math

import numpy as np

from course_lib.checks.compare import as_array
from course_lib.checks.task import Case, Misconception, Task
from course_lib.stability import measure_norm

# Two sizes of one matrix -------------------------------------------------------------------------


def _rotation(angle: float) -> np.ndarray:
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


def _draw_square_matrices(rng: np.random.Generator) -> list[Case]:
    turned = 1.1 * _rotation(rng.uniform(0.5, 1.0)) @ np.diag([1.0, rng.uniform(1.5, 2.0)])
    negative = -np.diag(rng.uniform(1.0, 2.0, size=3)) + np.triu(rng.normal(size=(3, 3)), 1)
    return [
        Case((turned,), "a matrix with complex eigenvalues"),
        Case((negative,), "a triangular matrix with negative eigenvalues"),
        Case((rng.normal(size=(5, 5)),), "a random matrix of size 5"),
    ]


def two_sizes(matrix: np.ndarray) -> list[float]:
    radius = float(np.abs(np.linalg.eigvals(matrix)).max())
    return [radius, float(np.linalg.norm(matrix, 2))]


TWO_SIZES = Task(
    id="exploding_gradients/two_sizes",
    function="two_sizes",
    title="Spectral radius and spectral norm",
    points=1,
    cases=_draw_square_matrices,
    reference=two_sizes,
    rtol=1e-3,
    atol=1e-6,
    tolerance_reason="eigenvalues in float32 are right to about 1e-4 for matrices far from normal",
    misconceptions=(
        Misconception(
            "largest real part",
            lambda m: [float(np.linalg.eigvals(m).real.max()), two_sizes(m)[1]],
            "The largest real part is not the spectral radius: negative and complex eigenvalues "
            "count with their absolute value.",
        ),
        Misconception(
            "exchanged",
            lambda m: two_sizes(m)[::-1],
            "The two numbers are exchanged. The spectral radius comes from eigenvalues and is "
            "never larger than the norm.",
        ),
        Misconception(
            "Frobenius norm",
            lambda m: [two_sizes(m)[0], float(np.linalg.norm(m))],
            "Without a second argument, `np.linalg.norm` gives the Frobenius norm of a matrix.",
        ),
    ),
    hints=(
        "`np.linalg.eigvals` for the one, singular values for the other.",
        "The largest absolute value of the eigenvalues; `np.linalg.norm(matrix, 2)`.",
    ),
)

# First grow, then vanish -------------------------------------------------------------------------

POWERS = 300


def _draw_sizes(rng: np.random.Generator) -> list[Case]:
    cases = []
    for size in sorted({2, int(rng.integers(3, 6))}):
        growth = float(rng.integers(50, 200))
        cases.append(Case((size, growth), f"size {size} and growth {growth:g}"))
    return cases


def _power_norms(case: Case, answer: object) -> tuple[float, np.ndarray]:
    """The spectral radius of the matrix returned, and the norms of its first powers."""
    size, _ = case.args
    matrix = as_array(answer, shape=(size, size), name="the matrix")
    power, norms = np.eye(size), []
    for _ in range(POWERS):
        power = power @ matrix
        norms.append(measure_norm(power))
    return float(np.abs(np.linalg.eigvals(matrix)).max()), np.array(norms)


def _judge_transient(case: Case, answer: object, expected: object) -> str | None:
    radius, norms = _power_norms(case, answer)
    if radius > 0.9 + 1e-6:
        return f"the spectral radius is {radius:.6g}, more than 0.9."
    if not norms.max() >= case.args[1]:  # so that a nan does not pass
        return f"the largest norm of a power is {norms.max():.3g}, less than {case.args[1]:g}."
    if not norms[-1] <= 1e-3:
        return f"power {len(norms)} still has the norm {norms[-1]:.3g}, more than 0.001."
    return None


def transient_matrix(size: int, growth: float) -> np.ndarray:
    matrix = 0.5 * np.eye(size)
    matrix[0, 1] = 2.0 * growth
    return matrix


TRANSIENT_MATRIX = Task(
    id="exploding_gradients/transient_matrix",
    function="transient_matrix",
    title="Eigenvalues below one, and yet it grows",
    points=2,
    cases=_draw_sizes,
    reference=transient_matrix,
    rtol=0.0,
    atol=1e-6,
    tolerance_reason="eigenvalues are computed; a radius of 0.9 may come out a little above",
    judge=_judge_transient,
    misconceptions=(
        Misconception(
            "normal matrix",
            lambda size, growth: 0.9 * np.eye(size),
            "Your matrix commutes with its transpose. For such a normal matrix norm and spectral "
            "radius agree, and no power can grow.",
            lambda case, answer, expected: _is_normal(np.asarray(answer, dtype=float)),
        ),
        Misconception(
            "eigenvalues above one",
            lambda size, growth: np.diag([1.1] + [0.5] * (size - 1)) + np.eye(size, k=1),
            "With an eigenvalue above 1 the powers grow forever. The growth asked for comes from "
            "the entries beside the diagonal.",
            lambda case, answer, expected: (
                _power_norms(case, answer)[0] > 1.0 and not _is_normal(np.asarray(answer))
            ),
        ),
    ),
    hints=(
        "The eigenvalues of a triangular matrix are its diagonal entries; the others are free.",
        "Square [[a, c], [0, a]] by hand. What does c do?",
        "0.5 on the diagonal and one large entry above it.",
    ),
)


def _is_normal(matrix: np.ndarray) -> bool:
    return bool(np.allclose(matrix @ matrix.T, matrix.T @ matrix))


# The direction that explodes ---------------------------------------------------------------------


def _draw_recurrent_matrices(rng: np.random.Generator) -> list[Case]:
    cases = []
    for size, steps in ((2, 3), (4, 6)):
        matrix = rng.normal(size=(size, size)) + np.triu(2.0 * rng.normal(size=(size, size)), 1)
        cases.append(Case((matrix, steps), f"a matrix of size {size} and {steps} steps"))
    return cases


def _stretch(case: Case, answer: object) -> tuple[np.ndarray, float, float]:
    """The direction returned, its factor on the way back, and the largest possible one."""
    matrix, steps = case.args
    direction = as_array(answer, shape=(len(matrix),), name="the direction")
    backward = np.linalg.matrix_power(matrix.T, steps)
    return direction, float(np.linalg.norm(backward @ direction)), np.linalg.norm(backward, 2)


def _judge_direction(case: Case, answer: object, expected: object) -> str | None:
    direction, factor, largest = _stretch(case, answer)
    length = float(np.linalg.norm(direction))
    if abs(length - 1.0) > 1e-4:
        return f"the direction has the length {length:.6g}, not 1."
    if factor < 0.999 * largest:
        return f"this direction is stretched by {factor:.6g}; another one by {largest:.6g}."
    return None


def worst_gradient(matrix: np.ndarray, steps: int) -> np.ndarray:
    return np.linalg.svd(np.linalg.matrix_power(matrix.T, steps))[2][0]


def _forward_direction(matrix: np.ndarray, steps: int) -> np.ndarray:
    return np.linalg.svd(np.linalg.matrix_power(matrix, steps))[2][0]


def _one_step_direction(matrix: np.ndarray, steps: int) -> np.ndarray:
    return np.linalg.svd(matrix.T)[2][0]


def _points_along(wrong):
    """A direction and its opposite are one and the same."""

    def recognize(case: Case, answer: object, expected: object) -> bool:
        direction = _stretch(case, answer)[0]
        return bool(abs(direction @ wrong(*case.args)) > 0.999 * np.linalg.norm(direction))

    return recognize


WORST_GRADIENT = Task(
    id="exploding_gradients/worst_gradient",
    function="worst_gradient",
    title="The gradient that explodes most",
    points=2,
    cases=_draw_recurrent_matrices,
    reference=worst_gradient,
    rtol=0.0,
    atol=1e-4,
    tolerance_reason="the length to float32; the stretch to 0.1 %, so that any exact method passes",
    judge=_judge_direction,
    misconceptions=(
        Misconception(
            "forward direction",
            _forward_direction,
            "This is the *state* that is stretched most on the way forward. A gradient goes back, "
            "through the transposed matrices.",
            _points_along(_forward_direction),
        ),
        Misconception(
            "one step only",
            _one_step_direction,
            "This is the best direction for a single step. After it the vector points elsewhere; "
            "look at all steps as one matrix.",
            _points_along(_one_step_direction),
        ),
    ),
    hints=(
        "Write the whole way back as one matrix: a gradient g becomes B g.",
        "B is the transposed matrix to the power `steps`. Which vector does B stretch most?",
        "`u, s, vt = np.linalg.svd(B)`: the first row of vt is stretched by s[0].",
    ),
)

# Where a format ends -----------------------------------------------------------------------------


def _draw_factors(rng: np.random.Generator) -> list[Case]:
    cases = []
    for dtype in ("float16", "float32", "float64"):
        steps = int(rng.integers(20, 60))
        # In the middle between two whole numbers of steps, so that no rounding decides.
        factor = round(float(np.finfo(dtype).max) ** (1.0 / (steps + 0.5)), 6)
        cases.append(Case((factor, dtype), f"a factor of {factor} in {dtype}"))
    return cases


def steps_to_overflow(factor: float, dtype: str) -> int:
    return math.floor(math.log(float(np.finfo(dtype).max)) / math.log(factor)) + 1


STEPS_TO_OVERFLOW = Task(
    id="exploding_gradients/steps_to_overflow",
    function="steps_to_overflow",
    title="After how many layers is it infinite?",
    points=1,
    cases=_draw_factors,
    reference=steps_to_overflow,
    rtol=0.0,
    atol=0.0,
    tolerance_reason="a whole number; the factors are chosen so that rounding cannot shift it",
    misconceptions=(
        Misconception(
            "last finite step",
            lambda factor, dtype: steps_to_overflow(factor, dtype) - 1,
            "After so many layers the number is still finite. Asked for is the first infinite one.",
        ),
        Misconception(
            "always double precision",
            lambda factor, dtype: steps_to_overflow(factor, "float64"),
            "Python's own numbers are float64. A float16 ends at 65504, a float32 near 3.4e38.",
        ),
    ),
    hints=(
        "`np.finfo(dtype).max` is the largest number of a format.",
        "factor^k passes the largest number where k log(factor) passes its logarithm.",
    ),
)

# Before the update -------------------------------------------------------------------------------


def _draw_updates(rng: np.random.Generator) -> list[Case]:
    def case(grads: list, limit: float, words: str) -> Case:
        weights = [rng.normal(size=grad.shape) for grad in grads]
        return Case((weights, grads, 0.1, limit), words)

    def two_grads(norms: tuple[float, float]) -> list[np.ndarray]:
        drawn = [rng.normal(size=(2, 2)), rng.normal(size=2)]
        return [norm * g / np.linalg.norm(g) for norm, g in zip(norms, drawn, strict=True)]

    broken = two_grads((0.3, 0.4))
    broken[1][0] = np.nan
    endless = two_grads((0.3, 0.4))
    endless[0][1, 1] = np.inf
    return [
        case(two_grads((0.3, 0.4)), 1.0, "a gradient well below the limit"),
        case(two_grads((0.7, 0.6)), 1.0, "norms of 0.7 and 0.6 and a limit of 1"),
        case(two_grads((0.9, 0.8)), 1.0, "norms of 0.9 and 0.8 and a limit of 1"),
        case(broken, 1.0, "a NaN in the second gradient"),
        case(endless, 1.0, "an infinite entry in the first gradient"),
    ]


def _update(weights: list, grads: list, learning_rate: float, allowed: bool) -> dict:
    if not allowed:
        return {"skipped": True, "weights": weights}
    new = [w - learning_rate * g for w, g in zip(weights, grads, strict=True)]
    return {"skipped": False, "weights": new}


def guarded_update(weights: list, grads: list, learning_rate: float, limit: float) -> dict:
    norm = math.sqrt(sum(float(np.sum(grad**2)) for grad in grads))
    return _update(weights, grads, learning_rate, norm <= limit)


def _not_above(weights: list, grads: list, learning_rate: float, limit: float) -> dict:
    norm = math.sqrt(sum(float(np.sum(grad**2)) for grad in grads))
    return _update(weights, grads, learning_rate, not norm > limit)


def _each_alone(weights: list, grads: list, learning_rate: float, limit: float) -> dict:
    allowed = all(float(np.linalg.norm(grad)) <= limit for grad in grads)
    return _update(weights, grads, learning_rate, allowed)


def _sum_of_norms(weights: list, grads: list, learning_rate: float, limit: float) -> dict:
    norm = sum(float(np.linalg.norm(grad)) for grad in grads)
    return _update(weights, grads, learning_rate, norm <= limit)


GUARDED_UPDATE = Task(
    id="exploding_gradients/guarded_update",
    function="guarded_update",
    title="An explosion seen before the update",
    points=2,
    cases=_draw_updates,
    reference=guarded_update,
    rtol=1e-5,
    atol=1e-6,
    tolerance_reason="one step of gradient descent in float32 is right to about 1e-7",
    misconceptions=(
        Misconception(
            "NaN slips through",
            _not_above,
            "A NaN is not greater than the limit, and not smaller either: every comparison with "
            "it is false. Ask what you allow, `norm <= limit`, and not what you forbid.",
        ),
        Misconception(
            "each gradient alone",
            _each_alone,
            "Each gradient is below the limit, all of them together are not. The global norm is "
            "the length of all entries as one vector.",
        ),
        Misconception(
            "sum of the norms",
            _sum_of_norms,
            "This adds the norms, as Lecture 3 does, and rings too early. The global norm is the "
            "root of the sum of their squares.",
        ),
    ),
    hints=(
        "First the global norm: the root of the sum of the squares of all entries.",
        "What does `float('nan') > 1` give? And `float('nan') <= 1`?",
        "If `norm <= limit` is true, return w - learning_rate * g for each; else the weights.",
    ),
    frameworks=("pytorch", "tf"),
)

TASKS = (TWO_SIZES, STEPS_TO_OVERFLOW, GUARDED_UPDATE, TRANSIENT_MATRIX, WORST_GRADIENT)
