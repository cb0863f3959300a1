"""From what a student's function returned to points and a sentence. No student code runs here."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib.checks.compare import AnswerError, compare
from course_lib.checks.task import Case, Misconception, Task, draw_cases
from course_lib.plain_data import to_plain

OUTCOMES = ("value", "unattempted", "error", "timeout", "invalid")


@dataclass(frozen=True, eq=False)
class Outcome:
    """What one call of a student's function led to.

    Fields:
        status: "value"; "unattempted" (returned nothing, or raised NotImplementedError); "error"
            (raised); "timeout"; "invalid" (returned what is not plain data).
        value: plain data, for status "value".
        message: a sentence for the others, in lower case and without the input: "raised a
            ZeroDivisionError in line 3: division by zero."
    """

    status: str
    value: object = field(default=None, repr=False)
    message: str = ""

    def __post_init__(self) -> None:
        if self.status not in OUTCOMES:
            raise ValueError(f"`status` (={self.status!r}) must be one of {', '.join(OUTCOMES)}.")


@dataclass(frozen=True)
class Verdict:
    """The judgment on one task.

    Fields:
        task_id: "notebook/name".
        title: the task's title.
        status: "passed", "failed", or an outcome's status other than "value".
        points, max_points: earned, and what can be earned.
        message: one sentence on what happened; for a failure what was got, what was expected, and
            for which input.
        misconception: the name of the one that was recognized, or None.
        advice: its sentence, or "".
    """

    task_id: str
    title: str
    status: str
    points: int
    max_points: int
    message: str
    misconception: str | None = None
    advice: str = ""

    @property
    def passed(self) -> bool:
        """Whether the task has its points."""
        return self.status == "passed"

    def describe(self) -> str:
        """Say it as the student's check does."""
        return f"{self.title}: {self.message}{' ' + self.advice if self.advice else ''}"


def judge_task(
    task: Task,
    seed: int | str,
    outcomes: Sequence[Outcome],
    *,
    cases: Sequence[Case] | None = None,
) -> Verdict:
    """Return the verdict on `outcomes`, one for each of the task's cases under `seed`, in order.

    Arguments:
        task: what was to be solved.
        seed: what its cases are drawn from.
        outcomes: what the calls led to. They may stop early; what is missing was not answered.
        cases: `draw_cases(task, seed)`, if they are at hand already.
    """
    cases = draw_cases(task, seed) if cases is None else cases
    outcomes = list(outcomes)[: len(cases)]
    if not outcomes or all(outcome.status == "unattempted" for outcome in outcomes):
        return _verdict(task, "unattempted", _say_unattempted(task, outcomes))
    with np.errstate(all="ignore"):
        return _judge_attempt(task, cases, outcomes)


def _judge_attempt(task: Task, cases: Sequence[Case], outcomes: list[Outcome]) -> Verdict:
    expected = [expected_answer(task, case) for case in cases]
    failure = None
    for case, outcome, wanted in zip(cases, outcomes, expected, strict=False):
        if (found := _judge_case(task, case, outcome, wanted)) is not None:
            failure = (case, outcome, found)
            break
    if failure is None and len(outcomes) == len(cases):
        return _verdict(task, "passed", f"passed, {_say_points(task.points)}.")
    if failure is None:
        return _verdict(task, "failed", f"not yet: no answer for {cases[len(outcomes)].words}.")
    case, outcome, sentence = failure
    shown = _recognize(task, cases, outcomes, expected)
    if outcome.status == "value":
        return _verdict(task, "failed", f"not yet. For {case.words}: {sentence}", shown)
    status = "failed" if outcome.status == "unattempted" else outcome.status
    message = f"not yet. For {case.words}, {task.signature} {sentence}"
    return _verdict(task, status, message, shown)


def expected_answer(task: Task, case: Case) -> object:
    """Return the reference's answer as plain data; None if only the judge knows."""
    if task.reference is None:
        return None
    return to_plain(task.reference(*copy.deepcopy(case.args)))


def _judge_case(task: Task, case: Case, outcome: Outcome, expected: object) -> str | None:
    if outcome.status != "value":
        return outcome.message or "gave no answer."
    return judge_value(task, case, outcome.value, expected)


def judge_value(task: Task, case: Case, answer: object, expected: object) -> str | None:
    """Return None if `answer` is right for `case`, else one sentence that starts in lower case."""
    if task.judge is None:
        return compare(answer, expected, rtol=task.rtol, atol=task.atol)
    try:
        return task.judge(case, copy.deepcopy(answer), expected)
    except AnswerError as error:
        return str(error)
    except Exception as error:
        # A judge meets whatever was returned; that it cannot read it is no fault of the grader's.
        return f"the answer has a form that cannot be judged ({type(error).__name__})."


def _recognize(
    task: Task, cases: Sequence[Case], outcomes: list[Outcome], expected: list
) -> Misconception | None:
    """Return the misconception whose mistake explains the outcomes of all cases, if one does.

    A case in which the answer is no number, or none was given, tells nothing of what was believed:
    who enlarges gradients below the limit of clipping divides by a norm of zero besides. So the
    others decide, if they are more than half and one of them is wrong.
    """
    if len(outcomes) < len(cases) or all(outcome.status != "value" for outcome in outcomes):
        return None
    rows = list(zip(cases, outcomes, expected, strict=True))
    telling = [row for row in rows if not _tells_nothing(row[1])]
    wrong = any(_judge_case(task, *row) is not None for row in telling)
    told = telling if 2 * len(telling) > len(rows) and wrong else rows
    for part in (rows, told):
        for misconception in task.misconceptions:
            if all(_shows(task, misconception, *row) for row in part):
                return misconception
    return None


def _tells_nothing(outcome: Outcome) -> bool:
    """Whether there is an error in place of an answer, or NaN within it."""
    if outcome.status != "value":
        return outcome.status == "error"
    queue = [outcome.value]
    while queue:
        part = queue.pop()
        if isinstance(part, (dict, list, tuple)):
            queue += part.values() if isinstance(part, dict) else part
        elif isinstance(part, (float, np.ndarray, np.floating)):
            number = np.asarray(part)
            if np.issubdtype(number.dtype, np.floating) and np.isnan(number).any():
                return True
    return False


def _shows(
    task: Task, misconception: Misconception, case: Case, outcome: Outcome, expected: object
) -> bool:
    """Whether an outcome is the mistake's: the same answer, or both fail (wrong shapes, say)."""
    if outcome.status not in ("value", "error"):
        return False
    try:
        if misconception.recognizes is not None:
            answer = copy.deepcopy(outcome.value)
            return outcome.status == "value" and misconception.recognizes(case, answer, expected)
        wrong = to_plain(misconception.wrong(*copy.deepcopy(case.args)))
    except Exception:
        return outcome.status == "error" and misconception.recognizes is None
    if outcome.status == "error":
        return False
    return compare(outcome.value, wrong, rtol=task.rtol, atol=task.atol) is None


def _say_points(points: int) -> str:
    return "1 point" if points == 1 else f"{points} points"


def _say_unattempted(task: Task, outcomes: list[Outcome]) -> str:
    said = {outcome.message for outcome in outcomes if outcome.message}
    return said.pop() if len(said) == 1 else "not attempted yet."


def _verdict(task: Task, status: str, message: str, shown: Misconception | None = None) -> Verdict:
    return Verdict(
        task_id=task.id,
        title=task.title,
        status=status,
        points=task.points if status == "passed" else 0,
        max_points=task.points,
        message=message,
        misconception=None if shown is None else shown.name,
        advice="" if shown is None else shown.message,
    )
