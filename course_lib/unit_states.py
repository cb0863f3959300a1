r"""Four things that are easily taken for one another: inactive, dead, always-on, saturated.

Of a unit with preactivation $z(x)$ and activation f, on a data set X:

- *inactive on the input x*: $z(x) \le 0$;
- *dead on X*: $f'(z(x)) = 0$ for every x in X, so that no gradient of any loss on X reaches it;
- *always-on on X*: $z(x) > 0$ for every x in X, so that a ReLU is a linear unit there;
- *saturated at x*: $|f'(z(x))| < s\,\sup|f'|$ with a stated share s, as in `course_lib.saturation`.

The first and the last speak of one input, the other two of a whole data set. All four need nothing
but preactivations, as NumPy arrays, from whatever computed them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import (
    require_array,
    require_integer,
    require_real,
    require_sequence,
)
from course_lib.activations import get_activation


@dataclass(frozen=True, eq=False)
class UnitStates:
    """The states of a layer's units over a data set.

    Fields:
        activation: the activation's name.
        share: the share s of the supremum below which a slope counts as saturated.
        inputs: the number n of inputs looked at.
        active_fractions: fraction of the inputs with z > 0, per unit, shape (units,).
        zero_slope_fractions: fraction of the inputs with f'(z) = 0, per unit, shape (units,).
        saturated_fractions: fraction of the inputs with a small slope, per unit, shape (units,).
        lowest, highest: the smallest and the largest z over the inputs, each of shape (units,).
    """

    activation: str
    share: float
    inputs: int
    active_fractions: np.ndarray = field(repr=False)
    zero_slope_fractions: np.ndarray = field(repr=False)
    saturated_fractions: np.ndarray = field(repr=False)
    lowest: np.ndarray = field(repr=False)
    highest: np.ndarray = field(repr=False)

    @property
    def units(self) -> int:
        """The number of units."""
        return len(self.active_fractions)

    @property
    def dead(self) -> np.ndarray:
        """True for the units with slope 0 on every input, shape (units,)."""
        return self.zero_slope_fractions == 1.0

    @property
    def always_on(self) -> np.ndarray:
        """True for the units with z > 0 on every input, shape (units,)."""
        return self.active_fractions == 1.0

    @property
    def saturated_everywhere(self) -> np.ndarray:
        """True for the units with a small slope on every input, the dead among them, (units,)."""
        return self.saturated_fractions == 1.0

    @property
    def inactive_share(self) -> float:
        """The fraction of all (input, unit) pairs with z <= 0."""
        return float(1.0 - self.active_fractions.mean())

    @property
    def saturated_share(self) -> float:
        """The fraction of all (input, unit) pairs with a small slope."""
        return float(self.saturated_fractions.mean())

    def describe(self) -> str:
        """Say all four: two shares of the (input, unit) pairs and two counts of units."""
        return (
            f"{self.units} {self.activation} units on {self.inputs} inputs: "
            f"{100 * self.inactive_share:.0f} % of the pairs inactive, "
            f"{100 * self.saturated_share:.0f} % saturated; {int(self.dead.sum())} units dead, "
            f"{int(self.always_on.sum())} always on."
        )


def classify_units(
    preactivations: np.ndarray, activation: str, *, share: float = 0.1
) -> UnitStates:
    """Return the states of a layer's units on the data set whose preactivations are given.

    Arguments:
        preactivations: z, shape (n, units), of ALL inputs of the data set (see `count_idle_units`
            for what a single batch would say).
        activation: the activation's name (see `course_lib.ACTIVATIONS`).
        share: the share s of the supremum, above 0 and at most 1.

    Raises TypeError or ValueError for an empty or non-finite array, or an unknown activation.
    """
    f = get_activation(activation)
    z = require_array("preactivations", preactivations, ndim=2)
    share = require_real("share", share, minimum=0.0, exclusive=True, maximum=1.0)
    slopes = np.abs(f.derivative(z))
    return UnitStates(
        activation=activation,
        share=share,
        inputs=len(z),
        active_fractions=np.mean(z > 0, axis=0),
        zero_slope_fractions=np.mean(slopes == 0, axis=0),
        saturated_fractions=np.mean(slopes < share * f.supremum, axis=0),
        lowest=z.min(axis=0),
        highest=z.max(axis=0),
    )


@dataclass(frozen=True, eq=False)
class IdleCounts:
    """How many units of each layer never fire, against the number of inputs that were looked at.

    Fields:
        counts: numbers of inputs, increasing, shape (K,).
        idle: units with z <= 0 on the first `counts[k]` inputs, per layer, shape (layers, K).
        units: the number of units of each layer, shape (layers,).
    """

    counts: np.ndarray
    idle: np.ndarray
    units: np.ndarray

    def describe(self) -> str:
        """Say for the first layer how many units look dead on few inputs and on all."""
        first, last = int(self.idle[0, 0]), int(self.idle[0, -1])
        return (
            f"Of layer 1's {int(self.units[0])} units, {first} never fire on "
            f"{int(self.counts[0])} input{'s' if self.counts[0] > 1 else ''}, and {last} never "
            f"fire on {int(self.counts[-1])}."
        )


def count_idle_units(
    preactivations: Sequence[np.ndarray], counts: Sequence[int]
) -> IdleCounts:
    """Count the units that are inactive on all of the first n inputs, for each n in `counts`.

    Arguments:
        preactivations: one array of shape (inputs, units) per layer, the same inputs in each.
        counts: increasing numbers of inputs, each from 1 to the number given.
    """
    layers = [
        require_array(f"preactivations[{k}]", z, ndim=2)
        for k, z in enumerate(require_sequence("preactivations", preactivations, of="arrays"))
    ]
    counts = [
        require_integer(f"counts[{k}]", n, minimum=1)
        for k, n in enumerate(require_sequence("counts", counts, of="numbers of inputs"))
    ]
    if counts != sorted(set(counts)):
        raise ValueError(f"`counts` (={counts}) must be increasing.")
    for k, z in enumerate(layers):
        if len(z) < counts[-1] or len(z) != len(layers[0]):
            raise ValueError(
                f"`preactivations[{k}]` (shape {z.shape}) must have {len(layers[0])} rows, and at "
                f"least {counts[-1]}."
            )
    highest = [np.maximum.accumulate(z, axis=0) for z in layers]
    return IdleCounts(
        counts=np.array(counts),
        idle=np.array([[int(np.sum(h[n - 1] <= 0)) for n in counts] for h in highest]),
        units=np.array([z.shape[1] for z in layers]),
    )
