"""Where the course is published: taken from the environment, written nowhere in the sources.

One variable is enough: `COURSE_REPOSITORY=owner/name`, or the address of any Git repository. The
publishing workflow sets it from the repository it runs in, so a fork needs no editing. Unset, the
book has no buttons, and nothing invents an address.

Others, for what cannot be derived: `COURSE_REVISION` (what the notebooks install; default: the tag
or commit that is checked out), `COURSE_SITE` (address of the published book), `COURSE_BRANCH`
(where the sources are; default `main`).
"""

from __future__ import annotations

import os
import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS_BRANCH = "colab"
"""The branch that holds the notebooks made for Colab, and nothing else."""

GITHUB = re.compile(
    r"^(?:https?://(?:www\.)?github\.com/|(?:ssh://)?git@github\.com[:/])?"
    r"([\w.-]+)/([\w.-]+?)(?:\.git)?/?$"
)


@dataclass(frozen=True)
class Repository:
    """A published course.

    Fields:
        address: what Git clones, such as "https://github.com/owner/name" or "file:///srv/course".
        name: "owner/name" on GitHub, else None; then there is no Colab and no page to link to.
        revision: the tag or commit that the notebooks install.
        branch: where the sources are.
        site: the address of the published book, without a slash at the end, or None.
    """

    address: str
    name: str | None
    revision: str
    branch: str = "main"
    site: str | None = None

    def source_link(self, path: str) -> str | None:
        """Return where a source file is shown, `path` relative to the course's folder."""
        return self.name and f"{self.address}/blob/{self.branch}/{path}"

    def colab_link(self, path: str) -> str | None:
        """Return what opens a notebook in Colab: its copy on the branch made for that."""
        if self.name is None:
            return None
        place = f"github/{self.name}/blob/{NOTEBOOKS_BRANCH}/{path}"
        return f"https://colab.research.google.com/{place}"

    def page_link(self, page: str) -> str | None:
        """Return where a page of the book is read, such as "book/notation", or its source."""
        if self.site is not None:
            return f"{self.site}/{page}.html"
        return self.source_link(f"{page}.md")

    @property
    def requirement(self) -> str:
        """What pip installs: GitHub's archive of the revision, which needs no Git; else a clone.

        An archive holds one revision, so it takes no longer as the history grows, and it stays
        where it is for as long as the revision does: a notebook saved today installs in two years
        what it was made with.
        """
        if self.name is not None:
            return f"{self.address}/archive/{self.revision}.zip"
        return f"git+{self.address}@{self.revision}"


@dataclass(frozen=True)
class Edition:
    """What a notebook was made with: the version of `course_lib`, and the day of the commit."""

    version: str
    date: str | None = None

    def describe(self) -> str:
        """Return "course_lib 0.1.0 on 2026-11-24"."""
        return f"course_lib {self.version}" + (f" on {self.date}" if self.date else "")


def package_version(root: Path = ROOT) -> str:
    """Return the version, read from its one place, `course_lib/__init__.py`."""
    source = (root / "course_lib" / "__init__.py").read_text(encoding="utf-8")
    return re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE).group(1)


def current_edition(root: Path = ROOT) -> Edition:
    """Return the edition that is checked out. Its day is the commit's, not that of the build."""
    return Edition(package_version(root), ask_git(root, "log", "-1", "--format=%cs"))


def ask_git(root: Path, *question: str) -> str | None:
    """Return Git's answer, or None where there is no Git, no repository, or no answer."""
    try:
        command = ["git", "-C", str(root), *question]
        done = subprocess.run(command, capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def checked_out_revision(root: Path = ROOT) -> str:
    """Return the release tag that is checked out, else the commit, else "main"."""
    tag = ask_git(root, "describe", "--tags", "--exact-match", "--match", "v*")
    return tag or ask_git(root, "rev-parse", "HEAD") or "main"


def published_repository(environment: dict[str, str] | None = None) -> Repository | None:
    """Return the repository that the environment names, or None.

    Raises:
        ValueError: if `COURSE_REPOSITORY` is neither owner/name nor the address of a repository.
    """
    given = os.environ if environment is None else environment
    named = given.get("COURSE_REPOSITORY", "").strip()
    if not named:
        return None
    revision = given.get("COURSE_REVISION", "").strip() or checked_out_revision()
    branch = given.get("COURSE_BRANCH", "").strip() or "main"
    site = given.get("COURSE_SITE", "").strip().rstrip("/") or None
    found = GITHUB.match(named)
    if found:
        name = "/".join(found.groups())
        return Repository(f"https://github.com/{name}", name, revision, branch, site)
    if not re.match(r"^(https|file|ssh)://\S+$", named):
        raise ValueError(
            f"`COURSE_REPOSITORY` (={named!r}) must be owner/name on GitHub or the address of a "
            "Git repository, https://, ssh:// or file://."
        )
    return Repository(named.rstrip("/"), None, revision, branch, site)
