"""A monitor lets go of the Keras model and of its graphs, whatever the loop does."""

import gc
import weakref

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402

from course_lib.tf import (  # noqa: E402
    GradientFlowMonitor,
    dead_units,
    diagnose_model,
    jacobian_spectrum,
    saturation,
)

INPUTS, LABELS = np.ones((8, 6), "float32"), np.arange(8) % 3
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def build():
    return keras.Sequential([
        keras.Input((6,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3),
    ])  # fmt: skip


def step_of(model, rule):
    def step(x, y):
        with tf.GradientTape() as tape:
            loss = LOSS(y, model(x, training=True))
        grads = tape.gradient(loss, model.trainable_variables)
        rule.apply(grads, model.trainable_variables)
        return loss

    return step


def fit(model):
    model.compile("sgd", LOSS)
    model.fit(INPUTS, LABELS, batch_size=2, verbose=0, callbacks=[GradientFlowMonitor(every=2)])


def eager_loop(model):
    rule = keras.optimizers.SGD(0.01)
    with GradientFlowMonitor(model, optimizer=rule, every=2):
        for _ in range(3):
            step_of(model, rule)(INPUTS, LABELS)


def compiled_loop(model):
    rule = keras.optimizers.SGD(0.01)
    step = GradientFlowMonitor(model, optimizer=rule, every=2).function(step_of(model, rule))
    for _ in range(3):
        step(tf.constant(INPUTS), tf.constant(LABELS))


def fails_while_it_is_traced(model):
    rule = keras.optimizers.SGD(0.01)

    def step(x):
        model(x, training=True)
        raise ArithmeticError

    watched = GradientFlowMonitor(model, optimizer=rule).function(step)
    with pytest.raises(Exception, match="ArithmeticError"):  # TensorFlow raises one of its own
        watched(tf.constant(INPUTS))


USES = [
    fit, eager_loop, compiled_loop, fails_while_it_is_traced,
    lambda model: dead_units(model, INPUTS),
    lambda model: saturation(model, INPUTS),
    lambda model: jacobian_spectrum(model, INPUTS[0]),
    lambda model: jacobian_spectrum(model, INPUTS[0], method="product"),
    lambda model: diagnose_model(model, INPUTS, LABELS, loss=LOSS),
]  # fmt: skip


@pytest.mark.parametrize("use", USES)
def test_the_model_is_let_go_of(use):
    model = build()
    kernel = weakref.ref(model.layers[0].kernel.value)
    gone = weakref.ref(model)
    use(model)
    del model
    gc.collect()
    assert gone() is None
    assert kernel() is None


def test_a_step_differentiated_from_outside_after_it_was_traced_still_has_its_gradient():
    model, rule = build(), keras.optimizers.SGD(0.0)
    monitor = GradientFlowMonitor(model, optimizer=rule, every=1)
    x, y = tf.constant(INPUTS), tf.constant(LABELS)

    def step(x):
        loss = LOSS(y, model(x, training=True))
        rule.apply([0 * v.value for v in model.trainable_variables], model.trainable_variables)
        return loss

    watched = monitor.function(step)
    for _ in range(2):  # the first time, the step is traced; then it is there
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = watched(x)
        slope = tape.gradient(loss, x)
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = LOSS(y, model(x, training=True))
        np.testing.assert_allclose(slope, tape.gradient(loss, x), rtol=1e-6)
