"""What the inspections of Keras models leave behind, and the inputs that they take."""

import time

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf
from keras import layers

from course_lib import tf as course_tf

ROWS = np.random.default_rng(0).standard_normal((16, 4)).astype(np.float32)


def small_model() -> keras.Model:
    return keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu"), layers.Dense(2)])


def test_looking_at_one_model_after_another_warns_of_nothing(caplog):
    logger = tf.get_logger()
    logger.addHandler(caplog.handler)
    try:
        for _ in range(7):  # TensorFlow warns at the fifth
            course_tf.dead_units(small_model(), ROWS)
            course_tf.jacobian_spectrum(small_model(), ROWS[0])
    finally:
        logger.removeHandler(caplog.handler)
    assert [record.getMessage() for record in caplog.records] == []


@pytest.mark.parametrize("pack", [dict, tuple])
def test_a_model_of_two_inputs_is_counted_as_one_of_both_side_by_side(pack):
    left, right = keras.Input((2,), name="left"), keras.Input((2,), name="right")
    hidden = layers.Dense(8, "relu", name="hidden")
    outputs = hidden(layers.Concatenate()([left, right]))
    parts = {"left": ROWS[:, :2], "right": ROWS[:, 2:]}
    inputs = {"left": left, "right": right} if pack is dict else [left, right]
    split = keras.Model(inputs, outputs)
    whole = keras.Sequential([keras.Input((4,)), layers.Dense(8, "relu", name="hidden")])
    whole.layers[0].set_weights(hidden.get_weights())
    given = parts if pack is dict else tuple(parts.values())
    found, expected = course_tf.dead_units(split, given), course_tf.dead_units(whole, ROWS)
    (one,), (other,) = found.layers, expected.layers
    assert found.inputs == expected.inputs == len(ROWS)
    np.testing.assert_array_equal(one.active, other.active)


class AsksForValues(keras.Model):
    """A model that runs eagerly and cannot be traced: it decides by a value, or reads one."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.dense = how, layers.Dense(3)

    def call(self, x: tf.Tensor) -> tf.Tensor:
        if self.how == "decides":
            return self.dense(x) if tf.reduce_sum(x) > 0 else -self.dense(x)
        read = x.numpy() if self.how == "reads" else np.asarray(x)
        return self.dense(x) * float(read[0, 0])


@pytest.mark.parametrize("how", ["decides", "reads", "converts"])
def test_what_runs_eagerly_only_has_an_exact_jacobian(how):
    model, x = AsksForValues(how), np.ones(4, np.float32)
    found = course_tf.jacobian_spectrum(model, x).singular_values
    expected = np.linalg.svd(model.dense.kernel.numpy().T, compute_uv=False)
    np.testing.assert_allclose(found, expected, rtol=1e-5)  # a few roundings of float32


def test_a_row_of_the_exact_jacobian_costs_the_same_among_many():
    def seconds(outputs: int) -> float:
        model = keras.Sequential([keras.Input((16,)), layers.Dense(16, "tanh"),
                                  layers.Dense(outputs)])  # fmt: skip
        spent = []
        for _ in range(3):
            start = time.process_time()
            course_tf.jacobian_spectrum(model, np.ones(16, np.float32))
            spent.append(time.process_time() - start)
        return min(spent)

    assert seconds(256) < 4 * seconds(64)


def test_parts_with_different_first_axes_are_run_at_once():
    class Graph(keras.Model):
        def __init__(self):
            super().__init__()
            self.own, self.head = keras.layers.Dense(8, "relu"), keras.layers.Dense(2)

        def call(self, inputs):
            nodes, edges = inputs
            near = tf.math.unsorted_segment_sum(tf.gather(nodes, edges[:, 0]), edges[:, 1], 10)
            return self.head(self.own(near))

    keras.utils.set_random_seed(0)
    model, nodes = Graph(), np.random.default_rng(0).normal(size=(10, 4)).astype("float32")
    edges = np.stack([np.arange(30) % 10, np.arange(30) // 3], axis=1)
    model((nodes, edges))
    near = np.zeros_like(nodes)
    np.add.at(near, edges[:, 1], nodes[edges[:, 0]])
    (layer,) = course_tf.dead_units(model, (nodes, edges), batch_size=2).layers
    np.testing.assert_allclose(layer.active, (model.own(near).numpy() > 0).mean(0))
