"""environment.sh: a Python that does not fit is refused in one sentence, and nothing is made."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = Path("book/_tools/environment.sh")


@pytest.fixture
def course(tmp_path) -> Path:
    """The few files that the script reads, in a folder with a space."""
    folder = tmp_path / "a course"
    (folder / SCRIPT).parent.mkdir(parents=True)
    for name in (SCRIPT, "pyproject.toml", "requirements.lock"):
        shutil.copy(ROOT / name, folder / name)
    return folder


def fake_python(folder: Path, version: str) -> Path:
    """A program that answers as a Python of that version does, and does nothing else."""
    program = folder / f"python {version}"
    answer = f'case "$2" in *sys.exit*) exit 1;; *) echo {version};; esac\n'
    program.write_text(f"#!/bin/sh\n{answer}", encoding="utf-8")
    program.chmod(0o755)
    return program


def run(course: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k != "PYTHON"} | variables
    return subprocess.run(
        ["/bin/sh", str(course / SCRIPT), *arguments],
        env=environment, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


@pytest.mark.parametrize("version", ["2.7.18", "3.10.13", "3.14.0"])
def test_another_version_is_refused_in_one_sentence(course, version):
    program = fake_python(course, version)
    done = run(course, "book", PYTHON=str(program))
    assert done.returncode != 0
    assert done.stdout + done.stderr == (
        "The course needs Python 3.11, 3.12 or 3.13 with venv, "
        f"and PYTHON={program} is {version}.\n"
    )
    assert not (course / ".venv").exists()


def test_a_python_that_is_not_there_is_named(course):
    done = run(course, "book", PYTHON="/no/such/python")
    assert done.returncode != 0
    assert "PYTHON=/no/such/python is not one that runs" in done.stderr


def test_no_python_that_fits_is_told_with_the_way_out(course):
    folder = course / "bin"
    folder.mkdir()
    for name in ("dirname", "cat", "cksum", "rm"):
        (folder / name).symlink_to(shutil.which(name))
    done = run(course, "book", PATH=str(folder))
    assert done.returncode != 0
    assert "make book PYTHON=" in done.stderr
    assert done.stderr.count("\n") == 1


def test_an_unknown_target_is_refused(course):
    assert run(course, "everything").returncode == 2


def test_what_is_installed_is_not_installed_again(course):
    """With the stamps of this very state, a call does nothing: pip is not even there to run."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", course / ".venv"], check=True)
    first = run(course, "book")
    assert first.returncode != 0
    assert "Installing what 'book' needs" in first.stdout
    state = subprocess.run(
        ["/bin/sh", "-c",
         'cat requirements.lock pyproject.toml book/_tools/environment.sh | cksum; '
         '.venv/bin/python -c "import platform; print(platform.python_version())"; pwd'],
        cwd=course, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    stamp = course / ".venv" / "installed-book"
    stamp.write_text(state, encoding="utf-8")
    again = run(course, "book")
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "")
    lock = course / "requirements.lock"
    lock.write_text(lock.read_text(encoding="utf-8") + "# changed\n", encoding="utf-8")
    assert "Installing what 'book' needs" in run(course, "book").stdout
