r"""Histograms of gradients that stay readable: of $\log_{10}|g|$, zeros and non-finite apart.

A gradient's entries spread over decades, and its layers lie decades apart. On a linear axis all but
the largest fall into the bin around zero; on a logarithmic one every layer can be seen, on the same
axis as all others. What has no logarithm is counted beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import (
    require_array,
    require_integer,
    require_real,
    require_sequence,
    require_type,
)
from course_lib.results import format_number


@dataclass(frozen=True, eq=False)
class MagnitudeHistogram:
    r"""How the magnitudes of K tensors are spread over B bins of $\log_{10}|g|$.

    Fields:
        names: the tensors.
        edges: of the bins, in decades, shape (B + 1,).
        counts: entries per bin, shape (K, B).
        below, above: entries that are not zero but outside of the edges, shape (K,).
        zeros, nonfinite: entries that are exactly 0; inf or NaN, shape (K,).
        medians: of the magnitudes that are finite and not zero; NaN if there are none, shape (K,).
    """

    names: tuple[str, ...]
    edges: np.ndarray = field(repr=False)
    counts: np.ndarray = field(repr=False)
    below: np.ndarray = field(repr=False)
    above: np.ndarray = field(repr=False)
    zeros: np.ndarray = field(repr=False)
    nonfinite: np.ndarray = field(repr=False)
    medians: np.ndarray = field(repr=False)

    @property
    def sizes(self) -> np.ndarray:
        """The number of entries of each tensor, shape (K,)."""
        return self.counts.sum(axis=1) + self.below + self.above + self.zeros + self.nonfinite

    @property
    def shares(self) -> np.ndarray:
        """Entries per bin as a share of the tensor's entries, shape (K, B)."""
        return self.counts / self.sizes[:, None]

    @property
    def zero_shares(self) -> np.ndarray:
        """The share of entries that are exactly zero, shape (K,)."""
        return self.zeros / self.sizes

    def describe(self) -> str:
        """Say the medians of the first and the last tensor, and where zeros and non-finite are."""
        first, last = (format_number(self.medians[k]) for k in (0, -1))
        text = f"median magnitude {first} in {self.names[0]}"
        if len(self.names) > 1:
            text += f" and {last} in {self.names[-1]}"
        most = int(np.argmax(self.zero_shares))
        if self.zeros[most]:
            text += f"; most zeros in {self.names[most]} ({100 * self.zero_shares[most]:.0f} %)"
        bad = np.flatnonzero(self.nonfinite)
        if len(bad):
            text += f"; not finite: {int(self.nonfinite.sum())} entries, first in "
            text += self.names[bad[0]]
        return f"{len(self.names)} tensors, {int(self.sizes.sum())} entries: {text}."


def count_magnitudes(
    gradients: Mapping[str, np.ndarray],
    *,
    low: float = -12.0,
    high: float = 4.0,
    bins_per_decade: int = 4,
) -> MagnitudeHistogram:
    """Return the histogram of the magnitudes of each tensor.

    Arguments:
        gradients: name -> array of any shape (`p.grad.numpy()`, `g.numpy()`), not empty.
        low, high: the decades that the bins span, low < high.
        bins_per_decade: at least 1.
    """
    if not isinstance(gradients, Mapping) or len(gradients) == 0:
        raise ValueError(f"`gradients` (={gradients!r}) must map at least one name to an array.")
    low, high = require_real("low", low), require_real("high", high)
    per_decade = require_integer("bins_per_decade", bins_per_decade, minimum=1)
    if not low < high:
        raise ValueError(f"`low` (={low:g}) must be below `high` (={high:g}).")
    edges = np.linspace(low, high, max(1, round((high - low) * per_decade)) + 1)
    rows = [
        _count(require_array(f"gradients[{name!r}]", g, finite=False), edges)
        for name, g in gradients.items()
    ]
    counts, *others = zip(*rows, strict=True)
    return MagnitudeHistogram(
        tuple(str(name) for name in gradients), edges, np.array(counts), *map(np.array, others)
    )


def _count(gradient: np.ndarray, edges: np.ndarray) -> tuple:
    """Return counts, below, above, zeros, nonfinite and median of one tensor."""
    sizes = np.abs(gradient.ravel())
    finite = np.isfinite(sizes)
    positive = sizes[finite & (sizes > 0)]
    logs = np.log10(positive)
    return (
        np.histogram(logs, bins=edges)[0],
        int(np.sum(logs < edges[0])),
        int(np.sum(logs > edges[-1])),
        int(np.sum(sizes == 0)),
        int(np.sum(~finite)),
        # Not np.median, which adds the two in the middle and may overflow.
        float(np.quantile(positive, 0.5)) if len(positive) else float("nan"),
    )


@dataclass(frozen=True, eq=False)
class MagnitudeHistory:
    """Histograms of the same tensors at R steps.

    Fields:
        steps: increasing, shape (R,).
        histograms: one per step, with the same names and edges.
    """

    steps: np.ndarray
    histograms: tuple[MagnitudeHistogram, ...] = field(repr=False)

    def __post_init__(self) -> None:
        steps = require_array("steps", self.steps, ndim=1)
        if np.any(np.diff(steps) <= 0):
            raise ValueError(f"`steps` (={steps}) must be increasing.")
        histograms = require_sequence("histograms", self.histograms, of="MagnitudeHistograms")
        for k, histogram in enumerate(histograms):
            require_type(f"histograms[{k}]", histogram, MagnitudeHistogram)
            same = histogram.names == histograms[0].names and np.array_equal(
                histogram.edges, histograms[0].edges
            )
            if not same:
                raise ValueError(
                    f"`histograms[{k}]` (of {histogram.names}) must have the names and edges of "
                    "the first."
                )
        if len(histograms) != len(steps):
            raise ValueError(f"`histograms` (length {len(histograms)}) must have {len(steps)}.")

    @property
    def names(self) -> tuple[str, ...]:
        """The tensors."""
        return self.histograms[0].names

    def medians(self) -> np.ndarray:
        """Return the median magnitude per step and tensor, shape (R, K)."""
        return np.array([histogram.medians for histogram in self.histograms])

    def zero_shares(self) -> np.ndarray:
        """Return the share of exact zeros per step and tensor, shape (R, K)."""
        return np.array([histogram.zero_shares for histogram in self.histograms])

    def describe(self) -> str:
        """Say what the histograms show at the first and at the last step."""
        return (
            f"Step {self.steps[0]:g}: {self.histograms[0].describe()} Step {self.steps[-1]:g}: "
            f"{self.histograms[-1].describe()}"
        )


def fullest_linear_bin(gradients: Sequence[np.ndarray], *, bins: int = 50) -> np.ndarray:
    """Return the share of each tensor's entries in the fullest of `bins` bins of equal width.

    What a plain `ax.hist(gradient, bins=50)` has to show: near 1, it shows one bar.
    """
    require_sequence("gradients", gradients, of="arrays")
    bins = require_integer("bins", bins, minimum=1)
    arrays = [require_array(f"gradients[{k}]", g) for k, g in enumerate(gradients)]
    return np.array([np.histogram(g, bins=bins)[0].max() / g.size for g in arrays])
