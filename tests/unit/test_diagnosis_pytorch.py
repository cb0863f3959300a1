"""`diagnose` on models that nobody here wrote: healthy ones pass, broken ones are placed."""

import json
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis import diagnose  # noqa: E402
from course_lib.pytorch import GradientFlowMonitor, bptt_gradient_profile, dead_units  # noqa: E402

RNG = np.random.default_rng(0)
VECTORS = torch.tensor(RNG.normal(size=(64, 16)), dtype=torch.float32)
IMAGES = torch.tensor(RNG.normal(size=(16, 3, 12, 12)), dtype=torch.float32)
TOKENS = torch.tensor(RNG.normal(size=(16, 7, 16)), dtype=torch.float32)


def perceptron(depth=10, activation=nn.ReLU, gain=None, width=32):
    sizes = [16, *[width] * depth]
    parts = []
    for a, b in pairwise(sizes):
        linear = nn.Linear(a, b)
        if gain is None:
            nn.init.kaiming_normal_(linear.weight)
        else:
            nn.init.normal_(linear.weight, std=gain / a**0.5)
        parts += [linear, activation()]
    return nn.Sequential(*parts, nn.Linear(width, 4))


class Pooled(nn.Module):
    """Any sequence model with a head on the mean over time."""

    def __init__(self, body, width):
        super().__init__()
        self.body, self.head = body, nn.Linear(width, 4)

    def forward(self, x):
        h = self.body(x)
        return self.head((h[0] if isinstance(h, tuple) else h).mean(1))


class Block(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a, self.b = nn.Conv2d(n, n, 3, padding=1), nn.Conv2d(n, n, 3, padding=1)
        self.na, self.nb = nn.BatchNorm2d(n), nn.BatchNorm2d(n)

    def forward(self, x):
        return F.relu(x + self.nb(self.b(F.relu(self.na(self.a(x))))))


def resnet():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(),
                         *[Block(8) for _ in range(4)], nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                         nn.Linear(8, 4))  # fmt: skip


def convnet():
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 16, 3),
                         nn.ReLU(), nn.Flatten(), nn.Linear(144, 32), nn.ReLU(),
                         nn.Linear(32, 4))  # fmt: skip


def transformer():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, activation="gelu")
    return Pooled(nn.TransformerEncoder(layer, 3), 16)


def lstm():
    return Pooled(nn.LSTM(16, 12, num_layers=2, batch_first=True), 12)


def watch(model, x, *, lr=1e-3, steps=8, rule=torch.optim.Adam):
    optimizer = rule(model.parameters(), lr=lr)
    y = torch.arange(len(x)) % 4
    with GradientFlowMonitor(model, every=2) as monitor:
        for _ in range(steps):
            optimizer.zero_grad()
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    return monitor.record


@pytest.mark.parametrize(
    ("make", "x"),
    [
        (perceptron, VECTORS), (resnet, IMAGES), (convnet, IMAGES), (transformer, TOKENS),
        (lstm, TOKENS), (lambda: Pooled(nn.GRU(16, 8, batch_first=True), 8), TOKENS),
        (lambda: perceptron(4, nn.Tanh, 1.0), VECTORS),
        (lambda: perceptron(6, nn.LeakyReLU), VECTORS), (lambda: perceptron(6, nn.GELU), VECTORS),
    ],
)  # fmt: skip
@pytest.mark.parametrize("seed", [0, 1])
def test_no_false_alarm_on_healthy_models(make, x, seed):
    torch.manual_seed(seed)
    record = watch(make(), x)
    assert diagnose(record).problems == ()


def first(report, code):
    return next(f for f in report.findings if f.code == code)


def test_a_sigmoid_stack_vanishes_and_weight_gradients_need_not_show_it():
    torch.manual_seed(0)
    report = diagnose(watch(perceptron(12, nn.Sigmoid, 1.0), VECTORS))
    assert first(report, "vanishing_gradient").severity == "problem"
    # In a ReLU chain the weight gradient is one layer's activations times another's gradients:
    # both shrink, from opposite ends, and the product is flat.
    model = nn.Sequential(*[part for _ in range(12) for part in (nn.Linear(16, 16), nn.ReLU())])
    for part in model[::2]:
        nn.init.kaiming_normal_(part.weight)
        with torch.no_grad():
            part.weight *= 0.4
            part.bias.zero_()
    record = watch(nn.Sequential(model, nn.Linear(16, 4)), VECTORS, lr=0.0)
    finding = first(diagnose(record), "vanishing_gradient")
    assert finding.value < -3
    assert "Weight gradients" in finding.why
    ranks = np.array(record.parameter_ranks) >= 2
    flat = record.weight_grad_norms[0, ranks][:-1]
    assert np.ptp(np.log10(flat)) < 1.0


def test_large_weights_explode():
    torch.manual_seed(0)
    report = diagnose(watch(perceptron(12, nn.ReLU, 6.0), VECTORS, lr=1e-6))
    assert first(report, "exploding_gradient").severity == "problem"
    assert first(report, "growing_signal").where.startswith("0 to")


@pytest.mark.parametrize("place", [2, 8])
def test_dead_units_are_placed(place):
    torch.manual_seed(0)
    model = perceptron()
    with torch.no_grad():
        model[place].bias[:24] = -100.0
    finding = first(diagnose(watch(model, VECTORS)), "dead_units")
    assert (finding.severity, finding.where) == ("problem", str(place + 1))
    assert finding.value >= 0.75
    whole = diagnose(dead_units(model, VECTORS))
    assert first(whole, "dead_units").where == str(place + 1)


def test_saturation_is_placed():
    torch.manual_seed(0)
    model = perceptron(4, nn.Tanh, 1.0)
    with torch.no_grad():
        model[4].weight *= 30
    finding = first(diagnose(watch(model, VECTORS)), "saturation")
    assert (finding.severity, finding.where) == ("problem", "5")


def test_the_transformer_block_that_breaks_is_named():
    torch.manual_seed(0)
    model = transformer()
    with torch.no_grad():
        model.body.layers[2].linear1.weight[0, 0] = float("nan")
    report = diagnose(watch(model, TOKENS, steps=2))
    assert report.findings[0].code == "non_finite"
    assert report.findings[0].where == "body.layers.2.linear1, step 0"


def test_a_detached_branch_receives_no_gradient():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.early, self.late = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x):
            return self.late(self.early(x).detach())

    finding = first(diagnose(watch(Cut(), VECTORS)), "no_gradient")
    assert (finding.severity, finding.where) == ("problem", "early.weight")


def test_a_learning_rate_far_too_large_and_far_too_small():
    torch.manual_seed(0)
    report = diagnose(watch(convnet(), IMAGES, lr=1.0))
    assert first(report, "large_update").severity == "problem"
    report = diagnose(watch(convnet(), IMAGES, lr=1e-9, rule=torch.optim.SGD))
    assert first(report, "standing_still").severity == "problem"


def test_a_spike_is_dated():
    torch.manual_seed(0)
    model = convnet()
    rule = torch.optim.SGD(model.parameters(), lr=1e-4)
    with GradientFlowMonitor(model, every=1) as monitor:
        for step in range(12):
            rule.zero_grad()
            factor = 1e4 if step == 8 else 1.0
            (factor * F.cross_entropy(model(IMAGES), torch.arange(16) % 4)).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            rule.step()
    assert first(diagnose(monitor), "unstable_training").where == "step 8"


def test_recurrent_layers_forget_and_explode_over_time():
    torch.manual_seed(0)
    rnn = nn.RNN(3, 8, batch_first=True)
    x = RNG.normal(size=(2, 60, 3))
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(0.5 * torch.eye(8))
    assert diagnose(bptt_gradient_profile(rnn, x)).codes == ("vanishing_over_time",)
    rnn = nn.RNN(3, 8, batch_first=True, nonlinearity="relu")
    with torch.no_grad():
        rnn.weight_hh_l0.copy_(1.6 * torch.eye(8))
    report = diagnose(bptt_gradient_profile(rnn, np.abs(x)))
    assert report.problems[0].code == "exploding_over_time"


def test_the_report_in_three_forms():
    torch.manual_seed(0)
    record = watch(perceptron(12, nn.Sigmoid, 1.0), VECTORS, steps=3)
    report = diagnose(record)
    data = json.loads(report.to_json())
    assert data["findings"][0]["code"] == report.codes[0]
    assert set(data["findings"][0]) == {"code", "severity", "what", "where", "value", "threshold",
                                        "why", "remedy"}  # fmt: skip
    assert report.findings[0].remedy in str(report)
    assert "<table>" in report._repr_html_()
    assert json.loads(record.to_json())["layers"] == list(record.layers)
