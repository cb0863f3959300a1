"""Gather what is published, check every link in it, and push the notebooks that Colab opens.

    python book/_tools/publish.py gather                # into _build/publish, then every link
    python book/_tools/publish.py push [--newest-of main] [--remote origin]

`gather` needs what `make pdf`, `make notebooks` and `wheel.py build` have made:

    _build/publish/site         the pages, with the PDF and the book for reading offline
    _build/publish/notebooks    what the branch for Colab holds
    _build/publish/downloads    what is attached to a release

`push` puts one commit on the branch for Colab and touches no other, no file and no index here.
With `--newest-of main` it does so only while the commit that is checked out is main's newest, so
that a run that was late, or a tag on something older, overwrites nothing newer.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools.repository import NOTEBOOKS_BRANCH, ROOT, checked_out_revision

BUILD = ROOT / "_build"
PUBLISH = BUILD / "publish"
NAME = "gradient-pathologies"
EPOCH = (1980, 1, 1, 0, 0, 0)  # the same files make the same archive
AUTHOR = {"NAME": "github-actions[bot]",
          "EMAIL": "41898282+github-actions[bot]@users.noreply.github.com"}  # fmt: skip


class PublishError(RuntimeError):
    """What keeps the course from being published, in a sentence."""


def pack(folder: Path, target: Path, *, top: str) -> None:
    """Write all files of a folder into a zip archive, under one folder named `top`."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(folder.rglob("*")):
            if path.is_file():
                name = f"{top}/{path.relative_to(folder).as_posix()}"
                entry = zipfile.ZipInfo(name, EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                entry.external_attr = 0o644 << 16
                archive.writestr(entry, path.read_bytes())


def gather(build: Path = BUILD, out: Path = PUBLISH) -> None:
    """Copy and pack everything that is published into `out`, which is emptied first.

    Raises:
        PublishError: if something has not been made yet.
    """
    needed = {build / "html": "make book", build / "notebooks": "make notebooks",
              build / "pdf" / f"{NAME}.pdf": "make pdf", build / "dist": "make wheel"}  # fmt: skip
    for path, command in needed.items():
        if not path.exists():
            raise PublishError(f"{path} is missing: `{command}` makes it")
    shutil.rmtree(out, ignore_errors=True)
    downloads = out / "downloads"
    downloads.mkdir(parents=True)
    shutil.copytree(build / "html", out / "site")
    shutil.copytree(build / "notebooks", out / "notebooks")
    pack(build / "html", downloads / f"{NAME}.zip", top=NAME)
    pack(build / "notebooks", downloads / f"{NAME}-notebooks.zip", top=f"{NAME}-notebooks")
    shutil.copy(build / "pdf" / f"{NAME}.pdf", downloads)
    for name in (f"{NAME}.pdf", f"{NAME}.zip"):
        (out / "site" / "downloads").mkdir(exist_ok=True)
        shutil.copy(downloads / name, out / "site" / "downloads")
    for path in sorted((build / "dist").iterdir()):
        shutil.copy(path, downloads)


def git(root: Path, *arguments: str, **variables: str) -> str:
    """Return what Git prints.

    Raises:
        PublishError: if it fails, with what it said.
    """
    command = ["git", "-C", str(root), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | variables)
    if done.returncode:
        raise PublishError(f"`git {arguments[0]}` failed: {done.stderr.strip()}")
    return done.stdout.strip()


def newest(root: Path, remote: str, branch: str) -> str | None:
    """Return the commit of a remote branch, or None if there is no such branch."""
    answer = git(root, "ls-remote", remote, f"refs/heads/{branch}")
    return answer.split()[0] if answer else None


def commit_folder(root: Path, folder: Path, parent: str | None, message: str) -> str | None:
    """Make a commit of exactly the files in a folder; None if the parent holds the same ones."""
    with tempfile.TemporaryDirectory() as scratch:
        index = {"GIT_INDEX_FILE": str(Path(scratch) / "index")}
        here = {"GIT_DIR": git(root, "rev-parse", "--absolute-git-dir"), "GIT_WORK_TREE": "."}
        git(folder, "-c", "core.autocrlf=false", "add", "--all", "--force", ".", **index, **here)
        made = git(root, "write-tree", **index)
    if parent and git(root, "rev-parse", f"{parent}^{{tree}}") == made:
        return None
    who = {f"GIT_{role}_{key}": value for role in ("AUTHOR", "COMMITTER")
           for key, value in AUTHOR.items()}  # fmt: skip
    parents = ["-p", parent] if parent else []
    return git(root, "commit-tree", made, *parents, "-m", message, **who)


def push_notebooks(folder: Path, remote: str, newest_of: str | None, root: Path = ROOT) -> str:
    """Bring the branch for Colab up to date with `folder`; return what was done, in a sentence.

    The branch shares no history with the sources. It grows by one commit whenever a notebook
    changed, so what was published before can be found there.

    Raises:
        PublishError: if the folder holds no notebooks, or Git fails.
    """
    if not list(folder.rglob("*.ipynb")):
        raise PublishError(f"there are no notebooks in {folder}: `make notebooks` makes them")
    if newest_of and newest(root, remote, newest_of) != git(root, "rev-parse", "HEAD"):
        return f"nothing pushed: {newest_of} is at another commit than the one checked out here"
    parent = newest(root, remote, NOTEBOOKS_BRANCH)
    if parent:
        git(root, "fetch", "--quiet", "--depth=1", "--no-tags", remote, parent)
    message = f"Notebooks of {checked_out_revision(root)}"
    commit = commit_folder(root, folder.resolve(), parent, message)
    if commit is None:
        return "nothing pushed: the notebooks are there already"
    git(root, "push", "--quiet", remote, f"{commit}:refs/heads/{NOTEBOOKS_BRANCH}")
    return f"pushed {commit[:12]} to {NOTEBOOKS_BRANCH}: {message}"


def main() -> int:
    """Gather or push; 0 if all is well."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("gather")
    push = commands.add_parser("push")
    push.add_argument("--remote", default="origin")
    push.add_argument("--newest-of", metavar="BRANCH")
    push.add_argument("--from", dest="folder", type=Path, default=PUBLISH / "notebooks")
    given = parser.parse_args()
    try:
        if given.command == "push":
            print(f"==> {push_notebooks(given.folder, given.remote, given.newest_of)}")
            return 0
        gather()
    except PublishError as error:
        print(f"==> Not published: {error}", file=sys.stderr)
        return 1
    from _tools.links import Published, judge_links  # needs more than Python alone

    return judge_links(Published(pages=PUBLISH / "site", notebooks=PUBLISH / "notebooks"))


if __name__ == "__main__":
    sys.exit(main())
