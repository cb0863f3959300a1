"""What the inspections of Keras models leave behind, and the inputs that they take."""

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
