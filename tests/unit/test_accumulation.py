"""Gradients that nobody sets to 0 grow with the number of steps; sound ones do not."""

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis import diagnose  # noqa: E402
from course_lib.pytorch import GradientFlowMonitor  # noqa: E402

RULES = {
    "SGD": lambda p: torch.optim.SGD(p, lr=0.01),
    "Adam": lambda p: torch.optim.Adam(p, lr=3e-3),
}


def dense():
    return nn.Sequential(*(part for k in range(5) for part in (
        nn.Linear(16 if k == 0 else 32, 32), nn.ReLU())), nn.Linear(32, 4))  # fmt: skip


def convolutional():
    return nn.Sequential(nn.Unflatten(1, (1, 4, 4)), *(part for k in range(4) for part in (
        nn.Conv2d(1 if k == 0 else 8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())),
        nn.Flatten(), nn.Linear(128, 4))  # fmt: skip


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("make", [dense, convolutional])
@pytest.mark.parametrize("passes", [1, 3])
def test_told_by_the_monitor_of_a_loop_without_zero_grad(make, rule, passes):
    def codes(forgetful):
        torch.manual_seed(0)
        model = make()
        optimizer = RULES[rule](model.parameters())
        with GradientFlowMonitor(model, every=5) as monitor:
            for _ in range(60):
                if not forgetful:
                    optimizer.zero_grad()
                for _ in range(passes):  # accumulation on purpose is none over the steps
                    x = torch.randn(32, 16)
                    F.cross_entropy(model(x), (x[:, :4]).argmax(1)).backward()
                optimizer.step()
        return diagnose(monitor).codes

    assert "accumulating_gradients" not in codes(False)
    assert codes(True)[0] == "accumulating_gradients"


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.body = nn.Embedding(20, 8), nn.GRU(8, 8, batch_first=True)
        self.head = nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(self.embed(x))[0][:, -1])


def watch_recurrent(steps, begin):
    """Train for some steps; `begin` is called with the optimizer before each."""
    torch.manual_seed(0)
    model = Recurrent()
    optimizer = torch.optim.Adam(model.parameters())
    with GradientFlowMonitor(model, every=1) as monitor:
        for k in range(steps):
            begin(optimizer, k)
            loss = F.cross_entropy(model(torch.randint(20, (8, 6))), torch.arange(8) % 4)
            loss.backward()
            optimizer.step()
    return diagnose(monitor).codes


def test_seen_at_once_in_networks_of_any_kind():
    assert watch_recurrent(3, lambda rule, k: None)[0] == "accumulating_gradients"
    for keep in (True, False):
        assert "accumulating_gradients" not in watch_recurrent(
            4, lambda rule, k, keep=keep: rule.zero_grad(set_to_none=keep)
        )
    every_second = watch_recurrent(6, lambda rule, k: rule.zero_grad() if k % 2 else None)
    assert "accumulating_gradients" not in every_second


@pytest.mark.parametrize("forgotten", [False, True])
def test_a_discriminator_through_which_its_generator_is_trained(forgotten):
    """Its gradients are left over in the generator's pass, and set to 0 before its own."""
    torch.manual_seed(0)
    maker = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8))
    judge = nn.Sequential(nn.Linear(8, 8), nn.LeakyReLU(), nn.Linear(8, 1))
    rules = [torch.optim.Adam(m.parameters()) for m in (maker, judge)]
    both = nn.ModuleList([maker, judge])
    monitors = [GradientFlowMonitor(m, every=1) for m in (maker, judge, both)]
    with monitors[0], monitors[1], monitors[2]:
        for _ in range(4):
            made = maker(torch.randn(16, 4))
            rules[0].zero_grad()
            F.softplus(-judge(made)).mean().backward()
            rules[0].step()
            if not forgotten:
                rules[1].zero_grad()
            (F.softplus(judge(made.detach())) + F.softplus(-judge(torch.randn(16, 8)))).mean(
            ).backward()
            rules[1].step()
    told = ["accumulating_gradients" in diagnose(m).codes for m in monitors]
    assert told == [False, forgotten, forgotten]
