"""Products of Jacobians: order, growth, and the readings of the chain rule."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import NetworkSpec, draw_weights, plots, reference
from course_lib.jacobians import (
    CHAINS,
    compare_readings,
    draw_chain,
    measure_product,
)
from course_lib.theory import chain_limits, power_chain, product_norm_bounds

# Products of a few well-conditioned float64 matrices; rounding grows with their number.
EXACT = 1e-10


def draw_network(depth: int, width: int, activation: str, *, n_in: int, n_out: int, seed: int):
    spec = NetworkSpec(
        n_in, width, depth, n_out=n_out, activation=activation, output_activation=activation
    )
    return reference.build_mlp(spec, draw_weights(spec, seed=seed))


def test_the_latest_matrix_stands_leftmost():
    first, second = np.array([[1.0, 2.0], [0.0, 5.0]]), np.array([[1.0, 0.0], [3.0, 1.0]])
    growth = measure_product([first, second])
    np.testing.assert_allclose(
        growth.singular_values[-1], np.linalg.svd(second @ first, compute_uv=False), rtol=EXACT
    )
    product_in_the_other_order = np.linalg.svd(first @ second, compute_uv=False)
    assert not np.allclose(growth.singular_values[-1], product_in_the_other_order, rtol=0.1)


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 6), st.integers(1, 8), st.integers(0, 1000))
def test_both_bounds_hold_for_every_running_product(width, depth, seed):
    growth = measure_product(draw_chain("random", width=width, depth=depth, seed=seed))
    assert np.all(growth.norms <= growth.norm_products * (1 + EXACT))
    assert np.all(growth.norms >= growth.smallest_products * (1 - EXACT))
    assert np.all(growth.condition_numbers >= 1 - EXACT)


def test_random_and_aligned_chains_share_their_singular_values():
    random = draw_chain("random", width=6, depth=4, seed=3)
    aligned = draw_chain("aligned", width=6, depth=4, seed=3)
    for a, b in zip(random, aligned, strict=True):
        np.testing.assert_allclose(
            np.linalg.svd(a, compute_uv=False), np.linalg.svd(b, compute_uv=False), atol=EXACT
        )


@pytest.mark.parametrize("kind", CHAINS)
def test_every_matrix_of_a_chain_has_norm_one(kind):
    for matrix in draw_chain(kind, width=5, depth=3, seed=0):
        assert np.linalg.norm(matrix, 2) == pytest.approx(1.0, rel=EXACT)


def test_aligned_chains_reach_both_bounds():
    growth = measure_product(draw_chain("aligned", width=6, depth=8, seed=1))
    np.testing.assert_allclose(growth.norms, growth.norm_products, rtol=EXACT)
    # 1e-6: the inverses of eight matrices of condition numbers around 100 are multiplied.
    kappa = growth.norm_products / growth.smallest_products
    np.testing.assert_allclose(growth.condition_numbers, kappa, rtol=1e-6)


def test_random_chains_fall_below_the_bound_by_decades_and_orthogonal_ones_do_not():
    random = measure_product(draw_chain("random", width=32, depth=30, seed=0))
    orthogonal = measure_product(draw_chain("orthogonal", width=32, depth=30, seed=0))
    assert random.slack > 6
    assert abs(orthogonal.slack) < 1e-9
    np.testing.assert_allclose(orthogonal.condition_numbers, 1.0, rtol=EXACT)
    assert "decades below the bound" in random.describe()
    assert "equal to the bound" in orthogonal.describe()


def test_condition_numbers_stay_exact_beyond_the_reach_of_float64():
    growth = measure_product([np.diag([1.0, 1e-3])] * 10)
    assert growth.condition_numbers[-1] == pytest.approx(1e30, rel=1e-9)
    assert "10^30" in growth.describe()


def test_a_singular_factor_makes_the_condition_number_infinite_from_there_on():
    growth = measure_product([np.eye(2), np.diag([1.0, 0.0]), np.eye(2)])
    assert list(np.isinf(growth.condition_numbers)) == [False, True, True]
    assert growth.smallest_products[-1] == 0.0
    assert "infinite" in growth.describe()


def test_a_product_can_be_zero_although_no_factor_is():
    nilpotent = np.array([[0.0, 2.0], [0.0, 0.0]])
    growth = measure_product([nilpotent, nilpotent])
    assert growth.norms[-1] == 0.0
    assert growth.norm_products[-1] == 4.0
    assert "exactly zero" in growth.describe()


def test_telescoping_norms_do_not_vanish():
    layers = np.arange(2, 101)
    growth = measure_product([np.eye(3) * (1 - 1 / layer**2) for layer in layers])
    np.testing.assert_allclose(growth.norms, (layers + 1) / (2 * layers), rtol=EXACT)


def test_measure_product_agrees_with_the_two_bounds_of_the_theory():
    chain = draw_chain("random", width=4, depth=5, seed=2)
    growth, bounds = measure_product(chain), product_norm_bounds(chain)
    assert growth.norms[-1] == pytest.approx(bounds.norm, rel=EXACT)
    assert growth.norm_products[-1] == pytest.approx(bounds.upper, rel=EXACT)
    assert growth.smallest_products[-1] == pytest.approx(bounds.lower, rel=1e-8)


def test_readings_of_layers_of_unequal_size():
    model = draw_network(3, 5, "tanh", n_in=3, n_out=2, seed=0)
    rng = np.random.default_rng(0)
    readings = compare_readings(model, rng.normal(size=3), rng.normal(size=2))
    assert list(readings.errors[:2]) == [np.inf, np.inf]
    assert np.all(readings.errors[2:] < 1e-12)
    assert readings.obstacles[2:] == ("", "")
    lines = readings.describe().split("\n")
    assert [line.rsplit(": ")[1].split(",")[0] for line in lines] == [
        "impossible", "impossible", "right", "right",
    ]  # fmt: skip


@settings(deadline=None, max_examples=30)
@given(st.integers(2, 5), st.integers(2, 5), st.sampled_from(["tanh", "sigmoid"]),
       st.integers(0, 1000))  # fmt: skip
def test_the_last_two_readings_are_always_right(depth, width, activation, seed):
    model = draw_network(depth, width, activation, n_in=width, n_out=width, seed=seed)
    rng = np.random.default_rng(seed)
    readings = compare_readings(model, rng.normal(size=width), rng.normal(size=width))
    assert np.all(readings.errors[2:] < EXACT)


def test_the_printed_reading_is_wrong_for_square_layers():
    model = draw_network(3, 4, "tanh", n_in=4, n_out=4, seed=0)
    rng = np.random.default_rng(0)
    readings = compare_readings(model, rng.normal(size=4), rng.normal(size=4))
    assert np.all(readings.errors[:2] > 0.1)
    assert "wrong by" in readings.describe()


def test_every_reading_is_right_for_layers_of_one_unit_without_activation():
    model = draw_network(4, 1, "linear", n_in=1, n_out=1, seed=0)
    assert np.all(compare_readings(model, np.ones(1), np.ones(1)).errors < 1e-12)


def test_the_gradient_of_the_readings_agrees_with_central_differences():
    model = draw_network(3, 4, "sigmoid", n_in=3, n_out=2, seed=1)
    rng = np.random.default_rng(1)
    x, g = rng.normal(size=3), rng.normal(size=2)
    h1 = model.forward(x[None, :]).activations[1][0]
    rest = reference.MLP(model.matrices[1:], model.biases[1:], model.activations[1:])
    judge = reference.central_difference(lambda h: float(rest(h[None, :])[0] @ g), h1)
    # Central differences of values of order 1 are good to about 1e-9.
    np.testing.assert_allclose(compare_readings(model, x, g).gradient, judge, atol=1e-8)


@pytest.mark.parametrize(
    ("factor", "dtype", "zero"), [(0.25, "float32", 75), (0.5, "float32", 150),
                                  (0.25, "float16", 13), (0.5, "float64", 1075)]
)  # fmt: skip
def test_chain_limits_are_where_the_format_ends(factor, dtype, zero):
    limits = chain_limits(factor, dtype=dtype)
    assert limits.first_zero == zero
    chain = power_chain(factor, zero, dtype=dtype)
    assert chain[-1] == 0
    assert chain[-2] > 0
    before, at = chain[limits.first_subnormal - 2], chain[limits.first_subnormal - 1]
    assert at < np.finfo(dtype).smallest_normal <= before


def test_chain_limits_of_growing_and_of_stuck_chains():
    assert chain_limits(2.0).first_infinite == 128
    assert chain_limits(0.9).first_zero is None
    assert "never zero" in chain_limits(0.9).describe()
    assert "infinite from 128" in chain_limits(2.0).describe()
    assert chain_limits(1e-50).first_subnormal is None


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: measure_product([]), ValueError, "`matrices` (=[])"),
        (lambda: measure_product([np.ones((2, 3))]), ValueError, "`matrices[0]`"),
        (lambda: measure_product([np.eye(2), np.eye(3)]), ValueError, "`matrices[1]`"),
        (lambda: measure_product([np.eye(2) * np.nan]), ValueError, "`matrices[0]`"),
        (lambda: measure_product([np.eye(2) * 1e200] * 2), ValueError, "`matrices[1]`"),
        (lambda: draw_chain("lined up", width=2, depth=2, seed=0), ValueError, "`kind`"),
        (lambda: draw_chain("random", width=0, depth=2, seed=0), ValueError, "`width` (=0)"),
        (lambda: draw_chain("random", width=2, depth=2.0, seed=0), TypeError, "`depth` (=2.0)"),
        (lambda: draw_chain("random", width=2, depth=2, seed=0.5), TypeError, "`seed` (=0.5)"),
        (lambda: chain_limits(1.001), ValueError, "`factor` (=1.001)"),
        (lambda: chain_limits(-0.5), ValueError, "`factor` (=-0.5)"),
        (lambda: chain_limits(0.5, dtype="bfloat16"), ValueError, "`dtype`"),
        (lambda: plots.plot_shape_chain((3, 2)), ValueError, "`layer_sizes`"),
        (lambda: plots.plot_spectra({}), ValueError, "`growths`"),
    ],
)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


def test_compare_readings_names_what_is_wrong():
    deep = draw_network(3, 4, "tanh", n_in=3, n_out=2, seed=0)
    with pytest.raises(ValueError, match="`x`"):
        compare_readings(deep, np.ones(4), np.ones(2))
    with pytest.raises(ValueError, match="`output_grad`"):
        compare_readings(deep, np.ones(3), np.ones(3))
    with pytest.raises(TypeError, match="`model`"):
        compare_readings("deep", np.ones(3), np.ones(2))
    shallow = draw_network(1, 4, "tanh", n_in=3, n_out=2, seed=0)
    with pytest.raises(ValueError, match="at least 2 layers"):
        compare_readings(shallow, np.ones(3), np.ones(2))


def test_figures_draw_what_they_are_given():
    chain = measure_product(draw_chain("random", width=12, depth=5, seed=0))
    axes = plots.plot_product_norms({"random": chain}, bound=True)
    measured, bound = axes.get_lines()
    np.testing.assert_array_equal(measured.get_ydata(), chain.norms)
    np.testing.assert_array_equal(bound.get_ydata(), chain.norm_products)
    axes = plots.plot_condition_numbers({"random": chain})
    np.testing.assert_array_equal(axes.get_lines()[0].get_ydata(), chain.condition_numbers)
    figure = plots.plot_spectra({"a": chain, "b": chain, "c": chain}, lines=4)
    assert [len(ax.get_lines()) for ax in figure.axes] == [5, 5, 5, 0]
    assert all(ax.yaxis.get_tick_params()["labelleft"] for ax in figure.axes)
    assert all(ax.xaxis.get_tick_params()["labelbottom"] for ax in figure.axes)
    texts = [t.get_text() for t in plots.plot_shape_chain((3, 5, 4, 2)).texts]
    assert {"2 × 4", "4 × 5", "2 × 5"} <= set(texts)
    axes = plots.plot_power_chains({"half": power_chain(0.5, 200, dtype="float32")})
    assert axes.get_lines()[0].get_xdata()[-1] == 149
    plt.close("all")


def test_the_printed_readings_are_evaluated_as_printed():
    """The two wrong readings, multiplied out here term by term for three square layers."""
    rng = np.random.default_rng(5)
    w = [rng.normal(size=(4, 4)) for _ in range(3)]
    model = reference.MLP(w, [np.zeros(4)] * 3, ("tanh",) * 3)
    x, g = rng.normal(size=4), rng.normal(size=4)
    d = [np.diag(1.0 - np.tanh(z[0]) ** 2) for z in model.forward(x[None, :]).preactivations]
    index_before = g @ (w[1].T @ d[0]) @ (w[2].T @ d[1])
    index_own = g @ (w[1].T @ d[1]) @ (w[2].T @ d[2])
    found = compare_readings(model, x, g)
    np.testing.assert_allclose(found.readings[0], index_before, rtol=1e-12)
    np.testing.assert_allclose(found.readings[1], index_own, rtol=1e-12)
