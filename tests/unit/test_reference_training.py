"""The reference's SGD and Adam against their formulas, and what a run records."""

import numpy as np
import pytest

from course_lib import NetworkSpec, draw_weights
from course_lib.data import draw_batches
from course_lib.reference import build_mlp, gradient_flow, train
from course_lib.reference.training import SGD, Adam

SPEC = NetworkSpec(4, 5, 3, n_out=3, activation="tanh", bias=0.1)
RNG = np.random.default_rng(0)
X, LABELS = RNG.normal(size=(12, 4)), RNG.integers(0, 3, size=12)


def model():
    return build_mlp(SPEC, draw_weights(SPEC, seed=0))


def test_sgd_by_hand():
    parameter = np.array([1.0, 2.0])
    SGD(0.1).update([parameter], [np.array([10.0, -10.0])])
    np.testing.assert_allclose(parameter, [0.0, 3.0], rtol=1e-15)


def adam_in_scalars(grads, *, rate, epsilon, epsilon_on_raw):
    """Kingma and Ba's algorithm 1 (or its reordered form, for the raw place), in plain floats."""
    m = v = parameter = 0.0
    for t, g in enumerate(grads, start=1):
        m = 0.9 * m + 0.1 * g
        v = 0.999 * v + 0.001 * g * g
        if epsilon_on_raw:
            step = rate * (1 - 0.999**t) ** 0.5 / (1 - 0.9**t)
            parameter -= step * m / (v**0.5 + epsilon)
        else:
            parameter -= rate * (m / (1 - 0.9**t)) / ((v / (1 - 0.999**t)) ** 0.5 + epsilon)
    return parameter


@pytest.mark.parametrize("epsilon_on_raw", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e-8])
def test_adam_is_the_papers(epsilon_on_raw, scale):
    grads = scale * np.array([1.0, -0.5, 2.0, 0.3, 0.3])
    rule = Adam(0.01, epsilon=1e-7, epsilon_on_raw=epsilon_on_raw)
    parameter = np.zeros(1)
    for g in grads:
        rule.update([parameter], [np.array([g])])
    expected = adam_in_scalars(grads, rate=0.01, epsilon=1e-7, epsilon_on_raw=epsilon_on_raw)
    assert parameter[0] == pytest.approx(expected, rel=1e-12)


def test_where_gradients_vanish_the_place_of_epsilon_decides():
    # First step, gradient 1e-8, epsilon 1e-8. PyTorch's place: g / (g + eps) = 1/2 of the rate.
    # On the raw root, sqrt(v) = sqrt(0.001) g, so that the step is 1 / (1 + sqrt(1000)) of it.
    steps = []
    for raw in (False, True):
        parameter = np.zeros(1)
        Adam(1.0, epsilon=1e-8, epsilon_on_raw=raw).update([parameter], [np.array([1e-8])])
        steps.append(-parameter[0])
    assert steps == pytest.approx([1 / 2, 1 / (1 + np.sqrt(1000.0))], rel=1e-9)


def test_the_record_is_what_a_plain_loop_finds():
    run = train(model(), X, LABELS, learning_rate=0.3, steps=5, batch_size=4, seed=2)
    twin = model()
    start = [w.copy() for w in twin.matrices]
    for step, rows in enumerate(draw_batches(12, batch_size=4, steps=6, seed=2)):
        flow = gradient_flow(twin, X[rows], LABELS[rows], loss="cross_entropy")
        assert run.losses[step] == flow.loss
        np.testing.assert_array_equal(run.weight_grad_norms[step], flow.weight_grad_norms)
        changes = [
            np.linalg.norm(w - w0) / np.linalg.norm(w0)
            for w, w0 in zip(twin.matrices, start, strict=True)
        ]
        np.testing.assert_allclose(run.weight_changes[step], changes, rtol=1e-12)
        for parameter, grad in zip(
            [*twin.matrices, *twin.biases], [*flow.weight_grads, *flow.bias_grads], strict=True
        ):
            parameter -= 0.3 * grad
    assert run.steps.tolist() == [0, 1, 2, 3, 4, 5]


def test_training_changes_the_model_and_learns():
    net = model()
    run = train(net, X, LABELS, learning_rate=0.3, steps=200)
    assert run.losses[-1] < 0.5 * run.losses[0]
    assert run.weight_changes[0].max() == 0.0
    assert run.weight_changes[-1].min() > 0.01
    assert run.depth == 3


def test_every_nth_step_and_the_last_are_recorded():
    run = train(model(), X, LABELS, learning_rate=0.1, steps=11, record_every=4)
    assert run.steps.tolist() == [0, 4, 8, 11]
    assert run.weight_grad_norms.shape == run.weight_changes.shape == (4, 3)
    assert run.losses.shape == (4,)


def test_the_same_seed_gives_the_same_run_and_another_does_not():
    settings = {"learning_rate": 0.1, "steps": 5, "batch_size": 3, "optimizer": "adam"}
    one, two, other = (train(model(), X, LABELS, seed=s, **settings) for s in (1, 1, 2))
    np.testing.assert_array_equal(one.losses, two.losses)
    assert not np.array_equal(one.losses, other.losses)
