"""A small notebook as `refresh` would have stored it, and its parts."""

from __future__ import annotations

import base64
import io

from _tools.notebook_files import normalize
from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

WORDS = "The gradient falls by 3.8e-06 over nine layers."


def white_png(width: int = 60, height: int = 40) -> str:
    """A white picture as a notebook stores it."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), "white").save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def code(number: int, source: str, *outputs: NotebookNode, tags: tuple = ()) -> NotebookNode:
    """An executed code cell with the id `code-<number>`."""
    metadata = {"tags": list(tags)} if tags else {}
    return new_code_cell(
        source,
        id=f"code-{number}",
        execution_count=number,
        outputs=list(outputs),
        metadata=metadata,
    )


def printed(text: str, stream: str = "stdout") -> NotebookNode:
    """What `print` leaves."""
    return new_output("stream", name=stream, text=text)


def figure(words: str = WORDS) -> tuple[NotebookNode, NotebookNode]:
    """What `plots.show` leaves: a picture with its words, and the caption."""
    return (
        new_output("display_data", {"image/png": white_png(), "text/plain": words}),
        new_output("display_data", {"text/markdown": f"*Figure.* {words}", "text/plain": words}),
    )


def good_notebook() -> NotebookNode:
    """No gate finds fault with it; each test spoils one thing."""
    cells = [
        new_markdown_cell("# A chapter", id="title"),
        code(1, "print(0.25**9)", printed("3.814697265625e-06\n")),
        code(2, "show(figure, words)", *figure()),
        code(3, "torch_norm", tags=("tab-pytorch",)),
        code(4, "keras_norm", tags=("tab-tensorflow",)),
    ]
    return normalize(new_notebook(cells=cells))
