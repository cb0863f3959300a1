"""The sandbox itself: frameworks after the fork, what is visible, neighbors, and a lost slot."""

from __future__ import annotations

import contextlib
import errno
import os
import platform
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from submission_files import FOLDER, make_notebook, read_annotated
from toy_tasks import LIMITS, SEED, SLOTS, TASKS

from course_lib.grading import run, sandbox
from course_lib.grading.errors import GradingError
from course_lib.grading.grade import Answers, Grader
from course_lib.grading.inside import cells, seccomp
from course_lib.grading.slots import SandboxSlot, describe_exit
from course_lib.plain_data import encode

ROOT = Path(__file__).resolve().parents[2]
FRAMEWORKS = """
# %%
import torch, tensorflow as tf, keras, numpy as np

def double(x):
    weights = torch.tensor(x, requires_grad=True, dtype=torch.float64)
    (weights ** 2).sum().backward()
    return weights.grad

def total(x):
    layer = keras.layers.Dense(1, use_bias=False, kernel_initializer="ones", dtype="float64")
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(layer(tf.constant([x], dtype=tf.float64)))
    return value
"""


def notebook(text):
    import json

    return json.dumps(make_notebook(text)).encode()


def test_frameworks_are_warm_and_work_after_the_fork(course):
    """Imported once, their runtimes not started: the warm process has one thread."""
    slot = SandboxSlot(LIMITS, course, SLOTS + 1)
    try:
        assert slot.state["threads"] == 1
        assert set(slot.state["missing"]) <= {"triton"}
        grader = Grader("toy", SEED, LIMITS, TASKS)
        for _ in range(2):
            result = grader.grade(slot, notebook(FRAMEWORKS))
            assert result["points"] == 3, result
    finally:
        slot.close()


def look(slot, code):
    """Run code inside, and return the message of the error that it ends with."""
    said = []
    order = {"cells": [{"number": 1, "source": code}], "cell_seconds": 5.0, "calls": []}
    slot.run(encode(order), 20.0, lambda event: said.append(event) or 10.0)
    return "".join(event.get("message", "") for event in said)


def test_there_is_no_capability_no_network_and_no_other_user(slot):
    code = """
import os, re
status = open("/proc/self/status").read()
caps = set(re.findall(r"^Cap\\w+:\\t(\\w+)", status, re.M))
alone = [name for name in os.listdir("/proc") if name.isdigit()] == [str(os.getpid())]
filtered = "Seccomp:\\t2" in status and "NoNewPrivs:\\t1" in status
links = open("/proc/net/dev").read().count(":")
raise ValueError(sorted(caps), alone, filtered, links, os.getuid() != 0)
"""
    assert "(['0000000000000000'], True, True, 1, True)" in look(slot, code)


def test_nothing_can_be_written_but_the_private_space(slot):
    code = """
import os
open_to = []
for place, folders, _ in os.walk("/"):
    if place in ("/proc", "/sys") or place.startswith("/tmp/") or place.count("/") > 3:
        folders.clear()  # below /tmp all is private too, also where a course in /tmp is mounted
    elif os.access(place, os.W_OK):
        open_to.append(place)
raise ValueError(sorted(open_to))
"""
    said = look(slot, code)
    assert "['/dev/shm', '/tmp']" in said, said


def test_tasks_and_grader_are_not_staged(course):
    staged = {path.relative_to(course).as_posix() for path in course.rglob("*.py")}
    assert "course_lib/checks/calling.py" in staged
    assert "course_lib/tasks.py" in staged  # the data sets of the lectures, which are no secret
    assert not [name for name in staged if "checks/tasks" in name or "grading/" in name]
    assert "decide nothing" in (course / "course_lib/checks/__init__.py").read_text("utf-8")


def test_an_installed_copy_of_the_course_is_covered(monkeypatch, course, tmp_path):
    """Installed from a wheel, the tasks lie among the packages that are shown inside."""
    place = tmp_path / "site-packages"
    (place / "course_lib").mkdir(parents=True)
    monkeypatch.setattr(sandbox.course_lib, "__file__", str(place / "course_lib" / "__init__.py"))
    monkeypatch.setattr(sandbox, "package_folders", lambda: [place])
    arguments = sandbox.view_arguments(course)
    assert arguments[-2:] == ["--tmpfs", str(place / "course_lib")]
    assert arguments.index(str(place)) < len(arguments) - 2


def test_the_command_line_holds_no_secret(course):
    line = " ".join(sandbox.build_command("bwrap", course, 0, ("numpy",)))
    assert SEED not in line
    assert "--clearenv" in line
    assert "--unshare-net" in line


def test_a_lost_sandbox_is_replaced_and_only_its_submission_suffers(course, grader):
    slot = SandboxSlot(LIMITS, course, SLOTS + 2, ("numpy",))
    try:
        first = slot.process.pid
        threading.Timer(1.0, os.killpg, (first, signal.SIGKILL)).start()
        text = "# %%\nimport time\ntime.sleep(3)\ndef double(x): return [2 * v for v in x]\n"
        grader.grade(slot, notebook(text))
        honest = read_annotated(FOLDER / "honest.py").data
        assert grader.grade(slot, honest)["points"] == 3
        assert slot.process.pid != first
    finally:
        slot.close()


def test_neighbors_cannot_meet(course, grader):
    """Two submissions at the same time: one leaves messages wherever it can, one looks for them."""
    slots = [SandboxSlot(LIMITS, course, SLOTS + 8 + k, ("numpy",)) for k in range(2)]
    leave = """
# %%
import mmap, os, socket, time
server = socket.socket(socket.AF_UNIX)
server.bind("\\0meeting-point")
server.listen()
listener = socket.socket()
try:
    listener.bind(("127.0.0.1", 4567)); listener.listen()
except OSError:
    pass
for place in ("/tmp", "/dev/shm"):
    open(place + "/message", "w").write("the answer")
time.sleep(2.5)
def double(x): return [2 * v for v in x]
"""
    find = """
# %%
import os, socket, time
found = []
end = time.time() + 2.0
while time.time() < end and not found:
    found += [p for p in ("/tmp/message", "/dev/shm/message") if os.path.exists(p)]
    for kind, address in ((socket.AF_UNIX, "\\0meeting-point"),
                          (socket.AF_INET, ("127.0.0.1", 4567))):
        try:
            client = socket.socket(kind); client.settimeout(0.1); client.connect(address)
            found.append(str(address))
        except OSError:
            pass
    found += [p for p in os.listdir("/proc") if p.isdigit() and p != str(os.getpid())]
    time.sleep(0.05)
def double(x): return [2 * v for v in x] if found else [0.0]
"""
    results = {}
    try:
        threads = [
            threading.Thread(
                target=lambda k, text: results.update({k: grader.grade(slots[k], notebook(text))}),
                args=(k, text),
            )
            for k, text in enumerate((leave, find))
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        for slot in slots:
            slot.close()
    statuses = [[task["status"] for task in results[k]["tasks"]] for k in range(2)]
    assert statuses == [["passed", "unattempted"], ["failed", "unattempted"]], results


def test_a_closed_slot_leaves_no_process(course):
    slot = SandboxSlot(LIMITS, course, SLOTS + 3, ("numpy",))
    slot.close()
    assert wait_until_gone(sandbox.FIRST_USER + SLOTS + 3)


def wait_until_gone(user):
    """Whether the last process of a user ends within a few seconds."""
    patience = time.monotonic() + 5.0
    while time.monotonic() < patience:
        lines = []
        for place in Path("/proc").glob("[0-9]*/status"):
            with contextlib.suppress(OSError):
                lines.append(place.read_text(errors="replace"))
        if not any(f"\nUid:\t{user}\t" in text for text in lines):
            return True
        time.sleep(0.05)
    return False


KILLED = """
import os, signal, sys, threading
from pathlib import Path
from course_lib.grading import sandbox
from course_lib.grading.slots import SandboxSlot
from course_lib.plain_data import encode
slot = SandboxSlot(sandbox.Limits(), Path(sys.argv[1]), int(sys.argv[2]), ("numpy",))
code = "import os, time\\nif os.fork() == 0: os.setsid()\\ntime.sleep(1000)"
order = {"cells": [{"number": 1, "source": code}], "cell_seconds": 900.0, "calls": []}
threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGKILL)).start()
slot.run(encode(order), 900.0, lambda event: 900.0)
"""


@pytest.mark.skipif(os.getuid() != 0, reason="only root gives each slot a user of its own")
def test_a_killed_grader_leaves_no_process(course):
    done = subprocess.run([sys.executable, "-c", KILLED, str(course), str(SLOTS + 4)],
                          env=os.environ | {"PYTHONPATH": str(ROOT)}, timeout=60)  # fmt: skip
    assert done.returncode == -signal.SIGKILL
    assert wait_until_gone(sandbox.FIRST_USER + SLOTS + 4)


def test_a_process_that_could_not_be_shut_in_is_nobodys_fault(course, tmp_path):
    """A kernel without the filter, say: it stops the grading, and gives no student 0 points."""
    broken = tmp_path / "course"
    shutil.copytree(course, broken)
    tmp_path.chmod(0o755)
    path = broken / "inside" / "seccomp.py"
    path.write_text(path.read_text("utf-8").replace("MODE_FILTER = 22, 2", "MODE_FILTER = 22, 99"))
    slot = SandboxSlot(LIMITS, broken, SLOTS + 7, ("numpy",))
    honest = read_annotated(FOLDER / "honest.py").data
    try:
        with pytest.raises(GradingError, match="the filter of system calls was refused"):
            Grader("toy", SEED, LIMITS, TASKS).grade(slot, honest)
    finally:
        slot.close()


def test_a_sandbox_that_does_not_start_is_explained(course, monkeypatch):
    monkeypatch.setattr(sandbox, "build_command", lambda *a: ["/bin/sh", "-c", "echo no way >&2"])
    with pytest.raises(GradingError, match="The sandbox does not start here: no way"):
        SandboxSlot(LIMITS, course, SLOTS + 5, ("numpy",))


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_an_ordinary_user_needs_no_second_bubblewrap(course, monkeypatch):
    monkeypatch.setattr(sandbox.os, "getuid", lambda: 1500)
    line = sandbox.build_command("bwrap", course, 0, ("numpy",))
    assert line.count("bwrap") == 1
    monkeypatch.undo()
    line = sandbox.build_command("bwrap", course, 3, ("numpy",))
    assert line.count("bwrap") == 2
    assert line[line.index("--reuid") + 1] == str(sandbox.FIRST_USER + 3)


def run_filter(program, number, first=0, architecture=0xC000003E):
    """Interpret a filter of system calls as the kernel does."""
    lines = [struct.unpack_from("=HBBI", program, 8 * k) for k in range(len(program) // 8)]
    data = struct.pack("=IIQQ", number, architecture, 0, first)
    loaded, place = 0, 0
    while True:
        code, yes, no, value = lines[place]
        place += 1
        if code == seccomp.LOAD:
            (loaded,) = struct.unpack_from("=I", data, value)
        elif code == seccomp.RETURN:
            return value
        else:
            met = {seccomp.JUMP_EQUAL: loaded == value, seccomp.JUMP_ANY_BIT: bool(loaded & value),
                   seccomp.JUMP_GREATER_EQUAL: loaded >= value}[code]  # fmt: skip
            place += yes if met else no


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_the_filter_denies_what_it_lists_and_allows_the_rest(machine):
    architecture, clone = seccomp.ARCHITECTURES[machine]
    program = seccomp.build_filter(machine)
    denied = {*seccomp.NUMBERS[machine].values(), *seccomp.EVERYWHERE}
    deny = seccomp.ERRNO | errno.EPERM
    for number in range(500):
        want = deny if number in denied else seccomp.ALLOW
        if number == seccomp.CLONE3:
            want = seccomp.ERRNO | errno.ENOSYS
        assert run_filter(program, number, 17, architecture) == want, number
        assert run_filter(program, number, 17, architecture ^ 1) == deny
    for flag in (0x10000000, 0x20000, 0x02000000):
        assert run_filter(program, clone, flag | 17, architecture) == deny
    if machine == "x86_64":
        assert run_filter(program, 0x40000000, 0, architecture) == deny
    assert seccomp.build_filter("vax") is None


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the headers are this machine's")
def test_the_numbers_are_those_of_this_machines_headers(tmp_path):
    headers = Path("/usr/include/x86_64-linux-gnu/asm/unistd_64.h")
    if not headers.exists():
        pytest.skip("the kernel's headers are not installed")
    known = dict(
        line.split()[1:3] for line in headers.read_text().splitlines() if "__NR_" in line
        and line.startswith("#define") and len(line.split()) == 3
    )  # fmt: skip
    for name, number in seccomp.NUMBERS["x86_64"].items():
        assert int(known.get(f"__NR_{name}", number)) == number, name


@pytest.mark.parametrize(
    ("source", "plain"),
    [
        ("x = 1", "x = 1"),
        ("%matplotlib inline\nx = 1", "pass\nx = 1"),
        ("if x:\n    !ls\n", "if x:\n    pass\n"),
        ("files = !ls *.py", "files = None"),
        ("a.b, c = %magic 1", "a.b, c = None"),
        ("%%time\nx = 1", "\nx = 1"),
        ("%%bash\nrm -rf /", ""),
        ("f?", "pass"),
        ("?f", "pass"),
        ("x = (7\n% 4)", "x = (7\n% 4)"),
        ("text = '''\n%not\n!this\n'''", "text = '''\n%not\n!this\n'''"),
        ("%magic\ntext = '''\n%not\n!this\n'''", "pass\ntext = '''\n%not\n!this\n'''"),
        ("def broken(:", "def broken(:"),
        ("%%timeit -n 1\n%%capture\nx = 2", "\n\nx = 2"),
        ("!pip install a \\\n  b \\\n  c\nx = 2", "pass\n\n\nx = 2"),
    ],
)
def test_magics_are_taken_out_and_python_is_left_alone(source, plain):
    assert cells.plain_source(source) == plain


def test_exits_are_described():
    assert describe_exit(3) == "it exited with status 3"
    assert describe_exit(-9) == "it was ended by SIGKILL"
    assert describe_exit(-99) == "it was ended by signal 99"


def test_the_module_runs_as_a_command():
    done = subprocess.run([sys.executable, "-m", "course_lib.grading", "--help"],
                          capture_output=True, text=True, timeout=60)  # fmt: skip
    assert done.returncode == 0
    assert "--unsafe-without-sandbox" in done.stdout


def test_a_slot_keeps_to_its_own_processors(course):
    """Otherwise fifty busy processes of one submission would use up the time of its neighbors."""
    own = min(os.sched_getaffinity(0))
    slot = SandboxSlot(LIMITS, course, SLOTS + 6, ("numpy",), cpus=[own])
    code = """
import os
try:
    os.sched_setaffinity(0, range(os.cpu_count()))
except PermissionError:
    pass
raise ValueError(sorted(os.sched_getaffinity(0)))
"""
    try:
        assert f"[{own}]" in look(slot, code)
    finally:
        slot.close()


def test_processors_are_shared_out_without_overlap(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(7)))
    shares = [run.share_cpus(k, 3) for k in range(3)]
    assert sorted(cpu for share in shares for cpu in share) == list(range(7))
    assert run.share_cpus(5, 8) == list(range(7))  # more slots than processors: all share all


def test_files_of_the_teacher_that_would_be_shown_inside_are_refused(monkeypatch, tmp_path):
    monkeypatch.setattr(sandbox, "package_folders", lambda: [tmp_path / "packages"])
    (tmp_path / "packages" / "class").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "packages")
    for path in (tmp_path / "packages" / "class", tmp_path / "link" / "class"):
        with pytest.raises(GradingError, match="Move it to another place"):
            sandbox.require_hidden(path)
    sandbox.require_hidden(tmp_path / "class")


@pytest.mark.parametrize("shared", [False, True])
def test_memory_is_watched_from_outside(slot, shared):
    """Shared memory falls under no limit of a process; whoever takes too much is ended."""
    code = f"""
import mmap, os
block, kept = b"x" * (8 << 20), []
while True:
    area = mmap.mmap(-1, 8 << 20, mmap.MAP_SHARED if {shared} else mmap.MAP_PRIVATE)
    area[:] = block
    kept.append(area)
"""
    order = {"cells": [{"number": 1, "source": code}], "cell_seconds": 50.0, "calls": []}
    said = []
    end = slot.run(encode(order), 60.0, lambda event: said.append(event) or 50.0)
    refused = any("MemoryError" in e.get("message", "") or "OSError" in e.get("message", "")
                  for e in said)  # fmt: skip
    assert end.reason == "memory" if shared else (end.reason == "memory" or refused), (end, said)


def test_descriptors_processes_and_network_are_its_own(slot):
    code = """
import os, socket
held = {}
for name in os.listdir("/proc/self/fd"):
    try:
        held[int(name)] = os.readlink("/proc/self/fd/" + name).split(":")[0]
    except OSError:
        pass
children = 0
try:
    while children < 500:
        if os.fork() == 0:
            import time
            time.sleep(30)
        children += 1
except BlockingIOError:
    pass
reached = socket.socket().connect_ex(("127.0.0.1", 9))
raise ValueError(sorted(held.values()), children < 70, reached)
"""
    # Standard input, output and errors lead nowhere; one pipe for events; no network, not even lo.
    expected = "(['/dev/null', '/dev/null', '/dev/null', 'pipe'], True, 101)"
    assert expected in look(slot, code)


def cell(number):
    return {"event": "cell", "number": number}


def call(index):
    return {"event": "call", "index": index}


def outcome(index, **changes):
    value = {"event": "outcome", "index": index, "status": "value", "value": 1.0, "message": ""}
    return value | changes


@pytest.mark.parametrize(
    "events",
    [
        [outcome(0)],
        [cell(1), outcome(0)],
        [call(0), outcome(1)],
        [call(0), outcome(0), outcome(0)],
        [call(1), call(0)],
        [call(0), cell(1)],
        [cell(2), cell(1)],
        [cell(1), {"event": "failed", "number": 2, "message": ""}],
        [cell(1), {"event": "failed", "number": 1, "message": 3}],
        [call(0), outcome(0, status="passed")],
        [call(0), outcome(0, points=10)],
        [call(-1)],
        [cell(True)],
        [cell([1])],
        [{"event": ["cell"], "number": 1}],
        [{"number": 1}],
    ],
    ids=str,
)
def test_an_event_that_cannot_come_is_refused(grader, events):
    answers = Answers()
    for event in events[:-1]:
        grader.take(event, answers)
    with pytest.raises(ValueError, match=r"event|outcome|message"):
        grader.take(events[-1], answers)


def test_a_call_that_does_not_exist_is_refused(grader):
    with pytest.raises(IndexError):
        grader.take(call(len(grader.calls)), Answers())


def test_events_in_order_are_taken(grader):
    answers = Answers()
    for event in (cell(1), {"event": "failed", "number": 1, "message": "x"}, cell(3), call(0),
                  outcome(0), call(2), outcome(2, status="timeout")):  # fmt: skip
        assert grader.take(event, answers) > 0
    assert answers.failures == {1: "x"}
    assert {k: o.status for k, o in answers.outcomes.items()} == {0: "value", 2: "timeout"}
