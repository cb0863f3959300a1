"""Who handed in what: a roster read from CSV, and file names matched to it.

Learning platforms put a student's name and number into the names of downloaded files: Canvas
`lastfirst_1234_5678_notebook.ipynb`, Moodle `First Last_123_assignsubmission_file_/notebook.ipynb`.
Otherwise a student's number, e-mail address, login or full name is looked for in the path. A match
counts only if exactly one student fits; nobody's grade is ever guessed.
"""

from __future__ import annotations

import csv
import io
import re
import unicodedata
from dataclasses import dataclass, field
from pathlib import Path

from course_lib.grading.errors import GradingError

# What platforms call a column, in lower case without spaces and signs.
COLUMNS = {
    "id": ("id", "studentid", "sid", "canvasid", "identifier", "participant", "studentnumber"),
    "number": ("idnumber", "sisuserid", "matriculation", "matriculationnumber", "sisid"),
    "login": ("sisloginid", "username", "login", "loginid", "user"),
    "email": ("email", "emailaddress", "mail"),
    "name": ("student", "fullname", "name", "studentname"),
    "first": ("firstname", "givenname", "first"),
    "last": ("lastname", "surname", "familyname", "last"),
    "section": ("section", "group", "groups"),
}
_CANVAS = re.compile(r"^(?P<key>[^_/]+)_(?:LATE_)?(?P<id>\d+)_(?P<submission>\d+)_")
_MOODLE = re.compile(r"^(?P<name>[^/]+?)_(?P<id>\d+)_assignsubmission_")


@dataclass(frozen=True)
class Student:
    """One row of the roster; what is not known is ""."""

    id: str = ""
    number: str = ""
    login: str = ""
    email: str = ""
    name: str = ""
    section: str = ""

    @property
    def key(self) -> str:
        """What the student is called in lists: the first thing that is known."""
        return self.id or self.number or self.login or self.email or self.name


@dataclass
class Matching:
    """Which files belong to whom.

    Fields:
        files: for each student's place in the roster, the names of the files.
        unmatched: files that fit nobody, or more than one, each with the reason.
    """

    files: dict[int, list[str]] = field(default_factory=dict)
    unmatched: dict[str, str] = field(default_factory=dict)


def fold(text: str) -> str:
    """Return text as it is compared: one Unicode form, no accents, lower case, single spaces."""
    decomposed = unicodedata.normalize("NFKD", text.casefold())
    kept = "".join(c for c in decomposed if not unicodedata.combining(c))
    kept = kept.replace("ø", "o").replace("ł", "l").replace("æ", "ae").replace("œ", "oe")
    return " ".join(kept.split())


def read_roster(path: Path) -> list[Student]:
    """Return the students of a CSV file with a header, or raise GradingError.

    Canvas's gradebook export, Moodle's participants and grading worksheets, and plain lists are
    read; separators are commas, semicolons or tabs.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise GradingError(f"The roster {path} cannot be read: {error.strerror}.") from None
    try:
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        text = data.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeError:
        text = data.decode("cp1252", "replace")  # what Excel writes
    head = text.split("\n", 1)[0]
    separator = max(",;\t", key=head.count)
    rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    if not rows:
        raise GradingError(f"The roster {path} is empty.")
    places = _find_columns(rows[0])
    if not places:
        raise GradingError(
            f"The roster {path} has no column that names students; "
            "one of id, email, name or login is needed in its first line."
        )
    students = [_read_student(row, places) for row in rows[1:]]
    students = [s for s in students if s.key and s.name != "Points Possible"]
    keys = [student.key for student in students]
    twice = sorted({key for key in keys if keys.count(key) > 1})
    if twice:
        raise GradingError(f"The roster {path} holds {twice[0]!r} more than once.")
    return students


def _find_columns(header: list[str]) -> dict[str, int]:
    plain = [re.sub(r"[^a-z]", "", fold(name)) for name in header]
    found = {}
    for column, names in COLUMNS.items():
        places = [plain.index(name) for name in names if name in plain]
        if places:
            found[column] = places[0]
    return found


def _read_student(row: list[str], places: dict[str, int]) -> Student:
    def take(column: str) -> str:
        place = places.get(column, -1)
        return " ".join(row[place].split()) if 0 <= place < len(row) else ""

    name = take("name") or f"{take('first')} {take('last')}".strip()
    student_id = re.sub(r"^Participant ", "", take("id"))
    return Student(student_id, take("number"), take("login"), take("email"), name, take("section"))


def match(names: list[str], roster: list[Student]) -> Matching:
    """Return which of the files called `names` (paths with /) belongs to which student."""
    found = Matching(files={place: [] for place in range(len(roster))})
    tables = [_make_tables(student) for student in roster]
    for name in names:
        places, way = _who(name, tables)
        if len(places) == 1:
            found.files[places[0]].append(name)
        elif places:
            who = ", ".join(roster[place].key for place in places[:5])
            found.unmatched[name] = f"its {way} fits more than one student: {who}"
        else:
            found.unmatched[name] = "no student of the roster fits"
    return found


def _make_tables(student: Student) -> dict[str, set[str]]:
    """Return what identifies a student, by kind, as it is compared."""
    words = fold(student.name.replace(",", " ")).split()
    turned = [*words[1:], *words[:1]]
    last_first = student.name.split(",")
    ordered = fold(" ".join(reversed(last_first))).split() if len(last_first) == 2 else words
    names = {" ".join(w) for w in (words, turned, ordered) if len(w) > 1}
    exact = {fold(value) for value in (student.id, student.number, student.login) if value}
    email = {fold(student.email)} if student.email else set()
    local = {fold(student.email).split("@")[0]} if "@" in student.email else set()
    return {"ids": exact, "email": email, "login": local, "names": names}


def _who(name: str, tables: list[dict[str, set[str]]]) -> tuple[list[int], str]:
    """Return the places of the students that fit, by the first way in which somebody fits."""
    folded = fold(name)
    first = folded.split("/")[0]
    canvas, moodle = _CANVAS.match(name.split("/")[-1]), _MOODLE.match(name)
    ways: list[tuple[str, object]] = []
    if canvas:
        ways.append(("Canvas number", lambda t: canvas["id"] in t["ids"]))
        key = re.sub(r"\W", "", fold(canvas["key"]))
        ways.append(("Canvas name", lambda t: any(key == n.replace(" ", "") for n in t["names"])))
    if moodle:
        ways.append(("Moodle number", lambda t: moodle["id"] in t["ids"]))
        who = fold(moodle["name"])
        ways.append(("Moodle name", lambda t: who in t["names"]))
    ways.append(("e-mail address", lambda t: any(_holds(folded, e) for e in t["email"])))
    texts = (_as_words(first), _as_words(folded))
    ways.append(("name", lambda t: any(_holds(text, n) for text in texts for n in t["names"])))
    if not canvas and not moodle:
        ways.append(("number", lambda t: any(_names(folded, i) for i in t["ids"])))
        ways.append(("login", lambda t: any(_names(folded, i) for i in t["login"])))
    for way, fits in ways:
        places = [place for place, table in enumerate(tables) if fits(table)]
        if places:
            return places, way
    return [], ""


def _names(text: str, login: str) -> bool:
    """Whether a number or login stands in a path, and is no word that could mean another thing.

    A login of a few letters, such as "ann", counts only as the whole name of a file or folder.
    """
    if any(c.isdigit() for c in login) or len(login) > 7:
        return _holds(text, login)
    return login in [part.removesuffix(".ipynb") for part in text.split("/")]


def _as_words(text: str) -> str:
    return " ".join(re.split(r"[^\w]+|_", text))


def _holds(text: str, part: str) -> bool:
    """Whether `part` stands in `text` as a whole, not inside a longer word or number."""
    return bool(part) and re.search(rf"(?<![^\W_]){re.escape(part)}(?![^\W_])", text) is not None
