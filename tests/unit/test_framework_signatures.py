"""Both frameworks export the same names, with the same arguments, and say what those are."""

import inspect
import re

import pytest

from course_lib import pytorch, reference
from course_lib import tf as course_tf

MODULES = {"course_lib.pytorch": pytorch, "course_lib.tf": course_tf, "course_lib.reference":
           reference}  # fmt: skip
ONE_SIDED = {  # what only one framework exports, and why
    "RecurrentNetwork": "PyTorch's recurrent modules give no outputs at every step; Keras's do",
    "use_one_thread": "TensorFlow takes a number of threads only before it computes anything",
}
DIFFERENT = {  # where an argument differs between the frameworks, and why
    ("train", "epsilon"): "each framework's own default, beside the reference's",
    ("train", "epsilon_on_raw"): "only the reference can put it in either place",
    ("clip_audit", "gradients"): "only PyTorch keeps gradients with the parameters",
    ("GradientFlowMonitor", "model"): "`fit` tells a Keras callback its model",
    ("GradientFlowMonitor", "scaler"): "Keras's loss scaling is part of the optimizer",
    ("build_mlp", "dtype"): "the reference knows float64 only",
    ("build_recurrent", "dtype"): "the reference knows float64 only",
    ("build_stack", "dtype"): "the reference knows float64 only",
    ("build_stack", "unbiased_running"): "each framework has its own running variance",
}
SHARED = sorted(set(pytorch.__all__) & set(course_tf.__all__))
EXPORTED = [
    pytest.param(module, name, id=f"{module.__name__}.{name}")
    for module in (pytorch, course_tf) for name in module.__all__
]  # fmt: skip


def arguments(function):
    """Return (kind, default) of a function's arguments by name, in order."""
    found = inspect.signature(function).parameters
    return {name: (p.kind, p.default) for name, p in found.items()}


def alike(name, one, other):
    """Return the arguments of two functions without those that are meant to differ."""
    kept = [n for n in dict.fromkeys([*one, *other]) if (name, n) not in DIFFERENT]
    return [(n, one.get(n)) for n in kept], [(n, other.get(n)) for n in kept]


def test_both_frameworks_export_the_same_names():
    assert set(pytorch.__all__) ^ set(course_tf.__all__) == set(ONE_SIDED)


@pytest.mark.parametrize("name", SHARED)
def test_arguments_are_the_same(name):
    ours, theirs = alike(name, *(arguments(getattr(m, name)) for m in (pytorch, course_tf)))
    assert ours == theirs


@pytest.mark.parametrize("name", sorted(set(SHARED) & set(reference.__all__)))
def test_the_reference_takes_the_same_arguments(name):
    ours, theirs = alike(name, *(arguments(getattr(m, name)) for m in (reference, pytorch)))
    assert ours == theirs


def test_every_difference_is_one():
    for name, argument in DIFFERENT:
        found = [arguments(getattr(m, name)).get(argument)
                 for m in MODULES.values() if hasattr(m, name)]  # fmt: skip
        assert any(other != found[0] for other in found), (name, argument)


def documented(function, seen=()):
    """Return the text that says what a function's arguments are: its own, or another's it names."""
    text = inspect.getdoc(function) or ""
    for module, name in re.findall(r"(?:those of|as for)\s+`(?:(course_lib\.\w+)\.)?(\w+)`", text):
        home = MODULES.get(module) or inspect.getmodule(function)
        other = getattr(home, name, None)
        if inspect.isfunction(other) and other is not function and other not in seen:
            text += "\n" + documented(other, (*seen, function))
    return text


@pytest.mark.parametrize(("module", "name"), EXPORTED)
def test_every_argument_is_documented(module, name):
    function = getattr(module, name)
    text = documented(function)
    assert text.startswith(tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ"))
    listed = " ".join(re.findall(r"^ +((?:\w+, )*\w+):", text, re.MULTILINE))
    missing = [n for n in arguments(function) if not re.search(rf"\b{n}\b", listed)]
    assert missing == []
