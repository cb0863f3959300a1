"""Render mathematics while the book is built, so that a page needs no script and no network.

The usual way sends MathJax and its fonts to every reader (about half a megabyte, from another
host). Here KaTeX runs once, inside the build, and leaves HTML with MathML beside it for screen
readers. A formula KaTeX cannot read is a Sphinx warning with file and formula, hence a failed
build under ``-W``, rather than red text that nobody notices.
"""

from __future__ import annotations

import atexit
import html
import json
import re
from functools import lru_cache
from pathlib import Path

from docutils import nodes
from py_mini_racer import MiniRacer
from sphinx.util import logging
from sphinx.util.math import get_node_equation_number

logger = logging.getLogger(__name__)

KATEX = Path(__file__).parent.parent / "_theme" / "katex" / "katex.min.js"
RENDER = """
function render(source, displayMode) {
    try {
        return JSON.stringify({html: katex.renderToString(source, {
            displayMode, output: "htmlAndMathml", throwOnError: true, strict: "error"})});
    } catch (error) { return JSON.stringify({error: error.message}); }
}
"""
# amsmath numbers every line itself; here Sphinx numbers, so KaTeX gets the starred environment.
NUMBERED = re.compile(r"\\(begin|end)\{(align|gather|equation|multline|alignat|eqnarray)\}")


class MathError(ValueError):
    """KaTeX could not read a formula."""


@lru_cache(maxsize=1)
def engine() -> MiniRacer:
    """Return one JavaScript engine with KaTeX in it; starting it takes about 0.1 s."""
    racer = MiniRacer()
    atexit.register(racer.close)  # left to the garbage collector, it hangs Python 3.13 at its exit
    racer.eval(KATEX.read_text(encoding="utf-8"))
    racer.eval(RENDER)
    return racer


@lru_cache(maxsize=8192)
def render(source: str, *, display: bool = False) -> str:
    """Return the HTML and MathML of one LaTeX formula.

    Raises MathError, with KaTeX's own words, if the formula is not valid.
    """
    answer = json.loads(engine().call("render", source, display))
    if "error" in answer:
        raise MathError(answer["error"])
    return answer["html"]


def as_one_formula(source: str) -> str:
    r"""Return display mathematics as a single formula, the way Sphinx writes it for MathJax.

    Blank lines separate equations, and ``\\`` outside an environment breaks a line.
    """
    source = NUMBERED.sub(r"\\\1{\2*}", source).replace("{multline*}", "{gather*}")
    source = source.replace("{eqnarray*}", "{align*}")
    parts = [part.strip() for part in source.split("\n\n") if part.strip()]
    if len(parts) > 1:
        lines = r" \\ ".join(parts)
        return rf"\begin{{aligned}}{lines}\end{{aligned}}"
    source = parts[0] if parts else ""
    outside = re.sub(r"\\begin\{(\w+\*?)\}.*?\\end\{\1\}", "", source, flags=re.DOTALL)
    return rf"\begin{{split}}{source}\end{{split}}" if r"\\" in outside else source


def rendered_or_warned(node: nodes.Element, source: str, *, display: bool) -> str:
    try:
        return render(source, display=display)
    except MathError as error:
        logger.warning("%s in the formula: %s", error, source, location=node, type="math")
        return f'<code class="math-error">{html.escape(source)}</code>'


def stands_alone(node: nodes.math) -> bool:
    """Return whether a heading, a link or a table header consists of this formula only.

    Checkers and some screen readers find no name there, since MathML gives none to its parent.
    """
    place = node.parent
    while isinstance(place, (nodes.paragraph, nodes.inline)) and len(place.children) == 1:
        place = place.parent
    named = isinstance(place, (nodes.title, nodes.reference)) or (
        isinstance(place, nodes.entry) and isinstance(place.parent.parent, nodes.thead)
    )
    return named and len(node.parent.children) == 1 and len(place.children) == 1


def spoken(source: str) -> str:
    """Return a formula's source as words: ``\\sigma'(z)`` becomes "sigma'(z)"."""
    return " ".join(re.sub(r"[\\{}$]", " ", source).split())


def visit_inline(translator, node: nodes.math) -> None:
    formula = rendered_or_warned(node, node.astext(), display=False)
    if stands_alone(node):
        label = html.escape(spoken(node.astext()), quote=True)
        formula = formula.replace("<math ", f'<math aria-label="{label}" ', 1)
    translator.body.append(f'<span class="math">{formula}</span>')
    raise nodes.SkipNode


def visit_block(translator, node: nodes.math_block) -> None:
    formula = rendered_or_warned(node, as_one_formula(node.astext()), display=True)
    translator.body.append(translator.starttag(node, "div", CLASS="math-block"))
    frame = '<div class="math-scroll" tabindex="0" role="group" aria-label="Formula">'
    translator.body.append(frame + formula)
    translator.body.append("</div>")
    if node.get("number"):
        number = get_node_equation_number(translator, node)
        translator.body.append(f'<span class="eqno">({number})')
        translator.add_permalink_ref(node, "Link to this equation")
        translator.body.append("</span>")
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def setup(app) -> dict:
    app.add_html_math_renderer("katex", (visit_inline, None), (visit_block, None))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
