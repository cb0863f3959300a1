"""Inspection and `diagnose` in TensorFlow, on Keras's own models, healthy and broken."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402
from keras import layers  # noqa: E402

from course_lib import tf as course_tf  # noqa: E402
from course_lib.diagnosis import diagnose  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(64, 8)).astype("float32"), RNG.integers(3, size=64)


def perceptron(activation="relu", depth=8, init="he_normal"):
    keras.utils.set_random_seed(0)
    return keras.Sequential([
        layers.Input((8,)),
        *[layers.Dense(16, activation, kernel_initializer=init, name=f"h{k}")
          for k in range(depth)],
        layers.Dense(3, name="out"),
    ])  # fmt: skip


def watch(model, x=X, y=Y, *, rate=1e-3, epochs=1, eagerly=True):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=keras.optimizers.Adam(rate), loss=loss, run_eagerly=eagerly)
    monitor = course_tf.GradientFlowMonitor(every=2)
    model.fit(x, y, epochs=epochs, batch_size=16, verbose=0, callbacks=[monitor])
    return monitor


def test_healthy_models_raise_no_alarm():
    assert diagnose(watch(perceptron())).problems == ()
    keras.utils.set_random_seed(0)
    x = layers.Input((10, 6))
    h = layers.LSTM(8, return_sequences=True)(x)
    h = layers.LayerNormalization()(h + layers.MultiHeadAttention(2, 4)(h, h))
    model = keras.Model(x, layers.Dense(3)(layers.GlobalAveragePooling1D()(h)))
    assert diagnose(watch(model, RNG.normal(size=(32, 10, 6)), Y[:32], epochs=1)).problems == ()


def test_a_network_from_keras_applications_raises_no_alarm_and_its_broken_layer_is_named():
    keras.utils.set_random_seed(0)
    model = keras.applications.MobileNet(
        input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=3, classifier_activation=None
    )
    images = RNG.normal(size=(16, 32, 32, 3)).astype("float32")
    assert diagnose(watch(model, images, Y[:16])).problems == ()
    kernel = model.get_layer("conv_pw_5").kernel
    kernel.assign(kernel * np.nan)
    report = diagnose(watch(model, images, Y[:16], epochs=1))
    assert report.findings[0].where == "conv_pw_5, step 0"


def test_broken_models_are_told_apart_and_placed():
    vanishing = diagnose(watch(perceptron("sigmoid", init="glorot_normal")))
    assert vanishing.problems[0].code == "vanishing_gradient"
    model = perceptron()
    model.get_layer("h4").bias.assign(np.full(16, -100.0))
    assert {f.where for f in diagnose(watch(model)).problems if f.code == "dead_units"} >= {"h4"}
    report = course_tf.dead_units(model, X, batch_size=24)
    assert diagnose(report).problems[0].where == "h4"
    assert [layer.name for layer in report.layers] == [f"h{k}" for k in range(8)]
    model = perceptron("tanh", init="glorot_normal", depth=4)
    model.get_layer("h2").kernel.assign(100 * model.get_layer("h2").kernel)
    finding = next(f for f in diagnose(watch(model)).problems if f.code == "saturation")
    assert finding.where == "h2"
    assert course_tf.saturation(model, X)["h2"] > 0.5


def test_three_methods_find_one_spectrum_and_know_their_floor():
    model = perceptron("tanh", depth=2)
    x = RNG.normal(size=8)
    exact, product, some = (
        course_tf.jacobian_spectrum(model, x, method=m, rank=3, iterations=30)
        for m in ("exact", "product", "randomized")
    )
    assert exact.shape == (3, 8)
    np.testing.assert_allclose(exact.singular_values, product.singular_values, rtol=1e-5)  # float32
    np.testing.assert_allclose(exact.singular_values, some.singular_values, rtol=1e-5)
    model = keras.Sequential([layers.Input((2,)), layers.Dense(2)])
    model.layers[0].kernel.assign(np.diag([1.0, 1e-12]))
    assert course_tf.jacobian_spectrum(model, np.ones(2)).condition.startswith("> ")


def test_clipping_audit_agrees_with_keras():
    model = perceptron(depth=1)
    grads = [tf.constant(RNG.normal(size=v.shape), tf.float32) for v in model.trainable_variables]
    for method, option in (("value", "clipvalue"), ("norm", "clipnorm"),
                           ("global_norm", "global_clipnorm")):  # fmt: skip
        audit = course_tf.clip_audit(model, grads, method=method, threshold=0.3)
        rule = keras.optimizers.SGD(1.0, **{option: 0.3})
        clipped = rule._clip_gradients(grads)
        expected = [np.linalg.norm(g.numpy()) for g in clipped]
        np.testing.assert_allclose(audit.clipped_norms, expected, rtol=1e-5)
    grads[0] = grads[0] * 1e30
    audit = course_tf.clip_audit(model, grads, threshold=1.0)
    assert np.isfinite(audit.global_norm)
    assert len(audit.lost) == len(grads)
    assert diagnose(audit).problems[0].code == "norm_overflow"


def test_recurrent_layers_inside_a_model_are_profiled():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([
        layers.Input((6, 3)), layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
        layers.GRU(4, name="gru"), layers.Dense(1),
    ])  # fmt: skip
    profiles = course_tf.bptt_gradient_profile(model, RNG.normal(size=(2, 6, 3)))
    assert len(profiles) == 3
    assert all(p.length == 6 and np.isfinite(p.log10_norms).all() for p in profiles.values())
    assert "gru" in profiles


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: course_tf.dead_units("m", X), TypeError, "`model`"),
        (lambda m: course_tf.dead_units(m, X[:0]), ValueError, "`x`"),
        (lambda m: course_tf.jacobian_spectrum(m, X[0], method="magic"), ValueError, "`method`"),
        (lambda m: course_tf.clip_audit(m, [None], threshold=1.0), ValueError, "length"),
        (lambda m: course_tf.bptt_gradient_profile(m, X), ValueError, "`model`"),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call(perceptron(depth=1))
