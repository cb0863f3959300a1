"""The sizes of signals through the depth, against closed forms and the variance argument."""

import matplotlib.pyplot as plt
import numpy as np
import pytest

from course_lib import get_activation, plots
from course_lib.signal_propagation import (
    gaussian_mean_square,
    measure_signal,
    predict_signal,
)
from course_lib.theory import mean_field_rate


def test_gaussian_mean_squares_with_closed_forms():
    relu, linear = get_activation("relu"), get_activation("linear")
    for q in (1e-30, 0.5, 3.0, 1e20):
        assert gaussian_mean_square(linear.function, q) == pytest.approx(q, rel=1e-6)
        assert gaussian_mean_square(relu.function, q) == pytest.approx(q / 2, rel=1e-6)
        assert gaussian_mean_square(relu.derivative, q) == pytest.approx(0.5, rel=1e-9)
    assert gaussian_mean_square(relu.derivative, 0.0) == pytest.approx(0.5, rel=1e-9)


@pytest.mark.parametrize("name", ["tanh", "sigmoid", "gelu"])
def test_gaussian_mean_square_against_sampling(name):
    f = get_activation(name)
    z = np.sqrt(2.0) * np.random.default_rng(0).standard_normal(400_000)
    # The mean of 400 000 bounded or Gaussian-tailed numbers: well below 1 %.
    assert gaussian_mean_square(f.function, 2.0) == pytest.approx(np.mean(f.function(z) ** 2), 0.01)


def test_fan_in_keeps_activations_and_fan_out_gradients():
    sizes = (20, 50, 10, 80, 40)
    forward, backward = predict_signal(sizes, activation="relu", init="he_normal")
    np.testing.assert_allclose(forward, 1.0, rtol=1e-6)
    np.testing.assert_allclose(backward, np.sqrt(40 / np.array(sizes[1:])), rtol=1e-6)
    forward, backward = predict_signal(sizes, activation="relu", init="he_uniform_fan_out")
    np.testing.assert_allclose(backward, 1.0, rtol=1e-6)
    np.testing.assert_allclose(forward, np.sqrt(20 / np.array(sizes)), rtol=1e-6)


def test_tanh_at_gain_one_follows_its_power_law():
    forward, backward = predict_signal((64,) * 1001, activation="tanh", init="lecun_normal")
    # Corrections to 1/sqrt(2 L) are of relative order log(L)/L.
    assert forward[-1] == pytest.approx(1 / np.sqrt(2000), rel=0.02)
    quarter = predict_signal((64,) * 251, activation="tanh", init="lecun_normal")[1]
    assert backward[0] / quarter[0] == pytest.approx(0.5, rel=0.02)


@pytest.mark.parametrize(("name", "gain"), [("sigmoid", 1.0), ("tanh", 5 / 3), ("relu", 1.0)])
def test_deep_in_the_network_the_factor_is_the_mean_field_rate(name, gain):
    grads = predict_signal((64,) * 101, activation=name, init="lecun_normal", gain=gain)[1]
    rate = mean_field_rate(name, weight_scale=gain).rate
    assert grads[60] / grads[61] == pytest.approx(rate, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "init", "gain"),
    [("sigmoid", "glorot_uniform", 1.0), ("tanh", "orthogonal", 1.0), ("relu", "he_normal", 1.0)],
)
def test_a_wide_network_follows_the_prediction(name, init, gain):
    profile = measure_signal((400,) * 13, activation=name, init=init, gain=gain, seed=0)
    # A mean square of ReLU fluctuates by sqrt(5 L / n) = 40 %, a size by half of that: twice it.
    np.testing.assert_allclose(profile.forward, profile.forward_theory, rtol=0.4)
    np.testing.assert_allclose(profile.backward, profile.backward_theory, rtol=0.4)
    assert profile.backward_factor == pytest.approx(profile.backward_factor_theory, rel=0.03)


def test_a_profile_is_what_its_fields_say():
    profile = measure_signal((5, 7, 3, 4), activation="relu", init="he_normal", inputs=9, seed=1)
    assert (profile.depth, len(profile.forward), len(profile.spread)) == (3, 4, 4)
    assert len(profile.backward) == 3
    assert profile.backward[-1] == 1.0
    assert np.all(profile.spread <= profile.forward)
    assert profile.forward_factor == pytest.approx((profile.forward[3] / profile.forward[1]) ** 0.5)
    assert profile.spread_factor == pytest.approx((profile.spread[3] / profile.spread[1]) ** 0.5)
    again = measure_signal((5, 7, 3, 4), activation="relu", init="he_normal", inputs=9, seed=1)
    np.testing.assert_array_equal(profile.forward, again.forward)
    assert "relu with he_normal, 3 layers" in profile.describe()


def test_a_gain_scales_a_linear_network():
    one = measure_signal((8,) * 5, activation="linear", init="lecun_normal", seed=0)
    two = measure_signal((8,) * 5, activation="linear", init="lecun_normal", gain=2.0, seed=0)
    np.testing.assert_allclose(two.forward, one.forward * 2.0 ** np.arange(5), rtol=1e-12)
    np.testing.assert_allclose(two.backward, one.backward * 2.0 ** np.arange(3, -1, -1), rtol=1e-12)
    assert "lecun_normal times 2, 4 layers" in two.describe()


BAD = [
    (dict(sizes=(3, 4)), ValueError, "`sizes` (=(3, 4)) must be a sequence of at least three"),
    (dict(sizes="abc"), ValueError, "`sizes` (='abc')"),
    (dict(sizes=(3, 0, 2)), ValueError, "`sizes[1]` (=0) must be an integer >= 1."),
    (dict(activation="softmax"), ValueError, "`activation` (='softmax')"),
    (dict(init="identity"), ValueError, "`init` (='identity')"),
    (dict(gain=-1.0), ValueError, "`gain` (=-1.0) must be >= 0.0."),
    (dict(inputs=0), ValueError, "`inputs` (=0) must be an integer >= 1."),
    (dict(seed=-1), ValueError, "`seed` (=-1)"),
]


@pytest.mark.parametrize(("changed", "error", "words"), BAD)
def test_bad_input_is_named(changed, error, words):
    call = {"sizes": (3, 4, 2), "activation": "relu", "init": "he_normal", "seed": 0, **changed}
    with pytest.raises(error) as caught:
        measure_signal(call.pop("sizes"), **call)
    assert words in str(caught.value)


def test_the_figure_shows_measurement_and_prediction():
    profile = measure_signal((16,) * 11, activation="relu", init="he_normal", seed=0)
    figure = plots.plot_signal_profiles({"He": profile}, every=4)
    forward, backward = figure.axes
    theory, measured = forward.lines
    np.testing.assert_array_equal(theory.get_ydata(), profile.forward_theory)
    np.testing.assert_array_equal(measured.get_xdata(), [2, 6, 10])
    np.testing.assert_array_equal(measured.get_ydata(), profile.forward[[2, 6, 10]])
    np.testing.assert_array_equal(backward.lines[1].get_xdata(), [2, 6, 10])
    np.testing.assert_array_equal(backward.lines[1].get_ydata(), profile.backward[[1, 5, 9]])
    plt.close(figure)
    with pytest.raises(ValueError, match="at least one label"):
        plots.plot_signal_profiles({})


def test_the_figure_of_weight_sizes():
    ax = plots.plot_weight_sizes(
        ["he_normal"], fan_ins=np.array([2.0, 200.0]), band=(0.01, 0.1), layers={"here": 20}
    )
    np.testing.assert_allclose(ax.lines[0].get_ydata(), [1.0, 0.1])
    assert "here" in [text.get_text() for text in ax.texts]
    plt.close(ax.figure)
    with pytest.raises(ValueError, match="`laws`"):
        plots.plot_weight_sizes([], fan_ins=np.array([1.0, 2.0]), band=(0.01, 0.1))
