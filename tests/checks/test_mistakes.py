"""The foreseen mistakes, listed a second time: who deletes one must say so here too."""

from __future__ import annotations

import re
from pathlib import Path

from course_lib.checks.task import all_tasks

LIST = Path(__file__).with_name("mistakes.txt")
SENTENCE_WORDS = 6  # enough to know the sentence by, few enough to let it be polished


def listed() -> list[str]:
    return [line for line in LIST.read_text(encoding="utf-8").splitlines() if line]


def opening(message: str) -> str:
    return " ".join(re.split(r"\s+", message)[:SENTENCE_WORDS])


def test_each_mistake_is_listed_with_the_opening_of_its_sentence():
    """After adding a task: append its lines, which the failure of this test prints."""
    defined = [
        f"{task.id} | {mistake.name} | {opening(mistake.message)}"
        for task in all_tasks()
        for mistake in task.misconceptions
    ]
    missing = [line for line in defined if line not in listed()]
    gone = [line for line in listed() if line not in defined]
    assert not missing, "add to tests/checks/mistakes.txt:\n" + "\n".join(missing)
    assert not gone, "no longer defined:\n" + "\n".join(gone)


def test_nothing_is_listed_twice():
    assert len(set(listed())) == len(listed())
