"""Whether what went through a model together is what goes alone."""

import numpy as np
import pytest

from course_lib._together import mixing_weights, require_agreement

ROWS = np.random.default_rng(0).standard_normal((50, 40))
WEIGHTS = mixing_weights(50)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16])
def test_one_wrong_row_is_noticed_and_rounding_is_not(dtype):
    eps = np.finfo(dtype).eps
    rounded = ROWS.astype(dtype).astype(np.float64)
    require_agreement(rounded, WEIGHTS, WEIGHTS @ ROWS, eps)
    wrong, swapped = rounded.copy(), rounded.copy()
    wrong[7], swapped[[7, 8]] = rounded[8], rounded[[8, 7]]
    for other in (wrong, swapped):
        with pytest.raises(ArithmeticError):
            require_agreement(other, WEIGHTS, WEIGHTS @ ROWS, eps)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_agrees_with_nothing(value):
    rows = ROWS.copy()
    rows[3, 3] = value
    with pytest.raises(ArithmeticError):
        require_agreement(rows, WEIGHTS, WEIGHTS @ rows, 1e-7)


def test_zeros_agree_with_zeros():
    require_agreement(np.zeros((50, 40)), WEIGHTS, np.zeros(40), 1e-7)
