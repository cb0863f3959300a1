"""What Colab does, rehearsed without the internet.

A folder with a bare repository, and with archives of its releases as GitHub packs them, is the
host; an empty folder is the runtime's disk, and a clean environment, which has everything but the
project, the runtime itself. Only the notebook is put there; its first cell installs, all cells run,
and what they print must be what the book prints.
"""

from __future__ import annotations

import ast
import dataclasses
import json
import os
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
from _tools import colab
from _tools.first_cell import first_cells, needed_modules
from _tools.notebook_files import ROOT, merge_streams
from _tools.repository import Edition, Repository, published_repository

RUN = """
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, timeout=300, kernel_name="clean").execute()
nbformat.write(notebook, sys.argv[2])
"""


def run(command, **options):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


RELEASES = ("0.0.1", "0.0.2")
HERE = "is here already, and nothing was installed."
NEW = "was installed, and nothing else was changed."


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """Return a folder that serves the course as it stands in the working tree, released twice."""
    folder = tmp_path_factory.mktemp("host")
    tree = folder / "tree"
    listed = run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others",
                  "--exclude-standard", "course_lib", "pyproject.toml", "README.md", "LICENSE",
                  "LICENSE-text"])  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, tree / name)
    git = ["git", "-C", tree, "-c", "user.name=Course", "-c", "user.email=course@example.org"]
    run(["git", "init", "--quiet", "--initial-branch", "main", tree])
    (folder / "archive").mkdir()
    for version in RELEASES:
        package = tree / "course_lib" / "__init__.py"
        line = f'__version__ = "{version}"'
        package.write_text(re.sub(r'__version__ = ".*"', line, package.read_text("utf-8")), "utf-8")
        run([*git, "add", "--all"])
        run([*git, "commit", "--quiet", "--message", f"The course, {version}"])
        run([*git, "tag", f"v{version}"])
        run([*git, "archive", "--format=zip", f"--prefix=course-{version}/",
             f"--output={folder}/archive/v{version}.zip", f"v{version}"])  # fmt: skip
    run(["git", "clone", "--quiet", "--bare", tree, folder / "course.git"])
    return folder


def on_github(host, version) -> Repository:
    """Return the course as if published on GitHub, whose place is taken by the folder `host`."""
    named = {"COURSE_REPOSITORY": "some-one/course", "COURSE_REVISION": f"v{version}"}
    repository = published_repository(named)
    assert repository.requirement.startswith("https://github.com/some-one/course/archive/")
    return dataclasses.replace(repository, address=host.as_uri())


def elsewhere(host, version) -> Repository:
    """Return the course as published in some Git repository, from which pip clones."""
    named = {"COURSE_REPOSITORY": f"{host.as_uri()}/course.git", "COURSE_REVISION": f"v{version}"}
    return published_repository(named)


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """Return the Python of an environment that holds everything but the project."""
    folder = tmp_path_factory.mktemp("runtime")
    run([sys.executable, "-m", "venv", "--without-pip", folder / "env"])
    python = folder / "env" / "bin" / "python"
    ours = Path(sysconfig.get_path("purelib"))
    theirs = Path(run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"])
                  .strip())  # fmt: skip
    for entry in ours.iterdir():
        if "gradient_flow_course" not in entry.name and not entry.name.startswith("__editable__"):
            (theirs / entry.name).symlink_to(entry)
    kernel = folder / "jupyter" / "kernels" / "clean"
    kernel.mkdir(parents=True)
    argv = [str(python), "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    spec = {"argv": argv, "display_name": "Clean", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    code = "import importlib.util as u; print(u.find_spec('course_lib'))"
    assert run([python, "-c", code], cwd=folder, env=environment(python, folder)) == "None\n"
    return python


@pytest.fixture
def empty_disk(runtime, tmp_path):
    """Return an empty folder, for as long as the course may be installed in the runtime."""
    disk = tmp_path / "content"
    disk.mkdir()
    yield disk
    run([runtime, "-m", "pip", "uninstall", "--yes", "--quiet", "gradient-flow-course"],
        cwd=disk, env=environment(runtime, disk))  # fmt: skip


def first_cell(runtime, disk, repository, version, **options):
    """Return what the first cell of a notebook prints that was made with this version."""
    cells = first_cells("book/chain_rule.ipynb", repository, Edition(version), **options)
    return run([runtime, "-c", cells[-1].source], cwd=disk, env=environment(runtime, disk))


def environment(runtime, folder):
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "OMP_NUM_THREADS")
            if name in os.environ}  # fmt: skip
    return kept | {
        "HOME": str(folder), "JUPYTER_PATH": str(runtime.parents[2] / "jupyter"),
        "PIP_NO_INDEX": "1", "PIP_NO_BUILD_ISOLATION": "0", "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        "TF_CPP_MIN_LOG_LEVEL": "3", "GIT_CONFIG_NOSYSTEM": "1",
    }  # fmt: skip


def versions(runtime, folder):
    """Return every installed distribution and its version."""
    code = "import importlib.metadata as m; print([[d.name, d.version] for d in m.distributions()])"
    listed = run([runtime, "-c", code], cwd=folder, env=environment(runtime, folder))
    return sorted(ast.literal_eval(listed))


def said(cell):
    """Return what a cell shows, without the logs that a framework writes to stderr."""
    outputs = merge_streams([o for o in cell.outputs if o.get("name") != "stderr"])
    return [o.get("text") or o.get("data", {}).get("text/plain") for o in outputs]


@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("path", "published"),
    [("book/chain_rule.ipynb", on_github), ("exercises/chain_rule.ipynb", elsewhere)],
)
def test_a_notebook_alone_installs_runs_and_prints_what_the_book_prints(
    host, runtime, empty_disk, path, published
):
    stored = nbformat.read(ROOT / path, as_version=4)
    copy = colab.make_copy(stored, path=path, repository=published(host, "0.0.1"),
                           edition=Edition("0.0.1"))  # fmt: skip
    nbformat.write(copy, empty_disk / "alone.ipynb")
    there = environment(runtime, empty_disk)
    before = versions(runtime, empty_disk)
    assert "gradient-flow-course" not in dict(before)
    run([runtime, "-c", RUN, "alone.ipynb", "ran.ipynb"], cwd=empty_disk, env=there)
    ran = [c for c in nbformat.read(empty_disk / "ran.ipynb", as_version=4).cells
           if c.cell_type == "code"]  # fmt: skip
    assert said(ran[0]) == [f"course_lib 0.0.1 {NEW}\n"]
    expected = [cell for cell in stored.cells if cell.cell_type == "code"]
    for cell, wanted in zip(ran[1:], expected, strict=True):
        assert said(cell) == said(wanted), cell.source
    after = versions(runtime, empty_disk)
    added = [entry for entry in after if entry not in before]
    assert added == [["gradient-flow-course", "0.0.1"]]
    assert [entry for entry in before if entry not in after] == []
    code = "import course_lib; assert 'env' in course_lib.__file__"
    run([runtime, "-c", code], cwd=empty_disk, env=there)


def test_the_chapter_that_is_rehearsed_is_one_in_each_framework():
    chapter, exercise = (nbformat.read(ROOT / folder / "chain_rule.ipynb", as_version=4)
                         for folder in ("book", "exercises"))  # fmt: skip
    assert {"torch", "tensorflow"} <= set(needed_modules(chapter))
    assert not {"torch", "tensorflow"} & set(needed_modules(exercise))
    tags = {tag for cell in chapter.cells for tag in cell.metadata.get("tags", [])}
    assert {"tab-pytorch", "tab-tensorflow"} <= tags


def test_a_saved_notebook_installs_what_it_was_made_with(host, runtime, empty_disk):
    """Years later the course has moved on; and a newer notebook in the same runtime says so."""
    old, new = (on_github(host, version) for version in RELEASES)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert first_cell(runtime, empty_disk, old, "0.0.1") == f"course_lib 0.0.1 {NEW}\n"
    now = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = now.ru_utime + now.ru_stime - used.ru_utime - used.ru_stime
    assert spent < 15  # seconds of processor time; what is left of the bar is for the download
    assert first_cell(runtime, empty_disk, old, "0.0.1") == f"course_lib 0.0.1 {HERE}\n"
    told = first_cell(runtime, empty_disk, new, "0.0.2")
    made_with = "This notebook was made with course_lib 0.0.2."
    assert told.startswith(f"course_lib 0.0.1 {HERE}\n{made_with}")
    advice = re.search(r"run  %(pip install .*)  and restart", told).group(1)
    there = environment(runtime, empty_disk)
    run([runtime, "-m", *advice.split()], cwd=empty_disk, env=there)
    assert first_cell(runtime, empty_disk, new, "0.0.2") == f"course_lib 0.0.2 {HERE}\n"


def test_what_is_missing_or_does_not_answer_is_said(runtime, tmp_path):
    """The first cell where the host is gone, a framework is missing, or no address is known."""
    gone = published_repository({"COURSE_REPOSITORY": "file:///no/such/course.git"})
    needed = ("numpy", "sklearn", "no_such_framework")
    told = first_cell(runtime, tmp_path, gone, "0.0.1", needed=needed)
    missing, failed, *why = told.splitlines()
    assert missing == ("Missing here: no_such_framework. Cells that need it will stop. "
                       "To get it, run  %pip install no_such_framework")  # fmt: skip
    assert failed.startswith("course_lib could not be installed from git+file:///no/such/course.git")
    assert "no/such/course.git" in "\n".join(why)
    unset = first_cell(runtime, tmp_path, None, "0.0.1", needed=("numpy",))
    assert unset == ("course_lib is missing. In a copy of the course's folder run:  "
                     "pip install .\n")  # fmt: skip
