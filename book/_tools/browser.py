"""The browser that prints the book and that the tests of the pages drive: a Chromium found here."""

from __future__ import annotations

import shutil

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update",
]  # fmt: skip


def find_browser() -> str | None:
    """Return the path of the first of `PROGRAMS` that this machine has, or None."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)
