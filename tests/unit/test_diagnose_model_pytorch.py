"""`diagnose_model` on models of every shape: right finding, right place, nothing touched."""

import copy
import random
import threading
from itertools import pairwise

import numpy as np
import pytest

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402
from torch.utils.checkpoint import checkpoint  # noqa: E402

from course_lib.monitoring import FlowRecord  # noqa: E402
from course_lib.pytorch import GradientFlowMonitor, diagnose_model  # noqa: E402
from course_lib.pytorch.norms import distances64, norm64, norms64  # noqa: E402

RNG = np.random.default_rng(0)
X = torch.tensor(RNG.normal(size=(32, 16)), dtype=torch.float32)
Y = torch.arange(32) % 4
TOKENS = torch.tensor(RNG.integers(50, size=(8, 12)))
LOSS = F.cross_entropy


def perceptron(depth=6, activation=nn.ReLU, width=32):
    torch.manual_seed(0)
    sizes = [16, *[width] * depth]
    parts = []
    for a, b in pairwise(sizes):
        linear = nn.Linear(a, b)
        nn.init.kaiming_normal_(linear.weight)
        parts += [linear, activation()]
    return nn.Sequential(*parts, nn.Linear(width, 4))


class Attention(nn.Module):
    """Self-attention as most packages write it, with the fused function."""

    def __init__(self, sharp=1.0, *, dropout=0.0):
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.qkv = nn.Embedding(50, 16), nn.Linear(16, 48)
        self.out, self.head, self.dropout = nn.Linear(16, 16), nn.Linear(16, 4), dropout
        with torch.no_grad():
            self.qkv.weight[:32] *= sharp

    def forward(self, x):
        parts = self.qkv(self.embed(x)).view(len(x), -1, 3, 2, 8).permute(2, 0, 3, 1, 4)
        h = F.scaled_dot_product_attention(*parts, dropout_p=self.dropout)
        return self.head(self.out(h.transpose(1, 2).flatten(2)).mean(1))


class Sequence(nn.Module):
    def __init__(self, body):
        super().__init__()
        self.embed, self.body, self.head = nn.Embedding(50, 8), body, nn.Linear(8, 4)

    def forward(self, x):
        return self.head(self.body(self.embed(x))[0].mean(1))


class Cut(nn.Module):
    """The first layer runs where no gradient reaches it: detached, or without a graph."""

    def __init__(self, how):
        super().__init__()
        self.early, self.late, self.how = nn.Linear(16, 16), nn.Linear(16, 4), how

    def forward(self, x):
        with torch.set_grad_enabled(self.how != "no_grad"):
            h = self.early(x)
        return self.late(F.relu(h.detach() if self.how == "detach" else h))


class Nested(nn.Module):
    """Takes a dict by keyword and returns its own loss, deep inside."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(16, 4)

    def forward(self, values, labels=None):
        logits = self.layer(values)
        found = {"classes": logits.argmax(1), "deep": [{"logits": logits}]}
        return found if labels is None else {**found, "loss": LOSS(logits, labels)}


class Checkpointed(nn.Module):
    def __init__(self, reentrant):
        super().__init__()
        torch.manual_seed(0)
        self.a = nn.Sequential(nn.Linear(16, 16), nn.GELU(), nn.Linear(16, 16))
        self.b, self.head, self.reentrant = nn.Linear(16, 16), nn.Linear(16, 4), reentrant

    def forward(self, x):
        h = checkpoint(self.a, x, use_reentrant=self.reentrant)
        h = checkpoint(lambda v: F.silu(self.b(v)), h, use_reentrant=self.reentrant)
        return self.head(h)


def changed(model, change):
    with torch.no_grad():
        change(model)
    return model


def forget(model):
    for name, p in model.body.named_parameters():
        if "bias" in name:
            p[8:16] = -10.0


def worst(report):
    return report.findings[0].severity, report.findings[0].code, report.findings[0].where


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (perceptron(), X), (perceptron(4, nn.Hardswish), X), (perceptron(4, nn.Mish), X),
        (perceptron(4, nn.SELU), X), (Attention(), TOKENS), (Attention(dropout=0.1), TOKENS),
        (Sequence(nn.LSTM(8, 8, batch_first=True)), TOKENS),
        (Sequence(nn.RNN(8, 4, batch_first=True, bidirectional=True)), TOKENS),
        (nn.Sequential(nn.LazyLinear(16), nn.ReLU(), nn.LazyLinear(4)), X),
        (nn.DataParallel(perceptron(2)), X), (Checkpointed(False), X),
        (Checkpointed(True), X.clone().requires_grad_()), (perceptron(3).double(), X.double()),
    ],
)  # fmt: skip
def test_healthy_models_of_every_kind_raise_no_alarm(model, x):
    report = diagnose_model(model, x, Y[: len(x)], loss=LOSS, steps=4)
    assert [f for f in report.findings if f.severity != "info"] == []
    assert report.subjects[0].startswith(f"Trained {type(model).__name__} (")
    assert isinstance(report.results[0], FlowRecord)


@pytest.mark.parametrize(
    ("model", "x", "expected"),
    [
        (changed(perceptron(), lambda m: m[4].bias.fill_(-10)), X, ("problem", "dead_units", "5")),
        (changed(perceptron(4, nn.Hardswish), lambda m: m[2].bias.fill_(-50)), X,
         ("problem", "dead_units", "3")),
        (changed(perceptron(), lambda m: m[6].weight[0, 0].fill_(torch.nan)), X,
         ("problem", "non_finite", "6, step 0")),
        (Cut("detach"), X, ("problem", "no_gradient", "early.weight")),
        (Cut("no_grad"), X, ("problem", "no_gradient", "early.weight")),
        (perceptron(), 255 * X.abs(), ("warning", "large_inputs", "0")),
        (Attention(100.0), TOKENS, ("problem", "rescaled_layer", "qkv")),
        (Attention(100.0, dropout=0.1), TOKENS, ("problem", "rescaled_layer", "qkv")),
        (changed(Sequence(nn.LSTM(8, 8, batch_first=True)), forget), TOKENS,
         ("problem", "vanishing_over_time", "body, lstm, time steps")),
        (perceptron(12, nn.Sigmoid), X, ("problem", "vanishing_gradient", "24 to 0")),
    ],
)  # fmt: skip
def test_what_is_broken_comes_first_and_in_its_place(model, x, expected):
    assert worst(diagnose_model(model, x, Y[: len(x)], loss=LOSS, steps=4)) == expected


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_attention_that_has_settled_is_named_behind_the_matrix_that_did_it(dropout):
    report = diagnose_model(Attention(100.0, dropout=dropout), TOKENS, Y[:8], loss=LOSS, steps=4)
    cause, effect = report.problems[:2]
    assert (cause.code, cause.where) == ("rescaled_layer", "qkv")
    assert (effect.code, effect.where) == ("saturated_attention", "out.input (softmax)")


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_attention_of_torch_itself_is_seen(dropout):
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=dropout, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2)
    with torch.no_grad():
        encoder.layers[1].self_attn.in_proj_weight[:32] *= 100
    x = torch.tensor(RNG.normal(size=(8, 6, 16)), dtype=torch.float32)
    report = diagnose_model(nn.Sequential(encoder, nn.Flatten(), nn.Linear(96, 4)), x, Y[:8],
                            loss=LOSS, steps=3)  # fmt: skip
    assert worst(report) == ("problem", "saturated_attention", "0.layers.1.self_attn (softmax)")
    assert report.results[0].activations.count("softmax") == 2


@pytest.mark.parametrize("fault", ["input", "weight", "overflow"])
def test_what_is_not_finite_before_or_inside_a_recurrent_layer_is_named(fault):
    torch.manual_seed(0)
    body = nn.RNN(8, 8, 2, nonlinearity="relu", batch_first=True)
    model = Sequence(body)
    with torch.no_grad():
        if fault == "input":
            model.embed.weight[TOKENS[0, 3]] = torch.nan
        elif fault == "weight":
            body.weight_ih_l0[0, 0] = torch.nan
        else:
            body.weight_hh_l0 *= 1e6
    first = diagnose_model(model, TOKENS, Y[:8], loss=LOSS, steps=2).findings[0]
    assert (first.code, first.where.split(",")[0]) == (
        "non_finite", "embed" if fault == "input" else "body")  # fmt: skip


def test_a_fault_is_not_reported_by_its_consequences():
    model = changed(perceptron(), lambda m: m[6].weight[0, 0].fill_(torch.nan))
    assert diagnose_model(model, X, Y, loss=LOSS).codes == ("non_finite",)
    model = changed(perceptron(), lambda m: m[4].bias.fill_(-10))
    found = {f.code: f.severity for f in diagnose_model(model, X, Y, loss=LOSS, steps=4).findings}
    assert found["zero_gradient"] == "info"  # behind a dead layer nothing else can be
    assert "no_gradient" not in found


def test_a_learning_rate_a_thousand_times_too_large():
    report = diagnose_model(perceptron(), X, Y, loss=LOSS, learning_rate=1.0, steps=4)
    assert "large_update" in [f.code for f in report.problems]


def test_the_reader_s_things_are_as_they_were():
    model = nn.Sequential(nn.Linear(16, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 4))
    rule = torch.optim.Adam(model.parameters())
    LOSS(model(X), Y).backward()
    rule.step()
    model.eval()
    kept = copy.deepcopy((model.state_dict(), rule.state_dict()["state"]))
    grads = [p.grad.clone() for p in model.parameters()]
    x, states = X.clone(), (torch.get_rng_state(), np.random.get_state(), random.getstate())  # noqa: NPY002
    with torch.no_grad():
        first = diagnose_model(model, x, Y, loss=LOSS, optimizer=rule, steps=3)
    torch.manual_seed(7)
    again = diagnose_model(model, x, Y, loss=LOSS, optimizer=rule, steps=3)
    assert str(first) == str(again)  # dropout is drawn from `seed`
    torch.set_rng_state(states[0])
    assert not any(m.training for m in model.modules())
    for a, b in zip(kept[0].values(), model.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for k, old in kept[1].items():
        assert all(torch.equal(v, rule.state[list(model.parameters())[k]][n])
                   for n, v in old.items())  # fmt: skip
    assert all(torch.equal(a, p.grad) for a, p in zip(grads, model.parameters(), strict=True))
    assert torch.equal(x, X)
    assert np.array_equal(states[1][1], np.random.get_state()[1])  # noqa: NPY002
    assert states[2] == random.getstate()


def test_batches_in_every_form_give_the_same():
    expected = diagnose_model(perceptron(), X, Y, loss=LOSS, steps=3)
    pairs = [(X, Y)]
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(X, Y), batch_size=32)
    for inputs in (pairs, iter(pairs), loader):
        assert str(diagnose_model(perceptron(), inputs, loss=LOSS, steps=3)) == str(expected)
    given = (X.numpy().astype(float), Y.numpy())
    assert str(diagnose_model(perceptron(), *given, loss=LOSS, steps=3)) == str(expected)
    assert str(diagnose_model(perceptron(), (X,), Y, loss=LOSS, steps=3)) == str(expected)
    own = diagnose_model(Nested(), {"values": X, "labels": Y}, steps=3)
    assert "loss" in own.subjects[0]
    deep = diagnose_model(Nested(), {"values": X}, Y, steps=3,
                          loss=lambda out, y: LOSS(out["deep"][0]["logits"], y))  # fmt: skip
    assert deep.results[0].layers == ("layer",)


def test_rules_of_every_form():
    model = perceptron()
    for optimizer in (torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.LBFGS,
                      lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)):  # fmt: skip
        report = diagnose_model(model, X, Y, loss=LOSS, optimizer=optimizer, steps=2)
        assert np.all(report.results[0].update_ratios > 0)
    report = diagnose_model(model, X, Y, loss=LOSS, learning_rate=0.25)
    assert "Adam at learning rate 0.25" in report.subjects[0]


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        (dict(model="x"), TypeError, "`model`"),
        (dict(model=nn.ReLU()), ValueError, "`model`"),
        (dict(inputs=3), TypeError, "`inputs`"), (dict(inputs=[], targets=None), ValueError,
                                                  "`inputs`"),
        (dict(inputs=X[:0], targets=Y[:0]), ValueError, "`inputs` \\(an empty batch\\)"),
        (dict(loss="mse"), TypeError, "`loss`"), (dict(loss=None), ValueError, "`loss`"),
        (dict(loss=lambda out, y: out), ValueError, "`loss`"),
        (dict(optimizer="adam"), TypeError, "`optimizer`"),
        (dict(optimizer=torch.optim.SGD(nn.Linear(2, 2).parameters())), ValueError, "`optimizer`"),
        (dict(learning_rate=0.0), ValueError, "`learning_rate`"),
        (dict(steps=0), ValueError, "`steps`"), (dict(every=0), ValueError, "`every`"),
        (dict(share=2.0), ValueError, "`share`"), (dict(seed=-1), ValueError, "`seed`"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(arguments, error, words):
    good = dict(model=perceptron(2), inputs=X, targets=Y, loss=LOSS)
    with pytest.raises(error, match=words):
        diagnose_model(**{**good, **arguments})


def test_a_model_that_cannot_be_copied_is_refused():
    model = perceptron(2)
    model.lock = threading.Lock()
    with pytest.raises(TypeError, match="copy"):
        diagnose_model(model, X, Y, loss=LOSS)


def test_tensors_with_a_history_that_a_module_keeps_are_no_hindrance():
    model = perceptron(2)
    model.cache = model[0](X)
    model[2].state = (model.cache + 1, {"last": model.cache * 2})
    kept = model.cache
    assert diagnose_model(model, X, Y, loss=LOSS, steps=2).findings == ()
    assert model.cache is kept
    assert kept.grad_fn is not None


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1.0, 1e25])
def test_norms_of_many_tensors_are_those_of_float64(size):
    shapes = [(3,), (40, 30), (600, 700), (2, 5), (1100,)]
    a = [torch.tensor(size * RNG.normal(size=s), dtype=torch.float32) for s in shapes]
    a += [a[1].t(), a[0].double(), a[1].to_sparse(), torch.zeros(2000), torch.zeros(0)]
    expected = [t.to_dense().double().norm().item() for t in a]
    np.testing.assert_allclose([float(n) for n in norms64(a)], expected, rtol=1e-6)
    np.testing.assert_allclose([float(norm64(t)) for t in a], expected, rtol=1e-6)
    dense = [t.clone() for t in a if not t.is_sparse]
    b = [t * 1.5 for t in dense]
    expected = [(u.double() - t.double()).norm().item() for t, u in zip(dense, b, strict=True)]
    # The difference of two float32 numbers of one size is exact, so nothing is lost in it.
    np.testing.assert_allclose([float(n) for n in distances64(dense, b)], expected, rtol=1e-6)


def test_what_is_overwritten_in_place_is_measured_before():
    class InPlace(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(16, 16), nn.Linear(16, 4)

        def forward(self, x):
            h = self.a(x)
            h += 1.0
            return self.b(torch.tanh_(h))

    torch.manual_seed(0)
    model = InPlace()
    size = model.a(X).square().mean().sqrt().item()
    rule = torch.optim.SGD(model.parameters(), lr=0.0)
    with GradientFlowMonitor(model, every=1) as monitor:
        for _ in range(4):
            LOSS(model(X), Y).backward()
            rule.step()
    np.testing.assert_allclose(monitor.record.activation_scales[:, 0], size, rtol=1e-5)
    assert "b.input (tanh)" in monitor.record.layers


def test_the_update_that_plain_sgd_tells_is_the_one_that_it_makes():
    for momentum, decay in ((0.0, 0.0), (0.9, 0.0), (0.9, 1e-2), (0.0, 1e-2)):
        model = perceptron(3)
        rule = torch.optim.SGD(model.parameters(), lr=0.1, momentum=momentum, weight_decay=decay)
        moved = []
        with GradientFlowMonitor(model, every=1) as monitor:
            for _ in range(3):
                rule.zero_grad()
                LOSS(model(X), Y).backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                before = [p.detach().clone() for p in model.parameters()]
                rule.step()
                pairs = zip(model.parameters(), before, strict=True)
                moved.append([((p - b).norm() / b.norm()).item() for p, b in pairs])
        known = np.isfinite(monitor.record.update_ratios)
        np.testing.assert_allclose(
            monitor.record.update_ratios[known], np.array(moved)[known], rtol=1e-3
        )


def test_functional_calls_and_transforms_do_not_disturb():
    model = perceptron(2)
    parameters = {n: p.detach() for n, p in model.named_parameters()}

    def loss(p, x, y):
        return LOSS(torch.func.functional_call(model, p, (x,)), y)

    with GradientFlowMonitor(model, optimizer=False, every=1) as monitor:
        torch.func.grad(loss)(parameters, X, Y)
        torch.func.vmap(torch.func.grad(loss), in_dims=(None, 0, 0))(
            parameters, X[:, None], Y[:, None]
        )
        monitor.step()
    assert len(monitor.record) == 1
