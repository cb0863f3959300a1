"""What results compute from their arrays, and the sentences they say about themselves."""

import dataclasses
import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import GradientFlow, LayerJacobians, TrainingRun
from course_lib.results import decades, format_number, per_layer_factor


def flow_of(weight_norms, activation_norms, dtype="float64"):
    arrays = [np.array([[n]], dtype=dtype) for n in weight_norms]
    gradients = [np.array([[n]], dtype=dtype) for n in activation_norms]
    return GradientFlow(
        "NumPy", dtype, 0.5, tuple(arrays), tuple(a[0] for a in arrays), tuple(gradients),
        tuple(gradients),
    )  # fmt: skip


def jacobians_of(*matrices):
    return LayerJacobians("NumPy", "float64", tuple(np.array(m, float) for m in matrices))


def test_gradient_flow_norms_are_frobenius_norms():
    flow = GradientFlow(
        "NumPy", "float64", 0.0,
        (np.array([[3.0, 4.0]]),), (np.array([5.0, 12.0]),),
        (np.array([[1.0], [1.0]]),), (np.array([[0.0], [2.0]]),),
    )  # fmt: skip
    assert flow.depth == 1
    assert flow.weight_grad_norms == [5.0]
    assert flow.bias_grad_norms == [13.0]
    assert flow.activation_grad_norms == pytest.approx([np.sqrt(2.0)])
    assert flow.activation_norms == [2.0]


def test_norms_of_tiny_float32_gradients_do_not_underflow():
    flow = flow_of([1e-30], [1e-30], dtype="float32")
    assert flow.weight_grad_norms[0] == pytest.approx(1e-30, rel=1e-6)


def test_product_has_the_latest_layer_leftmost():
    a, b, c = [[1, 2], [3, 4]], [[0, 1], [1, 0]], [[2, 0], [1, 1]]
    result = jacobians_of(a, b, c)
    np.testing.assert_array_equal(result.product(), np.array(c) @ np.array(b))
    np.testing.assert_array_equal(result.product(first=1), np.array(c) @ np.array(b) @ np.array(a))
    np.testing.assert_array_equal(result.product(first=1, last=1), a)
    np.testing.assert_array_equal(result.product(first=1, last=2), np.array(b) @ np.array(a))


@pytest.mark.parametrize(("first", "last"), [(3, 2), (1, 4), (4, None)])
def test_product_outside_the_network(first, last):
    result = jacobians_of([[1]], [[1]], [[1]])
    with pytest.raises(ValueError, match=r"`first` .* must satisfy 1 <= first <= last <= 3"):
        result.product(first=first, last=last)


def test_singular_values_and_condition_numbers():
    result = jacobians_of(np.eye(2), np.diag([4.0, 2.0]), np.diag([0.5, -3.0]), np.diag([1.0, 0.0]))
    np.testing.assert_allclose(result.singular_values(first=2, last=3), [6.0, 2.0])
    np.testing.assert_allclose(result.spectral_norms, [1.0, 4.0, 3.0, 1.0])
    np.testing.assert_allclose(result.condition_numbers, [1.0, 2.0, 6.0, np.inf])


@given(seed=st.integers(0, 10_000), n=st.integers(1, 6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_the_norm_of_a_product_is_at_most_the_product_of_the_norms(seed, n):
    rng = np.random.default_rng(seed)
    result = jacobians_of(*rng.normal(size=(4, n, n)))
    bound = result.spectral_norms[1:].prod()
    assert result.singular_values()[0] <= bound * (1 + 1e-12)


def test_decades():
    assert decades(1.0, 1e-3) == pytest.approx(-3.0)
    assert decades(0.0, 1.0) == np.inf
    assert np.isnan(decades(0.0, 0.0))


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.2449, "0.24"), (31.2, "31"), (6.4e-7, "6.4e-07"), (4.2e8, "4.2e+08"), (0.0, "0"),
        (1.0, "1"), (123.0, "120"), (999.9, "1000"), (np.inf, "inf"), (np.nan, "nan"),
        (-0.5, "-0.5"),
    ],
)  # fmt: skip
def test_format_number(value, text):
    assert format_number(value) == text


def test_per_layer_factor():
    assert per_layer_factor(np.array([1.0, 4.0, 16.0])) == pytest.approx(0.25)
    assert per_layer_factor(np.array([0.0, 1.0])) == 0.0
    assert np.isnan(per_layer_factor(np.array([1.0])))


def test_gradient_flow_describes_fall_growth_and_constancy():
    falls = flow_of([1e-4, 1e-2, 1.0], [1.0, 1.0, 1.0]).describe()
    assert falls == (
        "NumPy (float64), 3 layers: weight-gradient norm falls from 1 in layer 3 to 1.0e-04 in "
        "layer 1 (4.0 decades, a factor of 0.01 per layer); activation-gradient norm stays within "
        "half a decade, from 1 in layer 3 to 1 in layer 1."
    )
    grows = flow_of([100.0, 10.0, 1.0], [0.0, 0.0, 1.0]).describe()
    assert "grows from 1 in layer 3 to 100 in layer 1 (2.0 decades, a factor of 10 " in grows
    assert "activation-gradient norm goes from 1 in layer 3 to 0 in layer 1" in grows


def test_non_finite_gradients_are_named():
    words = flow_of([np.inf, 1.0], [np.nan, 1.0]).describe()
    assert "to inf in layer 1" in words
    assert "to nan in layer 1" in words


def test_layer_jacobians_describe():
    words = jacobians_of(np.eye(2), np.diag([10.0, 1.0]), np.diag([0.1, 1.0])).describe()
    assert "layer 1 to layer 3 is 1, the product of the layers' norms 10, 1.0 decades" in words
    assert "1 layer: the Jacobian's norm is 2" in jacobians_of([[2.0]]).describe()
    assert "inf decades" in jacobians_of([[1.0]], [[0.0]]).describe()


def test_training_run_describes_loss_and_both_ends():
    run = TrainingRun(
        "NumPy", "float64", "sgd", 0.1, np.array([0, 50]), np.array([2.3, 0.456]),
        np.ones((2, 3)), np.array([[0, 0, 0], [0.001, 0.1, 0.5]]),
    )  # fmt: skip
    assert run.describe() == (
        "NumPy (float64), sgd, 50 steps at learning rate 0.1: the loss goes from 2.30 to 0.46; "
        "layer 1 moves by 0.1 % of its norm, layer 3 by 50 %."
    )


@given(exponent=st.integers(-30, 30), seed=st.integers(0, 100))
@settings(max_examples=40, deadline=None, derandomize=True)
def test_sentences_travel_between_machines(exponent, seed):
    rng = np.random.default_rng(seed)
    norms = rng.uniform(1.0, 9.0, size=4) * 10.0**exponent
    words = flow_of(norms, norms).describe()
    assert words == flow_of(norms.copy(), norms.copy()).describe()
    assert words.endswith(".")
    assert "\n" not in words
    # No number with more than three significant digits: other machines round the fourth.
    for number in re.findall(r"\d+(?:\.\d+)?", words.split(":", 1)[1]):
        assert len(number.replace(".", "").strip("0")) <= 3


def test_results_are_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError):
        flow_of([1.0], [1.0]).loss = 2.0
    with pytest.raises(dataclasses.FrozenInstanceError):
        jacobians_of([[1.0]]).dtype = "float32"
