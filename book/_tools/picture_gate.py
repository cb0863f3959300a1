"""A pytest plugin: nbval compares a notebook's words, this compares its pictures too.

nbval skips `image/png`. Here each picture that a cell draws again is held against the stored one,
in the same run (nothing is executed twice); `pictures.py` says when two of them show the same.
Expected, actual and marked pictures of each failure are written to `_build/pictures`.
"""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path

import numpy as np
import pytest
from nbval.plugin import IPyNbCell, IPyNbFile
from PIL import Image, ImageDraw

from _tools.kernel import build_font_cache, kernel_environment
from _tools.notebook_files import display_name
from _tools.pictures import PictureDifference, compare_pictures, pictures_of

PICTURE_FOLDER = Path(__file__).resolve().parents[2] / "_build" / "pictures"


def save_evidence(name: str, stored: str, fresh: str, difference: PictureDifference) -> Path:
    """Write stored, fresh and marked pictures; return the path of the marked one."""
    PICTURE_FOLDER.mkdir(parents=True, exist_ok=True)
    for suffix, encoded in (("stored", stored), ("fresh", fresh)):
        (PICTURE_FOLDER / f"{name}-{suffix}.png").write_bytes(base64.b64decode(encoded))
    marked = Image.open(io.BytesIO(base64.b64decode(fresh))).convert("RGBA")
    page = Image.alpha_composite(Image.new("RGBA", marked.size, "white"), marked).convert("RGB")
    if difference.marked is not None:
        pixels = np.array(page)
        height, width = difference.marked.shape
        pixels[:height, :width][difference.marked] = (255, 0, 255)
        page = Image.fromarray(pixels)
        left, top, right, bottom = difference.box
        frame = (left - 4, top - 4, right + 4, bottom + 4)
        ImageDraw.Draw(page).rectangle(frame, outline=(255, 0, 255))
    path = PICTURE_FOLDER / f"{name}-marked.png"
    page.save(path)
    return path


def explain_changed_pictures(cell: IPyNbCell, fresh: list[str], stored: list[str]) -> list[str]:
    """One sentence for each picture that changed; empty if all show the same."""
    cell_id = cell.cell.get("id", "?")
    place = f"{display_name(cell.path)}, Cell {cell.cell_num} (id {cell_id})"
    if len(fresh) != len(stored):
        return [f"{place}: {len(stored)} pictures are stored, {len(fresh)} are drawn now."]
    sentences = []
    for number, (old, new) in enumerate(zip(stored, fresh, strict=True), start=1):
        difference = compare_pictures(old, new)
        if difference is not None:
            name = re.sub(r"\W+", "-", f"{cell.path.stem}-{cell_id}-{number}")
            evidence = save_evidence(name, old, new, difference)
            sentences.append(
                f"{place}: picture {number} is not the stored one: {difference.describe()}. "
                f"See {evidence}"
            )
    return sentences


def start_kernel_in_its_environment(notebook: IPyNbFile) -> None:
    """Wrap nbval's set-up so that the kernel, and nothing else, gets refresh's environment."""
    start = notebook.setup

    def setup() -> None:
        with kernel_environment():
            build_font_cache()
            start()

    notebook.setup = setup


def compare_pictures_too(cell: IPyNbCell) -> None:
    """Wrap nbval's comparison so that the pictures follow the words."""
    compare_words = cell.compare_outputs

    def compare_outputs(fresh: list, stored: list, **arguments) -> bool:
        same_words = compare_words(fresh, stored, **arguments)
        changed = explain_changed_pictures(cell, pictures_of(fresh), pictures_of(stored))
        cell.comparison_traceback.extend(changed)
        return same_words and not changed

    cell.compare_outputs = compare_outputs


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Extend each notebook, once, and each of its cells."""
    cells = [item for item in items if isinstance(item, IPyNbCell)]
    for notebook in {id(cell.parent): cell.parent for cell in cells}.values():
        start_kernel_in_its_environment(notebook)
    for cell in cells:
        compare_pictures_too(cell)
