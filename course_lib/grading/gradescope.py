"""Gradescope: results in its format, and the bundle from which it builds an autograder."""

from __future__ import annotations

import base64
import hashlib
import importlib.metadata
import io
import zipfile
from pathlib import Path

import course_lib
from course_lib.grading.errors import GradingError

DISTRIBUTION = "gradient-flow-course"
DATE = (2020, 1, 1, 0, 0, 0)  # the same bundle from the same inputs

SETUP = """#!/bin/sh
# Run once by Gradescope, as root, when it builds the autograder's image.
set -e
apt-get update
apt-get install -y --no-install-recommends python3 python3-venv bubblewrap util-linux
python3 -m venv /opt/gradient-flow
/opt/gradient-flow/bin/pip install --extra-index-url https://download.pytorch.org/whl/cpu \\
    "$(ls /autograder/source/*.whl)[torch,tensorflow]"
# The student's code runs as another user; seed, references and results are root's alone.
chmod -R go-rwx /autograder/source
chmod -R go-rwx "$(/opt/gradient-flow/bin/python -c \\
    'import course_lib, pathlib; print(pathlib.Path(course_lib.__file__).parent)')"
"""
RUN = """#!/bin/sh
# Run by Gradescope, as root, for each submission. The container is thrown away afterwards; within
# it the student's code runs in the sandbox if the kernel allows, else as another user.
chmod go-rwx /autograder/results /autograder/submission
exec /opt/gradient-flow/bin/gradient-flow-grade autograde /autograder/submission \\
    --assignment {assignment} --seed-file /autograder/source/seed.txt \\
    --out /autograder/results/results.json --sandbox-if-possible
"""


def make_results(result: dict) -> dict:
    """Return a result as Gradescope's results.json."""
    tests = [
        {
            "name": task["title"], "score": task["points"], "max_score": task["max_points"],
            "status": "passed" if task["status"] == "passed" else "failed",
            "output": " ".join(part for part in (task["message"], task["advice"]) if part),
            "output_format": "text", "visibility": "visible",
        }
        for task in result["tasks"]
    ]  # fmt: skip
    lines = ([f"Not graded. {result['problem']}"] if result["problem"] else []) + result["notes"]
    return {
        "score": result["points"], "output": "\n".join(lines), "output_format": "text",
        "stdout_visibility": "hidden", "visibility": "visible", "tests": tests,
    }  # fmt: skip


def write_bundle(path: Path, assignment: str, seed: str) -> None:
    """Write the zip that Gradescope's "configure autograder" takes; it holds the secret seed."""
    if path.exists():
        raise GradingError(f"{path} is there already; move it away or name another file.")
    name, wheel = build_wheel()
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        _add(archive, "setup.sh", SETUP.encode(), 0o755)
        _add(archive, "run_autograder", RUN.format(assignment=assignment).encode(), 0o755)
        _add(archive, "seed.txt", seed.encode() + b"\n", 0o600)
        _add(archive, name, wheel, 0o644)
    path.chmod(0o600)


def _add(archive: zipfile.ZipFile, name: str, data: bytes, mode: int) -> None:
    entry = zipfile.ZipInfo(name, DATE)
    entry.external_attr = (0o100000 | mode) << 16
    entry.compress_type = zipfile.ZIP_DEFLATED
    archive.writestr(entry, data)


def build_wheel() -> tuple[str, bytes]:
    """Return name and bytes of a wheel of this very `course_lib`, made without network or tools."""
    try:
        metadata = importlib.metadata.distribution(DISTRIBUTION).read_text("METADATA")
        points = importlib.metadata.distribution(DISTRIBUTION).read_text("entry_points.txt")
    except importlib.metadata.PackageNotFoundError:
        metadata = points = None
    if not metadata:
        raise GradingError(f"{DISTRIBUTION} is not installed; pip install it first.")
    version = course_lib.__version__
    info = f"{DISTRIBUTION.replace('-', '_')}-{version}.dist-info"
    root = Path(course_lib.__file__).parent
    files = {
        f"course_lib/{path.relative_to(root).as_posix()}": path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts and path.suffix != ".pyc"
    }
    files[f"{info}/METADATA"] = metadata.encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: gradient-flow-grade\nRoot-Is-Purelib: true\n"
        b"Tag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = (points or "").encode()
    record = [f"{name},sha256={_digest(data)},{len(data)}" for name, data in files.items()]
    files[f"{info}/RECORD"] = "\n".join([*record, f"{info}/RECORD,,", ""]).encode()
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in files.items():
            _add(archive, name, data, 0o644)
    return f"{DISTRIBUTION.replace('-', '_')}-{version}-py3-none-any.whl", out.getvalue()


def _digest(data: bytes) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
