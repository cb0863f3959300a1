"""Turn a picture and the words stored with it into one accessible figure.

``course_lib.plots.show`` stores a picture together with a sentence computed from the same result
(text/plain beside image/png), then a caption for readers of the bare notebook. In the book both
become a single ``<figure>``: the words are the picture's alternative text and its visible caption.
A picture without words, or with a caption that says something else, fails the build.

A picture that says where its panels are (``course_lib.plots.display.PANELS``) is followed by them,
each a cutting of the same file. The style sheet shows the whole on a wide screen, and on a narrow
one the panels, one below the other, with their places in the whole ("left"), which captions name.
"""

from __future__ import annotations

import json
import re
import struct
from pathlib import Path

from docutils import nodes
from PIL import Image
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

logger = logging.getLogger(__name__)

PIXELS_PER_CSS_PIXEL = 1.5  # as `course_lib.plots.show` asks a notebook for it
CAPTION = "*Figure.*"
PANELS = "Panels"  # `course_lib.plots.display.PANELS`: the book is built without course_lib


class worded_figure(nodes.General, nodes.Element):
    """One image node, with the words as an attribute."""


def only_letters(text: str) -> str:
    """Return what survives Markdown: ``*``, ``_`` and quotes may be eaten or changed by it."""
    return re.sub(r"[\W_]+", "", text)


def part(bundle: nodes.Element, mime_type: str) -> nodes.Element | None:
    """Return the container holding one representation of a notebook output, if it has one."""
    for child in bundle.children:
        if isinstance(child, nodes.container) and child.get("mime_type") == mime_type:
            return child
    return None


def is_bundle(node: nodes.Node) -> bool:
    return isinstance(node, nodes.container) and node.get("nb_element") == "mime_bundle"


def stored_words(bundle: nodes.Element) -> str:
    """Return the words of a picture, or an empty string if it has only a Python repr."""
    plain = part(bundle, "text/plain")
    words = plain.astext().strip() if plain is not None else ""
    return "" if words.startswith("<") and words.endswith(">") else words


def caption_text(bundle: nodes.Node | None) -> str | None:
    """Return the text of a following ``*Figure.* ...`` output without that label, or None."""
    if bundle is None or not is_bundle(bundle) or part(bundle, "image/png") is not None:
        return None
    markdown = part(bundle, "text/markdown")
    label = CAPTION.strip("*")
    if markdown is None or not markdown.astext().startswith(label):
        return None
    return markdown.astext()[len(label):]


def png_size(path: Path) -> tuple[int, int]:
    """Return (width, height) in pixels from the header of a PNG file."""
    return struct.unpack(">II", path.read_bytes()[16:24])


def lighter_copy(path: Path) -> Path:
    """Return a lossless WebP of the picture where that is smaller, the picture itself if not."""
    copy = path.with_suffix(".webp")
    if not copy.exists() or copy.stat().st_mtime < path.stat().st_mtime:
        with Image.open(path) as picture:
            picture.save(copy, lossless=True, quality=80, method=4)
    return copy if copy.stat().st_size < path.stat().st_size else path


def stored_panels(path: Path) -> list[list]:
    """Return [left, top, right, bottom, place] of each panel: shares of the size, and a word."""
    with Image.open(path) as picture:
        return json.loads(getattr(picture, "text", {}).get(PANELS, "[]"))


def cutting(source: str, size: tuple[int, int], panel: list) -> str:
    """Return an element that shows one panel of the picture at `source`, never enlarged."""
    left, top, right, bottom, place = panel
    width, height = right - left, bottom - top
    # A share of what is left over, as CSS counts: 100 % lays the right edges on each other.
    across = 100 * left / (1 - width) if width < 1 else 0
    down = 100 * top / (1 - height) if height < 1 else 0
    pixels = size[0] * width, size[1] * height
    style = (
        f"width:min(100%,{pixels[0]:.0f}px);aspect-ratio:{pixels[0]:.1f}/{pixels[1]:.1f};"
        f"background:#fff url('{source}') {across:.2f}% {down:.2f}%/{100 / width:.2f}% auto"
    )
    name = f'<span class="place">{place}</span>' if place else ""
    return f'{name}<span class="panel" style="{style}"></span>'


class WordFigures(SphinxTransform):
    """Replace each picture output, and the caption after it, by a worded figure."""

    default_priority = 300  # while the document is read, before images are collected

    def apply(self, **kwargs) -> None:
        for bundle in list(self.document.findall(is_bundle)):
            if part(bundle, "image/png") is not None:
                self.replace(bundle)

    def replace(self, bundle: nodes.Element) -> None:
        words = stored_words(bundle)
        if not words:
            logger.warning(
                "a figure without words: show it with course_lib.plots.show(ax, words)",
                location=bundle, type="figure",
            )
        siblings = bundle.parent.children
        place = siblings.index(bundle)
        following = siblings[place + 1] if place + 1 < len(siblings) else None
        caption = caption_text(following)
        if caption is not None:
            if only_letters(caption) != only_letters(words):
                logger.warning(
                    "the caption of a figure differs from its words: %r, %r", caption, words,
                    location=bundle, type="figure",
                )
            following.parent.remove(following)
        image = next(part(bundle, "image/png").findall(nodes.image))
        self.size_and_compress(image)
        image["alt"] = words
        bundle.replace_self(worded_figure("", image, words=words))

    def size_and_compress(self, image: nodes.image) -> None:
        path = Path(self.env.srcdir) / self.env.relfn2path(image["uri"], self.env.docname)[0]
        width, height = png_size(path)
        image["width"] = str(round(width / PIXELS_PER_CSS_PIXEL))
        image["height"] = str(round(height / PIXELS_PER_CSS_PIXEL))
        image["panels"] = stored_panels(path)
        image["uri"] = image["uri"].removesuffix(path.name) + lighter_copy(path).name


def visit_figure(translator, node: worded_figure) -> None:
    image = next(node.findall(nodes.image))
    name = translator.builder.images.get(image["uri"], image["uri"])
    attributes = {
        "src": f"{translator.builder.imgpath}/{name}",
        "alt": node["words"],
        "width": image["width"],
        "height": image["height"],
        "loading": "lazy",
        "decoding": "async",
    }
    panels = image.get("panels", [])
    translator.body.append(f'<figure class="plot{" panelled" if panels else ""}">')
    translator.body.append(translator.emptytag(image, "img", "", **attributes))
    if panels:
        words = translator.attval(node["words"])
        size = int(image["width"]), int(image["height"])
        parts = "".join(cutting(attributes["src"], size, panel) for panel in panels)
        # Of this and the picture one is shown, so a screen reader hears the words once.
        translator.body.append(f'<div class="panels" role="img" aria-label="{words}">{parts}</div>')
    # The words are the picture's alternative text already: a screen reader hears them once.
    translator.body.append('<figcaption aria-hidden="true">')
    translator.body.append(f"{translator.encode(node['words'])}</figcaption></figure>\n")
    raise nodes.SkipNode


def setup(app) -> dict:
    app.add_node(worded_figure, html=(visit_figure, None))
    app.add_transform(WordFigures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
