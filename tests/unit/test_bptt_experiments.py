"""Contributions over time, factors per step and memory: what the chapter on BPTT measures."""

from dataclasses import replace

import numpy as np
import pytest

from course_lib import RecurrentSpec, draw_recurrent_weights, plots, pytorch, reference, tf, theory
from course_lib.echo import EchoCurve, echo_task
from course_lib.growth_in_time import GainSweep, sweep_recurrent_gain, tanh_fixed_point
from course_lib.time_contributions import TimeContributions, time_contributions


def make_flow(module=reference, *, cell="tanh_rnn", dtype="float64", **arguments):
    spec = RecurrentSpec(2, 5, cell=cell, gain=0.8)
    model = module.build_recurrent(spec, draw_recurrent_weights(spec, seed=0), dtype=dtype)
    x = np.random.default_rng(1).standard_normal((3, 12, 2))
    return module.recurrent_gradient_flow(model, x, **arguments)


# time_contributions -------------------------------------------------------------------------


@pytest.mark.parametrize("cell", ["tanh_rnn", "relu_rnn"])
@pytest.mark.parametrize("over", ["last", "mean"])
def test_the_terms_are_those_of_the_matrix_gradient(cell, over):
    flow = make_flow(cell=cell, over=over)
    result = time_contributions(flow)
    assert result.length == 12
    assert result.norms[0] == 0.0  # h_0 = 0
    want = np.linalg.norm(flow.parameter_grads["w_hh"])
    assert result.total_norm == pytest.approx(want, rel=1e-12)
    assert result.total_norm <= result.norms.sum() * (1 + 1e-12)  # the triangle inequality
    assert result.truncation_errors[-1] == 0.0


@pytest.mark.parametrize("count", [1, 3, 7])
def test_truncation_keeps_the_last_terms(count):
    # One chunk of `count` steps: with a loss at the last step nothing before it contributes.
    whole, cut = make_flow(), make_flow(truncation=count)
    error = np.linalg.norm(cut.parameter_grads["w_hh"] - whole.parameter_grads["w_hh"])
    relative = error / np.linalg.norm(whole.parameter_grads["w_hh"])
    assert time_contributions(whole).truncation_errors[count - 1] == pytest.approx(relative)


def test_one_long_term_by_hand():
    # n = 1, W_hh = w: dL/dh_t = w^(T-t) for ReLU with positive states, so each term is known.
    spec = RecurrentSpec(1, 1, cell="relu_rnn", recurrent_init="identity", gain=0.5, bias=1.0)
    model = reference.build_recurrent(spec, draw_recurrent_weights(spec, seed=0))
    flow = reference.recurrent_gradient_flow(model, np.zeros((1, 4, 1)))
    states = [0.0, 1.0, 1.5, 1.75]
    want = [0.5 ** (4 - t) * states[t - 1] for t in range(1, 5)]
    result = time_contributions(flow)
    np.testing.assert_allclose(result.norms, want, rtol=1e-12)
    assert result.share_of_last(2) == pytest.approx(sum(want[2:]) / sum(want))
    assert result.truncation_errors[0] == pytest.approx(sum(want[:3]) / sum(want))


@pytest.mark.parametrize("module", [pytorch, tf])
def test_contributions_agree_between_frameworks(module):
    want = time_contributions(make_flow())
    have = time_contributions(make_flow(module))
    np.testing.assert_allclose(have.norms, want.norms, atol=1e-10, rtol=0)
    np.testing.assert_allclose(have.truncation_errors, want.truncation_errors, atol=1e-10, rtol=0)
    single = time_contributions(make_flow(module, dtype="float32"))
    np.testing.assert_allclose(single.norms, want.norms, rtol=1e-3, atol=1e-6)


def test_needed_steps_and_words():
    norms = np.array([0.0, 0.001, 0.01, 1.0])
    result = TimeContributions("NumPy", "tanh_rnn", norms, np.array([0.02, 0.005, 0.001, 0.0]), 1.0)
    assert result.needed_steps() == 2
    assert result.needed_steps(error=0.1) == 1
    assert result.needed_steps(error=0.002) == 3
    assert "the last 2 give the gradient to within 1 %" in result.describe()
    uneven = TimeContributions("NumPy", "tanh_rnn", np.r_[1e-6, np.ones(10)], np.zeros(11), 1.0)
    assert "more than 99 %" in uneven.describe()


def test_contributions_of_the_wrong_flow():
    with pytest.raises(TypeError, match="`flow`"):
        time_contributions("a flow")
    with pytest.raises(ValueError, match=r"`flow` \(of a lstm\)"):
        time_contributions(make_flow(cell="lstm"))
    flow = make_flow()
    with pytest.raises(ValueError, match=r"`flow` \(altered"):
        time_contributions(replace(flow, hidden_grads=1.01 * flow.hidden_grads))
    with pytest.raises(ValueError, match="`count`"):
        time_contributions(make_flow()).share_of_last(0)
    spec = RecurrentSpec(1, 2)
    idle = reference.build_recurrent(spec, draw_recurrent_weights(spec, seed=0))
    with pytest.raises(ValueError, match="nonzero gradient"):  # all states are 0
        time_contributions(reference.recurrent_gradient_flow(idle, np.zeros((1, 3, 1))))


# growth in time -----------------------------------------------------------------------------


@pytest.mark.parametrize("gain", [1.001, 1.5, 2.0, 10.0, 100.0])
def test_fixed_point_solves_its_equation_and_shrinks_gradients(gain):
    point = tanh_fixed_point(gain)
    assert point.state > 0
    assert point.state == pytest.approx(np.tanh(gain * point.state), rel=1e-12)
    assert 0 < point.factor < 1


def test_fixed_point_below_one_is_the_origin():
    assert tanh_fixed_point(0.7) == tanh_fixed_point(0.7)
    assert tanh_fixed_point(0.7).state == 0.0
    assert tanh_fixed_point(0.7).factor == 0.7
    factors = [tanh_fixed_point(g).factor for g in (1.5, 2.0, 3.0, 5.0, 10.0)]
    assert factors == sorted(factors, reverse=True)  # the larger the matrix, the more it vanishes
    assert "settles at 0.96" in tanh_fixed_point(2.0).describe()


def test_identity_matrix_follows_the_fixed_point():
    sweep = sweep_recurrent_gain([2.0], recurrent_init="identity", input_scale=0.01, seed=0)
    # The slowest unit spends its first dozen of 300 steps near 0, where its factor is 2.
    assert sweep.factors[0] == pytest.approx(tanh_fixed_point(2.0).factor, rel=0.2)


@pytest.mark.parametrize("gain", [0.8, 2.0])
def test_gaussian_matrix_follows_mean_field_theory(gain):
    sweep = sweep_recurrent_gain([gain], recurrent_init="gaussian", input_scale=1.0, seed=0,
                                 hidden=400, length=100)  # fmt: skip
    want = theory.mean_field_rate("tanh", weight_scale=gain, bias_scale=1.0).rate
    assert sweep.factors[0] == pytest.approx(want, rel=0.03)  # 1/sqrt(n) fluctuations


def test_without_input_the_gain_is_the_factor():
    sweep = sweep_recurrent_gain([0.5, 3.0], recurrent_init="orthogonal", input_scale=0.0, seed=0)
    np.testing.assert_allclose(sweep.factors, [0.5, 3.0], rtol=1e-10)
    np.testing.assert_allclose(sweep.mean_slopes, 1.0)
    assert "0.5 at 0.5, 3 at 3" in sweep.describe()


def test_a_bias_saturates():
    free, shifted = (
        sweep_recurrent_gain([2.0], recurrent_init="gaussian", bias=b, seed=0) for b in (0.0, 3.0)
    )
    assert shifted.factors[0] < free.factors[0]
    assert shifted.mean_slopes[0] < free.mean_slopes[0]


def test_growth_bad_input():
    for gain in (-1.0, np.nan, "2"):
        with pytest.raises((ValueError, TypeError), match="`gain"):
            tanh_fixed_point(gain)
    with pytest.raises(ValueError, match="`gains`"):
        sweep_recurrent_gain([0.0], recurrent_init="identity", seed=0)
    with pytest.raises(ValueError, match="`length`"):
        sweep_recurrent_gain([1.0], recurrent_init="identity", length=1, seed=0)
    with pytest.raises(ValueError, match="`recurrent_init`"):
        sweep_recurrent_gain([1.0], recurrent_init="magic", seed=0)


# memory -------------------------------------------------------------------------------------


@pytest.mark.parametrize("lag", [0, 3])
def test_echo_target_is_the_bit_of_that_lag(lag):
    task = echo_task(200, lag=lag, seed=0)
    assert task.length == lag + 6
    assert set(np.unique(task.x)) == {-1.0, 1.0}
    np.testing.assert_array_equal(task.y, (task.x[:, -1 - lag, 0] > 0).astype(int))
    assert 0.35 < task.y.mean() < 0.65
    assert task.baseline_loss == pytest.approx(np.log(2))


@pytest.mark.parametrize("module", [pytorch, tf])
def test_memory_of_a_short_lag_is_learned_and_needs_the_window(module):
    spec = RecurrentSpec(1, 16, n_out=2, defaults="pytorch")
    curve = module.measure_echo(spec, lags=[1], steps=150, seed=0)
    assert curve.accuracies[0] > 0.95
    assert curve.span() == 1


def test_memory_words():
    curve = EchoCurve("PyTorch", np.array([1, 4, 8, 16]), np.array([1.0, 0.95, 0.6, 0.99]), 3)
    assert curve.span() == 4
    assert "truncated at 3" in curve.describe()
    assert "up to lag 4, below that at lag 8." in curve.describe()
    none = EchoCurve("PyTorch", np.array([5]), np.array([0.5]))
    assert none.span() is None
    assert "no lag reaches" in none.describe()


def test_memory_bad_input():
    spec = RecurrentSpec(1, 4, n_out=2)
    with pytest.raises(ValueError, match="`lag`"):
        echo_task(1, lag=-1, seed=0)
    with pytest.raises(ValueError, match="`lags`"):
        pytorch.measure_echo(spec, lags=[], seed=0)
    with pytest.raises(ValueError, match=r"`spec` \(n_in 2"):
        pytorch.measure_echo(RecurrentSpec(2, 4, n_out=2), lags=[1], seed=0)
    with pytest.raises(TypeError, match="`spec`"):
        tf.measure_echo("spec", lags=[1], seed=0)
    with pytest.raises(ValueError, match="`accuracy`"):
        EchoCurve("PyTorch", np.array([5]), np.array([0.5])).span(accuracy=2.0)


# figures ------------------------------------------------------------------------------------


def test_plots_draw_what_they_are_given():
    assert len(plots.plot_unrolled_graph(3).patches) >= 8  # four circles, filled and outlined
    result = time_contributions(make_flow())
    line = plots.plot_time_contributions({"a": result}).lines[0]
    want = np.log10(result.norms[::-1][:-1] / result.total_norm)
    np.testing.assert_allclose(line.get_ydata()[:-1], want)
    sweep = GainSweep("gaussian", 2, 3, 0.1, 0.0, *(np.array([1.0, 2.0]),) * 3)
    axes = plots.plot_gain_sweeps({"g": sweep}, theories={"t": np.ones((4, 2))})
    assert len(axes.lines) == 3
    curve = EchoCurve("PyTorch", np.array([1, 4]), np.array([1.0, 0.5]))
    np.testing.assert_allclose(plots.plot_echo_curves({"m": curve}).lines[0].get_ydata(), [100, 50])


def test_plots_bad_input():
    with pytest.raises(ValueError, match="`steps`"):
        plots.plot_unrolled_graph(7)
    with pytest.raises(ValueError, match="`curves`"):
        plots.plot_echo_curves({})
    with pytest.raises(TypeError, match="sweeps"):
        plots.plot_gain_sweeps({"a": 1})
    with pytest.raises(TypeError, match="contributions"):
        plots.plot_time_contributions({"a": 1})
