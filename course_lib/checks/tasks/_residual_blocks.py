r"""The tasks of the notebook `normalization_and_residuals` on residual blocks.

The expansion of their product, a block that passes nothing back, and the growth of a stack.
Source: he2016identity.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from course_lib.checks.compare import AnswerError, as_array
from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import FLOAT32, Fault, judge_by, shows

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
