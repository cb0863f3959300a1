r"""Tasks on the chain rule: which matrices, in which order, with which slopes."""

from __future__ import annotations

import numpy as np

from course_lib.checks.task import Case, Misconception, Task

SUMS_OF_FLOATS = (
    "a solution in float32 is right to about 1e-6; the foreseen mistakes differ by far more"
)


def _draw_jacobians(rng: np.random.Generator) -> list[Case]:
    """Chains with unequal widths, where a wrong order does not multiply, and with equal ones."""
    cases = []
    for widths in ([3, 4, 2], [2, 3, 3, 4], [3, 3, 3, 3]):
        sizes = list(zip(widths[1:], widths[:-1], strict=True))
        jacobians = [rng.normal(size=size) for size in sizes]
        said = ", ".join(map(str, widths[:-1]))
        cases.append(Case((jacobians,), f"layers of widths {said} and {widths[-1]}"))
    return cases


def ordered_product(jacobians: list[np.ndarray]) -> np.ndarray:
    """J_L ... J_2 from the list [J_2, ..., J_L]."""
    product = jacobians[0]
    for jacobian in jacobians[1:]:
        product = jacobian @ product
    return product


def _multiply_as_listed(jacobians: list[np.ndarray]) -> np.ndarray:
    product = jacobians[0]
    for jacobian in jacobians[1:]:
        product = product @ jacobian
    return product


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
    tolerance_reason=SUMS_OF_FLOATS,
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

TASKS = (ORDERED_PRODUCT,)
