"""What README.md and CONTRIBUTING.md promise is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from _tools import readme_picture
from _tools.pictures import compare_pictures
from _tools.repository import NOTEBOOKS_BRANCH

ROOT = Path(__file__).resolve().parents[2]
PAGES = ("README.md", "CONTRIBUTING.md", "CHANGELOG.md",
         "exercises/README.md", "solutions/README.md")  # fmt: skip
# From a page at the root, as GitHub shows it, this leads to a branch of whichever repository it is.
ON_GITHUB = f"../../tree/{NOTEBOOKS_BRANCH}#readme"
TARGETS = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))


def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", PAGES)
def test_every_link_leads_somewhere(name):
    links = re.findall(r"\]\(([^)\s]+)\)|^\[[\w-]+\]: (\S+)$", read(name), re.M)
    local = [link for pair in links for link in pair if link and "://" not in link]
    local = [link for link in local if link != ON_GITHUB]
    assert [link for link in local if not ((ROOT / name).parent / link).exists()] == []


def test_the_button_leads_to_the_notebooks_of_any_fork():
    """No address is in the sources: the link is relative, and every use of it is defined."""
    text = read("README.md")
    assert text.endswith(f"\n[colab]: {ON_GITHUB}\n")
    assert text.count("[colab]") == 3
    assert "colab-badge.svg)][colab]" in text


@pytest.mark.parametrize("name", PAGES)
def test_every_make_command_exists(name):
    commands = re.findall(r"(?:^|`)make ([a-z][a-z-]*)", read(name), re.M)
    assert set(commands) <= TARGETS


def test_the_first_screen_holds_the_picture_the_commands_and_the_uses():
    first_screen = read("README.md").split("## What is here")[0]
    for promised in ("readme.png", "make book", "make test", "**Read.**", "**Run.**", "**Practice"):
        assert promised in first_screen


@pytest.fixture(scope="module")
def flows():
    """The gradients that the picture shows."""
    networks = readme_picture.NETWORKS.items()
    return {name: readme_picture.compute_flows(spec) for name, spec in networks}


def test_the_picture_is_what_the_library_computes(flows):
    stored = readme_picture.TARGET.read_bytes()
    difference = compare_pictures(stored, readme_picture.render(flows))
    assert difference is None, f"{difference.describe()}; run book/_tools/readme_picture.py"


def test_the_picture_is_described_truly(flows):
    """README's words: about one decade for ReLU, many for sigmoid, the same points for all."""
    sigmoid, relu = (results[0].weight_grad_norms for results in flows.values())
    assert max(relu) / min(relu) < 30
    assert max(sigmoid) / min(sigmoid) > 1e12
    for reference, *others in flows.values():
        for other in others:
            assert other.weight_grad_norms == pytest.approx(
                reference.weight_grad_norms,
                rel=1e-9,  # float64; the early layers' norms carry the rounding of 30 layers
            )


def test_an_empty_folder_says_so_and_a_full_one_does_not():
    for folder in ("exercises", "solutions"):
        says_empty = "There are no notebooks here yet." in read(f"{folder}/README.md")
        assert says_empty == (not list((ROOT / folder).glob("*.ipynb")))
