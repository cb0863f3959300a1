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


@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_a_step_compiled_by_xla_is_bit_identical(rule):
    def tiny():
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.layers.Input((6,)), keras.layers.Dense(4, "relu"),
                                  keras.layers.Dense(1)])  # fmt: skip
        model.compile(optimizer=rule, loss="mse", jit_compile=True)
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


IMAGES = np.random.default_rng(2).normal(size=(8, 6, 6, 4)).astype("float32")


def residual_images():
    """Return a residual network as they are built: a projected shortcut, then a plain one."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    start = keras.Input((6, 6, 4))
    x = layers.Conv2D(4, 3, padding="same")(start)
    for block in range(2):
        y = layers.Conv2D(4, 3, padding="same", use_bias=False)(x)
        y = layers.ReLU()(layers.BatchNormalization()(y))
        y = layers.Conv2D(4, 3, padding="same", use_bias=False)(y)
        y = layers.BatchNormalization()(y)
        if block == 0:
            x = layers.BatchNormalization()(layers.Conv2D(4, 1, use_bias=False)(x))
        x = layers.ReLU()(layers.Add()([x, y]))
    return keras.Model(start, layers.Dense(3)(layers.GlobalAveragePooling2D()(x)))


def residual_dense():
    """Return a residual network of dense layers."""
    keras.utils.set_random_seed(0)
    start = x = keras.Input((6,))
    for _ in range(3):
        y = keras.layers.Dense(6)(keras.layers.Dense(6, "gelu")(x))
        x = keras.layers.Add()([x, y])
    return keras.Model(start, keras.layers.Dense(3)(x))


class Hidden(keras.Model):
    """Sums that no functional model would tell of."""

    def __init__(self):
        super().__init__()
        keras.utils.set_random_seed(0)
        self.inner = [keras.layers.Dense(6, name=f"d{k}") for k in range(3)]
        self.head = keras.layers.Dense(3)

    def call(self, x):
        for layer in self.inner:
            x = x + layer(x)
        return self.head(x)


def trained(model, x, *, logits, monitored, how):
    """Return the weights after four steps of Adam in `fit`, or in a compiled or an eager loop."""
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    optimizer, y = keras.optimizers.Adam(0.01), Y[: len(x)]
    monitor = GradientFlowMonitor(model, optimizer=optimizer, every=2)
    if how == "fit":
        model.compile(optimizer, loss)
        model.fit(x, y, epochs=4, batch_size=len(x), shuffle=False, verbose=0,
                  callbacks=[monitor] if monitored else [])  # fmt: skip
        return model.get_weights()

    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        grads = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
        return value

    step = monitor.function(step) if monitored else tf.function(step)
    for _ in range(4):
        step(tf.constant(x), tf.constant(y))
    return model.get_weights()


@pytest.mark.parametrize("how", ["fit", "loop"])
@pytest.mark.parametrize(("make", "x"), [(residual_images, IMAGES), (residual_dense, X[:8]),
                                         (Hidden, X[:8])])  # fmt: skip
def test_a_residual_network_trains_as_without_the_monitor(make, x, how):
    one, two = (trained(make(), x, logits=True, monitored=m, how=how) for m in (False, True))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("how", ["fit", "loop"])
@pytest.mark.parametrize("end", ["dense", "layer", "sigmoid"])
def test_a_loss_still_finds_the_logits(end, how):
    def make():
        keras.utils.set_random_seed(0)
        wide = keras.initializers.RandomNormal(stddev=5.0)
        ends = {
            "dense": [keras.layers.Dense(3, "softmax", kernel_initializer=wide)],
            "layer": [keras.layers.Dense(3, kernel_initializer=wide), keras.layers.Softmax()],
            "sigmoid": [keras.layers.Dense(3, "sigmoid", kernel_initializer=wide)],
        }[end]
        return keras.Sequential([keras.Input((6,)), keras.layers.Dense(16, "relu"), *ends])

    one, two = (trained(make(), X[:8], logits=False, monitored=m, how=how) for m in (False, True))
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_gradient_of_a_softmax_that_the_loss_sees_through_is_that_of_its_logits():
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, "softmax")])
    optimizer, loss = keras.optimizers.SGD(0.1), keras.losses.SparseCategoricalCrossentropy()
    with GradientFlowMonitor(model, optimizer=optimizer, every=1) as monitor:
        with tf.GradientTape() as tape:
            p = model(X[:8], training=True)
            value = loss(Y[:8], p)
        grads = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))
    expected = (p.numpy() - np.eye(3)[Y[:8]]) / 8  # softmax with cross-entropy
    np.testing.assert_allclose(
        monitor.record.activation_grad_norms[0, -1], np.linalg.norm(expected), rtol=1e-5
    )


RULES = ["SGD", "Adam", "RMSprop", "Nadam", "Adagrad", "Adamax", "Adadelta", "Lion", "AdamW",
         "Ftrl"]  # fmt: skip


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("options", [{}, {"use_ema": True, "ema_overwrite_frequency": 1},
                                     {"weight_decay": 0.1}])  # fmt: skip
@pytest.mark.parametrize("rule", RULES)
def test_an_update_is_how_far_the_weights_moved(rule, options, compiled):
    model = perceptron()
    optimizer = getattr(keras.optimizers, rule)(0.01, **options)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss)
    model(X[:8])
    monitor = GradientFlowMonitor(model, optimizer=optimizer, every=1)

    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        grads = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(grads, model.trainable_variables, strict=True))

    before = [v.numpy() for v in model.trainable_variables]
    if compiled:
        monitor.function(step)(tf.constant(X[:8]), tf.constant(Y[:8]))
    else:
        with monitor:
            step(X[:8], Y[:8])
    found = dict(zip(monitor.record.parameters, monitor.record.update_ratios[0], strict=True))
    moved = 0
    for v, old in zip(model.trainable_variables, before, strict=True):
        name = f"{v.path.rpartition('/')[0].rpartition('/')[2]}/{v.name}"
        if np.linalg.norm(old) > 0:
            moved += 1
            expected = np.linalg.norm(v.numpy() - old) / np.linalg.norm(old)
            # float32 rounds every weight by 6e-8 of itself at most, so the ratio by as much.
            np.testing.assert_allclose(found[name], expected, rtol=1e-5, atol=6e-8, err_msg=name)
    assert moved > 3
