"""File names are matched to a roster only where exactly one student fits."""

from __future__ import annotations

import unicodedata

import pytest

from course_lib.grading.errors import GradingError
from course_lib.grading.roster import Student, match, read_roster

ROSTER = [
    Student("101", "s001", "amuel", "anna.mueller@uni.example", "Müller, Anna", "A"),
    Student("102", "s002", "bob", "bob@uni.example", "Bob van der Berg", "A"),
    Student("103", "s003", "ann", "ann@uni.example", "Ann Lee", "B"),
    Student("104", "s004", "lee2", "lee2@uni.example", "Ann Lee", "B"),
    Student("1010", "s010", "zoe", "zoë@uni.example", "Zoë Østergård", "B"),
]


def owner(name):
    found = match([name], ROSTER)
    return [place for place, files in found.files.items() if files], found.unmatched.get(name)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("muelleranna_101_555_bptt.ipynb", 0),
        ("mulleranna_LATE_999_555_bptt.ipynb", 0),  # not the number, but the name
        ("x_102_999101_chain-1.ipynb", 1),
        ("Bob van der Berg_102_assignsubmission_file_/bptt.ipynb", 1),
        ("Bob van der Berg_77_assignsubmission_file_/bptt.ipynb", 1),
        ("Zoë Østergård_88_assignsubmission_file_/a.ipynb", 4),
        (unicodedata.normalize("NFD", "Zoë Østergård bptt.ipynb"), 4),
        ("anna.mueller@uni.example.ipynb", 0),
        ("bptt_s003.ipynb", 2),
        ("s004/bptt.ipynb", 3),
        ("zoe.ipynb", 4),
        ("zoe/bptt.ipynb", 4),
        ("ann_smith.ipynb", None),  # "ann" is Ann Lee's login, and this is not Ann Lee
        ("bptt-zoe.ipynb", None),
        ("Anna_Müller_bptt.ipynb", 0),
        ("BERG Bob van der.ipynb", None),
        ("101.ipynb", 0),
        ("1010.ipynb", 4),
    ],
)
def test_who_handed_in(name, place):
    found, reason = owner(name)
    if place is None:
        assert found == []
        assert reason == "no student of the roster fits"
    else:
        assert found == [place], reason


def test_a_name_that_two_share_is_given_to_neither():
    found, reason = owner("Ann Lee.ipynb")
    assert found == []
    assert reason == "its name fits more than one student: 103, 104"


def test_several_files_of_one_student_are_all_listed():
    found = match(["s002_1.ipynb", "s002_2.ipynb", "nobody.ipynb"], ROSTER)
    assert found.files[1] == ["s002_1.ipynb", "s002_2.ipynb"]
    assert set(found.unmatched) == {"nobody.ipynb"}


CANVAS = """Student,ID,SIS User ID,SIS Login ID,Section,Homework 1 (99)
    Points Possible,,,,,10
"Müller, Anna",101,s001,amuel,A,
"Student, Test",999,,,A,
"""
MOODLE = """\ufeff"Identifier";"Full name";"Email address";"Status";"Grade"
"Participant 123";"Anna Müller";"anna@uni.example";"-";"-"
"""


def test_exports_of_canvas_and_moodle_are_read(tmp_path):
    path = tmp_path / "roster.csv"
    path.write_text(CANVAS, encoding="utf-8")
    anna, test = read_roster(path)
    assert anna == Student("101", "s001", "amuel", "", "Müller, Anna", "A")
    assert test.id == "999"
    path.write_text(MOODLE, encoding="utf-8")
    assert read_roster(path) == [Student("123", "", "", "anna@uni.example", "Anna Müller", "")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "cp1252"])
def test_encodings_of_spreadsheets_are_read(tmp_path, encoding):
    path = tmp_path / "roster.csv"
    path.write_bytes("Last name;First name;E-mail\nMüller;Anna;a@b.example\n".encode(encoding))
    assert read_roster(path) == [Student(email="a@b.example", name="Anna Müller")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("colour,shoe size\nred,42\n", "no column that names students"),
        ("id,name\n1,A B\n1,C D\n", "holds '1' more than once"),
    ],
)
def test_a_roster_that_cannot_be_used_is_refused(tmp_path, text, said):
    path = tmp_path / "roster.csv"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(GradingError, match=said):
        read_roster(path)
    with pytest.raises(GradingError, match="cannot be read"):
        read_roster(tmp_path / "none.csv")
