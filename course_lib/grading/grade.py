"""Grading one submission: run it in a slot, step over what kills it, and judge what it returned.

The judging is here, in the process that knows the seed; the slot gets the names of the functions
and their arguments, and gives back what strangers wrote.
"""

from __future__ import annotations

import copy
import dataclasses
import difflib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from course_lib.checks.judging import OUTCOMES, Outcome, judge_task
from course_lib.checks.task import NOTEBOOKS, Task, draw_cases, tasks_of
from course_lib.grading.errors import GradingError
from course_lib.grading.notebooks import (
    Notebook,
    NotebookError,
    defined_functions,
    named_assignments,
    parse,
)
from course_lib.grading.sandbox import Limits
from course_lib.grading.slots import End, Slot
from course_lib.plain_data import encode, to_plain

START_SECONDS = 30.0
LONGEST_MESSAGE = 1_000
MAX_NOTES = 30

FIELDS = {
    "cell": {"event", "number"}, "failed": {"event", "number", "message"},
    "call": {"event", "index"}, "outcome": {"event", "index", "status", "value", "message"},
}  # fmt: skip
ENDS = {
    "time": "did not stop when its time was up, and its process was ended",
    "memory": "took more memory than there is for a submission, and its process was ended",
    "output": "wrote more than is read, and its process was ended",
    "nonsense": "wrote into what only the grader writes, and its process was ended",
    "lost": "brought down the sandbox, which was thrown away",
}


def say_end(end: End) -> str:
    """Return what a step did that ended its process, to follow the step's name."""
    return ENDS.get(end.reason, f"ended its process ({end.detail})") + "."


def require_text(value: object) -> str:
    """Return a message that came from inside, cut short; raise ValueError if it is none."""
    if not isinstance(value, str):
        raise ValueError("a message that is no text")
    return value[:LONGEST_MESSAGE]


@dataclass
class Answers:
    """What the runs of one notebook have led to so far."""

    outcomes: dict[int, Outcome] = field(default_factory=dict)
    failures: dict[int, str] = field(default_factory=dict)  # cell number -> what went wrong
    killers: set[int] = field(default_factory=set)  # cells that are left out from now on
    step: tuple[str, int] | None = None


class Memory:
    """A function of plain data that computes each answer once, for a whole class."""

    def __init__(self, function: Callable) -> None:
        self.function = function
        self.known: dict[bytes, object] = {}

    def __call__(self, *args: object) -> object:
        key = encode(list(args))
        if key not in self.known:
            try:
                self.known[key] = to_plain(self.function(*args))
            except Exception as error:
                self.known[key] = error
        found = self.known[key]
        if isinstance(found, Exception):
            raise found
        return copy.deepcopy(found)


def remember(task: Task) -> Task:
    """Return the task with a reference and misconceptions that compute each answer once."""
    wrong = tuple(
        dataclasses.replace(m, wrong=Memory(m.wrong)) for m in task.misconceptions
    )
    reference = None if task.reference is None else Memory(task.reference)
    return dataclasses.replace(task, reference=reference, misconceptions=wrong)


class Grader:
    """Everything that is needed to grade submissions to one assignment under one seed."""

    def __init__(
        self, assignment: str, seed: str, limits: Limits, tasks: Sequence[Task] | None = None
    ) -> None:
        self.assignment, self.seed, self.limits = assignment, seed, limits
        tasks = tasks_of(assignment) if tasks is None else tasks
        self.tasks = [remember(task) for task in tasks]
        self.cases = [draw_cases(task, seed) for task in self.tasks]
        self.calls = [
            {
                "index": 0, "function": task.function, "args": list(case.args),
                "seconds": 2.0 * task.time_limit + 1.0, "group": number,
            }
            for number, task in enumerate(self.tasks)
            for case in self.cases[number]
        ]  # fmt: skip
        for index, call in enumerate(self.calls):
            call["index"] = index

    def grade(self, slot: Slot, data: bytes) -> dict:
        """Return the result of one submission, as plain data that `json` can store."""
        try:
            notebook = parse(data)
            self.require_assignment(notebook)
            answers = self.run(slot, notebook)
            notes = self.take_notes(notebook, answers)
            return self.result(answers.outcomes, "", notes, notebook)
        except NotebookError as error:
            return self.result({}, str(error), [])
        except GradingError:
            raise  # there is no sandbox: nobody can be graded
        except Exception as error:
            # A fault of the grader that this notebook brings out must not stop the class.
            said = f"The grader failed on this notebook ({type(error).__name__}); tell its authors."
            return self.result({}, said, [])

    def require_assignment(self, notebook: Notebook) -> None:
        """Raise NotebookError if nothing in the notebook belongs to this assignment."""
        named = named_assignments(notebook)
        if named[self.assignment] or any(t.function in notebook.text for t in self.tasks):
            return
        others = sorted((-count, name) for name, count in named.items() if name in NOTEBOOKS)
        if others:
            seems = f"this is the notebook of {others[0][1]}, not of {self.assignment}"
        else:
            seems = f"no function of {self.assignment} is in this notebook"
        raise NotebookError(f"Wrong assignment: {seems}.")

    def run(self, slot: Slot, notebook: Notebook) -> Answers:
        """Run the notebook, again without the culprit whenever a step ends the process."""
        answers = Answers()
        deadline = time.monotonic() + self.limits.submission_seconds
        for _ in range(1 + self.limits.restarts):
            seconds = deadline - time.monotonic()
            if seconds <= 0 or not (request := self.make_request(notebook, answers)):
                break
            answers.step = None
            end = slot.run(request, seconds, lambda event: self.take(event, answers))
            if end.reason == "done" or not self.blame(end, answers):
                break
        return answers

    def make_request(self, notebook: Notebook, answers: Answers) -> bytes:
        """Return what the sandbox is told: cells and calls, but for those that are settled."""
        cells = [
            {"number": cell.number, "source": cell.source}
            for cell in notebook.cells
            if cell.number not in answers.killers and cell.source.strip()
        ]
        done = {self.calls[index]["group"] for index in answers.outcomes}
        calls = [call for call in self.calls if call["group"] not in done]
        order = {"cells": cells, "cell_seconds": self.limits.cell_seconds, "calls": calls}
        return encode(order) if calls else b""

    def take(self, event: dict, answers: Answers) -> float:
        """Note an event; return the seconds that the announced step may take.

        Raises ValueError for an event that cannot come at this point: steps only go forward, cells
        before calls, and what is reported is the step that was announced last, once.
        """
        kind = event.get("event")
        if not isinstance(kind, str) or set(event) != FIELDS.get(kind):
            raise ValueError("no event")
        place = event.get("number", event.get("index"))
        if type(place) is not int or place < 0:
            raise ValueError("an event without a place")
        doing, now = answers.step or ("start", 0)
        if kind == "cell" and doing in ("start", "cell", "ran") and place > now:
            answers.step = ("cell", place)
            return self.limits.cell_seconds
        if kind == "failed" and doing == "cell" and place == now:
            answers.failures[now] = require_text(event["message"])
            answers.step = ("ran", now)
        elif kind == "call" and (doing not in ("call", "after") or place > now):
            answers.step = ("call", place)
            return float(self.calls[place]["seconds"])
        elif kind == "outcome" and doing == "call" and place == now:
            if event["status"] not in OUTCOMES:
                raise ValueError("an outcome without a status")
            said = require_text(event["message"])
            answers.outcomes[now] = Outcome(event["status"], event["value"], said)
            answers.step = ("after", now)
        else:
            raise ValueError(f"an event out of order: {kind!r}")
        return START_SECONDS

    def blame(self, end: End, answers: Answers) -> bool:
        """Charge the step that ended the process with it; whether another run may get further."""
        kind, number = answers.step or ("start", 0)
        if kind in ("cell", "ran"):
            answers.failures[number] = say_end(end)
            answers.killers.add(number)
            return True
        if kind == "call":
            status = "timeout" if end.reason == "time" else "error"
            answers.outcomes[number] = Outcome(status, message=say_end(end))
        return kind != "start"  # after an outcome, the next task can still be reached

    def take_notes(self, notebook: Notebook, answers: Answers) -> list[str]:
        """Return what the student should know besides the tasks, in sentences."""
        failures = sorted(answers.failures.items())
        notes = [f"Code cell {number} {message}" for number, message in failures[:MAX_NOTES]]
        if len(failures) > MAX_NOTES:
            notes.append(f"{len(failures) - MAX_NOTES} more code cells failed.")
        functions = defined_functions(notebook)
        for task in self.tasks:
            cells = functions.get(task.function, [])
            if len(cells) > 1:
                where = ", ".join(str(number) for number in cells)
                notes.append(
                    f"`{task.function}` is defined more than once (code cells {where}); "
                    "the last definition counts."
                )
        return notes

    def result(
        self, outcomes: dict, problem: str, notes: list[str], notebook: Notebook | None = None
    ) -> dict:
        """Return the result: the verdict on each task, and the sums."""
        verdicts = [
            self.judge(number, outcomes, problem, notebook) for number in range(len(self.tasks))
        ]
        return {
            "assignment": self.assignment,
            "problem": problem,
            "notes": notes,
            "points": sum(verdict["points"] for verdict in verdicts),
            "max_points": sum(verdict["max_points"] for verdict in verdicts),
            "tasks": verdicts,
        }

    def judge(self, number: int, outcomes: dict, problem: str, notebook: Notebook | None) -> dict:
        """Return the verdict on one task, as a dict."""
        task, cases = self.tasks[number], self.cases[number]
        first = next(k for k, call in enumerate(self.calls) if call["group"] == number)
        given = []
        for index in range(first, first + len(cases)):
            if index not in outcomes:
                break
            given.append(outcomes[index])
        if not given:
            text = "not graded: the file cannot be graded." if problem else self.say_not_reached()
            status = "unattempted" if problem else "error"
            return self.flat(task, status, 0, text)
        if given[0].status == "unattempted" and notebook is not None:
            given[0] = Outcome("unattempted", message=self.look_around(given[0], task, notebook))
        try:
            verdict = judge_task(task, self.seed, given, cases=cases)
        except Exception as error:
            text = f"the answer could not be judged ({type(error).__name__}); ask your teacher."
            return self.flat(task, "error", 0, text)
        return self.flat(
            task, verdict.status, verdict.points, verdict.message, verdict.advice,
            verdict.misconception,
        )  # fmt: skip

    def say_not_reached(self) -> str:
        """Say why a task was never called."""
        return "not reached: the notebook's process ended too often, or its time was over."

    def look_around(self, outcome: Outcome, task: Task, notebook: Notebook) -> str:
        """Return the message of an unattempted task; name a function that may have been meant."""
        functions = defined_functions(notebook)
        others = {other.function for other in self.tasks}
        candidates = [name for name in functions if name not in others and len(name) < 80][:200]
        near = difflib.get_close_matches(task.function, candidates, n=1, cutoff=0.6)
        if task.function in functions or not near:
            return outcome.message
        return (
            f"not attempted: there is no `{task.function}`; the notebook defines `{near[0]}`, "
            "which may have been meant."
        )

    @staticmethod
    def flat(
        task: Task, status: str, points: float, message: str, advice: str = "",
        misconception: str | None = None,
    ) -> dict:  # fmt: skip
        """Return a verdict as a dict."""
        return {
            "id": task.id, "title": task.title, "status": status, "points": points,
            "max_points": task.points, "message": message, "advice": advice,
            "misconception": misconception or "",
        }  # fmt: skip
