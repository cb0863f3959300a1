"""The teaching guide says what the command does: its options exist, and its outputs are named."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from course_lib.grading import autograder, command, run

ROOT = Path(__file__).resolve().parents[2]
GUIDE = (ROOT / "book" / "teaching_guide.md").read_text(encoding="utf-8")


def help_of(capsys, function, *arguments):
    with pytest.raises(SystemExit):
        function(arguments)
    return capsys.readouterr().out


def test_every_option_that_is_named_exists(capsys):
    known = command.build_parser().format_help()
    for function in (autograder.make_bundle, autograder.print_containerfile):
        known += help_of(capsys, function, "--help")
    options = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", GUIDE))
    assert len(options) > 8
    assert not [option for option in options if option not in known]


def test_every_output_is_described():
    for name in (*run.OUTPUTS, "feedback/", "gradescope/"):
        assert f"`{name}`" in GUIDE, name


def test_the_help_names_the_way_out_and_the_exit_status():
    text = " ".join(command.build_parser().format_help().split())
    assert "WITHOUT a sandbox" in text
    assert "Exit status: 0 graded, 2 refused" in text
