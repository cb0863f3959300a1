"""Runs one submission in a plain process, without the sandbox: only where the teacher says so."""

from __future__ import annotations

import contextlib
import os

from . import runner


def main() -> None:
    """Read the request from standard input, send the events to standard output, and leave."""
    request, events = os.dup(0), os.dup(1)
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in range(3):
        os.dup2(nowhere, standard)
    with contextlib.suppress(ImportError, ValueError, OSError):
        import resource

        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    runner.run(request, events)
    os._exit(0)
