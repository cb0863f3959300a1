"""The known traps of measuring gradients, met by the Keras monitor as by PyTorch's."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402
from keras import layers  # noqa: E402

from course_lib import diagnose  # noqa: E402
from course_lib.tf import GradientFlowMonitor  # noqa: E402

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")


def perceptron() -> keras.Sequential:
    keras.utils.set_random_seed(0)
    hidden = [layers.Dense(8, "relu", name=name) for name in "ab"]
    return keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(1, name="c")])


def watch(model, loss, rules, monitor, *, steps=1):
    """Train with `loss` of the outputs, eagerly, every rule with its variables."""
    with monitor:
        for _ in range(steps):
            with tf.GradientTape() as tape:
                value = loss(model(tf.constant(X), training=True))
            grads = tape.gradient(value, [v for _, part in rules for v in part])
            for rule, part in rules:
                rule.apply_gradients(zip(grads[: len(part)], part, strict=True))
                grads = grads[len(part) :]
    return monitor.record


@pytest.mark.parametrize("size", [1e-30, 1e25])
def test_gradients_far_below_and_above_what_float32_squares_can_hold(size):
    model, rule = perceptron(), keras.optimizers.SGD(0.0)
    monitor = GradientFlowMonitor(model, optimizer=rule, every=1)
    record = watch(model, lambda y: size * tf.reduce_sum(y), [(rule, model.trainable_variables)],
                   monitor)  # fmt: skip
    norms = record.weight_grad_norms[0]
    assert np.all((norms > 0.01 * size) & (norms < 1000 * size))
    assert record.nonfinite == ()


def test_clipping_does_not_hide_the_gradient_and_an_infinite_norm_is_named():
    model, rule = perceptron(), keras.optimizers.SGD(0.1, global_clipnorm=1e-6)
    monitor = GradientFlowMonitor(model, optimizer=rule, every=1)
    every = [(rule, model.trainable_variables)]
    record = watch(model, lambda y: tf.reduce_sum(y**2), every, monitor)
    assert record.global_norms[0] > 1e-3

    @tf.custom_gradient
    def spoiled(w):
        return tf.identity(w), lambda g: g * np.inf

    model, rule = perceptron(), keras.optimizers.SGD(0.1, global_clipnorm=1.0)
    last = model.get_layer("c")
    last.call = lambda h, **_: h @ spoiled(last.kernel.value) + last.bias
    monitor = GradientFlowMonitor(model, optimizer=rule, every=1)
    every = [(rule, model.trainable_variables)]
    record = watch(model, lambda y: tf.reduce_sum(y**2), every, monitor)
    event = next(e for e in record.nonfinite if e.quantity == "weight gradient")
    assert (event.step, event.where) == (0, "c/kernel")
    assert np.isfinite(record.weight_grad_norms[0, 0])
    assert "non_finite" in diagnose(record).codes


def test_frozen_parameters_and_two_optimizers():
    model = perceptron()
    model.get_layer("a").trainable = False
    rules = [(keras.optimizers.SGD(0.1), model.get_layer("b").trainable_variables),
             (keras.optimizers.Adam(0.01), model.get_layer("c").trainable_variables)]  # fmt: skip
    monitor = GradientFlowMonitor(model, optimizer=[rule for rule, _ in rules], every=2)
    record = watch(model, lambda y: tf.reduce_sum(y**2), rules, monitor, steps=5)
    assert record.steps.tolist() == [0, 2, 4]
    first = record.parameters.index("a/kernel")
    assert not record.trainable[first]
    assert np.isnan(record.weight_grad_norms[:, first]).all()
    kernels = [record.parameters.index(f"{name}/kernel") for name in "bc"]
    assert np.all(record.update_ratios[:, kernels] > 0)


def test_memory_is_bounded_and_the_record_spans_the_run():
    model = perceptron()
    model.compile(keras.optimizers.SGD(0.01), "mse")
    monitor = GradientFlowMonitor(every=1, max_records=8)
    model.fit(X, X[:, :1], batch_size=8, epochs=12, verbose=0, callbacks=[monitor])
    steps = monitor.record.steps
    assert 4 <= len(steps) <= 8
    assert steps[0] == 0
    assert steps[-1] >= 38
    assert len(set(np.diff(steps))) == 1
