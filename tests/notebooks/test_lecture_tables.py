"""Where the introduction says the lectures' listings are: in sections that exist."""

import re
from pathlib import Path

from _tools.page_links import HEADING, markdown_text

BOOK = Path(__file__).resolve().parents[2] / "book"
PLACE = re.compile(r"\]\((\w+\.ipynb)\)([^|;\[]*)")
NAME = re.compile(r"\*([^*]+)\*")


def named_sections(text: str) -> list[tuple[str, str]]:
    """Return (chapter, section) for every name in italics that follows a link in a table."""
    rows = [line for line in text.splitlines() if line.startswith("|")]
    return [
        (chapter, name)
        for row in rows
        for chapter, words in PLACE.findall(row)
        for name in NAME.findall(words)
    ]


def missing_sections(sections: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Return those that no heading of their chapter begins or ends with."""
    missing = []
    for chapter, name in sections:
        headings = [h.lower() for h in HEADING.findall(markdown_text(BOOK / chapter))]
        if not any(h.startswith(name.lower()) or h.endswith(name.lower()) for h in headings):
            missing.append((chapter, name))
    return missing


def test_every_section_that_a_table_of_the_introduction_names_exists():
    sections = named_sections((BOOK / "intro.md").read_text(encoding="utf-8"))
    assert len(sections) > 40
    assert missing_sections(sections) == []


def test_a_section_that_is_gone_is_found():
    row = "| 1: `he_init` | [Initialization](initialization.ipynb), *The laws* and *The lawyers* |"
    sections = named_sections(row)
    assert sections == [
        ("initialization.ipynb", "The laws"),
        ("initialization.ipynb", "The lawyers"),
    ]
    assert missing_sections(sections) == [("initialization.ipynb", "The lawyers")]
