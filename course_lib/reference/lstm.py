r"""The LSTM cell, forward and backward, gate by gate.

$$i = \sigma(z_i), \quad f = \sigma(z_f), \quad g = \tanh(z_g), \quad o = \sigma(z_o), \qquad
C_t = f \odot C_{t-1} + i \odot g, \quad h_t = o \odot \tanh(C_t)$$

with $z = a_t + u_t$ in four blocks. Source: hochreiter1997, with the forget gate of gers2000.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from course_lib.activations import get_activation, sigmoid_and_slope

TANH = get_activation("tanh")


class Step(NamedTuple):
    """One step: new states, gates and slopes of the gates, all (batch, n) except `slopes`.

    `slopes` has shape (batch, 4, n): the derivatives of i, f, g, o at their preactivations.
    """

    hidden: np.ndarray
    cell: np.ndarray
    previous_cell: np.ndarray
    i: np.ndarray
    f: np.ndarray
    g: np.ndarray
    o: np.ndarray
    slopes: np.ndarray


class StepGrads(NamedTuple):
    """Gradients one step back; see `step_backward`."""

    a: np.ndarray
    u: np.ndarray
    hidden: np.ndarray
    cell: np.ndarray
    total_cell: np.ndarray


def step(kind: str, a: np.ndarray, u: np.ndarray, hidden: np.ndarray, cell: np.ndarray) -> Step:
    """Do one step from `cell` $= C_{t-1}$, shape (batch, n); $h_{t-1}$ is already inside u."""
    z = (a + u).reshape(len(a), 4, -1)
    gates, slopes = sigmoid_and_slope(z)  # of all four at once; the candidate's are replaced
    i, f, o = gates[:, 0], gates[:, 1], gates[:, 3]
    g, slopes[:, 2] = TANH.function(z[:, 2]), TANH.derivative(z[:, 2])
    new_cell = f * cell + i * g
    return Step(o * np.tanh(new_cell), new_cell, cell, i, f, g, o, slopes)


def step_backward(done: Step, hidden_grad: np.ndarray, cell_grad: np.ndarray) -> StepGrads:
    r"""Go one step back.

    Arguments:
        done: the step.
        hidden_grad: $\partial\mathcal{L}/\partial h_t$, complete, shape (batch, n).
        cell_grad: what reaches $C_t$ from step t + 1, shape (batch, n).

    $C_t$ also feeds $h_t$, so its complete gradient `total_cell` is
    $\partial\mathcal{L}/\partial C_t =$ `cell_grad` $+ \partial\mathcal{L}/\partial h_t \odot o
    \odot \tanh'(C_t)$; times f it is what reaches $C_{t-1}$ (`cell`). $h_{t-1}$ enters through the
    gates alone, so the direct part `hidden` is 0.
    """
    total = cell_grad + hidden_grad * done.o * TANH.derivative(done.cell)
    delta = np.concatenate(
        [
            total * done.g * done.slopes[:, 0],
            total * done.previous_cell * done.slopes[:, 1],
            total * done.i * done.slopes[:, 2],
            hidden_grad * np.tanh(done.cell) * done.slopes[:, 3],
        ],
        axis=1,
    )
    return StepGrads(
        a=delta, u=delta, hidden=np.zeros_like(total), cell=total * done.f, total_cell=total
    )


def state_jacobian(done: Step, w_hh: np.ndarray) -> np.ndarray:
    r"""Return $\partial(h_t, C_t)/\partial(h_{t-1}, C_{t-1})$ for a batch of 1, shape (2n, 2n).

    $$\frac{\partial C_t}{\partial h_{t-1}} = \mathrm{diag}(g \odot i') W_i
    + \mathrm{diag}(C_{t-1} \odot f') W_f + \mathrm{diag}(i \odot g') W_g, \qquad
    \frac{\partial C_t}{\partial C_{t-1}} = \mathrm{diag}(f)$$

    and the rows of $h_t = o \odot \tanh C_t$ follow by the product rule.
    """
    n = done.hidden.shape[1]
    w_i, w_f, w_g, w_o = np.split(w_hh, 4)
    i_slope, f_slope, g_slope, o_slope = done.slopes[0]
    cell_hidden = (
        (done.g[0] * i_slope)[:, None] * w_i
        + (done.previous_cell[0] * f_slope)[:, None] * w_f
        + (done.i[0] * g_slope)[:, None] * w_g
    )
    cell_cell = np.diag(done.f[0])
    through_cell = (done.o[0] * TANH.derivative(done.cell[0]))[:, None]
    jacobian = np.empty((2 * n, 2 * n))
    jacobian[:n, :n] = (
        through_cell * cell_hidden + (np.tanh(done.cell[0]) * o_slope)[:, None] * w_o
    )
    jacobian[:n, n:] = through_cell * cell_cell
    jacobian[n:, :n] = cell_hidden
    jacobian[n:, n:] = cell_cell
    return jacobian


def direct_path(done: Step) -> np.ndarray:
    r"""Return f, shape (n,): the diagonal of $\partial C_t/\partial C_{t-1}$, $h_{t-1}$ held."""
    return done.f[0]
