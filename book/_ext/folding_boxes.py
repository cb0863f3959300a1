"""Render a box marked ``:class: dropdown``, or a hidden cell, as a native ``<details>``.

Solutions and proofs fold away. The browser's own element opens with the keyboard, is found by
"find in page" in current browsers, and needs no script, unlike the toggle buttons it replaces.
"""

from __future__ import annotations

from docutils import nodes
from myst_nb.sphinx_ import HideCodeCellNode
from sphinx.transforms.post_transforms import SphinxPostTransform


class folding_box(nodes.General, nodes.Element):
    """A box whose title opens and closes it."""


class folding_title(nodes.General, nodes.TextElement):
    """What is shown while the box is closed."""


def admonition_name(node: nodes.Element) -> str:
    """Return the class a box has from its type, such as "note"; "" for a titled admonition."""
    name = type(node).__name__
    return "" if name.endswith("_node") or name == "admonition" else name


class FoldBoxes(SphinxPostTransform):
    """Replace boxes of class "dropdown", after their titles and references are resolved."""

    default_priority = 250
    formats = ("html",)

    def run(self, **kwargs) -> None:
        def folds(node: nodes.Node) -> bool:
            return isinstance(node, nodes.Admonition) and "dropdown" in node["classes"]

        for node in list(self.document.findall(folds)):
            children = list(node.children)
            if children and isinstance(children[0], nodes.title):
                title = list(children.pop(0).children)
            else:
                title = [nodes.Text(admonition_name(node).capitalize())]
            box = folding_box(ids=node["ids"], classes=[*node["classes"], admonition_name(node)])
            box += folding_title("", "", *unlinked(title))
            box += children
            node.replace_self(box)


def unlinked(children: list[nodes.Node]) -> list[nodes.Node]:
    """Return title nodes with links replaced by their text: a summary is itself a control."""
    plain = []
    for child in children:
        plain += child.children if isinstance(child, nodes.reference) else [child]
    return plain


def visit_box(translator, node: folding_box) -> None:
    translator.body.append(translator.starttag(node, "details", CLASS="admonition"))


def depart_box(translator, node: folding_box) -> None:
    translator.body.append("</details>\n")


def visit_title(translator, node: folding_title) -> None:
    translator.body.append('<summary class="admonition-title">')


def depart_title(translator, node: folding_title) -> None:
    translator.body.append("</summary>\n")


def visit_hidden_cell(translator, node: HideCodeCellNode) -> None:
    """Replace MyST-NB's summary, whose label for screen readers differs from its visible text."""
    translator.body.append(translator.starttag(node, "details", CLASS="hidden-cell"))
    translator.body.append(f"<summary>{translator.encode(node['prompt_show'])}</summary>\n")


def setup(app) -> dict:
    app.add_node(folding_box, html=(visit_box, depart_box))
    app.add_node(folding_title, html=(visit_title, depart_title))
    app.add_node(HideCodeCellNode, override=True, html=(visit_hidden_cell, depart_box))
    app.add_post_transform(FoldBoxes)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
