"""Inspections of Keras models without a gradient at `x`, or with half of the digits."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf
from keras import layers

from course_lib.tf import bptt_gradient_profile, jacobian_spectrum

SEQUENCES = np.random.default_rng(0).standard_normal((3, 7, 5)).astype(np.float32)


@pytest.mark.parametrize("method", ["exact", "product", "randomized"])
def test_a_jacobian_behind_a_cut_is_refused_and_not_zero(method):
    cut = layers.Lambda(tf.stop_gradient)
    model = keras.Sequential([keras.Input((5,)), layers.Dense(8, "relu"), cut, layers.Dense(4)])
    with pytest.raises(ValueError, match=r"^`model` must have a gradient path from `x`"):
        jacobian_spectrum(model, SEQUENCES[0, 0], method=method)


@pytest.mark.parametrize("method", ["exact", "product", "randomized"])
def test_a_jacobian_that_is_zero_is_zero(method):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, kernel_initializer="zeros")])
    found = jacobian_spectrum(model, SEQUENCES[0, 0], method=method)
    np.testing.assert_array_equal(found.singular_values, 0.0)


@pytest.mark.parametrize("kind", [layers.SimpleRNN, layers.LSTM, layers.GRU])
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "bfloat16", "mixed_float16"])
def test_a_recurrent_layer_of_few_digits_has_the_profile_of_float32_to_as_many(kind, policy):
    keras.utils.set_random_seed(0)
    profiles, weights = [], None
    for dtype in ("float32", policy):
        # Keras's own initializer, an orthogonal matrix, is not to be had in bfloat16.
        layer = kind(6, dtype=dtype, recurrent_initializer="glorot_uniform")
        model = keras.Sequential([keras.Input((7, 5)), layer])
        weights = weights or model.get_weights()
        model.set_weights(weights)
        (profile,) = bptt_gradient_profile(model, SEQUENCES).values()
        profiles.append(profile)
    plain, rounded = profiles
    assert rounded.dtype == policy.removeprefix("mixed_")
    # Rounding to 8 bits changes a factor by 1/256, of which there are at most four per step.
    allowed = 7 * 4 * np.log10(1 + 1 / 256)
    np.testing.assert_allclose(rounded.log10_norms, plain.log10_norms, atol=allowed)
