"""Inspections of Keras models that hold recurrent layers."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
from keras import layers

from course_lib.tf import jacobian_spectrum

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
            layers.Dense(4),
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
