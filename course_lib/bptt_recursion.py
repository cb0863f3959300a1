r"""The closed recursion of backpropagation through time, with norms that cannot underflow.

Once a sequence has been run, every slope is known, and the way back is linear in the gradient:

$$\frac{\partial\mathcal{L}}{\partial h_{t-1}} = W_{hh}^\top \Big(k_t \odot
\frac{\partial\mathcal{L}}{\partial h_t}\Big) + d_t \odot \frac{\partial\mathcal{L}}{\partial h_t}$$

with one coefficient $k_t$ per unit and gate, and the GRU's direct path $d_t = z_t$. (For an LSTM,
the gates i, f, g and the direct path act on the gradient at $C_t$.) The frameworks compute the
coefficients for all t at once; only this loop is left, and it forms no graph. Every few steps the
gradient is divided by its largest entry, and the logarithm is kept.

The loop is written for NumPy arrays and for tensors that know `out=`. On a CPU NumPy is the
better choice: a call on a small array takes it a quarter of the time that a tensor library needs.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

RESCALE_EVERY = 8
"""Steps between two divisions: in float64 each step may shrink or grow the gradient by 1e38."""

Array = Any  # numpy.ndarray or torch.Tensor


class Coefficients(NamedTuple):
    r"""What one step back multiplies by; time first, float64.

    Fields:
        gates: $k_t$, shape (T, batch, G, n): $\partial\mathcal{L}/\partial u_t$ per unit of the
            gradient at $h_t$ (plain cell, GRU, the LSTM's o) or at $C_t$ (the LSTM's i, f, g).
        direct: what reaches the previous state beside the matrix, shape (T, batch, n): the
            LSTM's f, the GRU's z; None for a plain cell.
        readback: the LSTM's $\partial h_t/\partial C_t = o \odot \tanh'(C_t)$, shape (T, batch, n);
            None without C.
    """

    gates: Array
    direct: Array | None = None
    readback: Array | None = None


def accumulate_cells(keep: Array, written: Array, out: Array, *, multiply: Callable) -> Array:
    r"""Fill `out` with $C_t = f_t \odot C_{t-1} + w_t$, all of shape (T, batch, n)."""
    out[0] = written[0]
    cells = list(out)
    for t, (f, w) in enumerate(zip(keep, written, strict=True)):
        if t:
            multiply(f, cells[t - 1], out=cells[t])
            cells[t] += w
    return out


def backpropagate(
    k: Coefficients,
    w_hh: Array,
    hidden: Array,
    cells: Array | None,
    *,
    multiply: Callable = np.multiply,
    matmul: Callable = np.dot,
) -> np.ndarray:
    r"""Fill `hidden` and `cells` with gradients, going back from `hidden[-1]`.

    Arguments:
        k: the coefficients.
        w_hh: $W_{hh}$, shape (G n, n).
        hidden: shape (T, batch, n), with $\partial\mathcal{L}/\partial h_T$ in its last entry.
        cells: the same for C, all to be filled; None without C.
        multiply, matmul: NumPy's, or a tensor library's with an argument `out`.

    Returns the base-10 logarithm of the factor that step t's gradients have to be multiplied by,
    shape (T,).
    """
    steps, batch, gates, n = k.gates.shape
    sizes = np.zeros(steps)
    delta = 0.0 * k.gates[0]
    flat, carry = delta.reshape(batch, gates * n), 0.0 * hidden[-1]
    inner, output = delta[:, :3], delta[:, -1]
    rows, columns = list(hidden), list(hidden[:, :, None])
    coefficients = list(k.gates)
    direct = None if k.direct is None else list(k.direct)
    is_lstm = cells is not None
    if is_lstm:
        totals, total_columns = list(cells), list(cells[:, :, None])
        readback, o_gates = list(k.readback), list(k.gates[:, :, 3])
        coefficients = list(k.gates[:, :, :3])
    for t in range(steps - 1, -1, -1):
        grad = rows[t]
        if (steps - t) % RESCALE_EVERY == 0:
            size = float(abs(grad).max())
            if is_lstm:
                size = max(size, float(abs(carry).max()))
            if 0.0 < size < np.inf:
                grad /= size
                sizes[t] = np.log10(size)
                if is_lstm:
                    carry /= size
        if is_lstm:
            multiply(grad, readback[t], out=totals[t])
            totals[t] += carry
            multiply(total_columns[t], coefficients[t], out=inner)
            multiply(grad, o_gates[t], out=output)
            multiply(totals[t], direct[t], out=carry)
        else:
            multiply(columns[t], coefficients[t], out=delta)
        if t == 0:
            break
        matmul(flat, w_hh, out=rows[t - 1])
        if direct is not None and not is_lstm:
            multiply(grad, direct[t], out=carry)
            rows[t - 1] += carry
    return np.cumsum(sizes[::-1])[::-1]


def log10_norms(gradients: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """Return log10 of the norm of each step's gradients, shape (T,), -inf where they are zero.

    `gradients` of shape (T, batch, n) are to be multiplied by 10**scale, `scale` of shape (T,).
    They are divided by their largest entry first: squares would underflow below 1e-162.
    """
    largest = np.abs(gradients).max(axis=(1, 2))
    safe = np.where(largest > 0, largest, 1.0)
    norms = np.linalg.norm(gradients / safe[:, None, None], axis=(1, 2))
    with np.errstate(divide="ignore"):
        return np.where(largest > 0, np.log10(norms) + np.log10(safe) + scale, -np.inf)
