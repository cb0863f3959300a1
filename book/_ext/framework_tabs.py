"""Show adjacent PyTorch and TensorFlow cells as one pair of tabs.

In a notebook the two cells simply follow each other. In the book they share a place, and the
reader's choice is kept on every page. Without JavaScript, and on paper, both are shown, each
under its name. A cell tagged for one framework without its twin fails the build: the course
shows everything in both.
"""

from __future__ import annotations

from docutils import nodes
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

logger = logging.getLogger(__name__)

FRAMEWORKS = {"pytorch": "PyTorch", "tensorflow": "TensorFlow"}


class framework_tabs(nodes.General, nodes.Element):
    """A pair of panels."""


class framework_panel(nodes.General, nodes.Element):
    """The cells of one framework."""


def framework_of(node: nodes.Node | None) -> str | None:
    """Return "pytorch" or "tensorflow" for a cell tagged with it, else None."""
    if not isinstance(node, nodes.container) or node.get("nb_element") != "cell_code":
        return None
    for framework in FRAMEWORKS:
        if f"tag_tab-{framework}" in node["classes"]:
            return framework
    return None


def next_sibling(node: nodes.Node) -> nodes.Node | None:
    siblings = node.parent.children
    place = siblings.index(node) + 1
    return siblings[place] if place < len(siblings) else None


class PairTabs(SphinxTransform):
    """Wrap each run of PyTorch cells and the run of TensorFlow cells after it in tabs."""

    default_priority = 310

    def apply(self, **kwargs) -> None:
        count = 0
        for cell in list(self.document.findall(lambda node: framework_of(node) == "pytorch")):
            if isinstance(cell.parent, framework_panel):
                continue
            first, second = self.run_from(cell, "pytorch"), []
            follower = next_sibling(first[-1])
            if framework_of(follower) == "tensorflow":
                second = self.run_from(follower, "tensorflow")
            if second:
                count += 1
                self.wrap(count, first, second)
        for cell in self.document.findall(lambda node: framework_of(node) is not None):
            if not isinstance(cell.parent, framework_panel):
                logger.warning(
                    "a cell tagged tab-%s has no twin: tab-pytorch comes first and "
                    "tab-tensorflow directly after it", framework_of(cell),
                    location=cell, type="tabs",
                )

    @staticmethod
    def run_from(cell: nodes.Node, framework: str) -> list[nodes.Node]:
        cells = []
        while framework_of(cell) == framework:
            cells.append(cell)
            cell = next_sibling(cell)
        return cells

    @staticmethod
    def wrap(count: int, first: list[nodes.Node], second: list[nodes.Node]) -> None:
        tabs = framework_tabs(count=count)
        first[0].replace_self(tabs)
        for framework, cells in zip(FRAMEWORKS, (first, second), strict=True):
            for cell in cells:
                if cell.parent is not None and cell in cell.parent.children:
                    cell.parent.remove(cell)
            tabs += framework_panel("", *cells, framework=framework, count=count)


def visit_tabs(translator, node: framework_tabs) -> None:
    translator.body.append('<div class="tabs">\n<div class="tab-list" role="tablist" ')
    translator.body.append('aria-label="Framework">')
    for framework, name in FRAMEWORKS.items():
        identity = f"{framework}-{node['count']}"
        chosen = framework == "pytorch"
        translator.body.append(
            f'<button type="button" role="tab" id="tab-{identity}" data-framework="{framework}" '
            f'aria-controls="panel-{identity}" aria-selected="{str(chosen).lower()}"'
            f'{"" if chosen else " tabindex=-1"}>{name}</button>'
        )
    translator.body.append("</div>\n")


def depart_block(translator, node: nodes.Element) -> None:
    translator.body.append("</div>\n")


def visit_panel(translator, node: framework_panel) -> None:
    framework = node["framework"]
    identity = f"{framework}-{node['count']}"
    translator.body.append(
        f'<div class="tab-panel" role="tabpanel" id="panel-{identity}" '
        f'data-framework="{framework}" aria-labelledby="tab-{identity}">'
        f'<p class="tab-title">{FRAMEWORKS[framework]}</p>\n'
    )


def setup(app) -> dict:
    app.add_node(framework_tabs, html=(visit_tabs, depart_block))
    app.add_node(framework_panel, html=(visit_panel, depart_block))
    app.add_transform(PairTabs)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
