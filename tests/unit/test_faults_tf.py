"""Faults put into small Keras models on purpose, and what `diagnose_model` says of them."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
import keras  # noqa: E402
from keras import layers  # noqa: E402

from course_lib.tf import diagnose_model  # noqa: E402

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
