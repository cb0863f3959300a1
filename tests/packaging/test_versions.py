"""compare_versions.py finds what another environment shows otherwise, and only that."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import sysconfig
from dataclasses import replace
from pathlib import Path

import nbformat
import pytest
from _tools import colab, compare_versions, version_report, version_sets
from _tools.version_report import CellDifference, NotebookResult, Report
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output
from PIL import Image

INTRUDE = """\
import pathlib, sysconfig
place = pathlib.Path(sysconfig.get_path("purelib"), "intruder-1.0.dist-info")
place.mkdir()
_ = (place / "METADATA").write_text("Metadata-Version: 2.1\\nName: intruder\\nVersion: 1.0\\n")"""
WHERE = "import course_lib, pathlib\nprint(pathlib.Path(course_lib.__file__).parents[1].name)"
DRAW = """\
import io
from PIL import Image
buffer = io.BytesIO()
Image.new("RGB", (20, 20), "red").save(buffer, format="png")
display({"image/png": buffer.getvalue(), "text/plain": "A square."}, raw=True)"""


def square(color):
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), color).save(buffer, format="png")
    data = {"image/png": base64.b64encode(buffer.getvalue()).decode(), "text/plain": "A square."}
    return new_output("display_data", data)


def said(text, name="stdout"):
    return new_output("stream", name=name, text=text)


CELLS = {
    "same": ("print('0.250')", [said("0.250\n")]),
    "digit": ("print('0.250')", [said("0.251\n")]),
    "silent": ("x = 1", []),
    "warns": ("import warnings\nwarnings.warn('old')", []),
    "raises": ("1 / 0", []),
    "after": ("print(x)", [said("1\n")]),
    "red": (DRAW, [square("red")]),
    "blue": (DRAW, [square("blue")]),
    "wheel": (WHERE, [said("site\n")]),
    "empty-folder": ("import os\nprint(os.listdir())", [said("['tiny.ipynb']\n")]),
    "intrudes": (INTRUDE, []),
}


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    """Return the Python of an environment of its own that finds this one's packages."""
    folder = tmp_path_factory.mktemp("other") / "env"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    ask = [python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    place = subprocess.run(ask, capture_output=True, text=True, check=True).stdout.strip()
    Path(place, "ours.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return python


@pytest.fixture(scope="module")
def run(environment, tmp_path_factory):
    """Run the tool as a program on a notebook in which each cell has its own fault."""
    path = tmp_path_factory.mktemp("stored") / "tiny.ipynb"
    cells = [
        new_code_cell(source, id=name, execution_count=k, outputs=outputs)
        for k, (name, (source, outputs)) in enumerate(CELLS.items(), start=1)
    ]
    nbformat.write(new_notebook(cells=[new_markdown_cell("# Tiny", id="title"), *cells]), path)
    before = path.read_bytes()
    out = tmp_path_factory.mktemp("out")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compare_versions, "OUT", out)
        status = compare_versions.main(["--python", str(environment), "--name", "tiny", str(path)])
    assert path.read_bytes() == before
    report = version_report.from_json((out / "tiny" / "report.json").read_text(encoding="utf-8"))
    return status, report, (out / "tiny" / "report.md").read_text(encoding="utf-8")


def test_only_cells_with_other_words_are_named(run):
    status, report, _ = run
    (result,) = report.notebooks
    assert status == 1
    assert [d.cell_id for d in result.differences] == ["digit", "warns", "raises"]
    assert result.cells == len(CELLS)
    assert result.failure == ""
    digit, warns, raises = result.differences
    assert "-0.251\n+0.250" in digit.diff
    assert "[stderr]" in warns.diff
    assert "UserWarning: old" in warns.diff
    assert "+ZeroDivisionError: division by zero" in raises.diff


def test_a_picture_is_told_and_not_counted(run):
    (result,) = run[1].notebooks
    assert result.pictures_drawn == 2
    (sentence,) = result.pictures
    assert "(id `blue`)" in sentence


def test_a_version_that_appears_is_a_change(run):
    assert run[1].changed == ("intruder None -> 1.0",)
    assert "Installed versions changed: intruder None -> 1.0." in run[2]


def test_the_report_names_versions_and_cells(run):
    _, report, text = run
    assert set(report.versions) == set(version_report.SHOWN)
    assert f"| numpy | {report.versions['numpy']} | " in text
    assert "3 of 11 code cells differ" in text
    assert "Cell 2 (id `digit`)" in text


def test_a_missing_notebook_and_a_missing_python_are_said(tmp_path, capsys):
    assert compare_versions.main(["--python", sys.executable, str(tmp_path / "no.ipynb")]) == 2
    with pytest.raises(ValueError, match=r"`python` \(='/no/such'\) must be a Python that runs"):
        compare_versions.ask("/no/such")
    assert "No such notebook" in capsys.readouterr().err


def test_words_are_compared_in_every_form_and_order():
    def words(*outputs):
        return compare_versions.words_of([nbformat.from_dict(o) for o in outputs])

    assert words(said("a"), said("b")) == words(said("ab"))
    assert words(said("a"), said("a", "stderr")) != words(said("a", "stderr"), said("a"))
    assert words(said("a")) != words(said("a\n"))
    html = [new_output("display_data", {"text/html": t, "text/plain": "t"}) for t in "ab"]
    assert words(html[0]) != words(html[1])
    assert words(square("red")) == words(square("blue")) != []


GREEN = Report(
    key="colab",
    title="Colab's versions",
    python="Python 3.13.0 on Linux x86_64",
    versions={"numpy": "2.1.3"},
    notebooks=(NotebookResult("book/a.ipynb", 3, 1.5, pictures_drawn=2),),
)
RED = replace(
    GREEN,
    notebooks=(
        *GREEN.notebooks,
        NotebookResult("book/b.ipynb", 2, 1.0, (CellDifference(1, "c1", "x", "-1\n+2"),)),
        NotebookResult("book/d.ipynb", 2, 1.0, failure="cell 2 (id c2): DeadKernelError"),
    ),
)


def test_a_report_survives_the_file():
    for report in (GREEN, RED):
        assert version_report.from_json(version_report.to_json(report)) == report


def test_what_counts_as_the_same():
    assert GREEN.is_same
    assert not RED.is_same
    assert not replace(GREEN, changed=("numpy 2.1.3 -> 2.4",)).is_same
    assert "1 of 3 notebooks show the words" in RED.summary()
    assert "0 of 2 pictures look different" in GREEN.summary()
    assert "2 pictures were drawn and not compared" in replace(GREEN, looked=False).summary()
    cut_off = replace(GREEN, asked=2)
    assert not cut_off.is_same
    assert cut_off.summary().startswith("The run ended after 1 of 2 notebooks.")
    assert "d.ipynb: cell 2 (id c2): DeadKernelError" in version_report.to_markdown(RED, {})


# The sets ----------------------------------------------------------------------------------------


def test_the_lower_bounds_are_those_of_pyproject():
    declared = version_sets.declared()
    lowest = version_sets.requirements_of("lowest")
    assert lowest == [line.replace(">=", "==") for line in declared]
    assert {"numpy", "torch", "tensorflow", "keras", "pytest"} <= {
        line.split("==")[0] for line in lowest
    }
    assert version_sets.requirements_of("newest") == [line.split("==")[0] for line in lowest]


def test_colabs_set_is_pinned_and_the_rest_is_free():
    wanted = version_sets.requirements_of("colab")
    pins = dict(line.split("==") for line in wanted if "==" in line)
    assert pins == version_sets.COLAB
    assert {line.split("==")[0] for line in version_sets.requirements_of("lowest")} <= {
        line.split("==")[0] for line in wanted
    }


@pytest.mark.parametrize("requirement", ["numpy", "numpy>=2,<3", "numpy==2", "numpy~=2.0"])
def test_anything_but_a_lower_bound_is_refused(requirement):
    with pytest.raises(ValueError, match=r"`requirement` .* must be a name and a lower bound"):
        version_sets.name_and_bound(requirement)


def test_an_environment_is_made_once_from_one_list(tmp_path, monkeypatch):
    """The newest releases are asked for once a day; a pinned set is used again."""
    base = tmp_path / "base"
    made = '#!/bin/sh\\necho "$@" >> "$(dirname "$0")/../../log"\\n'
    base.write_text(
        f'#!/bin/sh\nmkdir -p "$4/bin"\nprintf \'{made}\' > "$4/bin/python"\n'
        'chmod +x "$4/bin/python"\necho venv >> "$4/../log"\n'
    )
    base.chmod(0o755)
    monkeypatch.setenv("PYTHON_UNDER_TEST", str(base))
    days = ("2026-08-01", "2026-08-01", "2026-08-02")
    for name, times in (("lowest", 1), ("newest", 2)):
        folder = tmp_path / name / "env"
        for day in days:
            monkeypatch.setattr(version_sets, "today", lambda day=day: day)
            python = version_sets.make_environment(name, folder)
            assert python == folder / "bin" / "python"
        log = (tmp_path / name / "log").read_text().splitlines()
        assert log.count("venv") == times
        installs = [line for line in log if " install " in line]
        assert len(installs) == times
        assert all(line.endswith(version_sets.requirements_of(name)[-1]) for line in installs)
    monkeypatch.setenv("PYTHON_UNDER_TEST", "/no/such/python")
    with pytest.raises(ValueError, match=r"`PYTHON_UNDER_TEST` \(='/no/such/python'\) must be"):
        version_sets.make_environment("newest", tmp_path / "none")


# A GPU in Colab -----------------------------------------------------------------------------------


def test_the_first_cell_keeps_float32_whole_on_a_gpu():
    """Unless the reader has decided otherwise; before any framework is loaded."""
    notebook = nbformat.read(version_sets.ROOT / "book/chain_rule.ipynb", as_version=4)
    copy = colab.make_copy(notebook, path="book/chain_rule.ipynb", repository=None)
    cell = next(c for c in copy.cells if c.get("id") == "install")
    told = cell.source + "\nimport os; print('TF32', os.environ['NVIDIA_TF32_OVERRIDE'])"
    for given, expected in (({}, "0"), ({"NVIDIA_TF32_OVERRIDE": "1"}, "1")):
        kept = {n: v for n, v in os.environ.items() if n != "NVIDIA_TF32_OVERRIDE"} | given
        command = [sys.executable, "-c", told]
        done = subprocess.run(command, capture_output=True, text=True, env=kept)
        assert f"TF32 {expected}" in done.stdout, done.stderr
