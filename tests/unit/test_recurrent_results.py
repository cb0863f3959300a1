"""Recurrent results: what they say in words, saturation, powers and bounds, figures."""

import numpy as np
import pytest
from matplotlib.axes import Axes

from course_lib import RecurrentSpec, draw_recurrent_weights, plots, reference
from course_lib.matrix_powers import (
    nonnormal_matrix,
    power_growth,
    recurrent_bounds,
    spectral_radius,
)
from course_lib.recurrent_results import (
    BPTTProfile,
    Connectivity,
    RecurrentRun,
    format_power,
    saturation_profile,
)


def network(cell="lstm", **changed):
    spec = RecurrentSpec(2, 4, cell, **changed)
    return reference.build_recurrent(spec, draw_recurrent_weights(spec, seed=0))


X = np.random.default_rng(0).standard_normal((2, 12, 2))


@pytest.mark.parametrize(
    ("log10", "text"),
    [(-np.inf, "0"), (0.0, "1"), (-80.0, "1.0e-80"), (-412.5, "3.2e-413"), (400.0, "1.0e+400"),
     (np.nan, "nan")],
)  # fmt: skip
def test_powers_are_written_however_small(log10, text):
    assert format_power(log10) == text


def test_a_profile_describes_its_ends_and_its_zeros():
    profile = BPTTProfile("PyTorch", "float32", "gru", "hooks", np.array([-np.inf, -30.0, -1.0]))
    assert profile.zero_steps == 1
    assert profile.describe() == (
        "PyTorch (float32, hooks), gru, 3 steps: the norm of dL/dh_t goes from 0.1 at t = 3 to 0 "
        "at t = 1; it is exactly zero at 1 of 3 steps."
    )
    steady = BPTTProfile("NumPy", "float64", "gru", "recursion", np.array([-400.0, -200.0, 0.0]))
    assert steady.decades_per_step == -200.0
    assert "to 1.0e-400 at t = 1, a factor of 1.0e-200 per step back." in steady.describe()
    np.testing.assert_array_equal(steady.norms, [0.0, 1e-200, 1.0])


def test_connectivity_reach_is_the_farthest_large_contribution():
    norms = np.zeros((5, 5))
    norms[-1] = [0.001, 0.02, 0.001, 0.5, 1.0]
    result = Connectivity("NumPy", "float64", "gru", "mean_output", "input", norms)
    assert result.reach() == 3
    assert result.reach(fraction=0.4) == 1
    with pytest.raises(ValueError, match=r"`fraction` \(=0.0\)"):
        result.reach(fraction=0.0)


def test_saturation_counts_units_and_averages_slopes():
    states = np.zeros((1, 3, 4))
    states[0, 1], states[0, 2] = [0.96, -0.97, 0.5, 0.0], 1.0
    result = saturation_profile(states)
    np.testing.assert_allclose(result.fractions, [0.0, 0.5, 1.0])
    np.testing.assert_allclose(result.mean_slopes, [1.0, 1 - np.mean(states[0, 1] ** 2), 0.0])
    assert "100 % of the units" in result.describe()
    for bad, message in ((states[0], "hidden_states"), (2 + states, r"must lie in \[-1, 1\]")):
        with pytest.raises(ValueError, match=message):
            saturation_profile(bad)
    with pytest.raises(ValueError, match=r"`sequence` \(=1\)"):
        saturation_profile(states, sequence=1)


def test_a_nonnormal_matrix_grows_by_decades_before_it_decays():
    matrix = nonnormal_matrix(6, eigenvalue=0.7, coupling=5.0)
    growth = power_growth(matrix, 120)
    assert spectral_radius(matrix) == pytest.approx(0.7, abs=1e-3)
    assert growth.peak_decades > 5
    assert growth.log10_norms[-1] < 0
    for k in (1, 5, 40):
        direct = np.linalg.norm(np.linalg.matrix_power(matrix, k), 2)
        assert 10.0 ** growth.log10_norms[k - 1] == pytest.approx(direct, rel=1e-10)


def test_powers_go_on_where_floats_end():
    growth = power_growth(1.5 * np.eye(2), 5000)
    assert growth.log10_norms[-1] == pytest.approx(5000 * np.log10(1.5), rel=1e-12)
    nilpotent = power_growth(nonnormal_matrix(3, eigenvalue=0.0, coupling=1.0), 5)
    np.testing.assert_array_equal(nilpotent.log10_norms, [0, 0, -np.inf, -np.inf, -np.inf])


@pytest.mark.parametrize(("activation", "scale", "vanish", "explode"), [
    ("tanh", 0.9, True, False), ("tanh", 1.1, False, True), ("sigmoid", 3.9, True, False),
    ("sigmoid", 4.1, False, True),
])  # fmt: skip
def test_the_bound_turns_at_one_over_gamma(activation, scale, vanish, explode):
    bounds = recurrent_bounds(scale * np.eye(3), activation)
    assert (bounds.must_vanish, bounds.may_explode) == (vanish, explode)
    expected = np.log10(bounds.factor) * np.array([3, 2, 1, 0])
    np.testing.assert_allclose(bounds.log10_bound(4), expected)


@pytest.mark.parametrize("seed", range(5))
def test_no_profile_crosses_its_bound(seed):
    spec = RecurrentSpec(2, 6, recurrent_init="gaussian", gain=1.5)
    model = reference.build_recurrent(spec, draw_recurrent_weights(spec, seed=seed))
    logs = reference.bptt_profile(model, X).log10_norms
    bound = recurrent_bounds(model.weights.w_hh).log10_bound(12)
    assert np.all(logs - logs[-1] <= bound + 1e-12)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: spectral_radius(np.ones((2, 3))), r"`matrix` \(shape \(2, 3\)\) must be square"),
        (lambda: power_growth(np.eye(2), 0), r"`steps` \(=0\)"),
        (lambda: nonnormal_matrix(0, eigenvalue=1.0, coupling=1.0), r"`size` \(=0\)"),
        (lambda: nonnormal_matrix(2, eigenvalue=np.nan, coupling=1.0), r"must be finite"),
        (lambda: recurrent_bounds(np.eye(2), "relux"), r"`activation` \(='relux'\)"),
        (lambda: recurrent_bounds(np.eye(2)).log10_bound(0), r"`steps` \(=0\)"),
    ],
)
def test_bad_matrices_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def records():
    run = RecurrentRun("NumPy", "float64", "gru", "a task", "sgd", 0.1, 1.0, None, 0.5,
                       np.arange(3), np.array([1.0, 0.7, np.nan]), np.ones(3))  # fmt: skip
    flow = reference.recurrent_gradient_flow(network("tanh_rnn"), X)
    return [
        (plots.plot_bptt_profile, {"a": reference.bptt_profile(network(), X), "b": flow.profile}),
        (plots.plot_path_norms, {"a": reference.state_jacobians(network(), X[0]).path_norms()}),
        (plots.plot_connectivity, reference.connectivity(network("gru"), X)),
        (plots.plot_saturation, saturation_profile(flow.hidden_states)),
        (plots.plot_power_growth, {"a": power_growth(np.eye(2) / 2, 5)}),
        (plots.plot_recurrent_runs, {"a": run}),
    ]


@pytest.mark.parametrize("index", range(6))
def test_figures_draw_on_the_given_axes_and_each_result_speaks(index):
    import matplotlib.pyplot as plt

    plot, given = records()[index]
    figure, ax = plt.subplots()
    assert plot(given, ax=ax) is ax
    figure.canvas.draw()
    plt.close(figure)
    assert isinstance(plot(given), Axes)
    plt.close("all")
    for record in given.values() if isinstance(given, dict) else [given]:
        words = record.describe()
        assert len(words) > 40
        assert words.endswith(".")
    with pytest.raises((TypeError, ValueError), match=r"`\w+"):
        plot({"a": 3} if isinstance(given, dict) else 3)


def test_the_bound_is_drawn_only_at_the_profiles_length():
    import matplotlib.pyplot as plt

    profile = reference.bptt_profile(network("tanh_rnn"), X)
    bound = recurrent_bounds(network("tanh_rnn").weights.w_hh).log10_bound
    assert len(plots.plot_bptt_profile({"a": profile}, log10_bound=bound(12)).lines) == 2
    with pytest.raises(ValueError, match=r"`log10_bound` \(shape \(5,\)\)"):
        plots.plot_bptt_profile({"a": profile}, log10_bound=bound(5))
    plt.close("all")
