"""The sandbox: what a submission may see of this machine, as a bubblewrap command.

Inside there are the system's libraries and Python's packages, read-only; a copy of `course_lib`
without its tasks and its grader; a private /tmp; no network, no home folder, no environment of
the teacher's. Started by root, the process becomes another user before the sandbox begins, since
limits on the number of processes do not hold for root.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
import sysconfig
from dataclasses import dataclass
from pathlib import Path

import course_lib
from course_lib.grading.errors import GradingError

FIRST_USER = 60_001
PACKAGES = ("numpy", "scipy", "sklearn", "matplotlib", "torch", "tensorflow", "keras")
# What the warm process may load beforehand: always, and for submissions that speak of it.
MODULES = {
    "": ("numpy", "course_lib", "course_lib.reference"),
    "matplotlib": ("matplotlib.pyplot", "course_lib.plots"),
    "sklearn": ("scipy.stats", "sklearn.datasets", "course_lib.data"),
    "torch": ("torch", "course_lib.pytorch"),
    "tf": ("triton", "tensorflow", "keras", "course_lib.tf"),
}
SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/nix/store")
SETTINGS = ("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives",
            "/etc/localtime", "/etc/fonts", "/sys/devices/system/cpu")  # fmt: skip
ENVIRONMENT = {
    "PATH": "/usr/bin:/bin", "HOME": "/tmp", "TMPDIR": "/tmp", "LANG": "C.UTF-8",
    "MPLBACKEND": "Agg", "MPLCONFIGDIR": "/tmp/matplotlib", "KERAS_HOME": "/tmp/keras",
    "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "3", "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
    "TF_NUM_INTRAOP_THREADS": "1", "TF_NUM_INTEROP_THREADS": "1", "TF_ENABLE_ONEDNN_OPTS": "0",
}  # fmt: skip
START = 'import sys\nsys.path.insert(0, "/course")\nfrom inside.zygote import main\nmain()\n'
PASSWD = "root:x:0:0::/:/bin/false\nstudent:x:{0}:{0}::/tmp:/bin/false\n"


@dataclass(frozen=True)
class Limits:
    """What one submission may use.

    Fields:
        submission_seconds: for the whole notebook, all cells and all calls.
        cell_seconds: for one cell.
        memory: bytes beyond what the loaded frameworks take.
        disk: bytes in /tmp, and in one file.
        processes: how many, threads included.
        answer_bytes: the size of one answer, encoded.
        restarts: how often a notebook whose process died is started again without the step that
            killed it, so that one mistake does not cost the other tasks.
    """

    submission_seconds: float = 300.0
    cell_seconds: float = 60.0
    memory: int = 2 << 30
    disk: int = 256 << 20
    processes: int = 64
    answer_bytes: int = 1 << 20
    restarts: int = 6


def all_modules() -> tuple[str, ...]:
    """Return every module that is worth loading beforehand."""
    return tuple(name for names in MODULES.values() for name in names)


def stage_course(folder: Path) -> Path:
    """Copy to `folder` what of the course may be seen inside, and return it.

    That is `course_lib` without tasks and grader, with `check`, `hint` and `score` that decide
    nothing, and the code that runs the notebook.
    """
    source = Path(course_lib.__file__).parent
    inside = source / "grading" / "inside"
    left_out = shutil.ignore_patterns("__pycache__", "grading", "tasks", "*.pyc")
    shutil.copytree(source, folder / "course_lib", ignore=left_out)
    shutil.copytree(inside, folder / "inside", ignore=left_out)
    shutil.copy(inside / "check_stub.py", folder / "course_lib" / "checks" / "__init__.py")
    (folder / "start.py").write_text(START, encoding="utf-8")
    (folder / "passwd").write_text(PASSWD.format(FIRST_USER), encoding="utf-8")
    for path in [folder, *folder.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return folder


def find_bubblewrap() -> str:
    """Return the path of bwrap, or raise GradingError with what to do."""
    if not sys.platform.startswith("linux"):
        raise GradingError(
            "There is no sandbox on this system: it needs Linux and bubblewrap. Grade in the "
            "container (gradient-flow-grade containerfile), or see --unsafe-without-sandbox."
        )
    found = shutil.which("bwrap")
    if found is None:
        raise GradingError(
            "There is no sandbox: the program bwrap is missing. Install the package bubblewrap "
            "(apt-get install bubblewrap), or see --unsafe-without-sandbox."
        )
    if os.getuid() == 0 and shutil.which("setpriv") is None:
        raise GradingError("There is no sandbox for root: setpriv (util-linux) is missing.")
    return found


def package_folders() -> list[Path]:
    """Return the folders in which Python and its packages lie, outermost ones only."""
    found = {Path(sys.base_prefix), Path(sys.prefix), Path(os.path.realpath(sys.executable)).parent}
    found |= {Path(sysconfig.get_path(kind)) for kind in ("stdlib", "purelib", "platlib")}
    for name in PACKAGES:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.origin:
            found.add(Path(spec.origin).parent.parent)
    system = [Path(name) for name in SYSTEM]
    found = {path for path in found if path.is_dir() and not _inside_any(path, system)}
    return sorted(path for path in found if not _inside_any(path, found - {path}))


def _inside_any(path: Path, folders: object) -> bool:
    return any(path.is_relative_to(folder) for folder in folders)


def view_arguments(course: Path) -> list[str]:
    """Return bwrap's arguments for what can be seen inside; `course` is the staged folder."""
    arguments = []
    for name in SYSTEM:
        if os.path.islink(name):
            arguments += ["--symlink", os.readlink(name), name]
        elif os.path.isdir(name):
            arguments += ["--ro-bind", name, name]
    bound = [*package_folders(), course]
    parents = {parent for path in bound for parent in path.parents if len(parent.parts) > 1}
    parents |= {Path("/etc"), Path("/sys/devices/system"), Path("/sys/devices"), Path("/sys")}
    for parent in sorted(path for path in parents if not _inside_any(path, map(Path, SYSTEM))):
        arguments += ["--perms", "0755", "--dir", str(parent)]
    for path in bound[:-1]:
        arguments += ["--ro-bind", str(path), str(path)]
    for name in SETTINGS:
        arguments += ["--ro-bind-try", name, name]
    arguments += ["--ro-bind", str(course), "/course"]
    arguments += ["--ro-bind", str(course / "passwd"), "/etc/passwd"]
    return arguments + cover_arguments()


def kept_folders() -> list[str]:
    """Return the package folders that lie in /tmp, where the private space would hide them."""
    return [str(path) for path in package_folders() if path.is_relative_to("/tmp")]


def cover_arguments() -> list[str]:
    """Return the arguments that cover `course_lib` where it is installed: its tasks are there."""
    installed = Path(course_lib.__file__).parent
    if _inside_any(installed, [*package_folders(), *map(Path, SYSTEM)]):
        return ["--perms", "0755", "--tmpfs", str(installed)]
    return []


def build_command(bwrap: str, course: Path, slot: int, modules: tuple[str, ...]) -> list[str]:
    """Return the command that starts a zygote in the sandbox, as the user of that slot."""
    view = view_arguments(course)
    python = [sys.executable, "-I", "/course/start.py", *modules]
    alone = [
        "--unshare-user", "--unshare-pid", "--unshare-net", "--unshare-ipc", "--unshare-uts",
        "--unshare-cgroup-try", "--die-with-parent", "--new-session", "--cap-drop", "ALL",
        "--hostname", "sandbox", "--proc", "/proc", "--dev", "/dev",
        "--perms", "1777", "--size", str(64 << 20), "--tmpfs", "/tmp",
        "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", "/tmp", "--clearenv",
    ]  # fmt: skip
    for path in kept_folders():
        alone += ["--ro-bind", path, path]
    alone += cover_arguments()
    environment = ENVIRONMENT | shared_library_path()
    for name, value in environment.items():
        alone += ["--setenv", name, value]
    if os.getuid() != 0:
        return [bwrap, *view, *alone, "--", *python]
    # As root: the outer one lays out the files, of which some only root can reach; then the
    # process becomes another user, and the inner one shuts it in.
    user = str(FIRST_USER + slot)
    become = [
        shutil.which("setpriv") or "setpriv", "--reuid", user, "--regid", user, "--clear-groups",
        "--inh-caps=-all", "--bounding-set=-all", "--",
    ]  # fmt: skip
    outer = [bwrap, *view, "--bind", "/proc", "/proc", "--dev-bind", "/dev", "/dev",
             "--perms", "0755", "--dir", "/tmp", "--die-with-parent", "--", *become]  # fmt: skip
    return [*outer, bwrap, "--ro-bind", "/", "/", *alone, "--", *python]


def shared_library_path() -> dict[str, str]:
    """Return what a Python needs that finds its own library through the environment."""
    folder = sysconfig.get_config_var("LIBDIR")
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and folder:
        return {"LD_LIBRARY_PATH": folder}
    return {}


def require_hidden(path: Path) -> None:
    """Raise GradingError if something of the teacher's lies where student code can read it."""
    real = Path(os.path.realpath(path))
    for folder in [*package_folders(), *map(Path, SYSTEM)]:
        if real.is_relative_to(os.path.realpath(folder)):
            raise GradingError(
                f"{path} lies in {folder}, which student code can read inside the sandbox. "
                "Move it to another place."
            )


def explain_failure(said: str) -> str:
    """Return a sentence on why a sandbox did not start, from what bwrap printed."""
    last = said.strip().splitlines()[-1] if said.strip() else "it said nothing"
    advice = ""
    restricted = Path("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")
    if restricted.exists() and restricted.read_text(encoding="ascii").strip() == "1":
        advice = (
            " Ubuntu restricts user namespaces; "
            "sudo sysctl -w kernel.apparmor_restrict_unprivileged_userns=0 lifts it."
        )
    elif Path("/.dockerenv").exists() or Path("/run/.containerenv").exists():
        advice = " In a container, start it as the Containerfile's first lines say."
    return f"The sandbox does not start here: {last}.{advice}"
