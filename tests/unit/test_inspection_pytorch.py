"""What `course_lib.pytorch` finds in a model: units, spectra, clipping, recurrent layers."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib import pytorch  # noqa: E402
from course_lib.diagnosis import diagnose  # noqa: E402

RNG = np.random.default_rng(0)


def four_states():
    """Four ReLU units on inputs -1 and 1: selective, dead, always on, and on for one input."""
    model = nn.Sequential(nn.Linear(1, 4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(4, 2),
                          nn.Sigmoid())  # fmt: skip
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [1.0], [1.0], [-1.0]]))
        model[0].bias.copy_(torch.tensor([0.0, -9.0, 9.0, 0.0]))
        model[3].weight.zero_()
        model[3].bias.copy_(torch.tensor([0.0, 9.0]))
    return model


def test_four_states_are_told_apart():
    model = four_states()
    model.train()
    model[2].eval()
    report = pytorch.dead_units(model, np.array([[-1.0], [1.0], [2.0]]), batch_size=2)
    relu, sigmoid = report.layers
    assert relu.dead.tolist() == [False, True, False, False]
    assert relu.always_on.tolist() == [False, False, True, False]
    np.testing.assert_allclose(relu.active, [2 / 3, 0, 1, 1 / 3])
    assert relu.inactive_fraction == pytest.approx(0.5)  # and yet only one unit is dead
    np.testing.assert_allclose(sigmoid.flat, [0, 1])
    assert sigmoid.saturated.tolist() == [False, True]
    assert not sigmoid.dead.any()
    assert pytorch.saturation(model, np.ones((2, 1)))["4"] == 0.5
    assert "1 dead on the whole data set, 1 always on" in report.describe()
    assert [m.training for m in model.modules()] == [True, True, True, False, True, True]
    assert all(p.grad is None for p in model.parameters())


def test_functional_activations_and_images():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 3, 3), nn.Linear(3, 2)

        def forward(self, x):
            return self.head(F.relu(self.conv(x)).mean((2, 3)))

    net = Net()
    found = pytorch.dead_units(net, np.zeros((2, 1, 5, 5))).layers  # read from autograd's graph
    assert [layer.name for layer in found] == ["head.input (relu)"]
    assert len(found[0].active) == 3
    wrapped = nn.Sequential(net.conv, nn.ReLU())
    assert len(pytorch.dead_units(wrapped, np.zeros((2, 1, 5, 5))).layers[0].active) == 3


def linear_chain(depth, scales, seed=0):
    """A chain of linear layers whose product has known singular values."""
    rng = np.random.default_rng(seed)
    n = len(scales)
    turns = [np.linalg.qr(rng.standard_normal((n, n)))[0] for _ in range(depth + 1)]
    model = nn.Sequential(*[nn.Linear(n, n, bias=False) for _ in range(depth)])
    with torch.no_grad():
        for k, layer in enumerate(model):
            matrix = turns[k + 1] @ np.diag(np.asarray(scales) ** (1 / depth)) @ turns[k].T
            layer.weight.copy_(torch.tensor(matrix))
    return model


def test_three_methods_find_the_known_spectrum():
    scales = np.array([8.0, 4.0, 2.0, 1.0, 0.5, 0.25])
    model = linear_chain(3, scales).double()
    for method, count in (("exact", 6), ("product", 6), ("randomized", 3)):
        found = pytorch.jacobian_spectrum(
            model, np.ones(6), method=method, rank=3, iterations=20, seed=1
        )
        # The weights went through float32, which keeps seven digits.
        np.testing.assert_allclose(found.singular_values, scales[:count], rtol=1e-5)
        assert found.condition_resolved == (count == 6)
    assert found.condition.startswith("> ")


def test_methods_agree_on_a_convolutional_network_and_its_mode_is_restored():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(inplace=True),
                          nn.Dropout(0.5), nn.Flatten(), nn.Linear(36, 5)).double()  # fmt: skip
    model.train()
    model[1].eval()
    x = np.random.default_rng(0).normal(size=(2, 5, 5))
    exact, product, some = (
        pytorch.jacobian_spectrum(model, x, method=m, rank=5, iterations=30)
        for m in ("exact", "product", "randomized")
    )
    assert exact.shape == product.shape == some.shape == (5, 50)
    np.testing.assert_allclose(exact.singular_values, product.singular_values, rtol=1e-9)
    np.testing.assert_allclose(exact.singular_values, some.singular_values, rtol=1e-6)
    assert [m.training for m in model.modules()] == [True, True, False, True, True, True, True]
    assert all(p.grad is None for p in model.parameters())


def test_a_condition_number_beyond_the_noise_floor_is_not_stated():
    model = linear_chain(2, np.logspace(0, -12, 5))  # 1e12 in float32, which sees 1e6
    spectrum = pytorch.jacobian_spectrum(model, np.ones(5))
    assert not spectrum.condition_resolved
    assert spectrum.condition.startswith("> ")
    assert spectrum.condition_number < 1e7
    assert spectrum.numerical_rank < 5
    assert diagnose(spectrum).codes == ("beyond_noise_floor",)


def gradients(model, values):
    for p, value in zip(model.parameters(), values, strict=True):
        p.grad = torch.full_like(p, value)
    return model


def test_clipping_by_value_turns_and_by_norm_does_not():
    model = nn.Linear(2, 1)
    model.weight.grad, model.bias.grad = torch.tensor([[3.0, 0.1]]), torch.tensor([0.1])
    by_value = pytorch.clip_audit(model, method="value", threshold=0.1)
    raw, cut = np.array([3.0, 0.1, 0.1]), np.array([0.1, 0.1, 0.1])
    cosine = raw @ cut / np.linalg.norm(raw) / np.linalg.norm(cut)
    assert by_value.angle == pytest.approx(np.degrees(np.arccos(cosine)), rel=1e-5)
    assert diagnose(by_value).codes == ("direction_changed",)
    per_tensor = pytorch.clip_audit(model, method="norm", threshold=0.1)
    assert per_tensor.angle > 10
    assert np.all(per_tensor.angles < 1e-4)
    whole = pytorch.clip_audit(model, method="global_norm", threshold=0.1)
    assert whole.angle < 1e-4
    nn.utils.clip_grad_norm_(model.parameters(), 0.1)
    expected = [p.grad.norm().item() for p in model.parameters()]
    np.testing.assert_allclose(whole.clipped_norms, expected, rtol=1e-5)


def test_norms_that_overflow_in_float32_lose_healthy_gradients():
    model = gradients(nn.Linear(2, 1), [1e30, 1.0])  # each finite, their squares are not
    audit = pytorch.clip_audit(model, threshold=1.0)
    assert np.isinf(audit.reported_norm)
    assert audit.global_norm == pytest.approx(np.sqrt(2) * 1e30)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    assert [p.grad.abs().max().item() for p in model.parameters()] == [0, 0]
    assert audit.lost == ("weight", "bias")
    assert diagnose(audit).codes[0] == "norm_overflow"
    tiny = pytorch.clip_audit(gradients(model, [1e-30, 1e-30]), threshold=1.0)
    assert tiny.global_norm == pytest.approx(np.sqrt(3) * 1e-30)


def test_an_infinite_gradient_is_named_with_what_it_ruins():
    model = gradients(nn.Linear(2, 1), [float("inf"), 1.0])
    audit = pytorch.clip_audit(model, threshold=1.0)
    assert audit.nonfinite == ("weight",)
    assert audit.lost == ("bias",)
    assert diagnose(audit).problems[0].where == "weight"


def test_fused_recurrent_layers_show_every_layer_and_direction():
    torch.manual_seed(0)

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.embed = nn.Embedding(7, 3)
            self.lstm = nn.LSTM(3, 4, num_layers=2, bidirectional=True, batch_first=True)
            self.gru = nn.GRU(8, 4)

        def forward(self, x):
            return self.gru(self.lstm(self.embed(x))[0].transpose(0, 1))[0]

    profiles = pytorch.bptt_gradient_profile(Net(), np.arange(12).reshape(2, 6) % 7)
    assert set(profiles) == {"lstm_l0", "lstm_l0_reverse", "lstm_l1", "lstm_l1_reverse", "gru"}
    lstm = nn.LSTM(3, 4, batch_first=True)
    x = torch.randn(2, 6, 3)
    found = pytorch.bptt_gradient_profile(lstm, x)["LSTM"]
    expected = pytorch.hook_profile(lstm, x.numpy())
    # The hooks work in float32.
    np.testing.assert_allclose(found.log10_norms, expected.log10_norms, atol=1e-5)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m: pytorch.dead_units("m", [[1.0]]), TypeError, "`model`"),
        (lambda m: pytorch.dead_units(m, np.ones((0, 2))), ValueError, "`x`"),
        (lambda m: pytorch.dead_units(m, np.ones((1, 2)), batch_size=0), ValueError, "`batch_"),
        (lambda m: pytorch.jacobian_spectrum(m, [1.0, 1.0], method="magic"), ValueError, "`meth"),
        (lambda m: pytorch.jacobian_spectrum(m, [1.0, 1.0], method="product"), TypeError, "Seque"),
        (lambda m: pytorch.clip_audit(m, threshold=1.0), ValueError, "`gradients`"),
        (lambda m: pytorch.clip_audit(m, [None], threshold=1.0), ValueError, "length"),
        (lambda m: pytorch.clip_audit(gradients(m, [1.0, 1.0]), threshold=0), ValueError, "`thre"),
        (lambda m: pytorch.bptt_gradient_profile(m, [[1.0, 1.0]]), ValueError, "`model`"),
    ],
)
def test_bad_arguments_are_named(call, error, words):
    with pytest.raises(error, match=words):
        call(nn.Linear(2, 1))


class LogCumSumExp(nn.Module):
    def forward(self, x):
        return torch.logcumsumexp(x, 1)


@pytest.mark.parametrize("slope", [nn.Hardsigmoid, LogCumSumExp])
def test_functions_that_cannot_be_derived_twice_have_a_spectrum_all_the_same(slope):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 6), slope(), nn.Linear(6, 4)).double()
    x = np.random.default_rng(0).normal(size=6)
    exact, some = (pytorch.jacobian_spectrum(model, x, method=m, rank=3, iterations=40)
                   for m in ("exact", "randomized"))  # fmt: skip
    np.testing.assert_allclose(exact.singular_values[:3], some.singular_values, rtol=1e-6)


def test_fused_attention_has_a_spectrum_by_vectors():
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(2, (3, 2, 4)).permute(2, 0, 3, 1, 4)
            return F.scaled_dot_product_attention(q, k, v).mean(2).flatten(1)

    torch.manual_seed(0)
    model, x = Attention(), torch.randn(5, 8)
    exact = pytorch.jacobian_spectrum(model, x).singular_values
    found = pytorch.jacobian_spectrum(model, x, method="randomized", rank=3, iterations=20)
    np.testing.assert_allclose(found.singular_values, exact[:3], rtol=1e-3)  # of 8 values, close


def test_several_inputs_and_outputs_that_hold_a_tensor():
    class Pair(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(3, 4), nn.Linear(2, 4)

        def forward(self, first, second):
            return {"h": F.relu(self.a(first) + self.b(second))}

    first, second = RNG.normal(size=(9, 3)), RNG.normal(size=(9, 2))
    by_name = pytorch.dead_units(Pair(), {"first": first, "second": second}, batch_size=4)
    assert by_name.inputs == 9
    assert len(by_name.layers[0].active) == 4
    assert pytorch.dead_units(Pair(), (first, second)).inputs == 9
    with pytest.raises(ValueError, match="`x`"):
        pytorch.dead_units(Pair(), (first, second[:5]))
    wrapped = nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 2))
    spectrum = pytorch.jacobian_spectrum(wrapped, np.ones((5, 3)))
    assert spectrum.shape == (10, 15)
