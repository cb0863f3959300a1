"""Turn a picture and the words stored with it into one accessible figure.

``course_lib.plots.show`` stores a picture together with a sentence computed from the same result
(text/plain beside image/png), then a caption for readers of the bare notebook. In the book both
become a single ``<figure>``: the words are the picture's alternative text and its visible caption.
A picture without words, or with a caption that says something else, fails the build.
"""

from __future__ import annotations

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
    translator.body.append('<figure class="plot">')
    translator.body.append(translator.emptytag(image, "img", "", **attributes))
    # The words are the picture's alternative text already: a screen reader hears them once.
    translator.body.append('<figcaption aria-hidden="true">')
    translator.body.append(f"{translator.encode(node['words'])}</figcaption></figure>\n")
    raise nodes.SkipNode


def setup(app) -> dict:
    app.add_node(worded_figure, html=(visit_figure, None))
    app.add_transform(WordFigures)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
