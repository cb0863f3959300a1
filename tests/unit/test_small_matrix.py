"""One matrix drawn far too small: named where other layers build on it, and no head or branch."""

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.pytorch import diagnose_model  # noqa: E402
from course_lib.pytorch.trial_weights import InnerWatch  # noqa: E402

X = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
Y = torch.arange(32) % 4


def shrink(layer, factor=0.01):
    with torch.no_grad():
        layer.weight.mul_(factor)


def perceptron(depth, activation=nn.ReLU):
    torch.manual_seed(0)
    sizes = [16, *[32] * depth]
    return nn.Sequential(
        *(part for a, b in pairwise(sizes) for part in (nn.Linear(a, b), activation())),
        nn.Linear(32, 4),
    )


def found(model):
    report = diagnose_model(model, X, Y, loss=F.cross_entropy, steps=2)
    return [f.where for f in report.findings if f.code == "rescaled_layer"]


@pytest.mark.parametrize("activation", [nn.ReLU, nn.Tanh, nn.GELU])
@pytest.mark.parametrize("depth", [2, 3, 6])
def test_a_layer_in_the_middle_behind_the_biases_that_pytorch_draws(depth, activation):
    assert found(perceptron(depth, activation)) == []
    for place in range(2, 2 * depth, 2):
        model = perceptron(depth, activation)
        shrink(model[place])
        assert found(model) == [str(place)]


class Agent(nn.Module):
    """Two networks side by side, the first of them with a small head, as policies have."""

    def __init__(self, shared):
        super().__init__()
        self.actor, self.critic = perceptron(2), perceptron(2)
        self.shared = shared
        shrink(self.actor[4])

    def forward(self, x):
        return self.actor(x) + self.critic(self.actor[:2](x).mean(1, keepdim=True) * x
                                           if self.shared else x)  # fmt: skip


@pytest.mark.parametrize("shared", [True, False])
def test_a_small_head_is_a_choice_wherever_it_runs(shared):
    assert found(Agent(shared)) == []


def test_a_small_branch_beside_a_skip_connection_is_none():
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.up, self.down = nn.Linear(32, 32), nn.Linear(32, 32)

        def forward(self, x):
            return x + self.down(torch.relu(self.up(x)))

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), *[Block() for _ in range(3)], nn.Linear(32, 4))
    for block in model[1:-1]:
        shrink(block.down)
    assert found(model) == []


def test_in_front_of_a_normalization_nothing_is_said():
    model = perceptron(4)
    model[5] = nn.Sequential(nn.BatchNorm1d(32), nn.ReLU())
    shrink(model[4])
    assert found(model) == []


def test_which_layers_are_built_on():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head, self.other = (nn.Linear(16, 16) for _ in range(4))
            self.made = nn.utils.parametrizations.weight_norm(nn.Linear(16, 16, bias=False))

        def forward(self, x):
            h = self.made(torch.relu(self.first(x)) + x)
            cut = self.second(h).detach()
            return self.head(h.view(4, 8, 16).transpose(0, 1)) + self.other(cut).mean()

    model = Net()
    with InnerWatch(model) as watch:
        model(X)
    assert watch.layers == ("first", "made")
    assert watch.summed == ()
