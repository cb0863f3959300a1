"""The built pages as one document, made for paper: what `pdf.py` prints.

Pages follow one another in the order of the table of contents, under the titles of its parts.
Links between pages become links within the document. What opens on a screen is laid out for
reading: both frameworks one after the other, and the answers to questions and the solutions to
exercises at the end of each chapter, where nobody sees them before having tried.
"""

from __future__ import annotations

import html
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urldefrag

import yaml
from bs4 import BeautifulSoup, Tag

ANSWERS = "Answers and solutions"
POINTING = ("aria-labelledby", "aria-controls", "for")
ON_SCREEN_ONLY = ".headerlink, .tab-list, .copy, .panels, script"
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8"><title>{title}</title><meta name="author" content="{author}">
<link rel="stylesheet" href="{pages}/_static/course.css">
<style>
{style}
{heads}
</style>
</head>
<body>
<header class="title-page" id="title-page">
<img src="{pages}/_static/logo.svg" alt="">
<p class="book-title">{title}</p><p class="book-subtitle">{tagline}</p>
<p class="book-facts">{facts}</p>
</header>
<nav class="book-contents" aria-labelledby="contents-title"><h1 id="contents-title">Contents</h1>
{contents}
</nav>
{body}
</body>
</html>
"""
RUNNING_HEAD = '@page {name} {{ @top-left {{ content: "{title}"; }} }} #{name} {{ page: {name}; }}'


@dataclass(frozen=True)
class Part:
    """A part of the book: its title, None for what precedes the first, and its pages' names."""

    title: str | None
    pages: tuple[str, ...]


def parts_of(toc: Path) -> list[Part]:
    """Return the parts that the table of contents lists."""
    listed = yaml.safe_load(toc.read_text(encoding="utf-8"))
    parts = [Part(None, (listed["root"],))]
    for part in listed.get("parts", []):
        parts.append(Part(part["caption"], tuple(page["file"] for page in part["chapters"])))
    return parts


def name_of(page: str, anchor: str = "") -> str:
    """Return the id, in the whole document, of a page or of an anchor in it."""
    name = page.replace("/", "-")
    return f"{name}--{anchor}" if anchor else name


def build_element(soup: BeautifulSoup, markup: str) -> Tag:
    """Return the one element that the markup describes."""
    return BeautifulSoup(markup, "html.parser").find(True).extract()


def set_ids_and_links(article: Tag, page: str, known: set[str], pages: str) -> None:
    """Make every id unique in the whole document, and let every address fit."""
    for tag in article.find_all(True):
        if tag.get("id"):
            tag["id"] = name_of(page, tag["id"])
        for attribute in POINTING:
            if tag.get(attribute):
                tag[attribute] = name_of(page, tag[attribute])
        if tag.get("src"):
            tag["src"] = f"{pages}/{posixpath.normpath(posixpath.join(page, '..', tag['src']))}"
        for attribute in ("loading", "tabindex"):
            del tag[attribute]
    for link in article.find_all("a", href=True):
        if "://" in link["href"] or link["href"].startswith("mailto:"):
            continue
        path, anchor = urldefrag(link["href"])
        there = posixpath.normpath(posixpath.join(page, "..", unquote(path))) if path else page
        there = there.removesuffix(".html")
        if there in known:
            link["href"] = f"#{name_of(there, unquote(anchor))}"
        else:  # a file beside the book: there is none beside a PDF
            link.unwrap()


def answers_at_the_end(article: Tag, page: str) -> None:
    """Move answers and solutions behind the chapter, with links there and back."""
    entries = []

    def move(title: str, body: list, home: Tag) -> None:
        number = len(entries) + 1
        if not title[-1].isdigit():  # "Solution" alone would say nothing there
            above = home.find_previous(["h1", "h2", "h3", "h4"]).get_text().strip()
            title = f"{title}: {above}"
        there, here = name_of(page, f"answer-{number}"), home.get("id") or name_of(
            page, f"question-{number}")  # fmt: skip
        home["id"] = here
        title = html.escape(title)
        link = f'<p class="to-answer"><a href="#{there}">{title}</a></p>'
        home.append(build_element(article, link))
        entry = build_element(article, f'<div class="answer" id="{there}"><p class="answer-title">'
                              f'<a href="#{here}">{title}</a></p></div>')  # fmt: skip
        entry.extend(body)
        entries.append(entry)

    for box in list(article.select("div.quiz, details.admonition, details.hidden-cell")):
        if box.name == "div":
            move(*quiz_on_paper(box), box)
            continue
        title = box.summary.extract().get_text().strip()
        box.name = "div"
        if title.startswith(("Answer", "The answer", "Solution")):
            body = [child.extract() for child in list(box.contents)]
            box["class"] = ["answered"]
            move(title, body, box)
        elif "admonition" in box["class"]:
            heading = f'<p class="admonition-title">{html.escape(title)}</p>'
            box.insert(0, build_element(article, heading))
    if entries:
        end = build_element(article, f'<section class="answers" id="{name_of(page)}-answers">'
                            f"<h2>{ANSWERS}</h2></section>")  # fmt: skip
        end.extend(entries)
        article.append(end)


def quiz_on_paper(quiz: Tag) -> tuple[str, list[Tag]]:
    """Leave the question and its options; return the answer's title and what is to be moved."""
    strong = quiz.select_one(".quiz-question strong")
    number = strong.get_text().strip(" .") if strong else ""
    title = f"Answer to question {number}".strip() if number.isdigit() else "Answer"
    form, moved = quiz.find("form"), []
    if form is None:
        for option in quiz.select("details.quiz-option"):
            choice = option.summary.extract()
            letter = choice.find("strong").get_text().strip()
            choice.name, choice["class"] = "p", ["quiz-choice"]
            option.insert_before(choice)
            option.name = "div"
            first = option.find("p")
            first.insert(0, build_element(quiz, f"<span>{letter} </span>"))
            moved.append(option.extract())
        return title, moved
    answer = quiz.select_one("details.quiz-answer").extract()
    answer.summary.extract()
    answer.name = "div"
    moved.append(build_element(quiz, f"<p><strong>{float(form['data-answer']):g}</strong></p>"))
    moved.append(answer)
    for mistake in form.select(".quiz-mistake"):
        del mistake["hidden"]
        found = f"<span>{float(mistake['data-value']):g}? </span>"
        mistake.find("p").insert(0, build_element(quiz, found))
        moved.append(mistake.extract())
    form.extract()
    return title, moved


def lower_headings(article: Tag) -> None:
    """A chapter stands below its part, in the headings and so in the PDF's bookmarks."""
    for level in (4, 3, 2, 1):
        for heading in article.find_all(f"h{level}"):
            heading.name = f"h{level + 1}"


def read_article(built: Path, page: str, known: set[str], pages: str) -> Tag:
    """Return the text of one built page, ready to stand among the others."""
    text = (built / f"{page}.html").read_text(encoding="utf-8")
    article = BeautifulSoup(text, "html.parser").article.extract()
    for tag in article.select(ON_SCREEN_ONLY):
        tag.extract()
    set_ids_and_links(article, page, known, pages)
    article["id"] = name_of(page)
    article.find("h1")["class"] = ["chapter-title"]
    answers_at_the_end(article, page)
    return article


def contents_lines(titles: list[tuple[int, str, str]]) -> Iterator[str]:
    """Yield the lines of the contents for (level, id, title)."""
    for level, name, title in titles:
        yield (f'<p class="level-{level}"><a href="#{name}"><span>{html.escape(title)}</span>'
               f'<span class="page" data-for="{name}"></span></a></p>')  # fmt: skip


def running_head(name: str, title: str) -> str:
    """Return the style that writes a page's title above its text."""
    quoted = title.replace("\\", "\\\\").replace('"', '\\"')
    return RUNNING_HEAD.format(name=name, title=quoted)


def whole_book(built: Path, parts: list[Part], *, style: str, facts: str, pages: str,
               title: str, tagline: str, author: str) -> str:  # fmt: skip
    """Return the document.

    Arguments:
        built: the folder of the built pages.
        parts: what is printed, in order.
        style: the stylesheet for paper.
        facts: what the title page says at its foot, as HTML.
        pages: the address of `built`, relative to where the document will lie.
    """
    known = {page for part in parts for page in part.pages}
    titles, heads, body = [], [], []
    for number, part in enumerate(parts):
        if part.title is not None:
            name = f"part-{number}"
            titles.append((0, name, part.title))
            body.append(f'<section class="part" id="{name}"><h1>{html.escape(part.title)}</h1>'
                        "</section>")  # fmt: skip
        for page in part.pages:
            article = read_article(built, page, known, pages)
            heading = article.find("h1").get_text().strip()
            titles.append((1 if part.title else 0, name_of(page), heading))
            heads.append(running_head(name_of(page), heading))
            if part.title is not None:
                lower_headings(article)
            body.append(str(article))
    return PAGE.format(
        title=html.escape(title), tagline=html.escape(tagline), author=html.escape(author),
        facts=facts, pages=pages, style=style, heads="\n".join(heads),
        contents="\n".join(contents_lines(titles)), body="\n".join(body),
    )  # fmt: skip
