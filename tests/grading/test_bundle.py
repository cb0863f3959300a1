"""The bundle for Gradescope: what is in it installs, and what it runs grades."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile

import pytest
from submission_files import FOLDER, read_annotated
from toy_command import use_toy_tasks

from course_lib.grading import autograder, command, gradescope, run
from course_lib.grading.errors import GradingError


@pytest.fixture
def bundle(tmp_path):
    path = tmp_path / "bundle.zip"
    given = ["bundle", "--assignment", "chain_rule", "--seed", "s e c r e t", "--out", str(path)]
    assert command.main(given) == 0
    return path


def test_the_bundle_is_what_gradescope_takes(bundle):
    assert stat.S_IMODE(bundle.stat().st_mode) == 0o600, "it holds the seed"
    with zipfile.ZipFile(bundle) as archive:
        names = archive.namelist()
        assert {"setup.sh", "run_autograder", "seed.txt"} < set(names)
        modes = {i.filename: stat.S_IMODE(i.external_attr >> 16) for i in archive.infolist()}
        assert modes["run_autograder"] == modes["setup.sh"] == 0o755
        assert modes["seed.txt"] == 0o600
        assert archive.read("seed.txt") == b"s e c r e t\n"
        script = archive.read("run_autograder").decode()
        assert "--assignment chain_rule" in script
        assert "s e c r e t" not in script + archive.read("setup.sh").decode()
        for name in ("setup.sh", "run_autograder"):
            done = subprocess.run(["sh", "-n"], input=archive.read(name), capture_output=True)
            assert done.returncode == 0, done.stderr


def test_the_same_bundle_comes_out_again_and_none_is_overwritten(bundle, tmp_path):
    again = tmp_path / "again.zip"
    gradescope.write_bundle(again, "chain_rule", "s e c r e t")
    assert again.read_bytes() == bundle.read_bytes()
    with pytest.raises(GradingError, match="is there already"):
        gradescope.write_bundle(again, "chain_rule", "other")


def test_the_wheel_in_it_is_a_wheel_of_this_course(tmp_path):
    name, data = gradescope.build_wheel()
    (tmp_path / name).write_bytes(data)
    place = tmp_path / "site"
    command_line = [sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--quiet",
                    "--target", str(place), str(tmp_path / name)]  # fmt: skip
    subprocess.run(command_line, check=True, capture_output=True)
    assert (place / "course_lib" / "grading" / "Containerfile").exists()
    assert (place / "course_lib" / "checks" / "tasks" / "chain_rule.py").exists()
    code = "import course_lib.grading.command as c; print(c.__file__); c.main(['containerfile'])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True,
                          env=os.environ | {"PYTHONPATH": str(place)}, cwd=tmp_path)  # fmt: skip
    assert str(place) in done.stdout
    assert "FROM docker.io/library/python" in done.stdout


@pytest.fixture
def handed_in(tmp_path, monkeypatch):
    use_toy_tasks(monkeypatch.setattr)
    place = tmp_path / "submission"
    place.mkdir()
    (place / "work.ipynb").write_bytes(read_annotated(FOLDER / "half_done.py").data)
    (place / "notes.pdf").write_bytes(b"%PDF-1.7")
    return ["autograde", str(place), "--assignment", "toy", "--seed", "x y z",
            "--out", str(tmp_path / "results.json")]  # fmt: skip


def check_results(tmp_path):
    made = json.loads((tmp_path / "results.json").read_bytes())
    assert made["score"] == 1
    assert [test["status"] for test in made["tests"]] == ["passed", "failed"]


def test_one_submission_is_graded_in_the_sandbox(handed_in, tmp_path):
    if shutil.which("bwrap") is None and not os.environ.get("CI"):
        pytest.skip("bubblewrap is not installed")
    assert command.main(handed_in) == 0
    check_results(tmp_path)


def test_without_a_sandbox_it_is_graded_only_if_that_is_said(handed_in, tmp_path, monkeypatch):
    def refuse():
        raise GradingError("There is no sandbox.")

    monkeypatch.setattr(run, "find_bubblewrap", refuse)
    assert command.main(handed_in) == 2
    assert not (tmp_path / "results.json").exists()
    assert command.main([*handed_in, "--sandbox-if-possible"]) == 0
    check_results(tmp_path)


def test_an_unknown_assignment_is_refused(tmp_path, capsys):
    given = ["--assignment", "nothing", "--seed", "x", "--out", str(tmp_path / "b.zip")]
    assert command.main(["bundle", *given]) == 2
    assert "There is no assignment 'nothing'" in capsys.readouterr().err
    with pytest.raises(GradingError):
        autograder.make_bundle(given)
