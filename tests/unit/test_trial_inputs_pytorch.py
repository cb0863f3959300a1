"""What goes into PyTorch models that take several inputs, or their input in parts."""

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.pytorch import diagnose_model  # noqa: E402

RNG = torch.Generator().manual_seed(0)
IMAGES = torch.rand(8, 3, 6, 6, generator=RNG)
TIMES = torch.arange(8.0)[:, None] / 8
Y = torch.arange(8) % 4


class Timed(nn.Module):
    """The time goes first: its layer is the first to run."""

    def __init__(self, norm=nn.Identity):
        super().__init__()
        torch.manual_seed(0)
        self.time, self.norm = nn.Linear(1, 4), norm()
        self.image, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 4)

    def forward(self, image, time):
        shift = self.time(time)
        return self.head(F.relu(self.image(self.norm(image)).mean((2, 3)) + shift))


class Steps(nn.Module):
    """A cell that is given one part of its input after the other."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.cell, self.head = nn.GRUCell(6, 8), nn.Linear(8, 4)

    def forward(self, x):
        state = None
        for part in x.mean(1).unbind(1) if x.ndim == 4 else x.unbind(1):
            state = self.cell(part, state)
        return self.head(state)


def found(model, inputs):
    report = diagnose_model(model, inputs, Y, loss=F.cross_entropy, steps=2)
    return [f.where for f in report.findings if f.code == "large_inputs"]


def test_a_large_input_that_is_not_the_first_to_be_used():
    assert found(Timed(), (255 * IMAGES, TIMES)) == ["image"]
    assert found(Timed(), (IMAGES, TIMES)) == []


def test_a_normalization_in_front_of_it_takes_its_size():
    assert found(Timed(lambda: nn.BatchNorm2d(3)), (255 * IMAGES, TIMES)) == []


def test_inputs_given_step_by_step():
    steps = IMAGES[:, 0]
    growing = torch.linspace(1.0, 2.0, 6)[:, None]  # no part is as large as the whole
    assert found(Steps(), 255 * steps * growing) == ["cell"]
    assert found(Steps(), steps * growing) == []
