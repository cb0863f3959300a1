"""A loss of probabilities that is given logits, and a softmax over one unit."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
from keras import layers  # noqa: E402

from course_lib.tf import diagnose_model  # noqa: E402

X = np.random.default_rng(0).normal(size=(32, 16)).astype("float32")
Y = np.arange(32) % 4
HOT = np.eye(4, dtype="float32")[Y]
ONE = HOT[:, :1]


def told(loss, targets, units=4, last=None):
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((16,)), layers.Dense(32, "relu"),
                              layers.Dense(units, last, name="head")])  # fmt: skip
    report = diagnose_model(model, X, targets, loss=loss, steps=2)
    return [(f.code, f.where) for f in report.problems]


@pytest.mark.parametrize(("loss", "targets", "units"), [
    ("sparse_categorical_crossentropy", Y, 4), ("categorical_crossentropy", HOT, 4),
    ("binary_crossentropy", ONE, 1),
    ("mean_squared_logarithmic_error", ONE, 1),
])  # fmt: skip
def test_logits_for_a_loss_of_probabilities(loss, targets, units):
    assert told(loss, targets, units) == [("missing_activation", "head")]
    assert told(loss, targets, units, "sigmoid" if units == 1 else "softmax") == []


@pytest.mark.parametrize(("loss", "targets"), [
    (keras.losses.SparseCategoricalCrossentropy(from_logits=True), Y),
    (keras.losses.CategoricalCrossentropy(from_logits=True), HOT), ("mse", HOT), ("mae", HOT),
    ("hinge", HOT), ("squared_hinge", 2 * HOT - 1), ("cosine_similarity", HOT),
    ("huber", HOT), ("log_cosh", HOT), ("categorical_hinge", HOT),
    (keras.losses.BinaryCrossentropy(from_logits=True), HOT),
    (lambda o, y: tf.reduce_mean(tf.square(tf.nn.relu(0.2 + o)) * y), HOT),
])  # fmt: skip
def test_losses_that_take_negative_outputs(loss, targets):
    assert told(loss, targets) == []


@pytest.mark.filterwarnings("ignore")  # Keras says so itself
def test_a_softmax_over_one_unit():
    assert told("binary_crossentropy", ONE, 1, "softmax")[0] == ("constant_output", "head")
    own = lambda o, y: tf.reduce_mean(tf.square(o - y))  # noqa: E731
    assert ("constant_output", "head") in told(own, ONE, 1, "softmax")
