"""Pieces of Markdown, as lists of lines: where a box, code or a formula ends; how a box is written.
"""

from __future__ import annotations

import re

OPENING = re.compile(r"^(?P<fence>:{3,}|`{3,}|~{3,})\{(?P<name>[a-z:-]+)\}\s*(?P<title>.*)$")
OPTION = re.compile(r"^:(?P<key>[a-z-]+):\s*(?P<value>.*)$")
CODE = re.compile(r"^(?P<fence>`{3,}|~{3,})")
COMMENT = re.compile(r"(?<!\\)%")


def end_of_box(lines: list[str], start: int) -> int:
    """Return the line that closes the box that opens at `start`; boxes may hold others.

    Raises:
        ValueError: if none does.
    """
    fence, depth = OPENING.match(lines[start])["fence"], 0
    for k in range(start, len(lines)):
        if (opened := OPENING.match(lines[k])) and opened["fence"] == fence:
            depth += 1
        elif lines[k].strip() == fence:
            depth -= 1
            if depth == 0:
                return k
    raise ValueError(f"the box that opens with {lines[start]!r} is never closed")


def end_of_verbatim(lines: list[str], start: int) -> int | None:
    """Return the last line of the code or the formula that begins at `start`, or None."""
    if code := CODE.match(lines[start]):
        end = re.compile(rf"{re.escape(code['fence'])}{code['fence'][0]}*\s*$")
        ends = (k for k in range(start + 1, len(lines)) if end.match(lines[k]))
    elif lines[start].count("$$") % 2:
        ends = (k for k in range(start + 1, len(lines)) if lines[k].count("$$") % 2)
    else:
        return None
    return next(ends, len(lines) - 1)


def split_options(lines: list[str]) -> tuple[dict[str, str], list[str]]:
    """Return the options at the head of a directive's lines, and the lines after them."""
    options, k = {}, 0
    while k < len(lines) and (found := OPTION.match(lines[k])):
        options[found["key"]] = found["value"].strip()
        k += 1
    return options, lines[k:]


def folded(title: str, body: list[str]) -> list[str]:
    """Return what opens at a click; empty lines make its text Markdown again."""
    return ["<details>", f"<summary>{title}</summary>", "", *body, "", "</details>"]


def quoted(title: str, body: list[str]) -> list[str]:
    """Return a quotation under a bold title."""
    body = formulas_on_one_line(body)
    while body and not body[0].strip():
        body = body[1:]
    while body and not body[-1].strip():
        body = body[:-1]
    return [f"> **{title}.**", ">", *(f"> {line}".rstrip() for line in body)]


def formulas_on_one_line(lines: list[str]) -> list[str]:
    """Return the lines with each formula joined to one.

    Jupyter takes formulas out before it reads the text, and would find the `>` of a quotation
    within one of several lines.

    Raises:
        ValueError: if a comment would swallow the rest of a formula.
    """
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
