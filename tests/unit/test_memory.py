"""How long gated cells remember: known values, bounds, and the two paths set apart on purpose."""

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib import RecurrentSpec, draw_recurrent_weights, orthogonal_matrix, plots, reference
from course_lib.memory import (
    add_gate_bias,
    additive_path_norms,
    feedback_lstm,
    gate_bias,
    required_gate,
    summarize_memory,
    sweep_gate_bias,
)

SPEC = RecurrentSpec(3, 6, "lstm")


def sequence(steps, n_in, *, scale=1.0, seed=0):
    return scale * np.random.default_rng(seed).normal(size=(steps, n_in))


@given(st.floats(0.001, 0.999))
def test_gate_bias_is_the_inverse_of_the_sigmoid(gate):
    assert 1.0 / (1.0 + np.exp(-gate_bias(gate))) == pytest.approx(gate, rel=1e-12)


@given(st.floats(0.01, 0.99), st.integers(1, 1000))
def test_required_gate_keeps_what_is_asked(keep, steps):
    gate = required_gate(keep, steps=steps)
    assert 0 < gate < 1
    assert gate**steps == pytest.approx(keep, rel=1e-9)  # steps times float64's rounding


def test_required_gate_known_value():
    assert gate_bias(required_gate(0.5, steps=100)) == pytest.approx(4.9683, abs=1e-4)


def test_add_gate_bias_changes_only_that_gate():
    weights = draw_recurrent_weights(SPEC, seed=0)
    changed = add_gate_bias(weights, "f", 1.5)
    difference = changed.b_xh - weights.b_xh
    assert np.array_equal(difference, np.repeat([0.0, 1.5, 0.0, 0.0], 6))
    assert np.array_equal(changed.w_hh, weights.w_hh)


@pytest.mark.parametrize(("forget", "factor"), [(0.5, 1.0), (0.99, 0.5), (0.9, -0.7), (0.2, 0.6)])
def test_feedback_lstm_separates_the_two_paths(forget, factor):
    steps = 20
    model = reference.RecurrentNetwork(feedback_lstm(forget=forget, factor=factor, hidden=2))
    # No input: the cell stays at C = 0, where the factor per step is exact.
    paths = reference.state_jacobians(model, np.zeros((steps + 1, 1))).path_norms()
    assert paths.log10_direct[0] == pytest.approx(steps * np.log10(forget), abs=1e-10)
    assert paths.log10_whole[0] == pytest.approx(steps * np.log10(abs(factor)), abs=1e-10)


def test_additive_path_norms_of_a_running_sum_and_an_orthogonal_product():
    x, w_xh = sequence(40, 3), sequence(5, 3, seed=1)
    none = np.zeros((5, 5))
    assert np.allclose(additive_path_norms(none, w_xh, x).log10_whole, 0.0, atol=1e-12)
    q = orthogonal_matrix(5, 5, rng=np.random.default_rng(0))
    product = additive_path_norms(q, w_xh, x, keep=0.0, activation="linear")
    assert np.allclose(product.log10_whole, 0.0, atol=1e-12)
    assert product.log10_direct[-1] == 0.0
    assert np.all(product.log10_direct[:-1] == -np.inf)
    leaky = additive_path_norms(none, w_xh, x, keep=0.5)
    assert leaky.log10_whole[0] == pytest.approx(39 * np.log10(0.5), abs=1e-9)


def test_additive_path_norms_without_keep_is_the_plain_cell():
    spec = RecurrentSpec(3, 6, "tanh_rnn")
    weights, x = draw_recurrent_weights(spec, seed=2), sequence(25, 3)
    plain = reference.state_jacobians(reference.RecurrentNetwork(weights), x).path_norms()
    ours = additive_path_norms(weights.w_hh, weights.w_xh, x, keep=0.0)
    assert np.allclose(ours.log10_whole, plain.log10_whole, atol=1e-10)


def test_additive_path_norms_against_differences():
    w_hh, w_xh, x = 0.5 * sequence(4, 4), sequence(4, 2, seed=1), sequence(6, 2, seed=2)

    def run(first):
        hidden = first
        for x_t in x[1:]:
            hidden = hidden + np.tanh(w_hh @ hidden + w_xh @ x_t)
        return hidden

    first, step = np.tanh(w_xh @ x[0]), 1e-6
    columns = [(run(first + step * e) - run(first - step * e)) / (2 * step) for e in np.eye(4)]
    measured = np.linalg.norm(np.array(columns).T, 2)
    # Central differences with a step of 1e-6 are good to about 1e-9.
    assert 10 ** additive_path_norms(w_hh, w_xh, x).log10_whole[0] == pytest.approx(
        measured, rel=1e-7
    )


def test_summary_is_the_median_of_the_path_norms():
    networks = [draw_recurrent_weights(SPEC, seed=s) for s in range(3)]
    summary = summarize_memory(networks, steps=10, seed=5)
    rng, whole = np.random.default_rng(5), []
    for weights in networks:
        model = reference.RecurrentNetwork(weights)
        paths = reference.state_jacobians(model, rng.normal(size=(11, 3))).path_norms()
        whole.append(paths.log10_whole[0])
    assert np.allclose(summary.log10_whole, whole)
    assert summary.median("whole") == np.median(whole)
    assert np.all(summary.log10_typical <= summary.log10_direct)
    assert "10 steps back, median of 3 draws" in summary.describe()


@pytest.mark.parametrize("cell", ["lstm", "gru"])
def test_sweep_rises_with_the_bias_and_the_direct_path_follows_theory(cell):
    sweep = sweep_gate_bias(RecurrentSpec(4, 16, cell), [-2, 0, 2, 5], steps=20, seed=0)
    assert np.all(np.diff(sweep.medians("typical")) > 0)
    # Gates scatter around sigmoid(b): a few hundredths of a decade per step.
    assert np.abs(sweep.medians("typical") - sweep.log10_theory).max() < 0.05 * 20
    sigmoid = 1.0 / (1.0 + np.exp(-sweep.biases))
    assert np.allclose(sweep.log10_theory, 20 * np.log10(sigmoid))
    assert "at a bias of -2" in sweep.describe()


def test_sweep_replaces_the_bias_of_either_framework():
    spec = RecurrentSpec(4, 16, "lstm", defaults="pytorch")  # two random biases
    open_gate = sweep_gate_bias(spec, [40.0], steps=10, draws=1, seed=0)
    assert open_gate.medians("direct")[0] == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gate_bias(1.0), r"`gate` \(=1.0\) must be < 1"),
        (lambda: gate_bias(0.0), r"`gate` \(=0.0\) must be > 0"),
        (lambda: required_gate(1.0, steps=3), r"`keep` \(=1.0\) must be < 1"),
        (lambda: required_gate(0.5, steps=0), r"`steps` \(=0\) must be an integer >= 1"),
        (lambda: feedback_lstm(forget=1.0, factor=1.0), r"`forget` \(=1.0\)"),
        (lambda: feedback_lstm(forget=0.5, factor=1.0, hidden=0), r"`hidden` \(=0\)"),
        (lambda: summarize_memory([], steps=3, seed=0), "at least one"),
        (
            lambda: summarize_memory(
                [draw_recurrent_weights(RecurrentSpec(2, 3), seed=0)], steps=3, seed=0
            ),
            "tanh_rnn",
        ),
        (lambda: sweep_gate_bias(RecurrentSpec(2, 3), [0.0], seed=0), "tanh_rnn"),
        (lambda: sweep_gate_bias(SPEC, [np.nan], seed=0), "`biases`"),
        (lambda: sweep_gate_bias(SPEC, [0.0], draws=0, seed=0), r"`draws` \(=0\)"),
        (
            lambda: additive_path_norms(np.eye(3), np.ones((2, 1)), np.ones((4, 1))),
            r"`w_xh` \(shape \(2, 1\)\)",
        ),
        (
            lambda: additive_path_norms(np.eye(3), np.ones((3, 1)), np.ones((4, 1)), keep=-1.0),
            r"`keep` \(=-1.0\)",
        ),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_bad_types_are_named():
    with pytest.raises(TypeError, match="`weights`"):
        add_gate_bias("weights", "f", 1.0)
    with pytest.raises(TypeError, match="`spec`"):
        sweep_gate_bias("lstm", [0.0], seed=0)


def test_figures_show_what_was_measured():
    sweep = sweep_gate_bias(RecurrentSpec(2, 4, "lstm"), [-1, 0, 1], steps=5, draws=1, seed=0)
    ax = plots.plot_gate_bias_sweep(sweep)
    assert np.allclose(ax.lines[0].get_ydata(), sweep.log10_theory)
    assert np.allclose(ax.lines[2].get_ydata(), sweep.medians("whole"))
    model = reference.RecurrentNetwork(feedback_lstm(forget=0.5, factor=1.0))
    paths = reference.state_jacobians(model, sequence(9, 1)).path_norms()
    figure = plots.plot_path_panels({"one": paths, "two": paths})
    assert [ax.get_title() for ax in figure.axes] == ["one", "two"]
    assert np.allclose(figure.axes[1].lines[1].get_ydata(), paths.log10_whole)
    assert {"$C_t$", "$h_t$"} <= {text.get_text() for text in plots.plot_lstm_paths().texts}
    plt.close("all")
    with pytest.raises(TypeError, match="GateBiasSweep"):
        plots.plot_gate_bias_sweep(paths)
