"""The head of a notebook for Colab: what it was made with, and the cell that brings the library.

The cell installs `course_lib` if it is missing and no other package: `--no-deps` leaves every one
that is there as it is, and `--no-compile` leaves compiling to the first import. It asks a GPU for
whole float32 products, unless the reader has decided. It says in
a sentence what it did, or what to do: where nothing can be installed, where another version is
there already, and where a framework is missing.
"""

from __future__ import annotations

import re

from nbformat import NotebookNode
from nbformat.v4 import new_code_cell, new_markdown_cell

from _tools.repository import Edition, Repository

BADGE = "https://colab.research.google.com/assets/colab-badge.svg"

SOURCE = '''\
# @title Run this cell first: it installs course_lib if it is missing, and nothing else
def bring_course_lib(made_with, wanted, needed):
    import importlib.util
    import os
    import subprocess
    import sys

    # On some GPUs, products of float32 keep 10 of 23 bits unless told not to: other numbers.
    os.environ.setdefault("NVIDIA_TF32_OVERRIDE", "0")

    def is_missing(module):
        return importlib.util.find_spec(module) is None

    missing = [module for module in needed.split() if is_missing(module)]
    if missing:
        names = " ".join(missing).replace("sklearn", "scikit-learn")
        print(f"Missing here: {{names}}. Cells that need it will stop. To get it, run  "
              f"%pip install {{names}}")
    done = "is here already, and nothing was installed"
    if is_missing("course_lib"):
{install}
    if "numpy" in missing:
        return
    from course_lib import __version__ as there

    print(f"course_lib {{there}} {{done}}.")
    if there != made_with:
        print(f"This notebook was made with course_lib {{made_with}}. Should a cell fail: run  "
              f"{replace}  and restart the session.")

bring_course_lib(
    made_with="{version}",
    wanted="{wanted}",
    needed="{needed}",
)
'''

INSTALL = '''\
        pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile"]
        run = subprocess.run([*pip, wanted], capture_output=True, text=True)
        if run.returncode != 0:
            print(f"course_lib could not be installed from {wanted}:\\n{run.stderr.strip()}")
            return
        importlib.invalidate_caches()
        done = "was installed, and nothing else was changed"'''
REPLACE = "%pip install --no-deps --force-reinstall {wanted}"

# Where no address is known, the cell can only say what a person has to do.
EXPLAIN = '''\
        print(f"course_lib is missing. In a copy of the course's folder run:  {wanted}")
        return'''
BY_HAND = "pip install ."

ALWAYS = ("numpy", "matplotlib", "sklearn")
FRAMEWORKS = {  # what brings one in: its own import, or the library's part for it
    "torch": r"(?:import|from) torch\b|course_lib\.pytorch\b|from course_lib import .*\bpytorch\b",
    "tensorflow": r"(?:import|from) (?:tensorflow|keras)\b|course_lib\.tf\b"
                  r"|from course_lib import .*\btf\b",
}  # fmt: skip


def needed_modules(notebook: NotebookNode) -> tuple[str, ...]:
    """Return the modules, besides `course_lib`, that the notebook cannot do without."""
    code = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")
    return ALWAYS + tuple(name for name, how in FRAMEWORKS.items() if re.search(how, code))


def first_cells(
    path: str, repository: Repository | None, edition: Edition, needed: tuple[str, ...] = ALWAYS
) -> list[NotebookNode]:
    """Return the head of a copy: a line with the button, and the cell that brings the library.

    Arguments:
        path: where the notebook lies, relative to the course's folder.
        repository: where the course is published, or None: then there is no button.
        edition: what the copy is made with.
        needed: the modules that have to be there besides.
    """
    head = f"Made with {edition.describe()}."
    if repository is not None and repository.name is not None:
        head = f"[![Open in Colab]({BADGE})]({repository.colab_link(path)})\n\n{head}"
    install, replace, wanted = EXPLAIN, "{wanted}", BY_HAND
    if repository is not None:
        install, replace, wanted = INSTALL, REPLACE, repository.requirement
    source = SOURCE.format(
        install=install, replace=replace, version=edition.version, wanted=wanted,
        needed=" ".join(needed),
    )  # fmt: skip
    folded = {"cellView": "form", "jupyter": {"source_hidden": True}}  # its title stays in sight
    code = new_code_cell(source.rstrip("\n"), id="install", metadata=folded)
    return [new_markdown_cell(head, id="open-in-colab"), code]
