"""Calling a student's function in their own notebook: on copies, with a time limit, and calmly.

Whatever the function does, the result is an `Outcome`; only Ctrl-C and the notebook's stop button
pass through. In the main thread of a Unix kernel, where notebooks run their cells, a timer
interrupts the function. Elsewhere it runs in a thread that is left behind when its time is up.
"""

from __future__ import annotations

import copy
import signal
import sys
import threading
from collections.abc import Callable, Sequence
from types import FrameType

from course_lib.checks.judging import Outcome
from course_lib.checks.task import Case, Task
from course_lib.plain_data import to_plain

REPEAT_SECONDS = 0.05  # a bare `except:` in the function's loop may swallow the first interruption
LINES_AHEAD = 12
LONGEST_TEXT = 200
UNATTEMPTED = "not attempted yet: it returns nothing."


class _TimeIsUp(BaseException):
    """Raised in the student's function; no `except Exception` catches it."""


def run_cases(task: Task, function: Callable, cases: Sequence[Case]) -> list[Outcome]:
    """Call `function` once per case; stop after the first that is unattempted or out of time."""
    outcomes = []
    for case in cases:
        outcomes.append(call_function(function, case.args, time_limit=task.time_limit))
        if outcomes[-1].status in ("unattempted", "timeout"):
            break
    return outcomes


def call_function(function: Callable, args: Sequence[object], *, time_limit: float) -> Outcome:
    """Return the outcome of `function(*args)`.

    Arguments:
        function: what the student wrote.
        args: plain data; the function gets its own copies.
        time_limit: seconds.
    """
    own = copy.deepcopy(tuple(args))
    timed = hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()
    run = _run_with_timer if timed else _run_in_thread
    return run(lambda: _call(function, own), time_limit)


def _call(function: Callable, args: tuple) -> Outcome:
    try:
        value = function(*args)
        if value is None or value is Ellipsis:
            return Outcome("unattempted", message=UNATTEMPTED)
        return _read(value)
    except (KeyboardInterrupt, _TimeIsUp):
        raise
    except NotImplementedError:
        return Outcome("unattempted", message="not attempted yet.")
    except BaseException as error:  # SystemExit too: `exit()` must not end the notebook
        return Outcome("error", message=_say_error(function, error))


def _read(value: object) -> Outcome:
    try:
        return Outcome("value", to_plain(value))
    except (TypeError, ValueError) as error:
        return Outcome("invalid", message=f"returned what cannot be checked: {error}")


def _say_error(function: Callable, error: BaseException) -> str:
    """Return one sentence: the exception's name, the line of the function, and its text."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    if len(text) > LONGEST_TEXT:
        text = text[:LONGEST_TEXT] + "…"
    kind = type(error).__name__
    article = "an" if kind[:1] in "AEIOU" else "a"
    ending = f": {text}" if text else ""
    return f"raised {article} {kind}{_say_line(function, error)}{ending}".rstrip(".") + "."


def _say_line(function: Callable, error: BaseException) -> str:
    """Return " in line N" of the function's own source, counted from its `def`."""
    code = getattr(function, "__code__", None)
    line, trace = None, error.__traceback__
    while trace is not None:
        if code is not None and trace.tb_frame.f_code is code:
            line = trace.tb_lineno - code.co_firstlineno + 1
        trace = trace.tb_next
    return f" in its line {line}" if line is not None else ""


def _say_time(time_limit: float) -> Outcome:
    said = "1 second" if time_limit == 1 else f"{time_limit:g} seconds"
    return Outcome("timeout", message=f"was still running after {said} and was stopped.")


def _raise_after(lines: int, frame: FrameType | None) -> None:
    """Raise once the running code has gone `lines` lines further.

    A loop around `try: ... except: ...` swallows what is raised inside; a few lines on it is in
    the handler, or between two rounds, and there nothing catches it.
    """

    def trace(frame: FrameType, event: str, argument: object) -> Callable:
        nonlocal lines
        lines -= event == "line"
        if lines < 0:
            raise _TimeIsUp
        return trace

    sys.settrace(trace)
    while frame is not None and frame.f_code is not call_function.__code__:
        frame.f_trace = trace
        frame = frame.f_back


def _run_with_timer(call: Callable[[], Outcome], time_limit: float) -> Outcome:
    swallowed = -1

    def interrupt(number: int, frame: FrameType | None) -> None:
        nonlocal swallowed
        swallowed += 1
        if swallowed == 0:
            raise _TimeIsUp
        _raise_after(swallowed % LINES_AHEAD, frame)

    tracing = sys.gettrace()
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        try:
            signal.setitimer(signal.ITIMER_REAL, time_limit, REPEAT_SECONDS)
            return call()
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    except _TimeIsUp:
        return _say_time(time_limit)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        sys.settrace(tracing)


def _run_in_thread(call: Callable[[], Outcome], time_limit: float) -> Outcome:
    found: list[Outcome] = []
    thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
    thread.start()
    thread.join(time_limit)
    return found[0] if found else _say_time(time_limit)
