"""The sets of versions that the notebooks are compared on, and environments that hold them.

    python book/_tools/version_sets.py lowest             # print what the set consists of
    python book/_tools/version_sets.py lowest --into ENV  # make the environment

Nothing is typed twice: the lower bounds are read from `pyproject.toml`, where they are promised,
and the newest releases are whatever pip finds for the names there.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import tomllib
from dataclasses import dataclass
from datetime import date
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
EXTRAS = ("torch", "tensorflow", "test")

COLAB = {
    "numpy": "2.1.3",
    "matplotlib": "3.10.0",
    "torch": "2.11.0",
    "tensorflow": "2.20.0",
    "keras": "3.13.2",
    "ipykernel": "6.17.1",
    "ipywidgets": "7.7.1",
}
"""What Colab holds in August 2026, under Python 3.13. Installing the course replaces none of it."""


@dataclass(frozen=True)
class VersionSet:
    """One set: its name in a sentence, and the Python that it is made with."""

    title: str
    python: str


SETS = {
    "colab": VersionSet("Colab's versions", "3.13"),
    "lowest": VersionSet("the lower bounds of pyproject.toml", "3.11"),
    "newest": VersionSet("the newest releases", "3.13"),
}


def declared(root: Path = ROOT) -> list[str]:
    """The requirements in pyproject.toml: the package's own, both frameworks', the tests'."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = project["optional-dependencies"]
    return [*project["dependencies"], *(line for name in EXTRAS for line in extras[name])]


def name_and_bound(requirement: str) -> tuple[str, str]:
    """Return "numpy" and "2.0" for "numpy>=2.0".

    Raises:
        ValueError: if the requirement is anything but a name and one lower bound.
    """
    found = re.fullmatch(r"([\w.-]+)>=([\w.]+)", requirement)
    if found is None:
        raise ValueError(f"`requirement` (={requirement!r}) must be a name and a lower bound.")
    return found.group(1), found.group(2)


def requirements_of(name: str, root: Path = ROOT) -> list[str]:
    """Return what pip is asked for to make the set `name`."""
    bounds = dict(map(name_and_bound, declared(root)))
    if name == "lowest":
        return [f"{package}=={bound}" for package, bound in bounds.items()]
    if name == "newest":
        return list(bounds)
    pinned = [f"{package}=={version}" for package, version in COLAB.items()]
    return pinned + [package for package in bounds if package not in COLAB]


def today() -> str:
    """The day, as 2026-08-01."""
    return date.today().isoformat()


def make_environment(name: str, folder: Path, root: Path = ROOT) -> Path:
    """Make a virtual environment that holds the set, and return its Python.

    One that was made from the same list is used again; the newest releases, which are others
    tomorrow, on the same day: so notebooks and tests meet the same ones. `PYTHON_UNDER_TEST` names
    the Python to make it with; otherwise pythonX.Y is looked for.

    Raises:
        ValueError: if there is no such Python.
    """
    base = os.environ.get("PYTHON_UNDER_TEST") or f"python{SETS[name].python}"
    python, stamp = folder / "bin" / "python", folder / "set.txt"
    wanted = requirements_of(name, root)
    listed = "\n".join([base, *wanted, *([today()] if name == "newest" else [])])
    if stamp.is_file() and stamp.read_text(encoding="utf-8") == listed:
        return python
    try:
        subprocess.run([base, "-m", "venv", "--clear", str(folder)], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        raise ValueError(
            f"`PYTHON_UNDER_TEST` (={base!r}) must be a Python {SETS[name].python} with venv: "
            f"{error}"
        ) from error
    print(f"==> Installing {SETS[name].title} into {folder} (minutes)", flush=True)
    pip = [str(python), "-m", "pip", "--disable-pip-version-check", "install", "--quiet"]
    subprocess.run([*pip, *wanted], check=True)
    stamp.write_text(listed, encoding="utf-8")
    return python


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("set", choices=SETS)
    parser.add_argument("--into", type=Path, help="make the environment in this folder")
    given = parser.parse_args()
    if given.into is None:
        print("\n".join(requirements_of(given.set)))
    else:
        make_environment(given.set, given.into)
