"""The bibliography as plain text: (Glorot and Bengio, 2010), and a list of what was cited."""

from __future__ import annotations

import functools
import re
from pathlib import Path

from pybtex.backends.plaintext import Backend
from pybtex.database import Entry, parse_file
from pybtex.richtext import Text

BIBLIOGRAPHY = Path(__file__).resolve().parents[1] / "references.bib"


@functools.cache
def bibliography(path: Path = BIBLIOGRAPHY) -> dict[str, Entry]:
    """Return the entries by key."""
    return dict(parse_file(str(path), bib_format="bibtex").entries)


@functools.cache
def plain(text: str) -> str:
    """Return LaTeX text as Unicode on one line."""
    # Not `render_as("text")`: it searches every installed package for that backend, each time.
    return re.sub(r"\s+", " ", Text.from_latex(text).render(Backend())).strip()


def authors(entry: Entry) -> str:
    """Return "Glorot and Bengio", or "He et al." from four on."""
    people = entry.persons.get("author") or entry.persons.get("editor") or []
    names = [plain(" ".join(person.prelast_names + person.last_names)) for person in people]
    if len(names) > 3:
        return f"{names[0]} et al."
    if len(names) > 1:
        return f"{', '.join(names[:-1])} and {names[-1]}"
    return names[0] if names else plain(entry.fields.get("title", "anonymous"))


def cite(keys: str, *, textual: bool) -> str:
    """Return the citation for comma-separated keys: in the sentence, or in parentheses."""
    entries = [bibliography()[key.strip()] for key in keys.split(",")]
    if textual:
        return ", ".join(f"{authors(entry)} ({entry.fields['year']})" for entry in entries)
    inside = "; ".join(f"{authors(entry)}, {entry.fields['year']}" for entry in entries)
    return f"({inside})"


def link(entry: Entry) -> str | None:
    """Return where the work is found."""
    fields = entry.fields
    if "doi" in fields:
        return f"https://doi.org/{fields['doi']}"
    if fields.get("archiveprefix", "").lower() == "arxiv":
        return f"https://arxiv.org/abs/{fields['eprint']}"
    return fields.get("url")


def describe(key: str) -> str:
    """Return one line of a list of references, in Markdown."""
    entry = bibliography()[key]
    fields = entry.fields
    places = ("journal", "booktitle", "publisher", "school", "howpublished")
    place = next((plain(fields[name]) for name in places if name in fields), "")
    title = plain(fields["title"])
    linked = f"[{title}]({link(entry)})" if link(entry) else f"*{title}*"
    ending = f" {place}." if place else ""
    return f"- {authors(entry)} ({fields['year']}): {linked}.{ending}"
