"""The pages: one for each submission, for the student, and the summary, for the teacher.

Plain HTML with no script and nothing from elsewhere. Whatever a student wrote is escaped.
"""

from __future__ import annotations

import html
import re
from collections import Counter
from collections.abc import Sequence

from course_lib.grading.gradebook import NOTHING, SEVERAL, UNMATCHED, Row, say_number
from course_lib.grading.pictures import draw_bars

STYLE = """
:root { color-scheme: light dark; --ink: #1b1f24; --paper: #ffffff; --rule: #8a939c;
  --good: #116329; --bad: #a40e26; --bar: #2a6db0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ec; --paper: #14181d; --rule: #6e7781;
  --good: #6fdd8b; --bad: #ff9aa5; --bar: #7cb7f2; } }
body { background: var(--paper); color: var(--ink); font: 1rem/1.5 system-ui, sans-serif;
  margin: 0 auto; max-width: 54rem; padding: 1rem; overflow-wrap: anywhere; }
table { border-collapse: collapse; width: 100%; }
caption { text-align: start; padding: .5rem 0; }
th, td { border-bottom: 1px solid var(--rule); padding: .5rem; text-align: start;
  vertical-align: top; }
thead th, td.points { overflow-wrap: normal; }
td.points { white-space: nowrap; }
.good { color: var(--good); } .bad { color: var(--bad); }
figure { margin: 1rem 0; } svg { max-width: 100%; height: auto; }
svg text { fill: var(--ink); font: 13px system-ui, sans-serif; }
svg rect { fill: var(--bar); } svg line { stroke: var(--rule); }
code { font: .95em ui-monospace, monospace; }
"""
WORDS = {
    "passed": "Passed", "unattempted": "Not attempted", "failed": "Not yet", "error": "Stopped",
    "timeout": "Out of time", "invalid": "Not readable",
}  # fmt: skip


def say(text: object) -> str:
    """Return text for a page: escaped, and what stands between backticks as code.

    Characters that cannot be seen are replaced: some of them turn the reading direction around.
    """
    seen = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in str(text))
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", html.escape(seen))


def make_page(title: str, body: str) -> bytes:
    """Return a whole page."""
    safe = html.escape(title)
    return (
        f'<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; "
        "style-src 'unsafe-inline'\">\n"
        f"<title>{safe}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        f"<h1>{safe}</h1>\n{body}</main>\n</body>\n</html>\n"
    ).encode("utf-8", "replace")


def make_feedback(name: str, result: dict) -> bytes:
    """Return the page of one submission, for whoever handed it in."""
    points = f"{say_number(result['points'])} of {say_number(result['max_points'])} points"
    parts = [f"<p>File: {say(name)}</p>\n<p><strong>{points}</strong></p>\n"]
    if result["problem"]:
        parts.append(f'<p class="bad"><strong>Not graded.</strong> {say(result["problem"])}</p>\n')
    else:
        parts.append(
            "<table>\n<caption>What each task led to. The inputs are not those of the check in "
            'the notebook.</caption>\n<thead><tr><th scope="col">Task</th>'
            '<th scope="col">Result</th><th scope="col">Points</th></tr></thead>\n<tbody>\n'
        )
        parts += [_task_line(task) for task in result["tasks"]]
        parts.append("</tbody>\n</table>\n")
    if result["notes"]:
        lines = "".join(f"<li>{say(note)}</li>\n" for note in result["notes"])
        parts.append(f"<h2>What happened on the way</h2>\n<ul>\n{lines}</ul>\n")
    return make_page(f"Feedback: {result['assignment']}", "".join(parts))


def _task_line(task: dict) -> str:
    passed = task["status"] == "passed"
    word = WORDS.get(task["status"], task["status"])
    text = "" if passed else f"<br>{say(task['message'])}"
    advice = f"<br>{say(task['advice'])}" if task["advice"] else ""
    mark, kind = ("✓", "good") if passed else ("✗", "bad")
    points = f"{say_number(task['points'])} of {say_number(task['max_points'])}"
    return (
        f'<tr><th scope="row">{say(task["title"])}</th>'
        f'<td><strong class="{kind}"><span aria-hidden="true">{mark} </span>{word}</strong>'
        f'{text}{advice}</td><td class="points">{points}</td></tr>\n'
    )


def make_summary(
    assignment: str, rows: Sequence[Row], tasks: Sequence[dict], identical: Sequence[Sequence[str]]
) -> bytes:
    """Return the teacher's page: scores, hardest tasks, misconceptions, and what needs a look.

    Arguments:
        tasks: id, title and max_points of each task.
        identical: groups of files with the same content.
    """
    results = [row.result for row in rows if row.result is not None]
    most = sum(task["max_points"] for task in tasks)
    parts = [_overview(rows, results, most)]
    if results:
        parts.append("<h2>Scores</h2>\n" + _scores(results, most))
        parts.append("<h2>Hardest tasks</h2>\n" + _hardest(results, tasks))
        parts.append("<h2>Commonest misconceptions</h2>\n" + _misconceptions(results))
    parts.append(_attention(rows, identical))
    return make_page(f"Summary: {assignment}", "".join(parts))


def _overview(rows: Sequence[Row], results: Sequence[dict], most: float) -> str:
    absent = sum(row.result is None for row in rows)
    said = f"{len(results)} submissions"
    if bad := sum(bool(result["problem"]) for result in results):
        said += f", of which {bad} cannot be graded and count 0 points"
    if results:
        points = sorted(result["points"] for result in results)
        middle = len(points) // 2
        median = points[middle] if len(points) % 2 else (points[middle - 1] + points[middle]) / 2
        mean = sum(points) / len(points)
        said += (
            f"; the mean is {mean:.1f} and the median {say_number(median)} of "
            f"{say_number(most)} points"
        )
    if absent:
        said += f". {absent} students of the roster have handed in nothing"
    return f"<p>{said}.</p>\n"


def _scores(results: Sequence[dict], most: float) -> str:
    bins = [0] * 10
    for result in results:
        bins[min(9, int(10 * result["points"] / most))] += 1
    labels = [f"{10 * k} to {10 * k + 10} %" for k in range(10)]
    top = max(range(10), key=lambda k: bins[k])
    share = f"{bins[top]} of {len(results)} submissions"
    finding = f"The commonest score, in {share}, is {labels[top]}."
    return draw_bars(finding, list(zip(labels, bins, strict=True)), bins[top])


def _hardest(results: Sequence[dict], tasks: Sequence[dict]) -> str:
    passed = Counter(t["id"] for r in results for t in r["tasks"] if t["status"] == "passed")
    order = sorted(tasks, key=lambda task: (passed[task["id"]], task["id"]))
    bars = [(task["title"], passed[task["id"]]) for task in order]
    share = 100 * bars[0][1] / len(results)
    finding = f"The hardest task is “{bars[0][0]}”: {share:.0f} % of the submissions pass it."
    return draw_bars(finding, bars, len(results))


def _misconceptions(results: Sequence[dict]) -> str:
    seen = Counter(
        (t["misconception"], t["title"]) for r in results for t in r["tasks"] if t["misconception"]
    )
    if not seen:
        return "<p>No foreseen misconception was met.</p>\n"
    order = sorted(seen.items(), key=lambda item: (-item[1], item[0]))[:12]
    bars = [(f"{name} ({title})", count) for (name, title), count in order]
    finding = f"The commonest is “{bars[0][0]}”, in {bars[0][1]} of {len(results)} submissions."
    return draw_bars(finding, bars, max(count for _, count in bars))


def _attention(rows: Sequence[Row], identical: Sequence[Sequence[str]]) -> str:
    """Return the lists of what a person should look at."""
    lists = [
        ("Not graded", [f"{row.files[0]}: {row.result['problem']}" for row in rows
                        if row.result is not None and row.result["problem"]]),
        ("Matched with nobody on the roster",
         [f"{row.files[0]}: {row.status.removeprefix(UNMATCHED + ': ')}" for row in rows
          if row.status.startswith(UNMATCHED)]),
        ("Several files by one student",
         [f"{row.student.key}: {', '.join(row.files)}" for row in rows if row.status == SEVERAL]),
        ("Nothing handed in", [row.student.name or row.student.key for row in rows
                               if row.status == NOTHING]),
        ("Files with the same content", [", ".join(group) for group in identical]),
    ]  # fmt: skip
    parts = []
    for title, lines in lists:
        if lines:
            body = "".join(f"<li>{say(line)}</li>\n" for line in lines)
            parts.append(f"<h2>{title}</h2>\n<ul>\n{body}</ul>\n")
    return "".join(parts)
