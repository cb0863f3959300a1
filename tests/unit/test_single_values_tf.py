"""A layer normalization over one value, as in a well-known example: it gives its shift alone."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
pytest.importorskip("tensorflow")
from keras import layers  # noqa: E402

from course_lib.tf import diagnose_model  # noqa: E402


def series(channels):
    """A transformer for series whose blocks are as wide as their input, as keras.io shows it."""
    keras.utils.set_random_seed(0)
    inputs = h = layers.Input((12, channels))
    for k in range(2):
        a = layers.MultiHeadAttention(2, 8)(h, h)
        h = h + layers.LayerNormalization(epsilon=1e-6, name=f"first{k}")(a)
        f = layers.Conv1D(channels, 1)(layers.Conv1D(4, 1, activation="relu")(h))
        h = h + layers.LayerNormalization(epsilon=1e-6, name=f"second{k}")(f)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(h)))


@pytest.mark.parametrize("channels", [1, 8])
def test_a_normalization_over_one_value_is_named(channels):
    x = np.random.default_rng(0).normal(size=(16, 12, channels)).astype("float32")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    report = diagnose_model(series(channels), x, np.arange(16) % 2, loss=loss, steps=3)
    if channels == 8:
        assert [f.code for f in report.findings if f.severity != "info"] == []
        return
    first = report.findings[0]
    assert (first.code, first.severity, first.where) == ("normalized_away", "problem", "first0")
    assert first.what.startswith("4 of 4 layer normalizations")
