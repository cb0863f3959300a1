"""`make refresh` stores the same bytes twice, nothing volatile, and nothing after a failure."""

from __future__ import annotations

import nbformat
import pytest
from _tools.notebook_files import merge_streams, normalize, write_atomically
from _tools.notebook_gates import find_faults
from nbformat.v4 import new_code_cell, new_notebook
from small_notebooks import printed

REFRESH = "book/_tools/refresh.py"


@pytest.fixture
def write(tmp_path):
    """Write a never-executed notebook with these sources, as an editor would leave it."""

    def write_sources(*sources: str, name: str = "new.ipynb"):
        cells = [new_code_cell(s, metadata={"execution": {"shell": "now"}}) for s in sources]
        metadata = {"language_info": {"name": "python", "version": "3.0.0"}, "widgets": {}}
        path = tmp_path / name
        nbformat.write(new_notebook(cells=cells, metadata=metadata), path)
        return path

    return write_sources


def test_two_runs_store_the_same_bytes_and_no_gate_objects(write, run_tool):
    many_lines = "for i in range(2000):\n    print(i, flush=i % 7 == 0)"
    to_the_process = "import os, sys\nos.write(2, b'log line')\nos.write(1, b'log line');"
    path = write(many_lines, to_the_process, "{'a', 'b', 'c', 'd', 'e'}", "hash('word')")
    status, text = run_tool(REFRESH, path)
    assert status == 0, text
    assert "s CPU" in text
    once = path.read_bytes()
    status, text = run_tool(REFRESH, path)
    assert status == 0
    assert "unchanged" in text
    assert path.read_bytes() == once
    assert b"log line" not in once.replace(b"b'log line'", b"")
    assert find_faults(path) == []


def test_a_failing_cell_is_named_and_nothing_is_lost(write, run_tool):
    path, good = write("1 + 1", "1 / 0", "3"), write("5 * 5", name="good.ipynb")
    before = path.read_bytes()
    cell_id = nbformat.read(path, as_version=4).cells[1].id
    status, text = run_tool(REFRESH, path, good)
    assert status == 1
    assert "new.ipynb: FAILED in code cell 2" in text
    assert f"(id {cell_id})" in text
    assert "ZeroDivisionError" in text
    assert path.read_bytes() == before
    assert nbformat.read(good, as_version=4).cells[0].outputs[0].data["text/plain"] == "25"
    assert sorted(p.name for p in path.parent.iterdir()) == ["good.ipynb", "new.ipynb"]


def test_a_notebook_that_is_not_there_is_named(run_tool, tmp_path):
    status, text = run_tool(REFRESH, tmp_path / "absent.ipynb")
    assert status == 2
    assert "absent.ipynb" in text


def test_pieces_of_a_stream_are_merged_but_not_across_streams():
    pieces = [printed("a"), printed("b"), printed("c", "stderr"), printed("d")]
    assert [o.text for o in merge_streams(pieces)] == ["ab", "c", "d"]


def test_ids_are_kept_and_missing_ones_are_always_the_same():
    cells = [new_code_cell("1", id="kept"), new_code_cell("2", id="kept"), new_code_cell("3")]
    del cells[2]["id"]
    notebook = new_notebook()
    notebook.cells = cells  # not as an argument: nbformat would complain of the ids
    once, twice = normalize(notebook), normalize(notebook)
    ids = [cell.id for cell in once.cells]
    assert ids[0] == "kept"
    assert len(set(ids)) == 3
    assert ids == [cell.id for cell in twice.cells]


def test_writing_is_all_or_nothing(tmp_path, monkeypatch):
    path = tmp_path / "file.txt"
    path.write_text("old", encoding="utf-8")
    path.chmod(0o640)
    assert not write_atomically(path, "old")
    assert write_atomically(path, "new")
    assert path.stat().st_mode & 0o777 == 0o640
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, "newer")
    assert path.read_text(encoding="utf-8") == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["file.txt"]
