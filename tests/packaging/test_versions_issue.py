"""The one issue about a set of versions: opened, renewed and closed, by a `gh` that only notes."""

from __future__ import annotations

import json
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from _tools import issue, version_sets
from _tools.version_report import CellDifference, NotebookResult, Report, to_json

ROOT = Path(__file__).resolve().parents[2]
RUN = "https://example.org/run/7"

GH = """\
#!{python}
import json, pathlib, sys
here = pathlib.Path(__file__).parent
arguments = sys.argv[1:]
text = sys.stdin.read() if "--body-file" in arguments else ""
with (here / "log").open("a") as log:
    log.write(json.dumps([arguments, text]) + "\\n")
if arguments[:2] == ["issue", "list"]:
    print((here / "issues").read_text())
"""


def make_report(*diffs: str, key: str = "colab", changed: tuple[str, ...] = ()) -> Report:
    differences = tuple(CellDifference(k, f"c{k}", "print(x)", d) for k, d in enumerate(diffs, 1))
    notebook = NotebookResult("book/bptt.ipynb", 9, 1.0, differences)
    return Report(key, version_sets.SETS[key].title, "Python 3.13.0 on Linux x86_64",
                  {"numpy": "2.1.3"}, (notebook,), changed)  # fmt: skip


@pytest.fixture
def gh(tmp_path, monkeypatch):
    """Put a `gh` first that lists the given issues; return what it was asked to do besides."""
    program = tmp_path / "gh"
    program.write_text(GH.format(python=sys.executable))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")

    def keep(finding, *open_issues):
        listed = [{"number": k, "body": body} for k, body in open_issues]
        (tmp_path / "issues").write_text(json.dumps(listed))
        (tmp_path / "log").unlink(missing_ok=True)
        issue.keep(finding)
        calls = map(json.loads, (tmp_path / "log").read_text().splitlines())
        return [(arguments, text) for arguments, text in calls if arguments[1] != "list"]

    return keep


def about(report):
    return issue.about_versions(report, RUN, {"numpy": "2.4.6"})


def test_the_first_difference_opens_an_issue(gh):
    finding = about(make_report("-0.251\n+0.250"))
    ((arguments, body),) = gh(finding, (3, "something else"))
    assert arguments == ["issue", "create", "--title",
                         "Notebooks show something else on Colab's versions",
                         "--body-file", "-"]  # fmt: skip
    assert "book/bptt.ipynb: 1 of 9 code cells differ" in body
    assert "````diff\n-0.251\n+0.250\n````" in body
    assert "| numpy | 2.1.3 | 2.4.6 |" in body
    assert "make versions SET=colab" in body
    assert RUN in body
    assert body.count("<!-- kept: versions-colab ") == 1


def test_the_same_difference_renews_it_and_tells_nobody(gh):
    before = about(make_report("-0.251\n+0.250")).marked_body
    other = about(make_report("-1\n+2", key="newest")).marked_body
    again = gh(about(make_report("-0.251\n+0.250")), (4, other), (5, before))
    assert [call[0][:3] for call in again] == [["issue", "edit", "5"]]
    news = gh(about(make_report("-0.251\n+0.252")), (4, other), (5, before))
    assert [call[0][:3] for call in news] == [["issue", "edit", "5"], ["issue", "comment", "5"]]


def test_no_difference_closes_it(gh):
    green = about(make_report())
    assert green.body == ""
    before = about(make_report("-0.251\n+0.250")).marked_body
    ((arguments, _),) = gh(green, (5, before))
    assert arguments[:4] == ["issue", "close", "5", "--comment"]
    assert arguments[4] == f"All 1 notebooks show what is stored again. {RUN}"
    assert gh(green, (4, about(make_report("-1\n+2", key="newest")).marked_body)) == []


def test_a_changed_version_alone_is_a_finding():
    finding = about(make_report(changed=("numpy 2.1.3 -> 2.4.6",)))
    assert "Installed versions changed: numpy 2.1.3 -> 2.4.6." in finding.body
    assert finding.digest != about(make_report(changed=("numpy 2.1.3 -> 2.5",))).digest


def test_a_run_that_was_cut_off_closes_nothing():
    report = replace(make_report(), asked=2)
    assert "The run ended after 1 of 2 notebooks." in about(report).body


def test_a_long_text_is_cut_between_lines_and_its_fences_are_closed():
    finding = about(make_report("\n".join(f"+{k:040d}" for k in range(3000))))
    body = finding.marked_body
    assert len(body) < 65_536
    assert len(re.findall(r"^````", body, re.MULTILINE)) % 2 == 0
    assert "The rest is in the report" in body
    assert body.rstrip().endswith("-->")


def test_the_program_reads_the_report(tmp_path, capsys):
    path = tmp_path / "report.json"
    path.write_text(to_json(make_report("-0.251\n+0.250")), encoding="utf-8")
    assert issue.main(["versions", str(path), "--run", RUN, "--show"]) == 0
    assert "+0.250" in capsys.readouterr().out


def test_a_failing_gh_is_not_taken_for_no_issue(tmp_path, monkeypatch, capfd):
    program = tmp_path / "gh"
    program.write_text("#!/bin/sh\necho 'not allowed' >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    with pytest.raises(issue.subprocess.CalledProcessError):
        issue.keep(about(make_report("-1\n+2")))
    assert "not allowed" in capfd.readouterr().err


def test_the_workflow_runs_every_set_with_its_python():
    text = (ROOT / ".github/workflows/versions.yml").read_text(encoding="utf-8")
    job = yaml.safe_load(text)["jobs"]["compare"]
    rows = {row["set"]: row["python"] for row in job["strategy"]["matrix"]["include"]}
    assert rows == {key: chosen.python for key, chosen in version_sets.SETS.items()}
    assert job["strategy"]["fail-fast"] is False
    made = [step["run"] for step in job["steps"] if "run" in step]
    assert sum("colab-images/public/cpu-runtime" in command for command in made) == 1
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in re.findall(r"^make ([\w-]+)", "\n".join(made), re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
    for script in re.findall(r"book/_tools/\w+\.py", text):
        assert (ROOT / script).is_file(), script
