"""The tables: a row per student or file, for a spreadsheet, for Canvas and for Moodle."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass, field

from course_lib.grading.roster import Matching, Student

NOTHING, SEVERAL, UNMATCHED = "nothing handed in", "several files, the best counts", "unmatched"


@dataclass(frozen=True)
class Row:
    """What is known of one student, or of one file that belongs to nobody.

    Fields:
        student: from the roster; an empty one if there is none.
        files: names of the files, the one that counts first.
        status: "graded", or what is special.
        result: the result that counts, or None.
        page: name of its feedback page, or "".
    """

    student: Student
    files: tuple[str, ...]
    status: str
    result: dict | None = field(repr=False)
    page: str = ""

    @property
    def points(self) -> float | None:
        """The points; None for a student who handed in nothing."""
        return None if self.result is None else self.result["points"]


def make_rows(
    results: dict[str, dict], pages: dict[str, str], roster: Sequence[Student], matching: Matching
) -> list[Row]:
    """Return a row per student in the roster's order, then one per file that fits nobody.

    Arguments:
        results: result for each file's name.
        pages: feedback page for each file's name.
        roster, matching: empty if there is no roster; then every file has a row.
    """
    rows = []
    for place, student in enumerate(roster):
        files = sorted(matching.files[place], key=lambda name: (-results[name]["points"], name))
        if not files:
            rows.append(Row(student, (), NOTHING, None))
            continue
        result = results[files[0]]
        status = SEVERAL if len(files) > 1 else say_status(result)
        rows.append(Row(student, tuple(files), status, result, pages[files[0]]))
    matched = {name for files in matching.files.values() for name in files}
    for name in sorted(set(results) - matched):
        result = results[name]
        status = say_status(result)
        if name in matching.unmatched:
            status = f"{UNMATCHED}: {matching.unmatched[name]}"
        rows.append(Row(Student(), (name,), status, result, pages[name]))
    return rows


def say_status(result: dict) -> str:
    """Return "graded", or why the file could not be."""
    return result["problem"] or "graded"


def say_number(value: float | None) -> str:
    """Return points without a needless decimal."""
    return "" if value is None else f"{value:g}"


def defuse(value: object) -> str:
    """Return text that no spreadsheet takes for a formula."""
    text = "".join(c if c.isprintable() else " " for c in str(value))
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "|", "%") else text


def _write(lines: Sequence[Sequence[object]]) -> bytes:
    out = io.StringIO(newline="")
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerows([[defuse(value) for value in line] for line in lines])
    return out.getvalue().encode("utf-8")


def write_grades(rows: Sequence[Row], tasks: Sequence[dict]) -> bytes:
    """Return grades.csv: who, which files, how it went, the sum and each task."""
    head = ["id", "id number", "login", "email", "name", "section", "file", "other files",
            "status", "points", "max points", "percent", *(task["id"] for task in tasks),
            "notes"]  # fmt: skip
    most = sum(task["max_points"] for task in tasks)
    lines: list[list[object]] = [head]
    for row in rows:
        s = row.student
        earned = {} if row.result is None else {t["id"]: t["points"] for t in row.result["tasks"]}
        notes = "" if row.result is None else " ".join(row.result["notes"])
        percent = "" if row.points is None else f"{100 * row.points / most:.1f}"
        lines.append([
            s.id, s.number, s.login, s.email, s.name, s.section, row.files[0] if row.files else "",
            "; ".join(row.files[1:]), row.status, say_number(row.points), say_number(most), percent,
            *(say_number(earned.get(task["id"])) for task in tasks), notes,
        ])  # fmt: skip
    return _write(lines)


def write_canvas(rows: Sequence[Row], assignment: str, most: float) -> bytes:
    """Return a file for Canvas: Grades, Import. Its columns are those of Canvas's own export."""
    lines: list[list[object]] = [
        ["Student", "ID", "SIS User ID", "SIS Login ID", "Section", f"gradient flow: {assignment}"],
        ["Points Possible", "", "", "", "", say_number(most)],
    ]
    for row in rows:
        s = row.student
        if s.key:
            login = s.login or s.email
            lines.append([s.name, s.id, s.number, login, s.section, say_number(row.points)])
    return _write(lines)


def write_moodle(rows: Sequence[Row], most: float) -> bytes:
    """Return a file for Moodle: for its gradebook, by ID number or address, or as worksheet."""
    lines: list[list[object]] = [[
        "Identifier", "Full name", "ID number", "Email address", "Status", "Grade",
        "Maximum Grade", "Feedback comments",
    ]]  # fmt: skip
    for row in rows:
        s = row.student
        if s.key:
            identifier = f"Participant {s.id}" if s.id.isdigit() else s.id
            said = f"{say_number(row.points)} of {say_number(most)} points" if row.result else ""
            lines.append([
                identifier, s.name, s.number, s.email, row.status, say_number(row.points),
                say_number(most), said,
            ])  # fmt: skip
    return _write(lines)


def write_changes(before: bytes, now: bytes) -> bytes | None:
    """Return the rows of grades.csv whose points differ from an earlier one; None if none do."""
    who = ("id", "email", "file")
    try:
        known = {tuple(line[c] for c in who): line["points"] for line in _read(before)}
        lines = [
            [line["id"], line["name"], line["file"], known[key], line["points"]]
            for line in _read(now)
            if (key := tuple(line[c] for c in who)) in known and known[key] != line["points"]
        ]
    except (UnicodeError, KeyError, csv.Error):
        return None
    head = ["id", "name", "file", "points before", "points now"]
    return _write([head, *lines]) if lines else None


def _read(table: bytes) -> list[dict]:
    return list(csv.DictReader(io.StringIO(table.decode("utf-8"), newline="")))
