"""What grading a class costs: gradient-flow-grade beside otter-grader and nbgrader.

    python benchmarks/grading.py [--count 150] [--jobs 2] [--flat 10 100 1000]
                                 [--others PYTHON] [--others-count 6]

A class of `--count` submissions, no two of the same content (four in five right, the rest blank,
wrong, raising or handed in twice as long), is graded from start to finish, start of the sandboxes
and writing of all results included. Then, with `--others` (the python of an environment that holds
otter-grader and nbgrader), the first `--others-count` of the same submissions are graded by all
three, one at a time; the cells that otter-grader and nbgrader need are added for them. `--flat`
grades classes of several sizes and prints the cost per submission. Wall time; say `uptime` first.

Exit status 1 if fewer than 150 submissions are graded in a minute, or a known verdict is wrong.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "grading")]  # the course need not be installed

BAR = 150.0  # submissions a minute
DOUBLE = "def double(x):\n    return [2.0 * v for v in x]"
KINDS = {  # what is handed in, and its points
    "right": (DOUBLE, "def total(x):\n    return float(sum(x))", 3),
    "blank": ("def double(x):\n    ...", "def total(x):\n    ...", 0),
    "wrong": (DOUBLE, "def total(x):\n    return float(len(x))", 1),
    "raising": ("def double(x):\n    return 1 / 0", "def total(x):\n    return float(sum(x))", 2),
}
ORDER = ("right", "right", "right", "blank", "right", "right", "wrong", "right", "right", "raising")


def submissions(count):
    """Return (kind, sources of the cells) for each of `count` students."""
    kinds = [ORDER[k % len(ORDER)] for k in range(count)]
    return [
        (kind, [f"# student {k}\nimport numpy as np", KINDS[kind][0], KINDS[kind][1]])
        for k, kind in enumerate(kinds)
    ]


def make_notebook(sources, metadata=None):
    """Return a notebook as JSON; `metadata` are those of the cells."""
    cells = [
        {"id": f"cell{k}", "cell_type": "code", "execution_count": None, "outputs": [],
         "metadata": (metadata or {}).get(k, {}), "source": source}
        for k, source in enumerate(sources)
    ]  # fmt: skip
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return json.dumps(
        {"nbformat": 4, "nbformat_minor": 5, "metadata": {"kernelspec": kernel}, "cells": cells}
    )


def grade_ours(count, jobs, folder):
    """Grade a class of `count` with the command itself; return the seconds and the wrong ones."""
    place, out = folder / f"class{count}", folder / f"results{count}"
    place.mkdir()
    students = submissions(count)
    for k, (_, sources) in enumerate(students):
        (place / f"s{k:04d}.ipynb").write_text(make_notebook(sources), encoding="utf-8")
    command = [sys.executable, str(ROOT / "tests/grading/toy_command.py"), str(place),
               "--assignment", "toy", "--seed", "benchmark", "--out", str(out),
               "--jobs", str(jobs)]  # fmt: skip
    start = time.perf_counter()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, check=True, capture_output=True, env=environment)
    seconds = time.perf_counter() - start
    wrong = 0
    for k, (kind, _) in enumerate(students):
        made = json.loads((out / "gradescope" / f"s{k:04d}.json").read_bytes())
        wrong += made["score"] != KINDS[kind][2]
    return seconds, wrong


OTTER_TEST = """OK_FORMAT = True
test = {{"name": "{name}", "points": 1, "suites": [{{"cases": [{{"code": {code!r},
    "hidden": False, "locked": False}}], "scored": True, "setup": "", "teardown": "",
    "type": "doctest"}}]}}
"""
CHECKS = {"double": "double([1.0, -2.0]) == [2.0, -4.0]", "total": "total([1.0, -2.0]) == -1.0"}


def grade_otter(binaries, students, folder):
    """Grade with `otter run`, which starts a process for each; return the seconds."""
    tests = folder / "tests"
    tests.mkdir()
    for name, check in CHECKS.items():
        code = f">>> assert {check}"
        (tests / f"{name}.py").write_text(OTTER_TEST.format(name=name, code=code), "utf-8")
    run([binaries / "otter", "generate", "-t", tests, "-o", "a.zip", "--no-environment"], folder)
    for k, (_, sources) in enumerate(students):
        (folder / f"s{k}.ipynb").write_text(make_notebook(sources), encoding="utf-8")
    start = time.perf_counter()
    for k in range(len(students)):
        run([binaries / "otter", "run", "-a", "a.zip", f"s{k}.ipynb"], folder)
    return time.perf_counter() - start


def grade_nbgrader(binaries, students, folder):
    """Grade with `nbgrader autograde`, all in one call; return the seconds."""

    def marked(name, grade):
        return {"nbgrader": {"grade": grade, "solution": not grade, "locked": grade,
                             "grade_id": name, "schema_version": 3, "task": False,
                             **({"points": 1} if grade else {})}}  # fmt: skip

    metadata = {1: marked("double", False), 2: marked("total", False),
                3: marked("test-double", True), 4: marked("test-total", True)}  # fmt: skip
    tests = [f"assert {check}" for check in CHECKS.values()]
    (folder / "nbgrader_config.py").write_text(
        'c = get_config()\nc.CourseDirectory.course_id = "benchmark"\n', encoding="utf-8"
    )
    places = {"source/ps1": KINDS["right"][:2]}
    places |= {f"submitted/s{k}/ps1": s[1:] for k, (_, s) in enumerate(students)}
    for place, sources in places.items():
        (folder / place).mkdir(parents=True)
        text = make_notebook(["import numpy as np", *sources, *tests], metadata)
        (folder / place / "ps1.ipynb").write_text(text, encoding="utf-8")
    run([binaries / "nbgrader", "generate_assignment", "ps1"], folder)
    start = time.perf_counter()
    run([binaries / "nbgrader", "autograde", "ps1"], folder)
    return time.perf_counter() - start


def run(command, folder):
    """Run one of the others, quietly."""
    path = f"{Path(command[0]).parent}{os.pathsep}{os.environ['PATH']}"
    subprocess.run([str(part) for part in command], cwd=folder, check=True, capture_output=True,
                   env=os.environ | {"PATH": path})  # fmt: skip


def compare(python, count, folder):
    """Grade the same few submissions with all three, one at a time."""
    students = submissions(count)
    seconds, wrong = grade_ours(count, 1, folder)
    print_row("gradient-flow-grade", count, seconds, "in a sandbox", wrong)
    binaries = Path(python).absolute().parent
    for name, program, grade in (("otter-grader", "otter", grade_otter),
                                 ("nbgrader", "nbgrader", grade_nbgrader)):  # fmt: skip
        if not (binaries / program).exists():
            print(f"  {name:<20} is not installed beside {python}, and is left out")
            continue
        place = folder / program
        place.mkdir()
        print_row(name, count, grade(binaries, students, place), "no sandbox", 0)


def print_row(name, count, seconds, words, wrong):
    """Print one line of the table."""
    words += f"  {wrong} WRONG" if wrong else ""
    print(f"  {name:<20} {count:>5} submissions {seconds:7.1f} s  {1000 * seconds / count:8.0f} ms "
          f"each  {60 * count / seconds:6.0f} a minute  {words}", flush=True)  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--count", type=int, default=150)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--flat", type=int, nargs="*", default=[])
    parser.add_argument("--others", metavar="PYTHON")
    parser.add_argument("--others-count", type=int, default=6)
    given = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        load = os.getloadavg()[0]
        print(f"{given.jobs} at a time, on {os.cpu_count()} processors with a load of {load:.1f}")
        seconds, wrong = grade_ours(given.count, given.jobs, folder)
        print_row("gradient-flow-grade", given.count, seconds, "all in", wrong)
        for count in given.flat:
            place = Path(tempfile.mkdtemp(dir=folder))
            taken, bad = grade_ours(count, given.jobs, place)
            print_row("a class of", count, taken, "all in", bad)
        if given.others:
            print("One at a time, the same submissions:")
            compare(given.others, given.others_count, Path(tempfile.mkdtemp(dir=folder)))
        else:
            print("(otter-grader and nbgrader are left out: name their python with --others)")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return int(wrong > 0 or 60 * given.count / seconds < BAR)


if __name__ == "__main__":
    sys.exit(main())
