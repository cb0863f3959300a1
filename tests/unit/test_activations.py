"""Activations against closed forms, central differences and the suprema they claim."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import ACTIVATIONS, get_activation
from course_lib.reference import central_difference

NAMES = sorted(ACTIVATIONS)
KINKED = {"relu", "leaky_relu", "elu"}
DENSE = np.linspace(-30.0, 30.0, 600_001)  # 1e-4 apart

HIGH_PRECISION = {
    "linear": lambda z: z,
    "sigmoid": lambda z: 1 / (1 + mpmath.exp(-z)),
    "tanh": mpmath.tanh,
    "relu": lambda z: max(z, mpmath.mpf(0)),
    "leaky_relu": lambda z: z if z > 0 else mpmath.mpf("0.01") * z,
    "elu": lambda z: z if z > 0 else mpmath.expm1(z),
    "gelu": lambda z: z * mpmath.ncdf(z),
    "silu": lambda z: z / (1 + mpmath.exp(-z)),
    "softplus": lambda z: mpmath.log1p(mpmath.exp(z)),
}
POINTS = [-30.0, -8.0, -2.5, -1.0, -1e-3, 1e-3, 0.7, 1.0, 3.0, 8.0, 30.0]


@pytest.mark.parametrize("name", NAMES)
def test_value_and_derivative_in_high_precision(name):
    # 40 digits; relative 1e-12 also in the far tails, where cancellation would show.
    activation, exact = get_activation(name), HIGH_PRECISION[name]
    z = np.array(POINTS)
    with mpmath.workdps(40):
        values = [float(exact(mpmath.mpf(p))) for p in POINTS]
        slopes = [float(mpmath.diff(exact, mpmath.mpf(p))) for p in POINTS]
    np.testing.assert_allclose(activation.function(z), values, rtol=1e-12, atol=0.0)
    np.testing.assert_allclose(activation.derivative(z), slopes, rtol=1e-12, atol=0.0)


@given(z=st.floats(-20, 20), name=st.sampled_from(NAMES))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_derivative_is_the_central_difference(z, name):
    if name in KINKED and abs(z) < 1e-4:
        z = 1.0  # the derivative jumps (ELU's has a corner); what is used there is tested below
    activation = get_activation(name)
    slope = central_difference(lambda v: activation.function(v), np.array([z]))[0, 0]
    # Truncation is about 1e-10, rounding about 1e-16 * 20 / 1e-5.
    assert activation.derivative(np.array([z]))[0] == pytest.approx(slope, abs=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_the_supremum_is_a_bound_and_is_reached(name):
    activation = get_activation(name)
    slopes = np.abs(activation.derivative(DENSE))
    assert slopes.max() <= activation.supremum * (1 + 1e-9)
    # On a grid of 1e-4 the largest slope misses a smooth maximum by less than 1e-8.
    assert slopes.max() == pytest.approx(activation.supremum, rel=1e-8)
    differences = np.abs(np.diff(activation.function(DENSE)) / np.diff(DENSE))
    assert differences.max() == pytest.approx(activation.supremum, rel=1e-6)


@pytest.mark.parametrize("name", NAMES)
def test_saturates_says_whether_both_tails_flatten(name):
    activation = get_activation(name)
    tails = np.abs(activation.derivative(np.array([-60.0, 60.0])))
    assert activation.saturates == bool((tails < 1e-12).all())


def test_closed_form_of_gelus_supremum():
    root = mpmath.sqrt(2)
    assert get_activation("gelu").supremum == pytest.approx(
        float(mpmath.ncdf(root) + root * mpmath.npdf(root)), rel=1e-10
    )


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_dtype_are_kept(name):
    activation = get_activation(name)
    z = np.zeros((2, 3, 4))
    for result in (activation.function(z), activation.derivative(z)):
        assert result.shape == z.shape
        assert result.dtype == np.float64


@pytest.mark.parametrize("name", NAMES)
def test_nothing_overflows_far_out(name):
    activation = get_activation(name)
    z = np.array([-1e4, 1e4])
    assert np.isfinite(activation.function(z)).all()
    assert np.isfinite(activation.derivative(z)).all()


def test_relu_has_slope_zero_at_its_kink():
    assert get_activation("relu").derivative(np.zeros(1))[0] == 0.0


def torch_slope(name, z):
    torch = pytest.importorskip("torch")
    from course_lib.pytorch.models import MODULES

    points = torch.tensor(z, requires_grad=True)
    MODULES[name]()(points).sum().backward()
    return points.grad.numpy()


def tensorflow_slope(name, z):
    tf = pytest.importorskip("tensorflow")
    import keras

    from course_lib.tf import models

    function = models.ACTIVATIONS.get(name) or keras.activations.get(name)
    points = tf.constant(z)
    with tf.GradientTape() as tape:
        tape.watch(points)
        values = function(points)
    return tape.gradient(values, points).numpy()


@pytest.mark.parametrize("slope", [torch_slope, tensorflow_slope])
@pytest.mark.parametrize("name", NAMES)
def test_derivative_is_the_frameworks_autograd(name, slope):
    z = np.array([-20.0, -3.0, -0.5, 0.0, 0.5, 3.0, 20.0])
    # Absolute 1e-14: PyTorch's sigmoid'(z) = s (1 - s) loses digits where s rounds to 1.
    np.testing.assert_allclose(
        get_activation(name).derivative(z), slope(name, z), rtol=1e-12, atol=1e-14
    )
