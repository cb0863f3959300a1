"""Loops as people write them, besides the usual one: seen right, with the same weights as alone."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from course_lib.diagnosis import diagnose  # noqa: E402
from course_lib.pytorch import GradientFlowMonitor  # noqa: E402

X, Y = torch.randn(64, 16, generator=torch.Generator().manual_seed(0)), torch.ones(64, 4)
RATE = 0.05


class Network(nn.Module):
    """Blocks, which run a second time in the backward pass if `again` says so."""

    def __init__(self, again: str | None = None) -> None:
        super().__init__()
        self.again = again
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(16, 16), nn.ReLU()) for _ in range(3)])
        self.head = nn.Linear(16, 4)

    def forward(self, x):
        for block in self.blocks:
            if self.again is None:
                x = block(x)
            else:
                x = checkpoint(block, x, use_reentrant=self.again == "reentrant")
        return self.head(x)


def loss_of(model):
    return ((model(X) - Y) ** 2).mean()


def usual(model):
    rule = torch.optim.SGD(model.parameters(), lr=RATE)

    def step():
        rule.zero_grad()
        loss_of(model).backward()
        rule.step()

    return step


def within_the_backward_pass(model):
    """A rule for each parameter, so that no two gradients are in memory."""
    rules = {p: torch.optim.SGD([p], lr=RATE) for p in model.parameters()}

    def move(p):
        rules[p].step()
        rules[p].zero_grad()

    for p in model.parameters():
        p.register_post_accumulate_grad_hook(move)
    return lambda: loss_of(model).backward()


def gradients_put_in_place(model):
    rule, parameters = torch.optim.SGD(model.parameters(), lr=RATE), list(model.parameters())

    def step():
        for p, g in zip(parameters, torch.autograd.grad(loss_of(model), parameters), strict=True):
            p.grad = g
        rule.step()

    return step


def gradients_copied(model):
    rule, parameters = torch.optim.SGD(model.parameters(), lr=RATE), list(model.parameters())
    for p in parameters:
        p.grad = torch.zeros_like(p)

    def step():
        for p, g in zip(parameters, torch.autograd.grad(loss_of(model), parameters), strict=True):
            p.grad.copy_(g)
        rule.step()

    return step


def run(way, *, watched=True, again=None, steps=21, every=5):
    torch.manual_seed(0)
    model = Network(again)
    step, monitor = way(model), GradientFlowMonitor(model, every=every)
    if watched:
        with monitor:
            for _ in range(steps):
                step()
    else:
        for _ in range(steps):
            step()
    return monitor.record, [p.detach().clone() for p in model.parameters()]


@pytest.fixture(scope="module")
def expected():
    return run(usual)[0]


WAYS = [within_the_backward_pass, gradients_put_in_place, gradients_copied]


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_the_record_is_that_of_the_usual_loop(way, expected):
    found, weights = run(way)
    assert found.steps.tolist() == expected.steps.tolist() == [0, 5, 10, 15, 20]
    for name in ("activation_grad_norms", "activation_scales", "weight_grad_norms",
                 "update_ratios"):  # fmt: skip
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    assert all(map(torch.equal, weights, run(way, watched=False)[1]))
    assert found.left_over == ()
    assert diagnose(found).codes == ()


@pytest.mark.parametrize("extra", [False, True])
def test_a_forgotten_zero_grad_is_seen_behind_a_pass_that_adds_nothing(extra):
    def way(model):
        rule = torch.optim.SGD(model.parameters(), lr=1e-3)

        def step():
            if extra:  # a gradient penalty's first pass
                torch.autograd.grad(loss_of(model), list(model.parameters()))
            loss_of(model).backward()
            rule.step()

        return step

    found = run(way)[0]
    assert found.left_over == (5, 10, 15, 20)
    assert diagnose(found).codes == ("accumulating_gradients",)


@pytest.mark.parametrize("again", ["reentrant", "once more"])
def test_what_a_checkpoint_runs_again_has_no_second_row(again, expected):
    X.requires_grad_(again == "reentrant")  # which does nothing without
    try:
        found = run(usual, again=again)[0]
    finally:
        X.requires_grad_(False)
        X.grad = None
    assert found.layers == expected.layers
    np.testing.assert_array_equal(found.activation_grad_norms, expected.activation_grad_norms)
    np.testing.assert_array_equal(found.weight_grad_norms, expected.weight_grad_norms)


def test_a_layer_that_is_taken_out_halfway_is_not_called_dead():
    torch.manual_seed(0)
    model = Network()
    step, monitor = usual(model), GradientFlowMonitor(model, every=1)
    with monitor:
        for k in range(12):
            if k == 3:
                model.blocks[1][1] = nn.Identity()
            step()
    assert np.isnan(monitor.record.active_fractions[-1, 3])
    assert "dead_units" not in diagnose(monitor).codes


def test_layers_under_a_transformation_are_not_seen_and_this_is_said():
    def way(model):
        rule = torch.optim.SGD(model.parameters(), lr=RATE)

        def loss(weights):
            return ((torch.func.functional_call(model, weights, (X,)) - Y) ** 2).mean()

        def step():
            found = torch.func.grad(loss)({n: p.detach() for n, p in model.named_parameters()})
            for name, p in model.named_parameters():
                p.grad = found[name]
            rule.step()

        return step

    found, weights = run(way)
    assert found.layers == ()
    assert np.all(found.update_ratios > 0)
    assert diagnose(found).codes == ("unseen_layers",)
    assert all(map(torch.equal, weights, run(way, watched=False)[1]))
