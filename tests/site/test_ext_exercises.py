"""A student notebook becomes a page on which each task is followed by its folded solution."""

import exercise_pages
import nbformat
import pytest
from _tools.exercises import make_exercise
from bs4 import BeautifulSoup
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

FUNCTION = 'def twice(x):\n    # solution\n    return "```" * 2 + x\n    # end solution'


def solved():
    """Two tasks, the second without reasoning, and an experiment after the first."""
    code = {"execution_count": 1}
    hidden = {"tags": ["solution"]}
    kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
    cells = [
        new_markdown_cell("# Exercises\n\n## First", id="a"),
        new_code_cell(FUNCTION, id="b", **code),
        new_code_cell("check(1)", id="c", **code),
        new_markdown_cell(":::{note}\nBecause of $x^2$.\n:::", id="d", metadata=hidden),
        new_code_cell("experiment()", id="e", metadata=hidden, **code),
        new_markdown_cell("## Second", id="f"),
        new_code_cell(FUNCTION.replace("twice", "thrice"), id="g", **code),
        new_markdown_cell("## Third", id="h"),
        new_code_cell("x = 1", id="i", **code),
    ]
    return new_notebook(cells=cells, metadata={"kernelspec": kernel})


def test_solutions_come_after_their_task():
    merged = exercise_pages.merge(make_exercise(solved()), solved())
    texts = [cell.source for cell in merged.cells]
    assert [cell.id for cell in merged.cells] == ["a", "b", "c", "d-box", "e", "f",
                                                  "g", "h-box", "h", "i"]  # fmt: skip
    assert "# your code here" in texts[1]
    assert "solution" not in texts[1]
    assert 'return "```" * 2 + x' in texts[3]
    assert "# solution" not in texts[3]
    assert merged.cells[4].metadata["tags"] == ["hide-cell"]
    assert "def thrice" in texts[7]


@pytest.mark.parametrize(
    ("mark", "text", "expected"),
    [("`", "no", "```"), ("`", "a ```` b", "`````"), (":", ":::{note}\n:::", "::::"),
     (":", "a::b", ":::")],
)  # fmt: skip
def test_a_fence_is_longer_than_what_it_holds(mark, text, expected):
    assert exercise_pages.fence(mark, text) == expected


def test_an_exercise_that_lacks_a_cell_is_refused():
    exercise = make_exercise(solved())
    del exercise.cells[0]
    with pytest.raises(KeyError):
        exercise_pages.merge(exercise, solved())


def build(build_book, exercise, solution):
    files = {
        "index.md": "# Title\n\n```{toctree}\nexercises/one\n```\n",
        "exercises/one.ipynb": exercise,
    }
    if solution is not None:
        files["solutions/one.ipynb"] = nbformat.from_dict(solution)
    pages, problems = build_book(files, "exercise_pages", "folding_boxes")
    # In the course, files outside the table of contents are left out.
    lines = [line for line in problems.splitlines() if "toctree" not in line]
    return BeautifulSoup(pages["exercises/one"], "html.parser"), "\n".join(lines)


def test_the_page_folds_code_and_reasoning(build_book):
    page, problems = build(build_book, make_exercise(solved()), solved())
    boxes = page.select("details.admonition")
    assert [box.find("summary").get_text() for box in boxes] == ["Solution", "Solution"]
    assert "Because of" in boxes[0].get_text()
    assert 'return "```" * 2 + x' in boxes[0].get_text()
    assert "your code here" not in boxes[0].get_text()
    assert page.select_one("details.hidden-cell")
    assert "your code here" in page.get_text()
    assert [line for line in problems.splitlines() if "one.ipynb" not in line] == []


def test_a_page_that_is_out_of_date_is_a_warning(build_book):
    changed = solved()
    changed.cells[0].id = "other"
    _, problems = build(build_book, make_exercise(solved()), changed)
    assert "differs from its solution: run `make exercises`" in problems


def test_a_page_without_solutions_is_a_warning(build_book):
    _, problems = build(build_book, make_exercise(solved()), None)
    assert "has no solved notebook" in problems
