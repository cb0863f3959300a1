"""A stack of blocks: the reference against differences, PyTorch and TensorFlow; its theory."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import reference
from course_lib.data import gaussian_batch, load_digits_split
from course_lib.losses import evaluate_loss
from course_lib.normalization import (
    measure_norm_rates,
    measure_stack,
    normalized_rate,
    predict_stack,
)
from course_lib.reference import central_difference
from course_lib.reference.stack import StackPass
from course_lib.residuals import branch_scale, expand_product, shortcut_range
from course_lib.stack_specs import (
    NORMS,
    PLACEMENTS,
    StackSpec,
    apply_fixup,
    check_stack_weights,
    draw_stack_weights,
)

# The bars of the course: 1e-6 against differences, 1e-10 against automatic differentiation.
DIFFERENCES, FRAMEWORK = 1e-6, 1e-10
SHAPES = [*product(NORMS, PLACEMENTS, (True, False), (1, 2))]
BASE = StackSpec(4, 3, 2, n_out=3, scale=0.7, activation="tanh")
X, LABELS = gaussian_batch(6, 4, seed=1), np.array([0, 1, 2, 0, 1, 2])


def spec_of(norm, placement, shortcut, layers, **changed):
    return replace(
        BASE, norm=norm, placement=placement, shortcut=shortcut, layers=layers, **changed
    )


def weights_of(spec):
    """Return weights whose biases, gammas, betas and scales are not their initial 0 and 1."""
    rng = np.random.default_rng(2)
    return {name: array + 0.3 * rng.normal(size=array.shape) for name, array in
            draw_stack_weights(spec, seed=0).items()}  # fmt: skip


def assert_close(found, expected, tolerance, scale, what):
    """`scale`: the norm of all gradients; a bias before a normalization has none but rounding."""
    assert found.shape == expected.shape, what
    error = np.linalg.norm(np.asarray(found, np.float64) - expected)
    floor = 1e-3 * scale
    limit = tolerance * max(np.linalg.norm(expected), floor)
    assert error <= limit, f"{what}: {error:.2e} apart, at most {limit:.2e}"


def all_norm(arrays):
    return np.sqrt(sum(np.sum(np.square(a)) for a in arrays))


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("norm", "placement", "shortcut", "layers"), SHAPES)
def test_gradients_are_central_differences(norm, placement, shortcut, layers, training):
    spec = spec_of(norm, placement, shortcut, layers)
    weights = weights_of(spec)
    flow = reference.stack_gradient_flow(
        reference.build_stack(spec, weights), X, LABELS, loss="cross_entropy", training=training
    )
    scale = all_norm(flow.parameter_grads.values())
    for name in weights:

        def loss(value, name=name):
            model = reference.build_stack(spec, {**weights, name: value})
            outputs = model(X, training=training)
            return evaluate_loss(outputs, LABELS, loss="cross_entropy")[0]

        numeric = central_difference(loss, np.asarray(weights[name]))
        assert_close(flow.parameter_grads[name], numeric, DIFFERENCES, scale, name)


@pytest.mark.parametrize(("norm", "placement", "shortcut", "layers"), SHAPES)
@pytest.mark.parametrize("framework", ["pytorch", "tf"])
def test_frameworks_agree(framework, norm, placement, shortcut, layers):
    library = pytest.importorskip(f"course_lib.{framework}", exc_type=ImportError)
    spec = spec_of(norm, placement, shortcut, layers, activation="relu")
    weights = weights_of(spec)
    models = [lib.build_stack(spec, weights, dtype="float64") for lib in (reference, library)]
    for training in (True, False):
        ours, theirs = (
            lib.stack_gradient_flow(model, X, LABELS, loss="cross_entropy", training=training)
            for lib, model in zip((reference, library), models, strict=True)
        )
        scale = all_norm(ours.parameter_grads.values())
        assert [*theirs.parameter_grads] == [*ours.parameter_grads] == [*weights]
        for name, grad in ours.parameter_grads.items():
            assert_close(theirs.parameter_grads[name], grad, FRAMEWORK, scale, name)
        for kind in ("states", "state_grads"):
            pairs = zip(getattr(theirs, kind), getattr(ours, kind), strict=True)
            for k, (a, b) in enumerate(pairs):
                assert_close(a, b, FRAMEWORK, all_norm(getattr(ours, kind)), f"{kind}[{k}]")


@pytest.mark.parametrize("framework", ["pytorch", "tf"])
def test_float32_and_accuracy_agree_and_the_model_is_left_as_found(framework):
    library = pytest.importorskip(f"course_lib.{framework}", exc_type=ImportError)
    spec = spec_of("batch", "pre", True, 2, activation="relu")
    weights = weights_of(spec)
    model, ours = library.build_stack(spec, weights), reference.build_stack(spec, weights)
    first, second = (library.stack_gradient_flow(model, X, LABELS, loss="cross_entropy")
                     for _ in range(2))  # fmt: skip
    expected = reference.stack_gradient_flow(ours, X, LABELS, loss="cross_entropy")
    scale = all_norm(expected.parameter_grads.values())
    for name, grad in expected.parameter_grads.items():
        np.testing.assert_array_equal(first.parameter_grads[name], second.parameter_grads[name])
        assert_close(first.parameter_grads[name], grad, 1e-4, scale, name)
    np.testing.assert_allclose(
        library.stack_accuracy(model, X, LABELS), reference.stack_accuracy(ours, X, LABELS)
    )
    again = library.stack_gradient_flow(model, X, LABELS, loss="cross_entropy", training=False)
    fresh = reference.stack_gradient_flow(ours, X, LABELS, loss="cross_entropy", training=False)
    assert again.loss == pytest.approx(fresh.loss, rel=1e-5)  # running averages did not move


def test_building_a_pytorch_stack_takes_nothing_from_the_global_generator():
    library = pytest.importorskip("course_lib.pytorch", exc_type=ImportError)
    import torch

    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    library.build_stack(BASE, draw_stack_weights(BASE, seed=0))
    assert torch.equal(torch.rand(3), expected)


def test_a_bias_before_batch_normalization_has_no_gradient():
    spec = spec_of("batch", "post", True, 2)
    flow = reference.stack_gradient_flow(
        reference.build_stack(spec, weights_of(spec)), X, LABELS, loss="cross_entropy"
    )
    biases = [g for name, g in flow.parameter_grads.items() if "linears" in name and "bias" in name]
    assert len(biases) == 4
    assert all_norm(biases) < 1e-14


def test_block_jacobians_are_central_differences():
    spec = spec_of("batch", "pre", True, 2)
    model = reference.build_stack(spec, weights_of(spec))
    model.forward(X, training=True)  # running averages that are not 0 and 1
    found = reference.stack_jacobians(model, X[0])
    states = [h[0] for h in model.forward(X[:1], training=False).states]
    for block in range(2):
        def forward(h, block=block):
            scale = model.parameters[f"blocks.{block}.scale"]
            return h + scale * model._run(model.branch(block), h[None, :], False)[0][0]

        numeric = central_difference(forward, states[block])
        np.testing.assert_allclose(found[block], numeric, atol=1e-8)


def test_a_stack_learns_and_an_outside_disturbance_moves_its_activations():
    digits = load_digits_split(seed=0)
    spec = StackSpec(64, 32, 4, n_out=10, norm="batch", shortcut=False)
    runs = []
    for disturbance in (0.0, 0.5):
        model = reference.build_stack(spec, draw_stack_weights(spec, seed=0))
        runs.append(
            reference.train_stack(
                model, digits.x_train, digits.y_train, learning_rate=0.1, steps=60,
                batch_size=64, seed=0, disturbance=disturbance,
            )
        )  # fmt: skip
        assert model.disturbances == {}
        assert runs[-1].losses[-10:].mean() < 0.5 * runs[-1].losses[0]
    # A normalized unit's mean is beta, which moves by learning rate times gradient; a uniform
    # offset of up to 1/2 moves it by sqrt(2) / sqrt(12) times that range.
    assert runs[0].shifts.mean() < 0.01
    assert runs[1].shifts.mean() == pytest.approx(np.sqrt(2 / 12) / 1.12, rel=0.1)


def test_training_without_disturbance_is_plain_gradient_descent():
    spec = spec_of("batch", "pre", True, 1)
    weights = weights_of(spec)
    model = reference.build_stack(spec, weights)
    run = reference.train_stack(model, X, LABELS, learning_rate=0.1, steps=1, seed=0)
    flow = reference.stack_gradient_flow(
        reference.build_stack(spec, weights), X, LABELS, loss="cross_entropy"
    )
    assert run.losses[0] == flow.loss
    for name, grad in flow.parameter_grads.items():
        expected = weights[name] - 0.1 * grad
        np.testing.assert_allclose(model.parameters[name], expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize(("norm", "placement"), [*product(NORMS, PLACEMENTS)])
def test_every_kind_of_stack_can_be_trained(norm, placement):
    spec = spec_of(norm, placement, True, 1, activation="relu")
    model = reference.build_stack(spec, weights_of(spec))
    run = reference.train_stack(
        model, X, LABELS, learning_rate=0.05, steps=60, batch_size=6, seed=0
    )
    assert run.losses.shape == (60,)
    assert run.shifts.shape == (59,)
    assert run.losses[-1] < run.losses[0]
    assert "60 steps" in run.describe()


def test_a_diverging_run_ends_at_the_first_loss_that_is_not_finite():
    spec = replace(BASE, width=24, blocks=40, activation="relu", scale=1.0)
    model = reference.build_stack(spec, draw_stack_weights(spec, seed=0))
    with np.errstate(all="ignore"):
        run = reference.train_stack(model, X, LABELS, learning_rate=0.1, steps=50, seed=0)
    assert len(run.losses) < 50
    assert not np.isfinite(run.losses[-1])


def test_the_gradient_shift_is_nothing_when_nothing_below_moves():
    spec = spec_of("none", "pre", True, 1)
    model = reference.build_stack(spec, weights_of(spec))
    kept = {name: array.copy() for name, array in model.parameters.items()}
    change, cosine = reference.measure_gradient_shift(
        model, X, LABELS, learning_rate=1e-9, block=1
    )
    assert change < 1e-7
    assert cosine == pytest.approx(1.0)
    far = reference.measure_gradient_shift(model, X, LABELS, learning_rate=1.0, block=1)
    assert far[0] > 0.1
    for name, array in model.parameters.items():
        np.testing.assert_array_equal(array, kept[name])


# --- theory ---


def test_the_rates_of_relu_are_known():
    assert normalized_rate("relu", norm="batch") == pytest.approx(
        np.sqrt(np.pi / (np.pi - 1)), rel=1e-4
    )
    assert normalized_rate("relu", norm="layer") == pytest.approx(1.0, rel=1e-6)
    assert normalized_rate("linear", norm="batch") == pytest.approx(1.0, rel=1e-6)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "elu", "tanh", "sigmoid", "gelu",
                                        "silu", "softplus"])  # fmt: skip
def test_batch_normalization_never_vanishes(activation):
    """The Gaussian Poincaré inequality: the variance of f is at most the mean square of f'."""
    assert normalized_rate(activation, norm="batch") > 1.0


@pytest.mark.parametrize(("activation", "norm"), [
    ("relu", "batch"), ("tanh", "batch"), ("sigmoid", "batch"),
    ("relu", "layer"), ("tanh", "layer"), ("sigmoid", "layer")])  # fmt: skip
def test_measured_rates_are_predicted(activation, norm):
    spec = StackSpec(32, 192, 1, n_out=32, shortcut=False, norm=norm, activation=activation)
    table = measure_norm_rates(spec, inputs=[64], depths=[30], seeds=[0, 1])
    # Finite width, batch and depth: two seeds differ by about 1 %.
    assert table.rates.shape == (1, 1, 2)
    assert table.rates.mean() == pytest.approx(table.theory, rel=0.02)


@pytest.mark.parametrize("changed", [
    {}, {"norm": "batch"}, {"norm": "layer"}, {"scale": 0.2}, {"norm": "batch", "layers": 2},
    {"norm": "layer", "layers": 2}, {"activation": "tanh"}, {"shortcut": False},
    {"shortcut": False, "norm": "layer", "activation": "sigmoid"}], ids=str)  # fmt: skip
def test_residual_growth_is_predicted(changed):
    spec = StackSpec(64, 256, 12, n_out=64, **changed)
    profiles = [measure_stack(spec, inputs=64, seed=seed) for seed in range(4)]
    forward, backward = (
        np.exp(np.mean([np.log(getattr(p, part)) for p in profiles], axis=0))
        for part in ("forward", "backward")
    )
    # Twelve random blocks of 256 units: a few percent each, in four networks.
    np.testing.assert_allclose(forward, profiles[0].forward_theory, rtol=0.15)
    np.testing.assert_allclose(backward, profiles[0].backward_theory, rtol=0.15)


def test_theory_of_a_plain_residual_stack_is_a_power_of_two():
    forward, backward = predict_stack(StackSpec(1, 64, 10))
    np.testing.assert_allclose(forward[-1] ** 2, 2.0**10, rtol=1e-4)
    np.testing.assert_allclose(backward[0] ** 2, 2.0**10, rtol=1e-4)
    normalized, _ = predict_stack(StackSpec(1, 64, 10, norm="layer"))
    np.testing.assert_allclose(normalized[-1] ** 2, 11.0, rtol=1e-4)
    assert np.isnan(predict_stack(StackSpec(1, 4, 2, placement="post"))[0]).all()


@given(seed=st.integers(0, 10_000), blocks=st.integers(1, 6), n=st.integers(1, 4))
@settings(deadline=None, max_examples=40)
def test_the_ordered_terms_add_up_to_the_product(seed, blocks, n):
    branches = list(np.random.default_rng(seed).normal(size=(blocks, n, n)))
    expansion = expand_product(branches)
    expected = np.eye(n)
    for branch in branches:
        expected = (np.eye(n) + branch) @ expected
    scale = np.prod([1.0 + np.linalg.norm(b) for b in branches])
    assert np.abs(expansion.product - expected).max() <= 1e-12 * scale
    assert np.abs(expansion.terms.sum(axis=0) - expected).max() <= 1e-12 * scale
    assert expansion.counts.sum() == 2**blocks
    np.testing.assert_allclose(expansion.terms[1], sum(branches), atol=1e-12 * scale)


def test_each_term_is_the_sum_over_ordered_subsets():
    from itertools import combinations

    branches = list(np.random.default_rng(0).normal(size=(5, 3, 3)))
    for k, term in enumerate(expand_product(branches).terms):
        expected = np.zeros((3, 3))
        for chosen in combinations(range(5), k):
            path = np.eye(3)
            for block in chosen:  # ascending: each later block to the left
                path = branches[block] @ path
            expected += path
        np.testing.assert_allclose(term, expected, atol=1e-11)


@given(seed=st.integers(0, 10_000), size=st.floats(0.0, 3.0))
@settings(deadline=None, max_examples=40)
def test_a_shortcut_keeps_within_weyls_bounds(seed, size):
    matrix = np.random.default_rng(seed).normal(size=(5, 5))
    matrix *= size / np.linalg.norm(matrix, 2)
    low, high = shortcut_range(matrix)
    assert 1.0 - size - 1e-12 <= low <= high <= 1.0 + size + 1e-12


def test_a_shortcut_can_be_singular():
    assert shortcut_range(-np.eye(3)) == (0.0, 0.0)


def test_the_scale_gives_the_growth_asked_for():
    assert (1 + branch_scale(50, growth=4.0) ** 2) ** 50 == pytest.approx(4.0)
    assert branch_scale(7, growth=1.0) == 0.0


# --- bad input ---

SPEC = StackSpec(3, 4, 2)
WEIGHTS = draw_stack_weights(SPEC, seed=0)
MODEL = reference.build_stack(SPEC, WEIGHTS)
BAD = [
    (lambda: replace(SPEC, blocks=0), ValueError, "`blocks` (=0) must be an integer >= 1."),
    (lambda: replace(SPEC, layers=1.5), TypeError, "`layers` (=1.5)"),
    (lambda: replace(SPEC, norm="group"), ValueError, "`norm` (='group') must be one of none"),
    (lambda: replace(SPEC, placement="mid"), ValueError, "`placement` (='mid')"),
    (lambda: replace(SPEC, shortcut="yes"), TypeError, "`shortcut` (='yes')"),
    (lambda: replace(SPEC, scale=np.nan), ValueError, "`scale` (=nan) must be finite."),
    (lambda: replace(SPEC, epsilon=-1.0), ValueError, "`epsilon` (=-1.0) must be >= 0.0."),
    (lambda: draw_stack_weights("x", seed=0), TypeError, "`spec` (a str) must be a StackSpec."),
    (lambda: draw_stack_weights(SPEC, seed=-1), ValueError, "`seed` (=-1)"),
    (lambda: check_stack_weights(SPEC, [1]), TypeError, "`weights` (a list)"),
    (lambda: check_stack_weights(SPEC, {}), ValueError, "`weights` (with or without"),
    (lambda: check_stack_weights(SPEC, {**WEIGHTS, "stem.bias": np.ones(3)}), ValueError,
     "`weights['stem.bias']` (shape (3,)) must have shape (4,)."),
    (lambda: check_stack_weights(SPEC, {**WEIGHTS, "stem.bias": np.full(4, np.inf)}), ValueError,
     "must be finite everywhere."),
    (lambda: reference.build_stack(SPEC, WEIGHTS, dtype="float32"), ValueError, "`dtype`"),
    (lambda: reference.build_stack(SPEC, WEIGHTS, unbiased_running=1), TypeError,
     "`unbiased_running` (=1)"),
    (lambda: MODEL.forward(np.ones((2, 5)), training=True), ValueError, "`x` (shape (2, 5))"),
    (lambda: MODEL.backward(StackPass([], [], np.ones((2, 1))), np.ones((3, 1))), ValueError,
     "`output_grad` (shape (3, 1))"),
    (lambda: reference.stack_gradient_flow(None, X), TypeError, "`model` (a NoneType)"),
    (lambda: reference.stack_gradient_flow(MODEL, X[:, :3], loss="mean_output", training=2),
     TypeError, "`training` (=2)"),
    (lambda: reference.stack_jacobians(MODEL, np.ones(4)), ValueError, "`x` (shape (4,))"),
    (lambda: reference.train_stack(MODEL, X[:, :3], learning_rate=0.1, steps=1, seed=0,
                                   loss="mean_output", disturbance=-1.0),
     ValueError, "`disturbance` (=-1.0)"),
    (lambda: reference.measure_gradient_shift(MODEL, X[:, :3], loss="mean_output",
                                              learning_rate=0.1, block=2),
     ValueError, "`block` (=2) must be below 2, the number of blocks."),
    (lambda: normalized_rate("relu", norm="none"), ValueError, "`norm` (='none')"),
    (lambda: normalized_rate("swish", norm="batch"), ValueError, "`activation` (='swish')"),
    (lambda: predict_stack(None), TypeError, "`spec` (a NoneType)"),
    (lambda: measure_stack(SPEC, inputs=1, seed=0), ValueError, "`inputs` (=1)"),
    (lambda: measure_norm_rates(SPEC, inputs=[], depths=[1], seeds=[0]), ValueError, "`inputs`"),
    (lambda: measure_norm_rates(SPEC, inputs=[2], depths=[0], seeds=[0]), ValueError,
     "`depths[0]` (=0)"),
    (lambda: expand_product([]), ValueError, "`branches` (=[]) must hold at least one entry."),
    (lambda: expand_product([np.ones((2, 3))]), ValueError,
     "`branches[0]` (shape (2, 3)) must be square."),
    (lambda: expand_product([np.eye(2), np.eye(3)]), ValueError, "`branches[1]` (shape (3, 3))"),
    (lambda: shortcut_range(np.ones(3)), ValueError, "`branch` (shape (3,))"),
    (lambda: branch_scale(0, growth=2.0), ValueError, "`blocks` (=0)"),
    (lambda: branch_scale(3, growth=0.5), ValueError, "`growth` (=0.5) must be >= 1.0."),
    (lambda: apply_fixup(SPEC, {}), ValueError, "`weights` (with or without"),
    (lambda: apply_fixup(SPEC, WEIGHTS, zero_head=1), TypeError, "`zero_head` (=1)"),
    (lambda: apply_fixup(*rescaled(3, 1)), ValueError,
     "`spec` (norm='none', shortcut=True, layers=1) must have shortcuts"),
    (lambda: apply_fixup(*rescaled(3, 2, norm="layer")), ValueError, "`spec` (norm='layer'"),
    (lambda: apply_fixup(*rescaled(3, 2, shortcut=False)), ValueError, "shortcut=False"),
]  # fmt: skip


def rescaled(blocks, layers, **changed):
    spec = StackSpec(4, 8, blocks, n_out=3, layers=layers, **changed)
    return spec, draw_stack_weights(spec, seed=0)


@pytest.mark.parametrize(("blocks", "layers", "factor"), [(16, 2, 0.25), (16, 3, 0.5), (1, 2, 1.0)])
def test_fixup_scales_each_matrix_by_its_rule(blocks, layers, factor):
    spec, drawn = rescaled(blocks, layers)
    found = apply_fixup(spec, drawn)
    assert [*found] == [*drawn]
    for name, array in found.items():
        inside, last = ".linears." in name, f".linears.{layers - 1}.weight"
        wanted = 0.0 if name.endswith(last) or name == "head.weight" else 1.0
        wanted = factor if wanted and inside and name.endswith("weight") else wanted
        np.testing.assert_allclose(array, wanted * drawn[name], rtol=1e-14)
        assert not array.flags.writeable
    assert np.any(drawn["head.weight"])  # what was given is left as it was
    np.testing.assert_array_equal(
        apply_fixup(spec, drawn, zero_head=False)["head.weight"], drawn["head.weight"]
    )


@pytest.mark.parametrize("framework", ["reference", "pytorch", "tf"])
def test_fixup_starts_as_the_identity_in_both_directions(framework):
    library = reference
    if framework != "reference":
        library = pytest.importorskip(f"course_lib.{framework}", exc_type=ImportError)
    spec, drawn = rescaled(12, 2)
    model = library.build_stack(spec, apply_fixup(spec, drawn, zero_head=False), dtype="float64")
    flow = library.stack_gradient_flow(model, X, LABELS, loss="cross_entropy")
    for kind in (flow.states, flow.state_grads):
        for array in kind:
            np.testing.assert_array_equal(array, kind[0])
    assert np.linalg.norm(flow.state_grads[0]) > 0
    silent = library.build_stack(spec, apply_fixup(spec, drawn), dtype="float64")
    flow = library.stack_gradient_flow(silent, X, LABELS, loss="cross_entropy")
    moving = {name for name, grad in flow.parameter_grads.items() if np.any(grad)}
    assert "head.weight" in moving
    assert moving <= {"head.weight", "head.bias"}


def test_the_first_step_of_fixup_does_not_grow_with_the_depth():
    """Without the factor the change of the outputs grows like the number of blocks."""
    changes = {}
    for fixed in (True, False):
        for blocks in (4, 64):
            spec = StackSpec(4, 32, blocks, n_out=3, layers=2)
            weights = dict(apply_fixup(spec, draw_stack_weights(spec, seed=0), zero_head=False))
            for name in weights:
                if not fixed and name.endswith(".linears.0.weight"):
                    weights[name] = weights[name] * np.sqrt(blocks)
            model = reference.build_stack(spec, weights)
            before = model(X)
            reference.train_stack(model, X, LABELS, learning_rate=1e-4, steps=1, seed=0)
            changes[fixed, blocks] = np.linalg.norm(model(X) - before)
    assert 0.5 < changes[True, 64] / changes[True, 4] < 2
    assert changes[False, 64] / changes[False, 4] > 4


@pytest.mark.parametrize(("call", "error", "words"), BAD)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)


@pytest.mark.parametrize("framework", ["pytorch", "tf"])
def test_frameworks_name_bad_input_too(framework):
    library = pytest.importorskip(f"course_lib.{framework}", exc_type=ImportError)
    x, labels = X[:, :3], LABELS % 2
    model = library.build_stack(SPEC, WEIGHTS)
    calls = [
        (lambda: library.build_stack(SPEC, {}), ValueError, "`weights` (with or without"),
        (lambda: library.build_stack(SPEC, WEIGHTS, dtype="float16"), ValueError, "`dtype`"),
        (lambda: library.stack_gradient_flow(None, x), TypeError, "`model` (a NoneType)"),
        (lambda: library.stack_gradient_flow(model, x, loss="mean_output", training=1), TypeError,
         "`training` (=1)"),
        (lambda: library.stack_gradient_flow(model, X, loss="mean_output"), ValueError, "`x`"),
        (lambda: library.stack_gradient_flow(model, x), ValueError, "`y` (=None)"),
        (lambda: library.stack_accuracy(model, x, labels), ValueError, "`y` (values 0 to 1)"),
        (lambda: library.stack_accuracy(MODEL, x, labels), TypeError, "`model` (a Stack)"),
    ]  # fmt: skip
    for call, error, words in calls:
        with pytest.raises(error) as caught:
            call()
        assert words in str(caught.value)
