"""Bounded, predicted and measured factors per layer."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import brentq

from course_lib import NetworkSpec, draw_weights, reference
from course_lib.data import gaussian_batch
from course_lib.rates import bound_activation_grads, sweep_weight_scale
from course_lib.theory import mean_field_rate, spectral_bound


@settings(deadline=None, max_examples=30)
@given(
    st.sampled_from(["sigmoid", "tanh", "relu", "gelu", "silu"]),
    st.integers(1, 6),
    st.floats(0.1, 5.0),
    st.integers(0, 1000),
)
def test_no_activation_gradient_exceeds_its_bound(activation, depth, gain, seed):
    spec = NetworkSpec(4, 6, depth, 3, activation, activation, gain=gain)
    weights = draw_weights(spec, seed=seed)
    model = reference.build_mlp(spec, weights)
    flow = reference.gradient_flow(model, gaussian_batch(5, 4, seed=seed), loss="mean_output")
    norms = flow.activation_grad_norms
    bounds = bound_activation_grads(spec, weights, output_norm=norms[-1])
    assert bounds.shape == (depth,)
    assert bounds[-1] == norms[-1]
    assert np.all(norms <= bounds * (1 + 1e-12))


def test_the_bound_at_layer_1_is_the_spectral_bound():
    spec = NetworkSpec(4, 6, 5, 3, "sigmoid", "sigmoid")
    weights = draw_weights(spec, seed=0)
    bounds = bound_activation_grads(spec, weights, output_norm=2.0)
    assert bounds[0] == pytest.approx(2.0 * spectral_bound(weights, "sigmoid"), rel=1e-12)


def test_a_wide_network_follows_mean_field_theory():
    sweep = sweep_weight_scale([0.5, 1.0, 16.0], width=256, depth=20, seed=0)
    # A network of width n fluctuates around the limit by about 1/sqrt(n) = 6 % at most.
    np.testing.assert_allclose(sweep.measured, sweep.predicted, rtol=0.06)
    assert np.all(np.diff(sweep.saturated) >= 0)


def test_a_centered_sigmoid_explodes_above_scale_4_and_vanishes_below():
    sweep = sweep_weight_scale([2.0, 8.0], centered=True, width=128, depth=20, seed=0)
    assert sweep.measured[0] < 1 < sweep.measured[1]
    assert sweep.predicted[0] == pytest.approx(0.5, rel=1e-3)
    assert "inputs centered, 20 layers of 128" in sweep.describe()


def test_where_theory_has_no_settled_state_the_prediction_is_missing():
    sweep = sweep_weight_scale([1.0, 2.0], activation="relu", width=64, depth=5, seed=0)
    assert sweep.predicted[0] == pytest.approx(2**-0.5, rel=1e-6)
    assert np.isnan(sweep.predicted[1])


@pytest.mark.parametrize("scale", [2.0, 8.0, 64.0])
def test_mean_field_theory_of_a_saturated_tanh_against_adaptive_quadrature(scale):
    def expect(function):
        density = lambda t: np.exp(-0.5 * t**2) / np.sqrt(2 * np.pi)  # noqa: E731
        # Even integrands; the break points make quad see the narrow peak at 0.
        points = [0.01, 0.05, 0.2, 1.0]
        return 2 * quad(lambda t: function(t) * density(t), 0, 9, points=points, limit=200)[0]

    def gap(q):
        return scale**2 * expect(lambda t: np.tanh(np.sqrt(q) * t) ** 2) - q

    q = brentq(gap, 0.1, scale**2)
    chi = scale**2 * expect(lambda t: np.cosh(np.minimum(np.sqrt(q) * t, 300.0)) ** -4.0)
    found = mean_field_rate("tanh", weight_scale=scale)
    assert found.preactivation_variance == pytest.approx(q, rel=1e-6)
    assert found.rate == pytest.approx(np.sqrt(chi), rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"scales": [0.0]}, "`scales`"),
        ({"scales": []}, "`scales`"),
        ({"scales": [1.0], "depth": 1}, "`depth` .*>= 2"),
        ({"scales": [1.0], "width": 0}, "`width` .*>= 1"),
        ({"scales": [1.0], "inputs": 0}, "`inputs` .*>= 1"),
        ({"scales": [1.0], "activation": "tanh", "centered": True}, "`activation` .*sigmoid"),
        ({"scales": [1.0], "activation": "swish"}, "`activation` .*swish"),
        ({"scales": [1.0], "seed": -1}, "`seed` .*>= 0"),
    ],
)
def test_bad_input_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        sweep_weight_scale(**{"seed": 0, **arguments})
