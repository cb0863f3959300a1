"""What the student's three words say, whatever the student's function does."""

import threading
import time

import numpy as np
import pytest

from course_lib import checks
from course_lib.checks import calling, judging
from course_lib.checks.judging import Outcome, judge_task
from course_lib.checks.task import (
    Case,
    Misconception,
    Task,
    all_tasks,
    draw_cases,
    get_task,
    tasks_of,
)
from course_lib.checks.tasks import chain_rule
from course_lib.clipping import angle_between, clip_by_norm
from course_lib.plain_data import to_plain

ID = "chain_rule/ordered_product"
TASK = get_task(ID)


@pytest.fixture(autouse=True)
def new_session(monkeypatch):
    """Each test begins as a notebook does: nothing checked, no hint given."""
    monkeypatch.setattr(checks, "_verdicts", {})
    monkeypatch.setattr(checks, "_hints_given", {})


@pytest.fixture
def said(capsys):
    """Check a function and return the one line that was printed."""

    def ask(function, task_id=ID):
        checks.check(task_id, function)
        printed, complained = capsys.readouterr()
        assert complained == ""
        assert printed.count("\n") == 1
        return printed.strip()

    return ask


def blank(jacobians): ...  # your code here


def raises_in_line_three(jacobians):
    first = 1
    return first / 0


def loops(jacobians):
    while True:
        pass


def loops_and_catches_everything(jacobians):
    while True:
        try:  # noqa: SIM105
            time.sleep(0.001)
        except:  # noqa: E722
            pass


def leaves(jacobians):
    raise SystemExit


def recurses(jacobians):
    return recurses(jacobians)


def not_implemented(jacobians):
    raise NotImplementedError


def spoils_its_arguments(jacobians):
    product = jacobians.pop(0)
    while jacobians:
        product = jacobians.pop(0) @ product
    return product


class EqualsEverything(np.ndarray):
    def __eq__(self, other):
        return np.ones(self.shape, dtype=bool)

    __hash__ = None


class Silent(Exception):
    def __str__(self):
        raise RuntimeError


def raises_what_cannot_be_said(jacobians):
    raise Silent


def test_the_right_function_passes(said):
    assert said(chain_rule.ordered_product) == f"{TASK.title}: passed, 1 point."


def test_arguments_are_copies(said):
    assert "passed" in said(spoils_its_arguments)
    assert "passed" in said(spoils_its_arguments)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (blank, "not attempted yet: it returns nothing."),
        (not_implemented, "not attempted yet."),
        (lambda j: ..., "not attempted yet: it returns nothing."),
        (raises_in_line_three, "raised a ZeroDivisionError in its line 3: division by zero."),
        (leaves, "raised a SystemExit in its line 2."),
        (recurses, "raised a RecursionError"),
        (raises_what_cannot_be_said, "raised a Silent in its line 2."),
        (lambda: 1, "raised a TypeError"),
        (lambda j: {1}, "returned what cannot be checked: a set is not plain data"),
        (lambda j: 3.0, "expected shape (2, 3), got one number."),
        (lambda j: "zero", "expected an array of shape (2, 3), got the text 'zero'."),
        (lambda j: {"a": 1}, "got a dict with the keys 'a'."),
        (lambda j: [[1], [2, 3]], "got lists of different lengths."),
        (lambda j: np.ones((2, 3), dtype=bool), "expected numbers, got True or False."),
        (lambda j: np.full((2, 3), np.nan), "got nan (6 of 6 entries differ)."),
        (lambda j: np.zeros((2, 3)).view(EqualsEverything), "(6 of 6 entries differ)."),
        (chain_rule.ordered_product(draw_cases(TASK, 0)[0].args[0]), "hand over the function"),
    ],
)
def test_each_failure_is_one_sentence(said, function, expected):
    assert expected in said(function)
    assert not checks._verdicts[ID].passed
    assert checks._verdicts[ID].points == 0


@pytest.mark.parametrize("function", [loops, loops_and_catches_everything])
def test_an_endless_loop_is_stopped(said, monkeypatch, function):
    monkeypatch.setitem(TASK.__dict__, "time_limit", 0.2)
    started = time.perf_counter()
    assert "was still running after 0.2 seconds and was stopped." in said(function)
    assert time.perf_counter() - started < 5


def test_the_time_limit_holds_in_another_thread():
    found = []
    stop = threading.Event()
    thread = threading.Thread(
        target=lambda: found.append(
            calling.call_function(lambda: stop.wait(30), (), time_limit=0.1)
        )
    )
    thread.start()
    thread.join(20)
    stop.set()
    assert found[0].status == "timeout"


def test_the_stop_button_passes_through():
    def stopped(jacobians):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        checks.check(ID, stopped)


def test_a_misconception_gets_its_sentence(said):
    assert said(chain_rule._multiply_transposed).endswith(TASK.misconceptions[1].message)
    # Its order does not multiply where widths differ; the square case tells what was done.
    line = said(chain_rule._multiply_as_listed)
    assert "raised a ValueError" in line
    assert line.endswith(TASK.misconceptions[0].message)


def test_a_mistake_is_recognized_beside_cases_without_a_number():
    def angle(grads, limit):  # in radians, and NaN where rounding makes a cosine above 1
        turned = np.radians(abs(angle_between(grads, clip_by_norm(grads, limit))))
        return turned if turned > 0.01 else float("nan")

    def enlarged(grads, limit):  # and 0 / 0
        norm = np.sqrt(sum(np.sum(g**2) for g in grads))
        with np.errstate(invalid="ignore", divide="ignore"):
            return [g * (limit / norm) for g in grads]

    for name, wrong, mistake in (("clipnorm_angle", angle, "radians"),
                                 ("clip_global", enlarged, "always to the limit")):  # fmt: skip
        task = get_task(f"clipping_and_learning_rate/{name}")
        cases = draw_cases(task, 0)
        outcomes = [Outcome("value", to_plain(wrong(*case.args))) for case in cases]
        assert judge_task(task, 0, outcomes).misconception == mistake
        none = [Outcome("value", to_plain(o.value)) for o in outcomes]
        none[0] = none[1] = Outcome("error", message="raised.")  # too little is left to tell
        assert judge_task(task, 0, none).misconception is None


def test_hints_come_one_by_one(capsys):
    for number in (1, 2, 2):
        checks.hint(ID)
        printed = capsys.readouterr().out
        assert printed == f"{TASK.title}, hint {number} of 2: {TASK.hints[number - 1]}\n"


def test_the_score_counts_what_was_passed(capsys, said):
    checks.score()
    assert capsys.readouterr().out == "Nothing has been checked yet.\n"
    checks.score("chain_rule")
    total = sum(task.points for task in tasks_of("chain_rule"))
    assert capsys.readouterr().out.startswith(f"chain_rule: 0 of {total} points\n")
    said(chain_rule.ordered_product)
    checks.score()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"chain_rule: 1 of {total} points"
    assert lines[2] == f"  1 of 1  {TASK.title} (passed)"
    said(blank)
    checks.score()
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"chain_rule: 0 of {total} points"
    assert lines[2] == f"  0 of 1  {TASK.title} (not attempted)"


def test_unknown_names_are_named():
    with pytest.raises(ValueError, match=r"`task_id` \(='chain_rule/order_product'\) must name a "
                       "task; did you mean 'chain_rule/ordered_product'"):  # fmt: skip
        get_task("chain_rule/order_product")
    with pytest.raises(TypeError, match="`task_id`"):
        checks.hint(3)
    with pytest.raises(ValueError, match="`notebook` \\(='nothing'\\) must be one of chain_rule"):
        checks.score("nothing")
    with pytest.raises(TypeError, match="`seed`"):
        draw_cases(TASK, 1.5)


def test_cases_depend_on_the_seed_and_the_task_alone():
    def numbers(seed):
        return np.concatenate([m.ravel() for case in draw_cases(TASK, seed) for m in case.args[0]])

    assert np.array_equal(numbers(7), numbers("7"))
    assert not np.array_equal(numbers(7), numbers(8))
    # The first number is the same wherever it is drawn: a grade can be repeated elsewhere.
    assert f"{numbers(0)[0]:.6f}" == FIRST_NUMBER


FIRST_NUMBER = "-1.602866"


def outcomes_of(function, seed=0):
    return calling.run_cases(TASK, function, draw_cases(TASK, seed))


def test_outcomes_that_stop_early_are_not_a_pass():
    full = outcomes_of(chain_rule.ordered_product)
    assert judge_task(TASK, 0, full).passed
    short = judge_task(TASK, 0, full[:-1])
    assert short.points == 0
    assert "no answer for layers of widths 3, 3, 3 and 3" in short.message
    assert judge_task(TASK, 0, []).status == "unattempted"
    assert judge_task(TASK, 0, full + full).passed  # what nobody asked for is not looked at


def test_answers_of_another_seed_fail():
    assert not judge_task(TASK, 1, outcomes_of(chain_rule.ordered_product, seed=0)).passed


def test_one_empty_answer_among_others_is_a_failure():
    full = outcomes_of(chain_rule.ordered_product)
    full[1] = Outcome("unattempted", message="returned nothing.")
    verdict = judge_task(TASK, 0, full)
    assert verdict.status == "failed"
    assert "`ordered_product` returned nothing." in verdict.message


def judged_task(judge, recognizes=None):
    return Task(
        id="chain_rule/test", function="f", title="A test", points=1,
        cases=lambda rng: [Case((1,), "one")], reference=None, rtol=0, atol=0,
        tolerance_reason="none", hints=("none",), judge=judge,
        misconceptions=(Misconception("m", lambda x: x, "Mine.", recognizes),),
    )  # fmt: skip


def test_a_judge_that_cannot_read_an_answer_says_so():
    def judge(case, answer, expected):
        return None if answer["a"] > 1 else "too small."

    task = judged_task(judge, lambda case, answer, expected: answer == {"a": 1})
    assert judge_task(task, 0, [Outcome("value", {"a": 2})]).passed
    small = judge_task(task, 0, [Outcome("value", {"a": 1})])
    assert (small.message, small.advice) == ("not yet. For one: too small.", "Mine.")
    strange = judge_task(task, 0, [Outcome("value", 3)])
    assert "a form that cannot be judged (TypeError)" in strange.message
    assert not strange.passed


def test_definitions_are_checked():
    with pytest.raises(ValueError, match="a reference or a judge"):
        judged_task(None)
    with pytest.raises(ValueError, match="`status`"):
        Outcome("fine")
    with pytest.raises(TypeError, match="a set is not plain data"):
        Case(({1},), "a set")


def test_task_ids_are_unique():
    ids = [task.id for task in all_tasks()]
    assert len(ids) == len(set(ids))
    assert judging.OUTCOMES[0] == "value"
