"""Lower bounds in pyproject.toml, exact pins in requirements.lock, and the two agree."""

from __future__ import annotations

import importlib.metadata
import re
import tomllib
from pathlib import Path

import pytest
from _tools.version_sets import COLAB, name_and_bound
from packaging.markers import Marker
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCK_LINES = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
PINS = [Requirement(line) for line in LOCK_LINES if line and not line.lstrip().startswith("#")]
EXTRAS = PROJECT["optional-dependencies"]


def requirements(*extras: str) -> list[Requirement]:
    """The package's own requirements, with those of the named extras."""
    names = PROJECT["dependencies"] + [name for extra in extras for name in EXTRAS[extra]]
    return [Requirement(name) for name in names]


def test_the_extras_are_those_that_are_promised():
    assert set(EXTRAS) == {"torch", "tensorflow", "book", "cluster", "pdf", "test"}


@pytest.mark.parametrize("requirement", requirements("torch", "tensorflow", "test"), ids=str)
def test_a_requirement_has_a_lower_bound_and_no_other(requirement):
    assert [s.operator for s in requirement.specifier] == [">="]


@pytest.mark.parametrize("requirement", requirements("torch", "tensorflow", "test"), ids=str)
def test_a_requirement_admits_what_colab_holds(requirement):
    name = canonicalize_name(requirement.name)
    assert name not in COLAB or requirement.specifier.contains(COLAB[name])


@pytest.mark.parametrize("name", COLAB)
def test_colab_lies_between_the_lower_bound_and_the_lock(name):
    """Else one of the three is never tested, or the book is stored with less than readers have."""
    bounds = dict(name_and_bound(str(r)) for r in requirements("torch", "tensorflow", "test"))
    locked = {pin.name: str(pin.specifier).removeprefix("==") for pin in PINS}
    if name in bounds:  # ipywidgets is Colab's alone
        assert Version(bounds[name]) <= Version(COLAB[name]) <= Version(locked[name])


def test_plain_installation_brings_no_framework():
    names = {canonicalize_name(r.name) for r in requirements()}
    assert names == {"numpy", "matplotlib", "scikit-learn", "threadpoolctl"}


def test_the_lock_holds_exact_pins_and_nothing_else():
    assert all(re.fullmatch(r"==[\w.]+", str(pin.specifier)) for pin in PINS)
    assert all(pin.url is None for pin in PINS)
    assert not [line for line in LOCK_LINES if line.startswith("-") or "://" in line]


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13"])
@pytest.mark.parametrize("system", ["linux", "darwin"])
def test_every_requirement_is_pinned_once_on_each_platform(python, system):
    environment = {
        "python_version": python,
        "python_full_version": f"{python}.9",
        "sys_platform": system,
        "platform_system": system.capitalize(),
        "platform_machine": "arm64" if system == "darwin" else "x86_64",
    }
    pinned = [
        canonicalize_name(pin.name)
        for pin in PINS
        if pin.marker is None or Marker(str(pin.marker)).evaluate(environment)
    ]
    needed = {canonicalize_name(r.name) for r in requirements(*EXTRAS)} | {"setuptools"}
    assert needed <= set(pinned)
    assert len(pinned) == len(set(pinned))


def test_the_lock_leaves_cuda_to_torch():
    assert not [pin.name for pin in PINS if re.match(r"nvidia|cuda|triton", pin.name)]
    assert Requirement("torch==2.13.0") in PINS


def test_what_is_installed_is_what_is_pinned():
    """Outputs are compared with stored ones, so they are computed by the same versions."""
    other = {}
    for pin in PINS:
        if pin.marker is not None and not pin.marker.evaluate():
            continue
        try:
            installed = importlib.metadata.version(pin.name)
        except importlib.metadata.PackageNotFoundError:
            installed = "nothing"
        if not pin.specifier.contains(installed, prereleases=True):
            other[str(pin)] = installed
    assert other == {}, "run `make test`, which installs the pinned versions"
