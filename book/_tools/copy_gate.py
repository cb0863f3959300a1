"""What a reader in Colab or plain Jupyter would stumble over in a copy: raw markup, dead ends.

`faults` looks at one copy as those tools do: formulas are taken out first, then Markdown is read,
and of HTML only what folds is understood.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Collection

from nbformat import NotebookNode

from _tools.copy_links import HEADING

FENCED = re.compile(r"^(```+|~~~+)(?P<info>[^\n]*).*?^\1\s*$", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"(?P<role>\{[a-z][a-z:+-]*\})?(?<!`)(`+)(?!`).+?(?<!`)\2(?!`)", re.DOTALL)
FORMULA = re.compile(r"\$\$.*?\$\$|(?<!\\)\$[^$]+\$", re.DOTALL)
DISPLAY = re.compile(r"\$\$(.*?)\$\$", re.DOTALL)
RAW = {
    "a directive": r"^\s*(?:> ?)*:{3,}.*$",
    "a label": r"^\([\w-]+\)=\s*$",
    "a substitution": r"\{\{.*?\}\}",
    "a footnote": r"\[\^[\w-]+\]",
    "an option": r"^:[a-z-]+:.*$",
    "a block attribute": r"^\{[.#][^}]*\}$|\]\{[^}]*\}",
    "HTML that is not shown": r"</?(?!details>|summary>)[a-zA-Z!][^>]*>",
}
LINK = re.compile(r"(?P<picture>!?)\[[^\]]*\]\((?P<target>[^)\s]*)[^)]*\)")
FOLD = re.compile(r"<details>\n<summary>[^$*`_<>\[\]]+</summary>\n\n.*?\n\n</details>", re.DOTALL)


def cell_faults(source: str) -> list[str]:
    """Return what a Markdown cell shows as it is typed, or not at all."""
    found = [] if source.strip() else ["nothing: an empty cell"]
    text = FENCED.sub("", source)
    found += [f"a directive, {code['info']!r}" for code in FENCED.finditer(source)
              if code["info"].startswith("{")]  # fmt: skip
    found += [f"a role, {span[0]!r}" for span in SPAN.finditer(text) if span["role"]]
    text = SPAN.sub("code", text)
    for formula in DISPLAY.findall(text):
        if re.search(r"\n\s*\n", formula):
            found.append(f"a formula with an empty line, {formula[:40]!r}")
        if re.search(r"^>", formula, re.MULTILINE):
            found.append(f"a formula of several lines in a quotation, {formula[:40]!r}")
    text = FORMULA.sub("formula", text)
    for name, pattern in RAW.items():
        found += [f"{name}, {raw!r}" for raw in re.findall(pattern, text, re.MULTILINE)]
    if len(FOLD.findall(source)) != source.count("<details>") or (
        source.count("<details>") != source.count("</details>")
    ):
        found.append("a fold that does not open and close around its text")
    return found


def link_faults(source: str, *, path: str, copies: Collection[str], anchors: set[str]) -> list[str]:
    """Return the links and pictures of a Markdown cell that lead nowhere from the copy."""
    found = []
    for link in LINK.finditer(SPAN.sub("code", FENCED.sub("", source))):
        target, _, anchor = link["target"].partition("#")
        beside = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
        if re.match(r"https?://\S+\.\S+|mailto:\S+@\S+", target):
            continue
        if link["picture"]:
            found.append(f"a picture that is not there, {link['target']!r}")
        elif target and beside not in copies:
            found.append(f"a link to no copy, {link['target']!r}")
        elif not target and anchor not in anchors:
            found.append(f"a link to no heading, {link['target']!r}")
    return found


def faults(copy: NotebookNode, *, path: str, copies: Collection[str]) -> list[str]:
    """Return every fault of a copy, each with the id of its cell.

    Arguments:
        copy: the notebook as Colab opens it.
        path: where it lies on its branch, such as "book/bptt.ipynb".
        copies: all paths on that branch.
    """
    texts = {cell.id: cell.source for cell in copy.cells if cell.cell_type == "markdown"}
    anchors = {f"scrollTo={cell.id}" for cell in copy.cells}
    for source in texts.values():
        anchors |= {found["text"].replace(" ", "-") for found in HEADING.finditer(source)}
    found = []
    for name, source in texts.items():
        here = link_faults(source, path=path, copies=copies, anchors=anchors)
        found += [f"{name}: {what}" for what in cell_faults(source) + here]
    for cell in copy.cells:
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data and len(data["image/png"]) < 1000:
                found.append(f"{cell.id}: a figure that is not embedded")
            words = str(data.get("text/html", "")) + str(data.get("text/markdown", ""))
            if re.search(r"<img|!\[|:::", words):
                found.append(f"{cell.id}: a picture or raw markup in an output")
    return found
