"""The PyTorch monitor measures what autograd has, on any model, and changes nothing."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.pytorch import GradientFlowMonitor  # noqa: E402


class Residual(nn.Module):
    """A block as people write it: one in-place ReLU module, a functional one at the end."""

    def __init__(self, n=6):
        super().__init__()
        self.conv1 = nn.Conv2d(n, n, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(n)
        self.conv2 = nn.Conv2d(n, n, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x):
        h = self.relu(self.norm(self.conv1(x)))
        return F.relu(x + self.conv2(h))


class Text(nn.Module):
    """Embedding, a two-layer bidirectional LSTM, attention, a head."""

    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.lstm = nn.LSTM(8, 4, num_layers=2, bidirectional=True, batch_first=True)
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        h = self.lstm(self.embed(x))[0]
        return self.head(self.attention(h, h, h)[0].mean(1))


def perceptron():
    return nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(8, 8, bias=False),
        nn.Tanh(), nn.Linear(8, 3),
    )  # fmt: skip


def transformer():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.1, batch_first=True)
    return nn.Sequential(nn.TransformerEncoder(layer, 2), nn.Flatten(), nn.Linear(40, 3))


def residual():
    return nn.Sequential(nn.Conv2d(3, 6, 3), Residual(), Residual(), nn.Flatten(), nn.LazyLinear(3))


MODELS = {
    "perceptron": (perceptron, lambda: torch.randn(16, 5)),
    "residual": (residual, lambda: torch.randn(4, 3, 8, 8)),
    "text": (Text, lambda: torch.randint(11, (6, 5))),
    "transformer": (transformer, lambda: torch.randn(4, 5, 8)),
}


def build(name, seed=0):
    torch.manual_seed(seed)
    make, draw = MODELS[name]
    model, x = make(), draw()
    model(x)
    return model, x


def train(model, x, *, steps=7, rule=None, monitor=None, clip=None, seed=1):
    rule = rule or torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    torch.manual_seed(seed)
    y = torch.zeros(len(x), dtype=torch.long)

    def run():
        for _ in range(steps):
            rule.zero_grad()
            F.cross_entropy(model(x), y).backward()
            if clip:
                nn.utils.clip_grad_norm_(model.parameters(), clip)
            rule.step()

    if monitor is None:
        run()
    else:
        with monitor:
            run()
    return [v.clone() for v in model.state_dict().values()]


def count_hooks(model):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    own = sum(len(getattr(m, kind)) for m in model.modules() for kind in kinds)
    tensors = sum(len(p._post_accumulate_grad_hooks or ()) for p in model.parameters())
    glob = nn.modules.module
    return own + tensors + len(glob._global_forward_hooks) + len(glob._global_forward_pre_hooks)


@pytest.mark.parametrize("name", MODELS)
def test_weights_are_bit_identical_with_and_without_the_monitor(name):
    one, x = build(name)
    two, _ = build(name)
    monitor = GradientFlowMonitor(two, every=2)
    for a, b in zip(train(one, x), train(two, x, monitor=monitor), strict=True):
        assert torch.equal(a, b)
    assert monitor.record.steps.tolist() == [0, 2, 4, 6]
    assert count_hooks(two) == 0


def test_the_numbers_are_those_of_autograd():
    model, x = build("perceptron")
    model.eval()  # no dropout, so that the pass can be repeated
    values = {}
    h = x
    for k, layer in enumerate(model):
        h = layer(h.clone())
        h.retain_grad()
        values[k] = h
    F.cross_entropy(h, torch.zeros(len(x), dtype=torch.long)).backward()
    grads = {n: p.grad.double().norm().item() for n, p in model.named_parameters()}
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    monitor = GradientFlowMonitor(model, every=1)
    train(model, x, steps=1, monitor=monitor, rule=torch.optim.SGD(model.parameters(), lr=0.1))
    record = monitor.record
    for k, name in enumerate(record.layers):
        value = values[int(name)]
        scale = value.detach().double().square().mean().sqrt().item()
        assert record.activation_scales[0, k] == pytest.approx(scale, rel=1e-5)
        if name != "0":  # the in-place ReLU overwrote what the copy kept apart
            grad = value.grad.double().norm().item()
            assert record.activation_grad_norms[0, k] == pytest.approx(grad, rel=1e-5)
    on = (values[1] > 0).double()
    k = record.layers.index("1")
    assert record.active_fractions[0, k] == pytest.approx(on.mean().item())
    np.testing.assert_allclose(record.unit_active_fractions[k], on.mean(0).numpy())
    assert record.dead_fractions[0, k] == pytest.approx((on.sum(0) == 0).double().mean().item())
    assert record.always_on_fractions[0, k] == (on.mean(0) == 1).double().mean().item()
    k = record.layers.index("4")
    flat = (1 - values[4].detach() ** 2 < 0.1).double().mean().item()
    assert record.saturated_fractions[0, k] == pytest.approx(flat)
    for k, name in enumerate(record.parameters):
        assert record.weight_grad_norms[0, k] == pytest.approx(grads[name], rel=1e-5)
        norm = before[name].norm().item()
        assert record.weight_norms[0, k] == pytest.approx(norm, rel=1e-5)
        # plain SGD: the update is the rate times the gradient; float32 rounds the difference
        assert record.update_ratios[0, k] == pytest.approx(0.1 * grads[name] / norm, rel=1e-3)


def test_shared_modules_and_functional_activations_are_told_apart():
    model, x = build("residual")
    monitor = GradientFlowMonitor(model, every=1)
    train(model, x, steps=1, monitor=monitor)
    record = monitor.record
    assert "1.relu" in record.layers
    assert "1 (relu)" in record.layers
    k = record.layers.index("1 (relu)")
    assert record.activations[k] == "relu"
    assert len(record.unit_active_fractions[k]) == 6  # channels, not columns of pixels

    shared = nn.ReLU()
    twice = nn.Sequential(nn.Linear(5, 5), shared, nn.Linear(5, 5), shared, nn.Linear(5, 3))
    monitor = GradientFlowMonitor(twice, every=1)
    train(twice, torch.randn(8, 5), steps=1, monitor=monitor)
    assert monitor.record.layers == ("0", "1", "2", "1#2", "4")


def test_activations_inside_a_transformer_are_found():
    model, x = build("transformer")
    monitor = GradientFlowMonitor(model, every=1)
    train(model, x, steps=1, monitor=monitor)
    assert monitor.record.activations.count("relu") == 2
    assert np.isfinite(monitor.record.weight_grad_norms).all()


def test_gradients_far_below_and_above_what_float32_squares_can_hold():
    for size in (1e-30, 1e25):
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 1))
        monitor = GradientFlowMonitor(model, every=1)
        rule = torch.optim.SGD(model.parameters(), lr=0.0)
        with monitor:
            (model(torch.ones(2, 3)).sum() * size).backward()
            rule.step()
        norms = monitor.record.weight_grad_norms[0]
        assert np.all(np.isfinite(norms))
        assert np.all((norms > 0.01 * size) & (norms < 100 * size))
        assert monitor.record.nonfinite == ()


def test_hooks_are_gone_after_an_exception():
    model, x = build("perceptron")
    monitor = GradientFlowMonitor(model, every=1)

    def fail():
        with monitor:
            model(x).sum().backward()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert count_hooks(model) == 0
    from torch.optim import optimizer

    assert not optimizer._global_optimizer_pre_hooks
    assert not optimizer._global_optimizer_post_hooks


def test_no_hook_between_sampled_steps():
    model, x = build("perceptron")
    rule = torch.optim.SGD(model.parameters(), lr=0.1)
    seen = []
    with GradientFlowMonitor(model, every=3):
        for _ in range(7):
            seen.append(count_hooks(model) > 0)
            model(x).sum().backward()
            rule.step()
    assert seen == [True, False, False, True, False, False, True]


def test_clipping_does_not_hide_the_gradient_and_an_infinite_norm_is_named():
    model, x = build("perceptron")
    monitor = GradientFlowMonitor(model, every=1)
    train(model, x, steps=1, monitor=monitor, clip=1e-6)
    assert monitor.record.global_norms[0] > 1e-3
    model[3].weight.register_hook(lambda g: g * float("inf"))
    monitor = GradientFlowMonitor(model, every=1)
    train(model, x, steps=2, monitor=monitor, clip=1.0)
    event = next(e for e in monitor.record.nonfinite if e.quantity == "weight gradient")
    assert (event.step, event.where) == (0, "3.weight")
    assert np.isfinite(monitor.record.weight_grad_norms[0, 0])


def test_frozen_parameters_and_two_optimizers():
    model, x = build("perceptron")
    model[0].requires_grad_(False)
    rules = [torch.optim.SGD(model[3].parameters(), lr=0.1),
             torch.optim.Adam(model[5].parameters())]  # fmt: skip
    for given in (None, rules):
        monitor = GradientFlowMonitor(model, optimizer=given, every=2)
        with monitor:
            for _ in range(5):
                model(x).square().sum().backward()
                for rule in rules:
                    rule.step()
                    rule.zero_grad()
        record = monitor.record
        assert record.steps.tolist() == [0, 2, 4]
        first = record.parameters.index("0.weight")
        assert not record.trainable[first]
        assert np.isnan(record.weight_grad_norms[:, first]).all()
        others = [k for k, on in enumerate(record.trainable) if on]
        assert np.all(record.update_ratios[:, others] > 0)


def test_updates_by_hand():
    model, x = build("perceptron")
    with GradientFlowMonitor(model, optimizer=False, every=2) as monitor:
        for _ in range(3):
            model.zero_grad()
            model(x).square().sum().backward()
            with torch.no_grad():
                for p in model.parameters():
                    p -= 0.01 * p.grad
            monitor.step()
    assert monitor.record.steps.tolist() == [0, 2]
    assert np.all(monitor.record.update_ratios > 0)


def test_loss_scaling_is_undone():
    norms = []
    for scale in (1.0, 2.0**12):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        rule = torch.optim.SGD(model.parameters(), lr=0.01)
        scaler = torch.amp.GradScaler("cpu", init_scale=scale)
        with GradientFlowMonitor(model, optimizer=rule, every=1, scaler=scaler) as monitor:
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = model(torch.ones(3, 4)).float().square().mean()
            scaler.scale(loss).backward()
            scaler.step(rule)
            scaler.update()
        norms.append(monitor.record)
    for name in ("weight_grad_norms", "activation_grad_norms", "update_ratios"):
        a, b = (getattr(r, name) for r in norms)
        np.testing.assert_allclose(a, b, rtol=1e-2)  # bfloat16 keeps 8 bits
        assert np.all(np.isfinite(a))


def test_evaluation_passes_between_do_not_count():
    model, x = build("perceptron")
    rule = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientFlowMonitor(model, every=1) as monitor:
        with torch.no_grad():
            model(100 * x)
        model(x).sum().backward()
        model(100 * x)  # with a graph, but nothing is derived from it
        rule.step()
    assert monitor.record.layers == ("0", "1", "3", "4", "5")
    assert np.all(monitor.record.activation_grad_norms > 0)


def test_memory_is_bounded_and_the_record_spans_the_run():
    model, x = build("perceptron")
    monitor = GradientFlowMonitor(model, every=1, max_records=8)
    train(model, x, steps=50, monitor=monitor)
    steps = monitor.record.steps
    assert len(steps) <= 8
    assert steps[0] == 0
    assert steps[-1] >= 40
    assert len(set(np.diff(steps))) == 1


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (dict(model="x"), TypeError, "`model`"),
        (dict(every=0), ValueError, "`every` \\(=0\\)"),
        (dict(every=1.5), TypeError, "`every`"),
        (dict(max_records=1), ValueError, "`max_records`"),
        (dict(share=0.0), ValueError, "`share`"),
        (dict(optimizer="sgd"), TypeError, "`optimizer`"),
        (dict(scaler=0.5), TypeError, "`scaler`"),
        (dict(max_calls=0), ValueError, "`max_calls`"),
    ],
)
def test_bad_arguments_are_named(arguments, error, words):
    with pytest.raises(error, match=words):
        GradientFlowMonitor(**{"model": nn.Linear(2, 2), **arguments})


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:.*torch.jit:FutureWarning")  # from torch 2.14 on
@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, torch.ones(2, 3))])
def test_a_scripted_module_is_refused(make):
    module = make(nn.Sequential(nn.Linear(3, 3), nn.ReLU()))
    with pytest.raises(ValueError, match=r"`model` .* before torch.jit"):
        GradientFlowMonitor(module)


def test_an_evaluation_in_inference_mode_leaves_nothing_that_training_cannot_use():
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    x, rule = torch.ones(5, 3), torch.optim.SGD(model.parameters(), lr=1e-9)
    with GradientFlowMonitor(model, optimizer=rule, every=1) as monitor:
        for _ in range(2):
            with torch.inference_mode():
                model(x)
            rule.zero_grad()
            model(x).square().mean().backward()
            rule.step()
    fraction = (model[:2](x) > 0).double().mean().item()
    assert monitor.record.active_fractions[:, 1] == pytest.approx([fraction] * 2)
