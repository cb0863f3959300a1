"""Ensembles: each network does in them what it does alone, and gradients are derivatives."""

from dataclasses import replace

import numpy as np
import pytest

from course_lib import (
    NetworkSpec,
    RecurrentSpec,
    draw_recurrent_weights,
    draw_weights,
    reference,
)
from course_lib.losses import evaluate_loss
from course_lib.reference import BatchNorm, LayerNorm, norm_backward
from course_lib.reference.ensemble import build_ensemble, ensemble_loss
from course_lib.reference.recurrent_ensemble import build_recurrent_ensemble
from course_lib.tasks import recall_task

SPEC = NetworkSpec(5, 4, 4, 3, activation="tanh", init="glorot_normal", bias=0.1)
RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((2, 6, 5)), RNG.integers(0, 3, size=(2, 6))


def small(norm="none", shortcut=False, spec=SPEC):
    return build_ensemble(spec, [draw_weights(spec, seed=s) for s in (0, 1)], norm=norm,
                          shortcut=shortcut)  # fmt: skip


def losses(model, training=True):
    outputs = model.forward(X, training=training).activations[-1]
    pairs = zip(outputs, Y, strict=True)
    return np.array([evaluate_loss(o, y, loss="cross_entropy")[0] for o, y in pairs])


def test_each_network_does_what_the_reference_does():
    model = small()
    passed = model.forward(X, training=True)
    grads, states = model.backward(passed, ensemble_loss(passed.activations[-1], Y))
    for s in (0, 1):
        alone = reference.build_mlp(SPEC, draw_weights(SPEC, seed=s))
        flow = reference.gradient_flow(alone, X[s], Y[s], loss="cross_entropy")
        for k in range(SPEC.depth):
            np.testing.assert_allclose(grads[k][s], flow.weight_grads[k], rtol=1e-12)
            np.testing.assert_allclose(grads[SPEC.depth + k][s, 0], flow.bias_grads[k], rtol=1e-12)
            np.testing.assert_allclose(states[k][s], flow.activation_grads[k], rtol=1e-12)


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("shortcut", [False, True])
def test_gradients_are_central_differences(norm, shortcut):
    model = small(norm, shortcut)
    passed = model.forward(X, training=True)
    grads, _ = model.backward(passed, ensemble_loss(passed.activations[-1], Y))
    rng = np.random.default_rng(1)
    for parameter, grad in zip(model.parameters, grads, strict=True):
        assert grad.shape == parameter.shape
        direction = rng.standard_normal(parameter.shape)
        moved = []
        for sign in (1.0, -1.0):
            parameter += sign * 1e-5 * direction
            moved.append(losses(model))
            parameter -= sign * 1e-5 * direction
        numeric = (moved[0] - moved[1]) / 2e-5
        analytic = np.sum(grad * direction, axis=(1, 2))
        # 1e-6 of the size of the terms, and what central differences cannot resolve below 1e-9
        np.testing.assert_allclose(analytic, numeric, rtol=1e-6, atol=1e-9)


def test_a_network_does_not_see_its_neighbours():
    """Batch statistics are each network's own: another neighbour changes nothing."""
    pair = small("batch", True)
    other = build_ensemble(SPEC, [draw_weights(SPEC, seed=s) for s in (0, 7)], norm="batch",
                           shortcut=True)  # fmt: skip
    a, b = (m.forward(X, training=True).activations[-1] for m in (pair, other))
    np.testing.assert_array_equal(a[0], b[0])
    assert not np.allclose(a[1], b[1])


def test_each_network_may_have_its_own_activation():
    names = ["tanh", "tanh", "relu", "sigmoid", "linear", "leaky_relu"]
    drawn = [draw_weights(SPEC, seed=s) for s in range(6)]
    x, y = RNG.standard_normal((6, 6, 5)), RNG.integers(0, 3, size=(6, 6))
    model = build_ensemble(SPEC, drawn, hidden_activations=names)
    passed = model.forward(x, training=True)
    grads, _ = model.backward(passed, ensemble_loss(passed.activations[-1], y))
    for s, name in enumerate(names):
        spec = replace(SPEC, activation=name)
        flow = reference.gradient_flow(
            reference.build_mlp(spec, drawn[s]), x[s], y[s], loss="cross_entropy"
        )
        for k in range(SPEC.depth):
            np.testing.assert_allclose(grads[k][s], flow.weight_grads[k], rtol=1e-12, err_msg=name)


@pytest.mark.parametrize(("norm", "layer"), [("batch", BatchNorm), ("layer", LayerNorm)])
def test_the_normalization_is_that_of_the_reference(norm, layer):
    """Outputs, gradients and running averages of one network, in training and in evaluation."""
    ours, theirs = small(norm).norms[0], layer(4)
    z, grad = RNG.standard_normal((2, 1, 6, 4))
    for training in (True, True, False):
        done, expected = ours.forward(z, training), theirs.forward(z[0], training=training)
        np.testing.assert_allclose(done.normalized[0], expected.normalized, rtol=1e-12)
        np.testing.assert_allclose(
            done.backward(grad)[0], norm_backward(expected, grad[0])[0], rtol=1e-11, atol=1e-14
        )
    if norm == "batch":
        np.testing.assert_allclose(ours.mean[0, 0], theirs.running_mean, rtol=1e-12)
        np.testing.assert_allclose(ours.variance[0, 0], theirs.running_var, rtol=1e-12)


def test_evaluation_uses_running_averages():
    model = small("batch")
    before = model.forward(X, training=False).activations[-1]
    model.forward(X, training=True)
    assert not np.allclose(before, model.forward(X, training=False).activations[-1])


def test_batch_norm_hides_the_scale_of_a_layer_from_all_but_its_own_gradient():
    """With epsilon 0, c W and c b give the same outputs, and gradients of W and b over c."""
    plain, scaled = small("batch"), small("batch")
    for norm in (*plain.norms, *scaled.norms):
        norm.epsilon = 0.0
    scaled.matrices[1] *= 7.0
    scaled.biases[1] *= 7.0
    results = []
    for model in (plain, scaled):
        passed = model.forward(X, training=True)
        results.append(model.backward(passed, ensemble_loss(passed.activations[-1], Y)))
    for k, (first, second) in enumerate(zip(*(grads for grads, _ in results), strict=True)):
        factor = 7.0 if k in (1, SPEC.depth + 1) else 1.0
        np.testing.assert_allclose(first, factor * second, rtol=1e-9, atol=1e-14)
    for first, second in zip(*(states for _, states in results), strict=True):
        np.testing.assert_allclose(first, second, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("cell", ["tanh_rnn", "relu_rnn", "lstm", "gru"])
def test_recurrent_ensembles_match_the_reference(cell):
    spec = RecurrentSpec(2, 3, cell=cell, n_out=2, bias=0.1)
    weights = [draw_recurrent_weights(spec, seed=s) for s in (0, 1)]
    tasks = [recall_task(4, lag=5, seed=s) for s in (0, 1)]
    model = build_recurrent_ensemble(spec, weights)
    passed = model.forward(np.stack([t.x for t in tasks]))
    grads, states = model.backward(
        passed, ensemble_loss(passed.outputs, np.stack([t.y for t in tasks]))
    )
    for s, (w, task) in enumerate(zip(weights, tasks, strict=True)):
        alone = reference.build_recurrent(spec, w)
        flow = reference.recurrent_gradient_flow(alone, task.x, task.y, loss=task.loss)
        for name, grad in flow.parameter_grads.items():
            np.testing.assert_allclose(grads[name][s].reshape(grad.shape), grad, rtol=1e-10,
                                       atol=1e-15)  # fmt: skip
        np.testing.assert_allclose(np.stack([g[s] for g in states], 1), flow.hidden_grads,
                                   rtol=1e-10, atol=1e-15)  # fmt: skip


@pytest.mark.parametrize(("norm", "shortcut"), [("layer", False), ("none", True), ("layer", True)])
def test_recurrent_norm_and_shortcut_are_central_differences(norm, shortcut):
    spec = RecurrentSpec(2, 4, cell="tanh_rnn", n_out=2, bias=0.1)
    task = recall_task(5, lag=4, seed=0)
    model = build_recurrent_ensemble(
        spec, [draw_recurrent_weights(spec, seed=s) for s in (0, 1)], norm=norm, shortcut=shortcut
    )
    x, y = np.stack([task.x] * 2), np.stack([task.y] * 2)
    passed = model.forward(x)
    grads, _ = model.backward(passed, ensemble_loss(passed.outputs, y))
    rng = np.random.default_rng(2)
    for name, parameter in model.arrays.items():
        direction = rng.standard_normal(parameter.shape)
        moved = []
        for sign in (1.0, -1.0):
            parameter += sign * 1e-5 * direction
            outputs = model.forward(x).outputs
            moved.append([evaluate_loss(o, task.y, loss="cross_entropy")[0] for o in outputs])
            parameter -= sign * 1e-5 * direction
        numeric = (np.array(moved[0]) - moved[1]) / 2e-5
        analytic = np.sum(grads[name] * direction, axis=(1, 2))
        np.testing.assert_allclose(analytic, numeric, rtol=1e-6, atol=1e-9, err_msg=name)


def test_bad_input():
    drawn = [draw_weights(SPEC, seed=0)]
    with pytest.raises(ValueError, match="`norm`"):
        build_ensemble(SPEC, drawn, norm="group")
    with pytest.raises(TypeError, match="`shortcut`"):
        build_ensemble(SPEC, drawn, shortcut=1)
    with pytest.raises(ValueError, match="`hidden_activations`"):
        build_ensemble(SPEC, drawn, hidden_activations=["relu", "relu"])
    with pytest.raises(ValueError, match="`hidden_activations"):
        build_ensemble(SPEC, drawn, hidden_activations=["swoosh"])
    with pytest.raises(ValueError, match="`weights`"):
        build_ensemble(SPEC, [])
    with pytest.raises(ValueError, match="`weights`"):
        build_ensemble(NetworkSpec(5, 6, 4, 3), drawn)
    with pytest.raises(ValueError, match="`x`"):
        small().forward(X[:1], training=True)
    gated = RecurrentSpec(2, 3, cell="lstm", n_out=2)
    with pytest.raises(ValueError, match="`spec`"):
        build_recurrent_ensemble(gated, [draw_recurrent_weights(gated, seed=0)], shortcut=True)
    bare = RecurrentSpec(2, 3)
    with pytest.raises(ValueError, match="`spec`"):
        build_recurrent_ensemble(bare, [draw_recurrent_weights(bare, seed=0)])
