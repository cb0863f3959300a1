"""Results stay on the reader's device, tried with two logical CPUs in a process of its own.

TensorFlow takes the second one for a device like any other: variables lie on it, and an operation
that is told to run there does. What only a GPU does (its rounding, TF32) is not tried.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

PROGRAM = r"""
import dataclasses, json, sys
import course_lib.tf as ours
import keras, numpy as np, tensorflow as tf
from course_lib.data import load_digits_split
from course_lib.recurrent_specs import RecurrentSpec, draw_recurrent_weights
from course_lib.specs import NetworkSpec, draw_weights
from course_lib.stack_specs import StackSpec, draw_stack_weights

cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)

x = np.random.default_rng(0).standard_normal((12, 6))
y = np.random.default_rng(1).integers(0, 3, 12)
sequences = np.random.default_rng(2).standard_normal((4, 7, 6))
spec = NetworkSpec(n_in=6, width=8, depth=4, n_out=3, activation="tanh")
stack_spec = StackSpec(n_in=6, width=8, blocks=2, n_out=3, norm="batch")
cell_spec = RecurrentSpec(cell="lstm", n_in=6, hidden=5, n_out=3)
cross = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

def mlp():
    return ours.build_mlp(spec, draw_weights(spec, seed=3))

def stack():
    return ours.build_stack(stack_spec, draw_stack_weights(stack_spec, seed=3))

def recurrent():
    return ours.build_recurrent(cell_spec, draw_recurrent_weights(cell_spec, seed=3))

def monitored(model):
    rule, rows = keras.optimizers.Adam(1e-3), tf.constant(x, "float32")
    rule.build(model.trainable_variables)
    monitor = ours.GradientFlowMonitor(model, every=1)
    model.compile(rule, cross)
    model.fit(rows, y, batch_size=6, epochs=1, shuffle=False, verbose=0, callbacks=[monitor])
    return monitor.record

def clipped(model):
    with tf.GradientTape() as tape:
        loss = cross(y, model(tf.constant(x, "float32")))
    grads = tape.gradient(loss, model.trainable_variables)
    return ours.clip_audit(model, grads, threshold=0.01)

calls = {
    "gradient_flow": (mlp, lambda m: ours.gradient_flow(m, x, y, loss="cross_entropy")),
    "layer_jacobians": (mlp, lambda m: ours.layer_jacobians(m, x[0])),
    "initialize_model": (mlp, lambda m: ours.gradient_flow(
        ours.initialize_model(m, "he_normal", seed=4), x, y, loss="cross_entropy")),
    "load_weights": (mlp, lambda m: ours.gradient_flow(
        ours.load_weights(m, draw_weights(spec, seed=4)), x, y, loss="cross_entropy")),
    "train": (mlp, lambda m: ours.train(m, x, y, learning_rate=0.1, steps=3, batch_size=4, seed=0)),
    "stack_gradient_flow": (stack, lambda m: ours.stack_gradient_flow(
        m, x, y, loss="cross_entropy")),
    "recurrent_gradient_flow": (recurrent, lambda m: ours.recurrent_gradient_flow(m, sequences)),
    "bptt_profile": (recurrent, lambda m: ours.bptt_profile(m, sequences)),
    "hook_profile": (recurrent, lambda m: ours.hook_profile(m, sequences)),
    "dead_units": (mlp, lambda m: ours.dead_units(m, x.astype("float32"))),
    "jacobian_spectrum": (mlp, lambda m: ours.jacobian_spectrum(m, x[0].astype("float32"))),
    "clip_audit": (mlp, clipped),
    "GradientFlowMonitor": (mlp, monitored),
    "diagnose_model": (mlp, lambda m: ours.diagnose_model(
        m, x.astype("float32"), y, loss=cross, steps=3, learning_rate=1e-2).results),
}

def flat(value):
    if isinstance(value, dict):
        return [n for k in value for n in flat(value[k])]
    if isinstance(value, (tuple, list)):
        return [n for part in value for n in flat(part)]
    if dataclasses.is_dataclass(value):
        return [n for f in dataclasses.fields(value) for n in flat(getattr(value, f.name))]
    if isinstance(value, (np.ndarray, float, int)):
        return np.asarray(value, dtype=float).ravel().tolist()
    return []

found = {}
for name, (build, call) in calls.items():
    outcome = {}
    for device in ("CPU:0", "CPU:1"):
        keras.utils.set_random_seed(0)
        with tf.device(device):
            model = build()
        before = {v.path: v.value.device for v in model.variables}
        with tf.device(device):
            numbers = flat(call(model))
        after = {v.path: v.value.device for v in model.variables}
        outcome[device] = {"numbers": numbers, "before": before, "after": after}
    found[name] = outcome
json.dump(found, sys.stdout)
"""


@pytest.fixture(scope="module")
def found():
    """Run everything twice, once on each logical device."""
    kept = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
    command = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(command, capture_output=True, text=True, env=kept, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


NAMES = [line.split('"')[1] for line in PROGRAM.splitlines() if line.startswith('    "')]


def test_every_call_was_tried(found):
    assert list(found) == NAMES
    assert len(NAMES) == 14


@pytest.mark.parametrize("name", NAMES)
def test_variables_stay_and_numbers_are_the_same(found, name):
    first, second = found[name]["CPU:0"], found[name]["CPU:1"]
    assert first["numbers"] == pytest.approx(second["numbers"], rel=1e-6, abs=1e-12, nan_ok=True)
    assert first["numbers"]
    for number, outcome in enumerate((first, second)):
        assert outcome["before"] == outcome["after"]
        assert all(place.endswith(f"CPU:{number}") for place in outcome["before"].values())
