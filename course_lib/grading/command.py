"""The command `gradient-flow-grade`: what the teacher types, and what it says."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from course_lib.grading import run
from course_lib.grading.autograder import autograde, make_bundle, print_containerfile
from course_lib.grading.errors import GradingError
from course_lib.grading.grade import Grader
from course_lib.grading.gradebook import write_changes
from course_lib.grading.options import add_seed, read_seed, require_assignment
from course_lib.grading.roster import read_roster
from course_lib.grading.sandbox import Limits, require_hidden
from course_lib.grading.store import Store, describe_run
from course_lib.grading.submissions import choose_assignment, find_submissions

DESCRIPTION = """\
Grade a folder of notebooks. Each is run in a sandbox, without network and apart from this machine
and from every other submission; what its functions return is judged outside, on inputs drawn from
your secret seed.

  gradient-flow-grade submissions/ --seed-file seed.txt --roster roster.csv --out results/

Other commands (each has its own --help):
  gradient-flow-grade bundle          write an autograder for Gradescope
  gradient-flow-grade containerfile   print a container in which to grade on macOS or Windows
  gradient-flow-grade autograde       grade one submission (what the bundle runs)
"""
WRITES = """\
In the folder of --out: grades.csv, summary.html, feedback/ (a page per submission), gradescope/
(the same as results.json), and with a roster canvas.csv and moodle.csv. The same submissions, seed
and course give the same bytes. Exit status: 0 graded, 2 refused (one sentence says why),
130 interrupted (--resume goes on).
"""


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the main command."""
    parser = argparse.ArgumentParser(
        prog="gradient-flow-grade", description=DESCRIPTION, epilog=WRITES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument("folder", type=Path, help="the folder with what was handed in")
    add_seed(parser)
    parser.add_argument("--out", type=Path, required=True, help="the folder for the results")
    parser.add_argument(
        "--roster", type=Path, metavar="CSV",
        help="who is in the class: an export of Canvas or Moodle, or any CSV with one of the "
        "columns id, email, name, login",
    )  # fmt: skip
    parser.add_argument(
        "--assignment", metavar="NAME",
        help="which notebook it is, such as chain_rule; left out, what most submissions say",
    )  # fmt: skip
    again = parser.add_mutually_exclusive_group()
    again.add_argument(
        "--resume", action="store_true",
        help="go on where a run was interrupted, or add new files to a finished one",
    )  # fmt: skip
    again.add_argument(
        "--regrade", action="store_true",
        help="grade all again, after a task or the seed has changed; earlier results are kept in "
        "earlier-1, earlier-2 and so on, and changes.csv lists whose points differ",
    )  # fmt: skip
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, metavar="N",
        help="submissions at a time (default: %(default)s, the number of processors)",
    )  # fmt: skip
    parser.add_argument(
        "--time-limit", type=float, default=Limits.submission_seconds, metavar="SECONDS",
        help="for one notebook, all cells and tasks (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--cell-limit", type=float, default=Limits.cell_seconds, metavar="SECONDS",
        help="for one cell (default: %(default)g)",
    )  # fmt: skip
    parser.add_argument(
        "--memory", type=int, default=Limits.memory >> 20, metavar="MB",
        help="for one notebook, besides the frameworks (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--dask", metavar="ADDRESS",
        help="grade on this dask.distributed scheduler instead, such as tcp://10.0.0.1:8786",
    )  # fmt: skip
    parser.add_argument(
        "--unsafe-without-sandbox", action="store_true",
        help="run student code WITHOUT a sandbox: it can then read and delete your files, use "
        "your network and change grades. Only in a container or a machine that holds nothing else",
    )  # fmt: skip
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; return its exit status."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    commands = {
        "bundle": make_bundle, "containerfile": print_containerfile, "autograde": autograde,
    }  # fmt: skip
    try:
        if given and given[0] in commands:
            return commands[given[0]](given[1:])
        return grade_class(given)
    except GradingError as error:
        print(error, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nInterrupted. What is graded is kept: run it again with --resume.", file=sys.stderr)
        return 130


def read_limits(options: argparse.Namespace) -> Limits:
    """Return the limits, or raise GradingError if one makes no sense."""
    if options.jobs < 1 or options.memory < 64:
        raise GradingError("--jobs must be at least 1 and --memory at least 64.")
    if not (options.time_limit > 0 and options.cell_limit > 0):
        raise GradingError("--time-limit and --cell-limit must be more than 0 seconds.")
    return Limits(
        submission_seconds=options.time_limit, cell_seconds=options.cell_limit,
        memory=options.memory << 20,
    )  # fmt: skip


def grade_class(arguments: Sequence[str]) -> int:
    """Grade a folder."""
    options = build_parser().parse_args(arguments)
    seed, limits = read_seed(options), read_limits(options)
    roster = read_roster(options.roster) if options.roster else []
    leave_out = [path for path in (options.roster, options.seed_file, options.out) if path]
    submissions, aside = find_submissions(options.folder, leave_out)
    if options.assignment:
        assignment = require_assignment(options.assignment)
    else:
        assignment, votes = choose_assignment(submissions)
        print(f"Assignment: {assignment}, named by {votes} of {len(submissions)} submissions.")
    if aside:
        print(f"Left aside, beside the notebooks: {len(aside)} other files.")
    for path in (options.folder, *leave_out):
        require_hidden(path)
    store = Store(options.out)
    settings = describe_run(assignment, seed, limits)
    require_free(options, store, settings)
    options.out.mkdir(mode=0o700, parents=True, exist_ok=True)
    with store.lock():
        before = set_aside(options, store)
        store.open()
        store.write_run(settings)
        work = run.plan_work(submissions, settings)
        grade_work(options, work, Grader(assignment, seed, limits), store)
        outputs = run.make_outputs(work, store, roster, assignment)
        if before is not None and (changes := write_changes(before, outputs["grades.csv"])):
            outputs["changes.csv"] = changes
        kept = run.write_outputs(options.out, outputs)
    if kept:
        print(f"Earlier results are kept in {kept}.")
    print(f"{len(submissions)} submissions graded. Results: {options.out / 'summary.html'}")
    return 0


def require_free(options: argparse.Namespace, store: Store, settings: dict) -> None:
    """Raise GradingError if the output folder holds what this run must not touch or mix with."""
    out = options.out
    if not out.exists():
        return
    if not out.is_dir():
        raise GradingError(f"{out} is not a folder.")
    earlier = store.read_run()
    if earlier is None:
        if any(path.name != store.folder.name for path in out.iterdir()):
            raise GradingError(f"{out} holds other files; name a new folder with --out.")
        return
    if options.regrade:
        return
    if not options.resume:
        raise GradingError(
            f"{out} holds results already. --resume goes on with them, --regrade grades all again "
            "and keeps them aside; or name another folder with --out."
        )
    names = {"assignment": "for another assignment", "seed": "with another seed",
             "course": "with another version of the tasks",
             "limits": "with other limits"}  # fmt: skip
    for name, words in names.items():
        if earlier.get(name) != settings[name]:
            raise GradingError(
                f"The results in {out} were made {words}, and would be mixed. Use --regrade, or "
                "another --out."
            )


def set_aside(options: argparse.Namespace, store: Store) -> bytes | None:
    """For --regrade, put everything earlier aside; return the earlier grades.csv, if any."""
    if not options.regrade or store.read_run() is None:
        return None
    grades = options.out / "grades.csv"
    before = grades.read_bytes() if grades.exists() else None
    kept = run.put_aside(options.out, [*run.find_outputs(options.out), *store.names()])
    print(f"Earlier results are kept in {kept}.")
    return before


def grade_work(options: argparse.Namespace, work: run.Work, grader: Grader, store: Store) -> None:
    """Grade what is missing, here or on a cluster."""
    unsafe = options.unsafe_without_sandbox
    if unsafe:
        print("WITHOUT A SANDBOX: student code can do whatever you can.", file=sys.stderr)
    if options.dask:
        from course_lib.grading.cluster import grade_on_cluster

        grade_on_cluster(options.dask, work, grader, store, run.show_progress, unsafe=unsafe)
        return
    jobs = options.jobs
    modules = run.choose_modules(work, jobs)
    with run.open_slots(grader.limits, unsafe=unsafe, modules=modules, jobs=jobs) as make_slot:
        run.grade_missing(work, grader, store, make_slot, jobs, run.show_progress)
