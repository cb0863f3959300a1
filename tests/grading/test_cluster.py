"""The same class on a scheduler with workers in other processes: the same bytes."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path

import pytest
from submission_files import FOLDER, read_annotated
from toy_command import use_toy_tasks

from course_lib.grading import cluster, command

distributed = pytest.importorskip("distributed")
pytestmark = pytest.mark.filterwarnings("ignore")  # dask and tornado, about themselves
HERE = Path(__file__).parent


@pytest.fixture
def scheduler(tmp_path, monkeypatch):
    """The address of a local cluster of two processes, which know the toy tasks too."""
    if shutil.which("bwrap") is None and not os.environ.get("CI"):
        pytest.skip("bubblewrap is not installed")
    monkeypatch.setenv("PYTHONPATH", f"{HERE}{os.pathsep}{HERE.parents[1]}")
    monkeypatch.setattr(sys, "path", [str(HERE), str(HERE.parents[1]), *sys.path])
    preload = HERE / "toy_command.py"
    text = preload.read_text(encoding="utf-8").split("if __name__")[0] + "use_toy_tasks()\n"
    (tmp_path / "toy_preload.py").write_text(text, encoding="utf-8")
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, processes=True,
            preload=str(tmp_path / "toy_preload.py"), local_directory=str(tmp_path / "dask"),
        ) as made,
    ):  # fmt: skip
        yield made.scheduler_address


def contents(out):
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "lock"
    }


def test_a_cluster_gives_the_same_bytes(scheduler, tmp_path, monkeypatch):
    use_toy_tasks(monkeypatch.setattr)
    place = tmp_path / "class"
    place.mkdir()
    for name in ("honest", "half_done", "truncated", "exit_in_function", "recursion_through_c"):
        (place / f"{name}.ipynb").write_bytes(read_annotated(FOLDER / f"{name}.py").data)
    shutil.copy(place / "honest.ipynb", place / "again.ipynb")
    (place / "link.ipynb").symlink_to(place / "honest.ipynb")
    given = [str(place), "--seed", "a long secret", "--assignment", "toy"]
    assert command.main([*given, "--out", str(tmp_path / "here"), "--jobs", "1"]) == 0
    assert command.main([*given, "--out", str(tmp_path / "there"), "--dask", scheduler]) == 0
    assert contents(tmp_path / "here") == contents(tmp_path / "there")


def test_no_scheduler_is_said_in_a_sentence(tmp_path, monkeypatch, capsys):
    use_toy_tasks(monkeypatch.setattr)
    monkeypatch.setattr(cluster, "WAIT_SECONDS", 0.5)
    (tmp_path / "class").mkdir()
    honest = read_annotated(FOLDER / "honest.py").data
    (tmp_path / "class" / "a.ipynb").write_bytes(honest)
    given = [str(tmp_path / "class"), "--seed", "x y z", "--assignment", "toy"]
    given += ["--out", str(tmp_path / "out"), "--dask", "tcp://127.0.0.1:9"]
    assert command.main(given) == 2
    assert "No scheduler answers at tcp://127.0.0.1:9" in capsys.readouterr().err
