"""No stored notebook has a fault that a gate can see. Running them again is nbval's part."""

from __future__ import annotations

import pytest
from _tools.notebook_files import display_name, find_notebooks
from _tools.notebook_gates import find_faults

NOTEBOOKS = find_notebooks()


def test_there_are_chapters():
    assert any(display_name(path).startswith("book/") for path in NOTEBOOKS)


@pytest.mark.parametrize("path", NOTEBOOKS, ids=display_name)
def test_a_stored_notebook_has_no_fault(path):
    faults = find_faults(path)
    assert not faults, "\n".join(map(str, faults))
