"""A sandbox for the tests of grading, with NumPy alone in it, so that it starts at once."""

from __future__ import annotations

import os
import shutil

import pytest
from toy_tasks import LIMITS, SEED, SLOTS, TASKS

from course_lib.grading.grade import Grader
from course_lib.grading.sandbox import stage_course
from course_lib.grading.slots import SandboxSlot


@pytest.fixture(scope="session")
def course(tmp_path_factory):
    """The part of the course that may be seen inside."""
    return stage_course(tmp_path_factory.mktemp("staged") / "course")


@pytest.fixture(scope="session")
def slot(course):
    """A slot in which submissions are graded one after another."""
    if shutil.which("bwrap") is None and not os.environ.get("CI"):
        pytest.skip("bubblewrap is not installed")
    made = SandboxSlot(LIMITS, course, SLOTS, ("numpy",))
    yield made
    made.close()


@pytest.fixture(scope="session")
def grader():
    """The grader of the toy tasks."""
    return Grader("toy", SEED, LIMITS, TASKS)
