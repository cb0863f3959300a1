"""The sequence tasks: what they ask, and what the best answer without the input is worth."""

import numpy as np
import pytest

from course_lib.losses import evaluate_loss
from course_lib.sequence_losses import evaluate_sequence_loss
from course_lib.tasks import (
    adding_problem,
    copy_task,
    digit_pixels,
    digit_rows,
    recall_task,
    score,
)


def test_adding_problem_marks_one_number_in_each_half():
    task = adding_problem(500, length=20, seed=0)
    markers = task.x[:, :, 1]
    assert np.all(markers[:, :10].sum(axis=1) == 1)
    assert np.all(markers[:, 10:].sum(axis=1) == 1)
    np.testing.assert_allclose(task.y[:, 0], np.sum(task.x[:, :, 0] * markers, axis=1))
    assert (task.n_in, task.n_out, task.length, task.over) == (2, 1, 20, "last")


def test_adding_baseline_is_the_loss_of_answering_one():
    task = adding_problem(40_000, length=4, seed=0)
    constant, _ = evaluate_loss(np.ones_like(task.y), task.y, loss=task.loss)
    # The mean of 40,000 squares with a standard deviation near 0.2: good to 0.003 at 3 sigma.
    assert constant == pytest.approx(task.baseline_loss, abs=0.003)


def test_copy_task_repeats_its_symbols_after_the_gap():
    task = copy_task(50, gap=7, seed=0, symbols=5, copies=3)
    codes = task.x.argmax(axis=2)
    assert task.length == 13
    np.testing.assert_array_equal(task.y[:, -3:], codes[:, :3])
    assert np.all(task.y[:, :-3] == 5)
    assert np.all(codes[:, -4] == 6)
    assert np.all(codes[:, 3:-4] == 5)
    assert codes[:, :3].max() == 4


def test_copy_baseline_is_the_loss_of_blanks_and_guesses():
    task = copy_task(200, gap=5, seed=0, symbols=4, copies=3)
    # Logits of the answer that knows the format: certain of the blank, then even over symbols.
    outputs = np.full((200, task.length, task.n_out), -60.0)
    outputs[:, :-3, 4] = 60.0
    outputs[:, -3:, :4] = 0.0
    value, _ = evaluate_sequence_loss(outputs, task.y, loss=task.loss, over=task.over)
    assert value == pytest.approx(task.baseline_loss, rel=1e-6)
    perfect = np.eye(task.n_out)[task.y]
    assert score(perfect, task) == 1.0
    assert score(outputs, task) == pytest.approx(task.baseline_accuracy, abs=0.06)


@pytest.mark.parametrize(("lag", "length"), [(0, 1), (6, None), (3, 12)])
def test_recall_shows_the_symbol_at_its_lag(lag, length):
    task = recall_task(100, lag=lag, length=length, seed=0, symbols=3, noise=0.0)
    shown = task.x[:, task.length - 1 - lag]
    np.testing.assert_array_equal(shown.argmax(axis=1), task.y)
    assert task.x.sum() == 100
    assert task.baseline_loss == pytest.approx(np.log(3))


def test_digits_come_row_by_row_and_pixel_by_pixel():
    rows, pixels = digit_rows(seed=0), digit_pixels(seed=0, part="test")
    assert rows.x.shape[1:] == (8, 8)
    assert pixels.x.shape[1:] == (64, 1)
    np.testing.assert_array_equal(
        digit_rows(seed=0, part="test").x.reshape(len(pixels.x), 64), pixels.x[:, :, 0]
    )
    assert rows.baseline_loss == pytest.approx(np.log(10), abs=0.01)
    assert 0.08 < pixels.baseline_accuracy < 0.13


@pytest.mark.parametrize("draw", [
    lambda seed: adding_problem(5, length=6, seed=seed),
    lambda seed: copy_task(5, gap=3, seed=seed),
    lambda seed: recall_task(5, lag=3, seed=seed),
])  # fmt: skip
def test_a_seed_is_a_draw(draw):
    np.testing.assert_array_equal(draw(1).x, draw(1).x)
    assert not np.array_equal(draw(1).x, draw(2).x)
    assert "ignores the input" in draw(1).describe()


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: adding_problem(0, length=4, seed=0), ValueError, r"`count` \(=0\)"),
        (lambda: adding_problem(1, length=1, seed=0), ValueError, r"`length` \(=1\)"),
        (lambda: adding_problem(1, length=4, seed=None), TypeError, r"`seed` \(=None\)"),
        (lambda: copy_task(1, gap=0, seed=0), ValueError, r"`gap` \(=0\)"),
        (lambda: copy_task(1, gap=1, seed=0, symbols=1), ValueError, r"`symbols` \(=1\)"),
        (lambda: copy_task(1, gap=1, seed=0, copies=0), ValueError, r"`copies` \(=0\)"),
        (lambda: recall_task(1, lag=4, length=4, seed=0), ValueError, r"`lag` \(=4\) must be"),
        (lambda: recall_task(1, lag=-1, seed=0), ValueError, r"`lag` \(=-1\)"),
        (lambda: recall_task(1, lag=1, seed=0, noise=-1.0), ValueError, r"`noise` \(=-1.0\)"),
        (lambda: digit_rows(seed=0, part="all"), ValueError, r"`part` \(='all'\)"),
    ],
)
def test_bad_input_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
