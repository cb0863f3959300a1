r"""The last task of the notebook `diagnosis`: six unlabelled runs, their causes and their remedies.

The runs are those of `course_lib.unlabelled_runs`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np

from course_lib.checks.compare import AnswerError, as_choice
from course_lib.checks.task import Case, Misconception, Task
from course_lib.checks.tasks._material import Fault, judge_by
from course_lib.unlabelled_runs import CAUSES, draw_runs, reveal

# --- six unlabelled runs

REMEDIES = {
    "vanishing_gradient": "fit activation and weights",
    "exploding_gradient": "fit activation and weights",
    "dead_units": "reset the biases",
    "saturation": "shrink inputs or weights",
    "standing_still": "lengthen the steps",
    "healthy": "nothing",
}
OTHER_REMEDIES = ("clip the gradient", "use leaky units", "train for longer")


@functools.lru_cache(maxsize=8)
def _six_runs(seed: int) -> tuple[list[dict], list[str]]:
    runs = draw_runs(seed=seed)
    return [run.measurements() for run in runs], [reveal(run) for run in runs]


def _run_cases(rng: np.random.Generator) -> list[Case]:
    measured, causes = _six_runs(int(rng.integers(2**31)))
    return [Case((measured,), "the six runs", hidden=causes)]


def _fault_of_diagnoses(case: Case, answer: object) -> Fault | None:
    remedies = (*dict.fromkeys(REMEDIES.values()), *OTHER_REMEDIES)
    if not isinstance(answer, list) or len(answer) != len(case.hidden):
        raise AnswerError(f"expected a list of {len(case.hidden)} pairs (cause, remedy).")
    causes, wrong = [], []
    for name, pair, truth in zip("ABCDEF", answer, case.hidden, strict=True):
        if not isinstance(pair, list) or len(pair) != 2:
            raise AnswerError(f"expected a pair (cause, remedy) for run {name}.")
        cause = as_choice(pair[0], tuple(CAUSES), name=f"the cause of run {name}")
        remedy = as_choice(pair[1], remedies, name=f"the remedy of run {name}")
        causes.append(name if cause != truth else "")
        if cause == truth and remedy != REMEDIES[truth]:
            wrong.append(name)
    if missed := [name for name in causes if name]:
        right = len(causes) - len(missed)
        said = f"{right} of {len(causes)} causes are right, not {', '.join(missed)}."
        return Fault("cause", said)
    if wrong:
        return Fault("remedy", f"all causes are right, but not the remedy of {', '.join(wrong)}.")
    return None


def decide(run: dict) -> str:
    """Return the cause of one run, from its measurements: the first question answered with yes.

    The first sample was taken before any update, so what stands out there is no consequence.
    """
    hidden = slice(0, len(run["layers"]) - 1)
    two_sided = np.isin(run["activations"], ("tanh", "sigmoid"))[hidden]
    flat = run["saturated_fractions"][0, hidden][two_sided]
    norms = run["activation_grad_norms"][0]
    if np.nan_to_num(run["dead_fractions"][0, hidden]).max() >= 0.5:
        return "dead_units"
    if two_sided.any() and np.max(flat) >= 0.5:
        return "saturation"
    span = np.log10(norms[0]) - np.log10(norms[-1])
    if abs(span) >= 2.0:
        return "vanishing_gradient" if span < 0.0 else "exploding_gradient"
    return "standing_still" if np.max(run["update_ratios"]) <= 1e-6 else "healthy"


def _solve(choose: Callable[[dict], str], remedies: dict[str, str] | None = None) -> Callable:
    table = REMEDIES | (remedies or {})
    return lambda runs: [(cause := choose(run), table[cause]) for run in runs]


def _lecture_check(run: dict) -> str:
    """The quick reference of Lecture 1: absolute norms, and more than 20 % zeros."""
    total = np.sqrt(np.sum(np.square(run["weight_grad_norms"][0])))
    active = run["active_fractions"][0, : len(run["layers"]) - 1]
    inactive = 0.0 if np.all(np.isnan(active)) else 1.0 - np.nanmean(active)
    if run["weight_grad_norms"][0, 0] < 1e-7:
        return "vanishing_gradient"
    if not total <= 100.0:
        return "exploding_gradient"
    if inactive > 0.2:
        return "dead_units"
    return "healthy"




DIAGNOSE = Task(
    id="diagnosis/diagnose_runs",
    function="diagnose_runs",
    title="Six unlabelled runs",
    points=5,
    cases=_run_cases,
    reference=_solve(decide),
    rtol=0.0,
    atol=0.0,
    tolerance_reason="words out of two lists; the runs are drawn well apart",
    judge=judge_by(_fault_of_diagnoses),
    misconceptions=(
        Misconception(
            "absolute thresholds",
            _solve(_lecture_check),
            "These are the thresholds of Lecture 1: absolute norms, and 20 % zeros. Norms depend "
            "on the units of the loss, and half of the values of a healthy ReLU are zero.",
        ),
        Misconception(
            "clip what explodes",
            _solve(decide, {"exploding_gradient": "clip the gradient"}),
            "Clipping shortens the step. The layers keep their proportions, and the signal still "
            "explodes on its way: the weights must fit the activation.",
            recognizes=lambda case, answer, expected: _names(case, answer, "exploding_gradient",
                                                             "clip the gradient"),
        ),
        Misconception(
            "leaky units for the dead",
            _solve(decide, {"dead_units": "use leaky units"}),
            "A slope of a hundredth is a slow way back. These units were drawn dead: their biases "
            "hold them down, and biases can be set.",
            recognizes=lambda case, answer, expected: _names(case, answer, "dead_units",
                                                             "use leaky units"),
        ),
    ),
    hints=(
        "Begin with the first sample, taken before any update: whatever stands out there is no "
        "consequence of anything else.",
        "Dead units and saturation first, for they shape the gradients. Then compare the first and "
        "the last layer's activation gradients with each other, never with a fixed number.",
        "Two decades between them are too many. A run without any of this has the update ratios "
        "left: a millionth per step is standing still.",
    ),
    time_limit=5.0,
)  # fmt: skip


def _names(case: Case, answer: object, cause: str, remedy: str) -> bool:
    """Whether all causes are right and `remedy` was chosen for `cause`, and that alone is wrong."""
    pairs = zip(answer, case.hidden, strict=True)
    wanted = REMEDIES | {cause: remedy}
    return all(list(pair) == [truth, wanted[truth]] for pair, truth in pairs)
