"""Releases of the package: one command before the tag, one check at it.

    python book/_tools/release.py set 0.2.0        # then commit, tag v0.2.0, push
    python book/_tools/release.py set 0.3.0.dev0   # the first commit after it
    python book/_tools/release.py check v0.2.0     # print the notes, or what does not agree

The version stands in `course_lib/__init__.py`, and the package's metadata are read from there. For
a release, `CHANGELOG.md` and `CITATION.cff` name it too, with its day. The tag is `v` and the
version: what a notebook of that tag installs is what it says it was made with.
"""

from __future__ import annotations

import argparse
import datetime
import re
import sys
from pathlib import Path

from packaging.version import Version

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools.repository import ROOT, package_version

VERSION = re.compile(r"\d+\.\d+\.\d+(\.dev\d+)?")
SECTION = re.compile(
    r"^## (?P<name>\S+)(?: - (?P<date>\d{4}-\d\d-\d\d))?\n(?P<body>.*?)(?=^## |\Z)",
    re.MULTILINE | re.DOTALL,
)
UNRELEASED = "Unreleased"


def sections(root: Path) -> dict[str, tuple[str | None, str]]:
    """Map each version of the changelog, and "Unreleased", to its day and its text."""
    text = (root / "CHANGELOG.md").read_text(encoding="utf-8")
    return {s["name"]: (s["date"], s["body"].strip()) for s in SECTION.finditer(text)}


def replace_in(file: Path, pattern: str, new: str) -> None:
    """Replace the one match of `pattern` in a file.

    Raises:
        ValueError: if there is none, or more than one.
    """
    text = file.read_text(encoding="utf-8")
    changed, count = re.subn(pattern, lambda _: new, text, flags=re.MULTILINE)
    if count != 1:
        raise ValueError(f"{file.name} has {count} lines like `{pattern}`; it must have one")
    file.write_text(changed, encoding="utf-8")


def set_version(version: str, *, date: str, root: Path = ROOT) -> None:
    """Write a version wherever it stands; for a release, close its section of the changelog.

    Raises:
        ValueError: if `version` is not of the form 1.2.3 or 1.2.3.dev0, not above the present one,
            or, for a release, if nothing is written under "Unreleased".
    """
    present = package_version(root)
    if not VERSION.fullmatch(version):
        raise ValueError(f"`version` (={version!r}) must look like 1.2.3, or 1.2.3.dev0 after it")
    if Version(version) <= Version(present):
        raise ValueError(f"`version` (={version!r}) must be above the present one, {present}")
    if not Version(version).is_devrelease:
        if not sections(root)[UNRELEASED][1]:
            raise ValueError(f"CHANGELOG.md says nothing under {UNRELEASED!r}: what is new?")
        heading = f"## {UNRELEASED}\n\n## {version} - {date}\n"
        replace_in(root / "CHANGELOG.md", rf"^## {UNRELEASED}\n", heading)
        replace_in(root / "CITATION.cff", r"^version: .*$", f"version: {version}")
        replace_in(root / "CITATION.cff", r"^date-released: .*$", f'date-released: "{date}"')
    line = f'__version__ = "{version}"'
    replace_in(root / "course_lib" / "__init__.py", r'^__version__ = ".*"$', line)


def disagreements(tag: str, root: Path = ROOT) -> list[str]:
    """Return what keeps the checked out files from being the release that `tag` names."""
    version, found = package_version(root), []
    if tag != f"v{version}":
        found.append(f"the tag is {tag}, and course_lib says v{version}")
    if Version(version).is_devrelease:
        found.append(f"{version} lies between releases; `release.py set` makes it one")
    if found:
        return found
    date, notes = sections(root).get(version, (None, ""))
    if not date or not notes:
        found.append(f"CHANGELOG.md has no section `## {version} - YYYY-MM-DD` with text")
    citation = (root / "CITATION.cff").read_text(encoding="utf-8")
    for line in (f"version: {version}", f'date-released: "{date}"'):
        if line not in citation.splitlines():
            found.append(f"CITATION.cff has no line `{line}`")
    return found


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest="command", required=True)
    for name, what in (("set", "version"), ("check", "tag")):
        commands.add_parser(name).add_argument("name", metavar=what.upper())
    given = parser.parse_args(arguments)
    if given.command == "set":
        try:
            set_version(given.name, date=datetime.date.today().isoformat())
        except ValueError as error:
            print(error, file=sys.stderr)
            return 2
        print(f"==> course_lib is {given.name}: commit, tag a release v{given.name}, and push both")
        return 0
    found = disagreements(given.name)
    for what in found:
        print(f"==> Not the release {given.name}: {what}", file=sys.stderr)
    if not found:
        print(sections(ROOT)[package_version()][1])
    return min(len(found), 1)


if __name__ == "__main__":
    sys.exit(main())
