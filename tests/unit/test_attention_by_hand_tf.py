"""Attention written by hand, whose softmax is a function: a trial sees what it does."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
from keras import layers, ops  # noqa: E402

from course_lib.tf import diagnose_model  # noqa: E402

X = np.random.default_rng(0).normal(size=(8, 12, 16)).astype("float32")
SOFTMAX = tf.nn.softmax


class Attention(layers.Layer):
    def __init__(self, softmax, **options):
        super().__init__(**options)
        self.query, self.key, self.value = (layers.Dense(64) for _ in range(3))
        self.softmax, self.factor = softmax, 1 / 8  # 1 / sqrt(d)

    def call(self, x):
        q, k, v = self.query(x), self.key(x), self.value(x)
        scores = self.factor * tf.einsum("btd,bsd->bts", q, k)
        return tf.einsum("bts,bsd->btd", self.softmax(scores), v)


@pytest.mark.parametrize("softmax", [lambda s: tf.nn.softmax(s), lambda s: ops.softmax(s, axis=-1)],
                         ids=["tf", "keras"])  # fmt: skip
@pytest.mark.parametrize("sharp", [False, True])
def test_rows_that_have_settled_on_one_position(softmax, sharp):
    keras.utils.set_random_seed(0)
    inputs = layers.Input((12, 16))
    attention = Attention(softmax, name="own")
    h = layers.Dense(9, "softmax")(attention(layers.LayerNormalization()(inputs)))  # an answer
    model = keras.Model(inputs, h)
    if sharp:
        attention.factor = 8.0  # multiplied by sqrt(d), where it should be divided
    report = diagnose_model(model, X, np.arange(96).reshape(8, 12) % 9, steps=2,
                            loss="sparse_categorical_crossentropy")  # fmt: skip
    found = [(f.code, f.where) for f in report.findings if f.severity != "info"]
    assert found == ([("saturated_attention", "own")] if sharp else [])
    assert tf.nn.softmax is SOFTMAX
