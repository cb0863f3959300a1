"""What a run of the notebooks on other versions found: as data, as Markdown, as JSON."""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

SHOWN = (
    "numpy", "scipy", "scikit-learn", "matplotlib", "torch", "tensorflow", "keras", "ipykernel",
)  # fmt: skip
"""The packages that a report names, with the versions that the stored outputs come from."""

FENCE = "````"  # longer than any that a notebook prints


@dataclass(frozen=True)
class CellDifference:
    """One code cell, counted from 1, that shows other words than are stored."""

    cell: int
    cell_id: str
    source: str  # its first line
    diff: str


@dataclass(frozen=True)
class NotebookResult:
    """One notebook's run. `failure` says why it ended early; `pictures` which look different."""

    notebook: str
    cells: int
    seconds: float
    differences: tuple[CellDifference, ...] = ()
    pictures: tuple[str, ...] = ()
    pictures_drawn: int = 0
    failure: str = ""

    @property
    def is_same(self) -> bool:
        """Whether every cell ran and showed the stored words."""
        return not self.differences and not self.failure

    def sentence(self) -> str:
        """One line for the terminal and for a heading."""
        if self.is_same:
            return f"{self.notebook}: all {self.cells} code cells show what is stored"
        found = f"{len(self.differences)} of {self.cells} code cells differ"
        return f"{self.notebook}: {self.failure or found}"


@dataclass(frozen=True)
class Report:
    """All notebooks on one set of versions.

    Fields:
        key, title: the set's short name, such as "colab", and its name in a sentence.
        python: version and system.
        versions: what is installed there, of `SHOWN`.
        notebooks: in the order they were run.
        changed: a line for each installed version that is another after the run.
        asked: how many notebooks were to be run; a run that was cut off has fewer.
        looked: whether pictures were compared.
    """

    key: str
    title: str
    python: str
    versions: dict[str, str]
    notebooks: tuple[NotebookResult, ...]
    changed: tuple[str, ...] = ()
    asked: int = 0
    looked: bool = True

    @property
    def is_same(self) -> bool:
        """Whether the words of all notebooks hold on this set, and the set is as it was."""
        whole = len(self.notebooks) >= self.asked
        return whole and not self.changed and all(result.is_same for result in self.notebooks)

    def summary(self) -> str:
        """How much of it is the same, in sentences."""
        same = sum(result.is_same for result in self.notebooks)
        cells = sum(len(result.differences) for result in self.notebooks)
        drawn = sum(result.pictures_drawn for result in self.notebooks)
        other = sum(len(result.pictures) for result in self.notebooks)
        lines = [
            f"{same} of {len(self.notebooks)} notebooks show the words that are stored; "
            f"{cells} code cells differ.",
            f"{other} of {drawn} pictures look different; they are told, not counted."
            if self.looked else
            f"{drawn} pictures were drawn and not compared: another matplotlib draws them "
            "otherwise. What a picture says is compared as words.",
            "No installed version changed." if not self.changed else
            "Installed versions changed: " + "; ".join(self.changed) + ".",
        ]  # fmt: skip
        if len(self.notebooks) < self.asked:
            lines.insert(0, f"The run ended after {len(self.notebooks)} of {self.asked} notebooks.")
        return "\n".join(lines)


def locked_versions(root: Path = ROOT) -> dict[str, str]:
    """The pins of `requirements.lock`, by name: what the stored outputs were computed with."""
    text = (root / "requirements.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([\w.-]+)==([\w.+]+)", text, re.MULTILINE))


def describe_notebook(result: NotebookResult) -> list[str]:
    """The lines on one notebook that differs."""
    lines = [f"## {result.sentence()}", ""]
    for found in result.differences:
        lines += [f"Cell {found.cell} (id `{found.cell_id}`), which begins `{found.source}`:", "",
                  f"{FENCE}diff", found.diff, FENCE, ""]  # fmt: skip
    return lines


def to_markdown(report: Report, locked: dict[str, str]) -> str:
    """The report as a person reads it: versions, summary, every differing cell, pictures."""
    lines = [f"# The notebooks on {report.title}", "", f"{report.python}.", "",
             "| package | here | stored with |", "|---|---|---|"]  # fmt: skip
    lines += [f"| {name} | {version} | {locked.get(name, '')} |"
              for name, version in report.versions.items()]  # fmt: skip
    lines += ["", report.summary(), ""]
    for result in report.notebooks:
        if not result.is_same:
            lines += describe_notebook(result)
    pictures = [sentence for result in report.notebooks for sentence in result.pictures]
    if pictures:
        lines += ["## Pictures that look different", "", *(f"- {p}" for p in pictures), ""]
    lines += ["## Time", "", "| notebook | seconds |", "|---|---|"]
    lines += [f"| {r.notebook} | {r.seconds:.0f} |" for r in report.notebooks]
    return "\n".join(lines) + "\n"


def to_json(report: Report) -> str:
    """The report as data, for `from_json`."""
    return json.dumps(asdict(report), indent=1, ensure_ascii=False) + "\n"


def from_json(text: str) -> Report:
    """The report that `to_json` wrote."""
    data = json.loads(text)
    results = [
        NotebookResult(
            **{**result, "differences": tuple(CellDifference(**d) for d in result["differences"]),
               "pictures": tuple(result["pictures"])}
        )
        for result in data["notebooks"]
    ]  # fmt: skip
    known = {field.name for field in fields(Report)}
    data = {name: value for name, value in data.items() if name in known}
    return Report(**{**data, "notebooks": tuple(results), "changed": tuple(data["changed"])})
