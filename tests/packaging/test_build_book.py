"""What makes `make book` build again: any change in what the book is made of, and damage to it."""

from __future__ import annotations

import pytest
from _tools import build_book


@pytest.fixture
def course(tmp_path, monkeypatch):
    """A small course whose build writes one page for each chapter."""
    for name in ("book/chapter.md", "book/_theme/style.css", "course_lib/flow.py", "_toc.yml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name, encoding="utf-8")
    html = tmp_path / "_build" / "html"
    builds = []

    def build() -> int:
        html.mkdir(parents=True, exist_ok=True)
        for chapter in (tmp_path / "book").glob("*.md"):
            (html / f"{chapter.stem}.html").write_text(chapter.read_text(), encoding="utf-8")
        builds.append(1)
        return 1 if "broken" in (tmp_path / "book/chapter.md").read_text() else 0

    monkeypatch.setattr(build_book, "ROOT", tmp_path)
    monkeypatch.setattr(build_book, "HTML", html)
    monkeypatch.setattr(build_book, "FINGERPRINT", tmp_path / "_build" / "fingerprint.json")
    monkeypatch.setattr(build_book, "run_jupyter_book", build)
    monkeypatch.setattr(build_book.source_hashes, "__defaults__", (tmp_path,))
    return tmp_path, builds


def test_nothing_changed_builds_nothing(course, capsys):
    _, builds = course
    assert [build_book.main() for _ in range(3)] == [0, 0, 0]
    assert len(builds) == 1
    assert "up to date" in capsys.readouterr().out


@pytest.mark.parametrize(
    "name", ["book/chapter.md", "book/_theme/style.css", "course_lib/flow.py", "_toc.yml"]
)
def test_any_changed_source_builds_again(course, name, capsys):
    folder, builds = course
    build_book.main()
    (folder / name).write_text("changed", encoding="utf-8")
    build_book.main()
    assert len(builds) == 2
    assert name in capsys.readouterr().out


def test_a_new_and_a_removed_file_build_again(course):
    folder, builds = course
    build_book.main()
    new = folder / "book" / "new.md"
    new.write_text("new", encoding="utf-8")
    build_book.main()
    new.unlink()
    build_book.main()
    assert len(builds) == 3


def test_a_lost_page_is_built_again(course):
    folder, builds = course
    build_book.main()
    (folder / "_build/html/chapter.html").unlink()
    build_book.main()
    assert len(builds) == 2


def test_a_failed_build_is_not_taken_for_done(course):
    folder, builds = course
    (folder / "book/chapter.md").write_text("broken", encoding="utf-8")
    assert [build_book.main(), build_book.main()] == [1, 1]
    assert len(builds) == 2


def test_caches_are_no_sources(course):
    folder, _ = course
    cache = folder / "course_lib" / "__pycache__" / "flow.pyc"
    cache.parent.mkdir()
    cache.write_bytes(b"")
    assert cache not in build_book.source_files(folder)
