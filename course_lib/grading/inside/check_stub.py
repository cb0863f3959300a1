"""Inside the sandbox, `course_lib.checks` is this: the words are there, and they decide nothing."""

from __future__ import annotations


def check(task_id: str, function: object = None) -> None:
    """Say that the grading is done elsewhere."""
    print("check: graded by your teacher, after the notebook has been run.")


def hint(task_id: str) -> None:
    """Say that there are no hints here."""
    print("hint: there are no hints while the notebook is graded.")


def score(notebook: str | None = None) -> None:
    """Say that there is no score here."""
    print("score: graded by your teacher, after the notebook has been run.")


__all__ = ["check", "hint", "score"]
