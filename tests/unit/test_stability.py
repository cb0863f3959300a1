"""Monitored runs, explosion reports, stretching chains and stability maps."""

import dataclasses

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import MLPWeights, NetworkSpec, draw_weights, reference
from course_lib.data import gaussian_batch
from course_lib.jacobians import measure_product
from course_lib.stability import MonitoredRun, detect_explosions, measure_norm
from course_lib.stability_map import gauss_newton_limit, map_stability
from course_lib.stability_recording import StabilityRecorder
from course_lib.stretching import isotropic_factor, rank_one_chain, stretching_chain

matplotlib.use("Agg")
from course_lib import plots

NAN, INF = float("nan"), float("inf")
RATE = 0.0625
"""Exact in float32, in which Keras keeps it."""

SPEC = NetworkSpec(4, 6, 3, n_out=2, activation="tanh", bias=0.1)
WEIGHTS = draw_weights(SPEC, seed=0)
X, Y = gaussian_batch(12, 4, seed=1), gaussian_batch(12, 2, seed=2)
EXPLODING = {"learning_rate": 3.0, "steps": 12, "loss_scale": 1e3}


def linear_model():
    spec = NetworkSpec(4, 8, 3, n_out=2, activation="linear", init="normal", gain=2.0)
    return spec, draw_weights(spec, seed=0)


def run_reference(**changed):
    arguments = {"learning_rate": RATE, "steps": 6, **changed}
    model = reference.build_mlp(SPEC, WEIGHTS)
    return model, reference.train_monitored(model, X, Y, **arguments)


def fake_run(norms, **changed):
    """A run of one layer whose weight gradient has these norms and whose bias gradient is 0."""
    norms = np.asarray(norms, np.float64)[:, None]
    fields = {
        "framework": "NumPy", "dtype": "float64", "learning_rate": 0.5,
        "steps": np.arange(len(norms)), "losses": np.ones(len(norms)),
        "weight_grad_norms": norms, "bias_grad_norms": np.zeros_like(norms),
        "reported_norms": norms[:, 0], "weight_norms": np.full(norms.shape, 2.0),
        "nonfinite": (), "stopped_at": None, "weights_finite": True,
    }  # fmt: skip
    return MonitoredRun(**{**fields, **changed})


# --- norms ---


@pytest.mark.parametrize(
    ("entries", "expected"),
    [([3.0, -4.0], 5.0), ([3e200, 4e200], 5e200), ([3e-200, 4e-200], 5e-200), ([], 0.0),
     ([0.0, 0.0], 0.0), ([1.0, -INF], INF)],
)  # fmt: skip
def test_norm_neither_overflows_nor_underflows(entries, expected):
    # 1e-15: a division and a product around NumPy's own norm.
    assert measure_norm(np.array(entries)) == pytest.approx(expected, rel=1e-15)


def test_norm_of_a_nan_is_nan_even_beside_an_infinity():
    assert np.isnan(measure_norm(np.array([1.0, INF, NAN])))


@given(st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9))
def test_sum_of_norms_lies_between_the_global_norm_and_its_root_k_fold(norms):
    row = np.array([norms])
    run = fake_run(
        [1.0], weight_grad_norms=row, bias_grad_norms=0.0 * row, weight_norms=np.ones_like(row)
    )
    exact = np.sqrt(np.sum(np.square(norms)))
    assert run.global_norms[0] == pytest.approx(exact, rel=1e-12)
    assert exact * (1 - 1e-12) <= run.norm_sums[0] <= np.sqrt(len(norms)) * exact * (1 + 1e-12)


# --- a monitored run of the reference ---


def test_stable_run_is_that_of_train():
    _, run = run_reference()
    model = reference.build_mlp(SPEC, WEIGHTS)
    plain = reference.train(
        model, X, Y, loss="mean_squared_error", optimizer="sgd", learning_rate=RATE, steps=6
    )
    np.testing.assert_array_equal(run.losses, plain.losses)
    # 1e-12: one norm is scaled by its largest entry first.
    np.testing.assert_allclose(run.weight_grad_norms, plain.weight_grad_norms, rtol=1e-12)
    assert run.nonfinite == ()
    assert run.weights_finite
    assert not run.diverged


@given(st.sampled_from([1e-3, 0.5, 12.0, 1e6]))
@settings(deadline=None, max_examples=4)
def test_units_of_the_loss_change_the_gradients_and_not_the_run(scale):
    base, run = run_reference()
    model, scaled = run_reference(loss_scale=scale, learning_rate=RATE / scale)
    # 1e-9: rounding of six steps.
    np.testing.assert_allclose(scaled.losses, scale * run.losses, rtol=1e-9)
    np.testing.assert_allclose(scaled.global_norms, scale * run.global_norms, rtol=1e-9)
    np.testing.assert_allclose(scaled.update_ratios, run.update_ratios, rtol=1e-9)
    for ours, theirs in zip(model.matrices, base.matrices, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9)


def test_refused_update_leaves_the_weights_as_they_were():
    model, run = run_reference(stop_above=1e-9)
    assert run.stopped_at == 0
    assert len(run.steps) == 1
    for ours, start in zip(model.matrices, WEIGHTS.matrices, strict=True):
        np.testing.assert_array_equal(ours, start)


def test_clipped_update_has_the_length_of_rate_times_limit():
    model, run = run_reference(clip_norm=1e-3, steps=1)
    assert run.global_norms[0] > 1e-3
    before, after = (*WEIGHTS.matrices, *WEIGHTS.biases), (*model.matrices, *model.biases)
    moved = [measure_norm(b - a) for a, b in zip(before, after, strict=True)]
    assert measure_norm(moved) == pytest.approx(RATE * 1e-3, rel=1e-9)


def test_a_limit_that_is_never_reached_changes_nothing():
    _, run = run_reference()
    _, clipped = run_reference(clip_norm=1e9, stop_above=1e9)
    np.testing.assert_array_equal(clipped.losses, run.losses)
    assert clipped.stopped_at is None


def test_update_ratio_is_rate_times_gradient_over_weights():
    assert fake_run([3.0]).update_ratios[0] == pytest.approx(0.5 * 3.0 / 2.0, rel=1e-15)


# --- what was not finite first ---


def test_recorder_names_quantities_in_the_order_in_which_they_are_computed():
    recorder = StabilityRecorder(stop_above=None, clip_norm=None)
    good = np.ones((2, 2))
    common = {"bias_grads": [good[0], good[0]], "weights": [good, good]}
    recorder.measure(0, output=good, loss=1.0, weight_grads=[good, good], reported_norm=3.0,
                     **common)  # fmt: skip
    recorder.updated([good, good])
    recorder.measure(1, output=good, loss=INF, weight_grads=[NAN * good, INF * good],
                     reported_norm=NAN, **common)  # fmt: skip
    recorder.updated([NAN * good, good])
    run = recorder.result([good], framework="NumPy", dtype="float64", learning_rate=0.1)
    assert [(e.step, e.quantity, e.value) for e in run.nonfinite] == [
        (1, "loss", "inf"),
        (1, "gradient of W_2", "inf"),
        (1, "gradient of W_1", "nan"),
        (1, "global norm", "nan"),
        (1, "W_1", "nan"),
    ]
    assert "first not finite: loss (inf) at step 1" in run.describe()


def test_a_nan_is_refused_by_any_limit():
    recorder = StabilityRecorder(stop_above=1e300, clip_norm=None)
    one = np.ones((1, 1))
    assert not recorder.measure(4, output=one, loss=1.0, weight_grads=[NAN * one],
                                bias_grads=[one[0]], weights=[one],
                                reported_norm=NAN)  # fmt: skip
    assert recorder.stopped_at == 4


def test_exploding_reference_overflows_quietly_and_ends_diverged():
    spec, weights = linear_model()
    model = reference.build_mlp(spec, weights)
    run = reference.train_monitored(model, X, Y, **EXPLODING)
    assert run.diverged
    assert run.nonfinite
    assert not run.weights_finite
    steps = [event.step for event in run.nonfinite]
    assert steps == sorted(steps)


# --- explosion reports ---


def test_report_counts_nan_as_an_event():
    report = detect_explosions(fake_run([50.0, 150.0, 75.0, 3000.0, NAN]), threshold=100.0)
    assert report.events.tolist() == [1, 3, 4]
    assert report.first_event == 1
    assert report.frequency == pytest.approx(0.6)
    assert report.largest == 3000.0
    assert report.largest_jump == pytest.approx(40.0)
    assert report.spread == pytest.approx(np.log10(60.0))
    assert "3 of 5 steps are above 100" in report.describe()


def test_report_of_a_quiet_run():
    report = detect_explosions(fake_run([5.0, 4.0]))
    assert report.first_event is None
    assert report.frequency == 0.0
    assert report.describe().startswith("No step of 2 is above 100")


# --- parity of the frameworks ---


def frameworks():
    pytorch = pytest.importorskip("course_lib.pytorch")
    tensorflow = pytest.importorskip("course_lib.tf")
    return pytorch, tensorflow


@pytest.mark.parametrize("options", [
    {}, {"loss_scale": 12.0}, {"batch_size": 5, "seed": 3}, {"stop_above": 0.5},
])  # fmt: skip
def test_frameworks_agree_with_the_reference_in_float64(options):
    _, exact = run_reference(**options)
    for framework in frameworks():
        model = framework.build_mlp(SPEC, WEIGHTS, dtype="float64")
        run = framework.train_monitored(model, X, Y, learning_rate=RATE, steps=6, **options)
        assert run.stopped_at == exact.stopped_at
        for name in ("losses", "weight_grad_norms", "bias_grad_norms", "reported_norms",
                     "weight_norms"):  # fmt: skip
            # The bar for parity in float64.
            np.testing.assert_allclose(
                getattr(run, name), getattr(exact, name), rtol=1e-10, err_msg=name
            )


def test_frameworks_clip_like_the_reference():
    _, exact = run_reference(clip_norm=0.1)
    for framework in frameworks():
        model = framework.build_mlp(SPEC, WEIGHTS, dtype="float64")
        run = framework.train_monitored(
            model, X, Y, learning_rate=RATE, steps=6, clip_norm=0.1
        )
        # PyTorch divides by the norm plus 1e-6.
        np.testing.assert_allclose(run.losses, exact.losses, rtol=1e-5)


def test_frameworks_break_in_the_same_order_in_float32():
    spec, weights = linear_model()
    runs = [
        framework.train_monitored(framework.build_mlp(spec, weights), X, Y, **EXPLODING)
        for framework in frameworks()
    ]
    assert runs[0].nonfinite[0].quantity == "loss"
    assert runs[0].nonfinite[0] == runs[1].nonfinite[0]
    assert not runs[0].weights_finite
    assert not runs[1].weights_finite


# --- chains that stretch and vanish ---


def test_rank_one_chain_at_a_right_angle_vanishes_at_once():
    chain = rank_one_chain(3, stretch=2.0, angle_degrees=90.0)
    assert [np.linalg.norm(m, 2) for m in chain] == pytest.approx([2.0] * 3, rel=1e-15)
    assert not np.any(chain[1] @ chain[0])


@given(st.floats(0.1, 5.0), st.floats(0.0, 89.0), st.integers(1, 12))
def test_rank_one_chain_grows_by_stretch_times_cosine(stretch, angle, depth):
    norms = measure_product(rank_one_chain(depth, stretch=stretch, angle_degrees=angle)).norms
    expected = stretch**depth * np.cos(np.deg2rad(angle)) ** (depth - 1)
    assert norms[-1] == pytest.approx(expected, rel=1e-9)


def test_stretching_chain_has_the_singular_values_asked_for():
    for matrix in stretching_chain(3, width=5, stretch=2.0, rest=0.5, seed=0):
        values = np.linalg.svd(matrix, compute_uv=False)
        np.testing.assert_allclose(values, [2.0, 0.5, 0.5, 0.5, 0.5], rtol=1e-12)


def test_isotropic_factor_is_the_mean_square_over_the_sphere():
    matrix = stretching_chain(1, width=8, stretch=3.0, rest=0.5, seed=0)[0]
    vectors = np.random.default_rng(1).standard_normal((40_000, 8))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    measured = np.sqrt(np.mean(np.sum((vectors @ matrix.T) ** 2, axis=1)))
    # 40,000 samples: a standard error below half a percent.
    assert measured == pytest.approx(isotropic_factor(width=8, stretch=3.0, rest=0.5), rel=0.015)


# --- maps ---


@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_limit_agrees_with_gradients_of_the_reference(activation):
    init = {"linear": "lecun_normal", "relu": "he_normal"}[activation]
    spec = NetworkSpec(3, 5, 3, 1, activation=activation, init=init)
    weights, x = draw_weights(spec, seed=0), gaussian_batch(7, 3, seed=1)
    model = reference.build_mlp(spec, weights)
    rows = []
    for row in x:
        flow = reference.gradient_flow(model, row[None, :], loss="mean_output")
        rows.append(np.concatenate([g.ravel() for g in flow.weight_grads]))
    curvature = np.linalg.eigvalsh(2 / len(x) * np.array(rows).T @ np.array(rows))[-1]
    limit = gauss_newton_limit(weights, x, activation=activation)
    assert limit == pytest.approx(2 / curvature, rel=1e-9)


def test_one_layer_is_a_quadratic_and_diverges_exactly_above_its_limit():
    rates = np.logspace(-2, 1, 31)
    result = map_stability(
        depth=1, learning_rates=rates, scales=np.array([0.5, 1.0, 2.0]), steps=400, seed=0
    )
    np.testing.assert_allclose(result.limits, result.limits[0], rtol=1e-12)  # no other layers
    above = np.broadcast_to(rates[:, None] > result.limits[None, :], result.outcomes.shape)
    np.testing.assert_array_equal(result.outcomes == 2, above)
    assert result.agreement == 1.0


@pytest.mark.parametrize("depth", [2, 4])
@pytest.mark.parametrize("activation", ["linear", "relu"])
def test_limit_falls_by_twice_the_other_layers_per_decade_of_scale(activation, depth):
    result = map_stability(
        activation=activation, depth=depth, learning_rates=np.array([1e-3]),
        scales=np.array([0.1, 1.0, 10.0]), steps=1, seed=0,
    )  # fmt: skip
    assert result.slope == pytest.approx(2 * (depth - 1), rel=1e-9)


def test_map_trains_each_network_as_the_reference_does():
    rates, scales = np.array([0.01, 0.1]), np.array([0.3, 1.0])
    result = map_stability(depth=3, learning_rates=rates, scales=scales, steps=30, seed=5)
    spec = NetworkSpec(8, 16, 3, 1, activation="linear", init="lecun_normal")
    weights, x = draw_weights(spec, seed=5), gaussian_batch(16, 8, seed=6)
    y = x @ gaussian_batch(8, 1, seed=7) / np.sqrt(8.0)
    for i, rate in enumerate(rates):
        for j, scale in enumerate(scales):
            model = reference.build_mlp(spec, MLPWeights([scale * w for w in weights.matrices]))
            first = np.mean((model(x) - y) ** 2)
            for _ in range(30):
                flow = reference.gradient_flow(model, x, y)
                for matrix, grad in zip(model.matrices, flow.weight_grads, strict=True):
                    matrix -= rate * grad
            last = np.mean((model(x) - y) ** 2)
            learned = last <= 0.5 * min(first, np.mean(y**2))
            expected = 1 if learned else 0 if last <= first else 2
            assert result.outcomes[i, j] == expected


def test_shares_add_up_and_are_said():
    result = map_stability(
        depth=2, learning_rates=np.logspace(-3, 1, 9), scales=np.array([0.5, 1.0, 2.0]), seed=0
    )
    names = ("diverged", "converged", "not learned")
    assert sum(result.share(name) for name in names) == pytest.approx(1.0)
    assert "2 linear layers:" in result.describe()
    assert "falls by 2 decades per decade of scale" in result.describe()


# --- figures ---


def test_figures_are_drawn_from_results():
    _, run = run_reference()
    broken = dataclasses.replace(run, losses=np.where(run.steps < 3, run.losses, NAN))
    assert len(plots.plot_monitored_run(broken).axes) == 3
    written = [text.get_text() for text in plots.plot_monitored_run(broken).axes[0].texts]
    assert "NaN" in written
    huge = fake_run([1e-3, 1e250, INF])
    figure = plots.plot_run_comparison({"a": run, "b": huge}, thresholds=(100.0, 1000.0))
    figure.canvas.draw()  # a tick at 1e250 would raise here
    assert plots.plot_overflow(run).get_xlabel() == "step"
    ax = plots.plot_norm_distributions({"a": np.array([1.0, 10.0, INF]), "b": np.array([200.0])})
    assert len(ax.patches) > 0
    small = map_stability(
        depth=2, learning_rates=np.array([0.01, 0.1]), scales=np.array([0.5, 1.0]), seed=0
    )
    assert len(plots.plot_stability_maps([small, small]).axes) == 2
    growth = measure_product(stretching_chain(5, width=4, stretch=2.0, rest=0.5, seed=0))
    assert len(plots.plot_stretching(growth, typical=0.9).lines) == 4
    matplotlib.pyplot.close("all")


# --- bad input ---

MODEL = reference.build_mlp(SPEC, WEIGHTS)
RATES = np.array([0.1, 1.0])


def monitored(model=MODEL, **changed):
    return reference.train_monitored(model, X, Y, **{"learning_rate": 0.1, "steps": 1, **changed})


@pytest.mark.parametrize(("call", "error", "words"), [
    (lambda: monitored(learning_rate=0.0), ValueError, "`learning_rate` (=0.0) must be > 0"),
    (lambda: monitored(steps=0), ValueError, "`steps` (=0) must be an integer >= 1."),
    (lambda: monitored(loss_scale=-1.0), ValueError, "`loss_scale` (=-1.0) must be > 0"),
    (lambda: monitored(stop_above=NAN), ValueError, "`stop_above` (=nan) must be finite."),
    (lambda: monitored(clip_norm="1"), TypeError, "`clip_norm` (='1') must be a real number."),
    (lambda: monitored(model="net"), TypeError, "`model` (a str) must be"),
    (lambda: detect_explosions("run"), TypeError, "`run` (a str) must be a MonitoredRun."),
    (lambda: detect_explosions(fake_run([1.0]), threshold=0), ValueError, "`threshold` (=0.0)"),
    (lambda: rank_one_chain(0, stretch=1.0, angle_degrees=0.0), ValueError, "`depth` (=0)"),
    (lambda: rank_one_chain(1, stretch=1.0, angle_degrees=91.0), ValueError, "`angle_degrees`"),
    (lambda: stretching_chain(1, width=1, stretch=1.0, rest=1.0, seed=0), ValueError,
     "`width` (=1) must be an integer >= 2."),
    (lambda: stretching_chain(1, width=2, stretch=1.0, rest=1.0, seed=1.5), TypeError, "`seed`"),
    (lambda: isotropic_factor(width=2, stretch=-1.0, rest=1.0), ValueError, "`stretch` (=-1.0)"),
    (lambda: map_stability(depth=0, learning_rates=RATES, scales=RATES, seed=0), ValueError,
     "`depth` (=0)"),
    (lambda: map_stability(depth=2, learning_rates=-RATES, scales=RATES, seed=0), ValueError,
     "`learning_rates` (smallest -1.0) must be > 0."),
    (lambda: map_stability(activation="tanh", depth=2, learning_rates=RATES, scales=RATES, seed=0),
     ValueError, "`activation` (='tanh') must be one of linear, relu."),
    (lambda: gauss_newton_limit(WEIGHTS, X, activation="relu"), ValueError, "must have 1 output"),
    (lambda: plots.plot_run_comparison({}), ValueError, "`runs`"),
    (lambda: plots.plot_stability_maps([]), ValueError, "`maps` (=[])"),
])  # fmt: skip
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
