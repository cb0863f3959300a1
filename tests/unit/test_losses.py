"""The losses: their values by hand, their gradients by central differences."""

import numpy as np
import pytest

from course_lib.losses import LOSSES, check_batch, evaluate_loss
from course_lib.reference import central_difference

RNG = np.random.default_rng(0)
OUTPUTS = RNG.normal(size=(5, 3))
TARGETS = {
    "mean_squared_error": RNG.normal(size=(5, 3)),
    "cross_entropy": np.array([0, 2, 1, 1, 0]),
    "mean_output": None,
}


def test_values_by_hand():
    outputs = np.array([[1.0, 3.0], [0.0, 2.0]])
    assert evaluate_loss(outputs, None, loss="mean_output")[0] == 1.5
    y = np.array([[1.0, 1.0], [1.0, 2.0]])
    assert evaluate_loss(outputs, y, loss="mean_squared_error")[0] == (0 + 4 + 1 + 0) / 4
    value, _ = evaluate_loss(outputs, np.array([0, 1]), loss="cross_entropy")
    assert value == pytest.approx((np.log1p(np.exp(2.0)) + np.log1p(np.exp(-2.0))) / 2, rel=1e-14)


@pytest.mark.parametrize("loss", LOSSES)
def test_gradient_is_the_central_difference(loss):
    _, gradient = evaluate_loss(OUTPUTS, TARGETS[loss], loss=loss)
    numeric = central_difference(lambda h: evaluate_loss(h, TARGETS[loss], loss=loss)[0], OUTPUTS)
    np.testing.assert_allclose(gradient, numeric, rtol=1e-6, atol=1e-9)


def test_cross_entropy_does_not_overflow():
    outputs = np.array([[1000.0, -1000.0]])
    value, gradient = evaluate_loss(outputs, np.array([1]), loss="cross_entropy")
    assert value == 2000.0
    np.testing.assert_allclose(gradient, [[1.0, -1.0]])


def test_check_batch_converts():
    x, y = check_batch([[1, 2]], np.array([1], np.int8), loss="cross_entropy", n_in=2, n_out=2)
    assert x.dtype == np.float64
    assert y.dtype == np.int64
