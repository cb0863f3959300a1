"""Faults put into small Keras models on purpose, and what `diagnose_model` says of them."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402
from keras import layers  # noqa: E402

from course_lib.tf import diagnose_model  # noqa: E402
from course_lib.tf.trial_weights import find_identical  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 8)).astype("float32"), np.arange(16) % 4
TOKENS = RNG.integers(50, size=(16, 12))
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def residual(*, tokens=False, depth=3):
    """Dense residual blocks behind normalizations, on features or on a table of 50 words."""
    keras.utils.set_random_seed(0)
    x = keras.Input((12,), dtype="int32") if tokens else keras.Input((8,))
    h = layers.Embedding(50, 16)(x) if tokens else layers.Dense(16)(x)
    for k in range(depth):
        n = layers.Dense(32, "gelu", name=f"in{k}")(layers.LayerNormalization()(h))
        h = layers.Add()([h, layers.Dense(16, name=f"out{k}")(n)])
    h = layers.GlobalAveragePooling1D()(h) if tokens else h
    return keras.Model(x, layers.Dense(4, name="head")(layers.LayerNormalization()(h)))


def trial(model, x=X, **options):
    options = {"loss": LOSS, "steps": 3, **options}
    report = diagnose_model(model, x, Y, **options)
    return [(f.severity, f.code, f.where) for f in report.findings if f.severity != "info"]


@pytest.mark.parametrize("tokens", [False, True])
def test_most_matrices_that_are_zero_are_named_beside_a_table_that_is_not(tokens):
    model, x = residual(tokens=tokens), TOKENS if tokens else X
    assert trial(model, x) == []
    dense = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    for layer in dense[:-1]:  # one in five is left
        layer.kernel.assign(0 * layer.kernel)
    assert ("problem", "zero_weights", f"{dense[0].name}/kernel") in trial(model, x)


# Losses that refuse what is not a number ----------------------------------------------------


class Tanh(layers.Layer):
    """A reader's own layer: with it, the steps of a trial are compiled."""

    def call(self, x):
        return tf.nn.tanh(x)


def refuse_eagerly(output, y):
    if tf.executing_eagerly() and not np.all(np.isfinite(output)):
        raise FloatingPointError("the output is not finite")
    return LOSS(y, output)


def refuse_by_an_operation(output, y):
    return LOSS(y, tf.debugging.check_numerics(output, "the output is not finite"))


def dense(own):
    keras.utils.set_random_seed(0)
    end = [Tanh(name="tanh")] if own else [layers.Activation("tanh", name="tanh")]
    return keras.Sequential([keras.Input((8,)), layers.Dense(16, name="a"), *end,
                             layers.Dense(16, "relu", name="b"), layers.Dense(4)])  # fmt: skip


@pytest.mark.parametrize("loss", [refuse_eagerly, refuse_by_an_operation])
@pytest.mark.parametrize("own", [False, True])
def test_a_loss_that_raises_at_what_is_not_finite_ends_the_trial_and_not_the_report(own, loss):
    model = dense(own)
    kernel = model.get_layer("b").kernel.numpy()
    kernel[0, 0] = np.nan
    model.get_layer("b").kernel.assign(kernel)
    before = model.get_weights()
    found = trial(model, loss=loss)
    # Compiled, a matrix product and the ReLU behind it are one kernel, which on some processors
    # turns NaN into 0: then it is the matrix that is named.
    assert found[0][:2] == ("problem", "non_finite")
    assert found[0][2] in (["b, step 0", "b/kernel, step 0"] if own else ["b, step 0"])
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    later = diagnose_model(
        dense(own), X, Y, loss=loss, steps=5, optimizer=keras.optimizers.SGD(1e38)
    )
    assert "stopped there, of 5 steps" in later.subjects[0]
    assert "non_finite" in later.codes


@pytest.mark.parametrize("own", [False, True])
def test_a_loss_that_raises_for_another_reason_is_an_error(own):
    def loss(output, y):
        if not tf.executing_eagerly() or loss.calls:
            raise RuntimeError("another reason")
        loss.calls += 1
        return LOSS(y, output)

    loss.calls = 0
    with pytest.raises(RuntimeError, match="another reason"):
        trial(dense(own), loss=loss)


# The model's own state ----------------------------------------------------------------------


def test_units_drawn_alike_are_named():
    model = residual()
    dense = [layer for layer in model.layers if isinstance(layer, layers.Dense)]
    dense[3].kernel.assign(np.full(dense[3].kernel.shape, 0.1))
    assert "identical_units" not in [code for _, code, _ in trial(model)]  # one alone is harmless
    for layer in dense:
        layer.kernel.assign(np.full(layer.kernel.shape, 0.1))
    assert ("problem", "identical_units", f"{dense[0].name}/kernel") in trial(model)


def test_units_drawn_alike_are_known_in_every_kind_of_layer():
    keras.utils.set_random_seed(0)
    x = keras.Input((6, 8))
    h = layers.LSTM(4, return_sequences=True, name="lstm")(x)
    h = layers.MultiHeadAttention(2, 3, name="attention")(h, h)
    h = layers.Conv1D(5, 2, name="conv")(h)
    model = keras.Model(x, layers.Dense(1, name="single")(h))
    assert find_identical(model) == ([], 7)  # a single unit has no peer
    for weight in model.trainable_weights:
        weight.assign(np.full(weight.shape, 0.1))
    assert len(find_identical(model)[0]) == 7


def test_a_frozen_normalization_without_statistics_is_named():
    keras.utils.set_random_seed(0)
    norms = [layers.BatchNormalization(name=f"norm{k}") for k in range(2)]
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16), norms[0], layers.ReLU(),
                              layers.Dense(16), norms[1], layers.ReLU(),
                              layers.Dense(4)])  # fmt: skip
    assert trial(model) == []
    norms[1].trainable = False
    assert [found[1:] for found in trial(model)] == [("missing_statistics", "norm1")]
    norms[1].moving_mean.assign(np.full(16, 0.1))
    assert trial(model) == []


def test_large_inputs_of_a_layer_that_makes_them_small_are_named():
    small = keras.initializers.RandomNormal(stddev=1e-3)
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(16, kernel_initializer=small),
                              layers.ReLU(), layers.Dense(4)])  # fmt: skip
    assert ("warning", "large_inputs", model.layers[0].name) in trial(model, 300 * X)
