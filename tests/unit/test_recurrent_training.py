"""Training recurrent networks: both frameworks take the same steps, and record the same run."""

import numpy as np
import pytest

from course_lib import RecurrentSpec, draw_recurrent_weights, reference
from course_lib.data import draw_batches
from course_lib.recurrent_specs import GATES
from course_lib.tasks import adding_problem, copy_task, recall_task

pytorch = pytest.importorskip("course_lib.pytorch")
tensorflow = pytest.importorskip("course_lib.tf")

FRAMEWORKS = [pytest.param(pytorch, id="pytorch"), pytest.param(tensorflow, id="tf")]
RATE = 0.125  # a power of two: Keras keeps the learning rate in float32


def build(framework, cell, task, *, dtype="float64", hidden=6):
    spec = RecurrentSpec(task.n_in, hidden, cell, n_out=task.n_out, defaults="keras")
    return framework.build_recurrent(spec, draw_recurrent_weights(spec, seed=0), dtype=dtype)


def reference_losses(cell, task, *, steps, single_bias, clip_norm=None, truncation=None):
    """Plain SGD on the hand-written gradients, written out: losses and norms of every step.

    With `single_bias` only one of the two biases is a parameter, as in Keras's SimpleRNN and LSTM.
    """
    model = build(reference, cell, task)
    losses, norms = [], []
    for rows in draw_batches(len(task.x), batch_size=4, steps=steps + 1, seed=5):
        flow = reference.recurrent_gradient_flow(
            model, task.x[rows], task.y[rows], loss=task.loss, over=task.over, truncation=truncation
        )
        losses.append(flow.loss)
        grads = dict(flow.parameter_grads)
        if single_bias:
            del grads["b_hh"]
        norms.append(np.sqrt(sum(np.sum(g**2) for g in grads.values())))
        factor = 1.0 if clip_norm is None else min(1.0, clip_norm / norms[-1])
        w = model.weights
        arrays = {n: getattr(w, n) for n in flow.parameter_grads}
        arrays |= {n: arrays[n] - RATE * factor * g for n, g in grads.items()}
        model = reference.RecurrentNetwork(type(w)(w.cell, **arrays))
    return losses, norms


CASES = [("gru", None, None), ("gru", 3, 0.05), ("lstm", 3, None), ("tanh_rnn", None, 0.05)]


@pytest.mark.parametrize(("cell", "truncation", "clip_norm"), CASES)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_sgd_takes_the_references_steps(framework, cell, truncation, clip_norm):
    task = copy_task(12, gap=3, seed=0, symbols=3, copies=2)
    settings = {"clip_norm": clip_norm, "truncation": truncation}
    single_bias = framework is tensorflow and cell != "gru"
    losses, norms = reference_losses(cell, task, steps=5, single_bias=single_bias, **settings)
    run = framework.train_recurrent(
        build(framework, cell, task), task, optimizer="sgd", learning_rate=RATE, steps=5,
        batch_size=4, seed=5, **settings,
    )  # fmt: skip
    np.testing.assert_array_equal(run.steps, np.arange(6))
    # PyTorch divides by the norm plus 1e-6 when it clips: 2e-5 of a norm of 0.05.
    tolerance = 1e-10 if clip_norm is None else 1e-4
    np.testing.assert_allclose(run.losses, losses, rtol=tolerance)
    np.testing.assert_allclose(run.grad_norms, norms, rtol=tolerance)
    assert (run.task, run.cell, run.truncation) == (task.name, cell, truncation)


# The epsilons: 1e-8 and 1e-7 beside the root in Adam; in RMSprop Keras puts it inside the root,
# where it acts like 3e-4 beside gradients of order 0.01.
@pytest.mark.parametrize(("optimizer", "tolerance"), [("adam", 1e-3), ("rmsprop", 0.05)])
@pytest.mark.parametrize("cell", GATES)
def test_frameworks_agree_on_the_other_optimizers(cell, optimizer, tolerance):
    task = adding_problem(16, length=6, seed=0)
    ours, theirs = (build(framework, cell, task) for framework in (pytorch, tensorflow))
    if cell != "gru":  # Keras has one bias here; two equal ones would move twice as fast
        ours.recurrent.bias_hh_l0.requires_grad_(False)
    settings = {"optimizer": optimizer, "learning_rate": 2.0**-7, "batch_size": 8, "seed": 1}
    first = pytorch.train_recurrent(ours, task, steps=4, **settings)
    second = tensorflow.train_recurrent(theirs, task, steps=4, **settings)
    assert first.losses[0] == pytest.approx(second.losses[0], rel=1e-12)
    np.testing.assert_allclose(first.losses, second.losses, rtol=tolerance)
    assert first.losses[-1] < 0.9 * first.losses[0]


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_short_recall_is_learned(framework):
    task = recall_task(200, lag=3, seed=0)
    model = build(framework, "gru", task, dtype="float32", hidden=8)
    before = framework.evaluate_recurrent(model, task)
    run = framework.train_recurrent(model, task, learning_rate=0.05, steps=60, batch_size=50,
                                    seed=0, record_every=20)  # fmt: skip
    after = framework.evaluate_recurrent(model, task)
    assert after.accuracy == 1.0
    assert after.loss < 0.1 < task.baseline_loss < before.loss + 0.5
    np.testing.assert_array_equal(run.steps, [0, 20, 40, 60])
    assert "accuracy 100 %" in after.describe()
    assert "60 updates" in run.describe()


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_truncation_below_the_lag_learns_nothing_of_it(framework):
    # Zero noise and one symbol at step 1: with the state cut after it, no gradient shows the way.
    task = recall_task(64, lag=5, seed=0, noise=0.0)
    model = build(framework, "tanh_rnn", task, dtype="float64")
    before = framework.recurrent_weights(model).w_xh
    framework.train_recurrent(model, task, optimizer="sgd", learning_rate=0.5, steps=10,
                              truncation=5)  # fmt: skip
    np.testing.assert_array_equal(framework.recurrent_weights(model).w_xh, before)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_a_run_that_breaks_says_where(framework):
    task = adding_problem(8, length=60, seed=0)
    spec = RecurrentSpec(2, 4, "relu_rnn", n_out=1, recurrent_init="identity", gain=9.0)
    model = framework.build_recurrent(spec, draw_recurrent_weights(spec, seed=0))
    run = framework.train_recurrent(model, task, optimizer="sgd", learning_rate=0.1, steps=20,
                                    record_every=50)  # fmt: skip
    assert run.first_nonfinite is not None
    assert run.first_nonfinite == run.steps[-1] < 20
    assert "no longer finite from step" in run.describe()


TASK = adding_problem(4, length=5, seed=0)
GIVEN = {"learning_rate": 0.1, "steps": 1}


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"optimizer": "adagrad"}, ValueError, r"`optimizer` \(='adagrad'\) must be one of sgd"),
        ({"learning_rate": 0}, ValueError, r"`learning_rate` \(=0.0\)"),
        ({"steps": 0}, ValueError, r"`steps` \(=0\)"),
        ({"clip_norm": -1.0}, ValueError, r"`clip_norm` \(=-1.0\)"),
        ({"truncation": 0}, ValueError, r"`truncation` \(=0\)"),
        ({"record_every": 0.5}, TypeError, r"`record_every` \(=0.5\)"),
        ({"batch_size": 9, "seed": 0}, ValueError, r"`batch_size` \(=9\)"),
        ({"batch_size": 2}, TypeError, r"`seed` \(=None\)"),
    ],
)
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_bad_settings_are_named(framework, change, error, message):
    model = build(framework, "gru", TASK)
    with pytest.raises(error, match=message):
        framework.train_recurrent(model, TASK, **GIVEN | change)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_bad_models_and_tasks_are_named(framework):
    model = build(framework, "gru", TASK)
    with pytest.raises(TypeError, match=r"`task` \(=None\)"):
        framework.train_recurrent(model, None, **GIVEN)
    with pytest.raises(ValueError, match=r"`task` \(n_in 2, n_out 2\) must fit"):
        framework.evaluate_recurrent(model, recall_task(3, lag=2, seed=0))
    with pytest.raises(TypeError, match=r"`model` \(a str\)"):
        framework.train_recurrent("gru", TASK, **GIVEN)
