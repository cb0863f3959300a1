"""From a wheel, in an empty folder, without a kernel: the student needs nothing but the package."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NEEDED = ("pyproject.toml", "README.md", "LICENSE", "course_lib")

# A finder that refuses what a student may not have.
SCRIPT = """
import os, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name in {absent!r}:
            raise ModuleNotFoundError("No module named " + name, name=name)

sys.meta_path.insert(0, Absent())
import course_lib
assert course_lib.__file__.startswith({site!r}), course_lib.__file__
from course_lib.checks import check, hint, score
from course_lib.checks.task import all_tasks

for task in all_tasks():
    check(task.id, lambda *args: ...)
    hint(task.id)
score()

def layer_jacobian(weight, bias, h):
    import numpy
    return (1 - numpy.tanh(weight @ h + bias) ** 2)[:, None] * weight

check("chain_rule/layer_jacobian", layer_jacobian)
assert os.listdir(".") == [], os.listdir(".")
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with nothing but what the wheel of the course holds."""
    source = tmp_path_factory.mktemp("source")
    for name in NEEDED:
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    wheels, target = source / "wheels", tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps",
               "--no-build-isolation", "--wheel-dir", str(wheels), str(source)]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(wheels.glob("*.whl"))) as wheel:
        wheel.extractall(target)
    return target


def test_every_task_answers_in_an_empty_folder(site, tmp_path):
    absent = ("torch", "tensorflow", "keras", "IPython", "matplotlib")
    environment = {**os.environ, "PYTHONPATH": str(site), "PYTHONDONTWRITEBYTECODE": "1"}
    code = SCRIPT.format(absent=absent, site=str(site))
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[-1] == "The Jacobian of one layer: passed, 1 point."
    assert not any("of 0 points" in line for line in lines)
    counted = sum(": not attempted yet" in line for line in lines)
    assert counted == sum(", hint 1 of " in line for line in lines) >= 36
    assert counted == sum("(not attempted)" in line for line in lines)
