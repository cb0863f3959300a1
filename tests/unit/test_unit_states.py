"""Inactive, dead, always-on, saturated; slope ranges, climbs, deaths and recoveries."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import MLPWeights, NetworkSpec, draw_weights, plots, reference
from course_lib.activations import ACTIVATIONS
from course_lib.data import DigitsSplit, gaussian_batch, load_digits_split
from course_lib.dying_units import dead_share, sweep_deaths
from course_lib.recovery import VARIANTS, draw_shifted_layer, train_shifted
from course_lib.saturation import measure_saturation, sample_activation_curves
from course_lib.slope_ranges import (
    measure_climb_times,
    measure_slope_range,
    predict_climb_time,
)
from course_lib.unit_states import classify_units, count_idle_units


@pytest.fixture(scope="module")
def digits() -> DigitsSplit:
    return load_digits_split(seed=0)


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


FOUR_UNITS = np.array([[-1.0, 1.0, -1.0, 0.0], [-2.0, 2.0, 3.0, -1.0]])
"""Dead, always on, mixed, and dead because 0 does not count as active."""


def test_the_four_states_by_hand():
    states = classify_units(FOUR_UNITS, "relu")
    assert states.dead.tolist() == [True, False, False, True]
    assert states.always_on.tolist() == [False, True, False, False]
    assert states.active_fractions.tolist() == [0.0, 1.0, 0.5, 0.0]
    assert states.inactive_share == 5 / 8
    assert states.saturated_share == 5 / 8  # a ReLU is saturated where it is inactive
    assert (states.lowest[2], states.highest[2]) == (-1.0, 3.0)
    assert "62 % of the pairs inactive" in states.describe()
    assert "2 units dead, 1 always on" in states.describe()


def test_a_leaky_unit_is_saturated_where_a_relu_is_dead():
    states = classify_units(FOUR_UNITS, "leaky_relu")
    assert not states.dead.any()
    assert states.saturated_everywhere.tolist() == [True, False, False, True]
    assert classify_units(FOUR_UNITS, "leaky_relu", share=0.005).saturated_share == 0.0


def test_tanh_is_saturated_on_both_sides_and_never_dead():
    states = classify_units(np.array([[-5.0, 0.0, 5.0]]), "tanh")
    assert states.saturated_fractions.tolist() == [1.0, 0.0, 1.0]
    assert not states.dead.any()


@given(st.sampled_from(sorted(ACTIVATIONS)), st.integers(0, 20))
def test_saturation_agrees_with_the_other_module_and_order_does_not_matter(name, seed):
    z = 3.0 * gaussian_batch(15, 6, seed=seed)
    states = classify_units(z, name)
    assert np.isclose(states.saturated_share, measure_saturation([z], [name]).fractions[0])
    assert np.array_equal(classify_units(z[::-1], name).dead, states.dead)
    assert not np.any(states.dead & ~states.saturated_everywhere)


@given(st.integers(0, 20))
def test_more_inputs_never_make_more_units_idle(seed):
    z = gaussian_batch(40, 9, seed=seed) - 1.0
    found = count_idle_units([z, -z], [1, 3, 10, 40])
    assert np.all(np.diff(found.idle, axis=1) <= 0)
    assert found.idle[0, -1] == classify_units(z, "relu").dead.sum()
    assert found.idle[1, 0] == np.sum(-z[0] <= 0)


def test_a_dead_unit_has_no_gradient_in_any_of_its_weights():
    spec = NetworkSpec(5, 6, 3, 4, "relu", init="he_normal")
    drawn = draw_weights(spec, seed=0)
    bias = np.array([-50.0, 0, 0, 0, 0, 0])
    model = reference.build_mlp(
        spec, MLPWeights(drawn.matrices, [drawn.biases[0], bias, drawn.biases[2]])
    )
    x = gaussian_batch(30, 5, seed=1)
    assert classify_units(model.forward(x).preactivations[1], "relu").dead[0]
    flow = reference.gradient_flow(model, x, np.arange(30) % 4, loss="cross_entropy")
    assert not flow.weight_grads[1][0].any()
    assert flow.bias_grads[1][0] == 0.0
    assert not flow.weight_grads[2][:, 0].any()
    assert flow.weight_grads[1][1:].any()


def test_half_of_all_pairs_are_inactive_by_symmetry():
    spec = NetworkSpec(20, 2000, 3, 1, "relu", init="he_normal")
    z = reference.build_mlp(spec, draw_weights(spec, seed=0)).forward(
        gaussian_batch(1, 20, seed=1)
    )
    for layer in (0, 1):
        # 2000 independent halves: a standard deviation of 0.011.
        assert abs(classify_units(z.preactivations[layer], "relu").inactive_share - 0.5) < 0.05


KNOWN_RANGES = [
    ("sigmoid", 0.0, 0.25, np.nan), ("tanh", 0.0, 1.0, np.nan), ("relu", 0.0, 1.0, np.nan),
    ("leaky_relu", 0.01, 1.0, np.nan), ("elu", 0.0, 1.0, np.nan), ("softplus", 0.0, 1.0, np.nan),
    ("silu", -0.0998, 1.0998, -1.27846), ("gelu", -0.1289, 1.1289, -0.75179),
]  # fmt: skip


@pytest.mark.parametrize(("name", "low", "high", "turn"), KNOWN_RANGES)
def test_slope_ranges(name, low, high, turn):
    found = measure_slope_range(name)
    # The published constants have four or five digits.
    np.testing.assert_allclose([found.smallest, found.largest], [low, high], atol=5e-5)
    np.testing.assert_allclose(found.turning_point, turn, atol=1e-5)
    assert found.largest <= ACTIVATIONS[name].supremum + 1e-9
    assert ("negative below" in found.describe()) == (name in ("silu", "gelu"))


@pytest.mark.parametrize("k", [0.5, 2.0, 6.0])
def test_climb_times_have_their_closed_forms(k):
    e = np.exp(k)
    for name, exact in (
        ("leaky_relu", k / 0.01), ("elu", e - 1), ("softplus", k + e - 1),
        ("sigmoid", 2 * k + e - 1 / e), ("tanh", k / 2 + np.sinh(2 * k) / 4), ("linear", k),
    ):  # fmt: skip
        # The trapezoidal rule's error, (k/20000)^2/12 times a slope, is far below 1e-6.
        np.testing.assert_allclose(predict_climb_time(name, k), exact, rtol=1e-6)
    assert predict_climb_time("relu", k) == np.inf


def test_counted_steps_approach_the_integral():
    climb = measure_climb_times("elu", [1.0, 3.0], learning_rate=0.001, max_steps=30_000)
    # Euler's method is wrong by a relative error of the order of the learning rate.
    np.testing.assert_allclose(climb.counted, climb.predicted, rtol=0.005)
    assert "elu: steps from -1, -3 to 0" in climb.describe()


@pytest.mark.parametrize("name", ["gelu", "silu"])
def test_left_of_the_turning_point_a_pull_upwards_moves_down(name):
    climb = measure_climb_times(name, [0.5, 2.0], max_steps=200)
    assert np.isfinite(climb.counted[0])
    assert np.isfinite(climb.predicted[0])
    assert climb.counted[1] == climb.predicted[1] == np.inf
    assert climb.ends[1] < -2.0


def test_negative_biases_and_large_steps_kill(digits):
    sweep = sweep_deaths(digits, biases=[0.0, -3.0], learning_rates=[0.05, 4.0], width=32,
                         steps=30, seeds=[0])  # fmt: skip
    assert sweep.before[0, 0] == 0.0
    assert sweep.before[1, 0] > 0.25
    assert sweep.after[0, 0, 0] == 0.0
    assert sweep.after[:, 1].min() > 0.7
    assert "with bias -3" in sweep.describe()


def test_with_fixed_inputs_nobody_revives(digits):
    spec = NetworkSpec(64, 32, 2, 10, "relu", init="he_normal", bias=-3.0)
    model = reference.build_mlp(spec, draw_weights(spec, seed=0))
    before = classify_units(model.forward(digits.x_train).preactivations[0], "relu").dead
    reference.train(model, digits.x_train, digits.y_train, learning_rate=0.1, steps=50)
    after = classify_units(model.forward(digits.x_train).preactivations[0], "relu").dead
    assert before.any()
    assert np.all(after[before])
    assert dead_share(model, digits.x_train) == after.mean()


def test_a_shifted_relu_layer_does_not_move_and_trains_like_the_reference(digits):
    stuck = train_shifted(digits, "ReLU", 20.0, steps=20, seed=0)
    assert stuck.active_shares.tolist() == [0.0, 0.0]
    assert stuck.steps_to(0.8) == np.inf
    assert stuck.slopes.size == 0
    w1, w2, b1 = draw_shifted_layer(32, 1.0, seed=0)
    model = reference.MLP([w1, w2], [b1, np.zeros(10)], ("leaky_relu", "linear"))
    reference.train(model, digits.x_train, digits.y_train, learning_rate=0.05, steps=20,
                    batch_size=64, seed=0)  # fmt: skip
    ours = train_shifted(digits, "leaky 0.01", 1.0, steps=20, seed=0)
    theirs = reference.accuracy(model, digits.x_test, digits.y_test)
    assert ours.accuracies[-1] == pytest.approx(theirs, abs=1e-12)


def test_a_learned_slope_moves_and_a_fixed_one_does_not(digits):
    shared = train_shifted(digits, "PReLU 0.25 shared", 4.0, steps=20, seed=0)
    single = train_shifted(digits, "PReLU 0 per unit", 4.0, steps=20, seed=0)
    assert shared.slopes.shape == (1,)
    assert shared.slopes[0] != 0.25
    assert single.slopes.shape == (32,)
    assert single.slopes.any()
    assert train_shifted(digits, "leaky 0.3", 4.0, steps=2, seed=0).slopes.size == 0
    assert "biases from -4" in shared.describe()


def test_figures_draw_what_the_results_hold(digits):
    ax = plots.plot_unit_ranges(classify_units(FOUR_UNITS, "relu"))
    assert {t.get_text() for t in ax.texts} == {"dead", "always on", "active on some inputs"}
    found = count_idle_units([FOUR_UNITS], [1, 2])
    np.testing.assert_array_equal(plots.plot_idle_counts(found).lines[0].get_ydata(), [75, 50])
    climb = measure_climb_times("elu", [1.0, 2.0])
    lines = plots.plot_climb_times([climb]).lines
    np.testing.assert_array_equal(lines[0].get_ydata(), climb.predicted)
    np.testing.assert_array_equal(lines[1].get_ydata(), climb.counted)
    sweep = sweep_deaths(digits, biases=[0.0], learning_rates=[0.1, 1.0], width=8, steps=2,
                         seeds=[0])  # fmt: skip
    line = plots.plot_death_sweep(sweep).lines[0]
    np.testing.assert_array_equal(line.get_ydata(), 100 * sweep.after[0, :, 0])
    curves = sample_activation_curves(["relu", "gelu"], points=11)
    figure = plots.plot_slope_families([(curves, [(1, 0, 0), (1, 0, 0)])])
    np.testing.assert_array_equal(figure.axes[0].lines[2].get_ydata(), curves.slopes[1])
    runs = {v: [train_shifted(digits, v, 8.0, steps=2, seed=0)] for v in ("ReLU", "ELU")}
    left, right = plots.plot_shifted_training(runs, target=0.99).axes
    assert left.lines[0].get_xdata()[0] > 2  # never: beyond the last step
    assert right.lines[0].get_xdata()[0] == 100 * runs["ReLU"][0].active_shares[-1]


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda d: classify_units(FOUR_UNITS, "softmax"), ValueError, "`activation` .*softmax"),
        (lambda d: classify_units(FOUR_UNITS[0], "relu"), ValueError, "`preactivations` .*2 dim"),
        (lambda d: classify_units([[np.nan]], "relu"), ValueError, "finite"),
        (lambda d: classify_units(FOUR_UNITS, "relu", share=0.0), ValueError, "`share`"),
        (lambda d: count_idle_units([], [1]), ValueError, "`preactivations`"),
        (lambda d: count_idle_units([FOUR_UNITS], []), ValueError, "`counts`"),
        (lambda d: count_idle_units([FOUR_UNITS], [2, 1]), ValueError, "`counts` .*increasing"),
        (lambda d: count_idle_units([FOUR_UNITS], [0]), ValueError, r"`counts\[0\]`"),
        (lambda d: count_idle_units([FOUR_UNITS], [3]), ValueError, r"`preactivations\[0\]`"),
        (lambda d: measure_slope_range("relu", limit=0.0), ValueError, "`limit`"),
        (lambda d: measure_slope_range("relu", points=2), ValueError, "`points`"),
        (lambda d: predict_climb_time("elu", 0.0), ValueError, "`depth`"),
        (lambda d: measure_climb_times("elu", []), ValueError, "`depths`"),
        (lambda d: measure_climb_times("elu", [1.0], learning_rate=0), ValueError, "`learning_r"),
        (lambda d: measure_climb_times("elu", [1.0], max_steps=1.5), TypeError, "`max_steps`"),
        (lambda d: sweep_deaths(d, biases=[], learning_rates=[1.0], seeds=[0]), ValueError,
         "`biases`"),
        (lambda d: train_shifted(d, "Mish", 1.0, seed=0), ValueError, "`variant` .*Mish"),
        (lambda d: train_shifted(d, "ReLU", -1.0, seed=0), ValueError, "`depth`"),
        (lambda d: train_shifted(d, "ReLU", 1.0, seed=0.5), TypeError, "`seed`"),
        (lambda d: dead_share("model", d.x_train), TypeError, "`model`"),
        (lambda d: plots.plot_climb_times([]), ValueError, "`climbs`"),
        (lambda d: plots.plot_shifted_training({}, target=0.8), ValueError, "`runs`"),
    ],
)  # fmt: skip
def test_bad_input_is_named(digits, call, error, message):
    with pytest.raises(error, match=message):
        call(digits)


def test_the_variants_are_the_frameworks_defaults():
    torch = pytest.importorskip("torch")
    keras = pytest.importorskip("course_lib.tf.models").keras
    assert VARIANTS["leaky 0.01"][1] == torch.nn.LeakyReLU().negative_slope
    assert VARIANTS["leaky 0.3"][1] == pytest.approx(keras.layers.LeakyReLU().negative_slope)
    assert VARIANTS["PReLU 0.25 shared"][1] == torch.nn.PReLU().weight.item()
    prelu = keras.layers.PReLU()
    prelu.build((None, 3))
    assert prelu.get_weights()[0].tolist() == [VARIANTS["PReLU 0 per unit"][1]] * 3
