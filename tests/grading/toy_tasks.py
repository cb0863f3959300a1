"""Two tasks that a machine solves in no time, for testing what is around tasks."""

from __future__ import annotations

import os

from course_lib.checks.task import Case, Misconception, Task
from course_lib.grading.sandbox import Limits

# Slots of this process alone, and as root users of their own: another test run may be beside it.
SLOTS = 500 + os.getpid() % 200 * 20
SEED = "secret-seed-of-the-tests"
LIMITS = Limits(
    submission_seconds=60.0, cell_seconds=4.0, memory=400 << 20, disk=64 << 20, processes=64,
    answer_bytes=1 << 20, restarts=4,
)  # fmt: skip


def draw(rng):
    """Lists of numbers, some of them negative."""
    return [
        Case(([*rng.normal(size=n).tolist(), -1.5],), f"{n + 1} numbers") for n in (2, 3, 5)
    ]


DOUBLE = Task(
    id="toy/double", function="double", title="Twice each number", points=1, cases=draw,
    reference=lambda x: [2.0 * v for v in x], rtol=1e-9, atol=1e-12,
    tolerance_reason="one product", time_limit=0.4,
    misconceptions=(
        Misconception("square", lambda x: [v**2 for v in x], "This is the square of each."),
        Misconception("identity", lambda x: x, "These are the numbers themselves."),
    ),
    hints=("Multiply.", "By two."),
)  # fmt: skip
TOTAL = Task(
    id="toy/total", function="total", title="The sum", points=2, cases=draw,
    reference=lambda x: float(sum(x)), rtol=1e-9, atol=1e-12,
    tolerance_reason="a few sums", time_limit=0.4,
    misconceptions=(
        Misconception(
            "absolute", lambda x: float(sum(abs(v) for v in x)),
            "This is the sum of the absolute values.",
        ),
        Misconception("count", lambda x: len(x), "This is how many there are."),
    ),
    hints=("Add.", "All of them."),
)  # fmt: skip
TASKS = (DOUBLE, TOTAL)
