"""What the loss depends on, told by changing it, in networks whose statistics are still to come."""

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis import diagnose  # noqa: E402
from course_lib.pytorch import GradientFlowMonitor, diagnose_model  # noqa: E402

X = torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(0))
Y = torch.arange(8) % 4


class Cut(nn.Module):
    def forward(self, x):
        return x.detach()


def deep(cut):
    """A network that statistics of a few steps let no signal through: their momentum is 0.01."""
    torch.manual_seed(0)
    parts = []
    for k in range(16):
        parts.append(nn.Conv2d(3 if k == 0 else 8, 8, 3, padding=1, bias=False))
        nn.init.normal_(parts[-1].weight, std=0.01)
        parts += [Cut()] if k == cut else []
        parts += [nn.BatchNorm2d(8, momentum=0.01), nn.Hardswish()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))


def test_a_cut_is_told_in_training_mode():
    report = diagnose_model(deep(6), X, Y, loss=F.cross_entropy, steps=2)
    found = [(f.code, f.where) for f in report.findings if f.severity == "problem"]
    assert found[:1] == [("no_gradient", "18.weight")]
    assert "unused_parameter" not in report.codes


class Block(nn.Module):
    def __init__(self):
        super().__init__()
        self.norm, self.up, self.down = nn.LayerNorm(16), nn.Linear(16, 16), nn.Linear(16, 16)

    def forward(self, x):
        return x + self.down(torch.relu(self.up(self.norm(x))))


def frozen(names):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), *[Block() for _ in range(5)],
                          nn.Linear(16, 4))  # fmt: skip
    for name in names:
        model.get_submodule(name).requires_grad_(False)
    report = diagnose_model(model, X, Y, loss=F.cross_entropy, steps=2)
    return [(f.severity, f.where) for f in report.findings if f.code == "frozen_parameters"]


def test_a_normalization_frozen_alone_is_named():
    assert frozen([]) == []
    assert frozen(["3.norm"]) == [("warning", "3.norm")]
    assert frozen([f"{k}.norm" for k in range(2, 7)]) == []  # all: on purpose
    assert frozen(["1", "2", "3"]) == [("info", "1.weight")]  # the body in front of the rest
    assert frozen(["3"])[0][0] == "warning"


class NormAct(nn.BatchNorm2d):
    """A normalization that holds what comes after it, here nothing."""

    def __init__(self, channels):
        super().__init__(channels)
        self.act = nn.Identity()

    def forward(self, x):
        return self.act(super().forward(x))


class Ending(nn.Module):
    """A block that ends in a normalization, with a skip connection or without."""

    def __init__(self, skip, end):
        super().__init__()
        self.conv, self.norm, self.skip = nn.Conv2d(8, 8, 3, padding=1), NormAct(8), skip
        self.end = nn.ReLU() if end else nn.Identity()  # what leads past is a normalization's, too

    def forward(self, x):
        h = self.norm(self.conv(x))
        return self.end(h + x if self.skip else h)


@pytest.mark.parametrize(
    ("skips", "expected"), [((2,), []), ((1, 2), ["2.norm"]), ((1,), ["2.norm"])]
)
@pytest.mark.parametrize("end", [True, False])
def test_branches_that_begin_as_nothing_may_be_one_alone(skips, expected, end):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 1), *[Ending(k in skips, end) for k in range(1, 6)],
                          nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))  # fmt: skip
    nn.init.zeros_(model[2].norm.weight)
    report = diagnose_model(model, X, Y, loss=F.cross_entropy, steps=2)
    assert [f.where for f in report.findings if f.code == "zero_scale"] == expected
    ending = tuple(name for name in report.results[0].summed if name.endswith("norm"))
    assert ending == tuple(f"{k}.norm" for k in skips)


def plain(end=None):
    torch.manual_seed(0)
    parts = [nn.Flatten(), nn.Linear(192, 16), nn.Tanh(), nn.Linear(16, 4)]
    return nn.Sequential(*parts, *([end] if end else []))


class Chosen(nn.Module):
    def forward(self, x):
        return torch.zeros_like(x).scatter(1, x.argmax(1, keepdim=True), 1.0)


def test_an_output_that_nothing_learns_from_is_a_problem_whatever_it_depends_on():
    report = diagnose_model(plain(Chosen()), X, Y, loss=F.cross_entropy, steps=2)
    assert [(f.severity, f.code) for f in report.findings][:1] == [("problem", "no_gradient")]
    assert report.findings[0].where == "3.weight"


def test_a_rate_of_0_is_named_and_a_warm_up_from_0_is_not():
    report = diagnose_model(plain(), X, Y, loss=F.cross_entropy, steps=3,
                            optimizer=lambda p: torch.optim.Adam(p, lr=0.0))  # fmt: skip
    assert [(f.severity, f.code) for f in report.findings] == [("problem", "standing_still")]
    model = plain()
    rule = torch.optim.SGD(model.parameters(), lr=0.1)
    plan = torch.optim.lr_scheduler.LambdaLR(rule, lambda step: step / 10)
    with GradientFlowMonitor(model, every=1) as monitor:
        for _ in range(4):
            rule.zero_grad()
            F.cross_entropy(model(X), Y).backward()
            rule.step()
            plan.step()
    assert "standing_still" not in diagnose(monitor).codes


def test_a_softmax_over_the_batch_is_told_from_one_over_the_classes():
    for axis, severity in ((0, ["problem"]), (1, [])):
        model = plain(nn.Softmax(axis))
        report = diagnose_model(model, X, F.one_hot(Y, 4).float(), loss=F.mse_loss, steps=2)
        assert [f.severity for f in report.findings if f.code == "activation_twice"] == severity


def test_a_convolution_with_one_output_has_a_matrix():
    model = nn.Sequential(nn.Conv2d(3, 8, 1), nn.Tanh(), nn.Conv2d(8, 1, 1))
    report = diagnose_model(model, X, X[:, :1], loss=F.mse_loss, steps=1)
    assert report.results[0].parameter_ranks == (4, 1, 4, 1)
