"""The notebooks made for Colab: plain Markdown, links that lead somewhere, for any repository."""

from __future__ import annotations

import re

import nbformat
import pytest
from _tools import colab
from _tools.citations import cite, describe
from _tools.notebook_files import ROOT
from _tools.plain_markdown import PlainMarkdown
from _tools.repository import Repository, published_repository

FORK = {"COURSE_REPOSITORY": "some-one/gradient.course", "COURSE_REVISION": "v9.9"}
ROLES = r"\{(?:cite|prf|term|ref|numref|eq|doc)\b[^}]*\}`"
RAW = re.compile(rf"^:{{3,}}|{ROLES}|^\([\w-]+\)=$", re.MULTILINE)
LINK = re.compile(r"\]\(([^)\s]+)\)")


def rewrite(text, **links):
    return PlainMarkdown(chapter=6, resolve=links.get).rewrite(text)


def test_boxes_become_quotations_and_keep_the_numbers_of_the_book():
    text = """Before.

:::{prf:theorem} One layer
:label: thm-one
The factor is $a$.

$$
a = b
$$
:::

:::{prf:proof}
Count.
:::

:::{prf:theorem}
Second.
:::
"""
    plain = rewrite(text)
    assert "> **Theorem 6.1 (One layer).**\n>\n> The factor is $a$.\n>\n> $$\n> a = b\n" in plain
    assert "> **Proof.**\n>\n> Count." in plain
    assert "> **Theorem 6.2.**\n>\n> Second." in plain
    assert ":::" not in plain


def test_solutions_fold_under_the_exercise_they_belong_to():
    writer = PlainMarkdown(chapter=None, resolve={}.get)
    writer.rewrite(":::{exercise}\n:label: ex-a\nDo.\n:::")
    plain = writer.rewrite(":::{solution} ex-a\n:class: dropdown\nDone.\n:::")
    assert plain == ("<details>\n<summary>Solution to exercise 1</summary>\n\nDone.\n\n</details>")
    assert writer.rewrite(":::{solution-end}\n:::") == ""


def test_a_quiz_hides_its_answer_and_nothing_else():
    text = """:::{quiz} slope
**1.** How steep?

- **A.** Steep
- **B.** Flat

**Answer: B.**

- **A.** Too steep.
- **B.** Yes.
:::"""
    shown, hidden = rewrite(text).split("<details>")
    assert "- **B.** Flat" in shown
    assert "Answer: B." not in shown
    assert "Too steep." in hidden
    typed = rewrite(":::{quiz} t\n:answer: 4\n\n**2.** How many?\n\n- `2`: half.\n\nCount.\n:::")
    shown, hidden = typed.split("<details>")
    assert "How many?" in shown
    assert "**Answer: 4**" in hidden
    assert "half." in hidden


def test_citations_name_authors_and_year():
    plain = rewrite("As {cite:t}`glorot2010` and others {cite:p}`he2016,ba2016` say.")
    assert plain == ("As Glorot and Bengio (2010) and others (He et al., 2016; Ba, Kiros and "
                     "Hinton, 2016) say.")  # fmt: skip
    assert cite("hochreiter1997", textual=True) == "Hochreiter and Schmidhuber (1997)"
    assert "https://" in describe("ba2016")
    assert "Mikolov" in describe("mikolov2012")
    assert not re.search(r"[{}\\]", describe("mikolov2012"))


def test_code_is_left_alone_and_links_without_a_place_become_text():
    text = "See [there](there.md) and [here](here.ipynb).\n\n```\n:::{note}\n{cite:p}`x`\n```"
    plain = rewrite(text, **{"here.ipynb": "https://example.org/here"})
    assert plain.startswith("See there and [here](https://example.org/here).")
    assert plain.endswith("```\n:::{note}\n{cite:p}`x`\n```")


@pytest.mark.parametrize("text", ["{strange}`x`", ":::{strange}\nx\n:::", ":::{note}\nnever"])
def test_what_has_no_plain_form_is_refused(text):
    with pytest.raises(ValueError, match=r"strange|never"):
        rewrite(text)


@pytest.mark.parametrize("environment", [{}, FORK], ids=["no address", "a fork"])
@pytest.mark.parametrize("path", colab.ordered_notebooks())
def test_each_copy_is_plain_and_whole(path, environment):
    stored = nbformat.read(ROOT / path, as_version=4)
    repository = published_repository(environment)
    copy = colab.make_copy(stored, path=path, repository=repository)
    if repository is None:  # the form is the same for all, and the check takes a second
        nbformat.validate(copy)
    code = [cell for cell in copy.cells if cell.cell_type == "code"]
    assert code[0].id == "install"
    kept = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [(c.source, c.outputs) for c in code[1:]] == [(c.source, c.outputs) for c in kept]
    text = "\n\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown")
    prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
    assert RAW.findall(prose) == []
    assert prose.count("<details>") == prose.count("</details>")
    for target in LINK.findall(prose):
        if not re.match(r"https?:|#", target):
            assert repository is None, f"{target} leads nowhere in Colab"
            there = (ROOT / path).parent / target
            assert there.resolve().is_file(), f"{target} leads to no copy"
    if repository is None:
        assert "Open in Colab" not in text
        assert "github" not in code[0].source
    else:
        assert f"github/{FORK['COURSE_REPOSITORY']}/blob/colab/{path}" in copy.cells[0].source
        assert f"{FORK['COURSE_REPOSITORY']}@v9.9" in code[0].source


def test_a_fork_needs_one_variable(tmp_path):
    written = colab.write_copies(tmp_path / "out", published_repository(FORK))
    copied = sorted(path.relative_to(tmp_path / "out").as_posix() for path in written)
    assert copied == sorted(colab.ordered_notebooks())
    for file in [*written, tmp_path / "out" / "README.md"]:
        text = file.read_text(encoding="utf-8")
        named = set(re.findall(r"github(?:\.com)?/([\w.-]+/[\w.-]+?)(?:/blob|/tree|@|\")", text))
        assert named <= {FORK["COURSE_REPOSITORY"]}, file.name
    front = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert front.count("colab-badge.svg") == len(written)


def test_links_lead_to_what_is_published():
    repository = published_repository({**FORK, "COURSE_SITE": "https://some-one.example/course/"})
    resolve = colab.link_resolver("book/bptt.ipynb", repository)
    assert resolve("lstm_highway.ipynb") == repository.colab_link("book/lstm_highway.ipynb")
    assert resolve("notation.md#rates") == "https://some-one.example/course/book/notation.html#rates"
    assert resolve("../exercises/bptt.ipynb") == repository.colab_link("exercises/bptt.ipynb")
    bare = colab.link_resolver("book/bptt.ipynb", published_repository(FORK))
    sources = f"https://github.com/{FORK['COURSE_REPOSITORY']}/blob/main"
    assert bare("notation.md") == f"{sources}/book/notation.md"


def test_addresses_are_read_as_people_write_them():
    for named in ("a/b", "https://github.com/a/b", "https://github.com/a/b.git", "a/b/"):
        repository = published_repository({"COURSE_REPOSITORY": named, "COURSE_REVISION": "v1"})
        assert repository == Repository("https://github.com/a/b", "a/b", "v1")
    disk = published_repository({"COURSE_REPOSITORY": "file:///srv/x.git", "COURSE_REVISION": "v1"})
    assert disk.colab_link("book/a.ipynb") is None
    assert disk.requirement == "git+file:///srv/x.git@v1"
    assert published_repository({}) is None
    with pytest.raises(ValueError, match=r"COURSE_REPOSITORY.*'nonsense'.*owner/name"):
        published_repository({"COURSE_REPOSITORY": "nonsense"})
