"""Matrices out of scale in layers of a reader's own that hold several: named, and tables are not.

Only Keras's side; `test_matrix_uses_pytorch.py` has the rest.
"""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
from keras import layers, ops  # noqa: E402

from course_lib.tf import diagnose_model  # noqa: E402

WIDTH, LENGTH = 32, 32
RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(8, LENGTH, 8)).astype("float32"), np.arange(8) % 5
CROSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


class Attention(layers.Layer):
    """All matrices in one layer, with a table of positions."""

    def build(self, shape):
        draw = keras.initializers.RandomNormal
        for name in ("q", "k", "v", "out"):
            weight = self.add_weight(shape=(WIDTH, WIDTH), initializer=draw(stddev=STD), name=name)
            setattr(self, name, weight)
        self.table = self.add_weight(shape=(LENGTH, WIDTH), initializer=draw(stddev=1.0),
                                     name="table")  # fmt: skip

    def call(self, x):
        x = x + self.table
        q, k, v = x @ self.q, x @ ops.transpose(self.k), ops.einsum("blk,kd->bld", x, self.v)
        rows = ops.softmax(q @ ops.swapaxes(k, 1, 2) / WIDTH**0.5)
        return x + rows @ v @ self.out


class Cell(layers.Layer):
    """A recurrent cell, for `keras.layers.RNN`."""

    state_size = output_size = WIDTH

    def build(self, shape):
        for name in ("w", "u"):
            draw = keras.initializers.RandomNormal(stddev=STD)
            setattr(self, name, self.add_weight(shape=(WIDTH, WIDTH), initializer=draw, name=name))

    def call(self, x, states):
        h = ops.tanh(x @ self.w + states[0] @ self.u)
        return h, [h]


STD = WIDTH**-0.5


def network(layer):
    keras.utils.set_random_seed(0)
    return keras.Sequential([
        layers.Input((LENGTH, 8)), layers.Dense(WIDTH, "relu"), layers.Dense(WIDTH), layer,
        layers.Dense(5),
    ])  # fmt: skip


def found(model):
    report = diagnose_model(model, X, Y, steps=2,
                            loss=lambda o, y: CROSS(y, ops.mean(o, axis=1)))  # fmt: skip
    return [f.where for f in report.findings
            if f.code == "rescaled_layer" and f.severity != "info"]  # fmt: skip


@pytest.mark.parametrize("own", ["", "q", "k", "v", "out", "table"])
def test_one_of_several_matrices_times_100_is_named(own):
    layer = Attention()
    model = network(layer)
    if own:
        getattr(layer, own).assign(100 * getattr(layer, own))
    wanted = [f"{layer.name}/{own}"] if own not in ("", "table") else []
    assert found(model) == wanted


@pytest.mark.parametrize("own", ["", "w", "u"])
def test_one_of_two_matrices_of_a_cell_times_100_is_named(own):
    cell = Cell()
    model = network(layers.RNN(cell, return_sequences=True))
    if own:
        getattr(cell, own).assign(100 * getattr(cell, own))
    places = found(model)
    assert [p for p in places if p.endswith(f"/{own}")] == places
    assert bool(places) == bool(own)
