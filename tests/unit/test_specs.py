"""Networks as data: sizes, the law of the draws, and read-only weights that chain."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib import (
    MLPWeights,
    NetworkSpec,
    draw_matrix,
    draw_weights,
    orthogonal_matrix,
    rescale_spectral_norms,
)
from course_lib.initialization import INITIALIZERS

FEW = settings(max_examples=40, deadline=None, derandomize=True)
sizes = st.integers(1, 12)


def test_layer_sizes_and_activations():
    spec = NetworkSpec(3, 5, 4, n_out=2, activation="tanh", output_activation="sigmoid")
    assert spec.layer_sizes == (3, 5, 5, 5, 2)
    assert spec.activations == ("tanh", "tanh", "tanh", "sigmoid")


def test_depth_one_is_a_single_matrix():
    spec = NetworkSpec(3, 5, 1, n_out=2)
    assert spec.layer_sizes == (3, 2)
    assert spec.activations == ("linear",)
    assert draw_weights(spec, seed=0).depth == 1


def test_spec_is_frozen_and_takes_numpy_integers():
    spec = NetworkSpec(np.int64(3), np.int32(5), 2, gain=np.float32(0.5))
    assert type(spec.n_in) is int
    assert type(spec.gain) is float
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.width = 7


@given(n_in=sizes, width=sizes, depth=sizes, n_out=sizes, seed=st.integers(0, 2**32))
@FEW
def test_draws_have_the_spec_shapes_and_repeat(n_in, width, depth, n_out, seed):
    spec = NetworkSpec(n_in, width, depth, n_out=n_out, bias=0.5)
    weights, again = draw_weights(spec, seed=seed), draw_weights(spec, seed=seed)
    assert weights.layer_sizes == spec.layer_sizes
    for one, two in zip(weights.matrices, again.matrices, strict=True):
        np.testing.assert_array_equal(one, two)
    for bias in weights.biases:
        np.testing.assert_array_equal(bias, 0.5)


def test_seeds_and_layers_differ():
    spec = NetworkSpec(4, 4, 3, n_out=4)
    one, two = draw_weights(spec, seed=0), draw_weights(spec, seed=1)
    assert not np.allclose(one.matrices[0], two.matrices[0])
    assert not np.allclose(one.matrices[0], one.matrices[1])


def test_the_stream_is_pcg64_layer_after_layer():
    # What every stored notebook output rests on: the order of the draws may never change.
    weights = draw_weights(NetworkSpec(2, 3, 2, init="normal", gain=2.0), seed=7)
    rng = np.random.default_rng(7)
    np.testing.assert_array_equal(weights.matrices[0], 2.0 * rng.normal(size=(3, 2)))
    np.testing.assert_array_equal(weights.matrices[1], 2.0 * rng.normal(size=(1, 3)))


def test_drawing_leaves_numpys_global_generator_alone():
    np.random.seed(5)  # noqa: NPY002
    expected = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    draw_weights(NetworkSpec(2, 3, 2), seed=0)
    np.testing.assert_array_equal(np.random.random(3), expected)  # noqa: NPY002


def test_weights_are_copies_and_read_only():
    source = np.ones((2, 3))
    weights = MLPWeights([source])
    source[:] = 0.0
    np.testing.assert_array_equal(weights.matrices[0], 1.0)
    with pytest.raises(ValueError, match="read-only"):
        weights.matrices[0][0, 0] = 1.0
    with pytest.raises(ValueError, match="read-only"):
        weights.biases[0][0] = 1.0
    np.testing.assert_array_equal(weights.biases[0], np.zeros(2))


def test_spectral_norms_of_diagonal_matrices():
    weights = MLPWeights([np.diag([3.0, -4.0]), np.array([[0.0, 2.0]])])
    np.testing.assert_allclose(weights.spectral_norms, [4.0, 2.0], rtol=1e-14)
    assert weights.layer_sizes == (2, 2, 1)


@given(norm=st.floats(1e-3, 1e3), seed=st.integers(0, 99))
@FEW
def test_rescaling_sets_every_spectral_norm(norm, seed):
    weights = draw_weights(NetworkSpec(4, 6, 3, n_out=2, bias=0.25), seed=seed)
    scaled = rescale_spectral_norms(weights, norm)
    np.testing.assert_allclose(scaled.spectral_norms, norm, rtol=1e-12)
    np.testing.assert_array_equal(scaled.biases[1], weights.biases[1])
    direction = scaled.matrices[0] / norm * weights.spectral_norms[0]
    np.testing.assert_allclose(direction, weights.matrices[0], rtol=1e-12)


# --- the laws ---------------------------------------------------------------------------------

FAN_IN, FAN_OUT = 300, 500
VARIANCES = {
    "glorot_uniform": 2 / (FAN_IN + FAN_OUT),
    "glorot_normal": 2 / (FAN_IN + FAN_OUT),
    "he_uniform": 2 / FAN_IN,
    "he_normal": 2 / FAN_IN,
    "he_uniform_fan_out": 2 / FAN_OUT,
    "he_normal_fan_out": 2 / FAN_OUT,
    "lecun_uniform": 1 / FAN_IN,
    "lecun_normal": 1 / FAN_IN,
    "pytorch_default": 1 / (3 * FAN_IN),
    "normal": 1.0,
    "orthogonal": 1 / FAN_OUT,  # 300 unit columns of 500 entries
}


@pytest.mark.parametrize("init", sorted(set(INITIALIZERS) - {"identity"}))
def test_variance_and_mean_of_each_law(init):
    matrix = draw_matrix(
        init, fan_in=FAN_IN, fan_out=FAN_OUT, gain=3.0, rng=np.random.default_rng(0)
    )
    assert matrix.shape == (FAN_OUT, FAN_IN)
    # 150 000 draws: the relative spread of the variance is at most sqrt(2 / 150 000) = 0.4 %.
    assert matrix.var() == pytest.approx(9.0 * VARIANCES[init], rel=0.02)
    assert abs(matrix.mean()) < 0.02 * matrix.std()


@pytest.mark.parametrize(
    ("init", "limit"),
    [
        ("glorot_uniform", np.sqrt(6 / (FAN_IN + FAN_OUT))),
        ("he_uniform", np.sqrt(6 / FAN_IN)),
        ("pytorch_default", np.sqrt(1 / FAN_IN)),
    ],
)
def test_uniform_laws_fill_their_interval_and_stay_inside(init, limit):
    rng = np.random.default_rng(1)
    largest = np.abs(draw_matrix(init, fan_in=FAN_IN, fan_out=FAN_OUT, rng=rng)).max()
    assert 0.999 * limit < largest <= limit


def test_identity():
    matrix = draw_matrix("identity", fan_in=3, fan_out=2, gain=2.0, rng=np.random.default_rng(0))
    np.testing.assert_array_equal(matrix, [[2.0, 0.0, 0.0], [0.0, 2.0, 0.0]])


@given(rows=sizes, columns=sizes, seed=st.integers(0, 99))
@FEW
def test_orthogonal_matrices_have_unit_singular_values(rows, columns, seed):
    matrix = orthogonal_matrix(rows, columns, rng=np.random.default_rng(seed))
    assert matrix.shape == (rows, columns)
    values = np.linalg.svd(matrix, compute_uv=False)
    np.testing.assert_allclose(values, 1.0, rtol=1e-12)


def test_orthogonal_law_is_haar():
    # QR without the sign correction gives a first entry that is never positive; under the Haar
    # measure its mean is 0, here with a spread of 1 / sqrt(3 * 2000) = 0.013.
    rng = np.random.default_rng(0)
    entries = np.array([orthogonal_matrix(3, 3, rng=rng) for _ in range(2000)])
    assert np.abs(entries.mean(axis=0)).max() < 0.05
