"""A sandbox for the tests of grading, with NumPy alone in it, so that it starts at once."""

from __future__ import annotations

import os
import shutil

import pytest

from course_lib.grading.grade import Grader
from course_lib.grading.sandbox import Limits, stage_course
from course_lib.grading.slots import SandboxSlot

LIMITS = Limits(
    submission_seconds=60.0, cell_seconds=4.0, memory=400 << 20, disk=64 << 20, processes=64,
    answer_bytes=1 << 20, restarts=4,
)  # fmt: skip



@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """The part of the course that may be seen inside."""
    return stage_course(tmp_path_factory.mktemp("staged") / "course")


@pytest.fixture(scope="session")
def slot(course):
    """A slot in which submissions are graded one after another."""
    if shutil.which("bwrap") is None and not os.environ.get("CI"):
        pytest.skip("bubblewrap is not installed")
    made = SandboxSlot(LIMITS, course, 900, ("numpy",))
    yield made
    made.close()


@pytest.fixture(scope="session")
def grader():
    """The grader of the toy tasks."""
    from toy_tasks import SEED, TASKS

    return Grader("toy", SEED, LIMITS, TASKS)
