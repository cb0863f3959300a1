"""A filter of system calls: what no exercise needs, and what attacks on a kernel begin with.

A denied call fails with EPERM (ENOSYS for `clone3`, so that the C library falls back to `clone`,
whose flags the filter can read). The namespaces and limits do the work of the sandbox; this closes
what they leave open: memory that counts for nobody (`memfd_create`, System V segments), tracing,
new namespaces, and the less travelled parts of the kernel.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct

PR_SET_SECCOMP, SECCOMP_MODE_FILTER = 22, 2
ALLOW, ERRNO = 0x7FFF0000, 0x00050000
LOAD, JUMP_EQUAL, JUMP_ANY_BIT, JUMP_GREATER_EQUAL, RETURN = 0x20, 0x15, 0x45, 0x35, 0x06
NEW_NAMESPACES = 0x7E020080  # every CLONE_NEW* flag, CLONE_NEWTIME among them
X32 = 0x40000000

# Number of each call on x86_64 and, where they differ, on aarch64.
NUMBERS = {
    "x86_64": {
        "ptrace": 101, "shmget": 29, "msgget": 68, "syslog": 103, "acct": 163,
        "process_vm_readv": 310, "process_vm_writev": 311, "unshare": 272, "setns": 308,
        "mount": 165, "umount2": 166, "pivot_root": 155, "chroot": 161, "keyctl": 250,
        "add_key": 248, "request_key": 249, "bpf": 321, "perf_event_open": 298,
        "userfaultfd": 323, "memfd_create": 319, "memfd_secret": 447, "kcmp": 312,
        "personality": 135, "name_to_handle_at": 303, "open_by_handle_at": 304,
        "fanotify_init": 300, "kexec_load": 246, "init_module": 175, "finit_module": 313,
        "swapon": 167, "quotactl": 179, "vmsplice": 278, "mq_open": 240, "sched_setaffinity": 203,
    },
    "aarch64": {
        "ptrace": 117, "shmget": 194, "msgget": 186, "syslog": 116, "acct": 89,
        "process_vm_readv": 270, "process_vm_writev": 271, "unshare": 97, "setns": 268,
        "mount": 40, "umount2": 39, "pivot_root": 41, "chroot": 51, "keyctl": 219,
        "add_key": 217, "request_key": 218, "bpf": 280, "perf_event_open": 241,
        "userfaultfd": 282, "memfd_create": 279, "memfd_secret": 447, "kcmp": 272,
        "personality": 92, "name_to_handle_at": 264, "open_by_handle_at": 265,
        "fanotify_init": 262, "kexec_load": 104, "init_module": 105, "finit_module": 273,
        "swapon": 224, "quotactl": 60, "vmsplice": 75, "mq_open": 180, "sched_setaffinity": 122,
    },
}  # fmt: skip
# The same on every architecture: io_uring, the new mount calls, pidfd_getfd, process_madvise.
EVERYWHERE = (425, 426, 427, 428, 429, 430, 431, 432, 433, 438, 440, 442)
CLONE3 = 435
ARCHITECTURES = {"x86_64": (0xC000003E, 56), "aarch64": (0xC00000B7, 220)}  # and number of `clone`


def build_filter(machine: str) -> bytes | None:
    """Return the filter's program for a `platform.machine()`; None for an unknown one."""
    if machine not in ARCHITECTURES:
        return None
    architecture, clone = ARCHITECTURES[machine]
    deny = ERRNO | errno.EPERM
    program = [
        (LOAD, 0, 0, 4),  # the architecture: calls in another one's numbers are denied
        (JUMP_EQUAL, 1, 0, architecture),
        (RETURN, 0, 0, deny),
        (LOAD, 0, 0, 0),
    ]
    if machine == "x86_64":
        program += [(JUMP_GREATER_EQUAL, 0, 1, X32), (RETURN, 0, 0, deny)]
    program += [(JUMP_EQUAL, 0, 1, CLONE3), (RETURN, 0, 0, ERRNO | errno.ENOSYS)]
    for number in (*NUMBERS[machine].values(), *EVERYWHERE):
        program += [(JUMP_EQUAL, 0, 1, number), (RETURN, 0, 0, deny)]
    program += [
        (JUMP_EQUAL, 0, 3, clone),
        (LOAD, 0, 0, 16),  # the low half of its first argument, the flags
        (JUMP_ANY_BIT, 0, 1, NEW_NAMESPACES),
        (RETURN, 0, 0, deny),
        (RETURN, 0, 0, ALLOW),
    ]
    return b"".join(struct.pack("=HBBI", *line) for line in program)


def install(libc: ctypes.CDLL) -> bool:
    """Filter the calls of this process and all it starts, for good; False on an unknown machine."""
    program = build_filter(platform.machine())
    if program is None:
        return False
    lines = ctypes.create_string_buffer(program, len(program))
    header = struct.pack("@HP", len(program) // 8, ctypes.addressof(lines))
    if libc.prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, ctypes.c_char_p(header), 0, 0) < 0:
        number = ctypes.get_errno()
        raise OSError(number, "seccomp: the filter of system calls was refused")
    return True
