"""The student's three words: `check` a solution, ask for a `hint`, see the `score` so far.

    from course_lib.checks import check, hint, score

They answer with plain printed text, need no file, and import no framework. How a task is defined
is in `course_lib.checks.task`, how it is judged in `course_lib.checks.judging`.
"""

from __future__ import annotations

from collections.abc import Callable

from course_lib.checks.calling import run_cases
from course_lib.checks.judging import Verdict, judge_task
from course_lib.checks.task import PUBLIC_SEED, Task, draw_cases, get_task, tasks_of

_verdicts: dict[str, Verdict] = {}  # the latest one for each task of this session
_hints_given: dict[str, int] = {}


def check(task_id: str, function: Callable) -> None:
    """Check `function` and print the answer: passed, not attempted, or what is wrong.

    Arguments:
        task_id: "notebook/name", as the exercise says.
        function: the function itself, not its result.

    Raises:
        ValueError: if there is no such task.
    """
    task = get_task(task_id)
    verdict = _check(task, function)
    _verdicts[task.id] = verdict
    print(verdict.describe())


def _check(task: Task, function: Callable) -> Verdict:
    if not callable(function):
        return Verdict(
            task.id, task.title, "invalid", 0, task.points,
            f"hand over the function itself, check({task.id!r}, {task.function}), "
            "not what it returns.",
        )  # fmt: skip
    cases = draw_cases(task, PUBLIC_SEED)
    return judge_task(task, PUBLIC_SEED, run_cases(task, function, cases), cases=cases)


def hint(task_id: str) -> None:
    """Print the task's next hint; after the last one, the last one again.

    Raises:
        ValueError: if there is no such task.
    """
    task = get_task(task_id)
    given = min(_hints_given.get(task.id, 0) + 1, len(task.hints))
    _hints_given[task.id] = given
    print(f"{task.title}, hint {given} of {len(task.hints)}: {task.hints[given - 1]}")


def score(notebook: str | None = None) -> None:
    """Print the points so far, task by task.

    Arguments:
        notebook: such as "chain_rule"; left out, every notebook that was checked in this session.

    Raises:
        ValueError: if there is no such notebook.
    """
    if notebook is None:
        names = list(dict.fromkeys(get_task(task_id).notebook for task_id in _verdicts))
        if not names:
            print("Nothing has been checked yet.")
        for name in names:
            _print_score(name)
        return
    tasks_of(notebook)
    _print_score(notebook)


def _print_score(notebook: str) -> None:
    tasks = tasks_of(notebook)
    verdicts = {task.id: _verdicts.get(task.id) for task in tasks}
    earned = sum(verdict.points for verdict in verdicts.values() if verdict)
    print(f"{notebook}: {earned} of {sum(task.points for task in tasks)} points")
    for task in tasks:
        verdict = verdicts[task.id]
        points = verdict.points if verdict else 0
        print(f"  {points} of {task.points}  {task.title} ({_say_status(verdict)})")


def _say_status(verdict: Verdict | None) -> str:
    if verdict is None:
        return "not checked"
    said = {"passed": "passed", "unattempted": "not attempted"}
    return said.get(verdict.status, "not yet")


__all__ = ["check", "hint", "score"]
