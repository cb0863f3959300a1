"""The public functions of both frameworks are given things that cannot be meant, one at a time.

As in `test_bad_input_everywhere.py`: each call must raise TypeError or ValueError, and name the
argument. The calls stand in `bad_input_calls.py`; here are the models, and what must hold.
"""

import functools
import inspect
import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

from course_lib import pytorch, reference
from course_lib import tf as course_tf

TABLE = runpy.run_path(Path(__file__).with_name("bad_input_calls.py"))
SPEC, WEIGHTS = TABLE["SPEC"], TABLE["WEIGHTS"]


def torch_calls():
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 4), nn.ReLU(), nn.Linear(4, 2))
    images = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU())
    recurrent = nn.LSTM(3, 4, batch_first=True)
    others = {"class": nn.Linear, "of Keras": keras.Sequential([layers.Dense(2)])}
    dense = pytorch.build_mlp(SPEC, WEIGHTS[SPEC])
    strange = {**others, "convolution": images, "empty": nn.Sequential()}
    return [
        *TABLE["dense_calls"](pytorch, dense, strange),
        *TABLE["stack_calls"](pytorch, strange),
        *TABLE["recurrent_calls"](pytorch, strange),
        *TABLE["reader_calls"](
            pytorch, model=model, recurrent=recurrent, others=others,
            loss=nn.functional.cross_entropy, initialized=images,
            gradients=[torch.ones_like(p) for p in model.parameters()]),
        (pytorch.RecurrentNetwork, dict(
            recurrent=("model", recurrent, {**others, "time first": nn.LSTM(3, 4)}),
            readout=("optional function", nn.Linear(4, 2), others))),
    ]  # fmt: skip


def keras_calls():
    keras.utils.set_random_seed(0)
    body = [layers.Flatten(), layers.Dense(4, "relu"), layers.Dense(2)]
    model = keras.Sequential([layers.Input((6, 3)), *body])
    images = keras.Sequential([layers.Input((4, 4, 1)), layers.Conv2D(2, 3),
                               layers.BatchNormalization(), layers.ReLU()])  # fmt: skip
    recurrent = keras.Sequential([layers.Input((6, 3)), layers.LSTM(4)])
    others = {"class": layers.Dense, "of PyTorch": nn.Linear(2, 2)}
    dense = course_tf.build_mlp(SPEC, WEIGHTS[SPEC])
    strange = {**others, "convolution": images, "empty": keras.Sequential(),
               "not built": keras.Sequential([layers.Dense(2)])}  # fmt: skip
    monitor = course_tf.GradientFlowMonitor(model, optimizer=keras.optimizers.SGD())
    return [
        *TABLE["dense_calls"](course_tf, dense, strange),
        *TABLE["stack_calls"](course_tf, strange),
        *TABLE["recurrent_calls"](course_tf, strange),
        *TABLE["reader_calls"](
            course_tf, model=model, recurrent=recurrent, others=others,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), initialized=images,
            gradients=[np.ones(v.shape) for v in model.trainable_variables]),
        (monitor.function, dict(step=("function", lambda: None))),
    ]  # fmt: skip


def reference_calls():
    dense, others = reference.build_mlp(SPEC, WEIGHTS[SPEC]), {"of PyTorch": nn.Linear(2, 2)}
    return [
        *TABLE["dense_calls"](reference, dense, others),
        *TABLE["stack_calls"](reference, others),
        *TABLE["recurrent_calls"](reference, others),
    ]


CALLS = {"pytorch": torch_calls(), "tf": keras_calls(), "reference": reference_calls()}


def arguments():
    for framework, table in CALLS.items():
        for number, (function, call) in enumerate(table):
            for name in call:
                title = f"{framework}-{function.__qualname__}-{number}-{name}"
                yield pytest.param(framework, number, name, id=title)


def parameters(call):
    """Return copies of the weights of all models among the arguments."""
    models = [value for _, value, *_ in call.values()]
    of_torch = [m.state_dict().values() for m in models if isinstance(m, nn.Module)]
    of_keras = [m.variables for m in models if isinstance(m, keras.Model)]
    return [w.clone().numpy() for weights in of_torch for w in weights] + [
        v.numpy() for weights in of_keras for v in weights
    ]


@functools.cache
def answers(framework, number, name):
    """Return what a call with each wrong value raised: by label, a type and a message."""
    function, call = CALLS[framework][number]
    valid = {key: value for key, (_, value, *_) in call.items()}
    found, before = {}, parameters(call)
    for label, value in TABLE["wrong_values"](*call[name]).items():
        try:
            function(**{**valid, name: value})
        except Exception as error:
            found[label] = (type(error), str(error))
        else:
            found[label] = (None, "accepted")
    same = all(map(np.array_equal, before, parameters(call)))
    if not same:
        found["all"] = (None, "the weights were changed")
    return found


@pytest.mark.parametrize(("framework", "number", "name"), [*arguments()])
def test_no_argument_takes_nonsense(framework, number, name):
    faults = [
        f"{label}: {getattr(kind, '__name__', '')}: {said}"
        for label, (kind, said) in answers(framework, number, name).items()
        if kind not in (TypeError, ValueError) or f"`{name}" not in said or not said.endswith(".")
    ]
    assert faults == []


def numbers_of(framework, name):
    """Return where in the table the calls of a function are."""
    return [k for k, (function, _) in enumerate(CALLS[framework]) if function.__name__ == name]


@pytest.mark.parametrize(
    ("other", "name"),
    [(key, name) for key, module in (("tf", course_tf), ("reference", reference))
     for name in sorted(set(pytorch.__all__) & set(module.__all__)) if numbers_of(key, name)],
)  # fmt: skip
def test_all_say_the_same(other, name):
    faults = []
    for one, two in zip(numbers_of("pytorch", name), numbers_of(other, name), strict=True):
        for argument in CALLS["pytorch"][one][1]:
            found, others = answers("pytorch", one, argument), answers(other, two, argument)
            for label in comparable(*CALLS["pytorch"][one][1][argument]) & found.keys():
                kind = CALLS["pytorch"][one][1][argument][0]
                if said(found[label], kind) != said(others[label], kind):
                    faults.append((argument, label, found[label], others[label]))
    assert faults == []


def comparable(kind, value, own=()):
    """Return the wrong values that both frameworks can be asked about.

    Not so models of one of them, nor what a reader's own model is called on (PyTorch's may take
    any object, Keras's words), nor the name of a loss, which only Keras knows.
    """
    if kind == "targets of a batch":
        return set()
    labels = TABLE["wrong_values"](kind, value).keys()
    if kind == "batch":
        return labels - TABLE["NEVER"].keys()
    if kind == "loss":
        return labels - TABLE["WORD"].keys()
    return labels if "model" in kind else labels | set(own)


def said(answer, kind):
    """Return the type of an error and its words, as far as both frameworks can agree on them.

    Each has models and optimizers of its own, and raises its own words where it is called.
    """
    error, text = answer
    if kind in ("model", "optional model", "optimizer", "optional gradients"):
        return error, text.partition(" (")[0]
    text = text.replace("float32, float64", "float64")  # the reference knows but one
    return error, text.partition("can be called on (")[0]


UNCHECKED = {  # what no table needs to hold, and why
    "GradientFlowMonitor(scaler)": "in PyTorch only: see test_monitor_pytorch",
    "RecurrentNetwork.forward": "a module's own forward, which PyTorch checks",
    "GradientFlowMonitor.on_train_begin": "called by Keras",
    "GradientFlowMonitor.on_train_end": "called by Keras",
    "GradientFlowMonitor.on_train_batch_begin": "called by Keras",
    "GradientFlowMonitor.on_train_batch_end": "called by Keras",
}


@pytest.mark.parametrize("module", [pytorch, course_tf], ids=["pytorch", "tf"])
def test_the_table_leaves_no_public_name_out(module):
    framework = module.__name__.rpartition(".")[2]
    missing = []
    for function in public_functions(module):
        parameters = set(inspect.signature(function).parameters) - {"self", "options"}
        title = function.__qualname__.removesuffix(".__init__")
        if title in UNCHECKED:
            continue
        tried = [set(call) for f, call in CALLS[framework] if f.__qualname__ == title]
        missing += [f"{title}({p})" for p in sorted(parameters - set().union(*tried))]
    assert [name for name in missing if name not in UNCHECKED] == []


def public_functions(module):
    """Yield all exported functions, the constructors of exported classes, and their methods."""
    for name in module.__all__:
        thing = getattr(module, name)
        if inspect.isfunction(thing):
            yield thing
            continue
        for method, function in vars(thing).items():
            if inspect.isfunction(function) and (method == "__init__" or method[0] != "_"):
                yield function


def test_only_what_exists_goes_unchecked():
    titles = set()
    for function in (f for module in (pytorch, course_tf) for f in public_functions(module)):
        title = function.__qualname__.removesuffix(".__init__")
        titles |= {title, *(f"{title}({p})" for p in inspect.signature(function).parameters)}
    assert titles >= UNCHECKED.keys()


def test_nor_a_function_of_the_reference():
    covered = {f.__name__ for f, _ in (*CALLS["reference"], *TABLE["TABLE"]["CALLS"])}
    assert {n for n in reference.__all__ if inspect.isfunction(getattr(reference, n))} <= covered
