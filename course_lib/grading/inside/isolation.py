"""What separates one submission from the warm process, and from every other submission.

`enter_namespaces` gives the calling process its own users, mounts, shared memory and network, and
its next child its own process numbers: a child that can neither see, signal nor trace what is
outside of it, and that dies whole when its first process does. `seal` is called in that child: a
fresh /proc, no capability left, hard limits, and a filter of system calls.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
from dataclasses import dataclass

from . import seccomp

CLONE_NEWNS, CLONE_NEWIPC, CLONE_NEWUSER = 0x00020000, 0x08000000, 0x10000000
CLONE_NEWPID, CLONE_NEWNET = 0x20000000, 0x40000000
MS_BIND, MS_REC = 0x1000, 0x4000
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
PR_SET_PDEATHSIG, PR_SET_DUMPABLE, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 4, 24, 38
PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL = 47, 4
CAPABILITY_VERSION = 0x20080522
MIB = 1 << 20


@dataclass(frozen=True)
class Limits:
    """The hard limits on one submission: seconds of processor time, bytes, and counts."""

    cpu_seconds: int
    memory: int
    disk: int
    processes: int


_libc = ctypes.CDLL(None, use_errno=True)


def _system(name: str, *arguments: object) -> int:
    result = getattr(_libc, name)(*arguments)
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")
    return result


def hide_memory(hidden: bool) -> None:
    """Forbid (or allow again) that processes of the same user trace this one or read its memory."""
    _system("prctl", PR_SET_DUMPABLE, ctypes.c_ulong(0 if hidden else 1), 0, 0, 0)


def enter_namespaces(disk: int, keep: list[str]) -> None:
    """Leave the zygote's namespaces for new ones, with an empty /tmp and /dev/shm of `disk` bytes.

    `keep` are folders in /tmp that stay as they are, since Python's packages lie there. Must be
    called in a process with one thread; a fork just made is one.
    """
    user, group = os.getuid(), os.getgid()
    hide_memory(False)  # the maps below belong to root otherwise
    flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWIPC | CLONE_NEWNET | CLONE_NEWPID
    _system("unshare", flags)
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"{user} {user} 1")
    _write("/proc/self/gid_map", f"{group} {group} 1")
    handles = {path: os.open(path, os.O_PATH | os.O_DIRECTORY) for path in keep}
    for folder, size in ((b"/tmp", disk), (b"/dev/shm", disk)):
        options = f"size={size},nr_inodes=20k,mode=1777".encode()
        _system("mount", b"tmpfs", folder, b"tmpfs", ctypes.c_ulong(MS_NOSUID | MS_NODEV), options)
    for path, handle in handles.items():
        os.makedirs(path)
        source, flags = f"/proc/self/fd/{handle}".encode(), ctypes.c_ulong(MS_BIND | MS_REC)
        _system("mount", source, path.encode(), None, flags, None)
        os.close(handle)
    # Terminals would be shared with the submissions before and after.
    flags = ctypes.c_ulong(MS_RDONLY | MS_NOSUID | MS_NODEV)
    _system("mount", b"tmpfs", b"/dev/pts", b"tmpfs", flags, b"size=4k")


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def seal(limits: Limits) -> None:
    """Make the calling process, the first of its process namespace, ready for untrusted code."""
    flags = ctypes.c_ulong(MS_NOSUID | MS_NODEV | MS_NOEXEC)
    _system("mount", b"proc", b"/proc", b"proc", flags, None)
    os.setsid()
    os.chdir("/tmp")
    _system("prctl", PR_SET_PDEATHSIG, ctypes.c_ulong(signal.SIGKILL), 0, 0, 0)
    for number in range(signal.SIGHUP, signal.SIGSYS + 1):
        if number not in (signal.SIGKILL, signal.SIGSTOP):
            signal.signal(number, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # as Python starts: they become exceptions
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    _write("/proc/self/oom_score_adj", "1000")  # if memory runs out after all, this one goes
    drop_capabilities()
    set_limits(limits)
    seccomp.install(_libc)


def drop_capabilities() -> None:
    """Give up every capability, for good, and with it the way to any new one."""
    _system("prctl", PR_SET_NO_NEW_PRIVS, ctypes.c_ulong(1), 0, 0, 0)
    for capability in range(64):
        if _libc.prctl(PR_CAPBSET_DROP, ctypes.c_ulong(capability), 0, 0, 0) < 0:
            break  # beyond the last one that this kernel knows
    _libc.prctl(PR_CAP_AMBIENT, ctypes.c_ulong(PR_CAP_AMBIENT_CLEAR_ALL), 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("=Ii", CAPABILITY_VERSION, 0))
    nothing = ctypes.create_string_buffer(struct.pack("=6I", *[0] * 6))
    _system("capset", header, nothing)


def set_limits(limits: Limits) -> None:
    """Set the limits on this process and its children; memory counts from what is mapped now."""
    mapped = read_sizes("/proc/self/status")
    wanted = {
        resource.RLIMIT_CPU: limits.cpu_seconds,
        resource.RLIMIT_DATA: mapped.get("VmData", 0) + limits.memory,
        resource.RLIMIT_AS: mapped.get("VmSize", 0) + 4 * limits.memory,
        resource.RLIMIT_FSIZE: limits.disk,
        resource.RLIMIT_NPROC: limits.processes,
        resource.RLIMIT_NOFILE: 128,
        resource.RLIMIT_CORE: 1,  # 0 would still be sent to a program that collects core dumps
        resource.RLIMIT_MEMLOCK: 0,
        resource.RLIMIT_STACK: 8 * MIB,
        resource.RLIMIT_MSGQUEUE: 0,
    }
    for kind, value in wanted.items():
        hard = resource.getrlimit(kind)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(kind, (value, value))


def read_sizes(path: str) -> dict[str, int]:
    """Return the entries in bytes of a `status` or `smaps_rollup` of /proc; {} if it is gone."""
    try:
        with open(path, encoding="ascii", errors="replace") as lines:
            parts = [line.split() for line in lines]
    except OSError:
        return {}
    return {p[0].rstrip(":"): int(p[1]) * 1024 for p in parts if len(p) == 3 and p[2] == "kB"}
