"""nbval, with the picture gate, goes red for each kind of stale output and names the cell.

One notebook is stored by refresh, spoiled cell by cell, and run again by pytest, once, with the
very options of the course.
"""

from __future__ import annotations

import base64
import io
import re

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from PIL import Image
from small_notebooks import printed, white_png

IMPORTS = """\
import io, sys
import matplotlib.pyplot as plt
from IPython.display import HTML, Markdown, display"""
FIGURE = """\
figure, axes = plt.subplots(figsize=(4, 3))
axes.plot([1, 2, 3], [1, 4, 9], "o-")
buffer = io.BytesIO()
figure.savefig(buffer, format="png")
plt.close(figure)
display({"image/png": buffer.getvalue(), "text/plain": "The square grows."}, raw=True)"""

SOURCES = {
    "imports": IMPORTS,
    "printed": "print(f'{0.25**9:.3e}')",
    "value": "0.5**10",
    "markdown": "display(Markdown(f'**{2**10}**'))",
    "html": "display(HTML(f'<b>{2**10}</b>'))",
    "stderr": "print('to stderr', file=sys.stderr)",
    "words": FIGURE,
    "picture": FIGURE,
    "pictures": FIGURE,
    "untouched": FIGURE,
    "unrun": "2 + 2",
}


def recolor_a_block(encoded: str) -> str:
    """The picture with 10 x 10 pixels of another color."""
    pixels = np.array(Image.open(io.BytesIO(base64.b64decode(encoded))).convert("RGB"))
    pixels[100:110, 200:210] = (0, 120, 0)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="png")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def spoil(cells: dict) -> None:
    """Make each named cell stale in its own way; `imports` and `untouched` stay."""
    cells["printed"].outputs[0].text = cells["printed"].outputs[0].text.replace("3.8", "3.9")
    cells["value"].outputs[0].data["text/plain"] = "0.0009765626"
    cells["markdown"].outputs[0].data["text/markdown"] = "**1025**"
    cells["html"].outputs[0].data["text/html"] = "<b>1025</b>"
    cells["stderr"].outputs = [printed("to stderr\n")]
    cells["words"].outputs[0].data["text/plain"] = "The square falls."
    picture = cells["picture"].outputs[0].data
    picture["image/png"] = recolor_a_block(picture["image/png"])
    cells["pictures"].outputs[0].data["image/jpeg"] = white_png()
    cells["unrun"].execution_count = None


@pytest.fixture(scope="module")
def report(tmp_path_factory, run_tool) -> str:
    """What pytest prints about the spoiled notebook."""
    path = tmp_path_factory.mktemp("with a space") / "stale.ipynb"
    cells = [new_code_cell(source, id=name) for name, source in SOURCES.items()]
    nbformat.write(new_notebook(cells=cells), path)
    status, printed_text = run_tool("book/_tools/refresh.py", path)
    assert status == 0, printed_text
    notebook = nbformat.read(path, as_version=4)
    spoil({cell.id: cell for cell in notebook.cells})
    nbformat.write(notebook, path)
    status, text = run_tool(
        "-m", "pytest", "-c", "pyproject.toml", "-p", "no:cacheprovider", "-v", "--color=no", path
    )
    assert status == 1, text
    return text


def position(name: str) -> int:
    """nbval counts code cells from 0."""
    return list(SOURCES).index(name)


@pytest.mark.parametrize("name", ["imports", "untouched"])
def test_a_true_output_passes(report, name):
    assert re.search(rf"::Cell {position(name)} PASSED", report)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("printed", "3.9"),
        ("value", "0.0009765626"),
        ("markdown", "1025"),
        ("html", "1025"),
        ("stderr", "stderr"),
        ("words", "The square falls."),
        ("picture", "(id picture): picture 1 is not the stored one: most at x 199"),
        ("pictures", "(id pictures): 2 pictures are stored, 1 are drawn now."),
        ("unrun", "Unrun reference cell has outputs"),
    ],
)
def test_a_stale_output_is_found_and_its_cell_named(report, name, says):
    assert re.search(rf"::Cell {position(name)} FAILED", report)
    own_part = report.split(f"\nCell {position(name)}: ", 1)[1].split("\nCell ", 1)[0]
    assert says in own_part or f"'{says}'" in own_part
