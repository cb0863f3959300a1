"""Inspections of Keras models that draw random numbers in evaluation mode, as autoencoders do."""

import random

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf
from keras import layers
from keras.src.backend.common import global_state

from course_lib.tf import bptt_gradient_profile, dead_units, jacobian_spectrum, saturation

X = np.linspace(-1.0, 1.0, 8 * 6, dtype=np.float32).reshape(8, 6)
SEQUENCES = np.sin(np.arange(3 * 7 * 6, dtype=np.float32)).reshape(3, 7, 6)
GENERATOR = tf.random.Generator.from_seed(3)
DRAWS = {
    "tf.random.normal": lambda layer, size: tf.random.normal([size]),
    "tf.random.normal, seeded": lambda layer, size: tf.random.normal([size], seed=4),
    "tf.random.uniform": lambda layer, size: tf.random.uniform([size], 1.0, 2.0),
    "tf.random.uniform of integers": lambda layer, size: tf.cast(
        tf.random.uniform([size], 1, 9, tf.int32), tf.float32
    ),
    "tf.random.truncated_normal": lambda layer, size: tf.random.truncated_normal([size]),
    "tf.random.shuffle": lambda layer, size: tf.random.shuffle(tf.range(1.0, size + 1.0)),
    "tf.random.categorical": lambda layer, size: tf.cast(
        1 + tf.random.categorical(tf.zeros([1, 8]), size)[0], tf.float32
    ),
    "tf.random.gamma": lambda layer, size: tf.random.gamma([size], 2.0),
    "tf.random.poisson": lambda layer, size: 1 + tf.random.poisson([size], 2.0),
    "tf.nn.dropout": lambda layer, size: tf.nn.dropout(tf.ones([size]), 0.5) + 0.1,
    "tf.random.Generator": lambda layer, size: GENERATOR.normal([size]),
    "keras.random": lambda layer, size: keras.random.normal([size]),
    "SeedGenerator": lambda layer, size: keras.random.normal([size], seed=layer.generator),
}


class Noise(layers.Layer):
    """Multiplies by factors drawn anew at every call, in both modes."""

    def __init__(self, draw: str) -> None:
        super().__init__()
        self.draw, self.generator = DRAWS[draw], keras.random.SeedGenerator(5)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return x * 3 * self.draw(self, x.shape[-1])


def perceptron(draw: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6,)), layers.Dense(6), Noise(draw), layers.Activation("tanh"),
            layers.Dense(4), Noise(draw),
        ]
    )  # fmt: skip


def reader(draw: str) -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((7, 6)), Noise(draw), layers.GRU(5)])


def spectrum(model: keras.Model, method: str) -> np.ndarray:
    return jacobian_spectrum(model, X[0], method=method, rank=4, iterations=2).singular_values


INSPECTIONS = {
    "dead_units": (perceptron, lambda m: dead_units(m, X, batch_size=3).layers[0].flat),
    "saturation": (perceptron, lambda m: list(saturation(m, X).values())),
    "exact": (perceptron, lambda m: spectrum(m, "exact")),
    "randomized": (perceptron, lambda m: spectrum(m, "randomized")),
    "product": (perceptron, lambda m: spectrum(m, "product")),
    "profile": (
        reader,
        lambda m: next(iter(bptt_gradient_profile(m, SEQUENCES).values())).log10_norms,
    ),
}


def next_draws() -> list[np.ndarray]:
    """Return what each of the reader's own generators gives next."""
    return [
        np.array(random.random()),
        *(draw(tf.random.normal) for draw in (drawn, drawn_seeded, drawn_in_graph)),
        keras.random.normal([3]).numpy(),
        GENERATOR.normal([3]).numpy(),
    ]


def drawn(draw: object) -> np.ndarray:
    return draw([3]).numpy()


def drawn_seeded(draw: object) -> np.ndarray:
    return draw([3], seed=4).numpy()


@tf.function
def in_graph() -> tf.Tensor:
    return tf.random.normal([3])


def drawn_in_graph(draw: object) -> np.ndarray:
    return in_graph().numpy()


def seed_all(seed: int) -> None:
    global_state.set_global_attribute("global_seed_generator", None)  # older Keras keeps it
    keras.utils.set_random_seed(seed)
    GENERATOR.reset_from_seed(seed)


@pytest.mark.parametrize(
    ("name", "draw"),
    [
        *((name, draw) for name in ("exact", "dead_units") for draw in DRAWS),
        *(
            (name, "tf.random.normal")
            for name in INSPECTIONS
            if name not in ("exact", "dead_units")
        ),
        *((name, "SeedGenerator") for name in INSPECTIONS if name not in ("exact", "dead_units")),
    ],
)
def test_what_is_found_neither_depends_on_the_readers_generators_nor_moves_them(name, draw):
    build, inspect = INSPECTIONS[name]
    model, found = build(draw), []
    generators = [layer.generator for layer in model.layers if isinstance(layer, Noise)]
    for seed in (1, 2):
        seed_all(seed)
        first, expected = next_draws(), next_draws()
        seed_all(seed)
        for ours, theirs in zip(next_draws(), first, strict=True):
            np.testing.assert_array_equal(ours, theirs)
        for generator in generators:
            generator.state.assign([seed, 7])
        before = [generator.state.numpy() for generator in generators]
        found.append(inspect(model))
        for generator, state in zip(generators, before, strict=True):
            np.testing.assert_array_equal(generator.state.numpy(), state)
        for ours, theirs in zip(next_draws(), expected, strict=True):
            np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("method", ["randomized", "product"])
@pytest.mark.parametrize("draw", DRAWS)
def test_every_pass_of_every_method_sees_the_same_function(draw, method):
    model = perceptron(draw)
    exact, found = (jacobian_spectrum(model, X[0], method=m, rank=4) for m in ("exact", method))
    # All four singular values are asked for: what is left is float32's rounding.
    np.testing.assert_allclose(
        found.singular_values, exact.singular_values, rtol=1e-4, atol=exact.noise_floor
    )


@pytest.mark.parametrize("draw", DRAWS)
def test_two_draws_of_one_pass_differ(draw):
    """The factors of the first layer of noise are not those of the second."""
    keras.utils.set_random_seed(0)
    first, second = Noise(draw), Noise(draw)
    x = keras.Input((6,))
    model = keras.Model(x, layers.Subtract()([first(x), second(x)]))
    assert jacobian_spectrum(model, X[0]).singular_values[0] > 0.1


@pytest.mark.parametrize("draw", ["tf.random.normal", "tf.random.Generator"])
@pytest.mark.parametrize("inspect", [dead_units, lambda model, x: jacobian_spectrum(model, x[0])])
def test_a_function_of_the_readers_that_is_traced_meanwhile_goes_on_drawing(draw, inspect):
    class Compiled(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.noise, self.slope = Noise(draw), layers.Activation("tanh")

        @tf.function
        def call(self, x: tf.Tensor) -> tf.Tensor:
            return self.slope(self.noise(x))

    model = Compiled()
    inspect(model, X[:1])
    assert not np.array_equal(model(X[:1]), model(X[:1]))


def test_inside_a_loop_in_a_graph_too_every_pass_draws_the_same():
    class Cell(layers.SimpleRNNCell):
        def call(self, x: tf.Tensor, states: list, training: bool = False) -> tuple:
            return super().call(x * tf.random.uniform([6], 1.0, 3.0), states, training)

    model = keras.Sequential([keras.Input((7, 6)), layers.RNN(Cell(4))])
    exact, found = (
        jacobian_spectrum(model, SEQUENCES[0], method=method, rank=4)
        for method in ("exact", "randomized")
    )
    np.testing.assert_allclose(
        found.singular_values, exact.singular_values, rtol=1e-4, atol=exact.noise_floor
    )
    again = jacobian_spectrum(model, SEQUENCES[0])
    np.testing.assert_array_equal(again.singular_values, exact.singular_values)


def test_keras_own_generator_is_not_made_in_passing():
    def make(inspects: bool) -> np.ndarray:
        keras.utils.clear_session()
        model = perceptron("keras.random")
        global_state.set_global_attribute("global_seed_generator", None)
        random.seed(3)
        if inspects:
            dead_units(model, X)
        return keras.random.normal([3]).numpy()

    np.testing.assert_array_equal(make(True), make(False))
