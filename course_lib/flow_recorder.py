"""Keeps what a monitor measures: cheap when a step is sampled, bounded in memory.

A sample's numbers are taken at once and worked out later, many samples in one go: what NumPy does
for one sample it does for thirty in nearly the same time.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from operator import attrgetter

import numpy as np

from course_lib._validation import require_integer, require_real
from course_lib.monitoring import (
    GATE_KINDS,
    HELD,
    ONE_SIDED,
    FlowRecord,
    NonFiniteEvent,
    ParameterState,
    Sample,
    Site,
)

WAITING = 32
"""Samples that may wait to be worked out together."""

WAITING_UNITS = 1 << 20
"""Units whose counts may wait with them."""

_SITE = attrgetter("name", "kind", "activation")
_SITE_NUMBERS = attrgetter("size", "rows", "norm", "grad_norm")
_COUNTS = attrgetter("active", "flat")
_PARAMETER = attrgetter("name", "layer", "ndim", "trainable")
_PARAMETER_NUMBERS = attrgetter("grad_norm", "norm", "update")


@dataclass(frozen=True)
class Columns:
    """What names the columns of a sample.

    Fields:
        sites: (name, kind, activation) per call of a layer.
        units: how many units the active and the flat counts of each have, None without counts.
        parameters: (name, layer, rank, trainable) per parameter.
    """

    sites: list[tuple]
    units: list[tuple[int | None, int | None]]
    parameters: list[tuple]


@dataclass
class Block:
    """Samples in a row that have the same columns: S sites and P parameters.

    Fields:
        steps: shape (R,).
        sites: (R, S, 7): scale, gradient norm, then the fractions active, dead, always on,
            saturated and held.
        weights: (R, P, 3): gradient norm, norm, update ratio.
    """

    columns: Columns
    steps: np.ndarray
    sites: np.ndarray
    weights: np.ndarray

    def keep(self, which: np.ndarray) -> None:
        """Let go of the samples at which the mask `which` is false."""
        self.steps, self.sites, self.weights = (
            self.steps[which], self.sites[which], self.weights[which],
        )  # fmt: skip


class FlowRecorder:
    """Keeps samples within a bound: when full, every second one goes and the interval doubles.

    Arguments:
        framework: "PyTorch", "TensorFlow" or "NumPy".
        every: sampling interval in steps, at least 1.
        max_records: how many samples are kept, at least 2.
        share: the share s of the largest slope below which a value counts as saturated.
    """

    MAX_EVENTS = 200

    def __init__(self, *, framework: str, every: int, max_records: int, share: float) -> None:
        self.framework = framework
        self.every = require_integer("every", every, minimum=1)
        self.max_records = require_integer("max_records", max_records, minimum=2)
        self.share = require_real("share", share, minimum=0.0, exclusive=True, maximum=1.0)
        self.interval = self.every
        self._blocks: list[Block] = []
        self._columns = Columns([], [], [])
        self._layers: dict[str, list] = {}  # kind, activation
        self._parameters: dict[str, list] = {}  # layer, rank, trainable
        self._waiting: list[tuple[int, list[tuple], list[tuple], list[np.ndarray]]] = []
        self._units: dict[str, tuple[np.ndarray, int, np.ndarray]] = {}
        self._events: dict[tuple[str, str], NonFiniteEvent] = {}
        self._lost_steps: list[int] = []
        self._left_over: list[int] = []

    def wants(self, step: int) -> bool:
        """Return whether `step` is due by the interval in force."""
        return step % self.interval == 0

    # Taking --------------------------------------------------------------------------------

    def add(self, sample: Sample) -> None:
        """Store one filled sample; its sites and parameters may be filled anew afterwards."""
        sites, parameters = sample.sites, sample.parameters
        numbers = list(map(_SITE_NUMBERS, sites))
        weights = list(map(_PARAMETER_NUMBERS, parameters))
        counts = list(map(_COUNTS, sites))
        columns = Columns(
            list(map(_SITE, sites)),
            [(None if a is None else len(a), None if f is None else len(f)) for a, f in counts],
            list(map(_PARAMETER, parameters)),
        )
        if columns != self._columns:
            self._work_out()
            self._columns = columns
            self._layers.update({name: rest for name, *rest in columns.sites})
            self._parameters.update({name: rest for name, *rest in columns.parameters})
        # A sum is finite if every term is, but for sums beyond 1e308, which are looked at as well.
        if not math.isfinite(sum(filter(None, chain(*numbers, *weights)))):
            self._notice(sample)
        if sample.left_over:
            self._left_over.append(sample.step)
        self._waiting.append((sample.step, numbers, weights, counts))
        held = len(self._waiting) * sum(filter(None, chain(*columns.units)))
        kept = len(self._waiting) + sum(len(block.steps) for block in self._blocks)
        if len(self._waiting) >= WAITING or held > WAITING_UNITS or kept > self.max_records:
            self._work_out()
        if kept > self.max_records:
            self._thin()

    def _thin(self) -> None:
        self.interval *= 2
        steps = np.concatenate([block.steps for block in self._blocks])
        kept = steps % self.interval == 0
        if not kept.any():
            kept = np.arange(len(steps)) % 2 == 0
        ends = np.cumsum([len(block.steps) for block in self._blocks])
        for block, which in zip(self._blocks, np.split(kept, ends[:-1]), strict=True):
            block.keep(which)
        self._blocks = [block for block in self._blocks if len(block.steps)]

    def _notice(self, sample: Sample) -> None:
        """Keep the first non-finite value per place, in the order of a step's computations."""
        for quantity, name, owner in chain(
            (("activation", "norm", site) for site in sample.sites),
            _backwards(sample),
            (("weight", "norm", parameter) for parameter in sample.parameters),
        ):
            value = getattr(owner, name)
            key = (quantity, owner.name)
            if value is None or math.isfinite(value) or key in self._events:
                continue
            if len(self._events) < self.MAX_EVENTS:
                what = "nan" if np.isnan(value) else "inf"
                self._events[key] = NonFiniteEvent(sample.step, owner.name, quantity, what)
        if not all(p.grad_norm is None or math.isfinite(p.grad_norm) for p in sample.parameters):
            self._lost_steps.append(sample.step)

    # Working out ---------------------------------------------------------------------------

    def _work_out(self) -> None:
        """Turn the samples that wait, which have the same columns, into a block."""
        if not self._waiting:
            return
        steps, numbers, weights, counts = zip(*self._waiting, strict=True)
        self._waiting = []
        columns, steps = self._columns, np.array(steps, dtype=np.int64)
        shape = (len(steps), len(columns.sites), 4)
        sizes = np.array(numbers, dtype=np.float64).reshape(shape)  # None becomes NaN
        size, rows, norm, grad = (sizes[..., k] for k in range(4))
        sites = np.full((*shape[:2], 7), np.nan)
        sites[..., 0] = norm / np.sqrt(np.maximum(size, 1))
        sites[..., 1] = grad
        weights = np.array(weights, dtype=np.float64).reshape(len(steps), -1, 3)
        with np.errstate(divide="ignore", invalid="ignore"):
            self._count_active(sites, steps, counts, size, rows)
            self._count_flat(sites, counts, size, rows)
            ratios = np.where(weights[..., 1] == 0, np.nan, weights[..., 2] / weights[..., 1])
        weights[..., 2] = ratios
        self._blocks.append(Block(columns, steps, sites, weights))

    def _count_active(
        self, sites: np.ndarray, steps: np.ndarray, counts: tuple, size: np.ndarray,
        rows: np.ndarray,
    ) -> None:  # fmt: skip
        """Fill in the fractions that the active counts tell; remember each unit's last activity.

        Only a ReLU's say which units are dead and what share of the values is flat.
        """
        columns = self._columns
        which = [k for k, (_, _, kind) in enumerate(columns.sites)
                 if columns.units[k][0] and kind in ONE_SIDED]  # fmt: skip
        if not which:
            return
        table, starts, units = _gather(counts, which, 0)
        relu = np.array([columns.sites[k][2] == "relu" for k in which])
        active = np.add.reduceat(table, starts, axis=1, dtype=np.float64) / size[:, which]
        full = table == np.repeat(rows[:, which], units, axis=1)
        always, dead = (np.add.reduceat(mask, starts, axis=1, dtype=np.int64) / units
                        for mask in (full, table == 0))  # fmt: skip
        sites[:, which, 2] = active
        sites[:, which, 3] = np.where(relu, dead, np.nan)
        sites[:, which, 4] = always
        sites[:, which, 5] = np.where(relu, 1 - active, np.nan)
        last = np.where(table > 0, steps[:, None], -1).max(axis=0)
        for k, seen in zip(which, np.split(last, starts[1:]), strict=True):
            name = columns.sites[k][0]
            before = self._units.get(name)
            if before is not None and len(before[2]) == len(seen):
                seen = np.maximum(seen, before[2])
            self._units[name] = (counts[-1][k][0], int(rows[-1, k]), seen)

    def _count_flat(
        self, sites: np.ndarray, counts: tuple, size: np.ndarray, rows: np.ndarray
    ) -> None:
        """Fill in what the flat counts tell, where the active ones have not told it already."""
        columns = self._columns
        which = [k for k, (active, flat) in enumerate(columns.units)
                 if flat and (active is None or columns.sites[k][2] != "relu")]  # fmt: skip
        if not which:
            return
        table, starts, units = _gather(counts, which, 1)
        one_sided = np.array([columns.sites[k][2] in ONE_SIDED for k in which])
        flat = np.add.reduceat(table, starts, axis=1, dtype=np.float64)
        sites[:, which, 5] = flat / size[:, which]
        full = table == np.repeat(rows[:, which], units, axis=1)
        dead = np.add.reduceat(full, starts, axis=1, dtype=np.int64) / units
        sites[:, which, 3] = np.where(one_sided, dead, sites[:, which, 3])
        gates = np.array([columns.sites[k][2] in GATE_KINDS for k in which])
        still = table >= HELD * np.repeat(rows[:, which], units, axis=1)
        held = np.add.reduceat(still, starts, axis=1, dtype=np.int64) / units
        sites[:, which, 6] = np.where(gates, held, np.nan)

    # Giving --------------------------------------------------------------------------------

    def record(self) -> FlowRecord:
        """Return what was kept so far."""
        self._work_out()
        layers, parameters = self._layers, self._parameters
        *tables, held = self._table("sites", layers, 7)
        weights = self._table("weights", parameters, 3)
        units = [self._units.get(name) for name in layers]
        return FlowRecord(
            self.framework,
            self.every,
            tuple(layers),
            tuple(kind for kind, _ in layers.values()),
            tuple(activation for _, activation in layers.values()),
            np.concatenate([np.zeros(0, np.int64), *(block.steps for block in self._blocks)]),
            *tables,
            tuple(parameters),
            tuple(layer for layer, _, _ in parameters.values()),
            tuple(rank for _, rank, _ in parameters.values()),
            tuple(trainable for _, _, trainable in parameters.values()),
            *weights,
            tuple(None if u is None else u[0] / u[1] for u in units),
            tuple(None if u is None else u[2].copy() for u in units),
            tuple(self._events.values()),
            tuple(self._lost_steps),
            tuple(self._left_over),
            held_fractions=held,
        )

    def _table(self, which: str, names: dict[str, object], depth: int) -> list[np.ndarray]:
        """Return `depth` arrays, samples by names, NaN where a sample lacks the name."""
        place = {name: k for k, name in enumerate(names)}
        parts = [np.zeros((0, len(names), depth))]
        for block in self._blocks:
            keys = block.columns.sites if which == "sites" else block.columns.parameters
            part = np.full((len(block.steps), len(names), depth), np.nan)
            part[:, [place[key[0]] for key in keys]] = getattr(block, which)
            parts.append(part)
        return [np.ascontiguousarray(t) for t in np.moveaxis(np.concatenate(parts), 2, 0)]


def _backwards(sample: Sample) -> Iterator[tuple[str, str, Site | ParameterState]]:
    """Yield (quantity, field, owner) of every gradient in the order of the backward pass.

    A layer's weights follow the gradient at its output, or, if it holds other layers, that at the
    output of the first of them: what spoils both a layer's weights and its input lies in the layer.
    """
    first: dict[str, int] = {}
    for place, site in enumerate(sample.sites):
        name = site.name.split("#")[0]
        for end in (m.start() for m in re.finditer(r"[./]|$", name)):
            first.setdefault(name[:end], place)
    weights: dict[int, list[ParameterState]] = {}
    for parameter in reversed(sample.parameters):
        weights.setdefault(first.get(parameter.layer, -1), []).append(parameter)
    for place in range(len(sample.sites) - 1, -1, -1):
        yield "activation gradient", "grad_norm", sample.sites[place]
        for parameter in weights.get(place, ()):
            yield "weight gradient", "grad_norm", parameter
    for parameter in weights.get(-1, ()):
        yield "weight gradient", "grad_norm", parameter


def _gather(counts: tuple, which: list[int], side: int) -> tuple[np.ndarray, ...]:
    """Return the counts of some sites, samples by units, where each site begins, and its units."""
    table = np.stack([np.concatenate([sample[k][side] for k in which]) for sample in counts])
    units = np.array([len(counts[0][k][side]) for k in which])
    return table, np.cumsum(units) - units, units
