"""The judges of open tasks: every rule of the task, broken alone, is named; the edge is passed."""

from __future__ import annotations

import numpy as np
import pytest

from course_lib.checks.judging import Outcome, judge_task, judge_value
from course_lib.checks.task import draw_cases, get_task


def sentence(task_id, make, seed=0):
    """What is said of `make(*args)` as the answer to the first case; None if it is right."""
    task = get_task(task_id)
    case = draw_cases(task, seed)[0]
    with np.errstate(all="ignore"):
        return judge_value(task, case, make(*case.args), None)


def chain(first, second):
    return lambda size, count: [
        np.diag([second if k % 2 else first, *[first if k % 2 else second] * (size - 1)])
        for k in range(count)
    ]


def scaled(task_id, factor):
    return lambda *args: factor * np.asarray(get_task(task_id).reference(*args))


def changed(task_id, **entries):
    return lambda *args: {**get_task(task_id).reference(*args), **entries}


def jordan(diagonal, coupling):
    def make(size, growth):
        matrix = diagonal * np.eye(size)
        matrix[0, 1] = coupling
        return matrix

    return make


VANISHING, TRANSIENT = "chain_rule/vanishing_chain", "exploding_gradients/transient_matrix"
WORST, CHAIN = "exploding_gradients/worst_gradient", "sigmoid_bound/lossless_chain"
SILENT, HIGHWAY = "bptt/silent_matrix", "lstm_highway/exploding_highway"


@pytest.mark.parametrize(
    ("task_id", "make", "said"),
    [
        (VANISHING, chain(2.0, 1e-3), None),
        (VANISHING, chain(2.001, 0.1), "the largest singular value of matrix 0 is 2.001, not 2."),
        (VANISHING, chain(2.0, 0.5), "the product has the norm"),
        (VANISHING, chain(2.0, 0.0), "the product is exactly zero"),
        (VANISHING, lambda size, count: [np.eye(size)], "expected a list of 2"),
        (VANISHING, lambda size, count: [np.eye(3, 7)] * count, "expected entry 0 of the matrices"),
        (VANISHING, lambda size, count: [np.full((size, size), np.nan)] * count, "finite numbers"),
        (CHAIN, lambda depth, start: [4.0] * depth, "a dict with the keys 'weights' and 'biases'"),
        (CHAIN, changed(CHAIN, more=1), "a dict with the keys 'weights' and 'biases'"),
        (CHAIN, changed(CHAIN, biases=[0.0]), "the biases with shape (9,), got shape (1,)"),
        (CHAIN, changed(CHAIN, weights=[4.01] + [4.0] * 8), "a weight has the size 4.01"),
        (CHAIN, changed(CHAIN, weights=[-4.0] * 9), "is "),
        (TRANSIENT, jordan(0.9, 1000.0), None),
        (TRANSIENT, jordan(0.901, 1000.0), "the spectral radius is 0.901, more than 0.9."),
        (TRANSIENT, jordan(0.5, 10.0), "less than"),
        (TRANSIENT, jordan(0.9, 1e12), "power 300 still has the norm"),
        (TRANSIENT, jordan(0.9, 1e308), "the largest norm of a power is nan"),
        (WORST, scaled(WORST, -1.0), None),
        (WORST, scaled(WORST, 1.001), "the direction has the length 1.001, not 1."),
        (WORST, lambda matrix, steps: np.eye(len(matrix))[0], "this direction is stretched by"),
        (SILENT, lambda start, steps, radius: np.diag([radius, -radius]), None),
        (SILENT, scaled(SILENT, 1.01), "the spectral radius is"),
        (SILENT, lambda start, steps, radius: 1e200 * np.eye(2), "the spectral radius is 1e+200"),
        (HIGHWAY, changed(HIGHWAY, candidate_weight=-4.0), None),
        (HIGHWAY, changed(HIGHWAY, candidate_weight=4.01), "the weight has the size 4.01"),
        (HIGHWAY, changed(HIGHWAY, input_bias=-9.0), "the derivative of the last cell state"),
        (HIGHWAY, changed(HIGHWAY, forget_bias=5.0), "the forget gate is 0.993307, not"),
        (HIGHWAY, changed(HIGHWAY, other=1.0), "expected a dict with the keys"),
        (HIGHWAY, changed(HIGHWAY, input_bias=[1.0]), "'input_bias' as one number, got a list"),
        (HIGHWAY, changed(HIGHWAY, input_bias=True), "'input_bias' as one number, got True"),
        (HIGHWAY, lambda steps, gate: "open", "expected a dict with the keys"),
    ],
)
def test_each_rule_is_judged(task_id, make, said):
    found = sentence(task_id, make)
    if said is None:
        assert found is None
    else:
        assert said in found, found
        assert found.endswith(".")


@pytest.mark.parametrize("mistake", get_task(WORST).misconceptions, ids=lambda m: m.name)
def test_a_direction_and_its_opposite_show_the_same_mistake(mistake):
    task = get_task(WORST)
    cases = draw_cases(task, 0)
    for factor in (1.0, -1.0, 3.0):
        outcomes = [Outcome("value", factor * mistake.wrong(*case.args)) for case in cases]
        assert judge_task(task, 0, outcomes).misconception == mistake.name


def test_the_guard_is_tried_on_everything_that_is_not_finite():
    cases = draw_cases(get_task("exploding_gradients/guarded_update"), 0)
    entries = [np.concatenate([grad.ravel() for grad in case.args[1]]) for case in cases]
    assert sum(bool(np.isnan(grads).any()) for grads in entries) == 1
    assert sum(bool(np.isinf(grads).any()) for grads in entries) == 1
