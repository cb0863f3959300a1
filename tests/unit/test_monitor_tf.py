"""The Keras monitor measures what the tape has, on any model, and changes nothing."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402

from course_lib.tf import GradientFlowMonitor  # noqa: E402

X = np.random.default_rng(0).normal(size=(44, 6)).astype("float32")
Y = np.random.default_rng(1).integers(3, size=44)


def perceptron(**options):
    keras.utils.set_random_seed(0)
    shared = keras.layers.ReLU(name="shared")
    model = keras.Sequential([
        keras.layers.Input((6,)), keras.layers.Dense(8, name="a"), shared,
        keras.layers.Dropout(0.2), keras.layers.Dense(8, use_bias=False, name="b"), shared,
        keras.layers.BatchNormalization(name="norm"),
        keras.layers.Dense(8, activation="tanh", name="c"), keras.layers.Dense(3, name="d"),
    ])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(0.01), loss=loss, **options)
    return model


def sequences():
    keras.utils.set_random_seed(0)
    x = keras.Input((5,), dtype="int32")
    h = keras.layers.Embedding(11, 8, mask_zero=True)(x)
    h = keras.layers.Bidirectional(keras.layers.LSTM(4, return_sequences=True))(h)
    h = keras.layers.MultiHeadAttention(2, 4)(h, h)
    model = keras.Model(x, keras.layers.Dense(3)(keras.layers.GlobalAveragePooling1D()(h)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer="sgd", loss=loss)
    return model


def fit(model, x, monitor=None, epochs=2):
    given = [] if monitor is None else [monitor]
    model.fit(x, Y[: len(x)], epochs=epochs, batch_size=16, shuffle=False, verbose=0,
              callbacks=given)  # fmt: skip
    return model.get_weights()


def assert_untouched(model):
    assert "train_step" not in vars(model)
    assert "call" not in vars(model)
    assert not any("call" in vars(layer) for layer in model.layers)
    assert "apply" not in vars(model.optimizer)


@pytest.mark.parametrize("options", [{}, {"run_eagerly": True}])
def test_fit_gives_bit_identical_weights(options):
    monitor = GradientFlowMonitor(every=2)
    one, two = fit(perceptron(**options), X), perceptron(**options)
    for a, b in zip(one, fit(two, X, monitor), strict=True):
        np.testing.assert_array_equal(a, b)
    assert monitor.record.steps.tolist() == [0, 2, 4]
    assert monitor.record.layers == ("a", "shared", "b", "shared#2", "norm", "c", "d")
    assert_untouched(two)


def test_a_step_compiled_by_xla_is_bit_identical():
    def tiny():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(4, "relu"),
                                  keras.layers.Dense(1)])  # fmt: skip
        model.compile(optimizer="sgd", loss="mse", jit_compile=True)
        return model

    monitor = GradientFlowMonitor(every=2)
    for a, b in zip(fit(tiny(), X), fit(tiny(), X, monitor), strict=True):
        np.testing.assert_array_equal(a, b)
    assert len(monitor.record) == 3


def test_recurrent_and_attention_layers_in_fit():
    x = np.random.default_rng(0).integers(1, 11, size=(32, 5))
    monitor = GradientFlowMonitor(every=1)
    one, two = fit(sequences(), x, epochs=1), sequences()
    for a, b in zip(one, fit(two, x, monitor, epochs=1), strict=True):
        np.testing.assert_array_equal(a, b)
    assert np.isfinite(monitor.record.weight_grad_norms).all()
    assert any("bidirectional" in name for name in monitor.record.layers)


def test_the_numbers_are_those_of_the_tape():
    model = perceptron()
    model.get_layer("a").trainable = False
    rule, x = keras.optimizers.SGD(0.1), tf.constant(X)

    def loss():
        return tf.reduce_mean(tf.square(model(x, training=False)))

    weights = model.trainable_variables
    before = [w.numpy() for w in model.weights]
    with GradientFlowMonitor(model, optimizer=rule, every=1) as monitor:
        with tf.GradientTape() as tape:
            value = loss()
        grads = tape.gradient(value, weights)
        rule.apply_gradients(zip(grads, weights, strict=True))
    record = monitor.record
    for variable, grad in zip(weights, grads, strict=True):
        k = record.parameters.index(variable.path.removeprefix(f"{model.name}/"))
        assert record.weight_grad_norms[0, k] == pytest.approx(tf.norm(grad).numpy(), rel=1e-5)
        old = next(v for v, w in zip(before, model.weights, strict=True) if w is variable)
        if np.linalg.norm(old):
            expected = 0.1 * np.linalg.norm(grad) / np.linalg.norm(old)
            assert record.update_ratios[0, k] == pytest.approx(expected, rel=1e-3)
    for w, old in zip(model.weights, before, strict=True):
        w.assign(old)
    h, values = x, []
    with tf.GradientTape() as tape:
        for layer in model.layers:
            h = layer(h)
            if not isinstance(layer, keras.layers.Dropout):
                tape.watch(h)
                values.append(h)
        value = tf.reduce_mean(tf.square(h))
    for k, (h, grad) in enumerate(zip(values, tape.gradient(value, values), strict=True)):
        scale = float(tf.sqrt(tf.reduce_mean(tf.square(h))))
        assert record.activation_scales[0, k] == pytest.approx(scale, rel=1e-5)
        assert record.activation_grad_norms[0, k] == pytest.approx(tf.norm(grad).numpy(), rel=1e-5)
    on = values[1].numpy() > 0
    assert record.active_fractions[0, 1] == pytest.approx(on.mean())
    np.testing.assert_allclose(record.unit_active_fractions[1], on.mean(0), rtol=1e-6)
    flat = np.mean(1 - values[5].numpy() ** 2 < 0.1)
    assert record.saturated_fractions[0, 5] == pytest.approx(flat)


@pytest.mark.parametrize("compiled", [False, True])
def test_a_loop_of_your_own_is_bit_identical(compiled):
    weights = []
    for watched in (False, True):
        model, rule = perceptron(), keras.optimizers.SGD(0.1)
        monitor = GradientFlowMonitor(model, optimizer=rule, every=2)

        def step(x, model=model, rule=rule):
            with tf.GradientTape() as tape:
                value = tf.reduce_mean(tf.square(model(x, training=True)))
            grads = tape.gradient(value, model.trainable_variables)
            rule.apply_gradients(zip(grads, model.trainable_variables, strict=True))
            return value

        if compiled:
            step = monitor.function(step) if watched else tf.function(step)
        if watched and not compiled:
            with monitor:
                for _ in range(5):
                    step(tf.constant(X))
        else:
            for _ in range(5):
                step(tf.constant(X))
        weights.append(model.get_weights())
    assert monitor.record.steps.tolist() == [0, 2, 4]
    assert "apply" not in vars(rule)
    for a, b in zip(*weights, strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_compiled_step_is_not_watched_in_silence():
    model, rule = perceptron(), keras.optimizers.SGD(0.1)

    @tf.function
    def step(x):
        with tf.GradientTape() as tape:
            value = tf.reduce_mean(model(x))
        grads = tape.gradient(value, model.trainable_variables)
        rule.apply_gradients(zip(grads, model.trainable_variables, strict=True))

    with GradientFlowMonitor(model, optimizer=rule), pytest.raises(RuntimeError, match="function"):
        step(tf.constant(X))
    assert "apply" not in vars(rule)
    assert not any("call" in vars(layer) for layer in model.layers)


def test_mixed_precision_is_unscaled():
    norms = []
    for policy in ("float32", "mixed_float16"):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((6,)),
                                  keras.layers.Dense(8, activation="relu", dtype=policy),
                                  keras.layers.Dense(1, dtype="float32")])  # fmt: skip
        rule = keras.optimizers.SGD(0.01)
        if policy != "float32":
            rule = keras.optimizers.LossScaleOptimizer(rule, initial_scale=2.0**10)
        model.compile(optimizer=rule, loss="mse")
        monitor = GradientFlowMonitor(every=1)
        fit(model, X, monitor, epochs=1)
        norms.append(monitor.record)
    for name in ("weight_grad_norms", "activation_grad_norms"):
        a, b = (getattr(r, name)[0] for r in norms)
        np.testing.assert_allclose(a, b, rtol=1e-2)  # float16 keeps 11 bits


def test_the_model_is_left_as_it_was_after_an_exception():
    class Fails(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            raise ZeroDivisionError

    model = perceptron()
    monitor = GradientFlowMonitor(every=1)
    with pytest.raises(ZeroDivisionError):
        model.fit(X, Y, verbose=0, callbacks=[Fails(), monitor])
    assert_untouched(model)
    assert model.train_function is monitor._plain


def test_non_finite_values_are_named_where_they_first_appear():
    model = perceptron()
    kernel = model.get_layer("b").kernel
    kernel.assign(kernel * np.inf)
    monitor = GradientFlowMonitor(every=1)
    fit(model, X, monitor, epochs=1)
    event = monitor.record.nonfinite[0]
    assert (event.step, event.where, event.quantity) == (0, "b", "activation")


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (dict(model="x"), TypeError, "`model`"),
        (dict(every=0), ValueError, "`every` \\(=0\\)"),
        (dict(optimizer="sgd"), TypeError, "`optimizer`"),
        (dict(max_calls=0), ValueError, "`max_calls`"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        GradientFlowMonitor(**arguments)
