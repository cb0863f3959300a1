"""Results stay on the reader's device, tried without a second device.

`Far` stands in for a GPU: a tensor that says it lies elsewhere, whose numbers are computed on the
CPU. Like CUDA, it refuses operations between two devices, and NumPy cannot see it. So what a test
here finds is code that forgets where a model is; what only a GPU does (its rounding, its own
random numbers) is not tried.
"""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from course_lib import pytorch
from course_lib.cures import Recipe
from course_lib.data import load_digits_split
from course_lib.pytorch.randomness import generators_kept, seed_generators
from course_lib.pytorch.repair import build_repair
from course_lib.recurrent_specs import RecurrentSpec, draw_recurrent_weights
from course_lib.repairs import Repair
from course_lib.specs import NetworkSpec, draw_weights
from course_lib.stack_specs import StackSpec, draw_stack_weights

# A device that every PyTorch knows and that is never computed on.
FAR = torch.device("meta")
# What CUDA too accepts from the CPU: a copy, and rows that are given by their numbers.
CROSSING = ("_to_copy", "copy_", "index", "index_put_")


class Far(torch.Tensor):
    """A tensor on the second device; its numbers lie in `near`."""

    @staticmethod
    def __new__(cls, near):
        far = torch.Tensor._make_wrapper_subclass(
            cls, near.size(), strides=near.stride(), storage_offset=near.storage_offset(),
            dtype=near.dtype, device=FAR,
        )  # fmt: skip
        far.near = near
        return far

    @classmethod
    def __torch_dispatch__(cls, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


def compute(func, args, kwargs):
    """Run one operation on the CPU, and give its results to the device where they belong."""
    name = func._schema.name.removeprefix("aten::")
    owners, places = {}, set()

    def bring(value):
        if isinstance(value, Far):
            owners[id(value.near)] = value
            places.add("far")
            return value.near
        if isinstance(value, torch.Tensor) and value.ndim:
            places.add("near")
        return value

    device = kwargs.get("device")
    near_kwargs = {n: v for n, v in kwargs.items() if n != "device"}
    near_args, near_kwargs = tree_map(bring, (args, near_kwargs))
    if device is not None:
        near_kwargs["device"] = "cpu"
    if places == {"far", "near"} and name not in CROSSING:
        raise RuntimeError(f"{name}: tensors on two devices")
    result = func(*near_args, **near_kwargs)
    far = "far" in places if device is None else torch.device(device) == FAR
    if name == "copy_":
        far = isinstance(args[0], Far)
    if not far:
        return result

    def send(value):
        if not isinstance(value, torch.Tensor):
            return value
        return owners.get(id(value)) if id(value) in owners else Far(value)

    return tree_map(send, result)


class Placing(TorchDispatchMode):
    """Operations that name the second device give tensors that lie there."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return compute(func, args, kwargs or {})


class Making(TorchFunctionMode):
    """What PyTorch does below its dispatcher: make a tensor from numbers, read numbers."""

    def __torch_function__(self, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        if func is torch.Tensor.tolist and isinstance(args[0], Far):
            return args[0].near.tolist()
        made = func in (torch.tensor, torch.as_tensor, torch.asarray)
        if made and kwargs.get("device") is not None and torch.device(kwargs["device"]) == FAR:
            del kwargs["device"]
            if isinstance(args[0], Far):
                return func(args[0].near, **kwargs) if kwargs else args[0]
            return Far(func(*args, **kwargs))
        return func(*args, **kwargs)


def send_away(model):
    """Move a model to the second device, in place, as `model.to("cuda")` would."""
    for module in model.modules():
        for name, p in module._parameters.items():
            if p is not None:
                moved = nn.Parameter(Far(p.detach().clone()), p.requires_grad)
                module._parameters[name] = moved
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = Far(buffer.clone())
    if isinstance(model, nn.RNNBase):
        model._init_flat_weights()
    for child in model.modules():
        if isinstance(child, nn.RNNBase):
            child._init_flat_weights()
    return model


def numbers(result):
    """Return every array and number that a result holds, flat, by name."""
    found = {}

    def collect(name, value):
        if isinstance(value, (np.ndarray, float, int, bool)):
            found[name] = np.asarray(value)
        elif isinstance(value, dict):
            for key, part in value.items():
                collect(f"{name}.{key}", part)
        elif isinstance(value, (tuple, list)):
            for k, part in enumerate(value):
                collect(f"{name}[{k}]", part)
        elif hasattr(value, "__dataclass_fields__"):
            for field in value.__dataclass_fields__:
                collect(f"{name}.{field}", getattr(value, field))

    collect("", result)
    assert found
    return found


def assert_same(one, other):
    one, other = numbers(one), numbers(other)
    assert one.keys() == other.keys()
    for name in one:
        # The monitor sums in float32 on a CPU where that is safe, and in float64 elsewhere.
        np.testing.assert_allclose(one[name], other[name], rtol=1e-6, atol=1e-12, err_msg=name)


# What readers call --------------------------------------------------------------------------------

X = np.random.default_rng(0).standard_normal((12, 6))
Y = np.random.default_rng(1).integers(0, 3, 12)
SEQUENCES = np.random.default_rng(2).standard_normal((4, 7, 6))
SPEC = NetworkSpec(n_in=6, width=8, depth=4, n_out=3, activation="tanh")
DIGITS = load_digits_split(seed=0)
NETWORK = NetworkSpec(n_in=64, width=8, depth=3, n_out=10, activation="relu")
REPAIR = Repair(NETWORK, batch_norm=True, dropout=0.5)
STACK = StackSpec(n_in=6, width=8, blocks=2, n_out=3, norm="batch")


def mlp():
    return pytorch.build_mlp(SPEC, draw_weights(SPEC, seed=3))


def recurrent(cell="lstm"):
    spec = RecurrentSpec(cell=cell, n_in=6, hidden=5, n_out=3)
    return pytorch.build_recurrent(spec, draw_recurrent_weights(spec, seed=3), dtype="float64")


def stack():
    return pytorch.build_stack(STACK, draw_stack_weights(STACK, seed=3))


def several_layers():
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return nn.LSTM(6, 5, num_layers=2, bidirectional=True, batch_first=True)


class Mixed(nn.Module):
    """Convolution, normalization, functional activation, dropout, attention: a reader's model."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(5)
            self.convolution, self.norm = nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4)
            self.dropout, self.out = nn.Dropout(0.0), nn.Linear(16, 3)

    def forward(self, x):
        h = torch.relu(self.norm(self.convolution(x.unsqueeze(1))))
        return self.out(self.dropout(torch.sigmoid(h)).flatten(1))


def monitored(model):
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
    place = next(model.parameters())
    x, y = (torch.tensor(a, device=place.device) for a in (X.astype("float32"), Y))
    with pytorch.GradientFlowMonitor(model, every=1) as monitor:
        for _ in range(3):
            optimizer.zero_grad()
            nn.functional.cross_entropy(model(x), y).backward()
            optimizer.step()
    return monitor.record


def clipped(model):
    place = next(model.parameters())
    model(torch.tensor(X.astype("float32"), device=place.device)).square().sum().backward()
    return pytorch.clip_audit(model, threshold=0.5)


def report(model):
    found = pytorch.diagnose_model(
        model, X, Y, loss=nn.functional.cross_entropy, steps=3, learning_rate=1e-2
    )
    return found.results


CALLS = {
    "gradient_flow": (mlp, lambda m: pytorch.gradient_flow(m, X, Y, loss="cross_entropy")),
    "layer_jacobians": (mlp, lambda m: pytorch.layer_jacobians(m, X[0])),
    "accuracy": (mlp, lambda m: pytorch.accuracy(m, X, Y)),
    "load_weights": (mlp, lambda m: pytorch.gradient_flow(
        pytorch.load_weights(m, draw_weights(SPEC, seed=4)), X, Y, loss="cross_entropy")),
    "initialize_model": (mlp, lambda m: pytorch.gradient_flow(
        pytorch.initialize_model(m, "he_normal", seed=4), X, Y, loss="cross_entropy")),
    "train": (mlp, lambda m: pytorch.train(m, X, Y, learning_rate=0.1, steps=3, batch_size=4,
                                           seed=0, optimizer="adam")),
    "train_monitored": (mlp, lambda m: pytorch.train_monitored(
        m, X, Y, loss="cross_entropy", learning_rate=0.1, steps=3, batch_size=4, seed=0,
        clip_norm=1.0)),
    "stack_gradient_flow": (stack, lambda m: pytorch.stack_gradient_flow(
        m, X, Y, loss="cross_entropy")),
    "stack_accuracy": (stack, lambda m: pytorch.stack_accuracy(m, X, Y)),
    "recurrent_gradient_flow": (recurrent, lambda m: pytorch.recurrent_gradient_flow(
        m, SEQUENCES)),
    "state_jacobians": (recurrent, lambda m: pytorch.state_jacobians(m, SEQUENCES[0])),
    "connectivity": (recurrent, lambda m: pytorch.connectivity(m, SEQUENCES)),
    "recurrent_weights": (recurrent, pytorch.recurrent_weights),
    "hook_profile": (recurrent, lambda m: pytorch.hook_profile(m, SEQUENCES)),
    "bptt_profile lstm": (recurrent, lambda m: pytorch.bptt_profile(m, SEQUENCES)),
    "bptt_profile gru": (lambda: recurrent("gru"), lambda m: pytorch.bptt_profile(m, SEQUENCES)),
    "bptt_profile rnn": (lambda: recurrent("tanh_rnn"),
                         lambda m: pytorch.bptt_profile(m, SEQUENCES)),
    "bptt_gradient_profile": (several_layers,
                              lambda m: pytorch.bptt_gradient_profile(m, SEQUENCES)),
    "dead_units": (Mixed, lambda m: pytorch.dead_units(m, X)),
    "saturation": (Mixed, lambda m: pytorch.saturation(m, X)),
    "jacobian_spectrum exact": (mlp, lambda m: pytorch.jacobian_spectrum(m, X[0])),
    "jacobian_spectrum product": (mlp, lambda m: pytorch.jacobian_spectrum(
        m, X[0], method="product")),
    "jacobian_spectrum randomized": (mlp, lambda m: pytorch.jacobian_spectrum(
        m, X[0], method="randomized", rank=2)),
    "clip_audit": (Mixed, clipped),
    "GradientFlowMonitor": (Mixed, monitored),
    "diagnose_model": (Mixed, report),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_a_model_elsewhere_is_served_where_it_is(name, monkeypatch):
    """Same numbers as on the CPU; the model's parameters and gradients stay where they were."""
    # A stand-in cannot be made in inference mode; what is computed there is the same.
    monkeypatch.setattr(torch, "inference_mode", lambda mode=True: torch.set_grad_enabled(not mode))
    build, call = CALLS[name]
    here = call(build())
    model = send_away(build())
    with Placing(), Making():
        there = call(model)
    assert_same(here, there)
    for tensor in (*model.parameters(), *model.buffers()):
        assert isinstance(tensor.detach(), Far)
        assert tensor.grad is None or isinstance(tensor.grad, Far)


def adam_counts_where_the_model_is():
    """Whether Adam's count of its steps lies there; up to PyTorch 2.11, on the default one."""
    parameter = nn.Parameter(torch.ones(3))
    rule = torch.optim.Adam([parameter], foreach=False)
    parameter.grad = torch.ones(3)
    with torch.device(FAR):
        try:
            rule.step()
        except RuntimeError:  # nobody can read a number there
            return False
    return True


@pytest.mark.parametrize("name", CALLS)
def test_a_default_device_elsewhere_is_not_used_for_a_model_here(name):
    """`torch.set_default_device("cuda")` moves what a reader makes, not what we measure."""
    build, call = CALLS[name]
    expected, model = call(build()), build()
    if name in ("GradientFlowMonitor", "clip_audit"):
        return  # there the reader's own loop makes the tensors
    if name in ("train", "diagnose_model") and not adam_counts_where_the_model_is():
        pytest.skip("this PyTorch's own Adam makes a tensor on the default device")
    with torch.device(FAR):
        found = call(model)
    assert_same(expected, found)


@pytest.mark.parametrize(
    "build",
    [mlp, recurrent, stack, lambda: build_repair(REPAIR, draw_weights(NETWORK, seed=0))],
    ids=["mlp", "recurrent", "stack", "repair"],
)
def test_a_new_model_is_made_on_the_default_device(build):
    with torch.device(FAR):
        model = build()
    assert {p.device for p in model.parameters()} == {FAR}


def test_the_stand_in_refuses_what_cuda_refuses():
    """Else the tests above would pass on anything."""
    near = torch.ones(3)
    with Placing(), Making():
        far = near.to(FAR)
        assert far.device == FAR
        assert torch.equal((far + far).cpu(), 2 * near)
        with pytest.raises(RuntimeError, match="two devices"):
            far + near
        with pytest.raises(RuntimeError, match="numpy"):
            far.numpy()
        assert not far.is_cpu
    assert not isinstance(far.near, Far)


# Random generators --------------------------------------------------------------------------------


class Cuda:
    """Notes what PyTorch is asked to do to the generators of two GPUs."""

    def __init__(self, monkeypatch, *, started):
        self.states, self.seeded = {0: "first", 1: "second"}, []
        for name, value in {
            "is_initialized": lambda: started,
            "device_count": lambda: 2,
            "is_available": lambda: True,
            "is_current_stream_capturing": lambda: False,
            "get_rng_state": lambda device: self.states[int(str(device).split(":")[-1])],
            "set_rng_state": self.set_state,
            "manual_seed_all": self.seed,
        }.items():
            monkeypatch.setattr(torch.cuda, name, value)
        # Adam asks whether a graph is being captured: before PyTorch 2.14 as above, now so.
        monkeypatch.setattr(torch.accelerator, "current_accelerator", lambda **_: None)

    def set_state(self, state, device):
        self.states[int(str(device).split(":")[-1])] = state

    def seed(self, seed):
        self.seeded.append(seed)
        self.states = {0: seed, 1: seed}


def test_the_generators_of_gpus_in_use_are_seeded_and_given_back(monkeypatch):
    cuda = Cuda(monkeypatch, started=True)
    before = torch.get_rng_state()
    with generators_kept(7):
        assert cuda.seeded == [7]
        drawn = torch.rand(3)
    assert cuda.states == {0: "first", 1: "second"}
    assert torch.equal(torch.get_rng_state(), before)
    with generators_kept(7):
        assert torch.equal(torch.rand(3), drawn)


def test_a_gpu_that_was_never_used_gets_no_seed(monkeypatch):
    cuda = Cuda(monkeypatch, started=False)
    with torch.random.fork_rng(devices=[]):
        seed_generators(7)
        first = torch.rand(3)
        seed_generators(7)
        assert torch.equal(torch.rand(3), first)
    assert cuda.seeded == []


TOUCHY = {
    "build_mlp": (mlp, None),
    "build_recurrent": (recurrent, None),
    "build_stack": (stack, None),
    "hook_profile": CALLS["hook_profile"],
    "bptt_gradient_profile": CALLS["bptt_gradient_profile"],
    "diagnose_model": CALLS["diagnose_model"],
    "run_recipe": (lambda: Recipe(NETWORK), lambda recipe: pytorch.run_recipe(
        recipe, DIGITS, seed=0, steps=1)),
    "train_repair": (lambda: draw_weights(NETWORK, seed=0), lambda weights: pytorch.train_repair(
        REPAIR, weights, DIGITS, epochs=1, batch_size=500, seed=0)),
}  # fmt: skip


@pytest.mark.parametrize("name", TOUCHY)
def test_the_readers_random_numbers_are_not_touched(name, monkeypatch):
    build, call = TOUCHY[name]
    model = build() if call else None
    cuda = Cuda(monkeypatch, started=False)
    before = torch.get_rng_state()
    call(model) if call else build()
    assert torch.equal(torch.get_rng_state(), before)
    assert cuda.seeded == []


def test_a_copy_of_a_model_elsewhere_stays_there():
    """What diagnose_model trains."""
    with Placing(), Making():
        copied = copy.deepcopy(send_away(mlp()))
    assert all(isinstance(p.detach(), Far) for p in copied.parameters())
