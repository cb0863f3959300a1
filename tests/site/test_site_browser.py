"""Checks of the built pages in a real browser: accessibility, keyboard, weight, no strangers."""

from __future__ import annotations

import base64
import gzip
import io
import itertools
import json
from importlib import resources
from pathlib import Path
from urllib.parse import urlparse

import nbformat
import numpy as np
import pytest
from PIL import Image

pytestmark = pytest.mark.browser

BOOK = Path(__file__).parents[2] / "book"
WIDE = {"width": 1366, "height": 900}
PHONE = {"width": 390, "height": 844}
PAGE_BUDGET = 500 * 1000  # bytes over the wire: text compressed, fonts and pictures as they are
COMPRESSED = ("text/", "javascript", "json", "svg")
A_QUARTER = ("0.25", "0,25", " .25 ", "1/4", "25 %", "2.5e-1", "2.5 * 10^-1", "2,5·10^(-1)",
             "250×10**-3")  # fmt: skip
NO_QUARTER = ("0.24", "-0.25", "\N{MINUS SIGN}1/4", "1/4/1", "0x1", "", "1e", "a quarter")
EVERYTHING = {"include": ["html"]}
# axe compares the color of every element with what lies behind it, and a chapter has ten thousand
# of them in code and formulas. Of each kind (a class of token, a place for formulas) one is
# checked, the other tokens become plain text and the other formulas one letter: a page takes a
# second or two instead of twenty.
ONE_OF_A_KIND = """
    const kinds = new Set();
    const repeated = (kind) => kinds.has(kind) || !kinds.add(kind);
    for (const token of document.querySelectorAll(".highlight span")) {
        const place = token.closest(".cell_output") ? "output" : "input";
        if (repeated(`${place} ${token.className}`)) token.replaceWith(token.textContent);
    }
    for (const formula of document.querySelectorAll(".katex-html")) {
        const place = formula.closest(".admonition, th, td, h1, h2, h3, h4, blockquote, p, div");
        if (repeated(`${place.tagName} ${place.className}`)) {
            formula.previousElementSibling.textContent = "x";
            formula.remove();
        } else formula.textContent = formula.textContent;
    }
"""


@pytest.fixture(scope="session")
def axe() -> str:
    source = resources.files("axe_playwright_python") / "axe.min.js"
    return source.read_text(encoding="utf-8")


class Visit:
    """One page in one window, with everything it asked for and complained about."""

    def __init__(self, browser, size, **options) -> None:
        self.context = browser.new_context(viewport=size, **options)
        self.tab = self.context.new_page()
        self.strangers, self.complaints, self.weight = [], [], 0
        self.context.route("**/*", self.only_from_here)
        self.tab.on("console", self.note)
        self.tab.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.tab.on("requestfailed", self.miss)
        self.tab.on("response", self.weigh)

    def only_from_here(self, route) -> None:
        address = urlparse(route.request.url)
        if address.scheme in ("file", "data", "blob") or address.hostname == "127.0.0.1":
            route.continue_()
        else:
            self.strangers.append(route.request.url)
            route.abort()

    def note(self, message) -> None:
        if message.type in ("error", "warning"):
            self.complaints.append(message.text)

    def miss(self, request) -> None:
        # A reader who leaves the page before its icon has arrived has not missed anything.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"{request.url}: {request.failure}")

    def weigh(self, response) -> None:
        if not response.url.startswith("http") or response.status != 200:
            return
        body, kind = response.body(), response.headers.get("content-type", "")
        self.weight += len(gzip.compress(body) if any(k in kind for k in COMPRESSED) else body)

    def violations(self, axe, *rules, within=None, without=()) -> list[str]:
        options = {
            "preload": False, "resultTypes": ["violations"],
            "rules": {rule: {"enabled": False} for rule in without},
        }  # fmt: skip
        if rules:
            options["runOnly"] = {"type": "rule", "values": rules}
        if not self.tab.evaluate("typeof axe === 'object'"):
            self.tab.evaluate(axe)
        found = self.tab.evaluate(
            f"""async options => {{
                {ONE_OF_A_KIND}
                for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
                const found = await axe.run({json.dumps(within or EVERYTHING)}, options);
                return found.violations;
            }}""",
            options,
        )
        return [f"{one['id']}: {node['html'][:200]}" for one in found for node in one["nodes"]]

    def load_everything(self) -> None:
        """Lay out every section and fetch every picture, as if the reader had been everywhere."""
        self.tab.add_style_tag(content="section { content-visibility: visible !important }")
        self.tab.evaluate("""async () => {
            const pictures = [...document.images];
            pictures.forEach(picture => { picture.loading = "eager"; });
            document.querySelectorAll(".quiz details").forEach(box => { box.open = true; });
            await Promise.all(pictures.map(picture => picture.decode()));
            await document.fonts.ready;
            for (let frame = 0; frame < 3; frame++) await new Promise(requestAnimationFrame);
        }""")


@pytest.fixture
def visit(browser):
    visits = []

    def open_page(address, size=WIDE, **options) -> Visit:
        made = Visit(browser, size, **options)
        visits.append(made)
        made.tab.goto(address)
        return made

    yield open_page
    for made in visits:
        made.context.close()


@pytest.mark.parametrize("size", [WIDE, PHONE], ids=["wide", "phone"])
def test_a_page_is_accessible_light_quiet_and_ours_alone(visit, base_url, axe, page, size):
    seen = visit(f"{base_url}{page}.html", size, color_scheme="light", reduced_motion="reduce")
    seen.load_everything()
    assert seen.strangers == []
    assert seen.complaints == []
    assert seen.weight <= PAGE_BUDGET, f"{seen.weight / 1000:.0f} kB"
    assert seen.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    # An article has the same colors at every width: they are compared in the wide window.
    colors = ("color-contrast", "link-in-text-block")
    place = {"exclude": ["main"]} if size is PHONE else EVERYTHING
    assert seen.violations(axe, without=colors) == []
    assert seen.violations(axe, *colors, within=place) == []
    seen.tab.click(".mode-button")
    assert seen.tab.evaluate("document.documentElement.dataset.mode") == "dark"
    assert seen.violations(axe, *colors, within=place) == []


def test_a_page_opened_from_disk_is_complete(visit, site, page):
    seen = visit((site / f"{page}.html").as_uri(), PHONE)
    seen.load_everything()
    assert seen.complaints == []
    assert seen.strangers == []
    loaded = seen.tab.evaluate("""[...document.fonts]
        .filter(face => face.status === "loaded").map(face => face.family)""")
    assert any("Source Serif" in family for family in loaded)


def first_page_with(site, selector) -> str:
    from bs4 import BeautifulSoup

    from .conftest import docnames

    for docname in docnames():
        text = (site / f"{docname}.html").read_text(encoding="utf-8")
        if BeautifulSoup(text, "html.parser").select_one(selector):
            return f"{docname}.html"
    pytest.fail(f"no page of the book has {selector}")


def shown_frameworks(tab) -> set[str]:
    return set(tab.evaluate("""() => [...document.querySelectorAll(".tab-panel")]
        .filter(panel => panel.checkVisibility()).map(panel => panel.dataset.framework)"""))


def test_tabs_work_from_the_keyboard_and_are_remembered(visit, site, base_url):
    address = base_url + first_page_with(site, "[role=tab]")
    seen = visit(address)
    assert shown_frameworks(seen.tab) == {"pytorch"}
    seen.tab.locator("[role=tab][aria-selected=true]").first.focus()
    seen.tab.keyboard.press("ArrowRight")
    assert shown_frameworks(seen.tab) == {"tensorflow"}
    focused = "document.activeElement.dataset.framework"
    assert seen.tab.evaluate(focused) == "tensorflow"
    seen.tab.reload()
    assert shown_frameworks(seen.tab) == {"tensorflow"}
    assert seen.tab.locator("[role=tab][aria-selected=true]").first.inner_text() == "TensorFlow"
    seen.tab.locator("[role=tab][aria-selected=true]").first.focus()
    seen.tab.keyboard.press("Home")
    assert shown_frameworks(seen.tab) == {"pytorch"}
    seen.tab.keyboard.press("ArrowLeft")  # wraps around
    assert shown_frameworks(seen.tab) == {"tensorflow"}


def test_both_frameworks_show_on_paper_and_without_scripts(visit, site, base_url):
    address = base_url + first_page_with(site, "[role=tab]")
    seen = visit(address)
    seen.tab.emulate_media(media="print")
    assert shown_frameworks(seen.tab) == {"pytorch", "tensorflow"}
    plain = visit(address, java_script_enabled=False)
    for panel in plain.tab.locator(".tab-panel").all():
        assert panel.is_visible()
    assert plain.tab.locator(".tab-title").first.is_visible()
    assert not plain.tab.locator("[role=tablist]").first.is_visible()


def test_an_option_shows_its_reason_from_the_keyboard_and_without_scripts(visit, site, base_url):
    address = base_url + first_page_with(site, ".quiz-option")
    for options in ({}, {"java_script_enabled": False}):
        option = visit(address, **options).tab.locator(".quiz-option").first
        reason = option.locator("p").first
        assert not reason.is_visible()
        option.locator("summary").press("Enter")
        assert reason.inner_text().startswith(("Right. ", "No. "))


def test_what_is_typed_is_answered_at_once(visit, site, base_url, docname):
    if "quiz-form" not in (site / f"{docname}.html").read_text(encoding="utf-8"):
        return  # nothing to type there
    tab = visit(f"{base_url}{docname}.html").tab
    for form in tab.locator(".quiz-form").all():
        field, verdict = form.locator("input"), form.locator(".quiz-verdict")
        for mistake in form.locator(".quiz-mistake").all():
            field.fill(mistake.get_attribute("data-value"))
            field.press("Enter")
            assert verdict.text_content().strip() == mistake.text_content().strip()
        field.fill("perhaps")
        field.press("Enter")
        assert "type a number" in verdict.inner_text()
        field.fill(form.get_attribute("data-answer"))
        form.locator("button").click()
        assert verdict.inner_text() == "Right."


def test_numbers_are_read_as_people_write_them(visit, site, base_url):
    tab = visit(base_url + first_page_with(site, ".quiz-form")).tab
    form = tab.locator(".quiz-form").first
    form.evaluate("form => { form.dataset.answer = 0.25; form.dataset.tolerance = 0.001; }")
    said = {}
    for typed in (*A_QUARTER, *NO_QUARTER):
        form.locator("input").fill(typed)
        form.locator("button").click()
        said[typed] = form.locator(".quiz-verdict").inner_text() == "Right."
    assert said == dict.fromkeys(A_QUARTER, True) | dict.fromkeys(NO_QUARTER, False)


def test_the_color_mode_follows_the_system_and_then_the_reader(visit, site, base_url):
    address = base_url + first_page_with(site, "h1")
    background = "getComputedStyle(document.body).backgroundColor"
    light = visit(address, color_scheme="light").tab.evaluate(background)
    seen = visit(address, color_scheme="dark")
    assert seen.tab.evaluate(background) != light
    seen.tab.locator(".mode-button").focus()
    seen.tab.keyboard.press("Enter")
    assert seen.tab.evaluate(background) == light
    seen.tab.reload()
    assert seen.tab.evaluate(background) == light
    assert seen.tab.locator(".mode-button").get_attribute("aria-pressed") == "false"


def test_the_skip_link_is_first_and_leads_to_the_text(visit, site, base_url):
    seen = visit(base_url + first_page_with(site, "h1"))
    seen.tab.keyboard.press("Tab")
    assert seen.tab.evaluate("document.activeElement.className") == "skip"
    seen.tab.keyboard.press("Enter")
    assert seen.tab.evaluate("document.activeElement.id") == "main"


def test_the_contents_open_and_close_on_a_phone(visit, site, base_url):
    seen = visit(base_url + first_page_with(site, "h1"), PHONE)
    contents, button = seen.tab.locator("nav.contents"), seen.tab.locator(".contents-button")
    assert not contents.is_visible()
    button.click()
    assert contents.is_visible()
    assert button.get_attribute("aria-expanded") == "true"
    seen.tab.keyboard.press("Escape")
    assert not contents.is_visible()
    assert seen.tab.evaluate("document.activeElement.className").split()[-1] == "contents-button"
    plain = visit(base_url + first_page_with(site, "h1"), PHONE, java_script_enabled=False)
    assert plain.tab.locator("nav.contents").is_visible()


def test_wide_formulas_scroll_with_the_keyboard(visit, site, base_url):
    seen = visit(base_url + first_page_with(site, ".math-scroll"), PHONE)
    seen.load_everything()
    wide = """() => [...document.querySelectorAll(".math-scroll, .highlight pre, .table-scroll")]
        .filter(box => box.checkVisibility() && box.scrollWidth > box.clientWidth)"""
    seen.tab.wait_for_function(f"() => ({wide})().every(box => box.tabIndex === 0)")
    assert seen.tab.evaluate(f"({wide})().length") > 0
    moved = seen.tab.evaluate(f"""() => {{
        const box = ({wide})()[0]; box.scrollLeft = 40; return box.scrollLeft; }}""")
    assert moved > 0


def test_links_within_a_page_land_on_their_heading(visit, site, base_url):
    seen = visit(base_url + first_page_with(site, ".on-page li li + li + li"))
    links = seen.tab.locator(".on-page a[href^='#']:visible")
    for link in (links.last, links.nth(links.count() // 2)):
        link.click()
        seen.tab.wait_for_timeout(200)  # sections on the way are laid out only now
        top = seen.tab.evaluate("""hash => document.getElementById(hash.slice(1))
            .querySelector("h1, h2, h3, h4").getBoundingClientRect().top""",
            link.get_attribute("href"))
        assert 0 <= top < WIDE["height"] / 2 or seen.tab.evaluate(
            "Math.ceil(scrollY + innerHeight) >= document.documentElement.scrollHeight")


def test_leaving_early_is_no_complaint_and_a_missing_file_is_one(visit, site, base_url):
    seen = visit(f"{base_url}search.html")
    held = []
    seen.tab.route("**/logo.svg?late", lambda route: held.append(route))
    ask = "name => { fetch(name).catch(() => null); }"
    with seen.tab.expect_event("requestfailed") as left:
        seen.tab.evaluate(ask, "_static/logo.svg?late")
        seen.tab.wait_for_timeout(100)
        seen.tab.goto(base_url + first_page_with(site, "h1"))
    assert left.value.failure == "net::ERR_ABORTED"
    assert len(held) == 1
    assert seen.complaints == []
    seen.tab.route("**/gone.svg", lambda route: route.abort("connectionrefused"))
    with seen.tab.expect_event("requestfailed"):
        seen.tab.evaluate(ask, "_static/gone.svg")
    assert any("gone.svg" in complaint for complaint in seen.complaints)


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_the_search_finds_a_term(visit, site, base_url, scheme):
    root = base_url if scheme == "http" else f"{site.as_uri()}/"
    seen = visit(root + first_page_with(site, "h1"))
    seen.tab.fill("#q", "jacobian")
    seen.tab.keyboard.press("Enter")
    seen.tab.wait_for_url("**/search.html?q=jacobian")
    seen.tab.wait_for_function("/found [1-9]/.test(document.body.innerText)")
    results = seen.tab.locator("#search-results li a")
    assert results.count() > 0
    assert seen.complaints == []
    assert len(seen.tab.locator("input[type=search]").all()) == 1
    results.first.click()
    seen.tab.wait_for_load_state()
    assert "jacobian" in seen.tab.locator("main").inner_text().lower()


def test_panels_stand_side_by_side_on_a_wide_screen(visit, site, base_url):
    seen = visit(base_url + first_page_with(site, ".panels"))
    seen.load_everything()
    shown = seen.tab.evaluate("""() => ["figure.panelled img", ".panels"].map(
        kind => document.querySelector(kind).checkVisibility())""")
    assert shown == [True, False]


def test_panels_stand_below_each_other_on_a_phone(visit, site, base_url):
    seen = visit(base_url + first_page_with(site, ".panels"), PHONE)
    seen.load_everything()
    figure = seen.tab.locator("figure.panelled").first
    whole = figure.locator("img")
    assert not whole.is_visible()
    boxes = [panel.bounding_box() for panel in figure.locator(".panel").all()]
    assert all(box["x"] >= 0 and box["x"] + box["width"] <= PHONE["width"] for box in boxes)
    assert all(a["y"] + a["height"] <= b["y"] for a, b in itertools.pairwise(boxes))
    assert seen.tab.evaluate("document.documentElement.scrollWidth <= innerWidth")


def stored_picture(words) -> tuple[Image.Image, list]:
    """Return the picture that a notebook shows with these words, in gray, and its panels."""
    for path in sorted(BOOK.glob("*.ipynb")):
        for cell in nbformat.read(path, 4).cells:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if "image/png" in data and data.get("text/plain") == words:
                    picture = Image.open(io.BytesIO(base64.b64decode(data["image/png"])))
                    return picture.convert("L"), json.loads(picture.text["Panels"])
    pytest.fail(f"no notebook shows a picture with the words {words!r}")


def test_each_panel_shows_its_own_part_of_the_picture(visit, site, base_url):
    """The style sheet's percentages against the pixels that they are to show."""
    seen = visit(base_url + first_page_with(site, ".panels"), PHONE, color_scheme="light")
    seen.load_everything()
    figure = seen.tab.locator("figure.panelled").first
    picture, panels = stored_picture(figure.locator("img").get_attribute("alt"))
    shown = figure.locator(".panel").all()
    assert len(shown) == len(panels)
    for element, (left, top, right, bottom, _) in zip(shown, panels, strict=True):
        seen_pixels = Image.open(io.BytesIO(element.screenshot())).convert("L")
        edges = (left * picture.width, top * picture.height,
                 right * picture.width, bottom * picture.height)  # fmt: skip
        wanted = picture.resize(seen_pixels.size, Image.Resampling.BOX, box=edges)
        assert max(map(abs, displacement(np.asarray(seen_pixels), np.asarray(wanted)))) <= 1


def displacement(seen, wanted, most=4) -> tuple[int, int]:
    """Return by how many pixels, down and across, the one lies best on the other."""
    height, width = seen.shape
    inside = wanted[most : height - most, most : width - most].astype(np.float64)
    moves = list(itertools.product(range(-most, most + 1), repeat=2))
    return min(moves, key=lambda move: np.abs(seen[
        most + move[0] : height - most + move[0], most + move[1] : width - most + move[1]
    ] - inside).mean())  # fmt: skip


def test_figures_have_a_light_panel_in_dark_mode(visit, site, base_url):
    seen = visit(base_url + first_page_with(site, "figure.plot"), color_scheme="dark")
    style = seen.tab.evaluate("""() => {
        const style = getComputedStyle(document.querySelector("figure.plot img"));
        return [style.backgroundColor, parseFloat(style.borderTopLeftRadius)]; }""")
    assert style[0] == "rgb(255, 255, 255)"
    assert style[1] > 0
