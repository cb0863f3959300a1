"""Self-check questions: every option has its reason, in the page and without a script."""

import pytest
from bs4 import BeautifulSoup

CHOICE = """# Title

:::{quiz} slope
**1.** How steep is a sigmoid at $z = 0$?

- **A.** $\\tfrac12$, see [below](https://example.org)
- **B.** $\\tfrac14$

**Answer: B.**

- **A.** This is its value there.
- **B.** It is $s(1-s)$.

  With $s = \\tfrac12$.
:::
"""

TYPED = """# Title

:::{quiz} typed-slope
:answer: 0.25
:tolerance: 2 %

**2.** How steep is a sigmoid at 0?

- `0.5`: this is its *value*.
- `1`: a tanh is.

The slope is $s(1-s)$.
:::
"""


def read(build_book, text):
    pages, problems = build_book({"index.md": text}, "folding_boxes", "quizzes")
    return BeautifulSoup(pages["index"], "html.parser").select_one(".quiz"), problems


def test_each_option_opens_to_its_own_reason(build_book):
    quiz, problems = read(build_book, CHOICE)
    assert problems == ""
    assert quiz["id"] == "quiz-slope"
    assert quiz["aria-labelledby"] == quiz.select_one(".quiz-question")["id"]
    wrong, right = quiz.select("details.quiz-option")
    assert "wrong" in wrong["class"]
    assert "right" in right["class"]
    assert wrong.summary.get_text().startswith("A. ")
    assert wrong.summary.find("a") is None  # a summary is itself a control
    assert wrong.select_one("p").get_text() == "No. This is its value there."
    assert right.select_one("p").get_text().startswith("Right. It is")
    assert "With" in right.get_text()
    assert not wrong.has_attr("open")
    assert "Answer: B" not in quiz.get_text()  # it would give away the answer


def test_a_typed_answer_carries_what_judges_it(build_book):
    quiz, problems = read(build_book, TYPED)
    assert problems == ""
    form = quiz.select_one("form.quiz-form")
    assert float(form["data-answer"]) == 0.25
    assert float(form["data-tolerance"]) == pytest.approx(0.005)
    assert form.label["for"] == form.input["id"]
    first, second = form.select(".quiz-mistake")
    assert (float(first["data-value"]), float(second["data-value"])) == (0.5, 1.0)
    assert first.get_text(strip=True, separator=" ") == "No. This is its value ."
    assert form.select_one("[role=status]") is not None
    assert "The slope is" in quiz.select_one("details.quiz-answer").get_text()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("- **B.** It is", "- **C.** It is", "one for each"),
        ("**Answer: B.**", "**Answer: C.**", "must be one of"),
        ("**Answer: B.**", "", "a line **Answer: B.**"),
        ("- **A.** This is its value there.\n", "", "one for each"),
    ],
)
def test_an_incomplete_question_fails_the_build(build_book, old, new, message):
    assert old in CHOICE
    _, problems = read(build_book, CHOICE.replace(old, new))
    assert message in problems


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("`0.5`", "`0.251`", "begins with a wrong number"),
        ("`0.5`", "half", "begins with a wrong number"),
        (":answer: 0.25", ":answer: a quarter", "must be numbers"),
        ("The slope is $s(1-s)$.\n", "", "and an answer"),
    ],
)
def test_an_incomplete_typed_question_fails_the_build(build_book, old, new, message):
    assert old in TYPED
    _, problems = read(build_book, TYPED.replace(old, new))
    assert message in problems


def test_a_label_used_twice_fails_the_build(build_book):
    _, problems = read(build_book, CHOICE + CHOICE.removeprefix("# Title\n"))
    assert "used twice" in problems
