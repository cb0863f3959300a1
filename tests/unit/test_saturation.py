"""Saturation, activation curves, and the sigmoid network that is a tanh network."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from course_lib import MLPWeights, NetworkSpec, draw_weights, reference
from course_lib.activations import ACTIVATIONS, get_activation
from course_lib.data import gaussian_batch
from course_lib.saturation import (
    center_sigmoid_inputs,
    measure_saturation,
    sample_activation_curves,
)


def test_curves_hold_functions_slopes_and_suprema():
    curves = sample_activation_curves(["sigmoid", "relu"], limit=2.0, points=5)
    assert curves.z.tolist() == [-2.0, -1.0, 0.0, 1.0, 2.0]
    assert curves.values[1].tolist() == [0.0, 0.0, 0.0, 1.0, 2.0]
    assert curves.slopes[1].tolist() == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert curves.slopes[0, 2] == curves.suprema[0] == 0.25
    assert "sigmoid at most 0.25" in curves.describe()


@example(1e-9)
@settings(deadline=None)
@given(st.floats(-700, 700))
def test_the_sigmoid_bound_and_the_completed_square(z):
    s = get_activation("sigmoid").function(np.array(z))
    slope = get_activation("sigmoid").derivative(np.array(z))
    assert 0.0 <= slope <= 0.25
    # s is exact to 1 part in 1e16, so s(1 - s) is to about 1e-16 absolutely.
    assert abs(slope - (0.25 - (s - 0.5) ** 2)) < 1e-15


@settings(deadline=None)
@given(st.floats(-50, 50))
def test_tanh_is_a_stretched_sigmoid(z):
    sigmoid, tanh = get_activation("sigmoid"), get_activation("tanh")
    assert abs(tanh.function(np.array(z)) - (2 * sigmoid.function(np.array(2 * z)) - 1)) < 1e-15
    assert abs(tanh.derivative(np.array(z)) - 4 * sigmoid.derivative(np.array(2 * z))) < 1e-15


def test_saturation_by_hand():
    edge = np.log((0.5 + np.sqrt(9 / 40)) / (0.5 - np.sqrt(9 / 40)))  # where s(1 - s) = 1/40
    z = np.array([[0.0, edge - 1e-6], [edge + 1e-6, -50.0]])
    found = measure_saturation([z, z], ["sigmoid", "relu"])
    assert found.depth == 2
    assert found.fractions.tolist() == [0.5, 0.5]  # relu: 0 and -50 are switched off
    assert found.relative_slopes[1] == 0.5
    assert "50 % of the units" in found.describe()


def test_tanh_is_not_saturated_at_zero_output():
    assert measure_saturation([np.zeros((1, 3))], ["tanh"]).fractions[0] == 0.0


@given(st.sampled_from(sorted(ACTIVATIONS)), st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_larger_share_never_lowers_the_fraction(name, share, seed):
    z = [3.0 * gaussian_batch(20, 7, seed=seed)]
    low = measure_saturation(z, [name], share=share).fractions[0]
    high = measure_saturation(z, [name], share=min(1.0, 1.5 * share)).fractions[0]
    assert 0.0 <= low <= high <= 1.0


def test_the_order_of_the_inputs_does_not_matter():
    z = gaussian_batch(20, 7, seed=0)
    forward = measure_saturation([z], ["sigmoid"])
    backward = measure_saturation([z[::-1]], ["sigmoid"])
    assert forward.fractions[0] == backward.fractions[0]


def test_a_centered_sigmoid_network_is_a_tanh_network_with_a_quarter_of_the_weights():
    spec = NetworkSpec(5, 7, 4, 3, "sigmoid", "sigmoid", init="lecun_normal", gain=6.0)
    weights = draw_weights(spec, seed=3)
    x = gaussian_batch(1, 5, seed=4)[0]
    sigmoid = reference.build_mlp(spec, center_sigmoid_inputs(weights))
    twin = NetworkSpec(5, 7, 4, 3, "tanh", "tanh")
    quarters = MLPWeights([w / (4 if k else 2) for k, w in enumerate(weights.matrices)])
    tanh = reference.build_mlp(twin, quarters)
    np.testing.assert_allclose(2 * sigmoid(x[None]) - 1, tanh(x[None]), atol=1e-13)
    np.testing.assert_allclose(
        reference.layer_jacobians(sigmoid, x).product(),
        reference.layer_jacobians(tanh, x).product(),
        rtol=1e-9,
        atol=1e-13,
    )


def test_centering_keeps_the_matrices_and_the_first_bias():
    spec = NetworkSpec(4, 4, 3, 2, bias=0.7)
    weights = draw_weights(spec, seed=0)
    centered = center_sigmoid_inputs(weights)
    for before, after in zip(weights.matrices, centered.matrices, strict=True):
        assert np.array_equal(before, after)
    assert np.array_equal(centered.biases[0], np.full(4, 0.7))
    balanced = centered.matrices[1] @ np.full(4, 0.5) + centered.biases[1]
    np.testing.assert_allclose(balanced, 0.0, atol=1e-15)  # two orders of one sum


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: sample_activation_curves([]), "`names`"),
        (lambda: sample_activation_curves("sigmoid"), "`names`"),
        (lambda: sample_activation_curves(["softmax"]), r"`names\[0\]` .*softmax"),
        (lambda: sample_activation_curves(["tanh"], limit=0.0), "`limit` .*> 0"),
        (lambda: sample_activation_curves(["tanh"], points=2), "`points` .*>= 3"),
        (lambda: measure_saturation([], []), "`preactivations`"),
        (lambda: measure_saturation([np.zeros((1, 1))], []), "`activations`"),
        (lambda: measure_saturation([np.zeros((1, 1))], "t"), "`activations`"),
        (lambda: measure_saturation([np.zeros(3)], ["tanh"]), r"`preactivations\[0\]`"),
        (lambda: measure_saturation([np.full((1, 1), np.nan)], ["tanh"]), "finite"),
        (lambda: measure_saturation([np.zeros((1, 1))], ["tanh"], share=0.0), "`share`"),
        (lambda: measure_saturation([np.zeros((1, 1))], ["tanh"], share=1.5), "`share`"),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises((TypeError, ValueError), match=message):
        call()


def test_only_weights_can_be_centered():
    with pytest.raises(TypeError, match="`weights`"):
        center_sigmoid_inputs([np.eye(2)])
