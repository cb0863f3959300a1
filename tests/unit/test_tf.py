"""What only the TensorFlow half promises: native models are read, and left as they were found."""

import random

import numpy as np
import pytest

from course_lib import NetworkSpec, draw_weights, reference

tensorflow = pytest.importorskip("course_lib.tf", exc_type=ImportError)
import keras  # noqa: E402
import tensorflow as tf  # noqa: E402
from keras.layers import Activation, Dense  # noqa: E402

SPEC = NetworkSpec(3, 4, 3, n_out=2, bias=0.1)
WEIGHTS = draw_weights(SPEC, seed=0)
X, Y = np.random.default_rng(0).normal(size=(5, 3)), np.random.default_rng(1).normal(size=(5, 2))
EXPECTED = reference.gradient_flow(reference.build_mlp(SPEC, WEIGHTS), X, Y)


def sequential(*layers, n_in=3, **kwargs):
    return keras.Sequential([keras.Input((n_in,), **kwargs), *layers])


def native(**kwargs):
    """The network of SPEC as a reader would write it."""
    return sequential(
        Dense(4, activation="sigmoid", **kwargs), Dense(4, activation="sigmoid", **kwargs),
        Dense(2, **kwargs),
    )  # fmt: skip


def assert_as_expected(flow, tolerance=1e-5):
    for found, expected in (
        *zip(flow.weight_grads, EXPECTED.weight_grads, strict=True),
        *zip(flow.activation_grads, EXPECTED.activation_grads, strict=True),
    ):
        np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance * 0.01)


def test_a_native_model_with_loaded_weights():
    model = native()
    assert tensorflow.load_weights(model, WEIGHTS) is model
    assert_as_expected(tensorflow.gradient_flow(model, X, Y))


def test_nested_models_and_activations_as_layers():
    model = sequential(
        keras.Sequential([keras.Input((3,)), Dense(4), Activation("sigmoid")]),
        Dense(4), Activation("sigmoid"), Dense(2),
    )  # fmt: skip
    flow = tensorflow.gradient_flow(tensorflow.load_weights(model, WEIGHTS), X, Y)
    assert flow.depth == 3
    assert_as_expected(flow)


def test_a_layer_without_bias():
    model = sequential(Dense(4, activation="tanh", use_bias=False), Dense(2))
    flow = tensorflow.gradient_flow(model, X, Y)
    assert [b.shape for b in flow.bias_grads] == [(0,), (2,)]
    np.testing.assert_allclose(flow.bias_grads[1], flow.activation_grads[1].sum(axis=0), rtol=1e-5)
    run = tensorflow.train(model, X, Y, loss="mean_squared_error", learning_rate=0.1, steps=2)
    assert run.weight_changes[-1].min() > 0.0


def test_frozen_layers_can_be_measured_but_not_trained():
    model = tensorflow.load_weights(native(), WEIGHTS)
    model.layers[0].trainable = False
    assert_as_expected(tensorflow.gradient_flow(model, X, Y))
    with pytest.raises(ValueError, match=r"`model` \(layer 1 is frozen\)"):
        tensorflow.train(model, X, Y, loss="mean_squared_error", learning_rate=0.1, steps=2)


def test_weights_and_random_states_are_left_as_found():
    random.seed(3)
    expected = random.random()
    random.seed(3)
    tf.random.set_seed(4)
    drawn = tf.random.normal((2,)).numpy()
    tf.random.set_seed(4)
    model = tensorflow.build_mlp(SPEC, WEIGHTS)
    before = [w.copy() for w in model.get_weights()]
    tensorflow.gradient_flow(model, X, Y)
    tensorflow.layer_jacobians(model, X[0])
    for one, two in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, two)
    assert random.random() == expected
    np.testing.assert_array_equal(tf.random.normal((2,)).numpy(), drawn)
    assert keras.config.floatx() == "float32"


def test_the_default_dtype_is_float32():
    model = tensorflow.build_mlp(SPEC, WEIGHTS)
    assert {w.dtype for w in model.get_weights()} == {np.dtype("float32")}


def test_the_dense_kernel_is_the_transpose():
    model = tensorflow.build_mlp(SPEC, WEIGHTS, dtype="float64")
    np.testing.assert_array_equal(model.layers[0].get_weights()[0], WEIGHTS.matrices[0].T)
    names = [layer.activation.__name__ for layer in model.layers]
    assert names == ["sigmoid", "sigmoid", "linear"]


def test_a_float64_model_is_float64_from_the_input_on():
    spec = NetworkSpec(1, 1, 1)
    weights = draw_weights(spec, seed=0)
    model = tensorflow.build_mlp(spec, weights, dtype="float64")
    x = 1.0 + 1e-12  # rounded to 1 by a float32 input
    assert model(np.array([[x]])).numpy()[0, 0] == weights.matrices[0][0, 0] * x


def test_repeated_calls_do_not_warn_of_retracing(caplog):
    model = tensorflow.build_mlp(SPEC, WEIGHTS)
    for steps in (1, 5, 19, 20):
        for _ in range(6):
            tensorflow.layer_jacobians(model, X[0])
            tensorflow.train(model, X, Y, loss="mean_squared_error", learning_rate=0.1, steps=steps)
    assert "retracing" not in caplog.text


def tied():
    layer = Dense(3)
    return sequential(layer, layer)


UNREADABLE = [
    (lambda: Dense(3), TypeError, ["`model` (a Dense)", "keras.Sequential"]),
    (lambda: keras.Sequential([keras.Input((3,))]), ValueError, ["`model`", "at least one Dense"]),
    (lambda: sequential(Activation("relu"), Dense(2)), ValueError, ["layer 0", "is Activation"]),
    (
        lambda: sequential(Dense(2, activation="relu"), Activation("tanh")),
        ValueError,
        ["layer 1", "is Activation with activation tanh", "at most one"],
    ),
    (
        lambda: sequential(Dense(2), Activation("relu"), Activation("tanh")),
        ValueError,
        ["layer 2", "is Activation with activation tanh"],
    ),
    (
        lambda: sequential(Dense(2, activation="softmax")),
        ValueError,
        ["layer 0", "is Dense with activation softmax", "elementwise"],
    ),
    (lambda: sequential(Dense(2), Activation("softmax")), ValueError, ["layer 1", "softmax"]),
    (
        lambda: sequential(Dense(2), keras.layers.BatchNormalization()),
        ValueError,
        ["layer 1", "is BatchNormalization"],
    ),
    (
        lambda: keras.Sequential([Dense(2)]),
        ValueError,
        ["not built", "keras.Input"],
    ),
    (
        lambda: sequential(Dense(2), Dense(2, dtype="float64")),
        ValueError,
        ["layer 2 is float64", "all float32 or all float64"],
    ),
    (
        lambda: sequential(Dense(2, dtype="mixed_float16")),
        ValueError,
        ["layer 1 is float16, float32"],
    ),
    (
        lambda: sequential(Dense(2, dtype="float64")),
        ValueError,
        ["its Input is float32, its layers float64", 'keras.Input(..., dtype="float64")'],
    ),
    (tied, ValueError, ["layer 2 is an earlier layer", "tie"]),
]


@pytest.mark.parametrize(("build", "error", "words"), UNREADABLE)
def test_models_that_cannot_be_read_name_the_layer(build, error, words):
    with pytest.raises(error) as caught:
        tensorflow.gradient_flow(build(), X, Y)
    for word in words:
        assert word in str(caught.value)


def test_load_weights_names_the_layer_that_does_not_fit():
    with pytest.raises(ValueError, match=r"`weights.matrices\[1\]` \(shape \(4, 4\)\) must .* 2"):
        tensorflow.load_weights(sequential(Dense(4), Dense(5), Dense(2)), WEIGHTS)
    with pytest.raises(ValueError, match=r"`weights` \(depth 3\) must have the model's depth 1"):
        tensorflow.load_weights(sequential(Dense(4)), WEIGHTS)
    with pytest.raises(ValueError, match=r"`weights.biases\[0\]` \(not zero\).*layer 1 has no"):
        tensorflow.load_weights(native(use_bias=False), WEIGHTS)
    with pytest.raises(TypeError, match=r"`weights` \(a list\) must be MLPWeights"):
        tensorflow.load_weights(native(), [np.ones((4, 3))])


def test_load_weights_changes_nothing_if_a_layer_does_not_fit():
    model = sequential(Dense(4), Dense(4), Dense(7))
    before = model.layers[0].get_weights()[0].copy()
    with pytest.raises(ValueError, match="layer 3"):
        tensorflow.load_weights(model, WEIGHTS)
    np.testing.assert_array_equal(model.layers[0].get_weights()[0], before)
