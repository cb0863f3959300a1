"""The judges of the open tasks on cures and diagnosis: every rule, broken alone, is named."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from course_lib.checks.judging import judge_value
from course_lib.checks.task import draw_cases, get_task
from course_lib.checks.tasks import _six_runs, capstone, initialization
from course_lib.initialization import orthogonal_matrix
from course_lib.plain_data import to_plain

from .solved_notebooks import solved_functions

HE, ORTHOGONAL = "initialization/draw_he", "initialization/draw_orthogonal"
GAIN, RULE = "initialization/level_gain", "activations_and_dead_units/fool_the_rule"
SILENCE, CURE = "normalization_and_residuals/silence", "choosing_a_cure/choose_cure"
REPAIR, DECEIVE, RUNS = "choosing_a_cure/repair", "diagnosis/deceive", "diagnosis/diagnose_runs"
DEEP, MEMORY = "capstone/train_deep", "capstone/remember"


def solve(task_id, *args):
    task = get_task(task_id)
    return solved_functions(task.notebook)[task.function](*args)


def sentence(task_id, make, seed=0, number=0):
    """What is said of `make(*args)` as the answer to a case; None if it is right."""
    task = get_task(task_id)
    case = draw_cases(task, seed)[number]
    with np.errstate(all="ignore"):
        return judge_value(task, case, to_plain(make(*case.args)), None)


def scaled(task_id, factor):
    return lambda *args: factor * np.asarray(solve(task_id, *args))


def changed(task_id, **entries):
    return lambda *args: {**solve(task_id, *args), **entries}


def each(draw):
    """A solution that draws by `draw(rng, fan_in, fan_out)` for each seed."""
    return lambda n, m, seeds: np.stack([draw(np.random.default_rng(s), n, m) for s in seeds])


def student_t(rng, n, m):
    return np.sqrt(2 / n / (10 / 8)) * rng.standard_t(10, size=(m, n))


def two_blocks(h, g):
    signs = np.diag(np.sign(h)) / np.sqrt(2)
    return np.vstack([signs, signs]), -np.hstack([signs, signs])


def deep_with(**entries):
    """The trained network of the capstone, with some entries replaced by functions of it."""

    def train(x, y):
        net = trained()
        return net | {name: change(net) for name, change in entries.items()}

    return train


@functools.cache
def trained():
    return solve(DEEP, *draw_cases(get_task(DEEP), 0)[0].args)


def one_layer_wider(net):
    first, second, *others = net["matrices"]
    return [np.vstack([first, first[:1]]), np.hstack([second, 0 * second[:, :1]]), *others]


def small_last_layer(net):
    """One more layer in tanh's linear range, which the readout makes up for: the same labels."""
    *others, readout = net["matrices"]
    return [*others, 1e-4 * np.eye(32), 1e4 * readout]


@pytest.mark.parametrize(
    ("task_id", "make", "said"),
    [
        (HE, each(lambda r, n, m: r.uniform(-1, 1, (m, n)) * np.sqrt(6 / n)), None),
        (HE, each(student_t), None),
        (HE, each(lambda r, n, m: r.choice([-1, 1], (m, n)) * np.sqrt(2 / n)), None),
        (HE, scaled(HE, 1.05), "expected weights with mean square"),
        (HE, scaled(HE, 0.0), "two different seeds give the same matrix"),
        (HE, lambda n, m, s: solve(HE, n, m, s) + 0.2 * np.sqrt(2 / n), "mean 0, got a mean of"),
        (HE, lambda n, m, s: solve(HE, n, m, s)[:-1], "got shape (6,"),
        (HE, lambda n, m, s: "He", "expected the matrices as an array"),
        (HE, lambda n, m, s: np.nan * solve(HE, n, m, s), "finite numbers"),
        (ORTHOGONAL, scaled(ORTHOGONAL, -1.0), None),
        (ORTHOGONAL, scaled(ORTHOGONAL, 1.001), "expected singular values of 1, got 1 to 1."),
        (ORTHOGONAL, scaled(ORTHOGONAL, 2.0), "expected singular values of 1, got 2 to 2."),
        (GAIN, scaled(GAIN, 1.02), None),
        (GAIN, scaled(GAIN, 1.2), "decades larger than in layer 50"),
        (GAIN, scaled(GAIN, 0.8), "decades smaller than in layer 50"),
        (GAIN, scaled(GAIN, -1.0), "makes a weight scale of"),
        (GAIN, lambda *args: [1.0], "expected the gain as one number, got a list of 1"),
        (RULE, lambda x, units: [], "expected a dictionary with the keys"),
        (RULE, changed(RULE, missed=[0.0]), "expected a pair (w, b) under the key 'missed'"),
        (RULE, lambda x, u: dict.fromkeys(("condemned", "missed"), solve(RULE, x, u)["missed"]),
         "the rule is silent"),
        (SILENCE, two_blocks, None),
        (SILENCE, lambda h, g: (np.eye(len(h)),), "expected the pair (W1, W2)"),
        (SILENCE, lambda h, g: (np.zeros((0, len(h))), np.zeros((len(h), 0))),
         "of the gradient's norm arrives"),
        (SILENCE, lambda h, g: (np.diag(np.sign(h)), -0.99 * np.diag(np.sign(h))), "0.01 of the"),
        (CURE, lambda found: "more data", "expected the cure as one of"),
        (CURE, lambda found: 3, "expected the cure as one of"),
        (REPAIR, lambda x, y, new: y[:10], "expected the labels with shape (400,)"),
        (REPAIR, lambda x, y, new: np.full(len(new), np.nan), "finite numbers"),
        (DECEIVE, changed(DECEIVE, large=1.0), "which the check accepts"),
        (DECEIVE, changed(DECEIVE, small=1.0), "which the check accepts"),
        (DECEIVE, changed(DECEIVE, missed=[1.0]), "the norms 'missed' with shape"),
        (DECEIVE, lambda n, lo, hi: solve(DECEIVE, n, lo, hi) | {"missed": np.ones(len(n))},
         "expected the last of 'missed' at 1e6 times the first, got 1 times"),
        (DECEIVE, lambda n, lo, hi: solve(DECEIVE, n, lo, hi)
         | {"missed": hi * np.geomspace(1e-7, 1.01, len(n))}, "the check warns"),
        (RUNS, lambda runs: solve(RUNS, runs)[:-1], "expected a list of 6 pairs"),
        (RUNS, lambda runs: [cause for cause, _ in solve(RUNS, runs)], "expected a pair"),
        (RUNS, lambda runs: [("healthy", "nothing")] * 6, "1 of 6 causes are right"),
        (RUNS, lambda runs: [(c, "nothing") for c, _ in solve(RUNS, runs)], "but not the remedy"),
        (DEEP, deep_with(matrices=one_layer_wider,
                         biases=lambda net: [np.zeros(33), *net["biases"][1:]]),
         "got 30 layers of up to 33 units"),
        (DEEP, deep_with(matrices=small_last_layer,
                         biases=lambda net: [*net["biases"][:-1], np.zeros(32), net["biases"][-1]]),
         "decades from the last hidden layer to the first; at most 2 are allowed"),
        (DEEP, deep_with(matrices=lambda net: [*net["matrices"][:-1], net["matrices"][-1][::-1]]),
         "of the labels are right"),
        (DEEP, deep_with(matrices=lambda net: net["matrices"][1:]), "a list of 29 biases"),
        (DEEP, deep_with(activation=lambda net: "linear"), "expected the activation as one of"),
        (DEEP, lambda x, y: [], "expected a dictionary with the keys"),
        (MEMORY, changed(MEMORY, b=np.zeros(7)), "expected b with 4 entries"),
        (MEMORY, changed(MEMORY, w_hy=np.eye(3)), "expected w_hy with shape"),
        (MEMORY, lambda codes, lag: solve(MEMORY, codes, lag)
         | {"b": capstone._memory(forget=8.0)(codes, lag)["b"]}, None),
        (MEMORY, lambda codes, lag: solve(MEMORY, codes, lag)
         | {"b": capstone._memory(forget=3.0)(codes, lag)["b"]}, "a tenth is asked for"),
    ],
)  # fmt: skip
def test_each_rule_is_judged(task_id, make, said):
    found = sentence(task_id, make)
    if said is None:
        assert found is None
    else:
        assert said in found, found
        assert found.endswith(".")


def test_orthogonal_draws_with_a_bias_are_seen():
    """Half of the matrices with a fixed sign: the mean over the seeds shows it."""

    def biased(rows, columns, seeds):
        drawn = [orthogonal_matrix(rows, columns, rng=np.random.default_rng(s)) for s in seeds]
        return np.stack([q * np.where(np.diag(q[:columns]) < 0, -1.0, 1.0) for q in drawn])

    assert "to have mean 0 over the seeds" in sentence(ORTHOGONAL, biased, number=2)


def test_the_measured_gain_is_that_of_mean_field_theory():
    from course_lib.theory import mean_field_rate

    for activation, scale in (("relu", 2**0.5), ("tanh", 1.3), ("elu", 1.3)):
        rate = mean_field_rate(activation, weight_scale=scale).rate
        found = [
            initialization.measure_decades(activation, scale, depth=50, width=100, seed=seed)
            for seed in range(6)
        ]
        # Six draws of a quantity that varies by 0.15 decades; the way to the fixed point adds some.
        assert np.mean(found) == pytest.approx(49 * np.log10(rate), abs=0.3)


def test_the_reference_diagnosis_is_right_on_other_runs():
    task = get_task(RUNS)
    for seed in ("a", "b", "c"):
        (case,) = draw_cases(task, seed)
        decided = [_six_runs.decide(run) for run in case.args[0]]
        assert decided == case.hidden
