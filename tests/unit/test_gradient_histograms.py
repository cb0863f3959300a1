"""Histograms of magnitudes: nothing is lost, nothing counted twice, and zeros stay apart."""

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from course_lib import plots
from course_lib.gradient_histograms import (
    MagnitudeHistory,
    count_magnitudes,
    fullest_linear_bin,
)

VALUES = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(allow_nan=True))


def test_by_hand():
    found = count_magnitudes(
        {"a": np.array([0.0, -0.0, 1e-3, -2e-3, 5.0, 1e9, 1e-20, np.inf, np.nan])},
        low=-4, high=2, bins_per_decade=1,
    )  # fmt: skip
    assert found.counts.tolist() == [[0, 2, 0, 0, 1, 0]]
    assert (found.below[0], found.above[0], found.zeros[0], found.nonfinite[0]) == (1, 1, 2, 2)
    assert found.sizes.tolist() == [9]
    assert found.medians[0] == pytest.approx(2e-3)
    assert found.zero_shares[0] == pytest.approx(2 / 9)
    assert "9 entries" in found.describe()
    assert "not finite: 2 entries, first in a" in found.describe()


@given(VALUES)
@example(np.full(2, np.finfo(float).max))
def test_every_entry_is_counted_once(values):
    found = count_magnitudes({"a": values})
    assert found.sizes[0] == values.size
    assert found.nonfinite[0] == np.sum(~np.isfinite(values))
    assert found.zeros[0] == np.sum(values == 0)


@given(VALUES)
def test_sign_and_order_do_not_matter(values):
    one, two = (count_magnitudes({"a": v}) for v in (values, -values[::-1]))
    assert np.array_equal(one.counts, two.counts)


@given(st.integers(0, 50), st.integers(-5, 5))
def test_a_factor_of_ten_shifts_by_one_decade(seed, power):
    values = np.random.default_rng(seed).standard_normal(200)
    one = count_magnitudes({"a": values}, low=-20, high=20, bins_per_decade=1)
    two = count_magnitudes({"a": values * 10.0**power}, low=-20, high=20, bins_per_decade=1)
    moved = np.roll(one.counts, power, axis=1)
    assert np.abs(moved - two.counts).sum() <= 4  # a value on a border may fall to either side
    assert two.medians[0] == pytest.approx(one.medians[0] * 10.0**power)


def test_any_shape_and_a_tensor_of_zeros():
    found = count_magnitudes({"w": np.ones((2, 3, 4)), "b": np.zeros(5)})
    assert found.sizes.tolist() == [24, 5]
    assert np.isnan(found.medians[1])
    assert found.zero_shares.tolist() == [0.0, 1.0]
    assert "most zeros in b (100 %)" in found.describe()


def test_a_linear_histogram_of_few_large_entries_is_one_bar():
    values = np.concatenate([np.full(990, 1e-6), np.linspace(0.1, 1, 10)])
    assert fullest_linear_bin([values])[0] == pytest.approx(0.99)
    even = fullest_linear_bin([np.linspace(0, 1, 1001)], bins=10)[0]
    assert even == pytest.approx(0.1, abs=0.01)


def history():
    rng = np.random.default_rng(0)
    parts = [count_magnitudes({"a": 10.0**-k * rng.standard_normal(50), "b": np.zeros(3)})
             for k in range(3)]  # fmt: skip
    return MagnitudeHistory(np.array([0, 5, 10]), tuple(parts))


def test_a_history_over_steps():
    past = history()
    assert past.names == ("a", "b")
    assert np.all(np.diff(np.log10(past.medians()[:, 0])) < -0.5)
    assert past.zero_shares()[:, 1].tolist() == [1, 1, 1]
    assert past.describe().startswith("Step 0: 2 tensors, 53 entries")


def test_pictures():
    past = history()
    ax = plots.plot_magnitudes(past.histograms[0])
    assert ax.collections[0].get_array().shape == (2, 64)
    texts = [text.get_text() for text in ax.texts]
    assert texts == ["0 %", "100 %", "zeros"]
    plt.close(ax.figure)
    ax = plots.plot_magnitude_history(past, "a")
    assert ax.collections[0].get_array().shape == (64, 3)
    plt.close(ax.figure)


PART = count_magnitudes({"a": np.ones(3)})
OTHER = count_magnitudes({"a": np.ones(3)}, low=-5)


@pytest.mark.parametrize(
    ("call", "name"),
    [
        (lambda: count_magnitudes({}), "gradients"),
        (lambda: count_magnitudes([1.0]), "gradients"),
        (lambda: count_magnitudes({"a": "x"}), r"gradients\['a'\]"),
        (lambda: count_magnitudes({"a": np.zeros(0)}), r"gradients\['a'\]"),
        (lambda: count_magnitudes({"a": np.ones(2)}, low=4), "low"),
        (lambda: count_magnitudes({"a": np.ones(2)}, high=np.inf), "high"),
        (lambda: count_magnitudes({"a": np.ones(2)}, bins_per_decade=0), "bins_per_decade"),
        (lambda: fullest_linear_bin([]), "gradients"),
        (lambda: fullest_linear_bin([np.array([np.nan])]), r"gradients\[0\]"),
        (lambda: fullest_linear_bin([np.ones(2)], bins=0), "bins"),
        (lambda: MagnitudeHistory([0, 0], (PART, PART)), "steps"),
        (lambda: MagnitudeHistory([0, 1], (PART, OTHER)), r"histograms\[1\]"),
        (lambda: MagnitudeHistory([0, 1], (PART,)), "histograms"),
        (lambda: MagnitudeHistory([0], ("x",)), r"histograms\[0\]"),
        (lambda: plots.plot_magnitudes("x"), "histogram"),
        (lambda: plots.plot_magnitude_history("x", "a"), "history"),
        (lambda: plots.plot_magnitude_history(history(), "c"), "name"),
    ],
)
def test_bad_arguments_are_named(call, name):
    with pytest.raises((TypeError, ValueError), match=f"`{name}`"):
        call()
