"""Central differences: the judge that knows nothing of the chain rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from course_lib._validation import require_array, require_real


def central_difference(
    function: Callable[[np.ndarray], float | np.ndarray], x: np.ndarray, *, step: float = 1e-5
) -> np.ndarray:
    r"""Return the central difference of `function` at `x`.

    $\partial f_i/\partial x_j \approx (f_i(x + \delta e_j) - f_i(x - \delta e_j))/(2\delta)$.

    Arguments:
        function: takes an array of x's shape, returns a number or an array of shape S.
        x: where to differentiate, any shape.
        step: $\delta > 0$. The truncation error falls as $\delta^2$ and the rounding error grows
            as $1/\delta$; 1e-5 balances them in float64 for values of order 1.

    Returns an array of shape S + x.shape (x.shape alone if the function returns a number).
    """
    if not callable(function):
        raise TypeError(f"`function` (={function!r}) must be a function of an array.")
    x = require_array("x", x)
    step = require_real("step", step, minimum=0.0, exclusive=True)
    columns = []
    for index in np.ndindex(x.shape):
        up, down = x.copy(), x.copy()
        up[index] += step
        down[index] -= step
        ends = [require_array("function(x)", function(end)) for end in (up, down)]
        columns.append((ends[0] - ends[1]) / (2.0 * step))
    stacked = np.stack(columns, axis=-1)
    return stacked.reshape(stacked.shape[:-1] + x.shape)
