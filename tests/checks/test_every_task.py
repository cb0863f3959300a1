"""What is proved of each task in the registry, in the same words for all of them."""

from __future__ import annotations

import copy
import time

import pytest

from course_lib.checks.calling import UNATTEMPTED, run_cases
from course_lib.checks.judging import Outcome, judge_task
from course_lib.checks.task import PUBLIC_SEED, Task, all_tasks, draw_cases, tasks_of
from course_lib.plain_data import decode, encode, to_plain

from .solved_notebooks import check_calls, notebook_names, solved_functions

TASKS = all_tasks()
SEEDS = (PUBLIC_SEED, 1, "a teacher's secret", 2026)

each_task = pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)


def judged(task: Task, function, seed=PUBLIC_SEED):
    cases = draw_cases(task, seed)
    return judge_task(task, seed, run_cases(task, function, cases), cases=cases)


@each_task
def test_the_solution_has_full_marks_under_every_seed(task):
    function = solved_functions(task.notebook)[task.function]
    for seed in SEEDS:
        verdict = judged(task, function, seed)
        assert verdict.passed, verdict.describe()
        assert verdict.points == task.points


@pytest.mark.parametrize(
    "task", [task for task in TASKS if task.reference is not None], ids=lambda task: task.id
)
def test_the_reference_passes_under_every_seed(task):
    """Trivial where answers are compared with it; where a judge decides, both are held up."""
    for seed in SEEDS:
        assert judged(task, task.reference, seed).passed


@each_task
def test_the_blank_has_no_points(task):
    verdict = judged(task, lambda *args: ...)
    assert (verdict.status, verdict.points) == ("unattempted", 0)
    assert verdict.message == UNATTEMPTED


@each_task
def test_each_mistake_has_its_own_sentence_under_every_seed(task):
    for mistake in task.misconceptions:
        for seed in SEEDS:
            verdict = judged(task, mistake.wrong, seed)
            assert verdict.points == 0, mistake.name
            assert verdict.misconception == mistake.name, verdict.describe()
            assert verdict.advice == mistake.message


@each_task
def test_no_answer_shows_two_mistakes(task):
    """Each mistake is recognized by one entry of the list, whatever the order of the list."""
    for number, mistake in enumerate(task.misconceptions):
        others = task.misconceptions[:number] + task.misconceptions[number + 1 :]
        alone = copy.copy(task)
        object.__setattr__(alone, "misconceptions", others)
        assert judged(alone, mistake.wrong).misconception is None, mistake.name


@each_task
def test_answers_to_the_public_seed_fail_under_another(task):
    """Who writes the public answers down has no points in class."""
    function = solved_functions(task.notebook)[task.function]
    answers = [Outcome("value", to_plain(function(*copy.deepcopy(case.args))))
               for case in draw_cases(task, PUBLIC_SEED)]  # fmt: skip
    assert judge_task(task, PUBLIC_SEED, answers).passed
    assert not judge_task(task, "a teacher's secret", answers).passed


@each_task
def test_the_definition_is_whole(task):
    assert len(task.misconceptions) >= 2
    assert 2 <= len(task.hints) <= 3
    texts = [task.title, task.tolerance_reason, *task.hints,
             *(mistake.message for mistake in task.misconceptions)]  # fmt: skip
    assert len(set(texts)) == len(texts)
    for text in [*task.hints, *(mistake.message for mistake in task.misconceptions)]:
        assert text.endswith((".", "?")), text
    assert len({mistake.name for mistake in task.misconceptions}) == len(task.misconceptions)


@each_task
def test_cases_cross_the_border_and_are_quick(task):
    cases = draw_cases(task, PUBLIC_SEED)
    assert len({case.words for case in cases}) == len(cases)
    assert len(encode([list(case.args) for case in cases])) < 1_000_000
    again = draw_cases(task, PUBLIC_SEED)
    sent = [encode(list(case.args)) for case in cases]
    assert sent == [encode(list(case.args)) for case in again]
    function = solved_functions(task.notebook)[task.function]
    outcomes = [Outcome("value", decode(encode(function(*args))))
                for args in map(decode, sent)]  # fmt: skip
    started = time.process_time()
    assert judge_task(task, PUBLIC_SEED, outcomes).passed
    assert time.process_time() - started < 1.0


@pytest.mark.parametrize("notebook", notebook_names())
def test_a_notebook_checks_its_tasks_in_order(notebook):
    asked = check_calls(notebook)
    assert asked == [(task.id, task.function) for task in tasks_of(notebook)]


def test_every_task_belongs_to_a_notebook():
    assert {task.notebook for task in TASKS} == set(notebook_names())
