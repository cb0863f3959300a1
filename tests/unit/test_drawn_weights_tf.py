"""How the matrices of a Keras model were drawn, and what comes behind them."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402
from keras import layers  # noqa: E402

from course_lib.tf import diagnose_model  # noqa: E402
from course_lib.tf.trial_weights import NormalizedWatch, fans_in  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 10, 10, 3)).astype("float32"), np.arange(16) % 4
TOKENS = RNG.integers(50, size=(16, 12))
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_fans_of_dense_and_convolutional_layers_and_of_embeddings():
    x = keras.Input((8, 8, 6))
    h = layers.Conv2D(4, 3, groups=2, name="conv")(x)
    h = layers.EinsumDense("bijc,cde->bijde", (None, None, 2, 3), name="heads")(h)
    h = layers.EinsumDense("bijde,dec->bijc", (None, None, 5), name="out")(h)
    h = layers.DepthwiseConv2D(3, name="depth")(h)
    h = layers.SeparableConv2D(5, 2, name="both")(h)
    h = layers.Dense(7, name="dense")(layers.GlobalAveragePooling2D()(h))
    tokens = keras.Input((2,), dtype="int32")
    table = layers.Flatten()(layers.Embedding(9, 3, name="table")(tokens))
    model = keras.Model([x, tokens], layers.Concatenate()([h, table]))
    assert fans_in(model) == {"conv/kernel": 27, "heads/kernel": 4, "out/kernel": 6,
                              "dense/kernel": 5, "table/embeddings": 1,
                              "depth/kernel": 9, "both/depthwise_kernel": 4}  # fmt: skip


def taken(model, *, training=True):
    with NormalizedWatch(model) as watch:
        model(tf.ones((3, 4)), training=training)
    assert not any("call" in vars(layer) for layer in model._flatten_layers(include_self=False))
    return watch.layers


def test_what_a_normalization_takes_as_it_is():
    x = keras.Input((4,))
    a, b, c, d = (layers.Dense(4, name=name) for name in "abcd")
    h = layers.Reshape((4,))(layers.LayerNormalization()(layers.Reshape((1, 4))(a(x))))
    h = layers.LayerNormalization()(layers.Add(name="sum")([h, b(h)]))
    h = d(layers.LayerNormalization()(layers.ReLU(name="relu")(c(h))))
    assert taken(keras.Model(x, h)) == ("a", "sum", "relu")
    # Keras runs branches side by side, and what goes into a sum as well is not taken as it is.
    left, right, trunk = (layers.Dense(4, name=name) for name in ("left", "right", "trunk"))
    h = trunk(x)
    n, m = left(layers.LayerNormalization()(h)), right(x)
    n, m = layers.LayerNormalization()(n), layers.LayerNormalization()(m)
    assert set(taken(keras.Model(x, layers.Add()([h, n, m])))) == {"left", "right"}
    shared = layers.Dense(4, name="shared")
    for parts, expected in (
        ((shared, layers.LayerNormalization(), shared, layers.ReLU()), ()),
        ((shared, layers.LayerNormalization(), shared, layers.LayerNormalization()), ("shared",)),
        ((shared, layers.BatchNormalization()), ("shared",)),
        ((shared, layers.BatchNormalization(trainable=False)), ()),  # divides by constants
        ((shared, layers.Normalization(mean=0.0, variance=1.0)), ()),
    ):
        keras.utils.clear_session()
        assert taken(keras.Sequential([keras.Input((4,)), *parts])) == expected
    assert taken(keras.Sequential([keras.Input((4,)), shared, layers.BatchNormalization()]),
                 training=False) == ()  # fmt: skip


def convolutional():
    keras.utils.set_random_seed(0)
    parts = [part for k in range(4) for part in (
        layers.Conv2D(12, 3, padding="same", name=f"conv{k}"), layers.BatchNormalization(),
        layers.ReLU())]  # fmt: skip
    ends = [layers.GlobalAveragePooling2D(), layers.Dense(4)]
    return keras.Sequential([keras.Input((10, 10, 3)), *parts, *ends])


def trial(model, x=X, **options):
    report = diagnose_model(model, x, Y, loss=LOSS, steps=3, **options)
    return [(f.severity, f.code, f.where) for f in report.findings if f.severity != "info"]


def test_a_standard_deviation_of_1_is_named_behind_normalizations_too():
    model = convolutional()
    for layer in model.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.assign(RNG.normal(size=layer.kernel.shape))
    assert trial(model)[0] == ("problem", "large_weights", "conv0/kernel")


def test_a_layer_times_a_hundred_in_front_of_a_normalization_is_named():
    model = convolutional()
    model.get_layer("conv2").kernel.assign(100 * model.get_layer("conv2").kernel)
    assert trial(model)[:1] == [("warning", "rescaled_layer", "conv2")]


def test_an_embedding_drawn_small_raises_no_alarm_under_sgd():
    keras.utils.set_random_seed(0)
    x = keras.Input((12,), dtype="int32")
    h = layers.Embedding(50, 16, embeddings_initializer=keras.initializers.RandomNormal(0.0, 0.02))(
        x
    )
    for _ in range(3):
        n = layers.LayerNormalization()(h)
        h = layers.Add()([h, layers.Dense(16)(layers.Dense(32, "gelu")(n))])
    h = layers.LayerNormalization()(layers.GlobalAveragePooling1D()(h))
    model = keras.Model(x, layers.Dense(4)(h))
    assert trial(model, TOKENS, optimizer=keras.optimizers.SGD(0.1)) == []
    codes = {code for _, code, _ in trial(model, TOKENS, learning_rate=1.0)}
    assert codes & {"large_update", "non_finite", "unstable_training"}  # then it is the rate
