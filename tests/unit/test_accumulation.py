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
