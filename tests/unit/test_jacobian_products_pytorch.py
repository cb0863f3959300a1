"""Jacobians in PyTorch, of many rows together: what one row after the other says, and no more."""

import subprocess
import sys
from contextlib import contextmanager
from typing import ClassVar

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.checkpoint import checkpoint

from course_lib.pytorch import GradientFlowMonitor, jacobian_spectrum
from course_lib.pytorch.passages import AT_ONCE, Passage


class Apply(nn.Module):
    """A function of the input, behind one linear layer."""

    def __init__(self, function, size=6):
        super().__init__()
        self.function, self.first = function, nn.Linear(size, size)

    def forward(self, x):
        return self.function(self.first(x))


class Recurrent(nn.Module):
    def __init__(self, kind, **options):
        super().__init__()
        self.body = kind(6, 5, batch_first=True, **options)

    def forward(self, x):
        return self.body(x)[0]


class Attention(nn.Module):
    def __init__(self, fused):
        super().__init__()
        self.qkv, self.fused = nn.Linear(6, 18), fused

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(2, (3, 2, 3)).permute(2, 0, 3, 1, 4)
        if self.fused:
            return F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return torch.softmax(q @ k.mT / 2, -1) @ v


class Shared(nn.Module):
    """Calls one layer three times, with a ReLU in place between."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 6)

    def forward(self, x):
        return x + self.layer(F.relu_(self.layer(F.relu_(self.layer(x)))))


class Embedded(nn.Module):
    """Adds what an embedding holds, of integers made from the input, to what goes on."""

    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(5, 6), nn.Linear(6, 4)

    def forward(self, x):
        return self.out(torch.tanh(x + self.table((x > 0).sum(1))))


class Square(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x):
        return x * x

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, gradient):
        return 2 * gradient * ctx.saved_tensors[0]


def trained(norm, shape):
    """A normalization with other statistics than at first."""
    norm(torch.randn(16, *shape) * 3 + 1)
    return norm


VECTOR, SEQUENCE, IMAGE = (6,), (5, 6), (2, 6, 6)
TOGETHER = {
    "linear": (lambda: nn.Sequential(nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 4)), VECTOR),
    "convolution": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(inplace=True),
                                          nn.MaxPool2d(2), nn.Conv2d(4, 3, 2, groups=1),
                                          nn.GELU(), nn.Flatten()), IMAGE),
    "transposed convolution": (lambda: nn.ConvTranspose2d(2, 3, 2, stride=2), IMAGE),
    "batch norm": (lambda: nn.Sequential(nn.Conv2d(2, 3, 2), trained(nn.BatchNorm2d(3), (3, 5, 5)),
                                         nn.ReLU()), IMAGE),
    "batch norm without statistics": (lambda: nn.Sequential(
        nn.Conv2d(2, 3, 2), nn.BatchNorm2d(3, track_running_stats=False)), IMAGE),
    "group norm": (lambda: nn.Sequential(nn.Conv2d(2, 4, 2), nn.GroupNorm(2, 4)), IMAGE),
    "layer norm": (lambda: nn.Sequential(nn.Linear(6, 6), nn.LayerNorm(6), nn.SiLU()), SEQUENCE),
    "rnn": (lambda: Recurrent(nn.RNN), SEQUENCE),
    "lstm": (lambda: Recurrent(nn.LSTM, num_layers=2, bidirectional=True), SEQUENCE),
    "gru": (lambda: Recurrent(nn.GRU), SEQUENCE),
    "attention": (lambda: Attention(fused=False), SEQUENCE),
    "fused attention": (lambda: Attention(fused=True), SEQUENCE),
    "transformer": (lambda: nn.TransformerEncoderLayer(6, 2, 8, batch_first=True), SEQUENCE),
    "shared": (Shared, VECTOR),
    "embedding behind": (Embedded, VECTOR),
    "always dropout": (lambda: Apply(lambda h: F.dropout(h, 0.5)), VECTOR),
    "control flow": (lambda: Apply(lambda h: h.sin() if h.sum() > 0 else h**3), VECTOR),
    "in place": (lambda: Apply(lambda h: h.add_(1).mul_(2).sin_()), VECTOR),
    "function with a rule": (lambda: Apply(Square.apply), VECTOR),
    "weight norm": (lambda: nn.utils.parametrizations.weight_norm(nn.Linear(6, 5)), VECTOR),
}  # fmt: skip


def build(make, dtype=torch.float64):
    torch.manual_seed(0)
    return make().to(dtype)


def inputs(shape, dtype=torch.float64):
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def by_hand(model, x):
    """Return the Jacobian at x as a matrix, by one call of autograd per output."""
    training = [m.training for m in model.modules()]
    model.eval()
    start = x.clone().requires_grad_()
    torch.manual_seed(0)
    output = model(start.clone()[None])
    output = output[0] if isinstance(output, tuple) else output
    rows = [torch.autograd.grad(o, start, retain_graph=True)[0] for o in output.reshape(-1)]
    for module, mode in zip(model.modules(), training, strict=True):
        module.training = mode
    return torch.stack(rows).reshape(len(rows), -1).double().numpy()


@contextmanager
def counted_passes(monkeypatch):
    """Count how often something goes back through a graph; many together count as one."""
    count = [0]
    carry_one = Passage.carry_one

    def counting(self, vector):
        count[0] += 1
        return carry_one(self, vector)

    with monkeypatch.context() as patch:
        patch.setattr(Passage, "carry_one", counting)
        yield count


@pytest.mark.parametrize("name", TOGETHER)
def test_rows_together_are_the_rows_one_by_one(name, monkeypatch):
    make, shape = TOGETHER[name]
    model, x = build(make), inputs(shape)
    expected = np.linalg.svd(by_hand(model, x), compute_uv=False)
    with counted_passes(monkeypatch) as count:
        found = jacobian_spectrum(model, x)
    assert count[0] <= 2  # and not one per output; two where there are many more outputs
    # The same operations in float64, on more rows at a time.
    np.testing.assert_allclose(found.singular_values, expected, atol=1e-13 * expected[0])
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("name", TOGETHER)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_in_other_precisions_too(name, dtype, monkeypatch):
    make, shape = TOGETHER[name]
    model, x = build(make, dtype), inputs(shape, dtype)
    matrix = by_hand(model, x)
    with counted_passes(monkeypatch) as count:
        found = jacobian_spectrum(model, x).singular_values
    assert count[0] <= 2
    # Each of a handful of operations rounds once; columns go through others than rows.
    off = 16 * torch.finfo(dtype).eps * np.linalg.norm(matrix)
    np.testing.assert_allclose(found, np.linalg.svd(matrix, compute_uv=False), atol=off)


@pytest.mark.parametrize("method", ["product", "randomized"])
@pytest.mark.parametrize("name", TOGETHER)
def test_the_other_methods_go_together_too(name, method, monkeypatch):
    make, shape = TOGETHER[name]
    model, x = nn.Sequential(build(make)), inputs(shape)
    matrix = by_hand(model, x)
    rank = min(matrix.shape)
    expected = np.linalg.svd(matrix, compute_uv=False)
    with counted_passes(monkeypatch) as count:
        found = jacobian_spectrum(model, x, method=method, rank=rank, iterations=2)
    # Twice there and back and there once more, and two passes to compare.
    assert count[0] <= (2 if method == "product" else 7)
    np.testing.assert_allclose(found.singular_values, expected, atol=1e-12 * expected[0])


class Steep(torch.autograd.Function):
    """Has no rule for many at once, and looks at the numbers that come."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**3

    @staticmethod
    def backward(ctx, gradient):
        assert gradient.detach().numpy().shape == gradient.shape
        return 3 * gradient * ctx.saved_tensors[0] ** 2


class Keeping(Steep):
    """Could take many at once, and would keep them."""

    kept: ClassVar[list] = []

    @staticmethod
    def backward(ctx, gradient):
        Keeping.kept.append(gradient.detach())
        return 3 * gradient * ctx.saved_tensors[0] ** 2


class Undeclared(Steep):
    """Says that there is a rule, and there is none."""

    generate_vmap_rule = True
    forward = staticmethod(lambda x: x**3)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)


class Clipping(torch.autograd.Function):
    """Goes back as no linear map does."""

    generate_vmap_rule = True
    forward = staticmethod(lambda x: x + 0)
    setup_context = staticmethod(lambda ctx, inputs, output: None)
    backward = staticmethod(lambda ctx, gradient: gradient.clamp(-0.5, 0.5))


class Listening(nn.Module):
    """Is shown, or keeps, the gradient at its first layer's output."""

    def __init__(self, how):
        super().__init__()
        self.a, self.b, self.how, self.seen = nn.Linear(6, 6), nn.Linear(6, 5), how, []

    def forward(self, x):
        h = torch.tanh(self.a(x))
        if self.how == "hook":
            h.register_hook(self.seen.append)
        elif self.how == "double":
            h.register_hook(lambda gradient: 2 * gradient)
        else:
            h.retain_grad()
            self.seen.append(h)
        return self.b(h)


def recomputed(h):
    """Draws random numbers where it is computed a second time, on the way back."""
    return checkpoint(lambda g: F.dropout(torch.tanh(g), 0.3), h, use_reentrant=False)


def tokens_first(norm):
    return lambda h: norm(h).flatten(2).transpose(1, 2)


ALONE = {
    "function without a rule": (lambda: Apply(Steep.apply), VECTOR),
    "function that keeps what it is given": (lambda: Apply(Keeping.apply), VECTOR),
    "function with a rule that fails": (lambda: Apply(Undeclared.apply), VECTOR),
    "function that is not linear backwards": (lambda: Apply(Clipping.apply), VECTOR),
    "hook": (lambda: Listening("hook"), VECTOR),
    "hook that changes": (lambda: Listening("double"), VECTOR),
    "kept gradient": (lambda: Listening("retain"), VECTOR),
    "random on the way back": (lambda: Apply(recomputed), VECTOR),
    "sparse": (lambda: Apply(lambda h: torch.sparse.mm(
        torch.eye(6, dtype=h.dtype).to_sparse(), h.mT).mT), VECTOR),
}  # fmt: skip


NO_PRODUCTS = ("function that is not linear backwards", "sparse")
"""Products with vectors are of another map, or go through what PyTorch has not."""


@pytest.mark.parametrize(("name", "method"), [
    (name, method) for name in ALONE for method in ("exact", "product", "randomized")
    if method != "randomized" or name not in NO_PRODUCTS
])  # fmt: skip
def test_what_cannot_go_together_goes_alone(name, method):
    make, shape = ALONE[name]
    model, x = nn.Sequential(build(make)), inputs(shape)
    expected = np.linalg.svd(by_hand(model, x), compute_uv=False)
    before = torch.get_rng_state()
    Keeping.kept.clear()
    found = jacobian_spectrum(model, x, method=method, rank=6, iterations=2).singular_values
    np.testing.assert_allclose(found, expected, atol=1e-12 * expected[0])
    assert torch.equal(torch.get_rng_state(), before)
    for kept in [*getattr(model[0], "seen", ()), *Keeping.kept]:
        gradient = kept.grad if name == "kept gradient" else kept
        assert not torch._C._functorch.is_batchedtensor(gradient)
        assert gradient.shape == (1, 6)


RULES_IN_DOUBT = {
    # Wrong by as much as they are large in torch 2.13's vmap, and so in its `jacrev`.
    "cdist": (lambda: Apply(lambda h: torch.cdist(h[:, :, None], h[:, :, None] + 1)), VECTOR),
    "batch norm, channels last": (lambda: nn.Sequential(
        trained(nn.BatchNorm2d(2), (2, 6, 6)), Apply(lambda h: h.flatten(2).mT)), IMAGE),
}  # fmt: skip


@pytest.mark.parametrize("name", RULES_IN_DOUBT)
def test_where_the_framework_mixes_up_rows_it_is_noticed(name):
    make, shape = RULES_IN_DOUBT[name]
    model, x = build(make), inputs(shape)
    expected = np.linalg.svd(by_hand(model, x), compute_uv=False)
    found = jacobian_spectrum(model, x).singular_values
    np.testing.assert_allclose(found, expected, atol=1e-12 * expected[0])


@pytest.mark.parametrize("method", ["exact", "product", "randomized"])
def test_whatever_is_mixed_up_is_noticed(method, monkeypatch):
    carry = Passage._carry_block

    def mixing_up(self, block):
        found = carry(self, block)
        return found.cumsum(0) if self.together else found

    model, x = nn.Sequential(build(TOGETHER["linear"][0])), inputs(VECTOR)
    expected = np.linalg.svd(by_hand(model, x), compute_uv=False)
    monkeypatch.setattr(Passage, "_carry_block", mixing_up)
    found = jacobian_spectrum(model, x, method=method, rank=6, iterations=2).singular_values
    np.testing.assert_allclose(found, expected, atol=1e-12 * expected[0])


@pytest.mark.parametrize("register", ["register_full_backward_hook", "register_backward_hook"])
def test_hooks_of_modules_are_shown_one_gradient_at_a_time(register):
    model, x, seen = build(TOGETHER["linear"][0]), inputs(VECTOR), []
    getattr(model[1], register)(lambda module, given, gradients: seen.append(gradients[0]))
    jacobian_spectrum(model, x)
    assert len(seen) > 4  # outputs, and the check of the path
    assert not any(torch._C._functorch.is_batchedtensor(gradient) for gradient in seen)


def test_a_monitor_is_shown_one_gradient_at_a_time():
    model, x = build(lambda: nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))), VECTOR
    rule = torch.optim.SGD(model.parameters(), lr=0.1)
    with GradientFlowMonitor(model, optimizer=rule, every=1) as monitor:
        model(inputs((4, 6))).square().sum().backward()
        jacobian_spectrum(model, inputs(x))
        rule.step()
    assert not monitor.record.nonfinite
    assert monitor.record.steps.tolist() == [0]


def test_methods_of_tensors_are_as_they_were():
    before = [vars(torch.Tensor).get(name) for name in ("register_hook", "retain_grad")]
    jacobian_spectrum(build(TOGETHER["linear"][0]), inputs(VECTOR))
    with pytest.raises(ValueError, match="`x` must be what `model` can be called on"):
        jacobian_spectrum(build(TOGETHER["linear"][0]), inputs((4,)))
    assert [vars(torch.Tensor).get(name) for name in ("register_hook", "retain_grad")] == before


@pytest.mark.parametrize("fused", [False, True])
def test_of_many_outputs_and_few_inputs_the_inputs_are_gone_through(fused, monkeypatch):
    class Wide(Attention):
        def forward(self, x):
            return F.linear(super().forward(x).flatten(1), torch.ones(600, 30).cos().to(x.dtype))

    model, x = build(lambda: Wide(fused)), inputs(SEQUENCE)
    sizes = []
    carry = Passage._carry_block

    def noting(self, block):
        sizes.append(tuple(block.shape))
        return carry(self, block)

    expected = np.linalg.svd(by_hand(model, x), compute_uv=False)
    monkeypatch.setattr(Passage, "_carry_block", noting)
    found = jacobian_spectrum(model, x)
    assert sizes == [(30, 30)]
    assert found.shape == (600, 30)
    np.testing.assert_allclose(found.singular_values, expected, atol=1e-12 * expected[0])


def test_what_is_on_its_way_is_bounded():
    model = nn.Sequential(nn.Linear(4, 1000), nn.ReLU(), nn.Linear(1000, 300))
    output = model((start := torch.ones(4, requires_grad=True))[None])
    passage = Passage(output, start, together=True)
    each = 4 * (300 + 1000 + 1000 + 4 + 4)  # weights do not count, nor what leads to them alone
    assert passage.together
    assert each * passage.count <= AT_ONCE < 1.1 * each * passage.count
    wide = torch.ones(AT_ONCE // 8, requires_grad=True)
    assert not Passage(wide * 2 + 1, wide, together=True).together


MEMORY = """
import resource, torch
from torch import nn
from course_lib.pytorch import jacobian_spectrum

class Broad(nn.Module):
    def forward(self, x):
        h = torch.sin(x.repeat(1, 1 << 13))  # a million numbers
        return h.unflatten(1, (1 << 13, 128)).mean(1)

torch.set_num_threads(1)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
jacobian_spectrum(Broad(), torch.linspace(0, 1, 128))
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) >> 10)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Counts in KB on Linux.")
def test_large_activations_are_not_held_for_all_rows():
    """For 128 rows it would be half a gigabyte for each operation."""
    command = [sys.executable, "-c", MEMORY]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    assert int(run.stdout) < 400
