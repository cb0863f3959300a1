"""Formulas are rendered while the book is built, and a wrong one stops the build."""

import pytest
import rendered_math
from bs4 import BeautifulSoup


def test_a_formula_becomes_html_for_the_eye_and_mathml_for_the_ear():
    made = BeautifulSoup(rendered_math.render(r"\sigma'(z) \le \tfrac14"), "html.parser")
    assert made.select_one(".katex-html")["aria-hidden"] == "true"
    assert made.select_one("math mfrac") is not None
    assert made.find("script") is None


def test_display_style_differs_from_inline_style():
    source = r"\prod_{l=2}^{L} J_l"
    assert "katex-display" in rendered_math.render(source, display=True)
    assert "katex-display" not in rendered_math.render(source)


@pytest.mark.parametrize("source", [r"\frac{1}", r"\nosuchcommand", r"\left( x", "x^a^b"])
def test_an_invalid_formula_is_an_error_that_says_why(source):
    with pytest.raises(rendered_math.MathError, match="KaTeX parse error"):
        rendered_math.render(source)


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("a = b", "a = b"),
        (r"a \\ b", r"\begin{split}a \\ b\end{split}"),
        ("a &= b\n\nc &= d", r"\begin{aligned}a &= b \\ c &= d\end{aligned}"),
        (r"\begin{pmatrix} a \\ b \end{pmatrix}", r"\begin{pmatrix} a \\ b \end{pmatrix}"),
        (r"\begin{align} a &= b \end{align}", r"\begin{align*} a &= b \end{align*}"),
        (r"\begin{align*} a &= b \end{align*}", r"\begin{align*} a &= b \end{align*}"),
    ],
)
def test_display_mathematics_is_one_formula(source, expected):
    assert rendered_math.as_one_formula(source) == expected
    rendered_math.render(expected, display=True)


def test_the_build_warns_of_the_file_and_the_formula(build_book):
    pages, problems = build_book(
        {"index.md": "# Title\n\nGood $x^2$, bad $\\frac{1}$.\n"}, "rendered_math"
    )
    assert "index.md" in problems
    assert r"\frac{1}" in problems
    assert "KaTeX parse error" in problems
    assert "math-error" in pages["index"]


def test_numbered_equations_can_be_referred_to(build_book):
    text = "# Title\n\n$$\na = b\n$$ (first)\n\nSee {eq}`first`.\n\n$$\nc = d\n$$ (second)\n"
    pages, problems = build_book({"index.md": text}, "rendered_math")
    assert problems == ""
    page = BeautifulSoup(pages["index"], "html.parser")
    links = page.select("p > a[href='#equation-first']")
    assert [link.get_text() for link in links] == ["(1)"]
    assert [number.contents[0] for number in page.select(".eqno")] == ["(1)", "(2)"]
    assert page.find(id="equation-first") is not None
    assert page.select("script[src*=athJax], script[src*=mathjax]") == []


def test_a_table_header_that_is_a_formula_has_a_name(build_book):
    text = "# Title\n\n| $h_l$ | norm of $h$ |\n|---|---|\n| $z_l$ | 1 |\n"
    pages, _ = build_book({"index.md": text}, "rendered_math")
    named = BeautifulSoup(pages["index"], "html.parser").select("math[aria-label]")
    assert [(math.find_parent(["th", "td"]).name, math["aria-label"]) for math in named] == [
        ("th", "h_l")
    ]
