"""Publishing: what the workflows say, what is gathered, and what is pushed where."""

from __future__ import annotations

import re
import subprocess
import zipfile

import pytest
from _tools import publish, wheel
from _tools.notebook_files import ROOT
from _tools.publish import PublishError, gather, push_notebooks

from . import workflow_steps

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
# The first major of each action that runs on Node 24: runners have no older one any more.
FIRST_MAJOR = {"checkout": 5, "setup-python": 6, "upload-artifact": 6, "download-artifact": 7,
               "configure-pages": 6, "upload-pages-artifact": 5, "deploy-pages": 5}  # fmt: skip


@pytest.fixture(params=WORKFLOWS, ids=lambda path: path.stem)
def workflow(request):
    return workflow_steps.read_workflow(request.param)


def test_only_githubs_own_actions_are_used_each_with_its_major(workflow):
    for step in workflow_steps.steps(workflow):
        if step.uses:
            owner, name, major = re.fullmatch(r"(\w+)/([\w-]+)@v(\d+)", step.uses).groups()
            assert owner == "actions", step.uses
            assert int(major) >= FIRST_MAJOR[name], step.uses


def test_every_command_exists(workflow):
    for step in workflow_steps.steps(workflow):
        for target in re.findall(r"\bmake ([a-z-]+)", step.run or ""):
            assert target in TARGETS, target
        for script in re.findall(r"(?:book/_tools|\.ci)/[\w./-]+", step.run or ""):
            assert (ROOT / script).is_file(), script


def test_rights_are_named_and_small(workflow):
    assert workflow["permissions"].get("contents") == "read"
    for name, job in workflow["jobs"].items():
        given = job.get("permissions", {})
        assert [key for key, value in given.items() if value == "write"] in (
            [], ["contents"], ["pages", "id-token"]
        ), name  # fmt: skip
        assert job["timeout-minutes"] <= 150, name


def test_no_expression_is_pasted_into_a_command_unless_we_wrote_its_values(workflow):
    """What others can choose, such as the name of a branch, reaches a shell as a variable only."""
    for step in workflow_steps.steps(workflow):
        pasted = workflow_steps.EXPRESSION.findall(step.run or "")
        assert [one for one in pasted if not one.startswith("matrix.")] == []


def test_nothing_is_published_before_all_is_built_and_tried():
    workflow = workflow_steps.read_workflow(ROOT / ".github" / "workflows" / "publish.yml")
    jobs = workflow["jobs"]
    writing = {name for name, job in jobs.items() if "write" in job["permissions"].values()}
    assert writing == {"pages", "notebooks", "release"}
    assert all(jobs[name]["needs"] == "build" for name in writing)
    commands = [step.run for step in workflow_steps.steps(workflow)
                if step.job == "build" and step.run]  # fmt: skip
    assert [c for c in commands if c.startswith("make ")][-2:] == ["make wheel", "make publication"]
    assert workflow["on"]["push"] == {"branches": ["main"], "tags": ["v*"]}


def test_no_address_stands_in_a_workflow():
    for path in WORKFLOWS:
        text = path.read_text(encoding="utf-8")
        assert re.findall(r"github\.com/[\w-]+/|\w+\.github\.io", text) == [], path.name


@pytest.fixture
def build(tmp_path):
    """Return a folder that holds, in little, what the commands before have made."""
    made = {"html/index.html": "<p>a</p>", "html/_static/a.css": "", "notebooks/README.md": "r",
            "notebooks/book/a.ipynb": "{}", "pdf/gradient-pathologies.pdf": "p",
            "dist/a-1-py3-none-any.whl": "w", "dist/a-1.tar.gz": "s"}  # fmt: skip
    for name, text in made.items():
        (tmp_path / "build" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "build" / name).write_text(text, encoding="utf-8")
    return tmp_path / "build"


def test_what_is_gathered(build, tmp_path):
    out = tmp_path / "out"
    (out / "site").mkdir(parents=True)
    (out / "site" / "old.html").write_text("gone")
    gather(build, out)
    assert {p.name for p in (out / "downloads").iterdir()} == {
        "gradient-pathologies.pdf", "gradient-pathologies.zip",
        "gradient-pathologies-notebooks.zip", "a-1-py3-none-any.whl", "a-1.tar.gz",
    }  # fmt: skip
    assert not (out / "site" / "old.html").exists()
    assert (out / "site" / "downloads" / "gradient-pathologies.pdf").read_text() == "p"
    with zipfile.ZipFile(out / "downloads" / "gradient-pathologies.zip") as archive:
        top = "gradient-pathologies"
        assert archive.namelist() == [f"{top}/_static/a.css", f"{top}/index.html"]
        assert {entry.date_time[0] for entry in archive.infolist()} == {1980}, "no day of building"
    first = (out / "downloads" / "gradient-pathologies.zip").read_bytes()
    gather(build, out)
    assert (out / "downloads" / "gradient-pathologies.zip").read_bytes() == first


@pytest.mark.parametrize(
    ("missing", "command"),
    [("html", "make book"), ("notebooks", "make notebooks"), ("dist", "make wheel"),
     ("pdf", "make pdf")],
)  # fmt: skip
def test_what_is_missing_is_named_with_the_command_that_makes_it(build, tmp_path, missing, command):
    (build / missing).rename(tmp_path / "elsewhere")
    with pytest.raises(PublishError, match=command):
        gather(build, tmp_path / "out")


def git(folder, *arguments):
    who = ["-c", "user.name=A", "-c", "user.email=a@example.org"]
    command = ["git", "-C", str(folder), *who, *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


@pytest.fixture
def checkout(tmp_path):
    """Return a clone of a bare repository, with one commit on main and one on another branch."""
    subprocess.run(["git", "init", "-q", "--bare", "-b", "main", tmp_path / "remote"], check=True)
    subprocess.run(["git", "clone", "-q", tmp_path / "remote", tmp_path / "clone"], check=True,
                   capture_output=True)  # fmt: skip
    clone = tmp_path / "clone"
    (clone / "source.py").write_text("1")
    (clone / ".gitignore").write_text("*.ipynb\n_build/\n")
    (clone / ".git" / "info").mkdir(exist_ok=True)
    (clone / ".git" / "info" / "exclude").write_text("*.ipynb\n")  # as a person may have it
    git(clone, "checkout", "-q", "-b", "main")
    git(clone, "add", ".")
    git(clone, "commit", "-q", "-m", "one")
    git(clone, "push", "-q", "origin", "main", "main:refs/heads/other")
    folder = clone / "_build" / "notebooks"
    (folder / "book").mkdir(parents=True)
    (folder / "book" / "a.ipynb").write_text("{}\r\n")
    (folder / "README.md").write_text("r")
    return clone


def branches(remote):
    return dict(reversed(line.split()) for line in git(remote, "show-ref", "--heads").splitlines())


def test_the_branch_holds_the_notebooks_and_nothing_else_is_touched(checkout, tmp_path):
    remote, folder = tmp_path / "remote", checkout / "_build" / "notebooks"
    before = branches(remote)
    said = push_notebooks(folder, "origin", "main", checkout)
    assert said.startswith("pushed ")
    after = branches(remote)
    assert {name: after[name] for name in before} == before
    assert set(after) - set(before) == {"refs/heads/colab"}
    listed = git(remote, "ls-tree", "-r", "--name-only", "colab").splitlines()
    assert listed == ["README.md", "book/a.ipynb"], "ignored names and line ends are kept"
    shown = subprocess.run(["git", "-C", remote, "show", "colab:book/a.ipynb"], capture_output=True)
    assert shown.stdout == b"{}\r\n"
    assert git(remote, "rev-list", "--count", "colab") == "1"
    assert git(checkout, "status", "--porcelain") == ""
    assert git(checkout, "branch", "--list") == "* main"


def test_it_grows_only_when_a_notebook_changes_and_forgets_what_is_gone(checkout, tmp_path):
    remote, folder = tmp_path / "remote", checkout / "_build" / "notebooks"
    push_notebooks(folder, "origin", None, checkout)
    assert "there already" in push_notebooks(folder, "origin", None, checkout)
    (folder / "book" / "a.ipynb").rename(folder / "book" / "b.ipynb")
    push_notebooks(folder, "origin", None, checkout)
    assert git(remote, "rev-list", "--count", "colab") == "2"
    listed = git(remote, "ls-tree", "-r", "--name-only", "colab").splitlines()
    assert listed == ["README.md", "book/b.ipynb"]


def test_an_older_commit_overwrites_nothing_newer(checkout, tmp_path):
    folder = checkout / "_build" / "notebooks"
    (checkout / "source.py").write_text("2")
    git(checkout, "commit", "-q", "-a", "-m", "two")
    git(checkout, "push", "-q", "origin", "main")
    git(checkout, "checkout", "-q", "--detach", "HEAD~1")
    assert push_notebooks(folder, "origin", "main", checkout).startswith("nothing pushed: main")
    assert "refs/heads/colab" not in branches(tmp_path / "remote")


def test_an_empty_folder_and_a_missing_remote_are_refused(checkout, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(PublishError, match="make notebooks"):
        push_notebooks(tmp_path / "empty", "origin", None, checkout)
    with pytest.raises(PublishError, match="git ls-remote"):
        push_notebooks(checkout / "_build" / "notebooks", str(tmp_path / "no"), None, checkout)


def test_pushing_needs_nothing_but_python():
    """The job that pushes installs nothing."""
    import sys

    code = "import sys; sys.path.insert(0, 'book'); import _tools.publish"
    subprocess.run([sys.executable, "-I", "-S", "-c", code], cwd=ROOT, check=True)


def test_the_wheel_is_built_from_what_git_tracks(tmp_path):
    built = wheel.build(tmp_path / "dist")
    with zipfile.ZipFile(built) as archive:
        packed = {name for name in archive.namelist() if name.startswith("course_lib/")}
    tracked = {name for name in wheel.tracked_files(ROOT)
               if name.startswith("course_lib/") and (ROOT / name).is_file()}  # fmt: skip
    assert packed == tracked
    assert len(list((tmp_path / "dist").iterdir())) == 2
    assert publish.NAME  # the files' common name; the site's links use it
