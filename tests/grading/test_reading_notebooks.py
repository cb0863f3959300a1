"""Files are read as they come, and what is wrong with one is said in a sentence."""

from __future__ import annotations

import json
import os
import re

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from course_lib.grading.notebooks import (
    NotebookError,
    defined_functions,
    named_assignments,
    parse,
    read_bytes,
)


def complaint(data):
    """What is wrong with a file; "" if nothing is."""
    try:
        parse(data)
    except NotebookError as error:
        return str(error)
    return ""


def notebook(*sources, **metadata):
    cells = [{"cell_type": "code", "source": source} for source in sources]
    return json.dumps({"nbformat": 4, "metadata": metadata, "cells": cells}).encode()


def test_code_cells_are_numbered_from_one_and_keep_their_text():
    found = parse(notebook("a = 1", ["b = 2\n", "c = 3"], ""))
    assert [(cell.number, cell.source) for cell in found.cells] == [
        (1, "a = 1"), (2, "b = 2\nc = 3"), (3, ""),
    ]  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_encodings_with_a_mark_are_read(encoding):
    data = notebook("größe = 1").decode().encode(encoding)
    assert parse(data).cells[0].source == "größe = 1"


@given(st.binary(max_size=400))
def test_any_bytes_are_a_notebook_or_a_sentence(data):
    assert re.fullmatch(r"(?s)|[A-Z].*\.", complaint(data))


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["cells", "worksheets", "cell_type", "source", "metadata", "kernelspec",
                         "language_info", "language", "name", "code", "input"]), inner, max_size=5
    ),
    max_leaves=12,
)  # fmt: skip


@settings(suppress_health_check=[HealthCheck.too_slow], deadline=None)
@given(json_values, json_values, json_values)
def test_any_json_is_a_notebook_or_a_sentence(cells, metadata, sheets):
    for raw in (
        {"cells": cells, "metadata": metadata}, {"worksheets": sheets, "metadata": metadata},
        {"cells": [{"cell_type": "code", "source": cells}]},
    ):  # fmt: skip
        assert re.fullmatch(r"|[A-Z].*\.", complaint(json.dumps(raw).encode()))


@given(st.integers(min_value=1, max_value=200))
def test_a_notebook_cut_anywhere_is_never_read(kept):
    data = notebook("x = 1", "y = 2")
    if kept < len(data):
        with pytest.raises(NotebookError):
            parse(data[:kept])


def test_links_folders_and_devices_are_not_read(tmp_path):
    secret = tmp_path / "secret"
    secret.write_text("secret")
    link = tmp_path / "link.ipynb"
    link.symlink_to(secret)
    with pytest.raises(NotebookError, match="link"):
        read_bytes(link)
    os.mkfifo(tmp_path / "pipe.ipynb")
    for name in ("pipe.ipynb", "."):
        with pytest.raises(NotebookError):
            read_bytes(tmp_path / name)


def test_a_file_too_large_is_not_read(tmp_path):
    path = tmp_path / "large.ipynb"
    with open(path, "wb") as stream:
        stream.truncate(65 << 20)
    with pytest.raises(NotebookError, match="has 65 MB"):
        read_bytes(path)


def test_too_many_cells_are_refused():
    with pytest.raises(NotebookError, match="6000 cells"):
        parse(notebook(*["pass"] * 6000))


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "data",
    [
        b"\n" * 5_000_000 + b"x", b" " * 5_000_000 + b"{", b"[" * 5_000_000,
        b'{"cells": [' + b"{}," * 2_000_000 + b"{}]}", b'{"cells": [' + b"1," * 9_000_000 + b"1]}",
        notebook("check(" + " " * 3_000_000, "check(" * 500_000, "def " * 500_000),
        notebook("x" * 3_000_000 + "=" * 10, " " * 3_000_000 + "?"),
    ],
    ids=["newlines", "spaces", "brackets", "objects", "commas", "words", "long lines"],
)  # fmt: skip
def test_files_made_to_be_slow_are_read_at_once(data):
    """Reading happens outside of the sandbox: no file may hold it up, or fill its memory."""
    if not complaint(data):
        found = parse(data)
        assert not named_assignments(found)
        assert len(defined_functions(found)) <= 1


def test_assignments_and_functions_are_found():
    checks = "check(\"bptt/a\", a)\ncheck( 'bptt/b', b)"
    functions = "def f():\n    def g(): ...", "f = lambda x: x\nasync def h(): ..."
    found = parse(notebook(checks, *functions))
    assert named_assignments(found) == {"bptt": 2}
    assert defined_functions(found) == {"f": [2, 3], "h": [3]}
