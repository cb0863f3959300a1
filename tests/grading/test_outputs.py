"""Tables that no spreadsheet runs, pages that no browser runs, pictures that can be read out."""

from __future__ import annotations

import csv
import html.parser
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from course_lib.grading import gradebook, gradescope, pages
from course_lib.grading.roster import Matching, Student

EVIL = '<script>alert("x")</script><img src=x onerror=alert(1)> & =cmd|\'/C calc\'!A0'


def result(points=2, status="passed", text=EVIL, problem=""):
    task = {"id": "toy/a", "title": "A task", "status": status, "points": points,
            "max_points": 2, "message": text, "advice": text, "misconception": ""}  # fmt: skip
    if status == "failed":
        task["misconception"] = "square"
    return {"assignment": "toy", "problem": problem, "notes": [text], "points": points,
            "max_points": 2, "tasks": [task]}  # fmt: skip


def rows_of(results, roster=(), matching=None):
    page_of = {name: name for name in results}
    return gradebook.make_rows(results, page_of, roster, matching or Matching())


def read(table):
    return list(csv.DictReader(io.StringIO(table.decode(), newline="")))


@pytest.mark.parametrize("start", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", "\r=1", "|x", "%x"])
def test_no_cell_of_a_table_is_a_formula(start):
    name = f"{start}.ipynb"
    for table in (
        gradebook.write_grades(rows_of({name: result()}), result()["tasks"]),
        gradebook.write_canvas(
            rows_of({}, [Student("1", name=start)], Matching({0: []})), "toy", 2
        ),
        gradebook.write_moodle(rows_of({}, [Student("1", name=start)], Matching({0: []})), 2),
    ):
        for line in csv.reader(io.StringIO(table.decode(), newline="")):
            assert not [cell for cell in line if cell[:1] in tuple("=+-@|%\t\r\n")]


class Reader(html.parser.HTMLParser):
    """Collects the tags of a page, and its attributes."""

    def __init__(self):
        super().__init__()
        self.tags, self.attributes, self.open = [], [], []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in ("meta", "br", "rect", "line"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("rect", "line"):
            assert self.open.pop() == tag


def read_page(page):
    reader = Reader()
    reader.feed(page.decode())
    assert reader.open == [], "a tag is left open"
    return reader


@given(st.text(max_size=60) | st.just(EVIL), st.sampled_from(["passed", "failed", "error"]))
def test_what_a_student_wrote_never_becomes_markup(text, status):
    feedback = pages.make_feedback(text, result(text=text, status=status))
    rows = rows_of({f"x{text}": result(text=text, status=status, problem=text)})
    summary = pages.make_summary("toy", rows, result()["tasks"], [[text, text]])
    for page in (feedback, summary):
        reader = read_page(page)
        assert not {"script", "img", "iframe", "a", "form", "object", "link"} & set(reader.tags)
        assert not [name for name, _ in reader.attributes if name.startswith("on")]


def test_feedback_has_language_title_headings_and_says_each_result_in_words():
    page = pages.make_feedback("a.ipynb", result(0, "timeout", "`f` was slow")).decode()
    assert '<html lang="en">' in page
    assert "<title>Feedback: toy</title>" in page
    assert page.count("<h1>") == 1
    assert "Out of time" in page
    assert "<code>f</code> was slow" in page
    assert 'scope="row"' in page
    assert "default-src 'none'" in page


def test_the_summary_says_in_words_what_its_pictures_show():
    results = {f"{k}.ipynb": result(2 if k else 0, "passed" if k else "failed", "x")
               for k in range(4)}  # fmt: skip
    page = pages.make_summary("toy", rows_of(results), result()["tasks"], []).decode()
    assert "4 submissions; the mean is 1.5 and the median 2 of 2 points" in page
    labels = re.findall(r'role="img" aria-label="([^"]+)"', page)
    assert len(labels) == 3
    assert "The commonest score, in 3 of 4 submissions, is 90 to 100 %." in labels[0]
    assert "The hardest task is “A task”: 75 % of the submissions pass it." in labels[1]
    assert "The commonest is “square (A task)”, in 1 of 4 submissions." in labels[2]
    for label in labels:
        assert label.split(".")[0] in page.split("<figcaption>", 1)[1]


def test_the_best_of_several_files_counts_and_it_is_said():
    roster = [Student("1", name="A B"), Student("2", name="C D")]
    results = {"a1": result(0, "failed"), "a2": result(2), "x": result(2)}
    matching = Matching({0: ["a1", "a2"], 1: []}, {"x": "no student of the roster fits"})
    table = read(gradebook.write_grades(rows_of(results, roster, matching), result()["tasks"]))
    assert [(row["id"], row["file"], row["points"], row["status"]) for row in table] == [
        ("1", "a2", "2", "several files, the best counts"),
        ("2", "", "", "nothing handed in"),
        ("", "x", "2", "unmatched: no student of the roster fits"),
    ]
    assert table[0]["other files"] == "a1"
    assert table[0]["toy/a"] == "2"


def test_canvas_and_moodle_have_the_columns_that_they_import():
    roster = [Student("7", "s7", "log", "m@x", "Lee, Ann", "A"), Student("8", name="No Work")]
    rows = rows_of({"f": result(2)}, roster, Matching({0: ["f"], 1: []}))
    canvas = gradebook.write_canvas(rows, "toy", 2).decode().splitlines()
    assert canvas == [
        "Student,ID,SIS User ID,SIS Login ID,Section,gradient flow: toy",
        "Points Possible,,,,,2", '"Lee, Ann",7,s7,log,A,2', "No Work,8,,,,",
    ]  # fmt: skip
    moodle = read(gradebook.write_moodle(rows, 2))
    assert moodle[0] == {
        "Identifier": "Participant 7", "Full name": "Lee, Ann", "ID number": "s7",
        "Email address": "m@x", "Status": "graded", "Grade": "2", "Maximum Grade": "2",
        "Feedback comments": "2 of 2 points",
    }  # fmt: skip
    assert moodle[1]["Grade"] == ""


def test_changes_list_whose_points_differ():
    before = gradebook.write_grades(rows_of({"a": result(2), "b": result(2)}), result()["tasks"])
    now = gradebook.write_grades(rows_of({"a": result(2), "b": result(0)}), result()["tasks"])
    (line,) = read(gradebook.write_changes(before, now))
    assert (line["file"], line["points before"], line["points now"]) == ("b", "2", "0")
    assert gradebook.write_changes(now, now) is None
    assert gradebook.write_changes(b"not,a,table\n1,2,3", now) is None


def test_gradescope_gets_its_fields_and_plain_text():
    made = gradescope.make_results(result(0, "failed", EVIL, problem="Wrong."))
    assert json.loads(json.dumps(made)) == made
    assert made["score"] == 0
    assert made["output_format"] == "text"
    (test,) = made["tests"]
    assert (test["score"], test["max_score"], test["status"]) == (0, 2, "failed")
    assert test["output_format"] == "text"
    assert made["output"].startswith("Not graded. Wrong.")
