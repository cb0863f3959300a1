"""Weight normalization: the weight is g v / |v|, and g is what says how large it is."""

import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis.local import measure_drawn  # noqa: E402
from course_lib.pytorch import diagnose_model  # noqa: E402

X = torch.randn(16, 4, 24, generator=torch.Generator().manual_seed(0))
Y = X[:, :1].mean(-1)


def normalized(layer, old):
    if not old:
        return nn.utils.parametrizations.weight_norm(layer)
    with pytest.warns(FutureWarning):
        return nn.utils.weight_norm(layer)


class Block(nn.Module):
    def __init__(self, inputs, *, old, bias):
        super().__init__()
        self.conv1 = normalized(nn.Conv1d(inputs, 16, 3, padding=1, bias=bias), old)
        self.conv2 = normalized(nn.Conv1d(16, 16, 3, padding=1, bias=bias), old)
        self.skip = nn.Conv1d(inputs, 16, 1)

    def forward(self, x):
        return F.relu(self.conv2(F.relu(self.conv1(x))) + self.skip(x))


def trial(*, factor=1.0, old=False, bias=True):
    torch.manual_seed(0)
    blocks = [Block(4 if k == 0 else 16, old=old, bias=bias) for k in range(4)]
    model = nn.Sequential(*blocks, nn.Flatten(), normalized(nn.Linear(16 * 24, 1), old))
    with torch.no_grad():
        conv = model[2].conv1
        (conv.weight_g if old else conv.parametrizations.weight.original0).mul_(factor)
    return diagnose_model(model, X, Y, loss=F.mse_loss, steps=2)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("old", [True, False])
def test_one_gain_times_a_hundred_is_named_at_its_layer(old, bias):
    assert [f for f in trial(old=old, bias=bias).findings if f.severity != "info"] == []
    found = trial(factor=100.0, old=old, bias=bias).findings
    assert [(f.code, f.where) for f in found][:1] == [("rescaled_layer", "2.conv1")]


def test_what_makes_weights_is_no_layer_and_its_parameters_are_the_layer_s():
    record = trial(bias=False).results[0]
    assert not any("parametrizations" in name for name in record.layers)
    assert {"0.conv1", "3.conv2", "5"} <= set(record.layers) & set(record.parameter_layers)
    place = record.parameters.index("2.conv1.parametrizations.weight.original1")
    conv = Block(16, old=False, bias=False).conv1
    assert record.gains[place] == pytest.approx(0.577, abs=0.03)  # as PyTorch draws: 1/sqrt(3)
    assert conv.weight.norm().item() == pytest.approx(measure_drawn(record)[0][place], rel=0.05)
