"""A monitor lets go of the model, of its graph and of its tensors, whatever the loop does."""

import gc
import weakref

import pytest

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402
from torch.nn.functional import cross_entropy  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from course_lib.pytorch import (  # noqa: E402
    GradientFlowMonitor,
    dead_units,
    diagnose_model,
    jacobian_spectrum,
    saturation,
)

INPUTS, LABELS = torch.ones(4, 6), torch.arange(4) % 3


class Net(nn.Module):
    """A small network that may fail, and may run its first part again in the backward pass."""

    def __init__(self, *, again=False):
        super().__init__()
        self.first, self.last = nn.Sequential(nn.Linear(6, 8), nn.ReLU()), nn.Linear(8, 3)
        self.again, self.fails = again, False

    def forward(self, x):
        h = checkpoint(self.first, x, use_reentrant=False) if self.again else self.first(x)
        if self.fails:
            raise ArithmeticError
        return self.last(h)


def plain(model, rule):
    rule.zero_grad()
    cross_entropy(model(INPUTS), LABELS).backward()
    rule.step()


def two_passes(model, rule):
    rule.zero_grad()
    (cross_entropy(model(INPUTS), LABELS) + cross_entropy(model(-INPUTS), LABELS)).backward()
    rule.step()


def never_differentiated(model, rule):
    model(INPUTS)
    plain(model, rule)
    model(INPUTS)


def penalized(model, rule):
    rule.zero_grad()
    x = INPUTS.clone().requires_grad_()
    (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
    (cross_entropy(model(INPUTS), LABELS) + slope.square().sum()).backward()
    rule.step()


def graph_kept(model, rule):
    rule.zero_grad()
    loss = cross_entropy(model(INPUTS), LABELS)
    loss.backward(retain_graph=True)
    loss.backward()
    rule.step()


def fails_in_the_pass(model, rule):
    model.fails = True
    with pytest.raises(ArithmeticError):
        model(INPUTS)
    model.fails = False
    plain(model, rule)


LOOPS = [plain, two_passes, never_differentiated, penalized, graph_kept, fails_in_the_pass]


@pytest.mark.parametrize("again", [False, True])
@pytest.mark.parametrize("step", LOOPS, ids=lambda step: step.__name__)
def test_the_model_and_its_outputs_are_let_go_of(step, again):
    model = Net(again=again)
    outputs = []
    model.last.register_forward_hook(lambda m, given, out: outputs.append(weakref.ref(out)))
    rule = torch.optim.SGD(model.parameters(), lr=0.01)
    with GradientFlowMonitor(model, optimizer=rule, every=2) as monitor:
        for _ in range(5):
            step(model, rule)
        record = monitor.record
    assert len(record) == 3
    gone = weakref.ref(model)
    del model, rule, monitor
    gc.collect()
    assert gone() is None
    assert not any(output() is not None for output in outputs)


def test_an_exception_in_the_loop_lets_go_of_the_model():
    def fail_under_the_monitor(model):
        with GradientFlowMonitor(model, every=1):
            cross_entropy(model(INPUTS), LABELS).backward()
            raise ZeroDivisionError

    model = Net()
    with pytest.raises(ZeroDivisionError):
        fail_under_the_monitor(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None


def test_between_samples_nothing_of_a_sample_is_held():
    model = Net()
    rule = torch.optim.SGD(model.parameters(), lr=0.01)
    outputs = []
    model.first.register_forward_hook(lambda m, given, out: outputs.append(weakref.ref(out)))
    with GradientFlowMonitor(model, optimizer=rule, every=10):
        plain(model, rule)
        gc.collect()
        assert outputs[0]() is None


def test_a_trial_lets_go_of_its_copy():
    def held():
        gc.collect()
        return sum(type(item) is Net for item in gc.get_objects())

    model, before = Net(), held()
    diagnose_model(model, INPUTS, LABELS, loss=cross_entropy)
    assert held() == before


@pytest.mark.parametrize("inspect", [
    lambda model: dead_units(model, INPUTS),
    lambda model: saturation(model, INPUTS),
    lambda model: jacobian_spectrum(model, INPUTS[0]),
    lambda model: jacobian_spectrum(model, INPUTS[0], method="product"),
])  # fmt: skip
def test_an_inspection_lets_go_of_the_model(inspect):
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    inspect(model)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
