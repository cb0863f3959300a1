"""`diagnose_model` on networks that Keras ships: no false alarm, and the broken place is named."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402
from keras import layers, ops  # noqa: E402

from course_lib.tf import diagnose_model  # noqa: E402

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def draw(*shape):
    return np.random.default_rng(0).normal(size=shape).astype("float32")


def mobilenet():
    model = keras.applications.MobileNet(
        input_shape=(32, 32, 3), alpha=0.25, weights=None, classes=4, classifier_activation=None
    )
    return model, draw(8, 32, 32, 3)


def transformer():
    x = keras.Input((12,), dtype="int32")
    h = layers.Embedding(50, 16)(x)
    for k in range(2):
        n = layers.LayerNormalization()(h)
        h = layers.Add()([h, layers.MultiHeadAttention(2, 8, name=f"attention{k}")(n, n)])
        n = layers.LayerNormalization()(h)
        h = layers.Add()([h, layers.Dense(16)(layers.Dense(32, "gelu")(n))])
    model = keras.Model(x, layers.Dense(4)(layers.GlobalAveragePooling1D()(h)))
    return model, np.random.default_rng(0).integers(50, size=(8, 12))


def recurrent():
    both = layers.Bidirectional(layers.GRU(8, return_sequences=True))
    cells = layers.RNN([layers.LSTMCell(8), layers.GRUCell(8)])
    return keras.Sequential([layers.Input((8, 6)), both, cells, layers.Dense(4)]), draw(8, 8, 6)


def shared():
    a, b = keras.Input((6,)), keras.Input((6,))
    tower = keras.Sequential([layers.Input((6,)), layers.Dense(16, "relu"), layers.Dense(8)])
    head = layers.Dense(4)(layers.Concatenate()([tower(a), tower(b)]))
    return keras.Model([a, b], head), (draw(8, 6), draw(8, 6) + 1)


def operations():
    x = h = keras.Input((6,))
    for k in range(5):
        h = ops.relu(layers.Dense(16, kernel_initializer="he_normal", name=f"dense{k}")(h))
    return keras.Model(x, layers.Dense(4)(h)), draw(8, 6)


def unet():
    x = h = keras.Input((8, 8, 3))
    h = left = layers.Conv2D(8, 3, padding="same", activation="relu")(h)
    h = layers.Conv2D(8, 3, padding="same", activation="relu")(layers.MaxPooling2D()(h))
    h = layers.Conv2DTranspose(8, 2, strides=2, activation="relu")(h)
    h = layers.Conv2D(4, 1)(layers.Concatenate()([h, left]))
    return keras.Model(x, layers.GlobalAveragePooling2D()(h)), draw(8, 8, 8, 3)


def report_of(build, change=None, **options):
    keras.utils.set_random_seed(0)
    model, x = build()
    if change is not None:
        change(model)
    labels = np.random.default_rng(1).integers(4, size=8)
    return diagnose_model(model, x, labels, loss=LOSS, steps=3, **options)


@pytest.mark.parametrize("build", [mobilenet, transformer, recurrent, shared, operations, unet])
def test_healthy_networks_raise_no_alarm(build):
    assert [f for f in report_of(build).findings if f.severity != "info"] == []


def shut_off(name):
    def change(model):
        beta = model.get_layer(name).beta
        beta.assign(np.full(beta.shape, -10.0))

    return change


def plant_nan(name):
    def change(model):
        kernel = model.get_layer(name).kernel
        kernel.assign(kernel * np.where(np.arange(kernel.shape[-1]) == 0, np.nan, 1.0))

    return change


@pytest.mark.parametrize(
    ("build", "change", "code", "place"),
    [
        (mobilenet, shut_off("conv_pw_5_bn"), "dead_units", "conv_pw_5_relu"),
        (mobilenet, plant_nan("conv_pw_5"), "non_finite", "conv_pw_5, step 0"),
        (operations, plant_nan("dense2"), "non_finite", "dense2, step 0"),
    ],
)
def test_the_broken_layer_is_named_first(build, change, code, place):
    first = report_of(build, change).findings[0]
    assert (first.code, first.where) == (code, place)


@pytest.mark.parametrize("build", [operations, transformer])
def test_a_learning_rate_a_thousand_times_too_large_is_named(build):
    codes = {f.code for f in report_of(build, learning_rate=1.0).problems}
    assert codes & {"large_update", "non_finite", "unstable_training"}
