"""The one environment that notebooks run in, whether stored by refresh or checked by pytest.

A reader's own settings (IPython profile, matplotlibrc, keras.json) must not reach the outputs that
are stored for everyone, so each has its own folder below `_build/kernel`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from _tools.notebook_files import write_atomically

ROOT = Path(__file__).resolve().parents[2]
KERNEL_FOLDER = ROOT / "_build" / "kernel"

IPYTHON_CONFIG = """\
# What a library writes to the process's own stdout and stderr (TensorFlow's start-up lines, with
# their times and addresses) is no part of a notebook; what Python prints still is.
c.IPKernelApp.capture_fd_output = False
c.HistoryManager.enabled = False
"""

# An inherited MPLBACKEND (say `Agg`, set for tests) would make every figure vanish silently.
REMOVED = ("MPLBACKEND", "KERAS_BACKEND", "PYTHONSTARTUP", "PYTHONWARNINGS")


def make_settings_folders(folder: Path) -> dict[str, str]:
    """Write the settings and return the variables that point a kernel at them."""
    profile = folder / "ipython" / "profile_default"
    for needed in (profile, folder / "matplotlib", folder / "keras"):
        needed.mkdir(parents=True, exist_ok=True)
    # In one step: another process may be starting a kernel from it at this moment.
    write_atomically(profile / "ipython_kernel_config.py", IPYTHON_CONFIG)
    return {
        "IPYTHONDIR": str(folder / "ipython"),
        "MPLCONFIGDIR": str(folder / "matplotlib"),
        "KERAS_HOME": str(folder / "keras"),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        # The outputs are a CPU's; on another processor the last digits differ.
        "CUDA_VISIBLE_DEVICES": "-1",
        "PYTHONHASHSEED": "0",
    }


@contextmanager
def kernel_environment(
    folder: Path = KERNEL_FOLDER, variables: dict[str, str] | None = None
) -> Iterator[None]:
    """Give this process the notebooks' environment, and more `variables`, for kernels started
    meanwhile to inherit.
    """
    before = dict(os.environ)
    for name in REMOVED:
        os.environ.pop(name, None)
    os.environ.update(make_settings_folders(folder) | (variables or {}))
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@cache
def build_font_cache() -> None:
    """Let matplotlib list the machine's fonts now: in a notebook it would log a line about it."""
    command = [sys.executable, "-c", "import matplotlib.font_manager"]
    subprocess.run(command, check=True, capture_output=True)
