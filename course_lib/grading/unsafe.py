"""Running submissions without a sandbox: for containers, and only if the teacher says so."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from course_lib.grading import sandbox
from course_lib.grading.sandbox import Limits
from course_lib.grading.slots import End, Slot, describe_exit


class UnsafeSlot(Slot):
    """A plain process for each run, that can do whatever its user can. For use in a container."""

    def __init__(self, limits: Limits, course: Path, number: int) -> None:
        super().__init__(limits)
        self.course = course
        start = 'import sys; sys.path.insert(0, sys.argv[1]); from inside.alone import main; main()'
        self.command = [sys.executable, "-c", start, str(course)]
        self.user = self._other_user(sandbox.FIRST_USER + number)

    def _other_user(self, user: int) -> dict:
        """Return how to start a process as another user, where this one is root and it works."""
        if not hasattr(os, "getuid") or os.getuid() != 0:
            return {}
        options = {"user": user, "group": user, "extra_groups": []}
        try:
            tried = [sys.executable, "-c", "import numpy"]
            subprocess.run(tried, check=True, capture_output=True, cwd=self.course, **options)
        except (OSError, subprocess.SubprocessError):
            return {}
        return options

    def run(self, request: bytes, seconds: float, handle: Callable[[dict], float]) -> End:
        """Run one request in a new process, and kill its session at the end."""
        room = Path(tempfile.mkdtemp(prefix="submission-"))
        room.chmod(0o777)
        environment = sandbox.ENVIRONMENT | {"HOME": str(room), "TMPDIR": str(room)}
        kept = {name: os.environ[name] for name in ("SYSTEMROOT", "PATH") if name in os.environ}
        with tempfile.TemporaryFile() as body:
            body.write(request)
            body.seek(0)
            process = subprocess.Popen(
                self.command, stdin=body, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
                env=environment | kept, cwd=room, start_new_session=True, **self.user,
            )  # fmt: skip
        end = self.follow(process.stdout, seconds, handle, lambda: _kill_session(process))
        process.stdout.close()
        code = process.wait()
        if self.user:
            kill_all_of(self.user["user"])
        shutil.rmtree(room, ignore_errors=True)
        return End("died", describe_exit(code)) if end.reason == "died" else end


def kill_all_of(user: int) -> None:
    """Kill every process of a user; again until there is none, since they may be forking."""
    for _ in range(100):
        found = [p for p in Path("/proc").glob("[0-9]*") if _is_of(p, user)]
        if not found:
            return
        for place in found:
            with contextlib.suppress(OSError):
                os.kill(int(place.name), signal.SIGKILL)


def _is_of(place: Path, user: int) -> bool:
    try:
        status = (place / "status").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return f"\nUid:\t{user}\t" in status and "\nState:\tZ" not in status


def _kill_session(process: subprocess.Popen) -> None:
    with contextlib.suppress(OSError):
        if hasattr(os, "killpg"):
            os.killpg(process.pid, signal.SIGKILL)
    process.kill()
