"""Clipping, learning rates on a quadratic, spikes under Adam, and clipped training."""

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import NetworkSpec, draw_weights, reference
from course_lib.clipped_training import largest_curvature, train_clipped
from course_lib.clipping import (
    angle_between,
    clip_by_global_norm,
    clip_by_norm,
    clip_by_value,
    clipped_minimum,
    global_norm,
    measure_clipping,
    say_change,
)
from course_lib.data import gaussian_batch
from course_lib.learning_rate import descend_quadratic, linear_warmup, respond_to_grads

matplotlib.use("Agg")
from course_lib import plots

NAN, INF = float("nan"), float("inf")
CLIPS = {"value": clip_by_value, "tensor": clip_by_norm, "global": clip_by_global_norm}
GRADS = [np.array([[3.0, 0.0], [0.0, -4.0]]), np.array([0.3, 0.4])]

entries = st.floats(min_value=-1e6, max_value=1e6).filter(lambda v: v == 0 or abs(v) > 1e-6)
gradients = st.lists(
    st.lists(entries, min_size=1, max_size=4).map(np.array), min_size=1, max_size=4
).filter(lambda grads: any(np.any(g) for g in grads))
limits = st.floats(min_value=1e-3, max_value=1e3)


def small_network(depth=3, seed=0):
    spec = NetworkSpec(4, 5, depth, n_out=2, activation="tanh")
    return reference.build_mlp(spec, draw_weights(spec, seed=seed))


X, Y = gaussian_batch(12, 4, seed=1), gaussian_batch(12, 2, seed=2)


# --- the three ways ---


def test_known_values():
    assert global_norm(GRADS) == pytest.approx(np.sqrt(25.25), rel=1e-15)
    by_value = clip_by_value(GRADS, 0.35)
    np.testing.assert_allclose(by_value[0], [[0.35, 0.0], [0.0, -0.35]])
    np.testing.assert_allclose(by_value[1], [0.3, 0.35])
    by_norm = clip_by_norm(GRADS, 1.0)
    np.testing.assert_allclose(by_norm[0], [[0.6, 0.0], [0.0, -0.8]])
    np.testing.assert_array_equal(by_norm[1], GRADS[1])
    together = clip_by_global_norm(GRADS, 1.0)
    for ours, grad in zip(together, GRADS, strict=True):
        np.testing.assert_allclose(ours, grad / np.sqrt(25.25), rtol=1e-14)


@pytest.mark.parametrize("way", CLIPS)
def test_below_the_limit_nothing_changes_and_the_input_stays(way):
    originals = [g.copy() for g in GRADS]
    result = CLIPS[way](GRADS, 100.0)
    CLIPS[way](GRADS, 0.1)
    for ours, grad, original in zip(result, GRADS, originals, strict=True):
        np.testing.assert_array_equal(ours, original)
        np.testing.assert_array_equal(grad, original)
        assert not np.shares_memory(ours, grad)


@settings(max_examples=60, deadline=None)
@given(grads=gradients, limit=limits)
def test_the_theorem_on_directions(grads, limit):
    # 1e-9: the norms and the cosine are computed in float64, with a handful of operations.
    slack = 1.0 + 1e-9
    reports = {way: measure_clipping(grads, limit, way=way) for way in CLIPS}
    assert all(np.all(np.abs(g) <= limit * slack) for g in clip_by_value(grads, limit))
    assert np.all(reports["tensor"].norms_after <= limit * slack)
    assert reports["global"].global_after <= limit * slack
    assert reports["global"].angle < 1e-6
    turned = reports["tensor"].tensor_angles
    assert np.all(turned[np.isfinite(turned)] < 1e-6)
    parts = {"value": sum(int(np.count_nonzero(g)) for g in grads),
             "tensor": sum(bool(np.any(g)) for g in grads)}  # fmt: skip
    for way, count in parts.items():
        assert np.cos(np.radians(reports[way].angle)) >= 1 / np.sqrt(count) - 1e-9
    for report in reports.values():
        assert report.global_after <= report.global_before * slack


def test_direction_is_kept_exactly_if_all_norms_are_equal():
    equal = [np.array([3.0, 4.0]), np.array([5.0])]
    assert measure_clipping(equal, 1.0, way="tensor").angle < 1e-6
    unequal = [np.array([3.0, 4.0]), np.array([4.0])]
    assert measure_clipping(unequal, 1.0, way="tensor").angle > 1.0
    assert measure_clipping([np.array([2.0, -2.0])], 1.0, way="value").angle < 1e-6


@pytest.mark.parametrize("size", [1e-300, 1e-30, 1.0, 1e30, 1e300])
def test_no_overflow_and_no_underflow(size):
    grads = [size * np.array([3.0, 0.0]), size * np.array([4.0])]
    assert global_norm(grads) == pytest.approx(5 * size, rel=1e-14)
    limit = max(0.1 * size, 5e-301)
    clipped = clip_by_global_norm(grads, limit)
    np.testing.assert_allclose(clipped[0], [0.6 * limit, 0.0], rtol=1e-13)
    np.testing.assert_allclose(clipped[1], [0.8 * limit], rtol=1e-13)
    assert angle_between(grads, clipped) < 1e-6


def test_norm_beyond_the_largest_float64():
    huge = [np.full(4, 1.5e308)]
    assert global_norm(huge) == INF
    np.testing.assert_allclose(clip_by_global_norm(huge, 2.0)[0], np.ones(4), rtol=1e-14)
    np.testing.assert_allclose(clip_by_norm(huge, 2.0)[0], np.ones(4), rtol=1e-14)


def test_zero_gradient():
    zero = [np.zeros(2), np.zeros((1, 2))]
    for clip in CLIPS.values():
        assert all(np.all(g == 0) for g in clip(zero, 1.0))
    report = measure_clipping(zero, 1.0, way="global")
    assert np.isnan(report.angle)
    assert not report.clipped.any()
    assert "0 of 2" in report.describe()


@pytest.mark.parametrize("value", [INF, -INF, NAN])
def test_not_finite(value):
    grads = [np.array([1.0, 2.0]), np.array([value, 3.0])]
    for clip in CLIPS.values():
        with pytest.raises(ValueError, match=r"grads\[1\].*finite"):
            clip(grads, 1.0)
    for way in CLIPS:
        report = measure_clipping(grads, 1.0, way=way, names=["healthy", "sick"])
        assert report.nonfinite == ("sick",)
        assert not np.isfinite(report.global_before)
        assert np.isnan(report.angle)
        assert report.norms_before[0] == pytest.approx(np.sqrt(5))
        assert "undefined: not finite in sick" in report.describe()


def test_report():
    report = measure_clipping(GRADS, 1.0, way="tensor", names=["W", "b"])
    assert report.clipped.tolist() == [True, False]
    np.testing.assert_allclose(report.norms_before, [5.0, 0.5])
    np.testing.assert_allclose(report.norms_after, [1.0, 0.5])
    cosine = (5 * 1 + 0.5 * 0.5) / (np.sqrt(25.25) * np.sqrt(1.25))
    assert report.angle == pytest.approx(np.degrees(np.arccos(cosine)), rel=1e-12)
    assert "1 of 2 tensors" in report.describe()
    assert "per tensor to 1" in report.describe()


# --- angles ---


@pytest.mark.parametrize("degrees", [0.0, 1e-9, 1e-4, 30.0, 90.0, 135.0, 180.0])
@pytest.mark.parametrize("size", [1e-200, 1.0, 1e200])
def test_angle_between(degrees, size):
    angle = np.radians(degrees)
    first, second = [np.array([1.0]), np.array([0.0])], [np.cos(angle), np.sin(angle)]
    ours = angle_between(first, [np.array([size * v]) for v in second])
    # 1e-13: the coordinates themselves are rounded to 1e-16 radians.
    assert ours == pytest.approx(degrees, rel=1e-6, abs=1e-13)


def test_say_change():
    assert say_change(GRADS, GRADS) == "same"
    assert say_change(GRADS, [2 * g for g in GRADS]) == "× 2, 0°"
    assert say_change(GRADS, [-g for g in GRADS]) == "× 1, 180°"
    assert say_change(GRADS, [0 * g for g in GRADS]) == "0"
    assert say_change([0 * g for g in GRADS], GRADS) == "no longer 0"


# --- the bias of clipping ---


def test_clipped_minimum_lies_between_median_and_mean():
    targets = np.array([0.0, 1.0, 2.0, 3.0, 100.0])
    assert clipped_minimum(targets, 1000.0) == pytest.approx(targets.mean(), rel=1e-12)
    assert clipped_minimum(targets, 1e-3) == pytest.approx(np.median(targets), abs=1e-3)
    assert clipped_minimum(targets, 3.0) < targets.mean()
    assert clipped_minimum([2.0], 1.0) == pytest.approx(2.0)


# --- the learning rate ---


def test_warmup():
    rates = [linear_warmup(step, warmup_steps=4, base_rate=0.8) for step in range(6)]
    np.testing.assert_allclose(rates, [0.2, 0.4, 0.6, 0.8, 0.8, 0.8])


@pytest.mark.parametrize(("factor", "converges"), [(0.5, True), (0.99, True), (1.01, False)])
def test_quadratic_converges_below_two_over_lambda(factor, converges):
    path = descend_quadratic([1.0, 4.0], start=[1.0, -1.0], learning_rate=factor * 0.5, steps=800)
    assert path.rate_limit == 0.5
    assert (path.losses[-1] < 1e-6) == converges
    assert (path.losses[-1] > path.losses[0]) != converges
    factors = 1 - path.learning_rate * path.curvatures
    np.testing.assert_allclose(path.weights[3], factors**3 * [1.0, -1.0], rtol=1e-12)
    assert f"{factor:g} times 2/lambda_max" in path.describe()


def test_clipped_descent_cycles_above_the_limit_and_converges_below():
    curvature, limit = 10.0, 1.0
    above = descend_quadratic([curvature], start=[0.12], learning_rate=0.25, steps=50,
                              clip_norm=limit)  # fmt: skip
    np.testing.assert_allclose(above.weights[::2, 0], 0.12, rtol=1e-12)
    np.testing.assert_allclose(above.weights[1::2, 0], 0.12 - 0.25, rtol=1e-12)
    assert np.all(above.losses > limit**2 / (2 * curvature))
    below = descend_quadratic([curvature], start=[3.0], learning_rate=0.19, steps=400,
                              clip_norm=limit)  # fmt: skip
    assert below.losses[-1] < 1e-20
    assert "clipped to 1" in below.describe()


# --- spikes ---


def test_sgd_forgets_a_spike_and_adam_does_not():
    grads = 0.5 + 0.3 * np.random.default_rng(0).standard_normal((3000, 20))
    grads[100] *= 200
    sgd = respond_to_grads(grads, optimizer="sgd", learning_rate=0.1)
    adam = respond_to_grads(grads, optimizer="adam", learning_rate=0.1)
    kept = respond_to_grads(grads, optimizer="adam", learning_rate=0.1, clip_norm=10.0)
    np.testing.assert_allclose(sgd.step_lengths, 0.1 * sgd.grad_norms)
    assert sgd.spike == adam.spike == 100
    assert sgd.jump > 100
    assert 1 < adam.jump < 10
    assert sgd.steps_to_recover == kept.steps_to_recover == 0
    assert adam.steps_to_recover > 500
    short = respond_to_grads(grads[:300], optimizer="adam", learning_rate=0.1)
    assert short.steps_to_recover is None
    assert "not within the record" in short.describe()
    assert "no clipping" in adam.describe()


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_adam_does_not_see_a_constant_factor(factor):
    grads = np.random.default_rng(1).standard_normal((30, 6))
    plain = respond_to_grads(grads, optimizer="adam", learning_rate=0.1)
    scaled = respond_to_grads(factor * grads, optimizer="adam", learning_rate=0.1)
    # 1e-4: Adam's epsilon of 1e-8 beside gradients of 1e-3.
    np.testing.assert_allclose(scaled.step_lengths, plain.step_lengths, rtol=1e-4)


# --- training ---


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_without_clipping_it_is_the_reference_training(optimizer):
    model, twin = small_network(), small_network()
    run = train_clipped(model, X, Y, loss="mean_squared_error", optimizer=optimizer,
                        learning_rates=[0.05] * 6, batch_size=4, seed=3)  # fmt: skip
    other = reference.train(twin, X, Y, loss="mean_squared_error", optimizer=optimizer,
                            learning_rate=0.05, steps=6, batch_size=4, seed=3)  # fmt: skip
    np.testing.assert_allclose(run.losses, other.losses[:6], rtol=1e-12)
    for ours, theirs in zip(model.matrices, twin.matrices, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert run.clipped_fraction == 0.0


def test_sgd_with_clipping_is_a_learning_rate():
    limit, rate = 0.05, 0.3
    model, twin = small_network(), small_network()
    run = train_clipped(model, X, Y, loss="mean_squared_error", learning_rates=[rate] * 5,
                        clip_norm=limit)  # fmt: skip
    for norm in run.grad_norms:
        train_clipped(twin, X, Y, loss="mean_squared_error",
                      learning_rates=[rate * min(1.0, limit / norm)])  # fmt: skip
    for ours, theirs in zip(model.matrices, twin.matrices, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-12)
    assert run.clipped_fraction == 1.0
    assert "clipped by global norm to 0.05 in 100 %" in run.describe()


def test_a_run_stops_at_the_first_gradient_that_is_not_finite():
    spec = NetworkSpec(4, 5, 3, n_out=2, activation="linear")
    model = reference.build_mlp(spec, draw_weights(spec, seed=0))
    run = train_clipped(model, 1e3 * X, Y, loss="mean_squared_error", learning_rates=[1.0] * 50)
    assert len(run.losses) < 50
    assert not np.isfinite(run.grad_norms[-1])
    assert np.all(np.isfinite(run.grad_norms[:-1]))
    assert run.fraction_above(1e-9) == 1.0


def test_learning_rate_zero_changes_nothing():
    model = small_network()
    before = [w.copy() for w in model.matrices]
    train_clipped(model, X, Y, loss="mean_squared_error", learning_rates=[0.0, 0.0])
    for ours, original in zip(model.matrices, before, strict=True):
        np.testing.assert_array_equal(ours, original)


def test_largest_curvature_of_linear_regression():
    spec = NetworkSpec(4, 1, 1, n_out=2)
    model = reference.build_mlp(spec, draw_weights(spec, seed=0))
    before = model.matrices[0].copy()
    ours = largest_curvature(model, X, Y, loss="mean_squared_error", iterations=200, seed=0)
    # The mean is over 12 rows and 2 outputs; the bias is one more input, always 1.
    design = np.hstack([X, np.ones((12, 1))])
    exact = np.linalg.eigvalsh(2.0 / (12 * 2) * design.T @ design)[-1]
    assert ours == pytest.approx(exact, rel=1e-6)
    np.testing.assert_array_equal(model.matrices[0], before)


@pytest.mark.parametrize("way", ["value", "tensor"])
def test_first_step_of_the_other_ways(way):
    model = small_network()
    before = [w.copy() for w in model.matrices]
    flow = reference.gradient_flow(model, X, Y, loss="mean_squared_error")
    run = train_clipped(model, X, Y, loss="mean_squared_error", learning_rates=[0.5],
                        clip_norm=0.01, way=way)  # fmt: skip
    expected = CLIPS[way](list(flow.weight_grads), 0.01)
    for ours, start, grad in zip(model.matrices, before, expected, strict=True):
        np.testing.assert_allclose(start - ours, 0.5 * grad, rtol=1e-10, atol=1e-17)
    assert np.isnan(run.clipped_fraction)
    assert {"value": "by value", "tensor": "per tensor"}[way] in run.describe()


# --- bad input ---


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda: clip_by_value(GRADS, 0.0), ValueError, r"`limit` \(=0.0\) must be > 0"),
        (lambda: clip_by_norm(GRADS, -1.0), ValueError, "`limit`"),
        (lambda: clip_by_global_norm(GRADS, NAN), ValueError, "`limit`"),
        (lambda: clip_by_global_norm(GRADS, "1"), TypeError, "`limit`"),
        (lambda: clip_by_value([], 1.0), ValueError, r"`grads` \(=\[\]\)"),
        (lambda: clip_by_value(3.0, 1.0), TypeError, "`grads`"),
        (lambda: global_norm(["a"]), TypeError, r"grads\[0\]"),
        (lambda: measure_clipping(GRADS, 1.0, way="norm"), ValueError, "`way`"),
        (lambda: measure_clipping(GRADS, 1.0, way="value", names=["a"]), ValueError, "`names`"),
        (lambda: angle_between(GRADS, GRADS[:1]), ValueError, "`second`"),
        (lambda: clipped_minimum([[1.0]], 1.0), ValueError, "`targets`"),
        (lambda: linear_warmup(-1, warmup_steps=3, base_rate=1.0), ValueError, "`step`"),
        (lambda: linear_warmup(0, warmup_steps=0, base_rate=1.0), ValueError, "`warmup_steps`"),
        (
            lambda: descend_quadratic([0.0], start=[1.0], learning_rate=1.0, steps=1),
            ValueError,
            "`curvatures`",
        ),
        (
            lambda: descend_quadratic([1.0], start=[1.0, 2.0], learning_rate=1.0, steps=1),
            ValueError,
            "`start`",
        ),
        (
            lambda: respond_to_grads(np.ones((2, 2)), optimizer="lion", learning_rate=1.0),
            ValueError,
            "`optimizer`",
        ),
        (lambda: train_clipped("net", X, Y, learning_rates=[1.0]), TypeError, "`model`"),
        (
            lambda: train_clipped(small_network(), X, Y, loss="mean_squared_error",
                                  learning_rates=[-1.0]),
            ValueError,
            "`learning_rates`",
        ),
        (
            lambda: largest_curvature(small_network(), X, Y, iterations=0, seed=0),
            ValueError,
            "`iterations`",
        ),
    ],
)  # fmt: skip
def test_bad_input(call, error, match):
    with pytest.raises(error, match=match):
        call()


# --- figures ---


def test_figures():
    ax = plots.plot_clip_regions(np.array([4.0, 1.0]), 1.0)
    assert {"gradient", "by value", "by norm"} <= {text.get_text() for text in ax.texts}
    reports = [measure_clipping(GRADS, 1.0, way=way, names=["W", "b"]) for way in CLIPS]
    ax = plots.plot_clip_norms(reports)
    np.testing.assert_allclose(ax.get_lines()[2].get_ydata(), reports[2].norms_after)
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["W", "b"]
    runs = [train_clipped(small_network(), X, Y, loss="mean_squared_error",
                          learning_rates=[0.1] * 3, clip_norm=limit)
            for limit in (1.0, None, 0.1)]  # fmt: skip
    ax = plots.plot_final_losses({"SGD": runs})
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata(), [0.1, 1.0])
    grads = np.random.default_rng(0).standard_normal((80, 5))
    grads[20] *= 50
    spike = respond_to_grads(grads, optimizer="adam", learning_rate=0.1)
    ax = plots.plot_spike_responses({"Adam": spike}, before=10)
    np.testing.assert_array_equal(ax.get_lines()[0].get_xdata()[[0, -1]], [-10, 59])
    path = descend_quadratic([1.0], start=[1.0], learning_rate=0.5, steps=5)
    ax = plots.plot_descents({"0.5": path})
    np.testing.assert_allclose(ax.get_lines()[0].get_ydata(), path.losses)


@pytest.mark.parametrize("name", ["plot_final_losses", "plot_spike_responses", "plot_descents"])
def test_figures_want_labels(name):
    with pytest.raises(ValueError, match="must map at least one label"):
        getattr(plots, name)({})


def test_figures_want_results():
    with pytest.raises(ValueError, match="`reports`"):
        plots.plot_clip_norms([])
    with pytest.raises(ValueError, match="`gradient`"):
        plots.plot_clip_regions(np.ones(3), 1.0)
