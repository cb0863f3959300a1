"""Variances, fans and kernels of the initial weights."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.initialization import (
    INITIALIZERS,
    compute_fans,
    draw_kernel,
    draw_matrix,
    weight_variance,
)

RANDOM = sorted(set(INITIALIZERS) - {"identity"})


@pytest.mark.parametrize("init", RANDOM)
def test_weight_variance_is_that_of_the_draws(init):
    matrix = draw_matrix(init, fan_in=300, fan_out=500, gain=2.0, rng=np.random.default_rng(0))
    expected = weight_variance(init, fan_in=300, fan_out=500, gain=2.0)
    # 150 000 draws: the relative spread of the mean square is at most sqrt(2 / 150 000) = 0.4 %.
    assert np.mean(matrix**2) == pytest.approx(expected, rel=0.02)


@given(st.integers(1, 64), st.integers(1, 64))
@settings(deadline=None)
def test_glorot_lies_between_the_two_lecun_variances(fan_in, fan_out):
    glorot = weight_variance("glorot_normal", fan_in=fan_in, fan_out=fan_out)
    ends = sorted((1 / fan_in, 1 / fan_out))
    assert ends[0] * (1 - 1e-12) <= glorot <= ends[1] * (1 + 1e-12)


def test_fans_count_connections():
    """Count what one output sees and one input reaches, with a convolution written as loops."""
    groups, n_in, n_out, window = 2, 4, 6, 3
    steps = np.arange(9)
    links = [
        (a, i, b, o)
        for o in range(n_out)
        for b in steps
        for i in range(n_in)
        for a in steps
        if i * groups // n_in == o * groups // n_out and abs(a - b) <= window // 2
    ]
    sees = sum(1 for _, _, b, o in links if (b, o) == (4, 0))
    reaches = sum(1 for a, i, _, _ in links if (a, i) == (4, 0))
    assert compute_fans((n_out, n_in // groups, window), groups=groups) == (sees, reaches)


@pytest.mark.parametrize(
    ("shape", "groups", "fans"),
    [((5, 7), 1, (7, 5)), ((32, 16, 3, 3), 1, (144, 288)), ((64, 1, 3, 3), 64, (9, 9))],
)
def test_fans_of_known_layers(shape, groups, fans):
    assert compute_fans(shape, groups=groups) == fans


@pytest.mark.parametrize("init", sorted(INITIALIZERS))
def test_a_kernel_without_window_is_the_matrix(init):
    kernel = draw_kernel(init, shape=(6, 4), gain=1.5, rng=np.random.default_rng(2))
    matrix = draw_matrix(init, fan_in=4, fan_out=6, gain=1.5, rng=np.random.default_rng(2))
    np.testing.assert_array_equal(kernel, matrix)


@pytest.mark.parametrize("init", sorted(set(RANDOM) - {"orthogonal"}))
@pytest.mark.parametrize(("shape", "groups"), [((96, 64, 3, 3), 1), ((2000, 2, 3, 3), 200)])
def test_kernels_have_the_variance_of_their_fans(init, shape, groups):
    kernel = draw_kernel(init, shape=shape, groups=groups, gain=0.5, rng=np.random.default_rng(0))
    fan_in, fan_out = compute_fans(shape, groups=groups)
    expected = weight_variance(init, fan_in=fan_in, fan_out=fan_out, gain=0.5)
    assert kernel.shape == shape
    # At least 36 000 draws: a spread of sqrt(2 / 36 000) = 0.7 %.
    assert kernel.var() == pytest.approx(expected, rel=0.03)


def test_an_orthogonal_kernel_is_orthogonal_in_each_group():
    kernel = draw_kernel("orthogonal", shape=(8, 3, 2, 2), groups=4, rng=np.random.default_rng(0))
    for block in kernel.reshape(4, 2, 12):
        np.testing.assert_allclose(block @ block.T, np.eye(2), atol=1e-12)


RNG = np.random.default_rng(0)
BAD = [
    (lambda: weight_variance("identity", fan_in=2, fan_out=2), ValueError, "`init` (='identity')"),
    (lambda: weight_variance("he_normal", fan_in=0, fan_out=2), ValueError, "`fan_in` (=0)"),
    (lambda: weight_variance("he_normal", fan_in=1, fan_out=2, gain=-1), ValueError, "`gain`"),
    (lambda: compute_fans((3,)), ValueError, "`shape` (=(3,)) must be a sequence of at least two"),
    (lambda: compute_fans("ab"), ValueError, "`shape` (='ab')"),
    (lambda: compute_fans((3, 0)), ValueError, "`shape[1]` (=0) must be an integer >= 1."),
    (lambda: compute_fans((3, 2), groups=2), ValueError, "`groups` (=2) must divide the 3"),
    (lambda: draw_kernel("xavier", shape=(2, 2), rng=RNG), ValueError, "`init` (='xavier')"),
    (lambda: draw_kernel("identity", shape=(2, 2, 3), rng=RNG), ValueError, "shape (2, 2, 3)"),
    (lambda: draw_kernel("he_normal", shape=(2, 2), rng=0), TypeError, "`rng` (=0)"),
]


@pytest.mark.parametrize(("call", "error", "words"), BAD)
def test_bad_input_is_named(call, error, words):
    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
