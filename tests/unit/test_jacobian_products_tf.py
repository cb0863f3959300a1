"""Jacobians of Keras models from copies of one input: what one row after the other says."""

import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf
from keras import layers

from course_lib import tf as course_tf
from course_lib.tf import copies, jacobian_products
from course_lib.tf.undisturbed import undisturbed

VECTOR, SEQUENCE, IMAGE = (6,), (5, 6), (6, 6, 2)


def trained(*shape):
    """A batch normalization with other statistics than at first."""
    norm = layers.BatchNormalization()
    norm.build((None, *shape))
    for weight in norm.weights:
        weight.assign(tf.random.stateless_uniform(weight.shape, [1, 2], 0.5, 2.0))
    return norm


def sequential(*parts):
    return lambda: keras.Sequential([part() for part in parts])


def functional(shape, function):
    def build():
        x = keras.Input(shape, dtype=keras.config.dtype_policy().compute_dtype)
        return keras.Model(x, function(x))

    return build


class Called(keras.Model):
    """A model whose call is a function, which may be one of TensorFlow's own."""

    def __init__(self, function):
        super().__init__()
        self.dense, self.function = layers.Dense(6), function

    def call(self, x):
        return self.function(self.dense(x))


def attention(x):
    return layers.MultiHeadAttention(2, 3)(x, x)


def shared(x):
    layer = layers.Dense(6, "relu")
    return layers.Add()([x, layer(layer(layer(x)))])


@tf.custom_gradient
def steep(x):
    return x**3, lambda gradient: 3 * gradient * x**2


TOGETHER = {
    "dense": (sequential(lambda: layers.Dense(9, "tanh"), lambda: layers.Dense(4)), VECTOR),
    "convolution": (sequential(
        lambda: layers.Conv2D(4, 3, padding="same"), layers.ReLU, layers.MaxPooling2D,
        lambda: layers.DepthwiseConv2D(2, activation="gelu"), layers.Flatten), IMAGE),
    "transposed convolution": (sequential(lambda: layers.Conv2DTranspose(3, 2, 2)), IMAGE),
    "batch norm": (sequential(lambda: trained(6, 6, 2), lambda: layers.Conv2D(3, 2)), IMAGE),
    "layer norm": (sequential(layers.LayerNormalization, lambda: layers.Dense(3)), SEQUENCE),
    "rnn": (sequential(lambda: layers.SimpleRNN(5, return_sequences=True)), SEQUENCE),
    "lstm": (sequential(lambda: layers.Bidirectional(layers.LSTM(5))), SEQUENCE),
    "gru": (sequential(lambda: layers.GRU(5)), SEQUENCE),
    "attention": (functional(SEQUENCE, attention), SEQUENCE),
    "shared": (functional(VECTOR, shared), VECTOR),
    "always dropout off": (sequential(lambda: layers.Dropout(0.5), lambda: layers.Dense(3)),
                           VECTOR),
    "custom gradient": (lambda: Called(steep), VECTOR),
    "control flow": (lambda: Called(lambda h: tf.sin(h) if h[0, 0] > 0 else h**3), VECTOR),
    "gathered": (lambda: Called(lambda h: tf.gather(h, [0, 0, 4], axis=1)), VECTOR),
    "many outputs": (sequential(lambda: layers.Dense(3, "tanh"), lambda: layers.Dense(40)),
                     VECTOR),
}  # fmt: skip


def double_batch(h):
    """What only the whole batch makes: a normalization with its own statistics."""
    mean, variance = tf.nn.moments(h, 0)
    return tf.nn.batch_normalization(h, mean, variance, None, None, 1.0)


class Noisy(keras.Model):
    """Multiplies by numbers drawn anew at every call."""

    def __init__(self):
        super().__init__()
        self.dense, self.seeds = layers.Dense(6), keras.random.SeedGenerator(3)

    def call(self, x):
        h = self.dense(x)
        h = h * keras.random.uniform(tf.shape(h), dtype=h.dtype, seed=self.seeds)
        return h * tf.random.uniform([6], dtype=h.dtype)


@tf.custom_gradient
def clipping(x):
    return x + 0, lambda gradient: tf.clip_by_value(gradient, -0.5, 0.5)


class Single(keras.Model):
    """Takes no more than one input at a time."""

    def call(self, x):
        return tf.sin(tf.reshape(x, [1, 6]))


ALONE = {
    "batch statistics": (lambda: Called(double_batch), VECTOR),
    "mean over the batch": (lambda: Called(lambda h: h * tf.reduce_sum(h, 0)), VECTOR),
    "random": (Noisy, VECTOR),
    "not linear backwards": (lambda: Called(clipping), VECTOR),
    "function of its own": (lambda: Called(tf.function(lambda h: tf.sin(h))), VECTOR),
    "one at a time": (Single, VECTOR),
}


def build(name, table, dtype="float64"):
    make, shape = table[name]
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(dtype)
    try:
        model = make()
        x = np.random.default_rng(1).standard_normal(shape)
        model(tf.cast(x[None], model.compute_dtype))
    finally:
        keras.config.set_dtype_policy("float32")
    return model, x


def by_rows(model, x):
    """Return the Jacobian of one row after the other, by TensorFlow's own `jacobian`."""
    given = tf.cast(x[None], model.compute_dtype)
    with undisturbed(model):
        (matrix,) = jacobian_products._jacobians_by_rows(model, [model], given)
    return matrix


def taken(shape):
    return "columns" if shape[0] >= 2 * shape[1] else "rows"


@pytest.fixture
def used(monkeypatch):
    """Which way was taken: what was done with copies, and whether rows went alone."""
    noted = []
    for owner, name in [
        (copies.Copies, "rows"), (copies.Copies, "columns"), (copies.Copies, "push"),
        (jacobian_products, "_jacobians_by_rows"), (jacobian_products, "_forward_product"),
    ]:  # fmt: skip
        monkeypatch.setattr(owner, name, noting(noted, name, getattr(owner, name)))
    return noted


def noting(noted, name, function):
    def call(*args, **options):
        noted.append(name)
        return function(*args, **options)

    return call


@pytest.mark.parametrize("name", TOGETHER)
def test_rows_together_are_the_rows_one_by_one(name, used):
    model, x = build(name, TOGETHER)
    before = [v.numpy() for v in model.variables]
    expected = np.linalg.svd(by_rows(model, x), compute_uv=False)
    used.clear()
    found = course_tf.jacobian_spectrum(model, x)
    assert used == [taken(found.shape)]
    # The same operations in float64, on more rows at a time.
    np.testing.assert_allclose(found.singular_values, expected, atol=1e-13 * expected[0])
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


SEVERAL = ("dense", "convolution", "layer norm", "gru", "attention", "many outputs")


@pytest.mark.parametrize(("name", "dtype"), [
    (name, dtype) for name in SEVERAL for dtype in ("float32", "mixed_float16", "bfloat16")
    if (name, dtype) != ("gru", "bfloat16")  # has no orthogonal matrix to begin with
])  # fmt: skip
def test_in_other_precisions_too(name, dtype, used):
    model, x = build(name, TOGETHER, dtype)
    matrix = by_rows(model, x)
    used.clear()
    found = course_tf.jacobian_spectrum(model, x)
    assert used == [taken(found.shape)]
    eps = {"float32": 2.0**-23, "float16": 2.0**-10, "bfloat16": 2.0**-7}[found.dtype]
    # Each of a handful of operations rounds once, in another order.
    off = 16 * eps * np.linalg.norm(matrix)
    expected = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(found.singular_values, expected, atol=off)


@pytest.mark.parametrize("name", TOGETHER)
def test_vectors_go_together_too(name, used):
    model, x = build(name, TOGETHER)
    matrix = by_rows(model, x)
    rank, expected = min(matrix.shape), np.linalg.svd(matrix, compute_uv=False)
    used.clear()
    found = course_tf.jacobian_spectrum(model, x, method="randomized", rank=rank, iterations=1)
    assert used == ["push", "push"]
    np.testing.assert_allclose(found.singular_values, expected, atol=1e-12 * expected[0])


@pytest.mark.parametrize(("name", "method"), [
    (name, method) for name in ALONE for method in ("exact", "randomized")
    if (name, method) != ("not linear backwards", "randomized")  # products are of another map
])  # fmt: skip
def test_what_cannot_go_together_goes_alone(name, method, used):
    model, x = build(name, ALONE)
    expected = np.linalg.svd(by_rows(model, x), compute_uv=False)
    used.clear()
    found = course_tf.jacobian_spectrum(model, x, method=method, rank=6, iterations=1)
    assert used[-1] == "_jacobians_by_rows" if method == "exact" else "_forward_product" in used
    np.testing.assert_allclose(found.singular_values, expected, atol=1e-12 * expected[0])


def test_the_product_goes_together_stage_by_stage(used):
    model, x = build("convolution", TOGETHER)
    exact = course_tf.jacobian_spectrum(model, x).singular_values
    used.clear()
    found = course_tf.jacobian_spectrum(model, x, method="product").singular_values
    assert used == ["columns", *["rows"] * 4]  # four times as many numbers behind the first
    np.testing.assert_allclose(found, exact, atol=1e-12 * exact[0])


def test_a_stage_that_draws_is_the_same_function_in_the_product():
    keras.utils.set_random_seed(0)

    class Additive(layers.Layer):
        def call(self, x):
            return x + tf.random.uniform(tf.shape(x))

    model = keras.Sequential([keras.Input((6,)), Additive(), layers.Dense(6, "tanh"), Additive(),
                              layers.Dense(6, "tanh")])  # fmt: skip
    x = np.ones(6, np.float32)
    exact, product = (
        course_tf.jacobian_spectrum(model, x, method=m).singular_values
        for m in ("exact", "product")
    )
    np.testing.assert_allclose(product, exact, rtol=1e-5)  # a few roundings of float32


def test_weights_do_not_count_and_a_function_of_its_own_counts_as_any_number():
    dense, x = layers.Dense(100), tf.ones([1, 1000])
    dense(x)
    with copies.counting_bytes() as noted:
        dense(x)
    assert sum(noted) == 2 * 400  # the product, and with the biases
    for function in (tf.function(tf.sin), tf.function(lambda h: tf.cos(h))):
        for _ in range(2):  # the first traces it
            with copies.counting_bytes() as noted:
                function(x)
            assert sum(noted) == np.inf
    with copies.counting_bytes() as noted:
        pass
    dense(x)
    assert noted == []


def test_a_model_of_many_bytes_takes_few_copies_and_a_larger_one_none(used):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((16,)), layers.Dense(100_000), layers.Dense(20)])
    spectrum = course_tf.jacobian_spectrum(model, np.ones(16, np.float32))
    assert used == ["rows"]  # 0.8 MB and their gradients, twenty times
    wide = keras.Sequential([
        keras.Input((16,)), layers.Dense(16), layers.RepeatVector(300_000),
        layers.GlobalAveragePooling1D(),
    ])  # fmt: skip
    used.clear()
    spectrum = course_tf.jacobian_spectrum(wide, np.ones(16, np.float32))
    assert used == ["_jacobians_by_rows"]  # 19 MB each
    expected = np.linalg.svd(wide.layers[0].kernel.numpy(), compute_uv=False)
    np.testing.assert_allclose(spectrum.singular_values, expected, rtol=1e-2)  # a long sum


MEMORY = """
import resource, keras, numpy as np
from keras import layers
from course_lib.tf import jacobian_spectrum

model = keras.Sequential([keras.Input((128,)), layers.RepeatVector(1 << 12),
                          layers.Activation("softplus"), layers.Activation("tanh"),
                          layers.GlobalAveragePooling1D()])
small = keras.Sequential([keras.Input((128,)), layers.Activation("softplus")])
jacobian_spectrum(small, np.zeros(128))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
jacobian_spectrum(model, np.linspace(0, 1, 128))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Counts in KB on Linux.")
def test_large_activations_are_not_held_for_all_rows():
    """For 128 rows it would be a quarter of a gigabyte for each operation."""
    command = [sys.executable, "-c", MEMORY]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 400
