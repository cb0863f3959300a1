"""`diagnose_model` on networks that PyTorch ships: no false alarm, and the fault's place."""

import copy

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.pytorch import dead_units, diagnose_model, saturation  # noqa: E402

LABELS = torch.arange(8) % 4


def draw(*shape):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


class Last(nn.Module):
    """A model on sequences with a head on the mean over time."""

    def __init__(self, body):
        super().__init__()
        self.body, self.head = body, nn.Linear(16, 4)

    def forward(self, x):
        h = self.body(x)
        return self.head((h[0] if isinstance(h, tuple) else h).mean(1))


class Seq2Seq(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Transformer(16, 2, 2, 2, 32, batch_first=True)
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        return self.head(self.body(x, x[:, :5]).mean(1))


def encoder():
    layer = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
    return Last(nn.TransformerEncoder(layer, 3, enable_nested_tensor=False)), draw(8, 9, 16)


def convolutional():
    parts = [part for k in range(4) for part in (
        nn.Conv2d(3 if k == 0 else 12, 12, 3, padding=1), nn.BatchNorm2d(12), nn.ReLU())]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4)), draw(
        8, 3, 10, 10)  # fmt: skip


ZOO = {
    "transformer": lambda: (Seq2Seq(), draw(8, 9, 16)),
    "encoder": encoder,
    "convolutional": convolutional,
    "lstm": lambda: (Last(nn.LSTM(16, 8, 2, batch_first=True, bidirectional=True)),
                     draw(8, 9, 16)),
    "gru": lambda: (Last(nn.GRU(16, 16, 2, batch_first=True)), draw(8, 9, 16)),
    "rnn": lambda: (Last(nn.RNN(16, 16, batch_first=True)), draw(8, 9, 16)),
}  # fmt: skip


def report_of(name, change=None, **options):
    torch.manual_seed(0)
    model, x = ZOO[name]()
    if change is not None:
        with torch.no_grad():
            change(model)
    return diagnose_model(model, x, LABELS, loss=F.cross_entropy, steps=3, **options)


@pytest.mark.parametrize("name", ZOO)
def test_healthy_networks_raise_no_alarm_and_stay_as_they_are(name):
    assert [f for f in report_of(name).findings if f.severity != "info"] == []
    model, x = ZOO[name]()
    kept, modes = copy.deepcopy(model.state_dict()), [m.training for m in model.modules()]
    assert dead_units(model, x, batch_size=5).layers
    assert all(0 <= value <= 1 for value in saturation(model, x).values())
    assert modes == [m.training for m in model.modules()]
    assert all(torch.equal(a, b) for a, b in zip(kept.values(), model.state_dict().values(),
                                                 strict=True))  # fmt: skip


def times(where, factor):
    return lambda model: model.get_parameter(where).mul_(factor)


def fill(where, value, rows=slice(None)):
    return lambda model: model.get_parameter(where)[rows].fill_(value)


def frozen(where):
    return lambda model: model.get_submodule(where).requires_grad_(False)


@pytest.mark.parametrize(
    ("name", "change", "code", "place"),
    [
        ("transformer", fill("body.decoder.layers.1.linear2.weight", torch.nan, (0, 0)),
         "non_finite", "body.decoder.layers.1.linear2, step 0"),
        ("encoder", times("body.layers.1.self_attn.in_proj_weight", 100.0), "saturated_attention",
         "body.layers.1.self_attn (softmax)"),
        ("encoder", frozen("body.layers.1"), "frozen_parameters",
         "body.layers.1.self_attn.in_proj_weight"),
        ("convolutional", fill("7.bias", -1e4), "dead_units", "8"),
        ("lstm", fill("body.bias_ih_l1", 20.0, slice(0, 8)), "stuck_gate", "body_l1 (i)"),
        ("gru", fill("body.bias_ih_l0", -20.0, slice(0, 16)), "stuck_gate", "body_l0 (r)"),
        ("rnn", times("body.weight_hh_l0", 3.0), "large_recurrent_matrix",
         "body, tanh_rnn, time steps"),
    ],
)  # fmt: skip
def test_the_broken_layer_is_named_first(name, change, code, place):
    first = report_of(name, change).findings[0]
    assert (first.code, first.where) == (code, place)


@pytest.mark.parametrize("name", ["transformer", "convolutional", "lstm"])
def test_a_learning_rate_a_thousand_times_too_large_is_named(name):
    codes = {f.code for f in report_of(name, learning_rate=1.0).problems}
    assert codes & {"large_update", "non_finite", "unstable_training"}
