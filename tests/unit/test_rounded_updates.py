"""16-bit weights whose updates are rounded away, and 16-bit weights that learn."""

import copy

import numpy as np
import pytest

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
from keras import layers  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis.rounding import RoundedWeight, check_rounded  # noqa: E402
from course_lib.pytorch import diagnose_model as diagnose_pytorch  # noqa: E402
from course_lib.tf import diagnose_model as diagnose_keras  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 16)).astype("float32"), np.arange(32) % 4


def told(report):
    return [f for f in report.findings if f.code == "rounded_updates"]


def test_severity_is_by_the_share_of_the_worst_matrix():
    def weights(*shares):
        return [RoundedWeight(f"w{k}", "bfloat16", 1000, int(1000 * s))
                for k, s in enumerate(shares)]  # fmt: skip

    assert check_rounded(weights(0.1, 0.49), 3) == []
    (finding,) = check_rounded(weights(0.1, 0.6, 0.8), 3)
    assert (finding.severity, finding.where, finding.value) == ("warning", "w2", 0.8)
    assert finding.what.startswith("70 % of the entries of 2 matrices in bfloat16")
    assert check_rounded(weights(0.95), 3)[0].severity == "problem"
    assert check_rounded([RoundedWeight("w", "float16", 0, 0)], 3) == []
    assert check_rounded([], 3) == []


def in_pytorch(dtype, rule, *, steps=5):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(),
                          nn.Linear(32, 4)).to(dtype)  # fmt: skip
    return diagnose_pytorch(model, torch.from_numpy(X).to(dtype), torch.from_numpy(Y), steps=steps,
                            loss=nn.functional.cross_entropy, optimizer=rule)  # fmt: skip


def adam(rate, eps=1e-8):
    return lambda parameters: torch.optim.Adam(parameters, lr=rate, eps=eps)


@pytest.mark.parametrize(
    ("dtype", "rate", "eps"), [(torch.bfloat16, 1e-6, 1e-8), (torch.float16, 1e-7, 1e-4)]
)  # 1e-8 is 0 in float16
def test_a_rate_too_small_for_the_precision_in_pytorch(dtype, rate, eps):
    (finding,) = told(in_pytorch(dtype, adam(rate, eps)))
    assert (finding.severity, finding.where.endswith("weight")) == ("problem", True)
    assert told(in_pytorch(dtype, adam(3e-3, eps))) == []
    assert told(in_pytorch(torch.float32, adam(rate, eps))) == []


def test_the_share_is_that_of_the_entries_that_a_step_leaves_as_they_are():
    torch.manual_seed(0)
    layer = nn.Linear(16, 4).bfloat16()
    kept, rule = copy.deepcopy(layer), torch.optim.Adam(layer.parameters(), lr=1e-4)
    x, y = torch.from_numpy(X).bfloat16(), torch.from_numpy(Y)
    (finding,) = told(diagnose_pytorch(layer, x, y, loss=nn.functional.cross_entropy, steps=1,
                                       optimizer=rule))  # fmt: skip
    nn.functional.cross_entropy(layer(x), y).backward()
    rule.step()
    same = (layer.weight == kept.weight)[layer.weight.grad != 0].double().mean()
    assert finding.value == pytest.approx(same.item(), abs=1e-12)


def test_what_is_not_to_move_is_no_rounding():
    assert told(in_pytorch(torch.bfloat16, adam(0.0))) == []

    def first_layer(parameters):
        return torch.optim.Adam(list(parameters)[:2], lr=3e-3)

    assert told(in_pytorch(torch.bfloat16, first_layer)) == []

    class Sparse(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed, self.head = nn.Embedding(5000, 8), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.embed(x))

    words = torch.arange(32)  # the other rows of the table have no gradient
    report = diagnose_pytorch(Sparse().bfloat16(), words, torch.from_numpy(Y), steps=3,
                              loss=nn.functional.cross_entropy, optimizer=adam(1e-2))  # fmt: skip
    assert told(report) == []


@pytest.mark.parametrize("kind", [nn.LSTM, nn.GRU, nn.RNN])
def test_recurrent_layers_in_bfloat16_are_diagnosed_too(kind):
    class Recurrent(nn.Module):
        def __init__(self):
            super().__init__()
            self.body, self.head = kind(4, 8, batch_first=True), nn.Linear(8, 4)

        def forward(self, x):
            return self.head(self.body(x)[0].mean(1))

    x = torch.from_numpy(X.reshape(32, 4, 4)).bfloat16()
    report = diagnose_pytorch(Recurrent().bfloat16(), x, torch.from_numpy(Y), steps=3,
                              loss=nn.functional.cross_entropy, optimizer=adam(1e-6))  # fmt: skip
    assert [f.severity for f in told(report)] == ["problem"]


def in_keras(policy, rule):
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        keras.utils.set_random_seed(0)
        model = keras.Sequential([layers.Input((16,)), layers.Dense(32, "relu"),
                                  layers.Dense(4)])  # fmt: skip
    finally:
        keras.config.set_dtype_policy(before)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return told(diagnose_keras(model, X, Y, loss=loss, optimizer=rule, steps=4))


def test_16_bit_variables_in_keras():
    (finding,) = in_keras("bfloat16", keras.optimizers.SGD(1e-5))
    assert (finding.severity, finding.where.endswith("kernel")) == ("problem", True)
    assert in_keras("bfloat16", keras.optimizers.SGD(1.0)) == []
    assert in_keras("mixed_bfloat16", keras.optimizers.SGD(1e-5)) == []
    accumulated = keras.optimizers.SGD(1e-5, gradient_accumulation_steps=8)
    assert in_keras("bfloat16", accumulated) == []


def test_adam_of_keras_moves_no_bfloat16_variable_at_any_rate():
    (finding,) = in_keras("bfloat16", keras.optimizers.Adam(1e-2))
    assert finding.value == 1.0
    assert in_keras("bfloat16", keras.optimizers.Adam(1e-2, beta_2=0.9)) == []


def test_a_scale_of_channels_is_no_matrix():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 8, 3), nn.Linear(32, 4)
            self.gain = nn.Parameter(torch.ones(8, 1, 1))

        def forward(self, x):
            return self.head((self.gain * self.conv(x.view(-1, 1, 4, 4))).flatten(1))

    torch.manual_seed(0)
    model = Scaled().to(torch.bfloat16)
    x = torch.from_numpy(X).to(torch.bfloat16)
    report = diagnose_pytorch(model, x, torch.from_numpy(Y), loss=nn.functional.cross_entropy,
                              learning_rate=1e-5)  # fmt: skip
    (found,) = [f for f in report.findings if f.code == "rounded_updates"]
    assert found.where != "gain"
    assert "2 matrices" in found.what
