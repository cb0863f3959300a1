"""Lecture 3's network: each change is one change, and one repairs it, in both frameworks."""

from dataclasses import replace

import numpy as np
import pytest

import course_lib.tf
from course_lib import draw_weights, pytorch
from course_lib.data import load_digits_split
from course_lib.repairs import CHANGES, PROBLEMATIC, Repair, apply_changes

DIGITS = load_digits_split(seed=0)


def run(framework, *changes, epochs=5, seed=11):
    repair = apply_changes(PROBLEMATIC, changes)
    weights = draw_weights(repair.network, seed=seed)
    return framework.train_repair(repair, weights, DIGITS, epochs=epochs, seed=seed)


def test_all_changes_together_are_the_lectures_solution():
    solution = apply_changes(PROBLEMATIC, list(CHANGES))
    assert solution.network.layer_sizes == (64, 128, 128, 128, 10)
    assert (solution.network.activation, solution.network.init) == ("relu", "he_normal")
    assert (solution.batch_norm, solution.dropout, solution.clip_norm) == (True, 0.2, 1.0)
    assert (solution.optimizer, solution.learning_rate) == ("adam", 1e-3)


@pytest.mark.parametrize("framework", [pytorch, course_lib.tf], ids=["pytorch", "tf"])
def test_relu_alone_repairs_and_clipping_does_not(framework):
    assert run(framework).accuracies[-1] < 0.2
    assert run(framework, "clipnorm").accuracies[-1] < 0.2
    repaired = run(framework, "ReLU")
    assert repaired.accuracies[-1] > 0.9
    assert "5" in repaired.describe()


@pytest.mark.parametrize("changes", [(), ("Adam", "ReLU", "He"), ("ReLU", "batch norm")])
def test_both_frameworks_begin_and_go_on_alike(changes):
    first, second = (run(framework, *changes, epochs=1) for framework in (pytorch, course_lib.tf))
    assert first.updates == second.updates == len(DIGITS.x_train) // 32
    # float32: the same loss to 1e-4; after 42 steps the accuracies part by little
    np.testing.assert_allclose(first.first_loss, second.first_loss, rtol=1e-4)
    assert abs(first.accuracies[0] - second.accuracies[0]) < 0.04


@pytest.mark.parametrize("framework", [pytorch, course_lib.tf], ids=["pytorch", "tf"])
def test_what_batch_norm_costs_the_first_epoch_is_its_running_averages(framework):
    solution = apply_changes(PROBLEMATIC, list(CHANGES))
    weights = draw_weights(solution.network, seed=11)
    slow, quick = (
        framework.train_repair(replace(solution, batch_share=share), weights, DIGITS, epochs=1,
                               seed=11).accuracies[0]
        for share in (0.01, 0.1)
    )  # fmt: skip
    assert slow < 0.85 < quick


def test_bad_input():
    with pytest.raises(ValueError, match="`dropout`"):
        replace(PROBLEMATIC, dropout=1.0)
    with pytest.raises(TypeError, match="`network`"):
        Repair("relu")
    with pytest.raises(ValueError, match="`changes"):
        apply_changes(PROBLEMATIC, ["magic"])
    weights = draw_weights(PROBLEMATIC.network, seed=0)
    for framework in (pytorch, course_lib.tf):
        with pytest.raises(ValueError, match="`epochs`"):
            framework.train_repair(PROBLEMATIC, weights, DIGITS, epochs=0, seed=0)
        with pytest.raises(TypeError, match="`data`"):
            framework.train_repair(PROBLEMATIC, weights, DIGITS.x_train, epochs=1, seed=0)
