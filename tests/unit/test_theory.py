"""Closed forms against brute force: bounds hold, chains underflow where IEEE says, rates agree."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import ACTIVATIONS, MLPWeights, NetworkSpec, draw_weights, get_activation
from course_lib.reference import backward, build_mlp, layer_jacobians
from course_lib.theory import (
    mean_field_rate,
    power_chain,
    product_norm_bounds,
    spectral_bound,
)

FEW = settings(max_examples=60, deadline=None, derandomize=True)


@given(
    activation=st.sampled_from(sorted(ACTIVATIONS)),
    depth=st.integers(1, 6),
    width=st.integers(1, 6),
    gain=st.floats(0.1, 4.0),
    seed=st.integers(0, 10_000),
)
@settings(max_examples=200, deadline=None, derandomize=True)
def test_no_network_beats_the_spectral_bound(activation, depth, width, gain, seed):
    spec = NetworkSpec(
        3, width, depth, n_out=2, activation=activation, output_activation=activation,
        init="he_normal", gain=gain,
    )  # fmt: skip
    weights = draw_weights(spec, seed=seed)
    x = np.random.default_rng(seed).normal(size=3)
    if depth == 1:
        assert spectral_bound(weights, activation) == 1.0
        return
    norm = layer_jacobians(build_mlp(spec, weights), x).singular_values()[0]
    assert norm <= spectral_bound(weights, activation) * (1 + 1e-9)


@pytest.mark.parametrize(("activation", "gamma"), [("sigmoid", 0.25), ("tanh", 1.0)])
def test_the_bound_is_reached_by_scaled_identities_at_zero(activation, gamma):
    sizes = [np.eye(2), 3.0 * np.eye(2), 0.5 * np.eye(2)]
    shift = -get_activation(activation).function(np.zeros(2))  # brings every z_l back to 0
    weights = MLPWeights(sizes, [np.zeros(2), 3.0 * shift, 0.5 * shift])
    spec = NetworkSpec(2, 2, 3, n_out=2, activation=activation, output_activation=activation)
    bound = spectral_bound(weights, activation)
    assert bound == pytest.approx(gamma**2 * 1.5, rel=1e-12)
    norm = layer_jacobians(build_mlp(spec, weights), np.zeros(2)).singular_values()[0]
    assert norm == pytest.approx(bound, rel=1e-12)


def test_power_chain_in_exact_powers():
    np.testing.assert_array_equal(power_chain(0.5, 4), [0.5, 0.25, 0.125, 0.0625])
    np.testing.assert_array_equal(power_chain(-2.0, 3), [-2.0, 4.0, -8.0])


@pytest.mark.parametrize(
    ("dtype", "last_half", "last_quarter", "last_double"),
    # Subnormal numbers end at 2**-24, 2**-149, 2**-1074; infinity begins at 2**16, 2**128, 2**1024.
    [("float16", 24, 12, 15), ("float32", 149, 74, 127), ("float64", 1074, 537, 1023)],
)
def test_power_chain_underflows_and_overflows_as_ieee754_says(
    dtype, last_half, last_quarter, last_double
):
    for factor, last in ((0.5, last_half), (0.25, last_quarter)):
        chain = power_chain(factor, 1200, dtype=dtype)
        assert chain.dtype == dtype
        assert int((chain > 0).sum()) == last
    chain = power_chain(2.0, 1200, dtype=dtype)
    assert int(np.isfinite(chain).sum()) == last_double


def test_mean_field_of_relu_at_hes_scale_is_one():
    found = mean_field_rate("relu", weight_scale=np.sqrt(2.0))
    assert found.rate == pytest.approx(1.0, rel=1e-12)
    assert found.preactivation_variance == pytest.approx(1.0, rel=1e-12)


@pytest.mark.parametrize("scale", [0.1, 0.5, 0.9])
def test_mean_field_of_relu_below_hes_scale(scale):
    # E[relu'(z)^2] = 1/2 whatever the variance, even where that has underflowed.
    found = mean_field_rate("relu", weight_scale=scale)
    assert found.rate == pytest.approx(scale / np.sqrt(2.0), rel=1e-12)


def test_mean_field_of_a_linear_network():
    found = mean_field_rate("linear", weight_scale=0.5, bias_scale=0.3)
    assert found.rate == pytest.approx(0.5, rel=1e-12)
    assert found.preactivation_variance == pytest.approx(0.3**2 / (1 - 0.5**2), rel=1e-12)


def test_mean_field_fixed_point_by_an_independent_integral():
    found = mean_field_rate("tanh", weight_scale=1.5, bias_scale=0.2)
    z = np.linspace(-12, 12, 200_001)
    mass = np.exp(-0.5 * z**2) / np.sqrt(2 * np.pi) * (z[1] - z[0])
    pre = np.sqrt(found.preactivation_variance) * z
    q = 1.5**2 * np.sum(mass * np.tanh(pre) ** 2) + 0.2**2
    chi = 1.5**2 * np.sum(mass * (1 - np.tanh(pre) ** 2) ** 2)
    assert q == pytest.approx(found.preactivation_variance, rel=1e-6)
    assert np.sqrt(chi) == pytest.approx(found.rate, rel=1e-6)


@pytest.mark.parametrize(
    ("activation", "scale"), [("sigmoid", 1.0), ("sigmoid", 2.0), ("tanh", 1.5), ("relu", 1.4)]
)
def test_mean_field_rate_against_a_wide_network(activation, scale):
    width, depth = 400, 12
    spec = NetworkSpec(
        width, width, depth, n_out=width, activation=activation,
        init="normal", gain=scale / np.sqrt(width),
    )  # fmt: skip
    model = build_mlp(spec, draw_weights(spec, seed=0))
    x = np.random.default_rng(1).normal(size=(10, width))
    # An output gradient that knows nothing of the outputs. A squared error's does: it is
    # correlated with the forward pass, and in a ReLU network its rate comes out 10 % larger.
    output_grad = np.random.default_rng(2).normal(size=(10, width))
    _, _, grads = backward(model, model.forward(x), output_grad)
    norms = [np.linalg.norm(g) for g in grads]
    # Leave out the ends: the first layers still approach the fixed point, the last is linear.
    measured = (norms[2] / norms[-2]) ** (1 / (depth - 4))
    # 1/sqrt(width) = 5 % per layer and batch, averaged over eight layers: 3 % is two spreads.
    assert measured == pytest.approx(mean_field_rate(activation, weight_scale=scale).rate, rel=0.03)


def test_mean_field_above_hes_scale_is_refused():
    with pytest.raises(ValueError, match=r"`weight_scale` \(=1.6\) must let"):
        mean_field_rate("relu", weight_scale=1.6)


def test_mean_field_describes():
    words = mean_field_rate("sigmoid", weight_scale=1.0).describe()
    assert "sigmoid at weight scale 1 predicts a factor of 0.2" in words


@given(seed=st.integers(0, 10_000), n=st.integers(1, 5), count=st.integers(1, 5))
@FEW
def test_both_bounds_hold_for_square_matrices(seed, n, count):
    matrices = list(np.random.default_rng(seed).normal(size=(count, n, n)))
    bounds = product_norm_bounds(matrices)
    assert bounds.lower <= bounds.norm * (1 + 1e-10)
    assert bounds.norm <= bounds.upper * (1 + 1e-10)
    product = np.eye(n)
    for m in matrices:
        product = m @ product
    assert bounds.norm == pytest.approx(np.linalg.norm(product, 2), rel=1e-10)


def test_bounds_by_hand():
    bounds = product_norm_bounds([np.diag([2.0, 1.0]), np.diag([3.0, 6.0])])
    assert bounds.lower == pytest.approx(3.0)
    assert bounds.norm == pytest.approx(6.0)
    assert bounds.upper == pytest.approx(12.0)
    assert "6, between 3 and 12, bounds that lie 0.6 decades apart" in bounds.describe()


def test_a_wide_matrix_has_a_null_space_and_no_lower_bound():
    tall, wide = np.eye(3)[:, :2], np.array([[0.0, 0.0, 1.0]])
    bounds = product_norm_bounds([tall, wide])
    assert bounds.norm == 0.0
    assert bounds.lower == 0.0
    assert product_norm_bounds([tall]).lower == pytest.approx(1.0)
    assert "inf decades" in bounds.describe()
