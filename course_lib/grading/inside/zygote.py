"""The warm process: frameworks loaded, one child per submission, nothing of a submission kept.

The grader sends a line of JSON with the limits, and three descriptors: where the request is read,
where the child writes its events, and a socket for the child's warden. The zygote forks the warden
and forgets them. The warden enters new namespaces, forks the one process that runs the student's
code, watches its time and memory, kills it when the grader says so, and reports how it ended. It
is beyond the reach of that process: outside its process numbers, users and descriptors.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import sys
import time
from array import array

from . import runner
from .isolation import Limits, enter_namespaces, hide_memory, read_sizes, seal

WATCH_SECONDS = 0.03
REQUEST_BYTES = 4096


def serve(control: socket.socket, modules: list[str]) -> None:
    """Import `modules`, say that it is ready, and fork a warden for each message until EOF."""
    hide_memory(True)
    missing = warm_up(modules)
    threads = len(os.listdir("/proc/self/task"))
    gc.collect()
    gc.freeze()  # what is there now is shared by all children: the collector must not touch it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # wardens are reaped by the kernel
    control.send(json.dumps({"ready": True, "missing": missing, "threads": threads}).encode())
    while True:
        message, descriptors = receive(control)
        if not message:
            return
        if len(descriptors) == 3 and os.fork() == 0:
            code = 1
            try:
                control.close()
                watch_over(json.loads(message), *descriptors)
                code = 0
            finally:
                os._exit(code)
        for descriptor in descriptors:
            os.close(descriptor)


def warm_up(modules: list[str]) -> list[str]:
    """Import each module without starting its runtime; return the names of those not installed."""
    missing = []
    for name in modules:
        try:
            importlib.import_module(name)
        except ImportError:
            missing.append(name)
    return missing


def receive(control: socket.socket) -> tuple[bytes, list[int]]:
    """Return one message and the descriptors that came with it."""
    message, ancillary, _, _ = control.recvmsg(REQUEST_BYTES, socket.CMSG_SPACE(12))
    found = array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            found.frombytes(data[: len(data) - len(data) % found.itemsize])
    return message, list(found)


def watch_over(order: dict, request: int, events: int, status: int) -> None:
    """Be the warden of one submission: run it in namespaces of its own, and report its end."""
    limits = Limits(**order["limits"])
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    os.setsid()
    inherited = measure(["self"], "status", "Rss")
    report = socket.socket(fileno=status)
    shut, shutting = os.pipe()
    try:
        enter_namespaces(limits.disk, order["keep"])
        child = os.fork()
    except OSError as error:
        report.send(json.dumps({"end": "refused", "detail": str(error)}).encode())
        return
    if child == 0:
        code = 1
        try:
            report.close()
            shut_in(limits, order["cpus"], request, events, shutting)
            runner.run(request, events)
            code = 0
        finally:
            os._exit(code)
    for descriptor in (request, events, shutting):
        os.close(descriptor)
    # What the student's process cannot say for it: that it was shut in before its first cell.
    if (said := os.read(shut, 500)) != b"shut":
        detail = said.decode("utf-8", "replace") or "the process ended at once"
        report.send(json.dumps({"end": "refused", "detail": detail}).encode())
        return
    end = watch(child, report, inherited + limits.memory, order["seconds"])
    with contextlib.suppress(OSError):
        report.send(json.dumps(end).encode())


def shut_in(limits: Limits, cpus: list[int], request: int, events: int, shutting: int) -> None:
    """Give up all rights, and tell the warden that it is done, or why it could not be."""
    try:
        keep_only(request, events, shutting)
        if cpus:  # so that the submissions beside it are not slowed down
            os.sched_setaffinity(0, cpus)
        seal(limits)
    except OSError as error:
        os.write(shutting, str(error).encode()[:500])
        os._exit(1)
    os.write(shutting, b"shut")
    os.close(shutting)


def keep_only(*kept: int) -> None:
    """Close every descriptor but `kept`; standard input and output lead nowhere."""
    nowhere = os.open("/dev/null", os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    low = 3
    for descriptor in (*sorted(kept), os.sysconf("SC_OPEN_MAX")):
        os.closerange(low, descriptor)
        low = descriptor + 1


def watch(child: int, report: socket.socket, memory: int, seconds: float) -> dict:
    """Wait until `child` ends, or kill it: too long, too much memory, or told so by the grader."""
    handle = os.pidfd_open(child)
    deadline = time.monotonic() + seconds
    reason = "ended"
    while True:
        readable, _, _ = select.select([handle, report], [], [], WATCH_SECONDS)
        if handle in readable:
            break
        if report in readable:  # a word from the grader, or the grader is gone
            reason = "killed"
        elif time.monotonic() > deadline:
            reason = "time"
        elif measure_memory() > memory:
            reason = "memory"
        if reason != "ended":
            os.kill(child, signal.SIGKILL)  # the first of its namespace: all of it dies
            break
    _, status = os.waitpid(child, 0)
    return {"end": reason, "code": os.waitstatus_to_exitcode(status)}


def measure_memory() -> int:
    """Return the bytes of memory of all processes of the submission; /proc shows no others.

    Pages that a fork shares with its parent count for both in the quick sum, so when there are
    several processes each page is counted by its share instead.
    """
    running = [name for name in os.listdir("/proc") if name.isdigit()]
    if len(running) < 2:
        return measure(running, "status", "Rss")
    return measure(running, "smaps_rollup", "Pss_")


def measure(processes: list[str], source: str, kind: str) -> int:
    """Return the sum over processes of what is theirs: anonymous and shared, not files."""
    sizes = [read_sizes(f"/proc/{name}/{source}") for name in processes]
    return sum(size.get(f"{kind}Anon", 0) + size.get(f"{kind}Shmem", 0) for size in sizes)


def main() -> None:
    """Take the control socket from standard input, and serve."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(os.open("/dev/null", os.O_RDONLY), 0)
    os.dup2(2, 1)
    serve(control, sys.argv[1:])
