"""What the monitor has seen once it takes in fewer steps the next time, and says the same of it."""

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from course_lib.pytorch import GradientFlowMonitor  # noqa: E402

NUMBERS = ("steps", "activation_scales", "activation_grad_norms", "active_fractions",
           "dead_fractions", "always_on_fractions", "saturated_fractions", "weight_grad_norms",
           "weight_norms", "update_ratios")  # fmt: skip


class Residual(nn.Module):
    def __init__(self, n=6):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(n, n, 3, padding=1, bias=False), nn.BatchNorm2d(n)
        self.relu = nn.ReLU(inplace=True)  # called twice

    def forward(self, x):
        return self.relu(x + self.relu(self.norm(self.conv(x))))


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(11, 8)
        self.lstm = nn.LSTM(8, 8, num_layers=2, batch_first=True)
        self.attention = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        return self.head(self.attention(self.lstm(self.embed(x))[0]).mean(1))


def perceptron():
    return nn.Sequential(
        nn.Linear(5, 8), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(8, 8, bias=False),
        nn.Tanh(), nn.Linear(8, 8), nn.GELU(), nn.Linear(8, 8), nn.ReLU6(), nn.Linear(8, 3),
    )  # fmt: skip


def convolutional():
    return nn.Sequential(nn.Conv2d(3, 6, 3), Residual(), nn.MaxPool2d(2), nn.SiLU(), Residual(),
                         nn.Flatten(), nn.Linear(54, 3), nn.Sigmoid())  # fmt: skip


MODELS = {
    "perceptron": (perceptron, lambda: torch.randn(16, 5)),
    "convolutional": (convolutional, lambda: torch.randn(4, 3, 8, 8)),
    "text": (Text, lambda: torch.randint(11, (6, 5))),
}


class Careful(GradientFlowMonitor):
    """Takes every call as if it were the first."""

    def __enter__(self):
        for watched in self._probe.watched.values():
            watched.plain = False
        return super().__enter__()


def quick_calls(monitor):
    return sum(w.plain and w.steady for w in monitor._probe.watched.values())


def watch(kind, model, loss_of, rule, *, steps=6, between=None):
    with kind(model, every=1) as monitor:
        for step in range(steps):
            rule.zero_grad()
            for loss in loss_of(model, step):
                loss.backward(retain_graph=True)
            if between:
                between(model)
            rule.step()
        quick = quick_calls(monitor)
    return monitor.record, quick


def assert_same(record, expected):
    assert record.layers == expected.layers
    assert record.parameters == expected.parameters
    for name in NUMBERS:
        a, b = getattr(record, name), getattr(expected, name)
        np.testing.assert_allclose(a, b, rtol=2e-6, err_msg=name)
    for name in ("unit_active_fractions", "unit_last_active"):
        for a, b in zip(getattr(record, name), getattr(expected, name), strict=True):
            assert (a is None) == (b is None)
            assert a is None or np.array_equal(a, b)


def both(make, loss_of, *, rate=0.05, between=None, momentum=0.0, steps=6):
    records = []
    for kind in (GradientFlowMonitor, Careful):
        torch.manual_seed(0)
        model = make()
        rule = torch.optim.SGD(model.parameters(), lr=rate, momentum=momentum)
        torch.manual_seed(1)
        records.append(watch(kind, model, loss_of, rule, between=between, steps=steps))
    (record, quick), (expected, never) = records
    assert never == 0
    return record, expected, quick


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_quick_way_says_what_the_careful_one_says(name, momentum):
    make, draw = MODELS[name]
    x = draw()
    record, expected, quick = both(
        make, lambda m, step: [m(x).square().mean()], momentum=momentum
    )
    assert_same(record, expected)
    assert quick > 0


def test_a_batch_of_another_size_and_an_evaluation_in_between():
    def losses(model, step):
        with torch.no_grad():
            model(torch.randn(3, 5))
        return [model(torch.randn(4 + step, 5)).square().mean()]

    record, expected, quick = both(perceptron, losses)
    assert_same(record, expected)
    assert quick > 0


class TwoHeads(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Linear(5, 8)
        self.act = nn.ReLU()
        self.one, self.two = nn.Linear(8, 3), nn.Linear(8, 2)

    def forward(self, x):
        self.hidden = self.act(self.body(x))
        return self.one(self.hidden), self.two(self.hidden)


def total(model):
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm()


def test_a_backward_pass_that_begins_where_none_began_before():
    """From step 3 on a second loss is taken from a hidden layer: the gradients grow after that."""
    norms = []

    def losses(model, step):
        one, two = model(torch.randn(8, 5))
        first = one.square().mean() + two.square().mean()
        yield first
        if step >= 3:
            yield 100 * model.hidden.square().mean()
        norms.append(total(model).item())

    record, expected, quick = both(
        TwoHeads, losses, rate=1e-3,
        between=lambda m: nn.utils.clip_grad_norm_(m.parameters(), 1e-3),
    )  # fmt: skip
    careful = norms[len(norms) // 2:]
    np.testing.assert_allclose(expected.global_norms, careful, rtol=1e-5)
    # In the step in which it is new it is noticed when the optimizer steps, after the clipping.
    later = np.arange(6) != 3
    np.testing.assert_allclose(record.global_norms[later], np.array(careful)[later], rtol=1e-5)
    assert record.global_norms[3] == pytest.approx(1e-3, rel=1e-3)
    np.testing.assert_allclose(
        record.activation_grad_norms, expected.activation_grad_norms, rtol=1e-5
    )
    np.testing.assert_allclose(record.update_ratios, expected.update_ratios, rtol=1e-5)
    assert quick == 0  # from then on nothing is taken for granted


def test_a_hook_on_an_output_that_changes_its_gradient():
    """What flows on is what counts, in the quick way as well."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act, self.last = nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)

        def forward(self, x):
            h = self.act(self.first(x))
            h.register_hook(lambda grad: 0 * grad)
            return self.last(h)

    record, expected, _ = both(Scaled, lambda m, step: [m(torch.randn(8, 5)).square().mean()])
    assert_same(record, expected)
    assert (record.activation_grad_norms[:, 1] == 0).all()


def test_an_output_that_one_step_overwrites_and_others_do_not():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.act, self.last = nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2)
            self.step = 0

        def forward(self, x):
            h = self.first(x)
            if self.step in (2, 4):
                h = h.mul_(100.0)
            self.step += 1
            return self.last(self.act(h))

    record, expected, _ = both(Late, lambda m, step: [m(torch.randn(8, 5)).square().mean()])
    later = np.arange(6) != 2  # overwritten before it was measured: said for that one step
    np.testing.assert_allclose(
        record.activation_scales[later], expected.activation_scales[later], rtol=2e-6
    )
    assert np.isnan(record.activation_scales[2, 0])


def test_a_pass_that_is_never_differentiated_between_a_loss_and_its_backward_pass():
    seen = []

    def losses(model, step):
        loss = model(torch.randn(8, 5)).square().mean()
        model(torch.randn(8, 5))
        yield loss
        seen.append(total(model).item())

    record, expected, _ = both(
        perceptron, losses,
        between=lambda m: nn.utils.clip_grad_norm_(m.parameters(), 1e-3),
    )  # fmt: skip
    half = len(seen) // 2
    np.testing.assert_allclose(expected.global_norms, seen[half:], rtol=1e-5)
    np.testing.assert_allclose(record.global_norms, seen[:half], rtol=1e-5)


@pytest.mark.parametrize("edit", ["in_place", "by_data", "in_a_hook", "replaced_in_a_hook"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_the_update_is_the_one_made_whoever_edits_the_gradient(edit, momentum):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 2))
    rule = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum)

    def shrink(*unused):
        for p in model.parameters():
            if edit == "by_data":
                p.grad.data.mul_(0.25)
            elif edit == "replaced_in_a_hook":
                p.grad = p.grad * 0.25
            else:
                p.grad.mul_(0.25)

    ratios = []
    with GradientFlowMonitor(model, optimizer=rule, every=1) as monitor:
        if "hook" in edit:
            rule.register_step_pre_hook(shrink)
        for _ in range(4):
            rule.zero_grad()
            model(torch.randn(16, 5)).square().mean().backward()
            if "hook" not in edit:
                shrink()
            before = [p.detach().double() for p in model.parameters()]
            rule.step()
            ratios.append([
                ((p.detach().double() - b).norm() / b.norm()).item()
                for p, b in zip(model.parameters(), before, strict=True)
            ])  # fmt: skip
    np.testing.assert_allclose(monitor.record.update_ratios, ratios, rtol=1e-3)
