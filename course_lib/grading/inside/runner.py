"""Runs the cells of one notebook and calls the functions that are graded, inside the sandbox.

Everything here is within the student's reach, and nothing here decides anything: it reports what
the functions returned, and the grader outside judges it. Each step is announced before it is
taken, so that the grader knows where a process was when it died.
"""

from __future__ import annotations

import contextlib
import os
import random
import re
import signal
import sys
import traceback
from collections.abc import Iterator

import numpy as np

from course_lib.checks.calling import call_function
from course_lib.plain_data import decode, encode

from .cells import make_namespace, run_cell

LONGEST_MESSAGE = 400
_ADDRESS = re.compile(r"0x[0-9a-fA-F]{4,}")


class CellTime(BaseException):
    """A cell's time is up."""


class Channel:
    """Sends events: four bytes of length, then plain data."""

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor

    def send(self, **event: object) -> None:
        """Write one event whole."""
        body = encode(event)
        rest = len(body).to_bytes(4, "big") + body
        while rest:
            rest = rest[os.write(self.descriptor, rest) :]


def run(request: int, events: int) -> None:
    """Read the request, run the cells, call the functions, and send what comes of it.

    The request is plain data: `cells` (each with "number" and "source"), `cell_seconds`, and
    `calls` (each with "index", "function", "args", "seconds", and "group": the calls of one task).
    """
    with os.fdopen(request, "rb") as stream:
        order = decode(stream.read(), max_bytes=1 << 30)
    channel = Channel(events)
    make_repeatable()
    namespace = make_namespace()
    for cell in order["cells"]:
        channel.send(event="cell", number=cell["number"])
        said = try_cell(cell, namespace, order["cell_seconds"])
        with contextlib.suppress(Exception):
            seed_tensorflow()
        if said:
            channel.send(event="failed", number=cell["number"], message=said)
    answer_calls(order["calls"], namespace, channel)
    channel.send(event="done")


def make_repeatable() -> None:
    """Fix the seeds that a notebook may have left open, so that grading twice gives the same."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002, it is what notebooks draw from
    seed_tensorflow()


def seed_tensorflow() -> None:
    """Fix TensorFlow's seed as soon as it is loaded; PyTorch's is the same in every process."""
    if (tensorflow := sys.modules.get("tensorflow")) and not getattr(tensorflow, "_seeded", False):
        tensorflow.random.set_seed(0)
        tensorflow._seeded = True


def try_cell(cell: dict, namespace: dict, seconds: float) -> str:
    """Run one cell; return what went wrong, or ""."""
    name = f"cell {cell['number']}"
    try:
        with time_limit(seconds):
            run_cell(cell["source"], name, namespace)
    except CellTime:
        return f"was still running after {seconds:g} seconds and was stopped."
    except BaseException as error:  # SystemExit too: the next cells are run all the same
        return say_error(error, name)
    return ""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise CellTime in the block when `seconds` are over, again and again until it leaves."""

    def interrupt(number: int, frame: object) -> None:
        raise CellTime

    signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, seconds, 0.05)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def say_error(error: BaseException, name: str) -> str:
    """Return one sentence: the exception, the line of the cell, and its text without addresses."""
    kind = type(error).__name__
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    for frame in traceback.extract_tb(error.__traceback__):
        if frame.filename == name:
            line = frame.lineno
    try:
        text = clean(" ".join(str(error).split()))
    except BaseException:
        text = ""
    text = re.sub(r"\s*\(cell \d+, line \d+\)$", "", text)
    where = f" in line {line}" if isinstance(line, int) else ""
    said = f"raised {clean(kind)}{where}" + (f": {text}" if text else "")
    return said[:LONGEST_MESSAGE].rstrip(".") + "."


def clean(text: str) -> str:
    """Return text that is short, the same in each run (no addresses), and can be written down."""
    short = text[: 2 * LONGEST_MESSAGE].encode("utf-8", "replace").decode("utf-8")
    return _ADDRESS.sub("0x…", short)[:LONGEST_MESSAGE]


def answer_calls(calls: list, namespace: dict, channel: Channel) -> None:
    """Call each function; after a call that is unattempted or out of time, leave out its group."""
    left_out = set()
    for call in calls:
        if call["group"] in left_out:
            continue
        channel.send(event="call", index=call["index"])
        status, value, message = answer(call, namespace)
        if status in ("unattempted", "timeout"):
            left_out.add(call["group"])
        outcome = {"status": status, "value": value, "message": clean(message)}
        try:
            channel.send(event="outcome", index=call["index"], **outcome)
        except (TypeError, ValueError) as error:
            outcome = {"status": "invalid", "value": None, "message": f"returned {error}"}
            channel.send(event="outcome", index=call["index"], **outcome)


def answer(call: dict, namespace: dict) -> tuple[str, object, str]:
    """Return status, value and message of one call."""
    function = namespace.get(call["function"])
    if function is None:
        return "unattempted", None, f"not attempted: there is no `{call['function']}`."
    if not callable(function):
        kind = type(function).__name__
        return "invalid", None, f"`{call['function']}` is a {kind}, not a function."
    outcome = call_function(function, call["args"], time_limit=call["seconds"])
    return outcome.status, outcome.value, outcome.message
