"""A whole class: the same bytes each time, nothing lost or repeated, nothing overwritten."""

from __future__ import annotations

import csv
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from submission_files import FOLDER, read_annotated
from toy_command import use_toy_tasks

from course_lib.grading import command, grade, sandbox
from course_lib.grading.store import Store

HERE = Path(__file__).parent
NAMES = ("honest", "half_done", "blank", "truncated", "wrong_assignment", "exit_in_function")


@pytest.fixture(autouse=True)
def toy(monkeypatch):
    if shutil.which("bwrap") is None and not os.environ.get("CI"):
        pytest.skip("bubblewrap is not installed")
    use_toy_tasks(monkeypatch.setattr)


@pytest.fixture
def folder(tmp_path):
    """A class of six, of which one handed in twice."""
    place = tmp_path / "class"
    place.mkdir()
    for number, name in enumerate(NAMES):
        data = read_annotated(FOLDER / f"{name}.py").data
        (place / f"student{number}_{name}.ipynb").write_bytes(data)
    shutil.copy(place / "student0_honest.ipynb", place / "student1_copy.ipynb")
    (place / "data.csv").write_text("x", encoding="utf-8")
    roster = "id,name\n" + "".join(f"student{k},Name {k}\n" for k in range(7))
    (tmp_path / "roster.csv").write_text(roster, encoding="utf-8")
    return place


def run(folder, out, *more, seed="a long secret"):
    roster = folder.parent / "roster.csv"
    return command.main([str(folder), "--seed", seed, "--out", str(out), "--roster", str(roster),
                         "--assignment", "toy", "--jobs", "2", *more])  # fmt: skip


def contents(out):
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def grades(out):
    with open(out / "grades.csv", encoding="utf-8", newline="") as stream:
        return {row["id"]: row["points"] for row in csv.DictReader(stream)}


EXPECTED = {"student0": "3", "student1": "3", "student2": "0", "student3": "0", "student4": "0",
            "student5": "2", "student6": ""}  # fmt: skip


def test_a_class_is_graded_and_the_same_again(folder, tmp_path, capsys):
    assert run(folder, tmp_path / "first") == 0
    assert grades(tmp_path / "first") == EXPECTED
    assert run(folder, tmp_path / "second", "--jobs", "1") == 0
    assert contents(tmp_path / "first") == contents(tmp_path / "second")
    assert "7 submissions graded" in capsys.readouterr().out
    names = set(contents(tmp_path / "first"))
    assert {"grades.csv", "canvas.csv", "moodle.csv", "summary.html"} <= names
    assert "feedback/student0_honest.html" in names
    assert "gradescope/student0_honest.json" in names
    summary = (tmp_path / "first" / "summary.html").read_text(encoding="utf-8")
    assert "student0_honest.ipynb, student1_copy.ipynb" in summary  # the same content


def test_the_seed_is_written_nowhere(folder, tmp_path):
    run(folder, tmp_path / "out", seed="rhubarb-and-custard")
    assert not [n for n, data in contents(tmp_path / "out").items() if b"rhubarb" in data]


def test_results_are_for_their_owner_only(folder, tmp_path):
    run(folder, tmp_path / "out")
    assert (tmp_path / "out").stat().st_mode & 0o077 == 0


def test_earlier_results_are_never_overwritten(folder, tmp_path, capsys):
    out = tmp_path / "out"
    run(folder, out)
    before = contents(out)
    assert run(folder, out) == 2
    assert "--resume goes on with them" in capsys.readouterr().err
    assert run(folder, out, "--resume", seed="another") == 2
    assert "with another seed" in capsys.readouterr().err
    assert contents(out) == before
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine", encoding="utf-8")
    assert run(folder, other, "--regrade") == 2
    assert "holds other files" in capsys.readouterr().err
    assert contents(other) == {"thesis.txt": b"mine"}


def test_resuming_a_finished_run_changes_nothing_and_grades_nothing(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(folder, out)
    before = contents(out)
    monkeypatch.setattr(grade.Grader, "grade", lambda *a: pytest.fail("graded again"))
    assert run(folder, out, "--resume") == 0
    assert contents(out) == before


def test_a_late_submission_is_added_and_earlier_tables_are_kept(folder, tmp_path):
    out = tmp_path / "out"
    run(folder, out)
    before = (out / "grades.csv").read_bytes()
    late = read_annotated(FOLDER / "honest.py").data + b"\n"
    (folder / "student6_late.ipynb").write_bytes(late)
    assert run(folder, out, "--resume") == 0
    assert grades(out) == EXPECTED | {"student6": "3"}
    assert (out / "earlier-1" / "grades.csv").read_bytes() == before


def test_regrading_keeps_the_earlier_results_and_lists_the_changes(folder, tmp_path, monkeypatch):
    out = tmp_path / "out"
    run(folder, out)
    before = contents(out)
    import dataclasses

    import toy_tasks

    harder = dataclasses.replace(toy_tasks.TOTAL, reference=lambda x: float(sum(map(abs, x))))
    monkeypatch.setattr(grade, "tasks_of", lambda name: (toy_tasks.DOUBLE, harder))
    assert run(folder, out, "--regrade") == 0
    assert grades(out)["student1"] == "3"  # both files were graded; now the other one counts
    assert grades(out)["student0"] == "1"
    changes = (out / "changes.csv").read_text(encoding="utf-8").splitlines()
    assert "student0,Name 0,student0_honest.ipynb,3,1" in changes
    kept = contents(out / "earlier-1")
    assert kept == before


def test_a_killed_run_is_resumed_without_losing_or_repeating(folder, tmp_path, monkeypatch):
    for number in range(12):  # different contents, each with a second of sleep
        text = read_annotated(FOLDER / "honest.py").data.decode()
        text = text.replace("def double", f"import time; time.sleep(0.{number:02d}7)\\ndef double")
        (folder / f"slow{number}.ipynb").write_text(text, encoding="utf-8")
    out, whole = tmp_path / "out", tmp_path / "whole"
    arguments = [str(folder), "--seed", "a long secret", "--out", str(out), "--assignment", "toy",
                 "--roster", str(folder.parent / "roster.csv"), "--jobs", "2"]  # fmt: skip
    environment = os.environ | {"PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parents[1]}"}
    process = subprocess.Popen([sys.executable, str(HERE / "toy_command.py"), *arguments],
                               env=environment, stderr=subprocess.DEVNULL)  # fmt: skip
    results = out / ".grading" / "results"
    patience = time.monotonic() + 60
    while len(list(results.glob("[0-9a-f]*.json"))) < 4 and time.monotonic() < patience:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    (out / "feedback").mkdir()
    halves = [place / ".new-12345678" for place in (results, out, out / "feedback")]
    for half in halves:
        half.write_text("{", encoding="ascii")  # as if killed while it wrote
    (out / ".new-ideas").write_text("a person's", encoding="ascii")
    done = {path.name: path.stat().st_mtime_ns for path in results.glob("[0-9a-f]*.json")}
    assert 4 <= len(done) < 18
    assert not (out / "grades.csv").exists()
    graded = []
    original = grade.Grader.grade
    monkeypatch.setattr(grade.Grader, "grade", lambda s, *a: graded.append(1) or original(s, *a))
    assert run(folder, out, "--resume") == 0
    assert len(graded) == 18 - len(done)  # 19 files, two of the same content
    assert {n: (results / n).stat().st_mtime_ns for n in done} == done
    assert not any(half.exists() for half in halves)
    assert not list(out.glob("earlier-*"))
    (out / ".new-ideas").unlink()  # raises if it is not there
    assert run(folder, whole) == 0
    assert contents(out) == contents(whole)


def test_a_damaged_result_is_graded_again(folder, tmp_path):
    out = tmp_path / "out"
    run(folder, out)
    before = contents(out)
    victim = next((out / ".grading" / "results").glob("*.json"))
    victim.write_bytes(victim.read_bytes()[:50])
    assert run(folder, out, "--resume") == 0
    assert contents(out) == before


def test_two_runs_do_not_write_to_one_folder(folder, tmp_path, capsys):
    out = tmp_path / "out"
    with Store(out).lock():
        assert run(folder, out) == 2
    assert "Another grading is writing" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--seed", "0"], "known to everybody"),
        (["--seed", " "], "known to everybody"),
        (["--seed", "x", "--jobs", "0"], "--jobs must be at least 1"),
        (["--seed", "x", "--time-limit", "-1"], "more than 0 seconds"),
        (["--seed-file", "/no/such/file"], "cannot be read"),
        (["--seed", "x", "--roster", "/no/such/file"], "cannot be read"),
    ],
)
def test_what_makes_no_sense_is_refused_in_a_sentence(folder, tmp_path, arguments, said, capsys):
    out = tmp_path / "out"
    assert command.main([str(folder), "--out", str(out), *arguments]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert not out.exists()


def test_without_a_sandbox_it_refuses_and_says_so(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    assert run(folder, tmp_path / "out") == 2
    assert "There is no sandbox: the program bwrap is missing." in capsys.readouterr().err
    assert not (tmp_path / "out" / "grades.csv").exists()
    monkeypatch.setattr(sandbox.sys, "platform", "darwin")
    assert run(folder, tmp_path / "out", "--resume") == 2
    assert "There is no sandbox on this system" in capsys.readouterr().err


def test_the_unsafe_flag_works_and_warns(folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sandbox.shutil, "which", lambda name: None)
    assert run(folder, tmp_path / "out", "--unsafe-without-sandbox") == 0
    assert "WITHOUT A SANDBOX" in capsys.readouterr().err
    assert grades(tmp_path / "out") == EXPECTED


def test_an_empty_folder_and_no_folder_are_refused(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    for name, said in (("empty", "no notebook"), ("none", "no folder")):
        given = [str(tmp_path / name), "--seed", "x", "--out", str(tmp_path / "o")]
        assert command.main(given) == 2
        assert said in capsys.readouterr().err


def test_names_that_collide_get_pages_of_their_own(folder, tmp_path):
    data = read_annotated(FOLDER / "blank.py").data
    (folder / "Zoë.ipynb").write_bytes(data)
    (folder / "Zoe\u0308.ipynb").write_bytes(data)
    (folder / "ZOE.ipynb").write_bytes(data)
    (folder / "a\nb<i>.ipynb").write_bytes(data)
    os.makedirs(folder / "sub")
    (folder / "sub" / "zoe.IPYNB").write_bytes(data)
    with open(os.fsencode(folder) + b"/\xff\xfe.ipynb", "wb") as stream:
        stream.write(data)
    assert run(folder, tmp_path / "out") == 0
    pages = list((tmp_path / "out" / "feedback").iterdir())
    assert len(pages) == len({page.name.lower() for page in pages}) == 7 + 6


def test_a_link_in_the_folder_is_not_followed(folder, tmp_path):
    (tmp_path / "secret.txt").write_text("TOP SECRET", encoding="utf-8")
    (folder / "link.ipynb").symlink_to(tmp_path / "secret.txt")
    (folder / "away").symlink_to(tmp_path, target_is_directory=True)
    assert run(folder, tmp_path / "out") == 0
    page = (tmp_path / "out" / "feedback" / "link.html").read_text(encoding="utf-8")
    assert "links are not followed" in page


def test_interrupting_says_how_to_go_on(folder, tmp_path, monkeypatch, capsys):
    def interrupt(done, total):
        raise KeyboardInterrupt

    monkeypatch.setattr(command.run, "show_progress", interrupt)
    assert run(folder, tmp_path / "out") == 130
    assert "--resume" in capsys.readouterr().err
