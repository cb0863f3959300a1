"""One matrix drawn far too small, in Keras: named where other layers build on it."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
from keras import layers  # noqa: E402

from course_lib.tf import diagnose_model  # noqa: E402
from course_lib.tf.trial_weights import find_inner  # noqa: E402

X = np.random.default_rng(0).normal(size=(32, 16)).astype("float32")
Y = np.arange(32) % 4
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def shrink(layer, factor=0.01):
    layer.kernel.assign(factor * layer.kernel)


def perceptron(depth, activation="relu", norm=None):
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    body = [layers.Dense(32, activation, name=f"d{k}") for k in range(depth)]
    if norm is not None:
        body[norm:] = [layers.Dense(32, name=f"d{norm}"), layers.BatchNormalization(),
                       layers.ReLU(), *body[norm + 1 :]]  # fmt: skip
    return keras.Sequential([layers.Input((16,)), *body, layers.Dense(4, name="head")])


def found(model):
    report = diagnose_model(model, X, Y, loss=LOSS, steps=2)
    return [f.where for f in report.findings if f.code == "rescaled_layer"]


@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("depth", [2, 3])
def test_a_layer_in_the_middle(depth, activation):
    assert found(perceptron(depth, activation)) == []
    for place in range(1, depth):
        model = perceptron(depth, activation)
        shrink(model.get_layer(f"d{place}"))
        assert found(model) == [f"d{place}"]


def test_a_head_or_what_a_normalization_takes_is_left():
    model = perceptron(3)
    shrink(model.get_layer("head"))
    assert found(model) == []
    model = perceptron(4, norm=2)
    shrink(model.get_layer("d2"))
    assert found(model) == []


def test_a_small_branch_beside_a_skip_connection_is_none():
    keras.utils.set_random_seed(0)
    inputs = layers.Input((16,))
    h = layers.Dense(32)(inputs)
    for k in range(3):
        down = layers.Dense(32, name=f"down{k}")
        h = h + down(layers.Dense(32, "relu")(h))
    model = keras.Model(inputs, layers.Dense(4)(h))
    for k in range(3):
        shrink(model.get_layer(f"down{k}"))
    assert found(model) == []


def test_which_layers_are_built_on():
    class Net(keras.Model):
        def __init__(self):
            super().__init__()
            names = ("first", "second", "made", "head", "other")
            for name in names:
                setattr(self, name, layers.Dense(16, name=name))

        def call(self, x):
            h = self.made(tf.nn.relu(self.first(x)) + x)
            cut = tf.stop_gradient(self.second(h))
            h = tf.transpose(tf.reshape(h, (4, 8, 16)), (1, 0, 2))
            return self.head(h) + tf.reduce_mean(self.other(cut))

    model = Net()
    model(X)
    calls = [layer.call for layer in model.layers]
    assert find_inner(model, lambda: model(X)) == ("first", "made")
    assert [layer.call for layer in model.layers] == calls
