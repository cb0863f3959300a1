"""Compiled steps as people write them, besides the usual one: seen, with the same weights."""

from __future__ import annotations

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402

from course_lib.diagnosis import diagnose  # noqa: E402
from course_lib.tf import GradientFlowMonitor  # noqa: E402

X = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
Y = np.ones((64, 4), "float32")


def make():
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(16, "relu", name=f"h{k}") for k in range(3)]
    return keras.Sequential([keras.Input((16,)), *hidden, keras.layers.Dense(4, name="head")])


def gradients(model, rows=slice(None)):
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean((model(X[rows]) - Y[rows]) ** 2)
    return loss, tape.gradient(loss, model.trainable_variables)


def usual(model, rule):
    def step():
        loss, grads = gradients(model)
        rule.apply(grads, model.trainable_variables)
        return loss

    return step


def returns_nothing(model, rule):
    """TensorFlow optimizes such a step less: products of the clipping and the rule stay apart."""

    def step():
        first, second = (gradients(model, rows)[1] for rows in (slice(32), slice(32, 64)))
        grads = [a + b for a, b in zip(first, second, strict=True)]
        grads, _ = tf.clip_by_global_norm(grads, 1.0)
        rule.apply(grads, model.trainable_variables)

    return step


def skips_what_is_not_finite(model, rule):
    def step():
        loss, grads = gradients(model)
        if tf.math.is_finite(loss):
            rule.apply(grads, model.trainable_variables)
        return loss

    return step


def every_second_call(model, rule):
    calls = tf.Variable(1)
    sums = [tf.Variable(tf.zeros_like(v)) for v in model.trainable_variables]

    def step():
        loss, grads = gradients(model)
        for total, grad in zip(sums, grads, strict=True):
            total.assign_add(grad)
        calls.assign_add(1)
        if calls % 2 == 0:
            rule.apply([total + 0.0 for total in sums], model.trainable_variables)
            for total in sums:
                total.assign(tf.zeros_like(total))
        return loss

    return step


def a_loop_of_three(model, rule):
    def step():
        loss = 0.0
        for _ in tf.range(3):
            loss, grads = gradients(model)
            rule.apply(grads, model.trainable_variables)
        return loss

    return step


def run(way, *, watched=True, every=4, steps=9):
    model, rule = make(), keras.optimizers.SGD(0.05)
    rule.build(model.trainable_variables)
    step, monitor = way(model, rule), GradientFlowMonitor(model, optimizer=rule, every=every)
    if watched:
        with monitor:
            step = monitor.function(step)
            for _ in range(steps):
                step()
    else:
        step = tf.function(step)
        for _ in range(steps):
            step()
    return monitor.record, [v.numpy() for v in model.trainable_variables]


WAYS = [returns_nothing, skips_what_is_not_finite, every_second_call, a_loop_of_three]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_step_is_watched_and_ends_in_the_same_weights(way):
    record, watched = run(way)
    _, alone = run(way, watched=False)
    assert all(map(np.array_equal, watched, alone))
    assert record.steps.tolist() == [0, 4, 8]
    assert len(record.parameters) == 8
    assert np.all(record.weight_norms[:, ::2] > 0)
    assert np.all(record.update_ratios[:, ::2] > 0)
    expected = ("unseen_layers",) if way is a_loop_of_three else ()
    assert diagnose(record).codes == expected


def test_a_rule_in_a_branch_has_the_record_of_the_same_rule_outside():
    found, expected = run(skips_what_is_not_finite)[0], run(usual)[0]
    for name in ("weight_grad_norms", "weight_norms", "activation_grad_norms"):
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=1e-5)
    # One is the difference of two weights, rounded, the other what was subtracted.
    np.testing.assert_allclose(found.update_ratios, expected.update_ratios, rtol=1e-3)
