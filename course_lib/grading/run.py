"""A class graded: submissions shared out to slots, results stored as they come, outputs written."""

from __future__ import annotations

import os
import queue
import re
import sys
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from course_lib.grading import gradebook, pages, sandbox
from course_lib.grading.grade import Grader
from course_lib.grading.gradescope import make_results
from course_lib.grading.notebooks import NotebookError
from course_lib.grading.roster import Matching, Student, match
from course_lib.grading.sandbox import Limits, find_bubblewrap, stage_course
from course_lib.grading.slots import SandboxSlot, Slot
from course_lib.grading.store import PAGES, Store, make_key, to_json, write_whole
from course_lib.grading.submissions import Submission
from course_lib.grading.unsafe import UnsafeSlot

HEAVY = {
    "matplotlib": rb"(?:import|from) +matplotlib|course_lib\.plots|import +plots",
    "sklearn": rb"(?:import|from) +(?:sklearn|scipy)|course_lib\.data|import +data",
    "torch": rb"(?:import|from) +torch|course_lib\.pytorch",
    "tf": rb"(?:import|from) +(?:tensorflow|keras)|course_lib\.tf",
}
OUTPUTS = ("grades.csv", "canvas.csv", "moodle.csv", "changes.csv", "summary.html")
SlotMaker = Callable[[int], Slot]


@dataclass(frozen=True)
class Work:
    """A class to be graded: what was handed in, and the key of each result."""

    submissions: tuple[Submission, ...]
    keys: tuple[str, ...]


def plan_work(submissions: list[Submission], run: dict) -> Work:
    """Return the work; two files of the same content have the same key, and are graded once."""
    keys = []
    for submission in submissions:
        try:
            keys.append(make_key(submission.read(), run))
        except NotebookError as error:
            keys.append(make_key(str(error).encode(), run | {"unread": True}))
    return Work(tuple(submissions), tuple(keys))


def grade_file(grader: Grader, slot: Slot, submission: Submission) -> dict:
    """Return the result of one file, also if it cannot be read."""
    try:
        data = submission.read()
    except NotebookError as error:
        return grader.result({}, str(error), [])
    return grader.grade(slot, data)


def choose_modules(work: Work, jobs: int) -> tuple[str, ...]:
    """Return the modules worth loading beforehand: those that enough submissions speak of.

    Any other can be imported all the same; it takes the submission that does so a few seconds.
    """
    speak = Counter()
    for submission in work.submissions:
        with suppress(NotebookError):
            text = submission.read()
            speak.update(name for name, words in HEAVY.items() if re.search(words, text))
    wanted = [name for name in HEAVY if speak[name] > jobs]
    return tuple(m for name in ("", *wanted) for m in sandbox.MODULES[name])


@contextmanager
def open_slots(
    limits: Limits, *, unsafe: bool, modules: tuple[str, ...] | None = None, jobs: int = 1
) -> Iterator[SlotMaker]:
    """Give a function that makes slot number k; raise GradingError where there is no sandbox."""
    if not unsafe:
        find_bubblewrap()
    with tempfile.TemporaryDirectory(prefix="gradient-flow-") as folder:
        os.chmod(folder, 0o755)
        course = stage_course(Path(folder, "course"))
        if unsafe:
            yield lambda number: UnsafeSlot(limits, course, number)
        else:
            yield lambda k: SandboxSlot(limits, course, k, modules, share_cpus(k, jobs))


def share_cpus(number: int, jobs: int) -> list[int]:
    """Return the processors of slot `number`: its own, so that no slot can slow down another."""
    allowed = sorted(os.sched_getaffinity(0))
    return allowed[number % jobs :: jobs] if jobs <= len(allowed) else allowed


def grade_missing(
    work: Work, grader: Grader, store: Store, make_slot: SlotMaker, jobs: int,
    progress: Callable[[int, int], None],
) -> None:  # fmt: skip
    """Grade what the store does not hold yet, `jobs` at a time; what is done is stored at once."""
    todo: queue.Queue = queue.Queue()
    waiting = {}
    for submission, key in zip(work.submissions, work.keys, strict=True):
        if store.get(key) is None:
            waiting.setdefault(key, submission)
    for item in waiting.items():
        todo.put(item)
    said: queue.Queue = queue.Queue()
    stop = threading.Event()
    total = len(set(work.keys))
    done = total - len(waiting)
    progress(done, total)
    workers = [
        threading.Thread(
            target=_work, args=(number, todo, said, stop, grader, store, make_slot), daemon=True
        )
        for number in range(min(jobs, len(waiting)))
    ]  # fmt: skip
    for worker in workers:
        worker.start()
    try:
        while done < total:
            error = said.get()
            if error is not None:
                raise error
            done += 1
            progress(done, total)
    finally:
        stop.set()
        for worker in workers:
            worker.join(timeout=30)


def _work(
    number: int, todo: queue.Queue, said: queue.Queue, stop: threading.Event, grader: Grader,
    store: Store, make_slot: SlotMaker,
) -> None:  # fmt: skip
    """Grade one submission after another in a slot of its own, until there is none or a stop."""
    slot = None
    try:
        while not stop.is_set():
            try:
                key, submission = todo.get_nowait()
            except queue.Empty:
                return
            slot = slot or make_slot(number)
            store.put(key, grade_file(grader, slot, submission))
            said.put(None)
    except BaseException as error:
        said.put(error)
    finally:
        if slot is not None:
            slot.close()


def make_outputs(
    work: Work, store: Store, roster: list[Student], assignment: str
) -> dict[str, bytes]:
    """Return the content of every output file, by its path inside the output folder."""
    results = {
        submission.name: store.get(key) or {}
        for submission, key in zip(work.submissions, work.keys, strict=True)
    }
    page_of = {submission.name: submission.page for submission in work.submissions}
    matching = match(list(results), roster) if roster else Matching()
    rows = gradebook.make_rows(results, page_of, roster, matching)
    tasks = next(iter(results.values()))["tasks"]
    most = sum(task["max_points"] for task in tasks)
    outputs = {
        "grades.csv": gradebook.write_grades(rows, tasks),
        "summary.html": pages.make_summary(assignment, rows, tasks, find_identical(work, results)),
    }
    if roster:
        outputs["canvas.csv"] = gradebook.write_canvas(rows, assignment, most)
        outputs["moodle.csv"] = gradebook.write_moodle(rows, most)
    for name, result in results.items():
        outputs[f"feedback/{page_of[name]}.html"] = pages.make_feedback(name, result)
        outputs[f"gradescope/{page_of[name]}.json"] = to_json(make_results(result))
    return outputs


def find_identical(work: Work, results: dict[str, dict]) -> list[list[str]]:
    """Return the groups of files with the same content in which something was attempted."""
    groups: dict[str, list[str]] = {}
    for submission, key in zip(work.submissions, work.keys, strict=True):
        tasks = results[submission.name]["tasks"]
        if any(task["status"] != "unattempted" for task in tasks):
            groups.setdefault(key, []).append(submission.name)
    return sorted(group for group in groups.values() if len(group) > 1)


def write_outputs(out: Path, outputs: dict[str, bytes]) -> Path | None:
    """Write the outputs; if there are earlier ones that differ, move those to `earlier-N` first.

    Returns where earlier ones were put, or None.
    """
    present = find_outputs(out)
    aside = None
    if any(outputs.get(name) != (out / name).read_bytes() for name in present):
        aside = put_aside(out, present)
        present = []
    for name in sorted(set(outputs) - set(present)):
        write_whole(out / name, outputs[name])
    return aside


def find_outputs(out: Path) -> list[str]:
    """Return the names of what an earlier run has written to the folder."""
    found = [name for name in OUTPUTS if (out / name).is_file()]
    for folder in PAGES:
        found += [f"{folder}/{path.name}" for path in sorted((out / folder).glob("*"))]
    return found


def put_aside(out: Path, names: list[str]) -> Path:
    """Move files of the output folder into a new folder `earlier-N` in it, and return that."""
    number = 1
    while (aside := out / f"earlier-{number}").exists():
        number += 1
    for name in names:
        target = aside / name
        target.parent.mkdir(parents=True, exist_ok=True)
        os.replace(out / name, target)
    return aside


def show_progress(done: int, total: int) -> None:
    """Draw a bar on a terminal; elsewhere print a line now and then."""
    if sys.stderr.isatty():
        filled = 30 * done // max(total, 1)
        end = "\n" if done == total else ""
        bar = "█" * filled + "·" * (30 - filled)
        print(f"\r{bar} {done} of {total}", end=end, file=sys.stderr, flush=True)
    elif done == total or done % max(1, total // 10) == 0:
        print(f"graded {done} of {total}", file=sys.stderr, flush=True)
