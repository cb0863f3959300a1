"""Models that torch.compile was given: seen like any other, compiled as ever between samples."""

from __future__ import annotations

import copy
import warnings

import numpy as np
import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from course_lib.diagnosis import diagnose  # noqa: E402
from course_lib.pytorch import (  # noqa: E402
    GradientFlowMonitor,
    bptt_gradient_profile,
    clip_audit,
    dead_units,
    diagnose_model,
    jacobian_spectrum,
    saturation,
)
from course_lib.pytorch.compiled import ABOUT_HOOKS  # noqa: E402

# The compiler looks at the gradient of whatever it is given, and has its say about Python 3.13.0.
pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning"),
    pytest.mark.filterwarnings("ignore:Guards may run slower:RuntimeWarning"),
]

X, Y = torch.randn(32, 8, generator=torch.Generator().manual_seed(0)), torch.ones(32, 4)


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear, self.activation = nn.Linear(16, 16), nn.ReLU()

    def forward(self, x):
        return x + self.activation(self.linear(x))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(8, 16), nn.Linear(16, 4)
        self.blocks = nn.ModuleList([Block() for _ in range(3)])

    def forward(self, x):
        h = torch.tanh(self.first(x))
        for block in self.blocks:
            h = block(h)
        return self.last(h)


def loss_of(model):
    return ((model(X) - Y) ** 2).mean()


def compiled(thing, **options):
    return torch.compile(thing, backend="eager", **options)


def as_it_is(model):
    return lambda: loss_of(model)


def outside(model):
    fast = compiled(model)
    return lambda: loss_of(fast)


def in_place(model):
    model.compile(backend="eager")
    return lambda: loss_of(model)


def blocks(model):
    for number, block in enumerate(model.blocks):
        model.blocks[number] = compiled(block)
    return lambda: loss_of(model)


def blocks_in_place(model):
    for block in model.blocks:
        block.compile(backend="eager")
    return lambda: loss_of(model)


def forward(model):
    model.forward = compiled(model.forward, fullgraph=True)
    return lambda: loss_of(model)


def loss_function(model):
    fast = compiled(loss_of)
    return lambda: fast(model)


WAYS = [outside, in_place, blocks, blocks_in_place, forward, loss_function]


@pytest.fixture
def network():
    torch.manual_seed(0)
    torch._dynamo.reset()
    yield Network()
    torch._dynamo.reset()


def silenced():
    """Return the filters in force against the warning of global hooks."""
    return [f for f in warnings.filters if f[1] and f[1].pattern == ABOUT_HOOKS]


def train(way, model, *, watched=True, whole=False, steps=17):
    """Return the record, if any, the weights, and how many pieces of code were compiled."""
    torch._dynamo.reset()
    model = copy.deepcopy(model)
    loss, rule = way(model), torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)

    def step():
        rule.zero_grad()
        loss().backward()
        rule.step()

    step = compiled(step) if whole else step
    torch._dynamo.utils.counters.clear()
    monitor = GradientFlowMonitor(model, every=4)
    if watched:
        with monitor:
            for _ in range(steps):
                step()
    else:
        for _ in range(steps):
            step()
    weights = [p.detach().clone() for p in model.parameters()]
    return monitor.record, weights, torch._dynamo.utils.counters["stats"]["unique_graphs"]


def same_record(found, expected, rtol=0.0):
    assert found.layers == expected.layers
    assert found.parameters == expected.parameters
    assert found.kinds == expected.kinds
    for name in ("activation_grad_norms", "activation_scales", "weight_grad_norms",
                 "update_ratios", "dead_fractions"):  # fmt: skip
        np.testing.assert_allclose(getattr(found, name), getattr(expected, name), rtol=rtol)


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_compiled_model_has_the_record_of_the_same_one_uncompiled(network, way):
    expected, weights, _ = train(as_it_is, network)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*hooks")
        found, watched, pieces = train(way, network)
    same_record(found, expected)
    assert len(expected.layers) == 9
    assert found.steps.tolist() == [0, 4, 8, 12, 16]
    _, alone, pieces_alone = train(way, network, watched=False)
    assert all(map(torch.equal, watched, weights))
    assert all(map(torch.equal, watched, alone))
    assert pieces == pieces_alone > 0  # no hook of ours was compiled, and nothing twice
    assert not silenced()


def test_a_step_compiled_as_a_whole_is_seen_and_its_hooks_are_not_compiled(network):
    expected, weights, _ = train(as_it_is, network)
    found, watched, pieces = train(as_it_is, network, whole=True)
    same_record(found, expected, rtol=1e-5)  # PyTorch 2.6 compiles another rule of the same kind
    for one, other in zip(watched, weights, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
    _, _, alone = train(as_it_is, network, watched=False, whole=True)
    assert pieces <= 2 * alone  # the rule's step falls in pieces around the two hooks


def test_the_wrapper_itself_may_be_watched(network):
    fast = compiled(network)
    monitor = GradientFlowMonitor(fast, every=1)
    with monitor:
        rule = torch.optim.SGD(network.parameters(), lr=0.1)
        loss_of(fast).backward()
        rule.step()
    assert monitor.model is network
    assert monitor.record.layers[0] == "first"
    assert diagnose(monitor.record).findings == ()


def test_the_stance_is_given_back_after_an_exception_too(network):
    stance = torch._dynamo.eval_frame
    torch.compiler.set_stance("eager_on_recompile")
    try:
        rule = torch.optim.SGD(network.parameters(), lr=0.1)
        with GradientFlowMonitor(network, optimizer=rule, every=2):
            assert len(silenced()) == 1
            assert stance._stance.stance == "force_eager"
            loss_of(network).backward()
            rule.step()
            assert stance._stance.stance == "eager_on_recompile"
            loss_of(network).backward()
            rule.step()
            assert stance._stance.stance == "force_eager"
        with pytest.raises(ZeroDivisionError), GradientFlowMonitor(network):
            raise ZeroDivisionError
        assert stance._stance.stance == "eager_on_recompile"
        assert not silenced()
    finally:
        torch.compiler.set_stance("default")


@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_a_compiled_model_is_diagnosed_and_inspected_like_the_same_one_uncompiled(network, way):
    with torch.no_grad():
        network.blocks[1].linear.weight.mul_(1000)
    plain = copy.deepcopy(network)
    way(network)
    fast = compiled(network) if way is outside else network
    expected = diagnose_model(plain, X, Y, loss=nn.MSELoss())
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*hooks")
        report = diagnose_model(fast, X, Y, loss=nn.MSELoss())
        units, flat = dead_units(fast, X), saturation(fast, X)
        spectrum = jacobian_spectrum(fast, X[:1])
    assert report.describe() == expected.describe()
    assert [layer.name for layer in units.layers] == [
        layer.name for layer in dead_units(plain, X).layers
    ]
    assert flat == saturation(plain, X)
    np.testing.assert_allclose(
        spectrum.singular_values, jacobian_spectrum(plain, X[:1]).singular_values, rtol=1e-5
    )
    loss_of(network).backward()
    loss_of(plain).backward()
    assert clip_audit(fast, threshold=1.0).names == clip_audit(plain, threshold=1.0).names


def test_a_recurrent_layer_in_a_compiled_model_has_its_profile():
    torch.manual_seed(0)
    model = nn.Sequential(nn.LSTM(3, 5, batch_first=True))
    x = torch.randn(2, 6, 3)
    expected = bptt_gradient_profile(model, x)
    found = bptt_gradient_profile(compiled(model), x)
    assert found.keys() == expected.keys()
    torch._dynamo.reset()
