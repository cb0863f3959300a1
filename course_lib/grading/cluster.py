"""Grading on a cluster: the same work as tasks of a `dask.distributed` scheduler.

Each worker keeps one sandbox per thread. The scheduler and its workers must be the teacher's own:
they see the submissions and the seed.
"""

from __future__ import annotations

import atexit
import itertools
import os
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

from course_lib.grading.errors import GradingError
from course_lib.grading.grade import Grader
from course_lib.grading.notebooks import NotebookError
from course_lib.grading.run import Work
from course_lib.grading.sandbox import Limits, stage_course
from course_lib.grading.slots import SandboxSlot, Slot
from course_lib.grading.store import Store
from course_lib.grading.unsafe import UnsafeSlot

WAIT_SECONDS = 20.0
_here = threading.local()
_numbers = itertools.count()


def grade_on_worker(data: bytes, assignment: str, seed: str, limits: Limits, unsafe: bool) -> dict:
    """Grade one submission in this worker thread's own slot."""
    settings = (assignment, seed, limits, unsafe)
    if getattr(_here, "settings", None) != settings:
        if hasattr(_here, "slot"):
            _here.slot.close()
        _here.slot = _make_slot(limits, unsafe)
        _here.grader = Grader(assignment, seed, limits)
        _here.settings = settings
    return _here.grader.grade(_here.slot, data)


def _make_slot(limits: Limits, unsafe: bool) -> Slot:
    folder = tempfile.TemporaryDirectory(prefix="gradient-flow-")
    os.chmod(folder.name, 0o755)
    course = stage_course(Path(folder.name, "course"))
    # Workers on one machine share its users: their slots must not meet.
    number = (os.getpid() * 16 + next(_numbers)) % 4000
    slot = (UnsafeSlot if unsafe else SandboxSlot)(limits, course, number)
    atexit.register(slot.close)
    atexit.register(folder.cleanup)
    return slot


def grade_on_cluster(
    address: str, work: Work, grader: Grader, store: Store, progress: Callable[[int, int], None],
    *, unsafe: bool,
) -> None:  # fmt: skip
    """Grade on the scheduler at `address` what the store does not hold yet."""
    try:
        from distributed import Client, as_completed
    except ImportError:
        raise GradingError(
            "--dask needs the package distributed: pip install 'gradient-flow-course[cluster]'."
        ) from None
    try:
        client = Client(address, timeout=WAIT_SECONDS)
    except (OSError, ValueError) as error:
        raise GradingError(f"No scheduler answers at {address} ({type(error).__name__}).") from None
    total, done = len(set(work.keys)), 0
    with client:
        futures = {}
        for submission, key in zip(work.submissions, work.keys, strict=True):
            if store.get(key) is not None or key in futures.values():
                done += store.get(key) is not None
                continue
            try:
                data = submission.read()
            except NotebookError as error:
                store.put(key, grader.result({}, str(error), []))
                done += 1
            else:
                future = client.submit(
                    grade_on_worker, data, grader.assignment, grader.seed,
                    grader.limits, unsafe, pure=False, key=f"grade-{key}",
                )  # fmt: skip
                futures[future] = key
        progress(done, total)
        for future in as_completed(list(futures)):
            store.put(futures[future], future.result())
            done += 1
            progress(done, total)
