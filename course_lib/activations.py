r"""Activation functions with their derivatives and the suprema of their slopes.

The supremum $\gamma = \sup_z |f'(z)|$ is what enters the bound
$\|dh_L/dh_1\| \le \gamma^{L-1} \prod_{l=2}^{L} \|W_l\|$ (see `course_lib.theory`).
All functions take and return float64 arrays of any shape.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from course_lib._validation import require_array, require_choice

ArrayFunction = Callable[[np.ndarray], np.ndarray]

LEAKY_SLOPE = 0.01
"""Slope of leaky ReLU for negative inputs (PyTorch's default; Keras's are 0.3 and 0.2)."""


def _checked(function: ArrayFunction) -> ArrayFunction:
    """Return `function` of a float64 array of any shape; NaN and infinities pass through."""

    @functools.wraps(function)
    def of_array(z: np.ndarray) -> np.ndarray:
        return function(require_array("z", z, finite=False))

    return of_array


@dataclass(frozen=True)
class Activation:
    """An elementwise activation: `function`, `derivative` and `supremum` of |derivative|.

    Where a derivative does not exist (the kink of ReLU at 0), `derivative` follows PyTorch
    and TensorFlow. `saturates` is true if the derivative tends to 0 in both directions.
    """

    name: str
    function: ArrayFunction
    derivative: ArrayFunction
    supremum: float
    saturates: bool

    def __post_init__(self) -> None:
        for part in ("function", "derivative"):
            value = getattr(self, part)
            if not callable(value):
                raise TypeError(f"`{part}` (={value!r}) must be a function of an array.")
            object.__setattr__(self, part, _checked(value))


@_checked
def sigmoid(z: np.ndarray) -> np.ndarray:
    """Return 1 / (1 + exp(-z)), exact to the last digits in both tails; nothing overflows."""
    decay = np.exp(-np.abs(z))
    return np.where(z >= 0, 1.0, decay) / (1.0 + decay)


def _half_logistic(z: np.ndarray) -> np.ndarray:
    """Return exp(-|z|) / (1 + exp(-|z|))^2 = s(z) (1 - s(z)), without cancellation."""
    decay = np.exp(-np.abs(z))
    # Rounding would lift the slope at z = 1e-9 above the bound by one unit in the last place.
    return np.minimum(decay / (1.0 + decay) ** 2, 0.25)


def sigmoid_and_slope(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return s(z) and s(z) (1 - s(z)) as above, both to the last digit, from one exponential."""
    z = require_array("z", z, finite=False)
    decay = np.exp(-np.abs(z))
    total = 1.0 + decay
    return np.where(z >= 0, 1.0, decay) / total, np.minimum(decay / total**2, 0.25)


def _normal_cdf(z: np.ndarray) -> np.ndarray:
    from scipy.special import ndtr  # imported here: it costs more than all of NumPy

    return ndtr(z)


def _normal_pdf(z: np.ndarray) -> np.ndarray:
    return np.exp(-0.5 * z**2) / np.sqrt(2.0 * np.pi)


def _elu(z: np.ndarray) -> np.ndarray:
    return np.where(z > 0, z, np.expm1(np.minimum(z, 0.0)))


def _silu_derivative(z: np.ndarray) -> np.ndarray:
    return sigmoid(z) + z * _half_logistic(z)


ACTIVATIONS: dict[str, Activation] = {
    a.name: a
    for a in (
        Activation("linear", lambda z: z + 0.0, np.ones_like, 1.0, False),
        Activation("sigmoid", sigmoid, _half_logistic, 0.25, True),
        Activation("tanh", np.tanh, lambda z: 4.0 * _half_logistic(2.0 * z), 1.0, True),
        Activation(
            "relu", lambda z: np.maximum(z, 0.0), lambda z: np.where(z > 0, 1.0, 0.0), 1.0, False
        ),
        Activation(
            "leaky_relu",
            lambda z: np.where(z > 0, z, LEAKY_SLOPE * z),
            lambda z: np.where(z > 0, 1.0, LEAKY_SLOPE),
            1.0,
            False,
        ),
        Activation("elu", _elu, lambda z: np.exp(np.minimum(z, 0.0)), 1.0, False),
        Activation(
            "gelu",
            lambda z: z * _normal_cdf(z),
            lambda z: _normal_cdf(z) + z * _normal_pdf(z),
            1.1289041452,  # at z = sqrt(2): Phi(sqrt 2) + sqrt(2) phi(sqrt 2)
            False,
        ),
        Activation(
            "silu",
            lambda z: z * sigmoid(z),
            _silu_derivative,
            1.0998393195,  # at z = 2.3994, the root of 2 s'(z) + z s''(z) = 0
            False,
        ),
        Activation("softplus", lambda z: np.logaddexp(0.0, z), sigmoid, 1.0, False),
    )
}
"""Every activation the course knows, by the name both frameworks use."""


def get_activation(activation: str) -> Activation:
    """Return the activation of this name; raise ValueError naming the known ones otherwise."""
    return ACTIVATIONS[require_choice("activation", activation, ACTIVATIONS)]
