"""Self-check questions that answer at once: ``:::{quiz} label``.

A question to choose from: the options, the right letter, and a reason for each option. In the book
each option opens and shows its own reason.

    :::{quiz} slope-at-zero
    **1.** How steep is a sigmoid at 0?

    - **A.** 1/2
    - **B.** 1/4

    **Answer: B.**

    - **A.** This is its value there.
    - **B.** s (1 - s), with s = 1/2.
    :::

A question to type: the answer with its tolerance, foreseen mistakes with a reason for each, and
the way to the answer.

    :::{quiz} slope-of-sigmoid
    :answer: 0.25
    :tolerance: 1 %

    **2.** How steep is a sigmoid at 0?

    - `0.5`: this is its value there.

    The slope is s (1 - s), with s = 1/2 at 0.
    :::

Read as plain Markdown, in a notebook, the reasons follow the question. The options are native
``<details>`` elements, so they need no script; what is typed is judged by `course.js`. An option
without a reason fails the build.
"""

from __future__ import annotations

import re

from docutils import nodes
from docutils.parsers.rst import directives
from folding_boxes import unlinked
from sphinx.transforms.post_transforms import SphinxPostTransform
from sphinx.util.docutils import SphinxDirective

RIGHT, WRONG = "Right.", "No."
LETTER = re.compile(r"^([A-H])\.$")
ANSWER = re.compile(r"^Answer: ([A-H])\.$")


class quiz_group(nodes.General, nodes.Element):
    """A question with its options or its field."""


class quiz_question(nodes.General, nodes.Element):
    """The question itself, which names the group."""


class quiz_option(nodes.General, nodes.Element):
    """One option and its reason; `right` tells which it is."""


class quiz_choice(nodes.General, nodes.TextElement):
    """What is shown of an option before it is chosen."""


class quiz_field(nodes.General, nodes.Element):
    """Where a typed answer goes; its children are the foreseen mistakes."""


class quiz_mistake(nodes.General, nodes.Element):
    """The reason why one typed value is wrong."""


class quiz_answer(nodes.General, nodes.Element):
    """The answer to a typed question, folded."""


def parse_tolerance(text: str, answer: float) -> float:
    """Return an absolute tolerance from "0.01", or from "1 %" of the answer."""
    text = text.strip()
    size = float(text.removesuffix("%"))
    return abs(answer) * size / 100 if text.endswith("%") else size


def first_word(item: nodes.list_item) -> nodes.Node:
    """Return the first node of an item's first paragraph; Markdown may put an empty text there."""
    first = item.children[0]
    while isinstance(first, nodes.paragraph) and not first.children[0].astext():
        first.remove(first.children[0])
    return first.children[0]


def leading_letter(item: nodes.list_item) -> str | None:
    """Return the A of an item that begins with ``**A.**``."""
    word = first_word(item)
    found = LETTER.match(word.astext()) if isinstance(word, nodes.strong) else None
    return found and found.group(1)


class Quiz(SphinxDirective):
    """``:::{quiz} label``, with ``:answer:`` and ``:tolerance:`` if a number is to be typed."""

    required_arguments = 1
    has_content = True
    option_spec = {  # noqa: RUF012
        "answer": directives.unchanged_required,
        "tolerance": directives.unchanged_required,
    }

    def run(self) -> list[nodes.Node]:
        label = nodes.make_id(f"quiz-{self.arguments[0]}")
        if label in self.state.document.ids:
            raise self.error(f"the quiz label {self.arguments[0]!r} is used twice on this page")
        body = nodes.Element()
        self.state.nested_parse(self.content, self.content_offset, body)
        group = nodes.container(classes=["quiz"], ids=[label])
        self.state.document.note_explicit_target(group)
        build = self.typed if "answer" in self.options else self.choice
        group += build(list(body.children))
        return [group]

    def choice(self, children: list[nodes.Node]) -> list[nodes.Node]:
        """Return question, options, and a box with the reasons, as other formats show them."""
        places = [k for k, child in enumerate(children) if ANSWER.match(child.astext())]
        k = places[0] if len(places) == 1 else 0
        parts = children[k - 1 : k], children[k + 1 :]
        if k < 2 or [type(p) for part in parts for p in part] != [nodes.bullet_list] * 2:
            raise self.error(
                "a quiz has a question, a list of options, a line **Answer: B.**, and a list of "
                "reasons; or it names an :answer: to type"
            )
        options, reasons = (part[0] for part in parts)
        letters = [[leading_letter(item) for item in part.children] for part in (options, reasons)]
        expected = list("ABCDEFGH")[: len(options.children)]
        if len(expected) < 2 or letters != [expected, expected]:
            raise self.error(
                "the options of a quiz begin with **A.**, **B.**, ..., and so do the reasons, one "
                f"for each; found {letters[0]} and {letters[1]}"
            )
        options["right"] = ANSWER.match(children[k].astext()).group(1)
        if options["right"] not in expected:
            raise self.error(f"the right answer (={options['right']}) must be one of {expected}")
        box = nodes.admonition("", nodes.title("", "Answer"), classes=["dropdown"])
        box += [children[k], reasons]
        return [*children[: k - 1], options, box]

    def typed(self, children: list[nodes.Node]) -> list[nodes.Node]:
        """Return question, field with its foreseen mistakes, and the answer in a box."""
        lists = [k for k, child in enumerate(children) if isinstance(child, nodes.bullet_list)]
        if len(lists) != 1 or lists[0] == 0 or lists[0] == len(children) - 1:
            raise self.error("a quiz to type has a question, a list of mistakes, and an answer")
        try:
            value = float(self.options["answer"])
            tolerance = parse_tolerance(self.options.get("tolerance", "1 %"), value)
        except ValueError:
            raise self.error(":answer: and :tolerance: must be numbers") from None
        mistakes = children[lists[0]]
        for item in mistakes:
            literal = first_word(item)
            try:
                wrong = isinstance(literal, nodes.literal) and float(literal.astext())
            except ValueError:
                wrong = False
            if wrong is False or abs(wrong - value) <= tolerance:
                raise self.error(f"a mistake begins with a wrong number: {item.astext()[:40]!r}")
        mistakes["answer"], mistakes["tolerance"] = value, tolerance
        box = nodes.admonition("", nodes.title("", "Answer"), classes=["dropdown"])
        box += children[lists[0] + 1 :]
        return [*children[: lists[0]], mistakes, box]


class AnswerAtOnce(SphinxPostTransform):
    """Turn each question into what the reader can press, before the boxes fold."""

    default_priority = 240
    formats = ("html",)

    def run(self, **kwargs) -> None:
        def is_quiz(node: nodes.Node) -> bool:
            return isinstance(node, nodes.container) and "quiz" in node["classes"]

        for node in list(self.document.findall(is_quiz)):
            *question, items, box = node.children
            group = quiz_group(ids=node["ids"])
            group += quiz_question("", *question, identity=node["ids"][0])
            group += options_of(items, box) if items.get("right") else field_of(items, box)
            node.replace_self(group)


def options_of(items: nodes.bullet_list, box: nodes.admonition) -> list[nodes.Node]:
    reasons = box.children[-1]
    made = []
    for item, reason in zip(items.children, reasons.children, strict=True):
        right = leading_letter(item) == items["right"]
        option = quiz_option(right=right)
        option += quiz_choice("", "", *unlinked(list(item.children[0].children)))
        first = reason.children[0]
        first.children[0].replace_self(nodes.strong("", RIGHT if right else WRONG))
        option += reason.children
        made.append(option)
    return made


def field_of(items: nodes.bullet_list, box: nodes.admonition) -> list[nodes.Node]:
    field = quiz_field(answer=items["answer"], tolerance=items["tolerance"])
    for item in items.children:
        mistake = quiz_mistake(value=float(item.children[0].children[0].astext()))
        first = item.children[0]
        first.children[0].replace_self(nodes.strong("", WRONG))
        rest = first.children[1]
        if isinstance(rest, nodes.Text):
            reason = rest.astext().lstrip(": ")
            first.replace(rest, nodes.Text(f" {reason[:1].upper()}{reason[1:]}"))
        mistake += item.children
        field += mistake
    answer = quiz_answer()
    answer += box.children[1:]
    return [field, answer]


def visit_group(translator, node: quiz_group) -> None:
    identity = node["ids"][0]
    translator.body.append(
        f'<div class="quiz" id="{identity}" role="group" aria-labelledby="{identity}-question">\n'
    )


def visit_question(translator, node: quiz_question) -> None:
    translator.body.append(f'<div class="quiz-question" id="{node["identity"]}-question">\n')


def visit_option(translator, node: quiz_option) -> None:
    kind = "right" if node["right"] else "wrong"
    translator.body.append(f'<details class="quiz-option {kind}">')


def visit_choice(translator, node: quiz_choice) -> None:
    translator.body.append("<summary>")


def depart_choice(translator, node: quiz_choice) -> None:
    translator.body.append("</summary>\n")


def depart_details(translator, node: nodes.Element) -> None:
    translator.body.append("</details>\n")


def visit_field(translator, node: quiz_field) -> None:
    identity = node.parent["ids"][0]
    translator.body.append(
        f'<form class="quiz-form" data-answer="{node["answer"]!r}" '
        f'data-tolerance="{node["tolerance"]!r}">'
        f'<label for="{identity}-field">Your answer</label> '
        f'<input id="{identity}-field" type="text" inputmode="text" autocomplete="off" '
        'spellcheck="false"> <button type="submit">Check</button>\n'
        '<div class="quiz-verdict" role="status"></div>\n'
    )


def depart_field(translator, node: quiz_field) -> None:
    translator.body.append("</form>\n")


def visit_mistake(translator, node: quiz_mistake) -> None:
    translator.body.append(f'<div class="quiz-mistake" data-value="{node["value"]!r}" hidden>\n')


def visit_answer(translator, node: quiz_answer) -> None:
    translator.body.append('<details class="quiz-answer"><summary>Show the answer</summary>\n')


def depart_block(translator, node: nodes.Element) -> None:
    translator.body.append("</div>\n")


def setup(app) -> dict:
    app.add_directive("quiz", Quiz)
    app.add_node(quiz_group, html=(visit_group, depart_block))
    app.add_node(quiz_question, html=(visit_question, depart_block))
    app.add_node(quiz_option, html=(visit_option, depart_details))
    app.add_node(quiz_choice, html=(visit_choice, depart_choice))
    app.add_node(quiz_field, html=(visit_field, depart_field))
    app.add_node(quiz_mistake, html=(visit_mistake, depart_block))
    app.add_node(quiz_answer, html=(visit_answer, depart_details))
    app.add_post_transform(AnswerAtOnce)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
