r"""What each time step adds to the gradient of the shared recurrent matrix.

$$\frac{d\mathcal{L}}{dW_{hh}} = \sum_{t=1}^{T} \delta_t\, h_{t-1}^\top, \qquad
\delta_t = f'(z_t) \odot \frac{d\mathcal{L}}{dh_t}$$

The terms differ by decades when gradients vanish, and the sum is then that of its last few terms.
Truncated backpropagation through time keeps exactly those. Source: werbos1990, pascanu2013.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_integer, require_real
from course_lib.recurrent_results import RecurrentFlow
from course_lib.results import format_number

SLOPES_FROM_STATES = {
    "tanh_rnn": lambda h: 1.0 - h**2,
    "relu_rnn": lambda h: (h > 0).astype(np.float64),
}
"""$f'(z_t)$ of a plain cell, computed from $h_t = f(z_t)$."""


@dataclass(frozen=True, eq=False)
class TimeContributions:
    r"""The terms of $d\mathcal{L}/dW_{hh}$, one per time step, summed over the batch.

    Fields:
        framework, cell: as in `RecurrentFlow`.
        norms: $\|\delta_t h_{t-1}^\top\|_F$ for t = 1..T, shape (T,); the first is 0 as $h_0 = 0$.
        truncation_errors: $\|G_k - G\|_F / \|G\|_F$ at [k - 1] with G the sum of all terms and
            $G_k$ that of the last k, shape (T,); the last is 0.
        total_norm: $\|G\|_F$.
    """

    framework: str
    cell: str
    norms: np.ndarray = field(repr=False)
    truncation_errors: np.ndarray = field(repr=False)
    total_norm: float

    @property
    def length(self) -> int:
        """The number T of steps."""
        return len(self.norms)

    def share_of_last(self, count: int) -> float:
        """Return the last `count` norms' share in the sum of all norms."""
        count = require_integer("count", count, minimum=1)
        return float(self.norms[-count:].sum() / self.norms.sum())

    def needed_steps(self, *, error: float = 0.01) -> int:
        """Return the smallest k whose last k terms miss the whole gradient by `error` or less.

        `error` is relative to the whole, > 0.
        """
        error = require_real("error", error, minimum=0.0, exclusive=True)
        bad = np.flatnonzero(self.truncation_errors > error)
        return 1 if len(bad) == 0 else int(bad[-1]) + 2

    def describe(self) -> str:
        """Say the norm of the sum, the last ten steps' share, and how many steps make up 99 %."""
        last = min(10, self.length)
        return (
            f"{self.cell}, {self.length} steps: the gradient of W_hh has norm "
            f"{format_number(self.total_norm)}; the last {last} steps account for "
            f"{_percent(self.share_of_last(last))} of the sum of the terms' norms, and the last "
            f"{self.needed_steps()} give the gradient to within 1 %."
        )


def _percent(share: float) -> str:
    """Return a share as whole percents, with "more than 99 %" instead of a rounded 100 %."""
    return "more than 99 %" if 0.99 < share < 1.0 else f"{100 * share:.0f} %"


def time_contributions(flow: RecurrentFlow) -> TimeContributions:
    r"""Split the gradient of $W_{hh}$ into its terms, one per time step.

    Arguments:
        flow: of a plain cell, from any framework.

    Raises ValueError for a gated cell, whose terms need the gates, for a flow whose terms do not
    add up to its own gradient of $W_{hh}$, and for one with no gradient at all.
    """
    if not isinstance(flow, RecurrentFlow):
        raise TypeError(f"`flow` (={flow!r}) must be a RecurrentFlow.")
    if flow.cell not in SLOPES_FROM_STATES:
        raise ValueError(f"`flow` (of a {flow.cell}) must be of a plain cell, tanh or ReLU.")
    states = np.asarray(flow.hidden_states, np.float64)
    deltas = np.asarray(flow.hidden_grads, np.float64) * SLOPES_FROM_STATES[flow.cell](states)
    previous = np.concatenate([np.zeros_like(states[:, :1]), states[:, :-1]], axis=1)
    terms = np.einsum("bti,btj->tij", deltas, previous)
    from_the_end = np.cumsum(terms[::-1], axis=0)
    total = from_the_end[-1]
    size = np.linalg.norm(total)
    if size == 0.0 or not np.isfinite(size):
        raise ValueError(f"`flow` (norm of dL/dW_hh {size}) must have a finite, nonzero gradient.")
    given = np.asarray(flow.parameter_grads["w_hh"], np.float64)
    tolerance = 1e-3 if flow.dtype == "float32" else 1e-8
    if np.linalg.norm(total - given) > tolerance * size:
        raise ValueError("`flow` (altered) must hold terms that add up to its gradient of w_hh.")
    errors = np.linalg.norm(from_the_end - total, axis=(1, 2)) / size
    return TimeContributions(
        flow.framework, flow.cell, np.linalg.norm(terms, axis=(1, 2)), errors, float(size)
    )
