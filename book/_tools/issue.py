"""Keep one issue about one thing: open it, bring it up to date, close it when the thing is mended.

    python book/_tools/issue.py versions _build/versions/colab/report.json --run ADDRESS
    python book/_tools/issue.py links _build/links/report.json --run ADDRESS

The scheduled workflows call this, with GitHub's own program `gh`, which finds the repository and
the right to write in the environment. What an issue says is made here and tested; the workflow's
YAML holds no text. An issue is found again by a mark in its body that no reader sees.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools.version_report import Report, describe_notebook, from_json, locked_versions, to_markdown

LONGEST = 60_000
"""GitHub takes 65,536 characters in a body; some are left for the mark and the link."""


@dataclass(frozen=True)
class Finding:
    """What an issue is to say.

    Fields:
        key: what it is about, such as "versions-colab"; there is one open issue for each.
        title: of the issue.
        body: its text; empty if there is nothing to report.
        mended: what is said when it is closed.
        state: what has to change before anybody is told again, such as the differing cells.
    """

    key: str
    title: str
    body: str
    mended: str
    state: str = ""

    @property
    def mark(self) -> str:
        """The part of the mark that finds the issue."""
        return f"<!-- kept: {self.key} "

    @property
    def marked_body(self) -> str:
        """The body, not too long, with its mark."""
        body = self.body
        if len(body) > LONGEST:
            cut = body[:LONGEST].rsplit("\n", 1)[0]
            fences = re.findall(r"^(`{3,})", cut, re.MULTILINE)
            closing = f"\n{fences[-1]}" if len(fences) % 2 else ""
            body = f"{cut}{closing}\n\nThe rest is in the report that is attached to the run."
        return f"{body}\n\n{self.mark}{self.digest} -->\n"

    @property
    def digest(self) -> str:
        """The state, in few letters."""
        return hashlib.sha256(self.state.encode()).hexdigest()[:12]


def gh(*arguments: str, text: str | None = None) -> str:
    """Run `gh` and return what it prints; raise CalledProcessError if it fails."""
    done = subprocess.run(["gh", *arguments], input=text, capture_output=True, text=True)
    if done.returncode:
        sys.stderr.write(done.stderr)
        done.check_returncode()
    return done.stdout


def keep(finding: Finding) -> str:
    """Open, edit or close the issue about `finding`, and return what was done."""
    asked = ["issue", "list", "--state", "open", "--limit", "500", "--json", "number,body"]
    issues = json.loads(gh(*asked) or "[]")
    number, was = next(
        ((str(i["number"]), i["body"]) for i in issues if finding.mark in i["body"]), (None, "")
    )
    if not finding.body:
        if number is None:
            return "nothing to report, and no issue is open"
        gh("issue", "close", number, "--comment", finding.mended)
        return f"closed issue {number}"
    written = ["--title", finding.title, "--body-file", "-"]
    if number is None:
        gh("issue", "create", *written, text=finding.marked_body)
        return "opened an issue"
    gh("issue", "edit", number, *written, text=finding.marked_body)
    if f"{finding.mark}{finding.digest} " not in was:
        # An edited body tells nobody: say it where subscribers see it, and only if it is news.
        gh("issue", "comment", number, "--body", "What differs has changed; see above.")
    return f"brought issue {number} up to date"


def about_versions(report: Report, run: str, locked: dict[str, str]) -> Finding:
    """Return what the issue about one set of versions is to say, with a link to the run."""
    # The differing cells first: they are what somebody has to mend.
    differing = [result for result in report.notebooks if not result.is_same]
    cells = [f"{r.notebook} {d.cell_id} {d.diff}" for r in differing for d in r.differences]
    failures = [f"{r.notebook} {r.failure}" for r in differing if r.failure]
    body = ""
    if not report.is_same:
        table, _, _ = to_markdown(report, locked).partition("\n## ")
        details = [line for result in differing for line in describe_notebook(result)]
        how = (
            f"To see it at a desk: `make versions SET={report.key}`. Nothing is excused: print "
            "fewer digits, compute in float64, or take fewer steps (*Tolerances* in "
            "`CONTRIBUTING.md`). Each run renews this text, and the first one without a difference "
            "closes the issue."
        )
        seen = f"Seen in {run}." if run else ""
        body = "\n".join([table.partition("\n")[2].strip(), "", *details, how, "", seen]).rstrip()
    return Finding(
        key=f"versions-{report.key}",
        title=f"Notebooks show something else on {report.title}",
        body=body,
        mended=f"All {len(report.notebooks)} notebooks show what is stored again. {run}".rstrip(),
        state="\n".join([*cells, *failures, *report.changed]),
    )


def about_links(answers: list[dict], run: str) -> Finding:
    """Return what the issue about addresses outside of the course is to say."""
    from _tools.outside_links import DEAD, Answer, to_markdown  # more than Colab's image has

    read = [Answer(**answer) for answer in answers]
    listed = to_markdown(read)
    how = "To ask again at a desk: `make links`. The first run without a dead address closes this."
    seen = f"Seen in {run}." if run else ""
    return Finding(
        key="links",
        title="Links that lead nowhere",
        body="\n\n".join(filter(None, [listed, how, seen])) if listed else "",
        mended=f"None of {len(read)} addresses is dead. {run}".rstrip(),
        state="\n".join(answer.address for answer in read if answer.state == DEAD),
    )


def main(arguments: list[str]) -> int:
    """Keep the issue about a report of versions or of links."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("about", choices=["versions", "links"])
    parser.add_argument("report", type=Path, help="report.json of the tool that found it")
    parser.add_argument("--run", default="", help="the address of the run that wrote it")
    parser.add_argument("--show", action="store_true", help="print the issue; ask nobody")
    given = parser.parse_args(arguments)
    text = given.report.read_text(encoding="utf-8")
    if given.about == "links":
        finding = about_links(json.loads(text), given.run)
    else:
        finding = about_versions(from_json(text), given.run, locked_versions())
    if given.show:
        print(f"{finding.title}\n\n{finding.marked_body}" if finding.body else finding.mended)
    else:
        print(keep(finding))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
