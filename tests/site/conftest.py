"""What the checks of the built book share: the pages, a server, one browser, small test books."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import http.server
import io
import os
import sys
import threading
import warnings
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
THEMES = ROOT / "book" / "_theme"
sys.path.insert(0, str(ROOT / "book" / "_ext"))



def docnames() -> list[str]:
    """Return the pages the table of contents lists, without suffix, the first page first."""
    toc = yaml.safe_load((ROOT / "_toc.yml").read_text(encoding="utf-8"))
    names = [toc["root"]]

    def walk(entry) -> None:
        if isinstance(entry, dict):
            names.extend([entry["file"]] if "file" in entry else [])
            for value in entry.values():
                walk(value)
        elif isinstance(entry, list):
            for value in entry:
                walk(value)

    walk([toc.get("parts"), toc.get("chapters")])
    return [name.removesuffix(".md").removesuffix(".ipynb") for name in names]


def pytest_generate_tests(metafunc) -> None:
    if "docname" in metafunc.fixturenames:
        metafunc.parametrize("docname", docnames())
    if "page" in metafunc.fixturenames:
        metafunc.parametrize("page", [*docnames(), "search"])


@pytest.fixture(scope="session")
def site() -> Path:
    """Return the folder of the built book; it is built first unless it is up to date."""
    from _tools import build_book

    build_book.HTML.parent.mkdir(exist_ok=True)
    with (build_book.HTML.parent / "site-tests.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several pytest workers share one build
        assert build_book.main() == 0, "the book does not build: see the warnings above"
    return build_book.HTML


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args) -> None:
        """Say nothing: the tests report what matters."""


@pytest.fixture(scope="session")
def base_url(site):
    """Serve the built book on this machine, and return the address of its root."""
    handler = functools.partial(QuietHandler, directory=str(site))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/"
        server.shutdown()


def no_browser(reason: str) -> None:
    """Skip where a person works without a browser; fail where the checks are the point."""
    if os.environ.get("CI", "").lower() == "true":
        pytest.fail(f"{reason}, and CI must not pass without the browser checks")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser():
    """Start one Chromium for all browser tests."""
    from _tools.browser import FLAGS, find_browser

    program = find_browser()
    if program is None:
        no_browser("no Chromium on this machine (Debian's package is `chromium`)")
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        no_browser("playwright is not installed")
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=program, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def build_book(tmp_path):
    """Return a function that builds a small book and gives ({page: html}, warnings).

    Its files map a name to Markdown text or to a notebook; ``extensions`` are loaded after MyST-NB.
    """

    def build(files: dict, *extensions: str) -> tuple[dict[str, str], str]:
        import nbformat
        from sphinx.application import Sphinx
        from sphinx.util.docutils import docutils_namespace, patch_docutils

        source, out = tmp_path / "source", tmp_path / "build" / "html"
        source.mkdir()
        for name, content in files.items():
            text = content if isinstance(content, str) else nbformat.writes(content)
            (source / name).parent.mkdir(exist_ok=True)
            (source / name).write_text(text, encoding="utf-8")
        settings = {
            "extensions": ["myst_nb", *extensions], "root_doc": next(iter(files)).split(".")[0],
            "nb_execution_mode": "off", "numfig": True, "html_theme": "basic",
            "myst_enable_extensions": ["amsmath", "colon_fence", "dollarmath"],
        }
        if "lean_pages" in extensions:
            settings |= {"html_theme": "course", "html_theme_path": [str(THEMES)]}
        if "rendered_math" in extensions:
            settings["html_math_renderer"] = "katex"
        problems = io.StringIO()
        with contextlib.ExitStack() as stack:
            # Deprecations inside Sphinx and docutils are theirs to mend.
            stack.enter_context(warnings.catch_warnings())
            warnings.simplefilter("ignore")
            stack.enter_context(patch_docutils(str(source)))
            stack.enter_context(docutils_namespace())
            app = Sphinx(source, None, out, tmp_path / "doctrees", "html", settings,
                         status=None, warning=problems, freshenv=True)
            app.build()
        pages = {path.relative_to(out).with_suffix("").as_posix(): path.read_text(encoding="utf-8")
                 for path in out.rglob("*.html")}  # fmt: skip
        return pages, problems.getvalue()

    return build


@pytest.fixture
def notebook():
    """Return a function that makes a notebook from strings (Markdown) and (source, tags, outputs).
    """

    def make(*cells):
        import nbformat.v4 as v4

        made = []
        for cell in cells:
            if isinstance(cell, str):
                made.append(v4.new_markdown_cell(cell))
                continue
            source, tags, outputs = cell
            code = v4.new_code_cell(source, execution_count=1, outputs=outputs)
            code.metadata["tags"] = list(tags)
            made.append(code)
        kernel = {"name": "python3", "display_name": "Python 3", "language": "python"}
        return v4.new_notebook(cells=made, metadata={"kernelspec": kernel})

    return make
