"""The commands besides the grading of a class: bundle, containerfile, autograde."""

from __future__ import annotations

import argparse
import contextlib
import hashlib
from collections.abc import Sequence
from importlib import resources
from pathlib import Path

from course_lib.grading import run
from course_lib.grading.errors import GradingError
from course_lib.grading.grade import Grader
from course_lib.grading.gradescope import make_results, write_bundle
from course_lib.grading.notebooks import NotebookError
from course_lib.grading.options import add_seed, read_seed, require_assignment
from course_lib.grading.sandbox import Limits
from course_lib.grading.slots import Slot
from course_lib.grading.store import to_json, write_whole
from course_lib.grading.submissions import Submission, find_submissions


def make_bundle(arguments: Sequence[str]) -> int:
    """Write a bundle for Gradescope."""
    parser = argparse.ArgumentParser(
        prog="gradient-flow-grade bundle",
        description="Write the zip file from which Gradescope builds an autograder. It holds the "
        "seed: upload it to Gradescope and show it to nobody.",
    )
    parser.add_argument("--assignment", required=True, metavar="NAME", help="such as chain_rule")
    add_seed(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="ZIP", help="the file to write")
    options = parser.parse_args(arguments)
    write_bundle(options.out, require_assignment(options.assignment), read_seed(options))
    print(f"{options.out}: upload it under Configure Autograder, Zip file upload.")
    return 0


def print_containerfile(arguments: Sequence[str]) -> int:
    """Print the container file."""
    argparse.ArgumentParser(
        prog="gradient-flow-grade containerfile",
        description="Print a container file; its first lines say how to build and run it.",
    ).parse_args(arguments)
    text = resources.files("course_lib.grading").joinpath("Containerfile").read_text("utf-8")
    print(text, end="")
    return 0


def autograde(arguments: Sequence[str]) -> int:
    """Grade one submission and write Gradescope's results.json."""
    parser = argparse.ArgumentParser(
        prog="gradient-flow-grade autograde",
        description="Grade the notebook in a folder and write the result as Gradescope reads it.",
    )
    parser.add_argument("folder", type=Path, help="the folder with the submission")
    parser.add_argument("--assignment", required=True, metavar="NAME", help="such as chain_rule")
    add_seed(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="JSON", help="the file to write")
    parser.add_argument(
        "--sandbox-if-possible", action="store_true",
        help="where there is no sandbox, run the code as another user without one; only in a "
        "container that is thrown away afterwards",
    )  # fmt: skip
    options = parser.parse_args(arguments)
    require_assignment(options.assignment)
    submissions, _ = find_submissions(options.folder, [])
    # Whoever may hand in again must not be able to copy the expected answers from the feedback:
    # another content, other inputs; the same content, the same ones.
    seed = f"{read_seed(options)}\n{digest_contents(submissions)}"
    grader = Grader(options.assignment, seed, Limits())
    write_whole(options.out, to_json(make_results(grade_one(options, submissions, grader))))
    return 0


def digest_contents(submissions: list[Submission]) -> str:
    """Return a digest of what was handed in."""
    found = hashlib.sha256()
    for submission in submissions:
        with contextlib.suppress(NotebookError):
            found.update(hashlib.sha256(submission.read()).digest())
    return found.hexdigest()


def grade_one(options: argparse.Namespace, submissions: list[Submission], grader: Grader) -> dict:
    """Return the result of the folder's best notebook."""
    try:
        with run.open_slots(grader.limits, unsafe=False) as make_slot:
            return best_result(submissions, grader, make_slot)
    except GradingError:
        if not options.sandbox_if_possible:
            raise
    with run.open_slots(grader.limits, unsafe=True) as make_slot:
        return best_result(submissions, grader, make_slot)


def best_result(submissions: list[Submission], grader: Grader, make_slot: run.SlotMaker) -> dict:
    """Grade each file; return the result with most points, the first of those."""
    slot: Slot = make_slot(0)
    try:
        results = [run.grade_file(grader, slot, submission) for submission in submissions]
    finally:
        slot.close()
    return max(results, key=lambda result: (result["points"], not result["problem"]))
