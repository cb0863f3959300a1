r"""The GRU cell, forward and backward, gate by gate.

$$r = \sigma(a_r + u_r), \quad z = \sigma(a_z + u_z), \quad n = \tanh(a_n + r \odot u_n), \qquad
h_t = (1 - z) \odot n + z \odot h_{t-1}$$

This is PyTorch's and Keras's convention (z keeps; r acts after the matrix product, Keras's
`reset_after=True`). The paper has the same z, and r applied before the product with the state.
Source: cho2014.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from course_lib.activations import get_activation

SIGMOID, TANH = get_activation("sigmoid"), get_activation("tanh")


class Step(NamedTuple):
    """One step: the new state, gates, $u_n$ and slopes, all (batch, n) except `slopes`.

    `slopes` has shape (batch, 3, n): the derivatives of r, z, n at their preactivations.
    """

    hidden: np.ndarray
    cell: None
    previous_hidden: np.ndarray
    r: np.ndarray
    z: np.ndarray
    n: np.ndarray
    u_n: np.ndarray
    slopes: np.ndarray


class StepGrads(NamedTuple):
    """Gradients one step back; see `step_backward`."""

    a: np.ndarray
    u: np.ndarray
    hidden: np.ndarray
    cell: None
    total_cell: None


def step(kind: str, a: np.ndarray, u: np.ndarray, hidden: np.ndarray, cell: None) -> Step:
    """Do one step from `hidden` $= h_{t-1}$, shape (batch, n)."""
    a_r, a_z, a_n = np.split(a, 3, axis=1)
    u_r, u_z, u_n = np.split(u, 3, axis=1)
    r, z = SIGMOID.function(a_r + u_r), SIGMOID.function(a_z + u_z)
    n = TANH.function(a_n + r * u_n)
    slopes = np.stack(
        [
            SIGMOID.derivative(a_r + u_r),
            SIGMOID.derivative(a_z + u_z),
            TANH.derivative(a_n + r * u_n),
        ],
        axis=1,
    )
    return Step((1.0 - z) * n + z * hidden, None, hidden, r, z, n, u_n, slopes)


def step_backward(done: Step, hidden_grad: np.ndarray, cell_grad: None) -> StepGrads:
    r"""Go one step back from `hidden_grad` $= \partial\mathcal{L}/\partial h_t$, shape (batch, n).

    In the candidate's block the gradient of u is r times that of a. Beside the matrix, $h_{t-1}$
    enters through $z \odot h_{t-1}$: that direct part is `hidden`.
    """
    n_delta = hidden_grad * (1.0 - done.z) * done.slopes[:, 2]
    z_delta = hidden_grad * (done.previous_hidden - done.n) * done.slopes[:, 1]
    r_delta = n_delta * done.u_n * done.slopes[:, 0]
    return StepGrads(
        a=np.concatenate([r_delta, z_delta, n_delta], axis=1),
        u=np.concatenate([r_delta, z_delta, n_delta * done.r], axis=1),
        hidden=hidden_grad * done.z,
        cell=None,
        total_cell=None,
    )


def state_jacobian(done: Step, w_hh: np.ndarray) -> np.ndarray:
    r"""Return $\partial h_t/\partial h_{t-1}$ for a batch of 1, shape (n, n).

    $$\mathrm{diag}(z) + \mathrm{diag}((h_{t-1} - n) \odot z')\, W_z
    + \mathrm{diag}((1 - z) \odot n') \left[\mathrm{diag}(r)\, W_n
    + \mathrm{diag}(u_n \odot r')\, W_r\right]$$
    """
    w_r, w_z, w_n = np.split(w_hh, 3)
    r_slope, z_slope, n_slope = done.slopes[0]
    candidate = done.r[0][:, None] * w_n + (done.u_n[0] * r_slope)[:, None] * w_r
    return (
        np.diag(done.z[0])
        + ((done.previous_hidden[0] - done.n[0]) * z_slope)[:, None] * w_z
        + ((1.0 - done.z[0]) * n_slope)[:, None] * candidate
    )


def direct_path(done: Step) -> np.ndarray:
    """Return the update gate z, shape (n,): the diagonal of the path that keeps the state."""
    return done.z[0]
