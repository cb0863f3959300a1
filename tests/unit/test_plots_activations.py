"""The figures of the sigmoid chapter draw what the results hold, and only that."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from course_lib import NetworkSpec, draw_weights, plots, reference
from course_lib.data import gaussian_batch
from course_lib.rates import sweep_weight_scale
from course_lib.saturation import sample_activation_curves

SPEC = NetworkSpec(4, 6, 3, 2, "relu")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def labels(ax):
    return [text.get_text() for text in ax.texts]


def test_slopes_are_drawn_as_sampled_and_named():
    curves = sample_activation_curves(["sigmoid", "tanh"], points=11)
    ax = plots.plot_activation_slopes(curves)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), curves.slopes[0])
    np.testing.assert_array_equal(ax.lines[2].get_ydata(), curves.slopes[1])
    assert labels(ax) == ["sigmoid", "tanh"]


def test_the_balance_is_relative_to_the_last_layer():
    model = reference.build_mlp(SPEC, draw_weights(SPEC, seed=0))
    flow = reference.gradient_flow(model, gaussian_batch(5, 4, seed=1), loss="mean_output")
    ax = plots.plot_flow_balance(flow)
    expected = (flow.activation_norms, flow.activation_grad_norms, flow.weight_grad_norms)
    for line, norms in zip(ax.lines, expected, strict=True):
        np.testing.assert_array_equal(line.get_ydata(), norms / norms[-1])
    assert len(labels(ax)) == 3


def test_sweeps_show_measured_predicted_and_saturated():
    sweep = sweep_weight_scale([1.0, 2.0, 4.0], width=16, depth=4, seed=0)
    top, bottom = plots.plot_rate_sweeps({"plain": sweep}).axes
    np.testing.assert_array_equal(top.lines[0].get_ydata(), sweep.predicted)
    np.testing.assert_array_equal(top.lines[1].get_ydata(), sweep.measured)
    np.testing.assert_array_equal(bottom.lines[0].get_ydata(), 100 * sweep.saturated)


def test_first_layers_are_drawn_from_the_chosen_row():
    model = reference.build_mlp(SPEC, draw_weights(SPEC, seed=0))
    x, y = gaussian_batch(8, 4, seed=1), np.arange(8) % 2
    run = reference.train(model, x, y, learning_rate=0.1, steps=4)
    ax = plots.plot_first_layers({"a": [run]}, row=2)
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), run.weight_changes[2])
    assert labels(ax) == ["a"]


def test_a_bound_line_joins_an_axes_of_the_caller():
    model = reference.build_mlp(SPEC, draw_weights(SPEC, seed=0))
    flow = reference.gradient_flow(model, gaussian_batch(5, 4, seed=1), loss="mean_output")
    ax = plots.plot_gradient_norms([flow])
    assert plots.add_bound_line(ax, [3.0, 2.0, 1.0], "bound") is ax
    assert ax.lines[-1].get_ydata().tolist() == [3.0, 2.0, 1.0]
    assert "bound" in labels(ax)


@pytest.mark.parametrize("plot", [plots.plot_rate_sweeps, plots.plot_first_layers])
def test_an_empty_mapping_is_refused(plot):
    with pytest.raises(ValueError, match="must map at least one label"):
        plot({})
