"""How matrices were drawn, and what comes behind them: gains, normalizations, quiet branches."""

from dataclasses import replace

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis.gains import check_gains  # noqa: E402
from course_lib.diagnosis.states import check_identical  # noqa: E402
from course_lib.diagnosis.training import check_updates, normalized_layers  # noqa: E402
from course_lib.flow_recorder import FlowRecorder  # noqa: E402
from course_lib.monitoring import ParameterState, Sample, Site  # noqa: E402
from course_lib.pytorch import diagnose_model  # noqa: E402
from course_lib.pytorch.trial_weights import (  # noqa: E402
    NormalizedWatch,
    fans_in,
    find_identical,
)

X = torch.randn(16, 3, 10, 10, generator=torch.Generator().manual_seed(0))
Y = torch.arange(16) % 4


def record(ratios, *, grads=None, gains=None, normalized=()):
    """A record of three steps of layers with one matrix each."""
    recorder = FlowRecorder(framework="NumPy", every=1, max_records=9, share=0.1)
    grads = grads or [1.0] * len(ratios)
    for step in range(3):
        sites = [Site(f"l{k}", "Linear", None, 64, 1, 8.0, g) for k, g in enumerate(grads)]
        states = [ParameterState(f"l{k}.weight", f"l{k}", 2, True, 1.0, 1.0, r)
                  for k, r in enumerate(ratios)]  # fmt: skip
        recorder.add(Sample(step, sites, states))
    gains = None if gains is None else np.array(gains, dtype=float)
    return replace(recorder.record(), gains=gains, normalized=tuple(normalized))


def told(findings):
    return [(f.severity, f.code, f.where) for f in findings]


# Gains -------------------------------------------------------------------------------------


def test_the_usual_matrix_or_one_of_them_may_be_too_large():
    usual = [1e-3] * 5
    assert check_gains(record(usual)) == []
    assert check_gains(record(usual, gains=[1.4, 1.4, 0.6, 11.0, 2.8])) == []
    assert check_gains(record(usual, gains=[0.01] * 5)) == []  # small ones are a choice
    assert check_gains(record(usual, gains=[np.nan] * 5)) == []
    (found,) = check_gains(record(usual, gains=[1.4, 5.0, 24.0, 24.0, 24.0]))
    assert told([found]) == [("problem", "large_weights", "l1.weight")]
    assert (found.value, found.threshold) == (24.0, 5.0)
    (found,) = check_gains(record(usual, gains=[1.4, 1.4, 1.4, 40.0, 31.0]))
    assert told([found]) == [("warning", "rescaled_layer", "l3")]
    assert "so do 1 later ones" in found.what
    assert check_gains(record(usual[:2], gains=[24.0, 24.0])) == []  # no usual one


def test_fans_of_dense_and_convolutional_layers():
    model = nn.Sequential(nn.Conv2d(6, 4, 3, groups=2), nn.Flatten(), nn.Linear(7, 5),
                          nn.Embedding(9, 3), nn.ConvTranspose2d(2, 3, 3))  # fmt: skip
    assert fans_in(model) == {"0.weight": 27, "2.weight": 7, "3.weight": 1}
    assert fans_in(nn.Linear(7, 5)) == {"weight": 7}


def convolutional(norm=nn.BatchNorm2d):
    torch.manual_seed(0)
    parts = [part for k in range(4) for part in (
        nn.Conv2d(3 if k == 0 else 12, 12, 3, padding=1), norm(12), nn.ReLU())]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(12, 4))


def trial(model, **options):
    report = diagnose_model(model, X, Y, loss=F.cross_entropy, steps=3, **options)
    return [f for f in report.findings if f.severity != "info"]


def sgd(parameters):
    return torch.optim.SGD(parameters, lr=0.01, momentum=0.9)


def test_a_standard_deviation_of_1_is_named_behind_normalizations_too():
    model = convolutional()
    with torch.no_grad():
        for p in model.parameters():
            if p.ndim > 1:
                p.normal_()
    first = trial(model)[0]
    assert told([first]) == [("problem", "large_weights", "0.weight")]
    assert first.value == pytest.approx(np.sqrt(108), rel=0.1)


@pytest.mark.parametrize("rule", [None, sgd])
def test_a_layer_times_a_hundred_in_front_of_a_normalization_is_named(rule):
    model = convolutional()
    with torch.no_grad():
        model[6].weight.mul_(100)
    assert told(trial(model, optimizer=rule)[:1]) == [("warning", "rescaled_layer", "6")]


# Normalizations ----------------------------------------------------------------------------


class Branches(nn.Module):
    """One layer in front of a normalization, one behind a sum, one changed in place."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))
        self.n, self.m, self.k = nn.LayerNorm(4), nn.LayerNorm(4), nn.LayerNorm(4)

    def forward(self, x):
        h = self.n(self.a(x).view(-1, 1, 4)).view(-1, 4)
        h = self.m(h + self.b(h))
        return self.d(self.k(F.relu_(self.c(h))))


def test_what_a_normalization_takes_as_it_is():
    model = Branches()
    with NormalizedWatch(model) as watch:
        model(torch.ones(3, 4))
    assert watch.layers == ("a",)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    shared = nn.Linear(4, 4)
    for model, expected in (
        (nn.Sequential(shared, nn.LayerNorm(4), shared, nn.ReLU()), ()),
        (nn.Sequential(shared, nn.LayerNorm(4), shared, nn.LayerNorm(4)), ("0",)),
        (nn.Sequential(shared, nn.BatchNorm1d(4)), ("0",)),
        (nn.Sequential(shared, nn.BatchNorm1d(4)).eval(), ()),  # that one divides by constants
        (nn.Sequential(shared, nn.LocalResponseNorm(2)), ()),
    ):
        with NormalizedWatch(model) as watch:
            model(torch.ones(3, 4, 4))
        assert watch.layers == expected


def test_a_long_step_in_front_of_a_normalization_shortens_the_next():
    usual = [1e-3] * 4
    assert told(check_updates(record([0.9, *usual])))[0] == ("problem", "large_update", "l0.weight")
    assert check_updates(record([0.9, *usual], normalized=["l0"])) == []
    every = check_updates(record([0.9] * 5, normalized=[f"l{k}" for k in range(5)]))
    assert told(every) == [("problem", "large_update", "l0.weight")]  # it is the rate


def test_updates_of_what_was_drawn_small_count_as_far_as_they_can_do_harm():
    usual, fair = [1e-3] * 4, [1.0] * 4
    assert check_updates(record([0.9, *usual], gains=[0.01, *fair])) == []
    assert len(check_updates(record([0.9, *usual], gains=[0.5, *fair]))) == 1
    assert len(check_updates(record([90.0, *usual], gains=[0.01, *fair]))) == 1
    assert check_updates(record([0.9] * 5, gains=[0.01] * 5)) == []
    assert len(check_updates(record([0.9, *usual], gains=[np.nan, *fair]))) == 1


# Quiet branches ----------------------------------------------------------------------------


def test_what_stands_still_on_a_branch_without_gradient_is_a_note_if_what_is_before_it_moves():
    still = [1e-3, 1e-9, 1e-9, 1e-9, 1e-3]
    (note,) = check_updates(record(still, grads=[1.0, 1e-6, 1e-6, 1e-6, 1.0]))
    assert told([note])[0][:2] == ("info", "standing_still")
    assert "attention" in note.why
    (found,) = check_updates(record(still))  # it has a gradient: its own rate, or its size
    assert found.severity == "problem"
    vanishing = record([1e-9, 1e-9, 1e-9, 1e-3, 1e-3], grads=[1e-6, 1e-6, 1e-6, 1.0, 1.0])
    assert check_updates(vanishing)[0].severity == "problem"


class Scaled(nn.Module):
    """A residual block whose branch begins at a millionth, as in ConvNeXt."""

    def __init__(self):
        super().__init__()
        self.inner, self.outer = nn.Linear(16, 32), nn.Linear(32, 16)
        self.scale = nn.Parameter(torch.full((1, 16), 1e-6))

    def forward(self, x):
        return x + self.scale * self.outer(F.gelu(self.inner(x)))


def test_blocks_scaled_by_a_millionth_raise_no_alarm_under_sgd():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 16), *(Scaled() for _ in range(6)),
                          nn.Linear(16, 4))  # fmt: skip
    assert trial(model, optimizer=sgd) == []


# Cells that are called again ---------------------------------------------------------------


class ConvLSTM(nn.Module):
    """A convolutional LSTM as it is usually written: one convolution for all gates."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3 + 8, 32, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x):
        h = x.new_zeros(len(x), 8, *x.shape[-2:])
        c = h
        for frame in x.unbind(1):
            i, f, o, g = self.conv(torch.cat([frame, h], 1)).chunk(4, 1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.head(h.mean((2, 3)))


@pytest.mark.parametrize(("factor", "expected"), [
    (1.0, []), (8.0, [("warning", "large_recurrent_matrix", "conv")]),
])  # fmt: skip
def test_the_kernel_of_a_convolutional_lstm(factor, expected):
    torch.manual_seed(0)
    model = ConvLSTM()
    with torch.no_grad():
        model.conv.weight[:, 3:] *= factor
    frames = torch.randn(8, 10, 3, 6, 6, generator=torch.Generator().manual_seed(1))
    report = diagnose_model(model, frames, Y[:8], loss=F.cross_entropy, steps=3)
    assert told(f for f in report.findings if f.severity != "info")[:1] == expected


def test_momentum_alone_is_no_rise():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 16), nn.Tanh(), nn.Linear(16, 4))
    report = diagnose_model(model, X, Y, loss=lambda out, y: 1e-9 * F.cross_entropy(out, y),
                            steps=4, optimizer=sgd)  # fmt: skip
    assert report.codes[0] == "standing_still"


# The model's own state ---------------------------------------------------------------------


def test_units_drawn_alike_are_named_and_one_layer_of_them_is_harmless():
    def codes(*places):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(300, 16), nn.Tanh(), nn.Linear(16, 16),
                              nn.Tanh(), nn.Linear(16, 4))  # fmt: skip
        for k in places:
            nn.init.constant_(model[k].weight, 0.05)
        return [(f.code, f.where) for f in trial(model) if f.code == "identical_units"]

    assert codes() == codes(3) == []
    assert codes(1, 3, 5) == codes(1, 3) == [("identical_units", "1.weight")]
    assert check_identical(["a", "b"], 5) == []
    cell = nn.LSTM(4, 3)
    for p in cell.parameters():
        nn.init.constant_(p, 0.05)
    assert find_identical(cell) == (["weight_ih_l0", "weight_hh_l0"], 2)
    assert find_identical(nn.Conv2d(8, 8, 3, groups=8)) == ([], 0)
    zero = nn.Linear(4, 4)
    nn.init.zeros_(zero.weight)
    assert find_identical(zero) == ([], 1)


def test_normalizations_in_evaluation_mode_need_statistics():
    model = convolutional()
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert told(trial(model)[:1]) == [("problem", "missing_statistics", "1")]
    model.train()
    model(X)
    for module in model:
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    assert "missing_statistics" not in [f.code for f in trial(model)]  # fixed, with statistics
    assert "missing_statistics" not in [f.code for f in trial(convolutional().eval())]


def test_a_sigmoid_that_no_layer_is_known_for():
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 4))
    model.register_forward_hook(lambda module, args, output: output.sigmoid())
    assert [f.code for f in trial(model)] == ["activation_twice"]
    pixels = nn.Conv2d(3, 4, 3, padding=1)
    pixels.register_forward_hook(lambda module, args, output: output.sigmoid())
    report = diagnose_model(pixels, X, Y[:, None, None].expand(16, 10, 10).contiguous(), steps=2,
                            loss=F.cross_entropy)  # fmt: skip
    assert report.codes[0] == "activation_twice"


def test_large_inputs_of_a_layer_that_makes_them_small():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(300, 16), nn.Tanh(), nn.Linear(16, 4))
    with torch.no_grad():
        model[1].weight.mul_(0.1)
    report = diagnose_model(model, 255 * X.abs(), Y, loss=F.cross_entropy, steps=2)
    assert [f.where for f in report.findings if f.code == "large_inputs"] == ["1"]
    model = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(300), nn.Linear(300, 4))
    report = diagnose_model(model, 255 * X.abs(), Y, loss=F.cross_entropy, steps=2)
    assert "large_inputs" not in report.codes


def test_the_gain_of_a_weight_grows_with_it():
    """Adam at a rate a thousand times too large, on matrices drawn small."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), *(nn.Linear(300, 300) for _ in range(3)))
    for module in model[1:]:
        nn.init.normal_(module.weight, std=0.005)
    found = trial(model, learning_rate=1.0)
    assert {"large_update", "non_finite"} & {f.code for f in found}


def test_what_stands_still_by_its_small_gradient_is_told_from_a_small_rate():
    def report(rates, gradients):
        recorder = FlowRecorder(framework="NumPy", every=1, max_records=9, share=0.1)
        for step in range(3):
            sites = [Site(f"l{k}", "Linear", None, 64, 1, 8.0, 1.0) for k in range(len(rates))]
            states = [ParameterState(f"l{k}.weight", f"l{k}", 2, True, g, 1.0, g * rate)
                      for k, (rate, g) in enumerate(
                          zip(rates, gradients, strict=True))]  # fmt: skip
            recorder.add(Sample(step, sites, states))
        return [f.severity for f in check_updates(recorder.record())]

    small = [1.0, 1.0, 1e-6, 1.0, 1.0]
    assert report([1e-3] * 5, small) == ["info"]
    assert report([1e-3, 1e-3, 1e-9, 1e-3, 1e-3], np.ones(5)) == ["problem"]
    assert report([1e-3] * 5, [1.0, *[1e-6] * 4]) == ["problem"]  # most of them: not a branch
    assert report([1e-3] * 5, [1e-6, 1e-6, 1.0, 1.0, 1.0]) == ["problem"]  # vanishing


class Dense(nn.Module):
    """A dense layer as another library writes it."""

    def __init__(self, inputs, outputs):
        super().__init__()
        self.in_channels, self.out_channels = inputs, outputs
        self.weight = nn.Parameter(torch.full((outputs, inputs), 0.1))


def test_dense_layers_of_other_libraries_are_known_by_their_sizes():
    model = nn.Sequential(Dense(5, 3), nn.Bilinear(2, 3, 4))
    assert fans_in(model) == {"0.weight": 5}
    assert find_identical(model) == (["0.weight"], 1)


def test_a_monitor_goes_by_what_runs_next():
    kinds = ("Conv2d", "BatchNorm2d", "Linear", "LayerNorm", "Conv2d", "BatchNormalization")
    known = record([1e-3] * 6)
    assert normalized_layers(known) == set()
    assert normalized_layers(replace(known, normalized=None, kinds=kinds)) == {"l0", "l4"}
    assert normalized_layers(replace(known, normalized=("l2",), kinds=kinds)) == {"l2"}
