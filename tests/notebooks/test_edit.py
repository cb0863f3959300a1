"""A notebook survives the way through a Python file; a changed cell keeps its id."""

from __future__ import annotations

import nbformat
import pytest
from _tools import edit


@pytest.fixture
def path(notebook, store, monkeypatch, tmp_path):
    """A stored notebook, with the folder for edited files beside it."""
    monkeypatch.setattr(edit, "EDIT_FOLDER", tmp_path / "edit")
    return store(notebook)


def test_unchanged_there_and_back(path):
    before = path.read_bytes()
    edit.start_editing(path)
    assert not edit.finish_editing(path)
    assert path.read_bytes() == before


def test_a_changed_cell_keeps_its_id_and_loses_its_output(path):
    file = edit.start_editing(path)
    text = file.read_text(encoding="utf-8").replace("0.25**9", "0.5**9")
    file.write_text(text, encoding="utf-8")
    assert edit.finish_editing(path)
    cells = nbformat.read(path, as_version=4).cells
    assert [cell.id for cell in cells] == ["title", "code-1", "code-2", "code-3", "code-4"]
    assert cells[1].source == "print(0.5**9)"
    assert cells[1].outputs == []
    assert cells[1].execution_count is None
    assert len(cells[2].outputs) == 2
    assert cells[3].metadata.tags == ["tab-pytorch"]


def test_a_new_cell_between_others_takes_nobodys_id(path):
    file = edit.start_editing(path)
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("# %%\nshow(", "# %%\nnew = 1\n\n# %%\nshow("), encoding="utf-8")
    edit.finish_editing(path)
    ids = [cell.id for cell in nbformat.read(path, as_version=4).cells]
    assert ids[:2] == ["title", "code-1"]
    assert ids[3:] == ["code-2", "code-3", "code-4"]
    assert ids[2] not in ("title", "code-1", "code-2", "code-3", "code-4")


def test_what_is_missing_is_named(tmp_path, capsys):
    assert edit.main(["edit", str(tmp_path / "absent.ipynb")]) == 2
    assert "absent.ipynb" in capsys.readouterr().err
    assert edit.main(["edit", ""]) == 2
