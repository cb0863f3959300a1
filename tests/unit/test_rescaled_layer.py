"""One layer's weights ten times too large or too small: the finding, and its place."""

from itertools import pairwise

import keras
import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from course_lib.diagnosis import diagnose
from course_lib.diagnosis.local import check_scale, measure_factors
from course_lib.flow_recorder import FlowRecorder
from course_lib.monitoring import ParameterState, Sample, Site
from course_lib.pytorch import GradientFlowMonitor
from course_lib.pytorch import diagnose_model as diagnose_pytorch
from course_lib.tf import diagnose_model as diagnose_keras

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 16)).astype("float32"), np.arange(32) % 4
DEPTH = 6


def record(forward, backward, weights, *, kinds=None, steps=(0,), apart=1.0):
    """A record of layers in a chain, from their factors; the last layer's gradient is 1."""
    recorder = FlowRecorder(framework="NumPy", every=1, max_records=9, share=0.1)
    scales, apart = np.cumprod(forward), np.broadcast_to(apart, len(forward))
    grads = np.append(np.cumprod(np.asarray(backward)[:0:-1])[::-1], 1.0)
    for step in steps:
        sites, parameters = [], []
        for k, scale in enumerate(scales):
            kind = "Linear" if kinds is None else kinds[k]
            sites.append(Site(f"l{k}", kind, None, 64, 1, 8 * float(scale), float(grads[k])))
            before = scales[k - 1] if k else 1.0
            parameters.append(
                ParameterState(f"l{k}.w", f"l{k}", 2, True, float(apart[k] * before * grads[k]),
                               float(weights[k]), float(weights[k]) / 1e3)
            )  # fmt: skip
        recorder.add(Sample(step, sites, parameters))
    return recorder.record()


def rescaled(place, factor, layers=8, **options):
    noise = 10 ** np.random.default_rng(1).normal(0, 0.03, size=(3, layers))
    noise[:, place] *= factor
    return record(*noise, **options)


def places(report):
    return [f.where for f in report.findings if f.code == "rescaled_layer"]


@pytest.mark.parametrize("factor", [10.0, 0.1, 5.0, 1 / 5])
@pytest.mark.parametrize("place", [1, 3, 6])
def test_the_layer_is_named_and_its_factor_measured(place, factor):
    (finding,) = check_scale(rescaled(place, factor))
    assert (finding.severity, finding.where) == ("warning", f"l{place}")
    assert finding.value == pytest.approx(np.log10(factor), abs=0.1)
    assert ("large" if factor > 1 else "small") in finding.what
    assert places(diagnose(rescaled(place, factor))) == [f"l{place}"]


@pytest.mark.parametrize("factor", [1.0, 3.0, 1 / 3])
def test_a_factor_of_three_is_within_what_healthy_networks_show(factor):
    assert check_scale(rescaled(3, factor)) == []


def test_every_condition_can_withhold_the_finding():
    ones = np.ones(8)
    far = ones.copy()
    far[3] = 10.0
    assert len(check_scale(record(far, far, far))) == 1
    for three in ((ones, far, far), (far, ones, far), (far, far, ones), (far, far, 1 / far),
                  (1 / far, far, far), (far, far**2, far)):  # fmt: skip
        assert check_scale(record(*three)) == []
    kinds = ["Linear"] * 8
    for place in (3, 2):
        changed = ["Embedding" if k == place else other for k, other in enumerate(kinds)]
        assert check_scale(record(far, far, far, kinds=changed)) == []
    assert check_scale(record(far, far, far**0.3)) == []
    spread = far * 10 ** np.array([0.3, -0.3, 0.3, 0, -0.3, 0.3, -0.3, 0])
    assert check_scale(record(spread, spread, spread)) == []
    two = far.copy()
    two[5] = 10.0
    assert check_scale(record(two, two, two)) == []
    assert check_scale(record(far[:4], far[:4], far[:4])) == []  # three factors are no usual one


def test_small_heads_are_a_choice_and_large_ones_are_not():
    assert check_scale(rescaled(7, 0.01)) == []
    assert [f.where for f in check_scale(rescaled(7, 10.0))] == ["l7"]
    factors = np.ones((3, 8))
    factors[:, 6], factors[:, 7] = 0.01, [100.0, 100.0, 1.0]  # a small head, and one beside it
    assert check_scale(record(*factors)) == []
    factors[:, 7] = 1.0  # two small heads: the second was not fed with the first one's output
    fed = np.where(np.arange(8) == 7, 100.0, 1.0)
    assert check_scale(record(*factors, apart=fed)) == []
    assert len(check_scale(record(*factors))) == 1  # in a chain, it is no head


def test_a_large_layer_is_named_whatever_comes_after_it():
    factors = np.ones((3, 8))
    factors[:, 3], factors[0, 4] = 10.0, 0.1  # as where the next one saturates
    assert [f.where for f in check_scale(record(*factors))] == ["l3"]


def test_factors_by_hand_from_the_first_sample():
    table = record([2.0, 3.0, 5.0], [1.0, 7.0, 11.0], [13.0, 17.0, 19.0], steps=(0, 1), apart=10.0)
    found, factors = measure_factors(table)
    np.testing.assert_array_equal(found, [1, 2])
    np.testing.assert_allclose(10**factors, [[3, 7, 17, 10], [5, 11, 19, 10]], rtol=1e-12)
    table.activation_scales[1] = 1e9
    np.testing.assert_allclose(measure_factors(table)[1], factors)
    for value in (np.nan, np.inf, 0.0):
        table.activation_grad_norms[0, 2] = value
        np.testing.assert_array_equal(measure_factors(table)[0], [1])


def draw(activation, index, factor):
    """Weights of a perceptron drawn in NumPy, one of them times `factor`."""
    rng = np.random.default_rng(5)
    variance = {"relu": 2.0, "gelu": 2.0, "tanh": 1.0}[activation]
    sizes = [16, *[32] * DEPTH, 4]
    weights = [rng.normal(0, np.sqrt(variance / a), size=(a, b)).astype("float32")
               for a, b in pairwise(sizes)]  # fmt: skip
    if index is not None:
        weights[index] *= factor
    return weights


def in_pytorch(activation, weights):
    kind = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}[activation]
    parts = []
    for w in weights:
        linear = nn.Linear(*w.shape)
        with torch.no_grad():
            linear.weight.copy_(torch.from_numpy(w.T.copy()))
            linear.bias.zero_()
        parts += [linear, kind()]
    model = nn.Sequential(*parts[:-1])
    return diagnose_pytorch(model, torch.from_numpy(X), torch.from_numpy(Y),
                            loss=nn.functional.cross_entropy, steps=1)  # fmt: skip


def in_keras(activation, weights):
    last = len(weights) - 1
    layers = [keras.layers.Dense(w.shape[1], None if k == last else activation, name=f"h{k}")
              for k, w in enumerate(weights)]  # fmt: skip
    model = keras.Sequential([keras.layers.Input((16,)), *layers])
    for layer, w in zip(layers, weights, strict=True):
        layer.kernel.assign(w)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return diagnose_keras(model, X, Y, loss=loss, steps=1)


@pytest.mark.parametrize("factor", [10.0, 0.1])
@pytest.mark.parametrize("index", [1, 3, 5])
@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_the_right_place_in_pytorch(activation, index, factor):
    report = in_pytorch(activation, draw(activation, index, factor))
    assert places(report) == [str(2 * index)]


@pytest.mark.parametrize(
    ("activation", "index", "factor"),
    [("relu", 1, 10.0), ("relu", 3, 0.1), ("relu", 5, 10.0), ("relu", 5, 0.1), ("gelu", 2, 10.0),
     ("gelu", 4, 0.1), ("tanh", 1, 0.1), ("tanh", 3, 0.1)],
)  # fmt: skip
def test_the_right_place_in_keras(activation, index, factor):
    report = in_keras(activation, draw(activation, index, factor))
    assert places(report) == [f"h{index}"]


def test_a_tanh_inside_its_layer_saturates_before_the_factor_is_seen():
    report = in_keras("tanh", draw("tanh", 3, 10.0))
    assert [(f.code, f.where) for f in report.findings] == [("saturation", "h3")]


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
@pytest.mark.parametrize("factor", [1.0, 0.01])
def test_healthy_networks_and_small_last_layers_get_none(activation, factor):
    weights = draw(activation, DEPTH, factor)
    for run in (in_pytorch, in_keras):
        assert places(run(activation, weights)) == []
    if factor == 1:
        assert in_pytorch(activation, weights).codes == ()


@pytest.mark.parametrize(
    "sizes", [(16, 256, 8, 256, 8, 256, 4), (16, 256, 128, 64, 32, 16, 4), (16, 16, 64, 256, 64, 4)]
)
@pytest.mark.parametrize("rule", [nn.init.xavier_normal_, nn.init.kaiming_normal_,
                                  nn.init.orthogonal_])  # fmt: skip
def test_widths_that_change_are_no_rescaling(sizes, rule):
    torch.manual_seed(0)
    parts = []
    for a, b in pairwise(sizes):
        linear = nn.Linear(a, b)
        rule(linear.weight)
        parts += [linear, nn.Tanh()]
    report = diagnose_pytorch(nn.Sequential(*parts[:-1]), torch.from_numpy(X), torch.from_numpy(Y),
                              loss=nn.functional.cross_entropy, steps=1)  # fmt: skip
    assert places(report) == []


@pytest.mark.parametrize("factor", [0.1, 10.0])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.Sigmoid])
def test_biases_as_pytorch_draws_them_do_not_hide_the_layer(activation, factor):
    torch.manual_seed(0)
    parts = [part for a, b in pairwise((16, *[32] * DEPTH)) for part in (nn.Linear(a, b),
                                                                       activation())]  # fmt: skip
    model = nn.Sequential(*parts, nn.Linear(32, 4))
    batch = torch.from_numpy(X), torch.from_numpy(Y)
    options = dict(loss=nn.functional.cross_entropy, steps=1)
    assert places(diagnose_pytorch(model, *batch, **options)) == []
    with torch.no_grad():
        model[6].weight *= factor
    (finding,) = [f for f in diagnose_pytorch(model, *batch, **options).findings
                  if f.code == "rescaled_layer"]  # fmt: skip
    assert finding.where == "6"
    assert finding.value == pytest.approx(np.log10(factor), abs=0.35)


# The first layer, with a monitor alone ------------------------------------------------------


def watched(*, weights=1.0, inputs=1.0):
    """Return what a monitor's record says of a network whose inputs it does not know."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(),
                          nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 4))  # fmt: skip
    with torch.no_grad():
        model[0].weight.mul_(weights)
    rule = torch.optim.SGD(model.parameters(), lr=1e-3)
    with GradientFlowMonitor(model, every=1) as monitor:
        for _ in range(2):
            rule.zero_grad()
            F.cross_entropy(model(inputs * torch.randn(32, 8)), torch.arange(32) % 4).backward()
            rule.step()
    return [(f.code, f.where) for f in diagnose(monitor).findings if f.severity != "info"]


def test_a_first_layer_that_is_too_large_is_told_from_large_inputs():
    assert ("rescaled_layer", "0") in watched(weights=100)
    assert ("large_inputs", "0") in watched(inputs=100)
    assert watched() == []
