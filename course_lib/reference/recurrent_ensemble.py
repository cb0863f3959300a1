r"""Several recurrent networks of one shape at once: S of them as one array, in float64 NumPy.

Each step is that of the cell in `rnn`, `lstm` or `gru`, on S batches laid one below the other; the
matrices stay apart, (S, rows, columns). Plain cells may have layer normalization before the
activation and a shortcut from step to step:

$$h_t = [h_{t-1} +]\; f(\gamma \odot \mathrm{norm}(W_{xh} x_t + b_{xh} + W_{hh} h_{t-1} + b_{hh})
+ \beta) .$$

The loss is the cross-entropy at the last step. Source: werbos1990; ba2016 for the normalization.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_flag,
    require_sequence,
    require_type,
)
from course_lib.recurrent_specs import (
    RecurrentSpec,
    RecurrentWeights,
    check_recurrent_weights,
)
from course_lib.reference.normalization import LayerNorm, NormPass, norm_backward
from course_lib.reference.recurrent import CELLS

PLAIN_CELLS = ("tanh_rnn", "relu_rnn")


@dataclass(eq=False)
class RecurrentEnsemble:
    """S recurrent networks that can be run and trained; training changes the arrays in place.

    Fields:
        cell: the cell's name.
        arrays: w_xh, w_hh, b_xh, b_hh, w_hy, b_y as in `RecurrentWeights`, with S in front and a
            1 in the place of the batch for vectors; gamma and beta with normalization.
        norm: the layer normalization of a plain cell, or None.
        shortcut: whether a plain cell adds its old state.
    """

    cell: str
    arrays: dict[str, np.ndarray] = field(repr=False)
    norm: LayerNorm | None
    shortcut: bool

    @property
    def size(self) -> int:
        """The number S of networks."""
        return len(self.arrays["w_hh"])

    def forward(self, x: np.ndarray) -> RecurrentEnsemblePass:
        """Run S batches of shape (S, n, T, n_in) from zero states."""
        p = self.arrays
        x = require_array("x", x, shape=(self.size, None, None, p["w_xh"].shape[2]))
        batch, steps = x.shape[1:3]
        inputs = x.transpose(0, 2, 1, 3).reshape(self.size, steps * batch, -1)
        inputs = inputs @ p["w_xh"].transpose(0, 2, 1) + p["b_xh"]
        inputs = inputs.reshape(self.size, steps, batch, -1)
        hidden = np.zeros((self.size, batch, p["w_hh"].shape[2]))
        memory = np.zeros((self.size * batch, hidden.shape[2])) if self.cell == "lstm" else None
        passed = RecurrentEnsemblePass(x, [], [], [])
        for t in range(steps):
            passed.previous.append(hidden)
            u = hidden @ p["w_hh"].transpose(0, 2, 1) + p["b_hh"]
            done = self._step(inputs[:, t], u, hidden, memory, passed)
            memory, new = done.cell, done.hidden.reshape(hidden.shape)
            hidden = hidden + new if self.shortcut else new
            passed.steps.append(done)
        passed.outputs = hidden @ p["w_hy"].transpose(0, 2, 1) + p["b_y"]
        passed.last = hidden
        return passed

    def _step(self, a: np.ndarray, u: np.ndarray, hidden: np.ndarray, memory: object,
              passed: RecurrentEnsemblePass) -> tuple:  # fmt: skip
        if self.norm is not None:
            passed.normed.append(self.norm.forward(a + u))
            a = self.arrays["gamma"] * passed.normed[-1].output + self.arrays["beta"]
            u = np.zeros_like(a)
        flat = [part.reshape(-1, part.shape[2]) for part in (a, u, hidden)]
        return CELLS[self.cell].step(self.cell, *flat, memory)

    def backward(
        self, passed: RecurrentEnsemblePass, output_grad: np.ndarray
    ) -> tuple[dict[str, np.ndarray], list[np.ndarray]]:
        r"""Backpropagate `output_grad`, the gradient at the last outputs, shape (S, n, n_out).

        Returns the gradients of `arrays` by name, and $\partial\mathcal{L}/\partial h_t$ for
        t = 1..T, each (S, n, units).
        """
        shape = require_type("passed", passed, RecurrentEnsemblePass).outputs.shape
        output_grad = require_array("output_grad", output_grad, shape=shape, finite=False)
        p, flat = self.arrays, (-1, passed.last.shape[2])
        grad = output_grad @ p["w_hy"]
        cell_grad = np.zeros(grad.reshape(flat).shape) if self.cell == "lstm" else None
        a_grads, u_grads, states = [], [], []
        extra = {name: np.zeros_like(p[name]) for name in ("gamma", "beta") if name in p}
        for t in reversed(range(len(passed.steps))):
            states.append(grad)
            back = CELLS[self.cell].step_backward(passed.steps[t], grad.reshape(flat), cell_grad)
            a, u = (g.reshape(*grad.shape[:2], -1) for g in (back.a, back.u))
            if self.norm is not None:
                a = u = self._unnormalize(passed.normed[t], a, extra)
            a_grads.append(a)
            u_grads.append(u)
            direct = back.hidden.reshape(grad.shape)
            grad = u @ p["w_hh"] + direct + (grad if self.shortcut else 0.0)
            cell_grad = back.cell
        grads = _collect(passed, a_grads[::-1], u_grads[::-1]) | extra
        grads["w_hy"] = output_grad.transpose(0, 2, 1) @ passed.last
        grads["b_y"] = output_grad.sum(axis=1, keepdims=True)
        return {name: grads[name] for name in p}, states[::-1]

    def _unnormalize(self, normed: NormPass, grad: np.ndarray, extra: dict) -> np.ndarray:
        extra["gamma"] += (grad * normed.normalized).sum(axis=1, keepdims=True)
        extra["beta"] += grad.sum(axis=1, keepdims=True)
        return norm_backward(normed, self.arrays["gamma"] * grad)[0]


@dataclass(eq=False)
class RecurrentEnsemblePass:
    """What backpropagation through time needs to know of a forward pass.

    Fields:
        inputs: x, shape (S, n, T, n_in).
        steps: each cell's `Step`, on S n rows; entry [t - 1] belongs to step t.
        previous: $h_{t-1}$, (S, n, units) each.
        normed: what the normalization did at each step; empty without.
        last, outputs: $h_T$ and the readout of it, (S, n, n_out).
    """

    inputs: np.ndarray
    steps: list
    previous: list[np.ndarray]
    normed: list[NormPass]
    last: np.ndarray | None = None
    outputs: np.ndarray | None = None


def _collect(
    passed: RecurrentEnsemblePass, a: list[np.ndarray], u: list[np.ndarray]
) -> dict[str, np.ndarray]:
    """Sum the outer products of all steps, by one product of matrices for each network."""

    def rows(parts: list[np.ndarray]) -> np.ndarray:
        return np.concatenate(parts, axis=1)  # (S, T n, units)

    a_rows, u_rows = rows(a), rows(u)
    x_rows = rows(list(passed.inputs.transpose(2, 0, 1, 3)))
    return {
        "w_xh": a_rows.transpose(0, 2, 1) @ x_rows,
        "w_hh": u_rows.transpose(0, 2, 1) @ rows(passed.previous),
        "b_xh": a_rows.sum(axis=1, keepdims=True),
        "b_hh": u_rows.sum(axis=1, keepdims=True),
    }


def build_recurrent_ensemble(
    spec: RecurrentSpec,
    weights: Sequence[RecurrentWeights],
    *,
    norm: str = "none",
    shortcut: bool = False,
) -> RecurrentEnsemble:
    """Return one network per entry of `weights`, with copies of them.

    Arguments:
        spec: their common shape and cell, with a readout.
        weights: at least one draw.
        norm: "none", or "layer" before the activation of a plain cell.
        shortcut: whether a plain cell adds its old state.

    Raises ValueError for a normalization or a shortcut in a gated cell, which has its own path.
    """
    for drawn in require_sequence("weights", weights, of="RecurrentWeights"):
        check_recurrent_weights(spec, drawn)
    if spec.n_out is None:
        raise ValueError("`spec` (n_out None) must have a readout.")
    require_choice("norm", norm, ("none", "layer"))
    if spec.cell not in PLAIN_CELLS and (norm != "none" or require_flag("shortcut", shortcut)):
        raise ValueError(f"`spec` (cell {spec.cell}) must be a plain cell for norm or shortcut.")
    arrays = {
        name: np.stack([getattr(w, name) for w in weights])
        for name in ("w_xh", "w_hh", "b_xh", "b_hh", "w_hy", "b_y")
    }
    arrays = {name: a if a.ndim == 3 else a[:, None] for name, a in arrays.items()}
    if norm == "layer":
        arrays["gamma"] = np.ones((len(weights), 1, spec.hidden))
        arrays["beta"] = np.zeros_like(arrays["gamma"])
    layer_norm = LayerNorm(spec.hidden) if norm == "layer" else None
    return RecurrentEnsemble(spec.cell, arrays, layer_norm, require_flag("shortcut", shortcut))
