"""The notebooks made for Colab: plain Markdown, links that lead somewhere, for any repository."""

from __future__ import annotations

import re

import nbformat
import pytest
from _tools import colab, copy_gate
from _tools.citations import cite, describe
from _tools.notebook_files import ROOT
from _tools.plain_markdown import PlainMarkdown
from _tools.repository import Repository, current_edition, published_repository
from nbformat.v4 import new_markdown_cell, new_notebook

FORK = {"COURSE_REPOSITORY": "some-one/gradient.course", "COURSE_REVISION": "v9.9"}
ARCHIVE = "https://github.com/some-one/gradient.course/archive/v9.9.zip"


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
    assert "> **Theorem 6.1 (One layer).**\n>\n> The factor is $a$.\n>\n> $$ a = b $$\n" in plain
    assert "> **Proof.**\n>\n> Count." in plain
    assert "> **Theorem 6.2.**\n>\n> Second." in plain
    assert ":::" not in plain


def test_a_formula_in_a_box_has_no_line_of_its_own_for_the_mark_of_the_box():
    """JupyterLab takes formulas out first, and would show each mark as "greater than"."""
    formula = "$$\n\\begin{aligned}\na &= b \\\\\n  &= c .\n\\end{aligned}\n$$"
    assert rewrite(formula) == formula
    boxed = rewrite(f":::{{prf:proof}}\nSo\n\n{formula}\n\nholds.\n:::")
    line = "> $$ \\begin{aligned} a &= b \\\\ &= c . \\end{aligned} $$"
    assert boxed.split("\n") == ["> **Proof.**", ">", "> So", ">", line, ">", "> holds."]
    with pytest.raises(ValueError, match="no comment in a formula"):
        rewrite(":::{prf:proof}\n$$\na % not b\n$$\n:::")


def test_solutions_fold_under_the_exercise_they_belong_to():
    writer = PlainMarkdown(chapter=None, resolve={}.get)
    writer.rewrite(":::{exercise}\n:label: ex-a\nDo.\n:::")
    plain = writer.rewrite(":::{solution} ex-a\n:class: dropdown\nDone.\n:::")
    assert plain == ("<details>\n<summary>Solution to exercise 1</summary>\n\nDone.\n\n</details>")


def test_a_solution_with_code_folds_its_text_and_tells_of_the_code_until_it_ends():
    writer = PlainMarkdown(chapter=4, resolve={}.get)
    first = writer.rewrite(
        ":::{exercise}\n:label: ex-a\nDo.\n:::\n\n"
        ":::{solution-start} ex-a\n:class: dropdown\n:::\n\nBecause."
    )
    assert "<summary>Solution to exercise 4.1</summary>\n\nBecause.\n\n</details>" in first
    assert first.endswith("*Solution to exercise 4.1, computed: open the folded cell.*")
    assert writer.solving
    last = writer.rewrite("So it is.\n\n:::{solution-end}\n:::\n\n## Next")
    assert "<summary>Solution to exercise 4.1, continued</summary>\n\nSo it is." in last
    assert last.endswith("</details>\n\n## Next")
    assert not writer.solving
    bare = writer.rewrite(":::{solution-start} ex-a\n:::\n")
    assert bare == "*Solution to exercise 4.1, computed: open the folded cell.*"
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
    assert "How many?\n\n*Write down a number, then open the answer.*" in shown
    assert "**Answer: 4** (within 1 %). If you found\n\n- `2`: half.\n\nCount." in hidden


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


CONSTRUCTS = {
    "```{note}\nRead.\n```": "> **Note.**\n>\n> Read.",
    ":::{seealso} The end.\nAnd *more*.\n:::": "> **See also.**\n>\n> The end.\n>\n> And *more*.",
    "````{admonition} A *box*\n```python\nx\n```\n````":
        "> **A *box*.**\n>\n> ```python\n> x\n> ```",
    "(there)=\n## There": "## There",
    "```{math}\n:label: a\nx\n```": "$$\nx\n$$",
    "```{code-block} python\nx = 1\n```": "```python\nx = 1\n```",
    "::::{tab-set}\n:::{tab-item} PyTorch\nx\n:::\n:::{tab-item} Keras\ny\n:::\n::::":
        "**PyTorch**\n\nx\n\n**Keras**\n\ny",
    "So {math}`x` and {term}`dead unit<dead>`.": "So $x$ and dead unit.",
    "`{cite:p}`, $[0, 1](x)$ and ``a`{b}`` stay.": "`{cite:p}`, $[0, 1](x)$ and ``a`{b}`` stay.",
    "$$\n\\bigl[g\\bigr](x)\n$$": "$$\n\\bigl[g\\bigr](x)\n$$",
    "````\n```\n:::{note}\n````\n:::{tip}\nx\n:::":
        "````\n```\n:::{note}\n````\n\n> **Tip.**\n>\n> x",
    "[the `f` of {cite:t}`glorot2010`](a.ipynb)": "[the `f` of Glorot and Bengio (2010)](A)",
    "### Prove it\n\n1. so\n\n   $$\n   a\n   $$": "### Prove it\n\n1. so\n\n   $$\n   a\n   $$",
}  # fmt: skip


@pytest.mark.parametrize(("text", "plain"), CONSTRUCTS.items())
def test_what_else_an_author_may_write_has_a_plain_form(text, plain):
    assert rewrite(text, **{"a.ipynb": "A"}) == plain
    assert copy_gate.cell_faults(plain.replace("(A)", "(https://example.org)")) == []


def test_a_reference_may_stand_before_what_it_names_and_never_leads_nowhere():
    theorem = ":::{{prf:theorem}}\n:label: {0}\n{0}\n:::"
    cells = ["See {prf:ref}`thm-b`.", theorem.format("thm-a"), theorem.format("thm-b")]
    writer = PlainMarkdown(chapter=6, resolve={}.get)
    writer.foresee(cells)
    assert list(map(writer.rewrite, cells)) == [
        "See theorem 6.2.", "> **Theorem 6.1.**\n>\n> thm-a", "> **Theorem 6.2.**\n>\n> thm-b"
    ]  # fmt: skip
    with pytest.raises(ValueError, match=r"\{prf:ref\}`thm-c`"):
        writer.rewrite("See {prf:ref}`thm-c`.")


@pytest.mark.parametrize(
    "text",
    ["{strange}`x`", ":::{strange}\nx\n:::", ":::{note}\nnever", ":::{quiz} q\nstrange?\n:::"],
)
def test_what_has_no_plain_form_is_refused(text):
    with pytest.raises(ValueError, match=r"strange|never"):
        rewrite(text)


EDITION = current_edition()


@pytest.mark.parametrize("environment", [{}, FORK], ids=["no address", "a fork"])
@pytest.mark.parametrize("path", colab.ordered_notebooks())
def test_each_copy_is_plain_and_whole(path, environment):
    stored = nbformat.read(ROOT / path, as_version=4)
    repository = published_repository(environment)
    copy = colab.make_copy(stored, path=path, repository=repository, edition=EDITION)
    if repository is None:  # the form is the same for all, and the check takes a second
        nbformat.validate(copy)
    code = [cell for cell in copy.cells if cell.cell_type == "code"]
    assert code[0].id == "install"
    kept = [cell for cell in stored.cells if cell.cell_type == "code"]
    assert [(c.source, c.outputs) for c in code[1:]] == [(c.source, c.outputs) for c in kept]
    assert copy_gate.faults(copy, path=path, copies=colab.ordered_notebooks()) == []
    text = "\n\n".join(cell.source for cell in copy.cells if cell.cell_type == "markdown")
    assert f"Made with {EDITION.describe()}." in copy.cells[0].source
    if repository is None:
        assert "Open in Colab" not in text
        assert "github" not in code[0].source
    else:
        assert f"github/{FORK['COURSE_REPOSITORY']}/blob/colab/{path}" in copy.cells[0].source
        assert f'wanted="{ARCHIVE}"' in code[0].source
        assert '"--no-deps"' in code[0].source, "what Colab has would be replaced"
        assert ".ipynb)" not in re.sub(r"\(https://\S+\)", "", text), "a relative link in Colab"
        again = PlainMarkdown(chapter=None, resolve={}.get)
        texts = [cell.source for cell in copy.cells if cell.cell_type == "markdown"]
        assert list(map(again.rewrite, texts)) == texts, "what is plain stays as it is"


FAULTS = {
    ":::{note}\nx\n:::": "a directive",
    "> :::": "a directive",
    "```{note}\nx\n```": "a directive",
    "see {prf:ref}`thm-a`": "a role",
    "(thm-a)=": "a label",
    "so {{ this }}": "a substitution",
    "so[^1]": "a footnote",
    ":class: dropdown": "an option",
    "{#here}\n## There": "a block attribute",
    "a<br>b": "HTML that is not shown",
    "<div>x</div>": "HTML that is not shown",
    "> $$\n> a\n> $$": "several lines in a quotation",
    "$$\na\n\nb\n$$": "an empty line",
    "<details>\n<summary>A</summary>\nglued\n\n</details>": "a fold",
    "<details>\n<summary>$a$</summary>\n\nx\n\n</details>": "a fold",
    "<details>\n<summary>A</summary>\n\nnever closed": "a fold",
    " ": "an empty cell",
    "![x](images/x.png)": "a picture that is not there",
    "[x](other.md)": "a link to no copy",
    "[x](../book/gone.ipynb)": "a link to no copy",
    "[x](#gone)": "a link to no heading",
}
SOUND = (
    "# Title\n\nAs `:::{note}` and `{cite:p}` and $a<b$ say: 1 < 2 > 0.",
    "```\n:::{note}\n<div>\n```",
    "> **Theorem.**\n>\n> $$ a $$",
    "<details>\n<summary>Answer</summary>\n\nx $y$\n\n</details>\n\n[up](#Title)",
    "[a](bptt.ipynb) [b](../exercises/bptt.ipynb#Title) [c](https://example.org/a)",
    "[![x](https://example.org/x.svg)](https://example.org)",
)


@pytest.mark.parametrize(("source", "fault"), FAULTS.items())
def test_the_gate_names_what_a_reader_would_stumble_over(source, fault):
    copies = ("book/bptt.ipynb", "exercises/bptt.ipynb")
    cells = [new_markdown_cell(text, id=f"sound-{k}") for k, text in enumerate(SOUND)]
    sound = new_notebook(cells=cells)
    assert copy_gate.faults(sound, path="book/a.ipynb", copies=copies) == []
    sound.cells.append(new_markdown_cell(source, id="faulty"))
    found = copy_gate.faults(sound, path="book/a.ipynb", copies=copies)
    assert found
    assert all(what.startswith("faulty: ") for what in found)
    assert any(fault in what for what in found)


def test_a_fork_needs_one_variable(tmp_path):
    written = colab.write_copies(tmp_path / "out", published_repository(FORK))
    copied = sorted(path.relative_to(tmp_path / "out").as_posix() for path in written)
    assert copied == sorted(colab.ordered_notebooks())
    for file in [*written, tmp_path / "out" / "README.md"]:
        text = file.read_text(encoding="utf-8")
        places = r"github(?:\.com)?/([\w.-]+/[\w.-]+?)(?:/blob|/tree|/archive)"
        named = set(re.findall(places, text))
        assert named <= {FORK["COURSE_REPOSITORY"]}, file.name
    front = (tmp_path / "out" / "README.md").read_text(encoding="utf-8")
    assert front.count("colab-badge.svg") == len(written)
    assert f"[torch,tensorflow] @ {ARCHIVE}" in front
    assert f"](https://github.com/{FORK['COURSE_REPOSITORY']}/releases)" in front


def test_links_lead_to_what_is_published():
    repository = published_repository({**FORK, "COURSE_SITE": "https://some-one.example/course/"})
    resolve = colab.link_resolver("book/bptt.ipynb", repository)
    assert resolve("lstm_highway.ipynb") == repository.colab_link("book/lstm_highway.ipynb")
    assert resolve("notation.md#rates") == "https://some-one.example/course/book/notation.html#rates"
    assert resolve("../exercises/bptt.ipynb") == repository.colab_link("exercises/bptt.ipynb")
    assert resolve("notation.md") == "https://some-one.example/course/book/notation.html"
    bare = colab.link_resolver("book/bptt.ipynb", published_repository(FORK))
    sources = f"https://github.com/{FORK['COURSE_REPOSITORY']}/blob/main"
    assert bare("notation.md") == f"{sources}/book/notation.md"


def test_a_link_to_a_section_scrolls_to_its_cell_in_colab_and_to_its_heading_in_jupyter():
    stored = nbformat.read(ROOT / "book" / "chain_rule.ipynb", as_version=4)
    cell = next(c.id for c in stored.cells if "\n### One layer\n" in f"\n{c.source}")
    repository = published_repository(FORK)
    opened = repository.colab_link("book/chain_rule.ipynb")
    there = colab.link_resolver("exercises/chain_rule.ipynb", repository)
    assert there("../book/chain_rule.ipynb#one-layer") == f"{opened}#scrollTo={cell}"
    here = colab.link_resolver("book/chain_rule.ipynb", repository)
    assert here("#one-layer") == f"#scrollTo={cell}"
    beside = colab.link_resolver("exercises/chain_rule.ipynb", None)
    assert beside("../book/chain_rule.ipynb#one-layer") == "../book/chain_rule.ipynb#One-layer"
    with pytest.raises(ValueError, match=r"book/chain_rule.ipynb has no heading.*`#no-layer`"):
        there("../book/chain_rule.ipynb#no-layer")


def test_the_code_of_a_solution_is_folded_and_no_other():
    """In every chapter: what the book hides, and what stands between the ends of a solution."""
    found = 0
    for path in colab.ordered_notebooks():
        stored = nbformat.read(ROOT / path, as_version=4)
        copy = colab.make_copy(stored, path=path, repository=None, edition=EDITION)
        folded = {cell.id for cell in copy.cells if cell.metadata == colab.FOLDED}
        expected, inside = set(), False
        for cell in stored.cells:
            if cell.cell_type == "markdown":
                gates = re.findall(r"^:::\{solution-(start|end)\}", cell.source, re.MULTILINE)
                inside = gates[-1] == "start" if gates else inside
            elif inside or "hide-cell" in cell.metadata.get("tags", []):
                expected.add(cell.id)
        assert folded == expected, path
        found += len(folded)
    assert found > 30


def test_addresses_are_read_as_people_write_them():
    for named in ("a/b", "https://github.com/a/b", "https://github.com/a/b.git", "a/b/",
                  "http://www.github.com/a/b", "git@github.com:a/b.git",
                  "ssh://git@github.com/a/b"):  # fmt: skip
        repository = published_repository({"COURSE_REPOSITORY": named, "COURSE_REVISION": "v1"})
        assert repository == Repository("https://github.com/a/b", "a/b", "v1")
    disk = published_repository({"COURSE_REPOSITORY": "file:///srv/x.git", "COURSE_REVISION": "v1"})
    assert disk.colab_link("book/a.ipynb") is None
    assert disk.requirement == "git+file:///srv/x.git@v1"
    assert published_repository({}) is None
    with pytest.raises(ValueError, match=r"COURSE_REPOSITORY.*'nonsense'.*owner/name"):
        published_repository({"COURSE_REPOSITORY": "nonsense"})
