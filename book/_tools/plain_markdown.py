"""MyST Markdown as plain Markdown, for readers whose tool knows no directives.

Colab, GitHub and plain Jupyter show `:::{prf:theorem}` as it is typed. `PlainMarkdown` writes the
same text with what all of them understand: quotations for boxes, `<details>` for what folds,
names and years for citations, and links that lead somewhere from where the copy will be read.
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
QUIZ_ANSWER = re.compile(r"^\*\*Answer: [A-H]\.\*\*$")
KINDS = ("theorem", "lemma", "definition", "proposition", "corollary")
NUMBERED = {f"prf:{kind}": kind.capitalize() for kind in KINDS} | {"exercise": "Exercise"}


class PlainMarkdown:
    """Rewrites the cells of one notebook, in order, since theorems and exercises are counted.

    Arguments:
        chapter: the chapter's number in the book, so that "Theorem 6.1" is the same here and there;
            None for a page without one.
        resolve: from a relative link's target to its address, or None to drop the link.

    `cited` holds the keys cited so far, in order.
    """

    def __init__(self, *, chapter: int | None, resolve: Callable[[str], str | None]) -> None:
        self.prefix = "" if chapter is None else f"{chapter}."
        self.resolve = resolve
        self.counts: dict[str, int] = {}
        self.labels: dict[str, str] = {}
        self.cited: list[str] = []

    def rewrite(self, source: str) -> str:
        """Return the Markdown of one cell.

        Raises:
            ValueError: for a directive or a role that has no plain form here.
        """
        text = "\n".join(self._blocks(source.split("\n")))
        return re.sub(r"\n{3,}", "\n\n", text).strip()

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
            out += ["", *self._box(opened["name"], opened["title"].strip(), options, body), ""]
            k = end + 1
        return out

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
        if name in ("solution", "solution-start"):
            heading = f"Solution to {self.labels.get(title, 'the exercise')}"
            inside = self._blocks(body)
            if name == "solution-start":
                return [f"**{heading}**", *inside]
            return self._folded(heading, inside)
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
        places = [k for k, line in enumerate(body) if QUIZ_ANSWER.match(line)]
        if not places:  # typed: the foreseen mistakes and the way to the answer are folded
            places = [k for k, line in enumerate(body) if line.startswith("- `")][:1]
        shown, hidden = body[: places[0]], body[places[0] :]
        if "answer" in options:
            hidden = [f"**Answer: {options['answer']}**", "", *hidden]
        return [*self._blocks(shown), *self._folded("Answer", self._blocks(hidden))]

    @staticmethod
    def _folded(title: str, body: list[str]) -> list[str]:
        return ["<details>", f"<summary>{title}</summary>", "", *body, "", "</details>"]

    @staticmethod
    def _quoted(title: str, body: list[str]) -> list[str]:
        while body and not body[0].strip():
            body = body[1:]
        while body and not body[-1].strip():
            body = body[:-1]
        return [f"> **{title}.**", ">", *(f"> {line}".rstrip() for line in body)]

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
        if re.match(r"^(https?:|mailto:|#)", target):
            return found[0]
        address = self.resolve(target)
        return f"[{found['text']}]({address})" if address else found["text"]
