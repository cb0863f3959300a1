"""MyST Markdown as plain Markdown, for readers whose tool knows no directives.

Colab, GitHub and plain Jupyter show `:::{prf:theorem}` as it is typed. `PlainMarkdown` writes the
same text with what all of them understand: quotations for boxes, `<details>` for what folds,
names and years for citations, and links that lead somewhere from where the copy will be read.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

from _tools import citations
from _tools.markdown_blocks import (
    OPENING,
    end_of_box,
    end_of_verbatim,
    folded,
    quoted,
    split_options,
)  # fmt: skip

# Code and formulas come first: what stands in them is neither role nor link.
INLINE = re.compile(
    r"(?P<code>(?<!`)(?P<ticks>`+)(?!`).+?(?<!`)(?P=ticks)(?!`))|(?P<formula>\$+[^$]+\$+)"
    r"|\{(?P<role>[a-z:]+)\}`(?P<content>[^`]+)`"
    r"|(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)"
)
LABEL = re.compile(r"^\([\w-]+\)=\s*$")
NAMED = ("note", "tip", "hint", "important", "attention", "caution", "warning", "danger")
BOXES = {"admonition": "", "seealso": "See also", "prf:proof": "Proof"} | {
    name: name.capitalize() for name in NAMED
}
KINDS = ("theorem", "lemma", "definition", "proposition", "corollary", "remark", "example",
         "conjecture", "axiom", "assumption", "observation", "property", "criterion")  # fmt: skip
NUMBERED = {f"prf:{kind}": kind.capitalize() for kind in KINDS} | {"exercise": "Exercise"}


class PlainMarkdown:
    """Rewrites the cells of one notebook, in order, since theorems and exercises are counted.

    Arguments:
        chapter: the chapter's number in the book, so that "Theorem 6.1" is the same here and there;
            None for a page without one.
        resolve: from the target of a link within the course, such as "bptt.ipynb" or
            "notation.md#rates", to its address, or None to drop the link.

    `cited` holds the keys cited so far, in order. `solving` is the heading of the solution that is
    open after the last cell, or None: the code cells until it is closed belong to it.
    """

    def __init__(self, *, chapter: int | None, resolve: Callable[[str], str | None]) -> None:
        self.prefix = "" if chapter is None else f"{chapter}."
        self.resolve = resolve
        self.counts: dict[str, int] = {}
        self.labels: dict[str, str] = {}
        self.cited: list[str] = []
        self.solving: str | None = None

    def foresee(self, sources: Iterable[str]) -> None:
        """Number what these cells hold, so that a reference may stand before what it names."""
        for lines in (source.split("\n") for source in sources):
            for k, line in enumerate(lines):
                opened = OPENING.match(line)
                if opened and opened["name"] in NUMBERED:
                    options, _ = split_options(lines[k + 1 :])
                    self._number(opened["name"], options.get("label"))
        self.counts.clear()

    def rewrite(self, source: str) -> str:
        """Return the Markdown of one cell.

        Raises:
            ValueError: for a directive or a role that has no plain form here.
        """
        lines, out = source.split("\n"), []
        if self.solving:
            lines, out = self._to_solution_end(lines, f"{self.solving}, continued")
        text = "\n".join([*out, *self._blocks(lines)])
        return re.sub(r"\n{3,}", "\n\n", text).strip()

    def _to_solution_end(self, lines: list[str], title: str) -> tuple[list[str], list[str]]:
        """Return the lines after the open solution, and its part in `lines`, folded."""
        ends = [k for k, line in enumerate(lines) if line.startswith(":::{solution-end}")]
        stop = ends[0] if ends else len(lines)
        inside = self._blocks(lines[:stop])
        if ends:
            self.solving = None
        return lines[stop:], folded(title, inside) if any(map(str.strip, inside)) else []

    def _blocks(self, lines: list[str]) -> list[str]:
        out: list[str] = []
        k = 0
        while k < len(lines):
            opened = OPENING.match(lines[k])
            if opened is None:
                end = end_of_verbatim(lines, k)
                if end is not None:
                    out += lines[k : end + 1]
                elif not LABEL.match(lines[k]):
                    out.append(self._inline(lines[k]))
                k = (k if end is None else end) + 1
                continue
            end = end_of_box(lines, k)
            options, body = split_options(lines[k + 1 : end])
            if opened["name"] == "solution-start":
                lines, box = self._open_solution(opened["title"].strip(), lines[end + 1 :])
                out += ["", *box, ""]
                k = 0
                continue
            out += ["", *self._box(opened["name"], opened["title"].strip(), options, body), ""]
            k = end + 1
        return out

    def _open_solution(self, label: str, rest: list[str]) -> tuple[list[str], list[str]]:
        """Return the lines after the solution's text, and that text; its code follows, folded."""
        self.solving = heading = self._solution_heading(label)
        rest, box = self._to_solution_end(rest, heading)
        return rest, [*box, "", f"*{heading}, computed: open the folded cell.*"]

    def _solution_heading(self, label: str) -> str:
        return f"Solution to {self.labels.get(label, 'the exercise')}"

    def _box(self, name: str, title: str, options: dict[str, str], body: list[str]) -> list[str]:
        if name == "quiz":
            return self._quiz(options, body)
        if name == "solution-end":
            return []
        if name == "solution":
            return folded(self._solution_heading(title), self._blocks(body))
        if name in NUMBERED:
            heading = self._number(name, options.get("label"))
            heading += f" ({title})" if title else ""
            return quoted(heading, self._blocks(body))
        if name == "math":
            return ["$$", *filter(str.strip, body), "$$"]
        if name in ("code", "code-block"):
            return [f"```{title}", *body, "```"]
        if name in ("tab-set", "tab-item"):
            return [f"**{title}**", "", *self._blocks(body)] if title else self._blocks(body)
        if name not in BOXES:
            raise ValueError(f"no plain form is known of the directive {{{name}}}")
        heading = BOXES[name] or title
        if BOXES[name] and title:  # what stands beside such a name is its first line
            body = [title, "", *body]
        if "dropdown" in options.get("class", "").split():
            return folded(self._inline(heading), self._blocks(body))
        return quoted(self._inline(heading), self._blocks(body))

    def _number(self, name: str, label: str | None) -> str:
        self.counts[name] = self.counts.get(name, 0) + 1
        heading = f"{NUMBERED[name]} {self.prefix}{self.counts[name]}"
        if label:
            self.labels[label] = heading[0].lower() + heading[1:]
        return heading

    def _quiz(self, options: dict[str, str], body: list[str]) -> list[str]:
        """Return the question, its options, and everything else folded."""
        typed = "answer" in options
        ends = "- `" if typed else "**Answer: "  # the foreseen mistakes, or the right letter
        places = [k for k, line in enumerate(body) if line.startswith(ends)]
        if not places:
            raise ValueError(f"no line of the quiz {body[:1]} begins with {ends!r}")
        shown, hidden = body[: places[0]], body[places[0] :]
        if typed:
            near = options.get("tolerance", "1 %")
            shown = [*shown, "*Write down a number, then open the answer.*", ""]
            answer = f"**Answer: {options['answer']}** (within {near})."
            hidden = [f"{answer} If you found", "", *hidden]
        return [*self._blocks(shown), *folded("Answer", self._blocks(hidden))]

    def _inline(self, line: str) -> str:
        return INLINE.sub(self._replace, line)

    def _replace(self, found: re.Match) -> str:
        if found["role"]:
            return self._role(found["role"], found["content"])
        return self._link(found) if found["target"] else found[0]

    def _role(self, role: str, content: str) -> str:
        if role == "math":
            return f"${content}$"
        if role in ("cite", "cite:p", "cite:t"):
            self.cited += [k.strip() for k in content.split(",") if k.strip() not in self.cited]
            return citations.cite(content, textual=role == "cite:t")
        if role == "term":
            return content.split("<")[0].strip()
        if role in ("prf:ref", "ref", "numref") and content in self.labels:
            return self.labels[content]
        raise ValueError(f"no plain form is known of the role {{{role}}}`{content}`")

    def _link(self, found: re.Match) -> str:
        target, text = found["target"], self._inline(found["text"])
        if re.match(r"^(https?:|mailto:)", target):
            return f"[{text}]({target})"
        address = self.resolve(target)
        return f"[{text}]({address})" if address else text
