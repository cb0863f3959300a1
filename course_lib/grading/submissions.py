"""The files of a class: found in a folder, named, and told apart by their content."""

from __future__ import annotations

import hashlib
import os
import re
import unicodedata
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from course_lib.checks.task import NOTEBOOKS
from course_lib.grading.errors import GradingError
from course_lib.grading.notebooks import NotebookError, named_assignments, parse, read_bytes

COMPANIONS = (".csv", ".png", ".jpg", ".jpeg", ".gif", ".svg", ".md", ".npy", ".npz", ".log")


@dataclass(frozen=True)
class Submission:
    """One file that was handed in.

    Fields:
        name: its path inside the folder, with /, in one Unicode form and printable.
        path: where it lies.
        page: the name of its feedback page, without ending: letters and digits of `name`.
    """

    name: str
    path: Path
    page: str

    def read(self) -> bytes:
        """Return its content, or raise NotebookError."""
        return read_bytes(self.path)


def find_submissions(folder: Path, leave_out: list[Path]) -> tuple[list[Submission], list[str]]:
    """Return what was handed in, sorted by name, and the names of the files that are left aside.

    Left aside are pictures, tables and other companions of a notebook, and whatever lies beside a
    notebook in a student's own folder. Hidden files and links to folders are not looked at.
    """
    if not folder.is_dir():
        raise GradingError(f"There is no folder {folder}.")
    found, aside = [], []
    for place, folders, files in os.walk(folder):
        folders[:] = sorted(
            name for name in folders
            if not name.startswith((".", "__MACOSX")) and Path(place, name) not in leave_out
        )  # fmt: skip
        own = Path(place) != folder and any(name.lower().endswith(".ipynb") for name in files)
        for name in files:
            path = Path(place, name)
            if name.startswith((".", "~$")) or path in leave_out:
                continue
            ending = path.suffix.lower()
            companion = ending in COMPANIONS or (own and ending != ".ipynb")
            (aside if companion else found).append(path)
    if not found:
        raise GradingError(f"There is no notebook in {folder}.")
    found.sort(key=lambda path: (_name(path, folder), os.fsencode(path)))
    names = _each_different([_name(path, folder) for path in found])
    pages = _pages(names, [os.fsencode(path.relative_to(folder)) for path in found])
    submissions = [Submission(*parts) for parts in zip(names, found, pages, strict=True)]
    return submissions, sorted(_name(path, folder) for path in aside)


def _each_different(names: list[str]) -> list[str]:
    """Number the names that differ on disk and look the same."""
    seen: Counter = Counter()
    different = []
    for name in names:
        seen[name] += 1
        different.append(name if seen[name] == 1 else f"{name} [{seen[name]}]")
    return different


def _name(path: Path, folder: Path) -> str:
    text = path.relative_to(folder).as_posix().encode("utf-8", "replace").decode("utf-8")
    text = unicodedata.normalize("NFC", text)
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in text)


def _pages(names: list[str], raw: list[bytes]) -> list[str]:
    """Return a file name for each page: readable, safe on every system, and each different."""
    plain = []
    for name in names:
        text = unicodedata.normalize("NFKD", re.sub(r"\.ipynb$", "", name, flags=re.I))
        text = re.sub(r"[^A-Za-z0-9._-]+", "_", text.encode("ascii", "ignore").decode())
        plain.append(text.strip("._-")[:80] or "submission")
    counts = Counter(text.lower() for text in plain)
    return [
        f"{text}-{hashlib.sha256(data).hexdigest()[:8]}" if counts[text.lower()] > 1 else text
        for text, data in zip(plain, raw, strict=True)
    ]


def choose_assignment(submissions: list[Submission]) -> tuple[str, int]:
    """Return the assignment that most submissions name, and how many do.

    Raises GradingError if none is named: then the teacher must say which it is.
    """
    votes: Counter = Counter()
    for submission in submissions:
        try:
            named = named_assignments(parse(submission.read()))
        except NotebookError:
            continue
        known = sorted((-count, name) for name, count in named.items() if name in NOTEBOOKS)
        if known:
            votes[known[0][1]] += 1
    if not votes:
        raise GradingError("No submission names an assignment; say which with --assignment.")
    name, count = sorted(votes.items(), key=lambda vote: (-vote[1], vote[0]))[0]
    return name, count
