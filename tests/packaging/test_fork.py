"""What a fork does, rehearsed without the internet, by the workflow's own commands.

The course as it stands here is cloned from a bare repository under another owner and name. Every
command of `publish.yml` is read from there and run, with a push to main as its occasion. Then each
button and link must be right, for that owner and nobody else. Left out is what needs the network:
the trial of the wheel in a new environment, and GitHub's own actions.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import nbformat
import pytest
from _tools import wheel
from _tools.browser import find_browser
from _tools.links import Published, dead_links, links_of
from _tools.notebook_files import ROOT
from _tools.repository import published_repository

from . import workflow_steps

NAME = "another-owner/another.name"
SITE = "https://another-owner.github.io/another.name"
CONTEXT = {
    "github.repository": NAME,
    "github.event.repository.default_branch": "main",
    "steps.pages.outputs.base_url": SITE,
    "github.token": "none",
}
ON_MAIN = {  # what the workflow's conditions are, for a push to main
    "": True,
    "github.ref_type == 'tag'": False,
    "github.ref_type == 'branch' && steps.pages.outputs.base_url != ''": True,
    "github.ref_type == 'branch' && needs.build.outputs.site != ''": True,
}
NOT_HERE = {"make wheel": ".venv/bin/python book/_tools/wheel.py build"}
"""Needs the network, and what is run in its place."""


def run(command, **options):
    done = subprocess.run(command, capture_output=True, text=True, **options)
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout.strip()


def copy_course(tree: Path) -> None:
    """Copy what Git tracks, or would, as it stands in the working tree."""
    listed = run(["git", "-C", ROOT, "ls-files", "-z", "--cached", "--others",
                  "--exclude-standard"])  # fmt: skip
    for name in filter(None, listed.split("\0")):
        if (ROOT / name).is_file():
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)


def lend_packages(environment: Path) -> Path:
    """Make an environment that holds what ours does, without the course; return its Python."""
    run([sys.executable, "-m", "venv", "--without-pip", environment])
    (theirs,) = (environment / "lib").glob("python*/site-packages")
    for entry in Path(sysconfig.get_path("purelib")).iterdir():
        if not re.search(r"gradient_flow_course|__editable__", entry.name):
            (theirs / entry.name).symlink_to(entry)
    return environment / "bin" / "python"


def lend_environment(clone: Path) -> None:
    """Give the clone its `.venv`, with the stamps of what is installed there."""
    lend_packages(clone / ".venv")
    state = run(["/bin/sh", "-c", "cat requirements.lock pyproject.toml "
                 "book/_tools/environment.sh | cksum; .venv/bin/python -c 'import platform; "
                 "print(platform.python_version())'; pwd"], cwd=clone)  # fmt: skip
    for stage in ("book", "pdf"):
        (clone / ".venv" / f"installed-{stage}").write_text(f"{state}\n", encoding="utf-8")


@pytest.fixture(scope="module")
def fork(tmp_path_factory):
    """Return the clone and the bare repository of the fork, after the workflow has run."""
    if find_browser() is None and os.environ.get("CI", "").lower() != "true":
        pytest.skip("no Chromium on this machine: the workflow prints a PDF")
    folder = tmp_path_factory.mktemp("fork")
    tree, bare, clone = folder / "tree", folder / f"{NAME}.git", folder / "clone"
    copy_course(tree)
    git = ["git", "-C", tree, "-c", "user.name=Course", "-c", "user.email=course@example.org"]
    run(["git", "init", "--quiet", "--initial-branch", "main", tree])
    run([*git, "add", "--all"])
    run([*git, "commit", "--quiet", "--message", "The course"])
    run(["git", "clone", "--quiet", "--bare", tree, bare])
    run(["git", "clone", "--quiet", bare, clone])
    lend_environment(clone)
    kept = {name: value for name, value in os.environ.items()
            if not name.startswith(("COURSE_", "GITHUB_", "PYTHON", "MAKE"))}  # fmt: skip
    # One page on paper says as much about links as four hundred.
    kept |= {"PAGES": "book/intro", "PIP_NO_INDEX": "1", "PYTHONPATH": str(clone)}
    for step in workflow_steps.steps(
        workflow_steps.read_workflow(clone / ".github" / "workflows" / "publish.yml"), CONTEXT
    ):
        if step.run and ON_MAIN[step.condition]:
            command = NOT_HERE.get(step.run.strip(), step.run)
            run(["/bin/bash", "-eu", "-c", command], cwd=clone, env=kept | step.environment)
    return clone, bare


@pytest.fixture(scope="module")
def published(fork):
    clone, _ = fork
    repository = published_repository(
        {"COURSE_REPOSITORY": NAME, "COURSE_SITE": SITE, "COURSE_REVISION": "main"}
    )
    made = clone / "_build" / "publish"
    return Published(made / "site", made / "notebooks", clone, repository)


@pytest.mark.timeout(600)
def test_every_link_and_button_leads_somewhere(published):
    assert dead_links(published) == []


def test_every_chapter_and_exercise_has_its_button_in_page_notebook_and_front_page(fork, published):
    clone, _ = fork
    links = {(link.file, link.address) for link in links_of(published)}
    notebooks = sorted((clone / "book").glob("*.ipynb")) + sorted(
        (clone / "exercises").glob("*.ipynb"))  # fmt: skip
    assert len(notebooks) > 20
    for notebook in notebooks:
        path = notebook.relative_to(clone).as_posix()
        button = f"https://colab.research.google.com/github/{NAME}/blob/colab/{path}"
        page = f"pages/{path.removesuffix('.ipynb')}.html"
        for file in (page, f"notebooks/{path}", "notebooks/README.md"):
            assert (file, button) in links, file


def test_the_first_page_leads_to_the_pdf_and_the_offline_book(published):
    links = {link.address for link in links_of(published) if link.file == "pages/book/intro.html"}
    for ending in ("pdf", "zip"):
        assert f"{SITE}/downloads/gradient-pathologies.{ending}" in links
        assert (published.pages / "downloads" / f"gradient-pathologies.{ending}").stat().st_size


def test_no_other_owner_is_named(published):
    named = re.compile(r"(?:github\.com/|colab\.research\.google\.com/github/)([\w.-]+/[\w.-]+)")
    hosted = re.compile(r"https://([\w-]+)\.github\.io")
    files = [*published.pages.rglob("*.html"), *published.notebooks.rglob("*.ipynb"),
             published.notebooks / "README.md"]  # fmt: skip
    for path in files:
        text = path.read_text(encoding="utf-8")
        assert set(named.findall(text)) <= {NAME}, path.name
        assert set(hosted.findall(text)) <= {NAME.split("/")[0]}, path.name


def test_the_branch_for_colab_holds_exactly_the_notebooks(fork, published):
    clone, bare = fork
    git = ["git", "-C", bare]
    heads = run([*git, "for-each-ref", "--format=%(refname:short)"]).splitlines()
    assert heads == ["colab", "main"]
    assert run([*git, "rev-parse", "main"]) == run(["git", "-C", clone, "rev-parse", "HEAD"])
    listed = set(run([*git, "ls-tree", "-r", "--name-only", "colab"]).splitlines())
    chapters = {f"{folder}/{path.name}" for folder in ("book", "exercises")
                for path in (clone / folder).glob("*.ipynb")}  # fmt: skip
    assert listed == chapters | {"README.md"}
    revision = run([*git, "rev-parse", "main"])
    first = run([*git, "show", "colab:book/chain_rule.ipynb"])
    assert f"https://github.com/{NAME}/archive/{revision}.zip" in first


def test_nothing_that_git_tracks_was_changed(fork):
    clone, _ = fork
    assert run(["git", "-C", clone, "status", "--porcelain"]) == ""


def test_the_wheel_is_tried_where_nothing_else_of_the_course_is(fork, tmp_path):
    clone, _ = fork
    python = lend_packages(tmp_path / "environment")
    (built,) = (clone / "_build" / "dist").glob("*.whl")
    pip = [python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", built]
    run(pip, env=os.environ | {"PIP_ROOT_USER_ACTION": "ignore"})
    code = "import course_lib\nprint('/environment/' in course_lib.__file__)"
    cell = nbformat.v4.new_code_cell(code)
    for said, wrong in (("True", False), ("False", True)):
        cell.outputs = [nbformat.v4.new_output("stream", name="stdout", text=f"{said}\n")]
        chapter = tmp_path / "chapter.ipynb"
        nbformat.write(nbformat.v4.new_notebook(cells=[cell]), chapter)
        assert bool(wheel.try_package(python, chapter)) == wrong
