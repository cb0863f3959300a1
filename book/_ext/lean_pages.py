"""Make each page light, described and well formed.

Extensions add their scripts and stylesheets to every page; ours needs none of them, since the
theme styles what they produce. This also writes each page's description from its first paragraph,
lets wide tables and outputs in columns scroll, and offers Colab and source links where the
environment names the repository (``COURSE_REPOSITORY``, see `_tools/repository.py`); without it no
button leads nowhere.
"""

from __future__ import annotations

import html
import re
import sys
from pathlib import Path

from docutils import nodes
from pygments.formatters import HtmlFormatter
from sphinx.transforms.post_transforms import SphinxPostTransform

sys.path.append(str(Path(__file__).resolve().parents[1]))
from _tools.repository import published_repository

STYLESHEET = "course.css"
MARK = "\n/* KaTeX and highlighted code, added by the build */\n"
CODE_STYLES = {"light": "a11y-high-contrast-light", "dark": "a11y-dark"}
DESCRIPTION_LENGTH = 155
FRONT_DOOR = """<!DOCTYPE html>
<html lang="{language}">
<head>
<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title><meta name="description" content="{title}: the first page of the book.">
<meta http-equiv="refresh" content="0; url={first}"><link rel="canonical" href="{first}">
</head>
<body><main><h1>{title}</h1><p><a href="{first}">Read the book</a></p></main></body>
</html>
"""
# Roles and elements that docutils writes and accessibility checkers reject.
REPLACEMENTS = (
    (re.compile(r' role="doc-(biblioentry|endnote|footnote)"'), ""),
    (re.compile(r"<aside class=\"(footnote[^\"]*)\"(.*?)>"), r'<div class="\1"\2>'),
    (re.compile(r"</aside>"), "</div>"),
    (re.compile(r' role="list"(?= class="citation-list)'), ""),
    (re.compile(r' id="\w+-content"'), ""),
    (re.compile(r'(?<=<div class="proof admonition") id="proof"'), ""),  # each unnamed proof
    (re.compile(r'<th class="(?:head|stub)[^"]*">(?:<p></p>)?</th>'), "<td></td>"),
    # Whatever may have to scroll sideways can be reached with the keyboard, with or without
    # scripts; course.js takes the stop away again where nothing scrolls.
    (re.compile(r'(<div class="highlight">)<pre>'), r'\1<pre tabindex="0">'),
)


GAP = re.compile(r"\S {2,}\S")


class scrolling_table(nodes.General, nodes.Element):
    """A table that may be wider than the text."""


class ScrollTables(SphinxPostTransform):
    default_priority = 260
    formats = ("html",)

    def run(self, **kwargs) -> None:
        for table in list(self.document.findall(nodes.table)):
            frame = scrolling_table()
            table.replace_self(frame)
            frame += table
            name_rows(table)


class ScrollColumns(SphinxPostTransform):
    """Mark printed outputs that stand in columns: their lines scroll, those of others wrap."""

    default_priority = 265
    formats = ("html",)

    def run(self, **kwargs) -> None:
        for block in self.document.findall(nodes.literal_block):
            if "output" in block["classes"] and stands_in_columns(block.astext()):
                block["classes"].append("columns")


def stands_in_columns(text: str) -> bool:
    """Return whether most lines, of three or more, have a gap of two spaces or more within."""
    lines = [line for line in text.splitlines() if line.strip()]
    return len(lines) > 2 and 2 * sum(bool(GAP.search(line)) for line in lines) > len(lines)


def name_rows(table: nodes.table) -> None:
    """Make the first column row headers where its own header is empty."""
    for head in table.findall(nodes.thead):
        first = head[0][0]
        if not first.astext().strip():
            next(table.findall(nodes.colspec))["stub"] = 1


def visit_table(translator, node: scrolling_table) -> None:
    frame = '<div class="table-scroll" tabindex="0" role="group" aria-label="Table">'
    translator.body.append(frame)


def depart_table(translator, node: scrolling_table) -> None:
    translator.body.append("</div>\n")


def readable(paragraph: nodes.Element) -> str:
    """Return a paragraph's text on one line, without the markup of its formulas."""
    text = re.sub(r"\s+", " ", paragraph.astext()).strip()
    return re.sub(r"\\[a-zA-Z]+|[{}$]", "", text)


def description(doctree: nodes.document, title: str) -> str:
    """Return the page's first real paragraph, cut at a word."""
    for paragraph in doctree.findall(nodes.paragraph):
        text = readable(paragraph)
        if len(text) >= 40 and isinstance(paragraph.parent, nodes.section):
            break
    else:
        text = title
    if len(text) <= DESCRIPTION_LENGTH:
        return text
    return text[:DESCRIPTION_LENGTH].rsplit(" ", 1)[0].rstrip(" ,;:") + " …"


def repository_links(source: str) -> dict[str, str]:
    """Return the links that need a public repository, for a source file relative to its root."""
    repository = published_repository()
    if repository is None or repository.name is None:
        return {}
    links = {"source_url": repository.source_link(source)}
    if source.endswith(".ipynb"):
        links["colab_url"] = repository.colab_link(source)
    return links


def download_links() -> dict[str, str]:
    """Return where the published site keeps the book for reading offline (`_tools/publish.py`)."""
    repository = published_repository()
    if repository is None or repository.site is None:
        return {}
    start = f"{repository.site}/downloads/gradient-pathologies"
    return {"pdf_url": f"{start}.pdf", "offline_url": f"{start}.zip"}


def complete_page(app, pagename, templatename, context, doctree) -> None:
    body = context.get("body", "")
    for pattern, replacement in REPLACEMENTS:
        body = pattern.sub(replacement, body)
    context["body"] = body
    names = [str(getattr(css, "filename", css)) for css in context["css_files"]]
    context["css_files"] = [
        css for css, name in zip(context["css_files"], names, strict=True)
        if name.split("/")[-1] == STYLESHEET
    ]
    words = f"{app.config.html_title}: {context.get('title', 'search')}"
    if doctree is not None:
        words = description(doctree, words)
        source = Path(app.env.doc2path(pagename)).relative_to(app.srcdir).as_posix()
        context.update(repository_links(source))
        if pagename == app.config.root_doc:
            context.update(download_links())
        if source.endswith(".ipynb") and context.get("sourcename"):
            context["notebook_url"] = context["pathto"](f"_sources/{context['sourcename']}", 1)
    metatags = re.sub(r'<meta name="viewport"[^>]*>\s*', "", context.get("metatags") or "")
    if 'name="description"' not in metatags:
        metatags += f'\n  <meta name="description" content="{html.escape(words, quote=True)}">'
    context["metatags"] = metatags


def code_colors() -> str:
    """Return the stylesheet of highlighted code in both color modes."""
    light = HtmlFormatter(style=CODE_STYLES["light"]).get_style_defs(".highlight")
    dark = HtmlFormatter(style=CODE_STYLES["dark"]).get_style_defs(
        'html[data-mode="dark"] .highlight'
    )
    return f"{light}\n@media screen {{\n{dark}\n}}\n"


def complete_stylesheet(app, exception) -> None:
    """Append KaTeX's styles and the code colors to the theme's: one request instead of three."""
    if exception is not None or app.builder.format != "html":
        return
    static = Path(app.outdir) / "_static"
    text = (static / STYLESHEET).read_text(encoding="utf-8")
    if MARK in text:  # nothing was copied anew since the last build
        return
    katex = (static / "katex" / "katex.min.css").read_text(encoding="utf-8")
    katex = katex.replace("url(fonts/", "url(katex/fonts/")
    (static / STYLESHEET).write_text(f"{text}{MARK}{katex}\n{code_colors()}", encoding="utf-8")


def write_front_door(app, exception) -> None:
    """Write index.html, which leads to the first page, as a page that stands by itself."""
    if app.config.root_doc != "index" and exception is None and app.builder.format == "html":
        (Path(app.outdir) / "index.html").write_text(FRONT_DOOR.format(
            language=app.config.language, title=html.escape(app.config.html_title),
            first=app.builder.get_target_uri(app.config.root_doc)), "utf-8")


def setup(app) -> dict:
    app.add_node(scrolling_table, html=(visit_table, depart_table))
    app.add_post_transform(ScrollTables)
    app.add_post_transform(ScrollColumns)
    app.connect("html-page-context", complete_page, priority=900)
    app.connect("build-finished", complete_stylesheet)
    app.connect("build-finished", write_front_door, priority=400)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
