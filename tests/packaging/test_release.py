"""A release is whole: one version, its day and its notes, and a tag that is that version."""

from __future__ import annotations

import re
import shutil
import tomllib
import warnings

import pytest
from _tools import release
from _tools.repository import ROOT, package_version
from packaging.version import Version

import course_lib
from course_lib._deprecation import renamed

FILES = ("course_lib/__init__.py", "CHANGELOG.md", "CITATION.cff")


@pytest.fixture
def tree(tmp_path):
    """Return a folder with the files that name a version, and something unreleased."""
    for name in FILES:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(ROOT / name, tmp_path / name)
    text = (tmp_path / "CHANGELOG.md").read_text(encoding="utf-8")
    news = text.replace("## Unreleased\n", "## Unreleased\n\nNews.\n", 1)
    (tmp_path / "CHANGELOG.md").write_text(news, encoding="utf-8")
    return tmp_path


def test_a_release_is_set_and_agrees_with_its_tag_alone(tree):
    release.set_version("98.0.0", date="2030-01-02", root=tree)
    assert release.disagreements("v98.0.0", tree) == []
    assert release.sections(tree)["98.0.0"][0] == "2030-01-02"
    assert "News." in release.sections(tree)["98.0.0"][1]
    assert release.sections(tree)["Unreleased"] == (None, "")
    assert "v98.0.1" in release.disagreements("v98.0.1", tree)[0]
    assert release.disagreements("98.0.0", tree)


@pytest.mark.parametrize(
    ("file", "pattern", "said"),
    [
        ("CHANGELOG.md", r"## 98.0.0 - .*", "CHANGELOG.md has no section"),
        ("CITATION.cff", r"version: 98.0.0", "no line `version: 98.0.0`"),
        ("CITATION.cff", r"date-released: .*", 'no line `date-released: "2030-01-02"`'),
    ],
)
def test_what_is_forgotten_is_named(tree, file, pattern, said):
    release.set_version("98.0.0", date="2030-01-02", root=tree)
    text = (tree / file).read_text(encoding="utf-8")
    (tree / file).write_text(re.sub(pattern, "", text, count=1), encoding="utf-8")
    assert any(said in found for found in release.disagreements("v98.0.0", tree))


def test_between_releases_the_version_says_so_and_is_no_release(tree):
    before = (tree / "CHANGELOG.md").read_text(encoding="utf-8")
    release.set_version("98.1.0.dev0", date="2030-01-02", root=tree)
    assert package_version(tree) == "98.1.0.dev0"
    assert (tree / "CHANGELOG.md").read_text(encoding="utf-8") == before
    assert any("between releases" in found for found in release.disagreements("v98.1.0.dev0", tree))


@pytest.mark.parametrize(
    ("version", "said"), [("98", "must look like"), ("0.0.1", "must be above the present one")]
)
def test_a_version_that_cannot_follow_is_refused_and_nothing_is_written(tree, version, said):
    before = [(tree / name).read_bytes() for name in FILES]
    with pytest.raises(ValueError, match=rf"`version` \(='{version}'\) {said}"):
        release.set_version(version, date="2030-01-02", root=tree)
    assert [(tree / name).read_bytes() for name in FILES] == before


def test_a_release_needs_something_new(tree):
    release.set_version("98.0.0", date="2030-01-02", root=tree)
    with pytest.raises(ValueError, match="says nothing under 'Unreleased'"):
        release.set_version("98.0.1", date="2030-01-03", root=tree)


def test_the_package_is_of_the_version_its_source_says():
    assert package_version() == course_lib.__version__
    assert release.VERSION.fullmatch(course_lib.__version__)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "version" not in project["project"]
    read_from = project["tool"]["setuptools"]["dynamic"]["version"]
    assert read_from == {"attr": "course_lib.__version__"}


def test_this_tree_is_a_release_or_on_the_way_to_one():
    version = package_version()
    if Version(version).is_devrelease:
        assert release.sections(ROOT)["Unreleased"][1]
    else:
        assert release.disagreements(f"v{version}") == []


def test_an_old_name_answers_as_before_and_says_what_to_use():
    def double_norm(x, *, factor=2):
        """Return the product."""
        return factor * x

    twice = renamed(double_norm, old="twice", since="0.2.0", gone_in="0.4.0")
    said = r"`twice` is called `double_norm`.*0\.4\.0"
    with pytest.warns(DeprecationWarning, match=said) as seen:
        assert twice(3, factor=5) == 15
    assert seen[0].filename == __file__  # the caller's line, which is what a notebook shows
    assert (twice.__name__, twice.__doc__) == ("twice", double_norm.__doc__)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert double_norm(3) == 6


def overdue(text: str, version: str) -> list[str]:
    """Return the lines that promise to be gone by this version."""
    promises = re.findall(r'(.*gone_in="([\d.]+)".*)', text)
    return [line.strip() for line, gone_in in promises if Version(gone_in) <= Version(version)]


def test_old_names_go_when_they_were_said_to():
    """Fails with the line that is to be removed, in the version that promised it."""
    line = 'twice = renamed(double_norm, old="twice", since="0.2.0", gone_in="0.4.0")'
    assert overdue(line, "0.3.1") == []
    assert overdue(line, "0.4.0") == [line]
    modules = sorted((ROOT / "course_lib").rglob("*.py"))
    texts = [path.read_text(encoding="utf-8") for path in modules if path.stem != "_deprecation"]
    assert overdue("\n".join(texts), course_lib.__version__) == []
