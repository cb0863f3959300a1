"""Parameters without a gradient: cut off is a problem, unused is a note, frozen depends."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import torch
from keras import layers
from torch import nn

from course_lib.diagnosis import diagnose
from course_lib.diagnosis.connections import find_unused
from course_lib.flow_recorder import FlowRecorder
from course_lib.monitoring import ParameterState, Sample, Site
from course_lib.pytorch import GradientFlowMonitor
from course_lib.pytorch import diagnose_model as diagnose_pytorch
from course_lib.tf import diagnose_model as diagnose_keras

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(16, 8)).astype("float32"), np.arange(16) % 4
CODES = ("no_gradient", "unused_parameter", "zero_gradient", "frozen_parameters")


def found(report):
    return [(f.severity, f.code, f.where) for f in report.findings if f.code in CODES]


class Net(nn.Module):
    """A residual body, with one thing or another wrong in it."""

    def __init__(self, fault):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.block, self.head = nn.Linear(8, 16), nn.Linear(16, 16), nn.Linear(16, 4)
        self.side = nn.Linear(16, 3) if fault in ("side", "idle") else None
        self.table = nn.Parameter(torch.ones(3, 16)) if fault == "table" else None
        self.fault = fault
        if fault == "freeze block":
            self.block.requires_grad_(False)
        if fault == "freeze body":
            self.first.requires_grad_(False)
            self.block.requires_grad_(False)

    def forward(self, x):
        h = torch.tanh(self.first(x))
        branch = self.block(h)
        if self.fault == "side":
            self.kept = self.side(h).sum().item()
        h = h + {"detach": branch.detach(), "zero": 0 * branch}.get(self.fault, branch)
        return self.head(h)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("none", []),
        ("detach", [("problem", "no_gradient", "block.weight")]),
        ("side", [("info", "unused_parameter", "side.weight")]),
        ("table", [("info", "unused_parameter", "table")]),
        ("idle", [("warning", "no_gradient", "side.weight")]),
        ("zero", [("warning", "zero_gradient", "block.weight")]),
        ("freeze block", [("warning", "frozen_parameters", "block.weight")]),
        ("freeze body", [("info", "frozen_parameters", "first.weight")]),
    ],
)
def test_the_rule_in_pytorch(fault, expected):
    model = Net(fault)
    kept = [p.detach().clone() for p in model.parameters()]
    report = diagnose_pytorch(model, torch.from_numpy(X), torch.from_numpy(Y),
                              loss=nn.functional.cross_entropy, steps=3)  # fmt: skip
    assert found(report) == expected
    assert all(torch.equal(a, b) for a, b in zip(kept, model.parameters(), strict=True))


def keras_net(fault):
    keras.utils.set_random_seed(0)
    x = keras.Input((8,))
    h = layers.Dense(16, "tanh", name="first")(x)
    block = layers.Dense(16, name="block")
    block.trainable = fault != "freeze block"
    branch = block(h)
    if fault == "detach":
        branch = layers.Lambda(tf.stop_gradient)(branch)
    if fault == "zero":
        branch = layers.Rescaling(0.0)(branch)
    output = layers.Dense(4, name="head")(layers.Add()([h, branch]))
    if fault == "side":
        return keras.Model(x, [output, layers.Dense(3, name="side")(h)])
    return keras.Model(x, output)


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("none", []),
        ("detach", [("problem", "no_gradient", "block/kernel")]),
        ("side", [("info", "unused_parameter", "side/kernel")]),
        ("zero", [("warning", "zero_gradient", "block/kernel")]),
        ("freeze block", [("warning", "frozen_parameters", "block/kernel")]),
    ],
)
def test_the_rule_in_keras(fault, expected):
    cross = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def loss(output, y):
        return cross(y, output[0] if isinstance(output, list) else output)

    assert found(diagnose_keras(keras_net(fault), X, Y, loss=loss, steps=3)) == expected


def test_a_monitor_alone_says_what_it_cannot_know():
    class Half(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.spare = nn.Parameter(torch.eye(8)), nn.Parameter(torch.ones(8))

        def forward(self, x):
            return x @ self.weight

    def watch(model):
        rule = torch.optim.SGD(model.parameters(), lr=0.1)
        with GradientFlowMonitor(model, every=1) as monitor:
            for _ in range(2):
                out = model(torch.from_numpy(X))
                nn.functional.cross_entropy(out, torch.from_numpy(Y)).backward()
                rule.step()
        return found(diagnose(monitor))

    assert watch(Net("detach")) == [("warning", "no_gradient", "block.weight")]
    assert watch(Net("side")) == [("warning", "no_gradient", "side.weight")]
    table = nn.Sequential(Net("table"))  # not used, though all layers beside it are
    assert watch(table) == [("info", "unused_parameter", "0.table")]
    half = nn.Sequential(Half(), nn.Linear(8, 4))
    assert watch(half) == [("info", "unused_parameter", "0.spare")]


def test_halving_finds_all_that_is_unused_in_few_trials():
    groups = [[f"l{k}.w", f"l{k}.b"] for k in range(40)]
    used, tried = {"l7.w", "l31.b"}, []

    def changes_loss(names):
        tried.append(names)
        return bool(used & set(names))

    unused = find_unused(groups, changes_loss)
    assert sorted(unused) == sorted(n for k, g in enumerate(groups) if k not in (7, 31) for n in g)
    assert len(tried) < 30
    assert find_unused(groups, lambda names: True) == []


def test_scales_and_tables_without_a_choice_are_a_note():
    def record(silent):
        recorder = FlowRecorder(framework="NumPy", every=1, max_records=9, share=0.1)
        for step in range(2):
            sites = [Site(name, "Linear", None, 4, 1, 1.0, 1.0) for name in ("a.qkv", "a", "b")]
            names = ("a.qkv.weight", "a.qkv.bias", "a.positions", "b.scale", "b.weight")
            states = [ParameterState(n, n.rpartition(".")[0], 1 if n in ("a.qkv.bias", "b.scale")
                                     else 2, True, float(n not in silent), 1.0, 1e-3)
                      for n in names]  # fmt: skip
            recorder.add(Sample(step, sites, states))
        return found(diagnose(recorder.record()))

    assert record(()) == []
    assert record(("a.positions",)) == [("info", "zero_gradient", "a.positions")]
    assert record(("b.scale",)) == [("info", "zero_gradient", "b.scale")]
    assert record(("b.weight",)) == [("info", "zero_gradient", "b.weight")]
    assert record(("a.qkv.weight", "a.qkv.bias")) == [("warning", "zero_gradient", "a.qkv.weight")]
    both = record(("a.qkv.weight", "a.qkv.bias", "b.scale"))
    assert both == [("warning", "zero_gradient", "a.qkv.weight")]


def test_a_bias_that_a_difference_takes_out_is_told_as_a_bias():
    critic = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(), nn.Linear(8, 1))
    rule = torch.optim.SGD(critic.parameters(), lr=0.01)
    real, fake = torch.randn(16, 4), torch.randn(16, 4) + 1
    with GradientFlowMonitor(critic, every=1) as monitor:
        for _ in range(3):
            rule.zero_grad()
            (critic(fake).mean() - critic(real).mean()).backward()
            rule.step()
    (finding,) = diagnose(monitor.record).findings
    assert (finding.code, finding.severity, finding.where) == ("zero_gradient", "info", "2.bias")
    assert finding.what.startswith("the gradient of 1 trainable parameter is")
    assert finding.why.startswith("Biases")


@pytest.mark.parametrize("rule", [
    lambda parameters: torch.optim.Adam(parameters[4:]),
    lambda parameters: torch.optim.SGD([{"params": parameters[:4], "lr": 0.0},
                                        {"params": parameters[4:]}], lr=0.1),
    torch.optim.Adam,
])  # fmt: skip
def test_what_gets_a_gradient_and_is_not_handed_to_the_optimizer_is_named(rule):
    torch.manual_seed(0)
    parts = [part for _ in range(3) for part in (nn.Linear(8, 8), nn.Tanh())]
    report = diagnose_pytorch(
        nn.Sequential(*parts, nn.Linear(8, 4)), torch.from_numpy(X), torch.from_numpy(Y),
        loss=nn.functional.cross_entropy, steps=3, optimizer=lambda p: rule(list(p)),
    )  # fmt: skip
    told = [(f.severity, f.where) for f in report.findings if f.code == "not_updated"]
    assert told == ([] if rule is torch.optim.Adam else [("warning", "0.weight")])
    assert report.codes == (() if rule is torch.optim.Adam else ("not_updated",))


@pytest.mark.parametrize("stop", [torch.detach, lambda h: 0 * h])
def test_the_last_layer_that_gets_no_gradient_is_the_place_and_the_first_is_named(stop):
    torch.manual_seed(0)
    parts = [part for _ in range(3) for part in (nn.Linear(8, 8), nn.Tanh())]
    model = nn.Sequential(*parts, nn.Linear(8, 4))
    model[3].register_forward_hook(lambda module, inputs, output: stop(output))
    report = diagnose_pytorch(model, torch.from_numpy(X), torch.from_numpy(Y),
                              loss=nn.functional.cross_entropy, steps=2)  # fmt: skip
    (finding,) = [f for f in report.findings if f.code in CODES]
    assert finding.where == "2.weight"
    assert finding.what.endswith("; the first is 0.weight")


@pytest.mark.parametrize(("scales", "severity"), [(10.0 ** np.arange(8), "warning"),
                                                  (np.ones(8), "problem")])  # fmt: skip
def test_units_that_die_where_the_signal_has_grown_come_after_the_growth(scales, severity):
    recorder = FlowRecorder(framework="NumPy", every=1, max_records=9, share=0.1)
    for step in range(2):
        off = np.repeat([0.0, 2.0], [28, 4])
        sites = [Site(f"l{k}", "ReLU", "relu", 128, 4, 128**0.5 * float(s), 1.0,
                      off if k == 5 else off + 1) for k, s in enumerate(scales)]  # fmt: skip
        recorder.add(Sample(step, sites, []))
    report = diagnose(recorder.record())
    (dead,) = [f for f in report.findings if f.code == "dead_units"]
    assert (dead.severity, dead.where) == (severity, "l5")
    assert report.findings[0].code == ("growing_signal" if scales[-1] > 1 else "dead_units")
