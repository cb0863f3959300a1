"""An output that is 1 whatever goes in, and normalizations over one value, in PyTorch."""

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from course_lib.pytorch import diagnose_model  # noqa: E402

X = torch.randn(32, 16, generator=torch.Generator().manual_seed(0))
Y = torch.arange(32) % 4
ONE = (Y == 0).float()[:, None]


def problems(model, loss, targets, x=X):
    report = diagnose_model(model, x, targets, loss=loss, steps=2)
    return [(f.code, f.where) for f in report.problems]


def network(units, *last):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, units), *last)


def test_a_softmax_over_one_unit():
    model = network(1, nn.Softmax(dim=-1))
    assert problems(model, nn.functional.mse_loss, ONE)[0] == ("constant_output", "3")
    assert problems(model, nn.functional.binary_cross_entropy, ONE)[0][0] == "constant_output"
    assert problems(network(1, nn.Sigmoid()), nn.functional.binary_cross_entropy, ONE) == []


def clipped_log(output, targets):
    """Cross-entropy as it is often written by hand, of probabilities."""
    return -output.clamp(1e-7, 1).log().gather(1, targets[:, None]).mean()


def test_logits_for_a_loss_of_probabilities_written_by_hand():
    assert problems(network(4), clipped_log, Y) == [("missing_activation", "2")]
    assert problems(network(4, nn.Softmax(dim=-1)), clipped_log, Y) == []


@pytest.mark.parametrize(("loss", "targets"), [
    (nn.functional.cross_entropy, Y), (nn.functional.mse_loss, torch.eye(4)[Y]),
    (nn.functional.binary_cross_entropy_with_logits, torch.eye(4)[Y]),
    (nn.functional.multi_margin_loss, Y), (nn.functional.huber_loss, torch.eye(4)[Y]),
    (nn.functional.soft_margin_loss, 2 * torch.eye(4)[Y] - 1),
    (nn.functional.poisson_nll_loss, torch.eye(4)[Y]),
])  # fmt: skip
def test_losses_that_take_negative_outputs(loss, targets):
    assert problems(network(4), loss, targets) == []


def test_losses_of_logarithms():
    model = network(4, nn.LogSoftmax(dim=-1))
    assert problems(model, nn.functional.nll_loss, Y) == []
    divergence = lambda o, y: nn.functional.kl_div(o, torch.eye(4)[y], reduction="batchmean")  # noqa: E731
    assert problems(model, divergence, Y) == []


@pytest.mark.parametrize("channels", [1, 8])
def test_a_normalization_over_one_value_is_named(channels):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(channels, channels), nn.LayerNorm(channels), nn.Flatten(),
                          nn.Linear(12 * channels, 4))  # fmt: skip
    found = problems(model, nn.functional.cross_entropy, Y, torch.randn(32, 12, channels))
    assert found[:1] == ([("normalized_away", "1")] if channels == 1 else [])
