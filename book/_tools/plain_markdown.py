"""MyST Markdown as plain Markdown, for readers whose tool knows no directives.

Colab, GitHub and plain Jupyter show `:::{prf:theorem}` as it is typed. `PlainMarkdown` writes the
same text with what all of them understand: quotations for boxes, `<details>` for what folds,
names and years for citations, and links that lead somewhere from where the copy will be read.

Two of them take formulas out before they read the text, and so find the `>` of a quotation within
a formula of several lines; in a quotation, a formula is written on one.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from _tools import citations

OPENING = re.compile(r"^(?P<fence>:{3,})\{(?P<name>[a-z:-]+)\}\s*(?P<title>.*)$")
OPTION = re.compile(r"^:(?P<key>[a-z-]+):\s*(?P<value>.*)$")
ROLE = re.compile(r"\{(?P<role>[a-z:]+)\}`(?P<content>[^`]+)`")
LINK = re.compile(r"(?<!!)\[(?P<text>[^\]]+)\]\((?P<target>[^)\s]+)\)")
CODE = re.compile(r"^(```|~~~)")
COMMENT = re.compile(r"(?<!\\)%")
KINDS = ("theorem", "lemma", "definition", "proposition", "corollary")
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
        return lines[stop:], self._folded(title, inside) if any(map(str.strip, inside)) else []

    def _blocks(self, lines: list[str]) -> list[str]:
        out: list[str] = []
        k, in_code = 0, False
        while k < len(lines):
            if CODE.match(lines[k]):
                in_code = not in_code
            opened = None if in_code else OPENING.match(lines[k])
            if opened is None:
                out.append(lines[k] if in_code else self._inline(lines[k]))
                k += 1
                continue
            end = self._end(lines, k, opened["fence"])
            options, body = self._split_options(lines[k + 1 : end])
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

    @staticmethod
    def _end(lines: list[str], start: int, fence: str) -> int:
        depth = 0
        for k in range(start, len(lines)):
            if (opened := OPENING.match(lines[k])) and opened["fence"] == fence:
                depth += 1
            elif lines[k].strip() == fence:
                depth -= 1
                if depth == 0:
                    return k
        raise ValueError(f"the box that opens with {lines[start]!r} is never closed")

    @staticmethod
    def _split_options(lines: list[str]) -> tuple[dict[str, str], list[str]]:
        options, k = {}, 0
        while k < len(lines) and (found := OPTION.match(lines[k])):
            options[found["key"]] = found["value"].strip()
            k += 1
        return options, lines[k:]

    def _box(self, name: str, title: str, options: dict[str, str], body: list[str]) -> list[str]:
        if name == "quiz":
            return self._quiz(options, body)
        if name == "solution-end":
            return []
        if name == "solution":
            return self._folded(self._solution_heading(title), self._blocks(body))
        if name in NUMBERED:
            heading = self._number(name, options.get("label"))
            heading += f" ({title})" if title else ""
            return self._quoted(heading, self._blocks(body))
        heading = title if name == "admonition" else name.removeprefix("prf:").capitalize()
        if name not in ("admonition", "note", "tip", "warning", "hint", "important", "prf:proof"):
            raise ValueError(f"no plain form is known of the directive {{{name}}}")
        if "dropdown" in options.get("class", "").split():
            return self._folded(self._inline(heading), self._blocks(body))
        return self._quoted(self._inline(heading), self._blocks(body))

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
        return [*self._blocks(shown), *self._folded("Answer", self._blocks(hidden))]

    @staticmethod
    def _folded(title: str, body: list[str]) -> list[str]:
        return ["<details>", f"<summary>{title}</summary>", "", *body, "", "</details>"]

    @classmethod
    def _quoted(cls, title: str, body: list[str]) -> list[str]:
        body = cls._formulas_on_one_line(body)
        while body and not body[0].strip():
            body = body[1:]
        while body and not body[-1].strip():
            body = body[:-1]
        return [f"> **{title}.**", ">", *(f"> {line}".rstrip() for line in body)]

    @staticmethod
    def _formulas_on_one_line(lines: list[str]) -> list[str]:
        out: list[str] = []
        inside = False
        for line in lines:
            if inside and COMMENT.search(line):
                raise ValueError(f"no comment in a formula of a box, put on one line: {line!r}")
            if inside:
                out[-1] += " " + line.strip()
            else:
                out.append(line.rstrip())
            inside ^= line.count("$$") % 2 == 1
        return out

    def _inline(self, line: str) -> str:
        return LINK.sub(self._link, ROLE.sub(self._role, line))

    def _role(self, found: re.Match) -> str:
        role, content = found["role"], found["content"]
        if role in ("cite:p", "cite:t"):
            self.cited += [k.strip() for k in content.split(",") if k.strip() not in self.cited]
            return citations.cite(content, textual=role == "cite:t")
        if role == "term":
            return content.split("<")[0].strip()
        if role in ("prf:ref", "ref", "numref"):
            return self.labels.get(content, "above")
        raise ValueError(f"no plain form is known of the role {{{role}}}")

    def _link(self, found: re.Match) -> str:
        target = found["target"]
        if re.match(r"^(https?:|mailto:)", target):
            return found[0]
        address = self.resolve(target)
        return f"[{found['text']}]({address})" if address else found["text"]
