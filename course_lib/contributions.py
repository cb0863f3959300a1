r"""What each position of a sequence contributes to the result at its end.

For one sequence it is $\|\partial\mathcal{L}/\partial x_t\|$; over a batch the root mean square of
those norms. Nothing is normalized: a network that has forgotten the beginning shows it by small
numbers, not by a change of shape.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import require_integer
from course_lib.recurrent_results import RecurrentFlow
from course_lib.results import format_number


@dataclass(frozen=True, eq=False)
class InputContributions:
    r"""The size of one sequence's $\partial\mathcal{L}/\partial x_t$ for every position t.

    Fields:
        framework, cell: as in `RecurrentFlow`.
        channel: the input that was looked at, None for all inputs of a step together.
        norms: root mean square over the batch, shape (T,).
    """

    framework: str
    cell: str
    channel: int | None
    norms: np.ndarray = field(repr=False)

    @property
    def length(self) -> int:
        """The number T of positions."""
        return len(self.norms)

    @property
    def span(self) -> float:
        """Decades from the last position down to the first: positive if the first counts less."""
        with np.errstate(divide="ignore"):
            return float(np.log10(self.norms[-1]) - np.log10(self.norms[0]))

    def describe(self) -> str:
        """Say the contributions of the first, the middle and the last position."""
        first, middle, last = (
            format_number(self.norms[k]) for k in (0, self.length // 2, self.length - 1)
        )
        return (
            f"{self.framework}, {self.cell}: position 1 contributes {first}, position "
            f"{self.length // 2 + 1} {middle}, position {self.length} {last}."
        )


def input_contributions(flow: RecurrentFlow, *, channel: int | None = None) -> InputContributions:
    r"""Return what each position contributes, from a flow of any framework.

    Arguments:
        flow: the gradients of a loss that is a mean over the batch, as all of the course's are;
            the factor 1/batch inside it is taken out again.
        channel: one of the inputs, 0 to n_in - 1; None for all of them.
    """
    if not isinstance(flow, RecurrentFlow):
        raise TypeError(f"`flow` (={flow!r}) must be a RecurrentFlow.")
    grads = np.asarray(flow.input_grads, np.float64)
    if channel is not None:
        channel = require_integer("channel", channel, minimum=0)
        if channel >= grads.shape[2]:
            raise ValueError(f"`channel` (={channel}) must be below n_in (={grads.shape[2]}).")
        grads = grads[:, :, [channel]]
    norms = np.sqrt(len(grads)) * np.linalg.norm(grads, axis=(0, 2))
    return InputContributions(flow.framework, flow.cell, channel, norms)
