"""Results on disk: one file per submission, written whole or not at all, found by what it is of.

A result belongs to the content of a submission, the assignment, the seed, the limits and the
versions of the tasks. Whatever of these changes, the result is another one; so an interrupted run
goes on without losing or repeating anything, and nothing stale is ever taken for new.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import course_lib
from course_lib.grading.errors import GradingError
from course_lib.grading.sandbox import Limits

FOLDER = ".grading"
HALF = ".new-"
"""How the names of files begin that are not whole yet."""

PAGES = ("feedback", "gradescope")
"""The folders, in that of the outputs, with one file per submission."""


def digest_seed(seed: str) -> str:
    """Return what a seed leaves behind: enough to tell two apart, too costly to guess back."""
    return hashlib.scrypt(seed.encode(), salt=b"gradient-flow", n=2**14, r=8, p=1, dklen=16).hex()


def digest_course() -> str:
    """Return a digest of the code that results depend on: all of `course_lib` but its pictures."""
    root = Path(course_lib.__file__).parent
    found = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        parts = path.relative_to(root).parts
        paperwork = parts[0] == "grading" and parts[1] not in ("grade.py", "inside")
        if parts[0] == "plots" or paperwork:
            continue
        found.update("/".join(parts).encode() + b"\0" + path.read_bytes() + b"\0")
    return found.hexdigest()[:32]


def make_key(content: bytes, run: dict) -> str:
    """Return the name of the result of `content` in a run with these settings."""
    settings = json.dumps(run, sort_keys=True).encode()
    return hashlib.sha256(hashlib.sha256(content).digest() + settings).hexdigest()[:40]


def describe_run(assignment: str, seed: str, limits: Limits) -> dict:
    """Return the settings that a result depends on, without the seed itself."""
    return {
        "assignment": assignment, "seed": digest_seed(seed), "course": digest_course(),
        "limits": dataclasses.asdict(limits),
    }  # fmt: skip


class Store:
    """The results of one output folder."""

    def __init__(self, out: Path) -> None:
        self.folder = out / FOLDER

    def open(self) -> None:
        """Make the folder."""
        (self.folder / "results").mkdir(parents=True, exist_ok=True)

    def get(self, key: str) -> dict | None:
        """Return a stored result; None if it is not there, or damaged."""
        try:
            found = json.loads((self.folder / "results" / f"{key}.json").read_bytes())
        except (OSError, ValueError):
            return None
        return found if isinstance(found, dict) and "tasks" in found else None

    def put(self, key: str, result: dict) -> None:
        """Store a result."""
        write_whole(self.folder / "results" / f"{key}.json", to_json(result))

    def read_run(self) -> dict | None:
        """Return the settings of the run that made this folder; None if there was none."""
        try:
            return json.loads((self.folder / "run.json").read_bytes())
        except (OSError, ValueError):
            return None

    def names(self) -> list[str]:
        """Return the paths of what is stored, inside the output folder."""
        kept = [self.folder / "run.json", *sorted((self.folder / "results").glob("*.json"))]
        return [path.relative_to(self.folder.parent).as_posix() for path in kept if path.exists()]

    def write_run(self, run: dict) -> None:
        """Store the settings of a run."""
        write_whole(self.folder / "run.json", to_json(run))

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder for this process, or raise GradingError if another one does."""
        self.open()
        with open(self.folder / "lock", "w", encoding="ascii") as handle:
            try:
                import fcntl

                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except ImportError:
                pass  # no such locks on Windows
            except OSError:
                where = self.folder.parent
                raise GradingError(f"Another grading is writing to {where} now.") from None
            self.clear_halves()
            yield

    def clear_halves(self) -> None:
        """Remove what a process that was killed had half written, by the names it gives them.

        In `feedback` such a file would pass for another result, and all of them be put aside.
        """
        out = self.folder.parent
        for folder in (out, *(out / name for name in PAGES), self.folder, self.folder / "results"):
            for half in folder.glob(HALF + 8 * "?"):  # as many letters as `tempfile` draws
                half.unlink(missing_ok=True)


def to_json(value: object) -> bytes:
    """Return `value` as the same bytes each time."""
    text = json.dumps(value, sort_keys=True, indent=1, ensure_ascii=False)
    return text.encode("utf-8", "replace") + b"\n"


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that it is there whole or not at all, whenever the process ends."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=HALF)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
