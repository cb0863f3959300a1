"""Build the book into `_build/html`, or say that what is there is up to date.

Run by `make book`. A fingerprint (SHA-256) of every source file is stored beside the built book:
nothing changed means nothing to do. Anything changed means a whole build from an empty folder,
for three reasons: Sphinx repeats no warning for a page that it does not read again, so `-W` would
pass on the second try; a changed style sheet or script alone is never copied; and a page that was
renamed would stay behind under its old name.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from _tools.repository import published_repository

ROOT = Path(__file__).resolve().parents[2]
HTML = ROOT / "_build" / "html"
FINGERPRINT = ROOT / "_build" / "book-fingerprint.json"

SOURCE_FOLDERS = ("book", "course_lib", "exercises", "solutions")
SOURCE_FILES = ("_config.yml", "_toc.yml", "requirements.lock", "pyproject.toml")
IGNORED_FOLDERS = {"__pycache__", ".ipynb_checkpoints", "_build"}


def source_files(root: Path = ROOT) -> list[Path]:
    """All files that the built book depends on, sorted."""
    found = [root / name for name in SOURCE_FILES if (root / name).is_file()]
    for folder in SOURCE_FOLDERS:
        for path in (root / folder).rglob("*"):
            ignored = IGNORED_FOLDERS.intersection(path.relative_to(root).parts)
            if path.is_file() and not ignored:
                found.append(path)
    return sorted(found)


def source_hashes(root: Path = ROOT) -> dict[str, str]:
    """Map each source file, relative to `root`, to the SHA-256 of its bytes."""
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in source_files(root)
    }


def built_files(html: Path) -> dict[str, int]:
    """Map each built file to its size: a page deleted or cut short is noticed."""
    return {
        path.relative_to(html).as_posix(): path.stat().st_size
        for path in sorted(html.rglob("*"))
        if path.is_file()
    }


def read_fingerprint(file: Path) -> dict:
    """What the last successful build recorded; empty if there was none or it is unreadable."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def changed_sources(before: dict[str, str], now: dict[str, str]) -> list[str]:
    """Names added, removed or altered between two results of `source_hashes`."""
    return sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))


def run_jupyter_book() -> int:
    """Build from nothing, every warning an error, and return the exit status."""
    for folder in (HTML, ROOT / "_build" / ".doctrees"):
        shutil.rmtree(folder, ignore_errors=True)
    # Not the `jb` script: a script's first line cannot name an interpreter in a path with a space.
    start = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", start, "build", ".", "-W", "-n", "--keep-going", "--all", "-q"]
    # Warnings come on stderr; what is said on stdout matters only if the build failed.
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        print(done.stdout)
    return done.returncode


def main() -> int:
    """Build if needed; 0 when the book in `_build/html` is whole and up to date."""
    sources = source_hashes()
    last = read_fingerprint(FINGERPRINT)
    repository = published_repository()  # the buttons of the pages lead there
    published = repository and [repository.address, repository.branch, repository.site]
    same = last.get("sources") == sources and last.get("published") == published
    if same and last.get("built") == built_files(HTML):
        print(f"==> The book is up to date: {HTML / 'index.html'}")
        return 0
    changed = changed_sources(last.get("sources", {}), sources)
    if last and changed:
        print(
            f"==> Changed since the last build: {', '.join(changed[:5])}"
            + (f" and {len(changed) - 5} more" if len(changed) > 5 else "")
        )
    print("==> Building the book", flush=True)
    FINGERPRINT.unlink(missing_ok=True)
    started = time.perf_counter()
    status = run_jupyter_book()
    if status != 0:
        print("==> The book was not built: see the warnings above, each of them is an error.")
        return status
    record = {"sources": sources, "published": published, "built": built_files(HTML)}
    FINGERPRINT.write_text(json.dumps(record, indent=1), encoding="utf-8")
    print(f"==> The book is built, in {time.perf_counter() - started:.0f} s: {HTML / 'index.html'}")
    print("    Open that file in a browser, or let `make serve` show it at http://localhost:8000")
    return 0


if __name__ == "__main__":
    sys.exit(main())
