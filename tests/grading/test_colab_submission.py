"""A notebook done in Colab is graded as it was saved there: with its first cell, without ids."""

from __future__ import annotations

import json

from _tools.first_cell import first_cells
from _tools.repository import Edition, published_repository

SOLVED = (
    "def double(x):\n    return [2.0 * v for v in x]",
    "def total(x):\n    return float(sum(x))",
)


def saved_in_colab() -> bytes:
    """Return a solved toy notebook with the head of a copy, as Colab writes the file."""
    named = {"COURSE_REPOSITORY": "some-one/gradient.course", "COURSE_REVISION": "v0.0.1"}
    head = first_cells("exercises/toy.ipynb", published_repository(named), Edition("0.0.1"))
    sources = [(cell.cell_type, cell.source) for cell in head]
    sources += [("code", source) for source in SOLVED]
    cells = []
    for number, (kind, source) in enumerate(sources):
        cell = {"cell_type": kind, "source": source.splitlines(keepends=True),
                "metadata": {"id": f"aB{number}", "cellView": "form"}}  # fmt: skip
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append(cell)
    colab = {"provenance": [], "toc_visible": True}
    whole = {"cells": cells, "metadata": {"colab": colab}, "nbformat": 4, "nbformat_minor": 0}
    return json.dumps(whole).encode()


def test_the_first_cell_costs_no_point_where_nothing_can_be_installed(grader, slot):
    result = grader.grade(slot, saved_in_colab())
    assert result["points"] == 3
    assert result["notes"] == []
