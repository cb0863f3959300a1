"""Whether two pictures show the same, to the eye rather than byte by byte.

1. Both are laid on white and on black, so that a transparent picture is judged by what it shows
   in a light and in a dark page.
2. Around each pixel, the 3 x 3 patch of one picture is laid over the other, displaced by up to one
   pixel in steps of a quarter, and the distance (mean over the patch of the largest difference in
   a color channel) of the best of these displacements is kept; then the other way round.
3. A touching group of at least `MIN_GROUP` pixels whose distance exceeds `COLOR_TOLERANCE` is a
   changed picture.
4. So is a fainter change of a whole area: a square of `BLOCK` pixels in which every pixel differs
   by more than `BLOCK_TOLERANCE`. A displacement by a pixel changes edges, never such a square.

So a line, a marker or a word may sit up to one pixel elsewhere and be antialiased accordingly,
which is what another processor, font hinting or the last digits of a float do. A marker moved by
two pixels, another color, or another digit on a tick label of 6 points is found: every pair of
digits is tried in tests/notebooks/test_picture_gate.py, on both sides of the line.
"""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

import numpy as np
from PIL import Image
from scipy import ndimage

PICTURE_TYPES = ("image/png", "image/jpeg")

# Of 255, and pixels. In a figure of 150 dots per inch, a curve moved by a part of a pixel or other
# hinting leave groups of at most 4 pixels beyond this; two digits at 6 points at least 15.
COLOR_TOLERANCE = 36
MIN_GROUP = 8
# Above one step of the 16 levels that `course_lib.plots.show` keeps of each color channel: another
# machine may round to the next one.
BLOCK_TOLERANCE = 20
BLOCK = 6
SIZE_TOLERANCE = 1  # pixels; bbox_inches="tight" rounds the size of the whole picture
STEPS = np.arange(-4, 5) / 4  # displacements tried in each direction, in pixels
MARGIN = 2  # pixels around a difference that are needed to judge it


@dataclass(frozen=True)
class PictureDifference:
    """Where two pictures differ most, and how much of them does."""

    box: tuple[int, int, int, int]  # left, top, right, bottom of the largest group, in pixels
    pixels: int  # disagreeing pixels in all groups
    groups: int
    strongest: int  # largest patch distance, 0..255
    marked: np.ndarray | None  # the disagreeing pixels, (height, width) of bool

    def describe(self) -> str:
        """One sentence for the person who has to find the place."""
        if self.marked is None:
            old_width, old_height, new_width, new_height = self.box
            return f"it was {old_width} x {old_height} pixels, now {new_width} x {new_height}"
        left, top, right, bottom = self.box
        return (
            f"most at x {left}..{right}, y {top}..{bottom} from the top left; "
            f"{self.pixels} pixels in {self.groups} places, by up to {self.strongest} of 255"
        )


def decode(encoded: str | bytes) -> np.ndarray:
    """A stored or fresh picture as floats, (height, width, 4), 0..255."""
    raw = encoded if isinstance(encoded, bytes) else base64.b64decode(encoded)
    return np.asarray(Image.open(io.BytesIO(raw)).convert("RGBA"), dtype=np.float32)


def on_pages(picture: np.ndarray, is_opaque: bool) -> np.ndarray:
    """Color on white and, unless both pictures are opaque, on black: (height, width, 3 or 6)."""
    alpha = picture[..., 3:] / 255.0
    ink = picture[..., :3] * alpha
    on_white = ink + 255.0 * (1.0 - alpha)
    return on_white if is_opaque else np.concatenate([on_white, ink], axis=-1)


def displaced(picture: np.ndarray, rows: float, columns: float) -> np.ndarray:
    """The picture moved by a part of a pixel, interpolated linearly, its edge repeated."""
    for axis, distance in ((0, rows), (1, columns)):
        whole = int(np.floor(distance))
        part = distance - whole
        padded = np.pad(picture, [(2, 2) if a == axis else (0, 0) for a in range(3)], mode="edge")
        take = np.arange(picture.shape[axis]) + 2 - whole
        moved = padded.take(take, axis=axis)
        if part:
            moved = (1.0 - part) * moved + part * padded.take(take - 1, axis=axis)
        picture = moved
    return picture


def distances(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Patch distance of each pixel of `one` from the best displacement of `other`, 0..255."""
    best = np.full(one.shape[:2], 255.0, dtype=np.float32)
    for rows in STEPS:
        for columns in STEPS:
            difference = np.abs(one - displaced(other, rows, columns)).max(axis=-1)
            np.minimum(best, ndimage.uniform_filter(difference, 3, mode="nearest"), out=best)
    return best


def compare_pictures(stored: str | bytes, fresh: str | bytes) -> PictureDifference | None:
    """None if the two PNG or JPEG pictures show the same; else where they differ."""
    if stored == fresh:
        return None
    old, new = decode(stored), decode(fresh)
    if np.abs(np.subtract(old.shape, new.shape)).max() > SIZE_TOLERANCE:
        box = (old.shape[1], old.shape[0], new.shape[1], new.shape[0])
        return PictureDifference(box, 0, 0, 255, None)
    height, width = min(old.shape[0], new.shape[0]), min(old.shape[1], new.shape[1])
    is_opaque = min(old[..., 3].min(), new[..., 3].min()) == 255.0
    old, new = (on_pages(p[:height, :width], is_opaque) for p in (old, new))
    distance = np.zeros((height, width), dtype=np.float32)
    difference = np.abs(old - new).max(axis=-1)
    areas = ndimage.binary_opening(difference > BLOCK_TOLERANCE, np.ones((BLOCK, BLOCK)))
    in_place = ndimage.uniform_filter(difference, 3, mode="nearest")
    rows, columns = np.nonzero(in_place > COLOR_TOLERANCE)
    if rows.size:
        # Outside this window each patch agrees where it lies, so no displacement need be tried.
        window = tuple(
            slice(max(place.min() - MARGIN, 0), place.max() + MARGIN + 1)
            for place in (rows, columns)
        )
        old, new = old[window], new[window]
        distance[window] = np.maximum(distances(old, new), distances(new, old))
    distance[areas] = np.maximum(distance, difference)[areas]
    return find_groups(distance, areas | (distance > COLOR_TOLERANCE))


def find_groups(distance: np.ndarray, is_off: np.ndarray) -> PictureDifference | None:
    """Group the pixels that are too far off; None if no group is large enough to be seen."""
    labels, count = ndimage.label(is_off, structure=np.ones((3, 3)))
    sizes = np.bincount(labels.ravel(), minlength=count + 1)
    sizes[0] = 0
    if sizes.max() < MIN_GROUP:
        return None
    marked = (sizes >= MIN_GROUP)[labels]
    rows, columns = ndimage.find_objects(labels)[int(sizes.argmax()) - 1]
    return PictureDifference(
        box=(columns.start, rows.start, columns.stop - 1, rows.stop - 1),
        pixels=int(marked.sum()),
        groups=int((sizes >= MIN_GROUP).sum()),
        strongest=int(distance[marked].max()),
        marked=marked,
    )


def pictures_of(outputs: list) -> list[str]:
    """The encoded pictures among a cell's outputs, in order."""
    return [
        output["data"][mime]
        for output in outputs
        for mime in PICTURE_TYPES
        if mime in output.get("data", {})
    ]
