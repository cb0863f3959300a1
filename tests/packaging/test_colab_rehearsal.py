"""What Colab does, rehearsed without the internet.

A bare repository on disk is the host, an empty folder the runtime's disk, and a clean environment,
which has everything but the project, the runtime itself. Only the notebook is put there; its first
cell installs, all cells run, and what they print must be what the book prints.
"""

from __future__ import annotations

import ast
import json
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
from _tools import colab
from _tools.notebook_files import ROOT, merge_streams
from _tools.repository import published_repository

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


@pytest.fixture(scope="module")
def host(tmp_path_factory):
    """Return a bare repository with the course as it stands in the working tree."""
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
    run([*git, "add", "--all"])
    run([*git, "commit", "--quiet", "--message", "The course"])
    run([*git, "tag", "v0.0.1"])
    run(["git", "clone", "--quiet", "--bare", tree, folder / "course.git"])
    return folder / "course.git"


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
    return python


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
@pytest.mark.parametrize("path", ["book/chain_rule.ipynb", "exercises/chain_rule.ipynb"])
def test_a_notebook_alone_installs_runs_and_prints_what_the_book_prints(
    host, runtime, tmp_path, path
):
    repository = published_repository(
        {"COURSE_REPOSITORY": host.as_uri(), "COURSE_REVISION": "v0.0.1"}
    )
    stored = nbformat.read(ROOT / path, as_version=4)
    disk = tmp_path / "content"
    disk.mkdir()
    nbformat.write(colab.make_copy(stored, path=path, repository=repository), disk / "alone.ipynb")
    before = versions(runtime, disk)
    assert "gradient-flow-course" not in dict(before)
    run([runtime, "-c", RUN, "alone.ipynb", "ran.ipynb"], cwd=disk, env=environment(runtime, disk))
    ran = [c for c in nbformat.read(disk / "ran.ipynb", as_version=4).cells
           if c.cell_type == "code"]  # fmt: skip
    assert said(ran[0]) == ["course_lib was installed, and nothing else was changed.\n"]
    expected = [cell for cell in stored.cells if cell.cell_type == "code"]
    for cell, wanted in zip(ran[1:], expected, strict=True):
        assert said(cell) == said(wanted), cell.source
    after = versions(runtime, disk)
    added = [entry for entry in after if entry not in before]
    assert [name for name, _ in added] == ["gradient-flow-course"]
    assert [entry for entry in before if entry not in after] == []
    run([runtime, "-c", "import course_lib; assert 'env' in course_lib.__file__"], cwd=disk,
        env=environment(runtime, disk))  # fmt: skip
    pip = [runtime, "-m", "pip", "uninstall", "--yes", "--quiet", "gradient-flow-course"]
    run(pip, env=environment(runtime, disk))


def test_a_second_run_installs_nothing_and_a_wrong_address_is_said(runtime, tmp_path):
    """The first cell as a person meets it twice, and where the host does not answer."""
    here = environment(runtime, tmp_path) | {"PYTHONPATH": str(ROOT)}
    repository = published_repository({"COURSE_REPOSITORY": "file:///no/such/course.git"})
    source = colab.first_cells("book/chain_rule.ipynb", repository)[-1].source
    assert "nothing was installed" in run([runtime, "-c", source], cwd=tmp_path, env=here)
    del here["PYTHONPATH"]
    told = run([runtime, "-c", source], cwd=tmp_path, env=here)
    assert told.startswith("course_lib could not be installed:")
    assert "no/such/course.git" in told
    unset = colab.first_cells("book/chain_rule.ipynb", None)[-1].source
    assert "pip install ." in run([runtime, "-c", unset], cwd=tmp_path, env=here)
