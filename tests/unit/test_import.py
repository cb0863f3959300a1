"""`import course_lib` is light, and a missing framework is named in one sentence."""

import subprocess
import sys

import pytest

HEAVY = (
    "torch", "tensorflow", "keras", "matplotlib", "sklearn", "scipy", "pandas", "IPython",
)  # fmt: skip


def run_python(code):
    """Run `code` in a fresh interpreter and return what it printed."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def imported_by(statement):
    code = f"import sys; {statement}; print(*[m for m in {HEAVY!r} if m in sys.modules])"
    return run_python(code).split()


def test_import_brings_no_heavy_module():
    assert imported_by("import course_lib") == []


def test_drawing_weights_and_the_reference_bring_no_heavy_module():
    statement = (
        "import course_lib, course_lib.reference as r, course_lib.theory; "
        "s = course_lib.NetworkSpec(2, 3, 2); w = course_lib.draw_weights(s, seed=0); "
        "r.gradient_flow(r.build_mlp(s, w), [[1.0, 2.0]], [[0.0]])"
    )
    assert imported_by(statement) == []


def test_each_framework_leaves_the_other_alone():
    assert "tensorflow" not in imported_by("import course_lib.pytorch")
    assert "torch" not in imported_by("import course_lib.tf")


# A finder that refuses one name stands in for a machine without that package.
WITHOUT = """
import os
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name == {missing!r}:
            raise ModuleNotFoundError("No module named " + name, name={blamed!r})

sys.meta_path.insert(0, Absent())
try:
    import {module}
except ImportError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("module", "missing", "extra"),
    [
        ("course_lib.pytorch", "torch", "torch"),
        ("course_lib.tf", "keras", "tensorflow"),
        ("course_lib.tf", "tensorflow", "tensorflow"),
    ],
)
def test_a_missing_framework_says_what_to_install(module, missing, extra):
    # Keras itself imports TensorFlow, so that either may be found missing first.
    message = run_python(WITHOUT.format(module=module, missing=missing, blamed=missing))
    assert message.endswith(f'pip install "gradient-flow-course[{extra}]".')
    assert f"`{module}` needs " in message
    assert len(message.splitlines()) == 1


def test_a_broken_framework_keeps_its_own_error():
    code = WITHOUT.format(module="course_lib.pytorch", missing="torch", blamed="inner")
    assert run_python(code) == "No module named torch"


def test_keras_on_another_backend_is_refused():
    # A package called keras that says what Keras on PyTorch would say, without loading either.
    code = """
import sys
import types

for name in ("keras", "tensorflow"):
    sys.modules[name] = types.ModuleType(name)
sys.modules["keras"].backend = types.SimpleNamespace(backend=lambda: "torch")
try:
    import course_lib.tf
except ImportError as error:
    print(error)
"""
    message = run_python(code)
    assert "its backend is torch" in message
    assert "KERAS_BACKEND=tensorflow" in message


def test_tensorflow_log_level_is_only_a_default():
    code = WITHOUT.format(module="course_lib.tf", missing="keras", blamed="keras")
    code += "print(os.environ['TF_CPP_MIN_LOG_LEVEL'])"
    assert run_python(code).splitlines()[-1] == "3"
    chosen = "import os; os.environ['TF_CPP_MIN_LOG_LEVEL'] = '2'\n" + code
    assert run_python(chosen).splitlines()[-1] == "2"


# A finder that finds nothing notes who asks for triton, and whether TensorFlow is loaded by then.
ASKED = """
import sys

class Noting:
    def find_spec(self, name, path=None, target=None):
        if name == "triton":
            print("triton", "late" if "tensorflow" in sys.modules else "early")

sys.meta_path.insert(0, Noting())
{first}
import course_lib.tf
"""


@pytest.mark.parametrize(("first", "asked"), [("", "triton early"), ("import keras", "")])
def test_triton_is_loaded_before_tensorflow_or_not_at_all(first, asked):
    assert run_python(ASKED.format(first=first)) == asked
