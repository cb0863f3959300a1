"""Each gate goes red for what it is there for, and says in which notebook and cell."""

from __future__ import annotations

import json

import pytest
from _tools.notebook_gates import find_faults
from nbformat.v4 import new_output
from small_notebooks import printed, white_png

# Written in two pieces, so that no file of the course holds such a path itself.
HOME_PATH = "/" + "home/ada/course/lib.py"
WINDOWS_PATH = "C:" + "\\Users\\ada\\lib.py"


def only_fault(path) -> str:
    """The one fault of a notebook, as it is printed."""
    faults = find_faults(path)
    assert len(faults) == 1, [str(f) for f in faults]
    return str(faults[0])


def test_a_good_notebook_has_no_fault(notebook, store):
    assert find_faults(store(notebook)) == []


def never_executed(cells):
    cells[1].execution_count = None


def executed_out_of_order(cells):
    cells[1].execution_count, cells[2].execution_count = 2, 1


def executed_twice(cells):
    cells[1].execution_count = 7


def empty(cells):
    cells[1].source = "  \n"


def doubled_id(cells):
    cells[1].id = "title"


def too_long(cells):
    cells[1].source = "\n".join(f"x{i} = {i}" for i in range(16))


def twin_alone(cells):
    cells[4].metadata.tags = []


def twin_order(cells):
    cells[3].metadata.tags, cells[4].metadata.tags = cells[4].metadata.tags, []


def excused_by_tag(cells):
    cells[1].metadata["tags"] = ["nbval-ignore-output"]


def excused_by_comment(cells):
    cells[1].source += "\n# NBVAL_SKIP"


def error(cells):
    cells[1].outputs = [new_output("error", ename="ValueError", evalue="no", traceback=["no"])]


def python_warning(cells):
    cells[1].outputs = [printed("lib.py:3: UserWarning: this will change\n")]


def stderr(cells):
    cells[1].outputs = [printed("anything\n", "stderr")]


def log_line(cells):
    cells[1].outputs = [printed("2026-01-31 12:00:00.123 I tensorflow/core: oneDNN\n")]


def absl_line(cells):
    cells[1].outputs = [printed("I0000 00:00:1769 gpu_device.cc:1] no GPU\n")]


def home_path(cells):
    cells[1].outputs = [printed(f"read {HOME_PATH}\n")]


def windows_path(cells):
    cells[1].outputs = [printed(f"read {WINDOWS_PATH}\n")]


def address(cells):
    cells[1].outputs = [printed("<Model object at 0x7f3a5c0d1e90>\n")]


def wordless(cells):
    cells[2].outputs[0].data["text/plain"] = "<Figure size 640x480 with 1 Axes>"


def picture_only(cells):
    cells[2].outputs = [new_output("display_data", {"image/png": white_png()})]


def captionless(cells):
    del cells[2].outputs[1]


def other_caption(cells):
    cells[2].outputs[1].data["text/markdown"] = "*Figure.* The gradient grows."


def other_alt(cells):
    cells[2].outputs[0].metadata["image/png"] = {"alt": "The gradient grows."}


def timing(cells):
    cells[1].metadata["execution"] = {"iopub.execute_input": "2026-01-31T12:00:00Z"}


@pytest.mark.parametrize(
    ("spoil", "cell_id", "says"),
    [
        (never_executed, "code-1", "never executed"),
        (executed_twice, "code-1", "out of order: count 7, not 1"),
        (empty, "code-1", "empty code cell"),
        (doubled_id, "title", "the same id"),
        (too_long, "code-1", "16 lines of code, over 15"),
        (twin_alone, "code-3", "`tab-pytorch` is not followed by"),
        (twin_order, "code-3", "`tab-tensorflow` does not follow"),
        (excused_by_tag, "code-1", "excused from comparison"),
        (excused_by_comment, "code-1", "excused from comparison"),
        (error, "code-1", "a stored error: ValueError"),
        (python_warning, "code-1", "a stored warning or log line"),
        (stderr, "code-1", "stored stderr: 'anything'"),
        (log_line, "code-1", "a stored warning or log line"),
        (absl_line, "code-1", "a stored warning or log line"),
        (home_path, "code-1", "an absolute path"),
        (windows_path, "code-1", "an absolute path"),
        (address, "code-1", "an object's address"),
        (wordless, "code-2", "a figure without words"),
        (picture_only, "code-2", "a figure without words"),
        (captionless, "code-2", "a figure without its caption"),
        (other_caption, "code-2", "caption differs"),
        (other_alt, "code-2", "`alt` differs"),
        (timing, "code-1", "volatile metadata: 'execution'"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_spoiled_cell_is_named(notebook, store, spoil, cell_id, says):
    spoil(notebook.cells)
    fault = only_fault(store(notebook, "spoiled.ipynb"))
    assert "spoiled.ipynb" in fault
    assert f"(id {cell_id})" in fault
    assert says in fault


def test_cells_run_in_another_order_are_both_named(notebook, store):
    executed_out_of_order(notebook.cells)
    assert [f.cell_id for f in find_faults(store(notebook))] == ["code-1", "code-2"]


def test_an_announced_error_is_no_fault(notebook, store):
    error(notebook.cells)
    notebook.cells[1].metadata["tags"] = ["raises-exception"]
    assert find_faults(store(notebook)) == []


def test_numbers_and_addresses_of_pages_are_no_paths(notebook, store):
    text = "1/home, a/usr/b, https://example.org/home/x, 3.0/tmp, 0xff, and/or/opt\n"
    notebook.cells[1].outputs = [printed(text)]
    assert find_faults(store(notebook)) == []


def test_a_missing_id_is_named(notebook, store):
    path = store(notebook)
    stored = json.loads(path.read_text(encoding="utf-8"))
    del stored["cells"][1]["id"]
    path.write_text(json.dumps(stored, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    assert "chapter.ipynb, cell 2 (id ?): the cell has no id." in only_fault(path)


def test_a_notebook_too_large_is_named(notebook, store):
    notebook.cells[0].source = "x" * 600_000
    assert "over 600" in only_fault(store(notebook))


def test_volatile_notebook_metadata_is_named(notebook, store):
    notebook.metadata.language_info["version"] = "3.11.7"
    assert "volatile 'language_info'" in only_fault(store(notebook))


def test_a_reformatted_file_is_named(notebook, store):
    path = store(notebook)
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8"))), encoding="utf-8")
    assert "not formatted as stored" in only_fault(path)
