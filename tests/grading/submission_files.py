"""Submissions as students hand them in, made from the annotated scripts in `submissions/`.

A script is a notebook in the percent format with a header of comments:

    # What it tries, in a sentence.
    # form: how it is written to the file; "notebook" if left out
    # verdict: double=failed total=passed|timeout     the expected status of each task
    # says: a regular expression that the message or advice of some task must match
    # note: one that a note on the notebook must match
    # problem: one that the reason why it is not graded must match
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent / "submissions"


@dataclass(frozen=True)
class Annotated:
    """A submission with what is expected of the grader."""

    name: str
    data: bytes
    verdict: dict[str, list[str]]
    says: tuple[str, ...]
    notes: tuple[str, ...]
    problem: str


def read_annotated(path: Path) -> Annotated:
    """Read one script."""
    text = path.read_text(encoding="utf-8")
    header = re.match(r"(?:#(?! %%).*\n)*", text).group()
    found = re.findall(r"^# (form|verdict|says|note|problem): ?(.*)$", header, re.MULTILINE)
    fields: dict[str, list[str]] = {}
    for name, value in found:
        fields.setdefault(name, []).append(value)
    pairs = (part.split("=") for part in fields["verdict"][0].split())
    return Annotated(
        name=path.stem,
        data=make_file(make_notebook(text[len(header) :]), fields.get("form", ["notebook"])[0]),
        verdict={task: status.split("|") for task, status in pairs},
        says=tuple(fields.get("says", ())),
        notes=tuple(fields.get("note", ())),
        problem=fields.get("problem", [""])[0],
    )


def make_notebook(text: str) -> dict:
    """Return the notebook of a text in percent format."""
    cells = []
    for part in re.split(r"^# %%", text, flags=re.MULTILINE)[1:]:
        kind, _, source = part.partition("\n")
        markdown = "[markdown]" in kind
        cells.append({
            "cell_type": "markdown" if markdown else "code", "metadata": {},
            "source": source.strip("\n").splitlines(keepends=True),
            **({} if markdown else {"outputs": [], "execution_count": None}),
        })  # fmt: skip
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": cells}


def make_file(notebook: dict, form: str) -> bytes:
    """Return the bytes of a notebook in one of the forms in which files arrive."""
    kind, _, detail = form.partition(" ")
    if kind == "bytes":
        return bytes.fromhex(detail)
    if kind == "text":
        return detail.encode()
    if kind == "nested":
        return b'{"cells": ' + b"[" * 200_000
    if kind == "language":
        notebook["metadata"] = {"kernelspec": {"name": detail, "language": detail}}
    if kind == "kernel":
        notebook["metadata"] = {"kernelspec": {"name": detail, "display_name": detail}}
    if kind == "deep":
        deep = {"cell_type": "code", "source": "x = " + "(" * 50_000 + ")" * 50_000}
        notebook["cells"].insert(0, deep)
    if kind == "strange":
        strange = [None, 7, "code", {}, {"cell_type": "code"}, {"cell_type": "code", "source": 3},
                   {"cell_type": ["code"], "source": "raise"}, {"cell_type": "code", "source": [1]}]
        notebook["cells"] = strange + notebook["cells"]
        notebook["metadata"] = ["none"]
    if kind == "nbformat3":
        cells = [
            {"cell_type": "code", "language": "python", "input": cell["source"]}
            for cell in notebook["cells"]
        ]
        notebook = {"nbformat": 3, "metadata": {}, "worksheets": [{"cells": cells}]}
    text = json.dumps(notebook, ensure_ascii=False, indent=1)
    if kind == "truncated":
        return text[: 2 * len(text) // 3].encode()
    if kind == "conflict":
        lines = text.split("\n")
        return "\n".join([*lines[:5], "<<<<<<< HEAD", *lines[5:], ">>>>>>> other"]).encode()
    encodings = ("utf-8-sig", "utf-16", "latin-1")
    return text.encode(kind if kind in encodings else "utf-8", "surrogatepass")
