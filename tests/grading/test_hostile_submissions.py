"""Every submission of `submissions/` gets the verdict of its own header, and harms no other."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import pytest
from submission_files import FOLDER, read_annotated
from toy_tasks import SLOTS

from course_lib.grading.sandbox import FIRST_USER

SCRIPTS = sorted(FOLDER.glob("*.py"))


@pytest.fixture(scope="module", autouse=True)
def secrets_around():
    """What a submission must not find: the teacher's environment."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TEACHER_TOKEN", "secret-seed-of-the-tests")
        yield


def assert_alone(user: int) -> None:
    """Nothing of this user's is left but the sandbox: bwrap twice, and the warm process."""
    patience = time.monotonic() + 5.0
    while len(processes_of(user)) > 3 and time.monotonic() < patience:
        time.sleep(0.01)  # a warden has said its last word and is about to go
    assert len(processes_of(user)) <= 3


def processes_of(user: int) -> list[int]:
    """The processes of a user on this machine."""
    found = []
    for place in Path("/proc").glob("[0-9]*"):
        try:
            if place.stat().st_uid == user:
                found.append(int(place.name))
        except OSError:
            pass
    return found


@pytest.fixture(scope="module")
def innocent():
    return read_annotated(FOLDER / "honest.py").data


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.stem)
def test_the_verdict_is_that_of_the_header(script, slot, grader, innocent):
    sandbox = slot.process.pid
    annotated = read_annotated(script)
    result = grader.grade(slot, annotated.data)
    told = {task["id"].split("/")[1]: task for task in result["tasks"]}
    said = "\n".join(f"{task['message']} {task['advice']}" for task in result["tasks"])
    for name, allowed in annotated.verdict.items():
        assert told[name]["status"] in allowed, result
        earned = told[name]["max_points"] if told[name]["status"] == "passed" else 0
        assert told[name]["points"] == earned
    assert result["points"] == sum(task["points"] for task in result["tasks"])
    for pattern in annotated.says:
        assert re.search(pattern, said), result
    for pattern in annotated.notes:
        assert any(re.search(pattern, note) for note in result["notes"]), result
    assert re.search(annotated.problem or "^$", result["problem"]), result
    # The next one, in the same warm process, is not touched by it.
    assert grader.grade(slot, innocent)["points"] == 3
    assert slot.process.pid == sandbox, "the sandbox was lost"
    if os.getuid() == 0:
        assert_alone(FIRST_USER + SLOTS)


def test_there_are_enough_of_them():
    assert len(SCRIPTS) >= 40


def test_each_header_is_a_sentence_and_a_verdict():
    for script in SCRIPTS:
        first = script.read_text(encoding="utf-8").split("\n", 1)[0]
        assert re.fullmatch(r"# .*[.]", first), script
        assert set(read_annotated(script).verdict) == {"double", "total"}, script
