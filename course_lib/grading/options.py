"""What all commands of the grader ask for: a secret seed and an assignment."""

from __future__ import annotations

import argparse
from pathlib import Path

from course_lib.checks.task import tasks_of
from course_lib.grading.errors import GradingError


def add_seed(parser: argparse.ArgumentParser) -> None:
    """Add the two ways to give the seed."""
    seed = parser.add_mutually_exclusive_group(required=True)
    seed.add_argument(
        "--seed", help="the secret seed: any text; choose a long one, and another each term"
    )
    seed.add_argument(
        "--seed-file", type=Path, metavar="FILE",
        help="a file that holds the seed, so that it is in no list of processes and no history",
    )  # fmt: skip


def read_seed(options: argparse.Namespace) -> str:
    """Return the seed, or raise GradingError if it is none."""
    if options.seed_file is not None:
        try:
            seed = options.seed_file.read_text(encoding="utf-8").strip()
        except (OSError, UnicodeError):
            raise GradingError(f"The seed file {options.seed_file} cannot be read.") from None
    else:
        seed = options.seed.strip()
    if not seed or seed == "0":
        raise GradingError("The seed must be a secret text; empty and 0 are known to everybody.")
    return seed


def require_assignment(name: str) -> str:
    """Return the name of an assignment if it is one."""
    try:
        tasks_of(name)
    except ValueError as error:
        raise GradingError(f"There is no assignment {name!r}: {error}") from None
    return name
