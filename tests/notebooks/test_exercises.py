"""Student notebooks are the solved ones without the solutions, and nothing else."""

from __future__ import annotations

import nbformat
import pytest
import small_notebooks
from _tools import exercises
from _tools.exercises import MarkerError, find_differences, make_exercise, split_regions
from _tools.notebook_files import ROOT, normalize, serialize
from nbformat.v4 import new_markdown_cell, new_notebook

FUNCTION = """def twice(x):
    \"\"\"Return twice x.\"\"\"
    # solution
    y = 2 * x
    return y
    # end solution"""


def solved_notebook():
    """A task with reasoning and an experiment that gives the answer away."""
    return normalize(
        new_notebook(
            cells=[
                new_markdown_cell("# Exercises", id="title"),
                small_notebooks.code(1, FUNCTION),
                small_notebooks.code(2, "print('checked')", small_notebooks.printed("checked\n")),
                new_markdown_cell("Because.", id="why", metadata={"tags": ["solution"]}),
                small_notebooks.code(3, "1 + 1", tags=("solution",)),
            ]
        )
    )


@pytest.fixture
def root(tmp_path):
    """A course with one solved notebook and no exercise yet."""
    for folder in ("solutions", "exercises"):
        (tmp_path / folder).mkdir()
    (tmp_path / "solutions" / "one.ipynb").write_text(serialize(solved_notebook()))
    return tmp_path


def test_a_region_becomes_one_line_with_its_indent():
    blanked, solved = split_regions(FUNCTION)
    assert blanked == ('def twice(x):\n    """Return twice x."""\n    ...  # your code here')
    assert solved == 'def twice(x):\n    """Return twice x."""\n    y = 2 * x\n    return y'
    assert split_regions("x = 1") == ("x = 1", "x = 1")


@pytest.mark.parametrize(
    "source",
    [
        "# solution\nx = 1",
        "x = 1\n# end solution",
        "# solution\n# solution\n# end solution",
        "# Solution\nx = 1\n# end solution",
        "# solution:\nx = 1\n# end solution",
        "## solution\nx = 1\n# end solution",
        "# solution\nx = 1\n# end solutions\n# end solution",
        "# solution\nx = 1\n# END SOLUTION",
    ],
)
def test_a_misspelled_marker_is_refused(source):
    with pytest.raises(MarkerError):
        split_regions(source)


def test_solutions_are_left_out_and_ids_kept():
    exercise = make_exercise(solved_notebook())
    assert [cell.id for cell in exercise.cells] == ["title", "code-1", "code-2"]
    assert "2 * x" not in serialize(exercise)
    assert "Because" not in serialize(exercise)
    assert exercise.cells[2].outputs == []


def test_a_solution_cell_cannot_hide_an_unbalanced_region():
    notebook = solved_notebook()
    notebook.cells[1].source = FUNCTION.replace("# end solution", "")
    with pytest.raises(MarkerError, match="cell code-1"):
        make_exercise(notebook)


def test_differences_are_found(root):
    target = root / "exercises" / "one.ipynb"
    assert list(find_differences(root)) == [target]
    wanted = make_exercise(solved_notebook())
    target.write_text(serialize(wanted))
    assert find_differences(root) == {}
    # Outputs are the business of `make refresh`.
    wanted.cells[2].outputs = [small_notebooks.printed("not attempted\n")]
    target.write_text(serialize(wanted))
    assert find_differences(root) == {}
    for spoil in ("source", "id"):
        spoiled = nbformat.from_dict(wanted)
        spoiled.cells[1][spoil] += "x"
        target.write_text(serialize(spoiled))
        assert list(find_differences(root)) == [target]
    target.write_text(serialize(wanted))
    stray = root / "exercises" / "stray.ipynb"
    stray.write_text(serialize(wanted))
    assert find_differences(root) == {stray: None}


def test_check_reports_and_changes_nothing(root, capsys):
    assert exercises.main(["--check"], root) == 1
    assert "exercises/one.ipynb differs from its solution" in capsys.readouterr().out
    assert list((root / "exercises").iterdir()) == []


def test_a_faulty_marker_is_named_with_its_notebook(root, capsys):
    notebook = solved_notebook()
    notebook.cells[1].source = "# solution"
    (root / "solutions" / "one.ipynb").write_text(serialize(notebook))
    assert exercises.main([], root) == 1
    assert "solutions/one.ipynb, cell code-1" in capsys.readouterr().err
    assert exercises.main(["--chekc"], root) == 2


def test_writing_runs_the_notebook_once(root, capsys):
    assert exercises.main([], root) == 0
    stored = nbformat.read(root / "exercises" / "one.ipynb", as_version=4)
    assert stored.cells[2].outputs[0].text == "checked\n"
    before = (root / "exercises" / "one.ipynb").read_bytes()
    (root / "exercises" / "stray.ipynb").write_text(serialize(solved_notebook()))
    assert exercises.main([], root) == 0
    assert "stray.ipynb: removed" in capsys.readouterr().out
    assert (root / "exercises" / "one.ipynb").read_bytes() == before


def test_the_committed_exercises_come_from_the_committed_solutions():
    assert exercises.main(["--check"]) == 0
    assert len(list((ROOT / "exercises").glob("*.ipynb"))) >= 1


def test_the_stored_blank_run_has_no_points():
    for path in sorted((ROOT / "exercises").glob("*.ipynb")):
        cells = nbformat.read(path, as_version=4).cells
        printed = "".join(o.text for c in cells for o in c.get("outputs", []) if "text" in o)
        assert f"\n{path.stem}: 0 of " in printed, path.name
        assert printed.count("(not attempted)") == printed.count(": not attempted yet"), path.name
        assert "(passed)" not in printed
