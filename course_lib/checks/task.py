r"""What a graded task is, and where the tasks are found.

A task is a pure function of plain data (`course_lib.plain_data`). The student writes it; it is
called with inputs drawn from a seed; what it returns is compared with a reference. So one and the
same definition answers the student at once, grades a class under a seed of the teacher's own, and
is proved in the tests.
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import pkgutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib.plain_data import to_plain

PUBLIC_SEED = 0
"""The seed of the student's own check. A class is graded with another, which is kept secret."""

IN_FLOAT32 = (
    "a solution in float32 is right to about 1e-6; the foreseen mistakes differ by far more"
)
"""The reason for a tolerance that most tasks share."""

NOTEBOOKS = (
    "chain_rule", "sigmoid_bound", "exploding_gradients", "bptt", "lstm_highway",
    "initialization", "activations_and_dead_units", "normalization_and_residuals",
    "clipping_and_learning_rate", "choosing_a_cure", "diagnosis", "capstone",
)  # fmt: skip
"""The exercise notebooks, in the order of the course."""


@dataclass(frozen=True, eq=False)
class Case:
    """One call of the student's function.

    Fields:
        args: the positional arguments, plain data.
        words: for which input, in words that follow "for", such as "widths 3, 4 and 2".
        hidden: what the judge needs and the student must not see, such as test labels.
    """

    args: tuple
    words: str
    hidden: object = field(default=None, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "args", tuple(to_plain(list(self.args))))


@dataclass(frozen=True)
class Misconception:
    """A mistake that is foreseen, and the sentence for who makes it.

    Fields:
        name: a short name, for the teacher's statistics.
        wrong: the function that a student with this misconception writes.
        message: one or two sentences that name the misconception; what is seen by the student.
        recognizes: (case, answer, expected) -> bool, whether an answer shows the mistake. Left
            out, an answer shows it if it equals that of `wrong` within the task's tolerance; where
            `wrong` raises (wrong shapes, say), the student's function must raise as well.
    """

    name: str
    wrong: Callable
    message: str
    recognizes: Callable | None = None


@dataclass(frozen=True)
class Task:
    """A graded task.

    Fields:
        id: "notebook/name".
        function: the name of the function that the student writes.
        title: a few words, as in the heading of the notebook.
        points: what it is worth, all or nothing.
        cases: rng -> list of Case. Every case must be passed.
        reference: (*args) -> the right answer, or one of several if there is a `judge`. None only
            where an answer would take too long to compute.
        rtol, atol: an entry is right if it is within atol + rtol * |expected entry|.
        tolerance_reason: why these two.
        misconceptions: at least two, each with a message of its own.
        hints: two or three, from a nudge to nearly everything.
        judge: (case, answer, expected) -> None if right, else a sentence. For tasks with more than
            one right answer. `answer` is plain data of any kind: read it with
            `course_lib.checks.compare.as_array` and its neighbors, which raise a sentence.
        time_limit: seconds for one call.
        frameworks: () if a framework plays no part, else those in which it can be solved.
    """

    id: str
    function: str
    title: str
    points: int
    cases: Callable[[np.random.Generator], list[Case]]
    reference: Callable | None
    rtol: float
    atol: float
    tolerance_reason: str
    misconceptions: tuple[Misconception, ...]
    hints: tuple[str, ...]
    judge: Callable | None = None
    time_limit: float = 2.0
    frameworks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.reference is None and self.judge is None:
            raise ValueError(f"`{self.id}` must have a reference or a judge.")
        if self.points < 1:
            raise ValueError(f"`points` of {self.id} (={self.points}) must be at least 1.")

    @property
    def notebook(self) -> str:
        """The notebook that the task belongs to."""
        return self.id.split("/")[0]

    @property
    def signature(self) -> str:
        """How the function is named in messages."""
        return f"`{self.function}`"


def draw_cases(task: Task, seed: int | str) -> list[Case]:
    """Return the task's cases under `seed`: the same seed, the same cases, on every machine.

    Integers and strings are welcome, and 7 and "7" are the same seed.
    """
    if isinstance(seed, bool) or not isinstance(seed, (int, str)):
        raise TypeError(f"`seed` (a {type(seed).__name__}) must be an integer or a string.")
    digest = hashlib.sha256(f"{seed}\n{task.id}".encode()).digest()
    words = np.frombuffer(digest, dtype="<u4")
    return task.cases(np.random.default_rng(np.random.SeedSequence(words.tolist())))


def tasks_of(notebook: str) -> tuple[Task, ...]:
    """Return the tasks of one notebook, in its order."""
    if notebook not in _written():
        raise ValueError(f"`notebook` (={notebook!r}) must be one of {', '.join(_written())}.")
    return importlib.import_module(f"course_lib.checks.tasks.{notebook}").TASKS


def all_tasks() -> tuple[Task, ...]:
    """Return every task of the course, in its order."""
    return tuple(task for notebook in _written() for task in tasks_of(notebook))


def get_task(task_id: str) -> Task:
    """Return the task called `task_id`, "notebook/name"."""
    if not isinstance(task_id, str):
        raise TypeError(f"`task_id` (a {type(task_id).__name__}) must be a string.")
    notebook = task_id.split("/")[0]
    if notebook in _written():
        for task in tasks_of(notebook):
            if task.id == task_id:
                return task
    raise ValueError(f"`task_id` (={task_id!r}) must name a task{_suggest(task_id)}.")


def _suggest(task_id: str) -> str:
    near = difflib.get_close_matches(task_id, [task.id for task in all_tasks()], n=1, cutoff=0.5)
    return f"; did you mean {near[0]!r}?" if near else ""


def _written() -> Sequence[str]:
    """The notebooks whose tasks exist, in the order of the course."""
    from course_lib.checks import tasks

    found = {module.name for module in pkgutil.iter_modules(tasks.__path__)}
    return [name for name in NOTEBOOKS if name in found]
