r"""Tasks on the chain rule: which matrices, in which order, with which slopes, and how large."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np

from course_lib.checks.compare import as_arrays
from course_lib.checks.task import IN_FLOAT32, Case, Misconception, Task


def sigmoid(z: np.ndarray) -> np.ndarray:
    return 1.0 / (1.0 + np.exp(-z))


def sigmoid_slope(z: np.ndarray) -> np.ndarray:
    return sigmoid(z) * (1.0 - sigmoid(z))


# A layer's Jacobian -----------------------------------------------------------------------------


def _draw_layers(rng: np.random.Generator) -> list[Case]:
    cases = []
    for n_out, n_in in ((2, 3), (4, 4), (1, 1)):
        args = (rng.normal(size=(n_out, n_in)), rng.normal(size=n_out), rng.normal(size=n_in))
        cases.append(Case(args, f"a layer with {n_in} inputs and {n_out} outputs"))
    return cases


def layer_jacobian(weight: np.ndarray, bias: np.ndarray, h: np.ndarray) -> np.ndarray:
    slope = 1.0 - np.tanh(weight @ h + bias) ** 2
    return slope[:, None] * weight


def _slope_times_columns(weight: np.ndarray, bias: np.ndarray, h: np.ndarray) -> np.ndarray:
    return weight * (1.0 - np.tanh(weight @ h + bias) ** 2)


def _slope_at_activation(weight: np.ndarray, bias: np.ndarray, h: np.ndarray) -> np.ndarray:
    slope = 1.0 - np.tanh(np.tanh(weight @ h + bias)) ** 2
    return slope[:, None] * weight


LAYER_JACOBIAN = Task(
    id="chain_rule/layer_jacobian",
    function="layer_jacobian",
    title="The Jacobian of one layer",
    points=1,
    cases=_draw_layers,
    reference=layer_jacobian,
    rtol=1e-4,
    atol=1e-5,
    tolerance_reason=IN_FLOAT32,
    misconceptions=(
        Misconception(
            "slopes on the columns",
            _slope_times_columns,
            "Each slope has met a column of the matrix. An output's slope scales its row, in "
            "NumPy: `slope[:, None] * weight`.",
        ),
        Misconception(
            "transposed",
            lambda *args: layer_jacobian(*args).T,
            "This is the transpose: it has one row for each input. The Jacobian has one row for "
            "each output.",
        ),
        Misconception(
            "slope at the activation",
            _slope_at_activation,
            "The slope was taken at tanh(z), one tanh too late. The derivative of tanh at z is "
            "1 - tanh(z)².",
        ),
    ),
    hints=(
        "Entry (i, j) is the derivative of output i with respect to input j.",
        "With z = W h + b, entry (i, j) is tanh'(z_i) times W_ij: row i is scaled by one slope.",
    ),
)

# An ordered product -----------------------------------------------------------------------------


def _draw_jacobians(rng: np.random.Generator) -> list[Case]:
    """Chains with unequal widths, where a wrong order does not multiply, and with equal ones."""
    cases = []
    for widths in ([3, 4, 2], [2, 3, 3, 4], [3, 3, 3, 3]):
        jacobians = [rng.normal(size=(n_out, n_in)) for n_in, n_out in pairwise(widths)]
        said = ", ".join(map(str, widths[:-1]))
        cases.append(Case((jacobians,), f"layers of widths {said} and {widths[-1]}"))
    return cases


def ordered_product(jacobians: list[np.ndarray]) -> np.ndarray:
    product = jacobians[0]
    for jacobian in jacobians[1:]:
        product = jacobian @ product
    return product


def _multiply_as_listed(jacobians: list[np.ndarray]) -> np.ndarray:
    return ordered_product(jacobians[::-1])


def _multiply_transposed(jacobians: list[np.ndarray]) -> np.ndarray:
    return ordered_product(jacobians).T


ORDERED_PRODUCT = Task(
    id="chain_rule/ordered_product",
    function="ordered_product",
    title="An ordered product of Jacobians",
    points=1,
    cases=_draw_jacobians,
    reference=ordered_product,
    rtol=1e-4,
    atol=1e-5,
    tolerance_reason=IN_FLOAT32,
    misconceptions=(
        Misconception(
            "as listed",
            _multiply_as_listed,
            "These are the right factors in the order in which they are listed. The matrix that "
            "acts last must stand leftmost.",
        ),
        Misconception(
            "transposed",
            _multiply_transposed,
            "This is the transpose of the right product: it maps a gradient, as a column, from "
            "the last layer back to the first. The Jacobian has one row for each output.",
        ),
    ),
    hints=(
        "The layer that acts last stands leftmost, as in f(g(x)).",
        "Start with the first matrix and multiply each later one from the left.",
    ),
)

# Lecture 0's formula repaired -------------------------------------------------------------------


def _draw_chains(rng: np.random.Generator) -> list[Case]:
    cases = []
    for widths in ([3, 2, 4], [3, 3, 3, 3]):
        weights = [rng.normal(size=(n_out, n_in)) for n_in, n_out in pairwise(widths)]
        z = [2.0 * rng.normal(size=width) for width in widths]
        said = ", ".join(map(str, widths[:-1]))
        words = f"layers of widths {said} and {widths[-1]}"
        cases.append(Case((weights, z, rng.normal(size=widths[-1])), words))
    return cases


def repaired_gradient(
    weights: list[np.ndarray], z: list[np.ndarray], output_grad: np.ndarray
) -> np.ndarray:
    grad = output_grad
    for weight, z_l in zip(weights[::-1], z[:0:-1], strict=True):
        grad = weight.T @ (sigmoid_slope(z_l) * grad)
    return grad


def _slope_of_the_layer_before(weights: list, z: list, output_grad: np.ndarray) -> np.ndarray:
    return repaired_gradient(weights, [z[0], *z[:-1]], output_grad)


def _first_layer_first(weights: list, z: list, output_grad: np.ndarray) -> np.ndarray:
    grad = output_grad
    for weight, z_l in zip(weights, z[1:], strict=True):
        grad = weight.T @ (sigmoid_slope(z_l) * grad)
    return grad


def _between_preactivations(weights: list, z: list, output_grad: np.ndarray) -> np.ndarray:
    grad = output_grad
    for weight, z_l in zip(weights[::-1], z[-2::-1], strict=True):
        grad = sigmoid_slope(z_l) * (weight.T @ grad)
    return grad


REPAIRED_GRADIENT = Task(
    id="chain_rule/repaired_gradient",
    function="repaired_gradient",
    title="Lecture 0's formula, repaired",
    points=2,
    cases=_draw_chains,
    reference=repaired_gradient,
    rtol=1e-4,
    atol=1e-6,
    tolerance_reason=IN_FLOAT32,
    misconceptions=(
        Misconception(
            "slope at the layer before",
            _slope_of_the_layer_before,
            "This is Lecture 0's index: the slope of layer l is taken at z of layer l-1. Since "
            "h_l = f(z_l), it belongs at z_l.",
        ),
        Misconception(
            "first layer first",
            _first_layer_first,
            "The factors are right and their order is not. A gradient that comes from the loss "
            "meets the last layer first.",
        ),
        Misconception(
            "between preactivations",
            _between_preactivations,
            "This chain runs from z to z: each slope stands behind its matrix. Between "
            "activations the slope at z_l acts first, then the transposed matrix.",
        ),
    ),
    hints=(
        "Check the shapes with unequal widths: a slope vector of layer l has n_l entries.",
        "One step back: from the gradient at h_l to the one at h_(l-1) = W_l^T (f'(z_l) * grad).",
        "Walk through the layers from the last to the second, and start from `output_grad`.",
    ),
)

# A perceptron by hand ---------------------------------------------------------------------------


def _draw_perceptrons(rng: np.random.Generator) -> list[Case]:
    cases = []
    for batch, n_in, hidden, n_out in ((5, 3, 4, 2), (4, 3, 3, 3)):
        args = (
            rng.normal(size=(hidden, n_in)), rng.normal(size=hidden),
            rng.normal(size=(n_out, hidden)), rng.normal(size=n_out),
            rng.normal(size=(batch, n_in)), rng.normal(size=(batch, n_out)),
        )  # fmt: skip
        cases.append(Case(args, f"{batch} examples and widths {n_in}, {hidden} and {n_out}"))
    return cases


def _backpropagate(w1, b1, w2, b2, x, y, *, mean=True, slope=True, transpose=False) -> dict:
    h = np.tanh(x @ w1.T + b1)
    out_grad = (h @ w2.T + b2 - y) / (len(x) if mean else 1)
    z_grad = out_grad @ w2 * ((1.0 - h**2) if slope else 1.0)
    weights = [z_grad.T @ x, out_grad.T @ h]
    weights = [grad.T for grad in weights] if transpose else weights
    return {"w1": weights[0], "b1": z_grad.sum(0), "w2": weights[1], "b2": out_grad.sum(0)}


def perceptron_gradients(w1, b1, w2, b2, x, y) -> dict:
    return _backpropagate(w1, b1, w2, b2, x, y)


PERCEPTRON = Task(
    id="chain_rule/perceptron_gradients",
    function="perceptron_gradients",
    title="Backpropagation through a perceptron",
    points=3,
    cases=_draw_perceptrons,
    reference=perceptron_gradients,
    rtol=1e-4,
    atol=1e-5,
    tolerance_reason=IN_FLOAT32,
    misconceptions=(
        Misconception(
            "sum instead of mean",
            lambda *args: _backpropagate(*args, mean=False),
            "These are the gradients of the sum over the examples. The loss is their mean: a "
            "factor of 1 over the batch size is missing.",
        ),
        Misconception(
            "no slope",
            lambda *args: _backpropagate(*args, slope=False),
            "On the way back through the hidden layer the slope of tanh is missing.",
        ),
        Misconception(
            "transposed weight gradients",
            lambda *args: _backpropagate(*args, transpose=True),
            "The weight gradients are transposed. A gradient has the shape of what it is the "
            "gradient of.",
        ),
    ),
    hints=(
        "Write the forward pass with names for everything: z, h, out. Then walk back line by line.",
        "The gradient at `out` is (out - y) / len(x); from there w2's is out_grad.T @ h.",
        "The gradient at z is (out_grad @ w2) * (1 - h²); biases sum over the rows.",
    ),
    frameworks=("pytorch", "tf"),
)

# How large a product can be ---------------------------------------------------------------------


def _draw_square_chains(rng: np.random.Generator) -> list[Case]:
    cases = []
    for size, count in ((2, 3), (4, 6)):
        matrices = [rng.normal(size=(size, size)) for _ in range(count)]
        cases.append(Case((matrices,), f"{count} matrices of size {size}"))
    return cases


def product_bounds(matrices: list[np.ndarray]) -> list[float]:
    singular = [np.linalg.svd(matrix, compute_uv=False) for matrix in matrices]
    return [
        math.prod(float(values[-1]) for values in singular),
        float(np.linalg.norm(ordered_product(matrices), 2)),
        math.prod(float(values[0]) for values in singular),
    ]


def _bounds_from_frobenius(matrices: list[np.ndarray]) -> list[float]:
    lower, _, _ = product_bounds(matrices)
    upper = math.prod(float(np.linalg.norm(matrix)) for matrix in matrices)
    return [lower, float(np.linalg.norm(ordered_product(matrices))), upper]


def _bounds_from_eigenvalues(matrices: list[np.ndarray]) -> list[float]:
    sizes = [np.abs(np.linalg.eigvals(matrix)) for matrix in matrices]
    lower = math.prod(float(values.min()) for values in sizes)
    upper = math.prod(float(values.max()) for values in sizes)
    return [lower, product_bounds(matrices)[1], upper]


PRODUCT_BOUNDS = Task(
    id="chain_rule/product_bounds",
    function="product_bounds",
    title="A product of matrices between its bounds",
    points=1,
    cases=_draw_square_chains,
    reference=product_bounds,
    rtol=1e-3,
    atol=1e-7,
    tolerance_reason="the smallest singular value in float32 is right to about 1e-4 here",
    misconceptions=(
        Misconception(
            "Frobenius norm",
            _bounds_from_frobenius,
            "`np.linalg.norm(matrix)` is the Frobenius norm. The largest factor by which a "
            "matrix can stretch a vector is the spectral norm, `np.linalg.norm(matrix, 2)`.",
        ),
        Misconception(
            "eigenvalues",
            _bounds_from_eigenvalues,
            "These are products of eigenvalues. How much one matrix stretches a vector is decided "
            "by its singular values.",
        ),
    ),
    hints=(
        "`np.linalg.svd(matrix, compute_uv=False)` gives the singular values, largest first.",
        "Below: the product of the smallest ones. Above: of the largest ones. Between: the "
        "spectral norm of the ordered product.",
    ),
)

# A counterexample -------------------------------------------------------------------------------


def _draw_sizes(rng: np.random.Generator) -> list[Case]:
    cases = []
    for _ in range(2):
        size, count = int(rng.integers(2, 6)), int(rng.integers(20, 31))
        cases.append(Case((size, count), f"{count} matrices of size {size}"))
    return cases


def _read_chain(case: Case, answer: object) -> tuple[np.ndarray, float]:
    """The largest singular value of each matrix, and the norm of their product."""
    size, count = case.args
    matrices = as_arrays(answer, count, shape=(size, size), name="matrices")
    largest = np.array([np.linalg.norm(matrix, 2) for matrix in matrices])
    return largest, float(np.linalg.norm(ordered_product(matrices), 2))


def _judge_vanishing(case: Case, answer: object, expected: object) -> str | None:
    largest, norm = _read_chain(case, answer)
    wrong = np.flatnonzero(np.abs(largest - 2.0) > 1e-5)
    if wrong.size:
        return f"the largest singular value of matrix {wrong[0]} is {largest[wrong[0]]:.6g}, not 2."
    if norm > 1e-6:
        return f"the product has the norm {norm:.3g}, more than 1e-6."
    return "the product is exactly zero; make it small and not zero." if norm == 0.0 else None


def vanishing_chain(size: int, count: int) -> list[np.ndarray]:
    first, second = np.full(size, 0.1), np.full(size, 0.1)
    first[0] = second[1] = 2.0
    return [np.diag(second if k % 2 else first) for k in range(count)]


def _all_stretch(size: int, count: int) -> list[np.ndarray]:
    return [2.0 * np.eye(size)] * count


def _zero_product(size: int, count: int) -> list[np.ndarray]:
    return [np.diag(2.0 * (np.arange(size) == k % 2)) for k in range(count)]


VANISHING_CHAIN = Task(
    id="chain_rule/vanishing_chain",
    function="vanishing_chain",
    title="All stretch by two, and the product vanishes",
    points=2,
    cases=_draw_sizes,
    reference=vanishing_chain,
    rtol=0.0,
    atol=1e-5,
    tolerance_reason="a largest singular value computed in float32 is 2 to about 1e-6",
    judge=_judge_vanishing,
    misconceptions=(
        Misconception(
            "aligned",
            _all_stretch,
            "Each of your matrices stretches what the one before has stretched. Let each shrink "
            "the direction that the one before stretches.",
            lambda case, answer, expected: _read_chain(case, answer)[1] >= 2.0 ** case.args[1] / 2,
        ),
        Misconception(
            "smaller matrices",
            lambda size, count: [0.5 * np.eye(size)] * count,
            "Small matrices make a small product, which nobody doubts. The claim to refute is "
            "about matrices that do stretch.",
            lambda case, answer, expected: bool(np.all(_read_chain(case, answer)[0] < 1.0)),
        ),
        Misconception(
            "exactly zero",
            _zero_product,
            "Singular matrices lose a direction for good, and two of them lose all. A smallest "
            "singular value above zero keeps a gradient alive, and small.",
            lambda case, answer, expected: _read_chain(case, answer)[1] == 0.0,
        ),
    ),
    hints=(
        "A matrix that stretches one direction by 2 may shrink every other one.",
        "Two diagonal matrices are enough, used in turn.",
        "diag(2, 0.1, 0.1, ...) and diag(0.1, 2, 0.1, ...): what does their product do?",
    ),
)

TASKS = (
    LAYER_JACOBIAN, ORDERED_PRODUCT, REPAIRED_GRADIENT, PERCEPTRON, PRODUCT_BOUNDS,
    VANISHING_CHAIN,
)  # fmt: skip
