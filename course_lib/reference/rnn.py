r"""The plain recurrent cell, $h_t = f(a_t + u_t)$ with f = tanh or ReLU, forward and backward.

$a_t = W_{xh} x_t + b_{xh}$ and $u_t = W_{hh} h_{t-1} + b_{hh}$ are formed outside, the same way for
every cell (`course_lib.reference.recurrent`); so are the products with the two matrices on the way
back. Source: elman1990, werbos1990; le2015 for ReLU.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from course_lib.activations import get_activation


class Step(NamedTuple):
    """One step: the new hidden state, and the preactivation $z_t = a_t + u_t$, both (batch, n)."""

    hidden: np.ndarray
    cell: None
    preactivation: np.ndarray
    slope: np.ndarray


class StepGrads(NamedTuple):
    """Gradients one step back; see `step_backward`."""

    a: np.ndarray
    u: np.ndarray
    hidden: np.ndarray
    cell: None
    total_cell: None


def step(kind: str, a: np.ndarray, u: np.ndarray, hidden: np.ndarray, cell: None) -> Step:
    """Do one step from `hidden` = h_{t-1}, shape (batch, n); `kind` is tanh_rnn or relu_rnn."""
    f = get_activation(kind.removesuffix("_rnn"))
    z = a + u
    return Step(f.function(z), None, z, f.derivative(z))


def step_backward(done: Step, hidden_grad: np.ndarray, cell_grad: None) -> StepGrads:
    r"""Go one step back from `hidden_grad` $= \partial\mathcal{L}/\partial h_t$, shape (batch, n).

    $\partial\mathcal{L}/\partial z_t = \partial\mathcal{L}/\partial h_t \odot f'(z_t)$ is the
    gradient of both a and u. $h_{t-1}$ enters through u alone, so the direct part `hidden` is 0.
    """
    delta = hidden_grad * done.slope
    return StepGrads(a=delta, u=delta, hidden=np.zeros_like(delta), cell=None, total_cell=None)


def state_jacobian(done: Step, w_hh: np.ndarray) -> np.ndarray:
    r"""Return $\partial h_t/\partial h_{t-1} = \mathrm{diag}(f'(z_t)) W_{hh}$ for a batch of 1."""
    return done.slope[0][:, None] * w_hh


def direct_path(done: Step) -> np.ndarray:
    """Return zeros of shape (n,): a plain cell has no path beside its matrix."""
    return np.zeros(done.hidden.shape[1])
