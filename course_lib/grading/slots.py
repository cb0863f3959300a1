"""A slot runs one submission after another, in a sandbox (or, `unsafe.UnsafeSlot`, without one).

`run(request, seconds, handle)` hands every event that the runner sends to `handle`, and returns
how the process ended. What comes back is bytes that a stranger wrote, and is
read as that: framed, bounded in size, number and time, and decoded as plain data or refused.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import BinaryIO

from course_lib.grading import sandbox
from course_lib.grading.errors import GradingError
from course_lib.grading.inside.isolation import Limits as HardLimits
from course_lib.grading.sandbox import Limits
from course_lib.plain_data import PlainDataError, decode

START_SECONDS = 180.0
GRACE_SECONDS = 3.0  # beyond the limit that the runner keeps itself
MAX_EVENTS = 20_000


@dataclass(frozen=True)
class End:
    """How a run ended.

    `reason` is "done", "died" (with what `detail` says), "time", "memory", "output" (too much of
    it), "nonsense" (what came back was no event), or "lost" (the sandbox itself is gone).
    """

    reason: str
    detail: str = ""


def read_frames(stream: BinaryIO, found: queue.Queue, largest: int) -> None:
    """Put each frame of `stream` into `found`, or "output" for one too large; None at the end."""
    try:
        while len(head := stream.read(4)) == 4:
            size = int.from_bytes(head, "big")
            if size > largest:
                found.put("output")
                break
            body = stream.read(size)
            if len(body) < size:
                break
            found.put(body)
    except (OSError, ValueError):
        pass
    found.put(None)


class Slot:
    """What is common to both kinds: following the events of a run until its end."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits

    def follow(
        self, stream: BinaryIO, seconds: float, handle: Callable[[dict], float], stop: Callable
    ) -> End:
        """Read events until the end, calling `stop` if it must be brought about.

        `handle` returns how many seconds the step that an event announces may take.
        """
        found: queue.Queue = queue.Queue(maxsize=64)
        largest = self.limits.answer_bytes + 4096
        reader = threading.Thread(target=read_frames, args=(stream, found, largest), daemon=True)
        reader.start()
        end = self._follow(found, time.monotonic() + seconds, handle)
        stop()
        patience = time.monotonic() + GRACE_SECONDS
        while reader.is_alive():  # it may wait for room
            if time.monotonic() > patience:
                return End("lost")
            with contextlib.suppress(queue.Empty):
                found.get(timeout=0.05)
        return end

    def _follow(self, found: queue.Queue, deadline: float, handle: Callable) -> End:
        step = deadline
        for _ in range(MAX_EVENTS):
            try:
                frame = found.get(timeout=max(0.0, min(step, deadline) - time.monotonic()))
            except queue.Empty:
                return End("time")
            if frame is None:
                return End("died")
            if frame == "output":
                return End("output")
            try:
                event = decode(frame, max_bytes=self.limits.answer_bytes + 4096)
                if event == {"event": "done"}:
                    return End("done")
                step = time.monotonic() + handle(event) + GRACE_SECONDS
            except (PlainDataError, LookupError, TypeError, ValueError, AttributeError) as error:
                return End("nonsense", str(error)[:200])
        return End("output")

    def close(self) -> None:
        """End the slot."""


class SandboxSlot(Slot):
    """A warm process in a sandbox of its own."""

    def __init__(
        self, limits: Limits, course: Path, number: int, modules: tuple[str, ...] | None = None,
        cpus: Sequence[int] = (),
    ) -> None:  # fmt: skip
        super().__init__(limits)
        modules = sandbox.all_modules() if modules is None else modules
        self.command = sandbox.build_command(sandbox.find_bubblewrap(), course, number, modules)
        self.cpus = sorted(cpus)
        self.keep = sandbox.kept_folders()
        self.alive = False
        self.start()

    def start(self) -> None:
        """Start the warm process, or raise GradingError with the reason why it does not."""
        self.control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with tempfile.TemporaryFile() as said:
            self.process = subprocess.Popen(
                self.command, stdin=theirs, stdout=said, stderr=said, start_new_session=True, env={}
            )
            theirs.close()
            self.control.settimeout(START_SECONDS)
            try:
                self.state = json.loads(self.control.recv(4096) or b"{}")
            except (OSError, ValueError):
                self.state = {}
            self.alive = bool(self.state.get("ready"))
            if not self.alive:
                self.close()
                said.seek(0)
                raise GradingError(
                    sandbox.explain_failure(said.read(20_000).decode("utf-8", "replace"))
                )

    def run(self, request: bytes, seconds: float, handle: Callable[[dict], float]) -> End:
        """Run one request and return its end; every event is handed to `handle`.

        A slot that was lost is thrown away, and the next run gets a new one.
        """
        if not self.alive:
            self.start()
        end = self._run(request, seconds, handle)
        if end.reason == "lost":
            self.close()
        return end

    def _run(self, request: bytes, seconds: float, handle: Callable[[dict], float]) -> End:
        limits = self.limits
        hard = HardLimits(int(seconds) + 5, limits.memory, limits.disk, limits.processes)
        patience = seconds + 2 * GRACE_SECONDS
        order = json.dumps({"limits": asdict(hard), "seconds": patience, "keep": self.keep,
                            "cpus": self.cpus})  # fmt: skip
        status, their_status = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        receiving, sending = os.pipe()
        with tempfile.TemporaryFile() as body, status, os.fdopen(receiving, "rb") as stream:
            body.write(request)
            body.seek(0)
            descriptors = [body.fileno(), sending, their_status.fileno()]
            try:
                socket.send_fds(self.control, [order.encode()], descriptors)
            except OSError:
                return End("lost")
            finally:
                os.close(sending)
                their_status.close()
            end = self.follow(stream, seconds, handle, lambda: _send_quietly(status))
            return self._read_end(status, end)

    def _read_end(self, status: socket.socket, end: End) -> End:
        told = _read_report(status)
        if told.get("end") == "refused":
            raise GradingError(sandbox.explain_failure(str(told.get("detail"))))
        if "end" not in told or self.process.poll() is not None:
            return End("lost")
        if end.reason != "died":
            return end
        if told["end"] in ("memory", "time"):
            return End(told["end"])
        return End("died", describe_exit(told["code"]))

    def close(self) -> None:
        """Kill the sandbox and all that is in it."""
        self.alive = False
        self.control.close()
        with contextlib.suppress(OSError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def _read_report(status: socket.socket) -> dict:
    """Return the warden's last word, {} if there is none."""
    status.settimeout(10.0)
    for _ in range(2):
        try:
            return json.loads(status.recv(4096) or b"{}")
        except ConnectionResetError:
            continue  # our "stop" came too late to be read; the word itself is still there
        except (OSError, ValueError):
            break
    return {}


def _send_quietly(status: socket.socket) -> None:
    with contextlib.suppress(OSError):
        status.send(b"stop")


def describe_exit(code: int) -> str:
    """Say how a process ended: by a signal, or with a status."""
    if code < 0:
        try:
            return f"it was ended by {signal.Signals(-code).name}"
        except ValueError:
            return f"it was ended by signal {-code}"
    return f"it exited with status {code}"
