"""Write `requirements.lock`: one set of pins for Python 3.11 to 3.13, on Linux and macOS.

Run by `make lock`. The pins are resolved by uv for all these platforms at once; a pin that is
already in the lock is kept unless `pyproject.toml` no longer allows it (or `--upgrade` is given).

The CUDA packages are left out on purpose: torch names the versions it needs itself, so a plain
`pip install` still finds them, while a machine that has a CPU build of the pinned torch installs
none of those gigabytes.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCK = ROOT / "requirements.lock"

HEADER = """\
# The exact versions that the book is built and tested with, for Python 3.11 to 3.13 on Linux and
# macOS. Written by `make lock` from pyproject.toml; not edited by hand. Used as constraints: each
# make target installs the part it needs (`pip install -c requirements.lock -e ".[book]"`).
# torch's CUDA packages are absent on purpose: torch pins them itself, and a CPU build needs none.
"""

ACCELERATOR_PACKAGE = re.compile(r"^(nvidia-|cuda-|triton\b)")
VIA = re.compile(r"^\s+#")


def resolve(extra_arguments: list[str]) -> str:
    """Run uv and return the resolution, with the comments that say who needs what."""
    command = [sys.executable, "-m", "uv", "pip", "compile", "pyproject.toml"]
    command += ["--all-extras", "--group", "build", "--universal", "--python-version", "3.11"]
    command += ["--no-header", "--quiet", "--output-file", LOCK.name, *extra_arguments]
    subprocess.run(command, cwd=ROOT, check=True)
    return LOCK.read_text(encoding="utf-8")


def without_accelerators(resolution: str) -> str:
    """Drop each CUDA package together with the `# via` comment lines under it."""
    kept: list[str] = []
    dropping = False
    for line in resolution.splitlines():
        if not VIA.match(line):
            dropping = bool(ACCELERATOR_PACKAGE.match(line))
        if not dropping:
            kept.append(line)
    return "\n".join(kept) + "\n"


if __name__ == "__main__":
    LOCK.write_text(HEADER + without_accelerators(resolve(sys.argv[1:])), encoding="utf-8")
    pins = [line for line in LOCK.read_text(encoding="utf-8").splitlines() if "==" in line]
    print(f"{LOCK.name}: {len(pins)} pins")
