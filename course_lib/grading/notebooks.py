"""Reading what students hand in: code cells in order, or one sentence on what is wrong with it.

A file is read as text and JSON, never with a library that runs or trusts anything in it. Byte-order
marks, UTF-16 and the notebook format of before 2015 are read; everything else that is not a
notebook is named.
"""

from __future__ import annotations

import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

MAX_BYTES = 64 << 20
MAX_CELLS = 5_000
MAX_PARTS = 500_000  # lists and objects: each takes far more memory than its two brackets
SIGNATURES = (
    (b"%PDF", "a PDF"), (b"PK\x03\x04", "a zip archive (or an Office document)"),
    (b"\x1f\x8b", "a gzip archive"), (b"\x89PNG", "a picture"), (b"\xff\xd8\xff", "a picture"),
    (b"MZ", "a Windows program"), (b"\x7fELF", "a program"), (b"\x80\x04\x95", "a Python pickle"),
    (b"Rar!", "a RAR archive"), (b"7z\xbc\xaf", "a 7z archive"), (b"SQLite", "a database"),
)  # fmt: skip
MARKS = (
    (b"\xef\xbb\xbf", "utf-8-sig"),
    (b"\xff\xfe\x00\x00", "utf-32"), (b"\x00\x00\xfe\xff", "utf-32"),
    (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"),
)  # fmt: skip
_CHECKED = re.compile(r"\bcheck\(\s*[rbu]?[\"']([A-Za-z0-9_]+)/")


class NotebookError(Exception):
    """What was handed in cannot be graded; the message is a sentence for student and teacher."""


@dataclass(frozen=True)
class Cell:
    """One code cell: its number among the code cells, from 1, and its text."""

    number: int
    source: str


@dataclass(frozen=True)
class Notebook:
    """The code cells of a notebook."""

    cells: tuple[Cell, ...]

    @property
    def text(self) -> str:
        """All code, one cell after another."""
        return "\n".join(cell.source for cell in self.cells)


def read_bytes(path: Path) -> bytes:
    """Return the content of a file, or raise NotebookError: no links, no devices, not huge."""
    try:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        if path.is_symlink():
            raise NotebookError("The file is a link; links are not followed.")
        descriptor = os.open(path, flags | getattr(os, "O_BINARY", 0))
        with os.fdopen(descriptor, "rb") as stream:
            about = os.fstat(stream.fileno())
            if not stat.S_ISREG(about.st_mode):
                raise NotebookError("This is not a file with content.")
            if about.st_size > MAX_BYTES:
                size = about.st_size / (1 << 20)
                raise NotebookError(
                    f"The file has {size:.0f} MB; more than {MAX_BYTES >> 20} MB are not read. "
                    "Clear the outputs and hand it in again."
                )
            return stream.read(MAX_BYTES + 1)
    except OSError as error:
        raise NotebookError(f"The file cannot be read: {error.strerror}.") from None


def parse(data: bytes) -> Notebook:
    """Return the notebook in `data`, or raise NotebookError with what is wrong."""
    return Notebook(tuple(_code_cells(_load(_decode(data)))))


def _decode(data: bytes) -> str:
    if not data.strip():
        raise NotebookError("The file is empty.")
    for start, kind in SIGNATURES:
        if data.startswith(start):
            raise NotebookError(f"This is {kind}, not a notebook.")
    if data.count(b"{") + data.count(b"[") > MAX_PARTS or data.count(b",") > 10 * MAX_PARTS:
        advice = "Clear its outputs and hand it in again."
        raise NotebookError(f"The notebook has too many parts. {advice}")
    encoding = next((name for mark, name in MARKS if data.startswith(mark)), "utf-8")
    try:
        text = data.decode(encoding)
    except UnicodeError:
        raise NotebookError("This is not a notebook: it is not text.") from None
    if not text.strip(" \t\r\n\0\ufeff"):
        raise NotebookError("The file is empty.")
    return text.lstrip("\ufeff")


def _load(text: str) -> dict:
    try:
        found = json.loads(text, parse_int=_short_integer)
    except json.JSONDecodeError as error:
        raise NotebookError(_explain(text, error)) from None
    except (RecursionError, MemoryError, ValueError):
        raise NotebookError("This is not a notebook: its JSON is nested beyond reason.") from None
    if not isinstance(found, dict) or not ("cells" in found or "worksheets" in found):
        raise NotebookError("This is JSON, but not a notebook: it has no cells.")
    return found


def _short_integer(digits: str) -> int:
    return int(digits) if len(digits) < 40 else 0  # no number of a notebook matters here


def _explain(text: str, error: json.JSONDecodeError) -> str:
    start = text.lstrip()[:200].lower()
    if start.startswith("<!doctype") or start.startswith("<html") or start.startswith("<?xml"):
        return "This is a web page, not a notebook: download the notebook itself."
    if re.search(r"^(<<<<<<<|>>>>>>>) ", text, re.MULTILINE):
        return "The notebook holds the marks of an unfinished git merge, and cannot be read."
    if not start.startswith("{"):
        script = re.search(r"^[ \t]*(import|from|def|#)\s", text, re.MULTILINE)
        return f"This is {'a Python script' if script else 'text'}, not a notebook."
    if error.pos >= len(text.rstrip()) - 1 or error.msg.startswith("Unterminated string"):
        return "The notebook is cut off: its end is missing. Save it and hand it in again."
    return f"The notebook is damaged: its JSON breaks off in line {error.lineno}."


def _code_cells(raw: dict) -> Iterable[Cell]:
    cells = raw.get("cells")
    if cells is None:  # the format of before 2015
        sheets = [s for s in _as_list(raw.get("worksheets")) if isinstance(s, dict)]
        cells = [cell for sheet in sheets for cell in _as_list(sheet.get("cells"))]
    if not isinstance(cells, list):
        raise NotebookError("This is JSON, but not a notebook: it has no list of cells.")
    if len(cells) > MAX_CELLS:
        raise NotebookError(f"The notebook has {len(cells)} cells; at most {MAX_CELLS} are run.")
    language = _language(raw)
    if language not in ("", "python", "ipython", "python3"):
        raise NotebookError(f"The notebook is written in {language}, not in Python.")
    code = [c for c in cells if isinstance(c, dict) and c.get("cell_type") == "code"]
    for number, cell in enumerate(code, start=1):
        source = cell.get("source", cell.get("input", ""))
        if isinstance(source, list):
            source = "".join(line for line in source if isinstance(line, str))
        if isinstance(source, str):
            yield Cell(number, source.encode("utf-8", "replace").decode("utf-8"))


def _as_list(value: object) -> list:
    return value if isinstance(value, list) else []


def _language(raw: dict) -> str:
    """Return the language that the notebook says it is in; "" if it says nothing readable."""
    found: object = raw.get("metadata")
    for path in (("language_info", "name"), ("kernelspec", "language")):
        value = found
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str) and value.strip():
            return value.strip().lower()[:40]
    return ""


def named_assignments(notebook: Notebook) -> Counter:
    """Return how often the notebook's cells call `check` for each assignment."""
    return Counter(_CHECKED.findall(notebook.text))


def defined_functions(notebook: Notebook) -> dict[str, list[int]]:
    """Return the names defined at the top of cells, each with the numbers of these cells."""
    found: dict[str, list[int]] = {}
    for cell in notebook.cells:
        for name in re.findall(r"^(?:async +)?def +(\w+)|^(\w+) *= *lambda", cell.source, re.M):
            found.setdefault(name[0] or name[1], []).append(cell.number)
    return found
