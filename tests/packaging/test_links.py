"""The checks of links: each way to lead nowhere is found inside, each kind of answer outside."""

from __future__ import annotations

import contextlib
import http.server
import json
import threading

import nbformat
import pytest
from _tools import issue, outside_links
from _tools.links import Link, Published, dead_links, outside_addresses, why_dead
from _tools.outside_links import ALIVE, DEAD, UNKNOWN, Answer, ask, ask_all, asked_instead
from _tools.page_links import heading_anchors, markdown_addresses
from _tools.repository import published_repository

FORK = {"COURSE_REPOSITORY": "some-one/the.course", "COURSE_REVISION": "v1",
        "COURSE_SITE": "https://some-one.example/course"}  # fmt: skip
COLAB = "https://colab.research.google.com/github"
OURS = f"{COLAB}/some-one/the.course"
HUB = "https://github.com/some-one/the.course"


@pytest.fixture
def published(tmp_path):
    """A small course: two pages, a notebook with its front page, and sources."""
    files = {
        "pages/index.html": '<a href="book/a.html#here">a</a><link href="style.css?v=1">',
        "pages/style.css": "",
        "pages/book/a.html": '<h1 id="here">A</h1><a href="../index.html">back</a>',
        "notebooks/README.md": "# The notebooks\n\n[one](book/a.ipynb)",
        "sources/README.md": "# The Course\n\n[colab](../../tree/colab) [x](book/a.md)",
        "sources/book/a.md": "# A *fine* page",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    (tmp_path / "notebooks/book").mkdir()
    text = "# A chapter\n\n## Where it breaks\n\n[up](#Where-it-breaks)"
    cell = nbformat.v4.new_markdown_cell(text, id="the-cell")
    nbformat.write(nbformat.v4.new_notebook(cells=[cell]), tmp_path / "notebooks/book/a.ipynb")
    return Published(tmp_path / "pages", tmp_path / "notebooks", tmp_path / "sources",
                     published_repository(FORK))  # fmt: skip


def test_a_whole_course_has_no_dead_link(published):
    assert dead_links(published) == []


def test_the_same_holds_where_no_address_is_known(published):
    bare = Published(published.pages, published.notebooks, published.sources, None)
    assert dead_links(bare) == []


@pytest.mark.parametrize(
    ("file", "address", "why"),
    [
        ("pages/index.html", "book/b.html", "no such page"),
        ("pages/index.html", "book/a.html#there", "no such place"),
        ("pages/book/a.html", "#there", "no such place"),
        ("pages/book/a.html", "/style.css", "leads out"),
        ("pages/book/a.html", "../../up.html", "leads out"),
        ("pages/index.html", f"{OURS}/blob/colab/book/b.ipynb", "no such file"),
        ("pages/index.html", f"{OURS}/blob/main/book/a.ipynb", "other than"),
        ("pages/index.html", f"{COLAB}/b/c/blob/colab/book/a.ipynb", "other than"),
        ("pages/index.html", f"{HUB}/blob/main/book/b.md", "no such file"),
        ("pages/index.html", f"{HUB}/blob/master/book/a.md", "no branch master"),
        ("notebooks/book/a.ipynb", "b.ipynb", "no such file"),
        ("notebooks/book/a.ipynb", "#Where-it-holds", "no such heading"),
        ("notebooks/book/a.ipynb", "#scrollTo=no-cell", "no such cell"),
        ("notebooks/book/a.ipynb", f"{FORK['COURSE_SITE']}/book/b.html", "no such page"),
        ("notebooks/book/a.ipynb", f"{FORK['COURSE_SITE']}/book/a.html#there", "no such place"),
        ("notebooks/README.md", "exercises/a.ipynb", "no such file"),
        ("sources/README.md", "../../tree/gh-pages", "no branch gh-pages"),
        ("sources/README.md", "book/a.md#other", "no such heading"),
        ("sources/README.md", "no/such/folder", "no such file"),
    ],
)
def test_each_way_to_lead_nowhere_is_found(published, file, address, why):
    assert why in why_dead(Link(file, address), published)


@pytest.mark.parametrize(
    ("file", "address"),
    [
        ("pages/index.html", f"{OURS}/blob/colab/book/a.ipynb"),
        ("notebooks/README.md", f"{OURS}/blob/colab/book/a.ipynb#scrollTo=the-cell"),
        ("pages/index.html", f"{HUB}/blob/main/book/a.md"),
        ("pages/index.html", f"{FORK['COURSE_SITE']}/"),
        ("pages/index.html", "mailto:a@example.org"),
        ("pages/index.html", "data:image/png;base64,AAAA"),
        ("notebooks/book/a.ipynb", f"{FORK['COURSE_SITE']}/book/a.html#here"),
        ("notebooks/book/a.ipynb", "https://example.org/anything"),
        ("sources/README.md", "book/a.md#a-fine-page"),
        ("sources/README.md", "../../tree/colab/book"),
        ("sources/README.md", "../../releases"),
    ],
)
def test_what_leads_somewhere_is_left_alone(published, file, address):
    assert why_dead(Link(file, address), published) is None


def test_addresses_in_markdown_are_found_and_code_is_none():
    text = """See [a](b.md "title"), ![c](d.png), <https://e.example/f>, https://g.example/h_(i).
[![badge](https://j.example/k.svg)](https://l.example/m) `[n](o.md)` <a href="p.html">q</a>
[r](https://s.example/t_(u)) and [v][w]

[w]: https://x.example/y

```
[code](z.md)
```
"""
    found = markdown_addresses(text)
    assert {"b.md", "d.png", "https://e.example/f", "https://j.example/k.svg", "p.html",
            "https://l.example/m", "https://s.example/t_(u)", "https://x.example/y"} <= set(found)
    assert not {"o.md", "z.md"} & set(found)
    assert heading_anchors("## Where *it* breaks\n```\n# no\n```") == {
        "Where-it-breaks", "where-it-breaks"
    }  # fmt: skip


def test_outside_are_the_works_cited_and_no_address_of_our_own(published):
    page = published.pages / "index.html"
    page.write_text(f'<a href="{HUB}/issues">i</a><a href="https://out.example/a#b">o</a>')
    found = outside_addresses(published)
    assert found["https://out.example/a"] == ["pages/index.html"]
    assert any(address.startswith("https://doi.org/10.") for address in found)
    assert not [address for address in found if address.startswith((HUB, COLAB))]


class Host(http.server.BaseHTTPRequestHandler):
    """Answers as hosts do: `/404` with 404, and one that knows no HEAD."""

    asked: list[str]

    def answer(self):
        self.asked.append(f"{self.command} {self.path}")
        word = self.path.strip("/")
        status = 405 if word == "nohead" and self.command == "HEAD" else 200
        if word == "busy" and self.asked.count("GET /busy") < 2:
            status = 503
        if word == "moved":
            self.send_response(301)
            self.send_header("Location", "/200")
            return self.end_headers()
        self.send_response(int(word) if word.isdigit() else status)
        self.send_header("Content-Length", "0")
        return self.end_headers()

    do_HEAD = do_GET = answer

    def log_message(self, *arguments):
        """Say nothing: the tests report what matters."""


@pytest.fixture
def host():
    """Serve on this machine; return the address and what was asked for."""
    asked = []
    handler = type("AskedHost", (Host,), {"asked": asked})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()


@pytest.mark.parametrize(
    ("path", "state"),
    [("200", ALIVE), ("moved", ALIVE), ("nohead", ALIVE), ("busy", ALIVE), ("404", DEAD),
     ("410", DEAD), ("403", UNKNOWN), ("429", UNKNOWN), ("500", UNKNOWN)],
)  # fmt: skip
def test_each_kind_of_answer_has_its_meaning(host, path, state):
    address, asked = host
    assert ask(f"{address}/{path}", pause=0.0)[0] == state
    assert asked[0].startswith("HEAD"), "the cheap question comes first"
    if state is UNKNOWN and path != "403":
        assert len(asked) == 6, "whoever is busy is asked again, three times in all"


def test_no_host_is_dead_and_no_answer_is_unknown(monkeypatch):
    assert ask("http://127.0.0.1:9/closed", tries=1, timeout=2)[0] == UNKNOWN

    def no_such_host(*arguments, **options):
        raise outside_links.urllib.error.URLError(outside_links.socket.gaierror(-2, "unknown"))

    monkeypatch.setattr(outside_links.urllib.request, "urlopen", no_such_host)
    assert ask("https://gone.example/", tries=1) == (DEAD, "there is no such host")


def test_a_doi_is_asked_for_at_its_registry():
    assert asked_instead("https://doi.org/10.1162/neco.1") == (
        "https://doi.org/api/handles/10.1162/neco.1"
    )
    assert asked_instead("https://a.example/ä b?c=d#e") == "https://a.example/%C3%A4%20b?c=d#e"


def test_the_report_and_the_issue_name_what_is_dead_and_where(tmp_path, capsys):
    addresses = {"https://a.example/x": ["pages/a.html"], "https://a.example/y": ["README.md"],
                 "https://b.example/z": ["book/references.bib"]}  # fmt: skip
    states = {"x": (ALIVE, "answers 200"), "y": (DEAD, "answers 404"),
              "z": (UNKNOWN, "answers 403")}  # fmt: skip
    answers = ask_all(addresses, asking=lambda address: states[address[-1]])
    text = outside_links.to_markdown(answers)
    assert "1 of 3 addresses" in text
    assert "- https://a.example/y answers 404; in README.md" in text
    assert "https://a.example/x" not in text
    report = tmp_path / "report.json"
    report.write_text(json.dumps([vars(answer) for answer in answers]))
    assert issue.main(["links", str(report), "--run", "https://run.example/1", "--show"]) == 0
    shown = capsys.readouterr().out
    assert "https://a.example/y" in shown
    assert "<!-- kept: links " in shown
    alive = [vars(Answer("https://a.example/x", ALIVE, "answers 200"))]
    assert issue.about_links(alive, "").body == ""


def test_the_command_ends_with_one_if_an_address_is_dead(tmp_path, monkeypatch, host, capsys):
    address, _ = host
    monkeypatch.setattr(outside_links, "Published", lambda: None)
    monkeypatch.setattr(outside_links, "outside_addresses", lambda _: {f"{address}/404": ["a.md"]})
    monkeypatch.setattr("sys.argv", ["outside_links.py", "--report", str(tmp_path / "b/r.json")])
    assert outside_links.main() == 1
    assert "1 dead" in capsys.readouterr().out
    with contextlib.closing((tmp_path / "b/r.json").open()) as file:
        assert json.load(file)[0]["state"] == DEAD
