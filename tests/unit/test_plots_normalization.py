"""The figures of normalization and residual connections draw what the results hold."""

import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

from course_lib import plots
from course_lib.normalization import measure_norm_rates, measure_stack
from course_lib.plots.normalization import number_short_axis
from course_lib.residuals import expand_product
from course_lib.stack_results import StackRun
from course_lib.stack_specs import StackSpec

SPEC = StackSpec(4, 8, 3, n_out=4)
RUN = StackRun(SPEC, np.array([2.0, 1.0, 0.5]), 0.4, np.array([0.1, 0.2]))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_the_profiles_show_measured_values_and_theory():
    profile = measure_stack(SPEC, inputs=8, seed=0)
    forward, backward = plots.plot_stack_profiles({"a": profile}, every=1).axes
    for ax, theory, values in ((forward, profile.forward_theory, profile.forward),
                               (backward, profile.backward_theory, profile.backward)):  # fmt: skip
        np.testing.assert_array_equal(ax.lines[0].get_ydata(), theory)
        np.testing.assert_array_equal(ax.lines[1].get_ydata(), values)
        assert ax.get_yscale() == "log"
        low, high = ax.get_ylim()
        assert high / low >= 9.0


def test_a_short_logarithmic_axis_has_plain_numbers():
    _, (short, long) = plt.subplots(1, 2)
    for ax, ends in ((short, (0.15, 4.0)), (long, (1e-3, 1e3))):
        ax.plot(ends)
        ax.set_yscale("log")
        number_short_axis(ax)
        ax.figure.canvas.draw()
    low, high = short.get_ylim()
    at = dict(zip(short.get_yticks(), short.get_yticklabels(), strict=True))
    assert {"0.2", "0.5", "1", "2"} <= {at[y].get_text() for y in at if low <= y <= high}
    assert any("10^" in label.get_text() for label in long.get_yticklabels())


def test_every_network_of_a_rate_table_is_a_point():
    spec = StackSpec(4, 8, 1, n_out=4, shortcut=False, norm="batch")
    table = measure_norm_rates(spec, inputs=[4, 8], depths=[2, 3], seeds=[0, 1])
    ax = plots.plot_norm_rates({"relu": table})
    np.testing.assert_array_equal(ax.lines[0].get_xdata(), np.repeat([4, 8], 4))
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), table.rates.ravel())
    assert ax.lines[1].get_ydata()[0] == table.theory


def test_paths_and_losses_are_drawn_as_they_are():
    expansion = expand_product([0.1 * np.eye(2)] * 3)
    ax = plots.plot_path_lengths({"a": expansion})
    np.testing.assert_array_equal(ax.lines[0].get_ydata(), expansion.norms)
    ax = plots.plot_stack_runs({"a": [RUN, RUN]})
    np.testing.assert_array_equal(ax.lines[1].get_ydata(), RUN.losses)


def test_one_column_and_one_row_are_colored():
    left, right = plots.plot_shared_entries(inputs=3, units=4).axes
    for ax, count in ((left, 3), (right, 4)):
        colors = [patch.get_facecolor() for patch in ax.patches]
        assert len(colors) == 12
        assert sorted(colors.count(c) for c in set(colors)) == sorted((count, 12 - count))


BAD = [
    (lambda: plots.plot_stack_profiles({}), ValueError, "`profiles`"),
    (lambda: plots.plot_stack_profiles({"a": 1}), TypeError, "`profiles['a']`"),
    (lambda: plots.plot_norm_rates([1]), ValueError, "`tables`"),
    (lambda: plots.plot_path_lengths({"a": None}), TypeError, "`expansions['a']`"),
    (lambda: plots.plot_stack_runs({}), ValueError, "`runs`"),
    (lambda: plots.plot_stack_runs({"a": [1]}), TypeError, "`runs['a'][0]`"),
    (lambda: plots.plot_shared_entries(inputs=1), ValueError, "`inputs` (=1)"),
]


@pytest.mark.parametrize(("call", "error", "words"), BAD)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
