"""The public functions of both frameworks are given things that cannot be meant, one at a time.

As in `test_bad_input_everywhere.py`: each call must raise TypeError or ValueError, and name the
argument, for everything that takes a reader's own model.
"""

import runpy
from pathlib import Path

import keras
import numpy as np
import pytest
import torch
from keras import layers
from torch import nn

from course_lib import pytorch
from course_lib import tf as course_tf

TABLE = runpy.run_path(Path(__file__).with_name("test_bad_input_everywhere.py"))
NEVER, WORD = TABLE["NEVER"], TABLE["WORD"]
X, Y = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32"), np.arange(4) % 2
KINDS = {
    **TABLE["KINDS"],
    "model": {**WORD, "None": None, "number": 1.5, "array": X, "class": nn.Linear},
    "data": {**WORD, "None": None, "number": 1.5},
    "optional function": {**WORD, "number": 1.5, "array": X},
    "optimizer": {**WORD, "number": 1.5, "array": X},
    "optional gradients": {"word": "abc", "number": 1.5},
    "optional above zero": {"zero": 0, "minus": -0.5, "nan": np.nan, "inf": np.inf, **WORD},
    "share": {"zero": 0, "two": 2.0, "minus": -0.5, **TABLE["NUMBER"]},
}

def torch_calls():
    model = nn.Sequential(nn.Flatten(), nn.Linear(18, 4), nn.ReLU(), nn.Linear(4, 2))
    grads = [torch.ones_like(p) for p in model.parameters()]
    recurrent = nn.LSTM(3, 4, batch_first=True)
    return calls(pytorch, model, recurrent, nn.functional.cross_entropy, grads)


def keras_calls():
    keras.utils.set_random_seed(0)
    body = [layers.Flatten(), layers.Dense(4, "relu"), layers.Dense(2)]
    model = keras.Sequential([layers.Input((6, 3)), *body])
    recurrent = keras.Sequential([layers.Input((6, 3)), layers.LSTM(4)])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    grads = [np.ones(v.shape) for v in model.trainable_variables]
    return calls(course_tf, model, recurrent, loss, grads)


def calls(module, model, recurrent, loss, grads):
    """Functions with, by argument, its kind and a value that is right."""
    look = dict(model=("model", model), x=("data", X), batch_size=("size", 2),
                share=("share", 0.1))  # fmt: skip
    return [
        (module.diagnose_model, dict(
            model=("model", model), inputs=("data", X), targets=("data", Y),
            loss=("optional function", loss), optimizer=("optimizer", None),
            learning_rate=("optional above zero", 1e-3), steps=("size", 1), every=("size", 1),
            share=("share", 0.1), seed=("integer", 0))),
        (module.dead_units, look),
        (module.saturation, look),
        (module.jacobian_spectrum, dict(
            model=("model", model), x=("data", X[0]), method=("name", "randomized"),
            rank=("size", 2), iterations=("size", 1), seed=("integer", 0))),
        (module.clip_audit, dict(
            model=("model", model), gradients=("optional gradients", grads),
            method=("name", "norm"), threshold=("above zero", 1.0))),
        (module.bptt_gradient_profile, dict(model=("model", recurrent), x=("data", X))),
        (module.GradientFlowMonitor, dict(
            model=("optional function", model), optimizer=("optimizer", None), every=("size", 1),
            max_records=("size", 5), share=("share", 0.1), max_calls=("size", 1))),
    ]  # fmt: skip


CALLS = {"pytorch": torch_calls(), "tf": keras_calls()}


def spoiled():
    for framework, table in CALLS.items():
        for function, arguments in table:
            for name in arguments:
                yield pytest.param(framework, function, arguments, name,
                                   id=f"{framework}-{function.__name__}-{name}")  # fmt: skip


@pytest.mark.parametrize(("framework", "function", "arguments", "name"), [*spoiled()])
def test_no_argument_takes_nonsense(framework, function, arguments, name):
    valid = {key: value for key, (_, value) in arguments.items()}
    faults = []
    for label, value in {**NEVER, **KINDS[arguments[name][0]]}.items():
        try:
            function(**{**valid, name: value})
        except (TypeError, ValueError) as error:
            if f"`{name}" not in str(error):
                faults.append(f"{label}: {type(error).__name__}: {error}")
        except Exception as error:
            faults.append(f"{label}: {type(error).__name__}: {error}")
        else:
            faults.append(f"{label}: accepted")
    assert faults == []
