"""The monitor on the hand-written gradients: against definitions, and against both frameworks."""

import numpy as np
import pytest

from course_lib import NetworkSpec, draw_weights, reference
from course_lib.activations import get_activation
from course_lib.data import gaussian_batch
from course_lib.flow_recorder import FlowRecorder
from course_lib.monitoring import ParameterState, Sample, Site
from course_lib.reference.flow_recording import measure_sites, train_recorded

X = gaussian_batch(40, 6, seed=0)
Y = np.arange(40) % 3
RUN = dict(learning_rate=0.3, steps=9, batch_size=16, seed=2)


def build(activation="relu", depth=4, module=reference, **options):
    spec = NetworkSpec(6, 12, depth, 3, activation, init="he_normal")
    return module.build_mlp(spec, draw_weights(spec, seed=1), **options)


def test_the_first_sample_by_the_definitions():
    model = build("tanh")
    passed = model.forward(X)
    flow = reference.gradient_flow(model, X, Y, loss="cross_entropy")
    before = [w.copy() for w in model.matrices]
    record = train_recorded(model, X, Y, learning_rate=0.3, steps=1, every=1).record
    np.testing.assert_allclose(record.activation_grad_norms[0], flow.activation_grad_norms)
    np.testing.assert_allclose(record.weight_grad_norms[0, ::2], flow.weight_grad_norms)
    np.testing.assert_allclose(record.weight_grad_norms[0, 1::2], flow.bias_grad_norms)
    scales = [np.sqrt(np.mean(h**2)) for h in passed.activations[1:]]
    np.testing.assert_allclose(record.activation_scales[0], scales)
    flat = [np.mean(get_activation("tanh").derivative(z) < 0.1) for z in passed.preactivations[:-1]]
    np.testing.assert_allclose(record.saturated_fractions[0, :-1], flat)
    ratios = 0.3 * flow.weight_grad_norms / [np.linalg.norm(w) for w in before]
    np.testing.assert_allclose(record.update_ratios[0, ::2], ratios)
    assert np.isnan(record.dead_fractions).all()  # a tanh has no off side


def test_dead_and_active_units_are_counted():
    model = build()
    model.biases[1][:5] = -50.0
    z = model.forward(X).preactivations[1]
    record = train_recorded(model, X, Y, learning_rate=1e-3, steps=1, every=1).record
    assert record.dead_fractions[0, 1] == np.mean((z <= 0).all(axis=0)) >= 5 / 12
    assert record.active_fractions[0, 1] == np.mean(z > 0)


def test_watching_changes_nothing_and_losses_are_those_of_train():
    watched, plain = build(), build()
    training = train_recorded(watched, X, Y, every=2, **RUN)
    run = reference.train(plain, X, Y, **RUN)
    assert all(np.array_equal(a, b) for a, b in zip(watched.matrices, plain.matrices, strict=True))
    assert np.array_equal(training.losses, run.losses[:-1])
    assert training.record.steps.tolist() == [0, 2, 4, 6, 8]
    np.testing.assert_allclose(training.record.weight_grad_norms[:, ::2],
                               run.weight_grad_norms[:-1:2])  # fmt: skip


def test_the_scale_of_the_loss_is_the_scale_of_the_gradients_only():
    small, large = build(), build()
    one = train_recorded(small, X, Y, every=1, **RUN).record
    options = {**RUN, "learning_rate": RUN["learning_rate"] / 64}
    two = train_recorded(large, X, Y, every=1, loss_scale=64.0, **options).record  # exact in binary
    np.testing.assert_allclose(two.weight_grad_norms, 64 * one.weight_grad_norms, rtol=1e-12)
    np.testing.assert_allclose(two.activation_grad_norms, 64 * one.activation_grad_norms)
    np.testing.assert_allclose(two.update_ratios, one.update_ratios)


def test_clipping_bounds_the_update_and_leaves_the_record_raw():
    model, free = build(), build()
    record = train_recorded(model, X, Y, every=1, clip_norm=0.01, **RUN).record
    raw = train_recorded(free, X, Y, every=1, **RUN).record
    np.testing.assert_allclose(record.weight_grad_norms[0], raw.weight_grad_norms[0])
    with np.errstate(invalid="ignore"):
        updates = record.update_ratios * record.weight_norms
    length = np.sqrt(np.nansum(updates**2, axis=1))
    assert np.all(length <= 0.3 * 0.01 * (1 + 1e-12))


def test_a_run_that_breaks_is_recorded_to_the_end():
    spec = NetworkSpec(6, 12, 6, 3, "leaky_relu", init="he_normal", gain=6.0)
    model = reference.build_mlp(spec, draw_weights(spec, seed=0))
    training = train_recorded(model, 50 * X, Y, learning_rate=10.0, steps=12, every=1)
    assert len(training.losses) == 12
    assert training.record.nonfinite
    assert not np.isfinite(training.losses[-1])


def test_the_callback_sees_every_sampled_step():
    seen = []
    train_recorded(build(), X, Y, every=4, on_sample=lambda step, flow: seen.append(
        (step, flow.depth)), **RUN)  # fmt: skip
    assert seen == [(0, 4), (4, 4), (8, 4)]


@pytest.mark.parametrize(
    ("name", "value"),
    [("model", 1), ("loss_scale", 0.0), ("clip_norm", -1.0), ("on_sample", 3), ("every", 0),
     ("learning_rate", 0.0), ("steps", 0), ("share", 2.0), ("max_records", 1)],
)  # fmt: skip
def test_bad_arguments_are_named(name, value):
    arguments = {"model": build(), "x": X, "y": Y, "learning_rate": 0.1, "steps": 2, name: value}
    pattern = "record_every|every" if name == "every" else name
    with pytest.raises((TypeError, ValueError), match=f"`({pattern})`"):
        train_recorded(**arguments)


def test_sites_refuse_what_does_not_belong_together():
    model = build()
    with pytest.raises(TypeError, match="`passed`"):
        measure_sites(model, None, None, 0.1)
    with pytest.raises(TypeError, match="`flow`"):
        measure_sites(model, model.forward(X), None, 0.1)


TABLES = ("activation_scales", "activation_grad_norms", "active_fractions", "dead_fractions",
          "saturated_fractions")  # fmt: skip


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "elu"])
def test_pytorch_monitor_agrees_in_float64(activation):
    torch = pytest.importorskip("torch")
    from course_lib import pytorch
    from course_lib.data import draw_batches

    expected = train_recorded(build(activation), X, Y, every=3, **RUN).record
    model = build(activation, module=pytorch, dtype="float64")
    rule = torch.optim.SGD(model.parameters(), lr=RUN["learning_rate"])
    with pytorch.GradientFlowMonitor(model, every=3) as monitor:
        for rows in draw_batches(40, batch_size=16, steps=9, seed=2):
            rule.zero_grad()
            value = torch.nn.functional.cross_entropy(
                model(torch.tensor(X[rows])), torch.tensor(Y[rows])
            )
            value.backward()
            rule.step()
    record = monitor.record
    last = record.layers[-1]
    outputs = [k for k, name in enumerate(record.activations)
               if name is not None or record.layers[k] == last]  # fmt: skip
    for table in TABLES:
        ours, theirs = getattr(expected, table), getattr(record, table)[:, outputs]
        np.testing.assert_allclose(theirs, ours, rtol=1e-9, err_msg=table)
    np.testing.assert_allclose(record.weight_grad_norms, expected.weight_grad_norms, rtol=1e-9)
    np.testing.assert_allclose(record.update_ratios, expected.update_ratios, rtol=1e-8)


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_keras_monitor_agrees_in_float64(activation):
    pytest.importorskip("tensorflow")
    import course_lib.tf  # noqa: I001  (before tensorflow, whose log lines it silences)
    import keras
    import tensorflow as tf

    from course_lib.data import draw_batches

    expected = train_recorded(build(activation), X, Y, every=3, **RUN).record
    model = build(activation, module=course_lib.tf, dtype="float64")
    rule = keras.optimizers.SGD(RUN["learning_rate"])
    monitor = course_lib.tf.GradientFlowMonitor(model, optimizer=rule, every=3)
    with monitor:
        for rows in draw_batches(40, batch_size=16, steps=9, seed=2):
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(
                    Y[rows], model(X[rows]), from_logits=True))  # fmt: skip
            rule.apply_gradients(
                zip(tape.gradient(value, model.trainable_variables), model.trainable_variables,
                    strict=True)
            )  # fmt: skip
    record = monitor.record
    for table in TABLES:  # Keras keeps the learning rate in float32
        ours, theirs = getattr(expected, table), getattr(record, table)
        np.testing.assert_allclose(theirs, ours, rtol=1e-5, err_msg=table)


def first_event(grads, weights, *, layers=("a", "block/b", "block/c")):
    """Return the first event of a step with these gradients of layers and of (layer, gradient)."""
    recorder = FlowRecorder(framework="NumPy", every=1, max_records=9, share=0.1)
    sites = [Site(name, "Dense", None, 64, 1, 8.0, g)
             for name, g in zip(layers, grads, strict=True)]  # fmt: skip
    states = [ParameterState(f"{layer}/kernel", layer, 2, True, g, 1.0, 0.1)
              for layer, g in weights]  # fmt: skip
    recorder.add(Sample(0, sites, states))
    event = recorder.record().nonfinite[0]
    return event.quantity, event.where


def test_a_gradient_spoiled_inside_a_layer_is_told_of_that_layer():
    nan, inf = float("nan"), float("inf")
    # What arrives at c's output is sound; its weights and what it passes on are not.
    weights = [("a", nan), ("block/b", nan), ("block/c", inf)]
    assert first_event([nan, nan, 1.0], weights) == ("weight gradient", "block/c/kernel")
    # Without weights of its own, the layer before is the first that is seen.
    assert first_event([nan, nan, 1.0], weights[:2]) == ("activation gradient", "block/b")
    assert first_event([nan, nan, nan], weights) == ("activation gradient", "block/c")
    # What a container owns may lie anywhere in it: its first layer comes before.
    weights = [("block", nan), ("a", nan)]
    assert first_event([nan, nan, 1.0], weights) == ("activation gradient", "block/b")
    assert first_event([1.0, 1.0, 1.0], [("elsewhere", nan)]) == (
        "weight gradient", "elsewhere/kernel")  # fmt: skip
