"""Where the panels of a figure are, so that a narrow page can put one below the other."""

from __future__ import annotations

from dataclasses import dataclass

from matplotlib.artist import Artist
from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.transforms import Bbox

NARROW = 3.8
"""Inches of a page on a phone. A legend that is wider is taken apart into its columns."""
MARGIN = 0.05
"""Inches of white left around a panel, as far as its neighbors allow."""
NAMES = ({2: ("left", "right"), 3: ("left", "middle", "right")},
         {2: ("top", "bottom"), 3: ("top", "middle", "bottom")})  # fmt: skip


@dataclass(frozen=True)
class Panel:
    """A part of a figure that can be shown alone: axes, or the legend or title of several."""

    left: float  # all four as shares of the figure's width and height, from the top left
    top: float
    right: float
    bottom: float
    place: str  # "left", "top right" and the like; empty for what is no panel of its own


@dataclass(frozen=True)
class _Part:
    """Things that stay together: the edges of their ink in inches, and what is theirs to cut."""

    ink: tuple[float, float, float, float]  # left, top, right, bottom
    room: tuple[float, float, float, float]
    has_axes: bool


def find_panels(figure: Figure) -> list[Panel]:
    """Return the parts of a figure in reading order; nothing if no two axes stand side by side.

    The figure is cut where a straight line crosses nothing: into rows, and each row into columns.
    What overlaps stays together, as does a color bar with its axes.

    Arguments:
        figure: already drawn, since the places of its axes are settled only then.
    """
    if not figure.axes:
        return []
    width, height = (float(inches) for inches in figure.get_size_inches())
    rows = [_cut(row, across=True) for row in _cut(_things(figure, width, height), across=False)]
    rows = [[_join(column) for column in row] for row in rows]
    columns = [sum(part.has_axes for part in row) for row in rows]
    if max(columns, default=0) < 2:
        return []
    panels, above = [], 0
    for row, count in zip(rows, columns, strict=True):
        down, beside = NAMES[1].get(sum(k > 0 for k in columns)), 0
        for part in row:
            place = ""
            if part.has_axes:
                words = (down and down[above], NAMES[0].get(count, [None] * count)[beside])
                place, beside = " ".join(filter(None, words)), beside + 1
            left, top, right, bottom = _with_margin(part)
            panels.append(Panel(left / width, top / height, right / width, bottom / height, place))
        above += count > 0
    return panels


def _things(figure: Figure, width: float, height: float) -> list[_Part]:
    # One of its own, since not every backend's canvas has one.
    renderer = RendererAgg(*figure.bbox.size, figure.dpi)

    def measure(has_axes: bool, *things) -> _Part | None:
        boxes = [box for thing in things if (box := thing.get_tightbbox(renderer)) is not None]
        box = Bbox.union(boxes) if boxes else None
        if box is None or box.width <= 0 or box.height <= 0:
            return None
        x0, y0, x1, y1 = (float(edge) / figure.dpi for edge in box.extents)
        ink = (max(x0, 0.0), max(height - y1, 0.0), min(x1, width), min(height - y0, height))
        return _Part(ink, (0.0, 0.0, width, height), has_axes)

    bars = [ax for ax in figure.axes if ax.get_label() == "<colorbar>"]
    drawn = [ax for ax in figure.axes if ax.axison or ax.has_data() or ax.texts]
    others = [measure(True, ax) for ax in drawn if ax not in bars]
    parts = [part for part in others if part is not None]
    for bar in filter(None, (measure(True, ax) for ax in bars)):
        nearest = min(range(len(parts)), key=lambda k: _distance(parts[k], bar))
        parts[nearest] = _join([parts[nearest], bar])
    rest = [measure(False, text) for text in figure.texts]
    for legend in figure.legends:
        whole = measure(False, legend)
        if whole is not None and whole.ink[2] - whole.ink[0] > NARROW and not legend.get_frame_on():
            rest += [measure(False, *column) for column in _legend_columns(legend, renderer)]
        else:
            rest.append(whole)
    return parts + [part for part in rest if part is not None]


def _legend_columns(legend: Legend, renderer: RendererAgg) -> list[list[Artist]]:
    """Return the handles and texts of each column; the texts of a column begin at one place."""
    legend.draw(renderer)  # its entries have their places from the last drawing, at any resolution
    columns: dict[int, list[Artist]] = {}
    for handle, text in zip(legend.legend_handles, legend.get_texts(), strict=True):
        columns.setdefault(round(text.get_window_extent(renderer).x0), []).extend((handle, text))
    if legend.get_title().get_text():
        columns.setdefault(-1, []).append(legend.get_title())
    return list(columns.values())


def _distance(a: _Part, b: _Part) -> float:
    gaps = [max(a.ink[k] - b.ink[k + 2], b.ink[k] - a.ink[k + 2], 0.0) for k in (0, 1)]
    return sum(gaps)


def _join(parts: list[_Part]) -> _Part:
    inks = list(zip(*(part.ink for part in parts), strict=True))
    ink = (min(inks[0]), min(inks[1]), max(inks[2]), max(inks[3]))
    return _Part(ink, parts[0].room, any(part.has_axes for part in parts))


def _cut(parts: list[_Part], *, across: bool) -> list[list[_Part]]:
    """Split into groups that a straight line keeps apart: columns if `across`, rows if not."""
    low, high = (0, 2) if across else (1, 3)
    groups: list[list[_Part]] = []
    for part in sorted(parts, key=lambda part: part.ink[low]):
        if groups and part.ink[low] < max(other.ink[high] for other in groups[-1]):
            groups[-1].append(part)
        else:
            groups.append([part])
    ends = [max(part.ink[high] for part in group) for group in groups[:-1]]
    starts = [min(part.ink[low] for part in group) for group in groups[1:]]
    cuts = [(end + start) / 2 for end, start in zip(ends, starts, strict=True)]
    rooms = zip([None, *cuts], [*cuts, None], strict=True)
    return [[_confine(part, low, high, first, last) for part in group]
            for group, (first, last) in zip(groups, rooms, strict=True)]  # fmt: skip


def _confine(part: _Part, low: int, high: int, first: float | None, last: float | None) -> _Part:
    room = list(part.room)
    room[low] = room[low] if first is None else first
    room[high] = room[high] if last is None else last
    return _Part(part.ink, tuple(room), part.has_axes)


def _with_margin(part: _Part) -> tuple[float, float, float, float]:
    (left, top, right, bottom), room = part.ink, part.room
    return (max(left - MARGIN, room[0]), max(top - MARGIN, room[1]),
            min(right + MARGIN, room[2]), min(bottom + MARGIN, room[3]))  # fmt: skip
