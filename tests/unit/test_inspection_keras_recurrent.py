"""Inspections of Keras models that hold recurrent layers."""

import itertools

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf
from keras import layers

from course_lib.tf import (
    bptt_gradient_profile,
    dead_units,
    diagnose_model,
    jacobian_spectrum,
)

SEQUENCES = np.random.default_rng(0).standard_normal((3, 7, 5)).astype(np.float32)
FILMS = np.random.default_rng(1).standard_normal((3, 4, 6, 6, 1)).astype(np.float32)
KINDS = {
    "SimpleRNN": lambda **options: layers.SimpleRNN(6, **options),
    "LSTM": lambda **options: layers.LSTM(6, **options),
    "GRU": lambda **options: layers.GRU(6, **options),
    "backwards": lambda **options: layers.GRU(6, go_backwards=True, **options),
    "Bidirectional": lambda **options: layers.Bidirectional(layers.LSTM(6, **options)),
    "RNN of cells": lambda **options: layers.RNN(
        [layers.LSTMCell(6), layers.GRUCell(4)], **options
    ),
    "ConvLSTM2D": lambda **options: layers.ConvLSTM2D(3, 3, **options),
}


def reader(kind: str, *, batch_size: int | None = None, **options) -> tuple[keras.Model, object]:
    """Return a model that reads sequences, or films, and three inputs for it."""
    keras.utils.set_random_seed(0)
    inputs = FILMS if kind == "ConvLSTM2D" else SEQUENCES
    model = keras.Sequential(
        [
            keras.Input(inputs.shape[1:], batch_size=batch_size),
            KINDS[kind](**options),
            layers.Flatten(),
            layers.Dense(4, "tanh"),
        ]
    )
    return model, inputs


@pytest.mark.parametrize("kind", KINDS)
def test_the_randomized_method_finds_all_singular_values_of_a_recurrent_network(kind):
    model, inputs = reader(kind)
    exact = jacobian_spectrum(model, inputs[0]).singular_values
    found = jacobian_spectrum(model, inputs[0], method="randomized", iterations=2)
    # The rank covers all four, so that nothing is left out: what remains is float32's rounding.
    np.testing.assert_allclose(found.singular_values, exact, rtol=1e-4)


def states(model: keras.Model) -> list[np.ndarray]:
    """Return what the stateful layers of a model remember."""
    layer = model.layers[0]
    parts = [getattr(layer, "forward_layer", layer), getattr(layer, "backward_layer", None)]
    kept = [part.states for part in parts if part is not None]
    return [state.numpy() for state in keras.tree.flatten(kept)]


INSPECTIONS = {
    "dead_units": lambda m, x: [layer.flat for layer in dead_units(m, x, batch_size=2).layers],
    "exact": lambda m, x: jacobian_spectrum(m, x[0]).singular_values,
    "product": lambda m, x: jacobian_spectrum(m, x[0], method="product").singular_values,
    "randomized": lambda m, x: (
        jacobian_spectrum(m, x[0], method="randomized", iterations=1).singular_values
    ),
}


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *itertools.product(
            ["LSTM", "Bidirectional", "RNN of cells", "ConvLSTM2D"], ["dead_units", "exact"]
        ),
        ("LSTM", "product"),
        ("LSTM", "randomized"),
    ],
)
def test_a_stateful_layer_is_inspected_from_zero_and_keeps_its_states(kind, name):
    model, inputs = reader(kind, batch_size=3, stateful=True)
    fresh, _ = reader(kind)  # the same weights, and no memory
    model(inputs)
    before = states(model)
    assert all(np.any(state) for state in before)
    found = INSPECTIONS[name](model, inputs)
    assert len(found) > 0
    for now, then in zip(states(model), before, strict=True):
        np.testing.assert_array_equal(now, then)
    for ours, theirs in zip(found, INSPECTIONS[name](fresh, inputs), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)  # float32's rounding
    model(inputs)  # it goes on remembering
    assert not all(np.array_equal(a, b) for a, b in zip(states(model), before, strict=True))


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU", "Bidirectional"])
def test_a_profile_of_a_stateful_layer_keeps_its_states(kind):
    model, inputs = reader(kind, batch_size=3, stateful=True)
    model(inputs)
    before = states(model)
    found = bptt_gradient_profile(model, inputs)
    for now, then in zip(states(model), before, strict=True):
        np.testing.assert_array_equal(now, then)
    expected = bptt_gradient_profile(reader(kind)[0], inputs)
    for ours, theirs in zip(found.values(), expected.values(), strict=True):
        np.testing.assert_allclose(ours.log10_norms, theirs.log10_norms, rtol=1e-5)


def test_a_model_that_remembers_is_put_back_after_an_error_too():
    def end(x: tf.Tensor) -> tf.Tensor:
        if ended:
            raise RuntimeError("ended")
        return x

    ended = []
    model, inputs = reader("LSTM", batch_size=3, stateful=True)
    model.add(layers.Lambda(end))
    model(inputs)
    before = states(model)
    ended.append(True)
    for inspect in (bptt_gradient_profile, dead_units):
        with pytest.raises(ValueError, match="ended"):
            inspect(model, inputs)
    for now, then in zip(states(model), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert model.layers[0].stateful


class Loop(keras.Model):
    """A reader's own loop over the steps; what goes back into the cell may be changed."""

    def __init__(self, cell, factor=1.0):
        super().__init__()
        self.cell, self.factor = cell, factor

    def call(self, x):
        count = 2 if "lstm" in self.cell.name else 1
        state = [tf.zeros((tf.shape(x)[0], self.cell.units))] * count
        for t in range(x.shape[1]):
            h, state = self.cell(x[:, t], state)
            state = [self.factor * s for s in state]
        return h


@pytest.mark.parametrize("kind", ["SimpleRNN", "LSTM", "GRU"])
def test_cells_in_an_rnn_layer_and_in_a_loop_have_the_profile_of_the_layer(kind):
    keras.utils.set_random_seed(0)
    layer, cell = getattr(layers, kind)(6), getattr(layers, f"{kind}Cell")(6)
    whole = keras.Sequential([keras.Input((7, 5)), layer])
    (expected,) = bptt_gradient_profile(whole, SEQUENCES).values()
    around = keras.Sequential([keras.Input((7, 5)), layers.RNN(cell, name="around")])
    loop = Loop(cell)
    loop(SEQUENCES)
    cell.set_weights(layer.get_weights())
    for model, name in ((around, "around"), (loop, cell.name)):
        found = bptt_gradient_profile(model, SEQUENCES)
        assert list(found) == [name]
        np.testing.assert_allclose(found[name].log10_norms, expected.log10_norms, rtol=1e-5)


def test_cells_on_top_of_each_other_have_a_profile_each():
    keras.utils.set_random_seed(0)
    cells = [layers.LSTMCell(6, name="one"), layers.GRUCell(4, name="two")]
    model = keras.Sequential([keras.Input((7, 5)), layers.RNN(cells, name="both")])
    split = keras.Sequential([keras.Input((7, 5)), layers.LSTM(6, return_sequences=True),
                              layers.GRU(4)])  # fmt: skip
    split.set_weights(model.get_weights())
    found, expected = (bptt_gradient_profile(m, SEQUENCES) for m in (model, split))
    assert list(found) == ["both/one", "both/two"]
    for a, b in zip(found.values(), expected.values(), strict=True):
        np.testing.assert_allclose(a.log10_norms, b.log10_norms, rtol=1e-5)


def test_a_cell_whose_state_the_loop_changes_has_none_and_the_error_says_what_has():
    model = Loop(layers.GRUCell(6), factor=0.5)
    model(SEQUENCES)
    with pytest.raises(ValueError, match="an RNN around their cells, or one of these cells"):
        bptt_gradient_profile(model, SEQUENCES)


@pytest.mark.parametrize("loop", [False, True])
def test_a_recurrent_matrix_times_twenty_is_named_in_a_cell_too(loop):
    keras.utils.set_random_seed(0)
    cell = layers.LSTMCell(6)
    end = layers.Dense(3, name="head")
    body = Loop(cell) if loop else keras.Sequential([layers.RNN(cell, name="around")])
    model = keras.Sequential([keras.Input((7, 5)), body, end])
    model(SEQUENCES)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    given = {"loss": loss, "steps": 2}
    assert [f for f in diagnose_model(model, SEQUENCES, np.arange(3), **given).findings
            if f.severity != "info"] == []  # fmt: skip
    cell.recurrent_kernel.assign(20 * cell.recurrent_kernel)
    report = diagnose_model(model, SEQUENCES, np.arange(3), **given)
    found = next(f for f in report.findings if f.code == "large_recurrent_matrix")
    assert found.severity == "warning"
    assert (cell.name if loop else "around") in found.where
