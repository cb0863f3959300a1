"""Norms in TensorFlow hold where float32's squares do not: the way over float64 is taken."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from course_lib.monitoring import ParameterState  # noqa: E402
from course_lib.tf.packing import Packer, measure_norms  # noqa: E402

RNG = np.random.default_rng(0)
SHAPES = [(7, 5), (40,), (3, 3, 2)]
SIZES = [1e-37, 1e-30, 1e-21, 1.0, 1e17, 1e20, 1e37]
"""Of all but the middle two, the squares are lost in float32, or some digits of them."""


def draw(size):
    return [np.float32(size * RNG.uniform(0.5, 1.0, s)) for s in SHAPES]


def expected(arrays):
    return [np.linalg.norm(a.astype(np.float64)) for a in arrays]


def in_float32(arrays):
    """Return the norms as `tf.norm` has them, without the way over float64."""
    return [float(tf.norm(tf.constant(a))) for a in arrays]


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("size", SIZES)
def test_norms_are_those_of_float64(size, compiled):
    arrays = draw(size)
    measure = tf.function(measure_norms) if compiled else measure_norms
    found = measure(list(map(tf.constant, arrays)))
    assert found.dtype == tf.float64
    # float32's own sum of 40 squares is right to 40 roundings of 6e-8, half of it after the root
    np.testing.assert_allclose(found, expected(arrays), rtol=2e-6)


@pytest.mark.parametrize("size", [1e-37, 1e-30, 1e20, 1e37])
def test_the_same_numbers_are_lost_in_float32(size):
    lost = np.array(in_float32(draw(size)))
    assert np.all((lost == 0) | np.isinf(lost))


@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "graph"])
@pytest.mark.parametrize("odd", [1e-30, 1e25, 0.0, np.nan, np.inf])
def test_one_tensor_out_of_range_spoils_no_other(odd, compiled):
    arrays = [*draw(1.0), np.full((4, 2), odd, np.float32)]
    measure = tf.function(measure_norms) if compiled else measure_norms
    found = measure(list(map(tf.constant, arrays))).numpy()
    np.testing.assert_allclose(found, expected(arrays), rtol=2e-6)


@pytest.mark.parametrize("size", [1e-30, 1.0, 1e25])
def test_differences_of_what_under_and_overflows(size):
    """The update of a weight is a difference; of two numbers of one size it is exact."""
    before, after = draw(size), draw(size)
    states, packer = [ParameterState(str(k), "layer", 2, True) for k in range(3)], Packer()
    for state, new, old in zip(states, after, before, strict=True):
        packer.norm(state, "update", tf.constant(new), tf.constant(old))
    packer.unpack(packer.pack().numpy())
    moved = [a.astype(np.float64) - b for a, b in zip(after, before, strict=True)]
    np.testing.assert_allclose([s.update for s in states], expected(moved), rtol=2e-6)


def test_what_is_packed_comes_back_from_float64():
    arrays = {"grad_norm": draw(1e-30)[0], "norm": draw(1e25)[0], "update": draw(1.0)[0]}
    state = ParameterState("w", "layer", 2, True)
    packer = Packer()
    for field, values in arrays.items():
        packer.norm(state, field, tf.constant(values))
    packer.unpack(packer.pack().numpy())
    for field, values in arrays.items():
        assert getattr(state, field) == pytest.approx(expected([values])[0], rel=2e-6)


def test_of_sparse_half_and_complex_tensors_nothing_is_lost():
    """A float16 of 300 has a square beyond float16; rows of an embedding's gradient repeat none."""
    half = np.full((5, 4), 300.0, np.float16)
    rows = tf.IndexedSlices(tf.constant(draw(1e-30)[0]), tf.range(7), (11, 5))
    whole = np.complex64([3e-30 + 4e-30j, 0.0])
    states = [ParameterState(str(k), "layer", 2, True) for k in range(3)]
    packer = Packer()
    for state, values in zip(states, (tf.constant(half), rows, tf.constant(whole)), strict=True):
        packer.norm(state, "norm", values)
    packer.unpack(packer.pack().numpy())
    found = [state.norm for state in states]
    kept = [half, rows.values.numpy(), np.abs(whole.astype(np.complex128))]
    np.testing.assert_allclose(found, expected(kept), rtol=2e-6)
