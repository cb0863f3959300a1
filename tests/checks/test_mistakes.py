"""The foreseen mistakes, listed a second time: who changes or deletes one must say so here too."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import numpy as np

from course_lib.checks.task import PUBLIC_SEED, Misconception, Task, all_tasks, draw_cases
from course_lib.plain_data import to_plain

LIST = Path(__file__).with_name("mistakes.txt")
SENTENCE_WORDS = 6  # enough to know the sentence by, few enough to let it be polished


def listed() -> list[str]:
    return [line for line in LIST.read_text(encoding="utf-8").splitlines() if line]


def opening(message: str) -> str:
    return " ".join(re.split(r"\s+", message)[:SENTENCE_WORDS])


def total_size(answer: object) -> float:
    """The sum of the sizes of all finite numbers in an answer; a text counts its letters."""
    if isinstance(answer, dict):
        return sum(total_size(entry) for entry in answer.values())
    if isinstance(answer, list):
        return sum(total_size(entry) for entry in answer)
    if isinstance(answer, str):
        return float(len(answer))
    sizes = np.abs(np.asarray(answer, dtype=float))
    return float(sizes[np.isfinite(sizes)].sum())


def fingerprint(task: Task, mistake: Misconception) -> str:
    """A number that changes when a line of the mistaken function does."""
    total = 0.0
    for case in draw_cases(task, PUBLIC_SEED):
        try:
            total += total_size(to_plain(mistake.wrong(*copy.deepcopy(case.args))))
        except Exception:
            total += 1000.0
    return f"{total:.3g}"


def line_of(task: Task, mistake: Misconception) -> str:
    parts = (task.id, mistake.name, opening(mistake.message), fingerprint(task, mistake))
    return " | ".join(parts)


def test_each_mistake_is_listed_with_its_sentence_and_its_answer():
    """After adding or changing a task: take over the lines that the failure of this test prints."""
    defined = [line_of(task, mistake) for task in all_tasks() for mistake in task.misconceptions]
    missing = [line for line in defined if line not in listed()]
    gone = [line for line in listed() if line not in defined]
    assert not missing, "add to tests/checks/mistakes.txt:\n" + "\n".join(missing)
    assert not gone, "no longer defined:\n" + "\n".join(gone)


def test_nothing_is_listed_twice():
    assert len(set(listed())) == len(listed())
