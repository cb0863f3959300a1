"""A softmax or a sigmoid in front of a loss that applies one itself, and what looks like it."""

import warnings

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from keras import layers  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis.outputs import (  # noqa: E402
    distribution_axis,
    softmax,
    takes_sigmoid,
    takes_softmax,
)
from course_lib.pytorch import diagnose_model as diagnose_pytorch  # noqa: E402
from course_lib.tf import diagnose_model as diagnose_keras  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 8)).astype("float32"), np.arange(32) % 4
MANY = (X[:, :4] > 0).astype("float32")
FLOOR = np.log(1 + 3 / np.e)  # four classes


def told(report):
    return [(f.severity, f.where, round(f.value, 6)) for f in report.findings
            if f.code == "activation_twice"]  # fmt: skip


def alarms(report):
    return [f.code for f in report.findings if f.severity != "info"]


# The bound ---------------------------------------------------------------------------------


def test_no_loss_below_the_floor_can_be_reached():
    logits = torch.full((1, 4), -1e4)
    logits[0, 2] = 1e4
    loss = F.cross_entropy(logits.softmax(1), torch.tensor([2]))
    assert loss.item() == pytest.approx(FLOOR, rel=1e-6)
    loss = F.binary_cross_entropy_with_logits(logits.sigmoid()[:, :1], torch.zeros(1, 1))
    assert loss.item() == pytest.approx(np.log(2), rel=1e-6)


def test_the_gradient_at_the_start_is_as_many_times_smaller_as_there_are_classes():
    z, y = torch.zeros(1, 10, requires_grad=True), torch.tensor([3])
    (once,) = torch.autograd.grad(F.cross_entropy(z, y), z)
    (twice,) = torch.autograd.grad(F.cross_entropy(z.softmax(1), y), z)
    torch.testing.assert_close(10 * twice, once)


# What a loss does with its argument --------------------------------------------------------


def gradient_of(loss):
    def gradient(values):
        o = torch.tensor(values, requires_grad=True)
        return torch.autograd.grad(loss(o), o)[0].numpy()

    return gradient


LABELS, SOFT = torch.from_numpy(Y[:6]), torch.from_numpy(softmax(RNG.normal(size=(6, 4)), 1))
SOME = torch.from_numpy(MANY[:6]).double()
WEIGHTS = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
TAKES_SOFTMAX = (
    lambda o: F.cross_entropy(o, LABELS), lambda o: F.cross_entropy(o, LABELS, reduction="sum"),
    lambda o: F.cross_entropy(o, LABELS, weight=WEIGHTS, label_smoothing=0.1),
    lambda o: F.cross_entropy(o, LABELS, ignore_index=1), lambda o: F.cross_entropy(o, SOFT),
    lambda o: F.kl_div(o.log_softmax(1), SOFT, reduction="batchmean"),
    lambda o: F.nll_loss(o.log_softmax(1), LABELS),
)  # fmt: skip
TAKES_SIGMOID = (
    lambda o: F.binary_cross_entropy_with_logits(o, SOME),
    lambda o: F.binary_cross_entropy_with_logits(o, SOME, pos_weight=WEIGHTS, weight=WEIGHTS),
    lambda o: F.soft_margin_loss(o, 2 * SOME - 1), lambda o: F.multilabel_soft_margin_loss(o, SOME),
)  # fmt: skip
TAKES_NEITHER = (
    lambda o: F.mse_loss(o, SOFT), lambda o: F.l1_loss(o, SOFT), lambda o: F.huber_loss(o, SOFT),
    lambda o: F.multi_margin_loss(o, LABELS), lambda o: F.nll_loss(o, LABELS),
    lambda o: F.mse_loss(o.softmax(1), SOFT), lambda o: F.mse_loss(o.sigmoid(), SOME),
    lambda o: F.cross_entropy(o / 0.1, LABELS), lambda o: (o * SOFT).sum(), lambda o: 0 * o.sum(),
    lambda o: -(o.clamp(1e-7, 1 - 1e-7).log() * SOFT).sum(), lambda o: o.abs().exp().sum(),
    lambda o: F.poisson_nll_loss(o, SOME), lambda o: F.cosine_similarity(o, SOFT).sum(),
    lambda o: F.triplet_margin_loss(o[:2], o[2:4], o[4:]),
)  # fmt: skip


@pytest.mark.parametrize("loss", TAKES_SOFTMAX)
def test_losses_that_apply_softmax(loss):
    assert takes_softmax(gradient_of(loss), (6, 4), 1)
    assert not takes_sigmoid(gradient_of(loss), (6, 4))


@pytest.mark.parametrize("loss", TAKES_SIGMOID)
def test_losses_that_apply_a_sigmoid(loss):
    assert takes_sigmoid(gradient_of(loss), (6, 4))
    assert not takes_softmax(gradient_of(loss), (6, 4), 1)


@pytest.mark.parametrize("loss", TAKES_NEITHER)
def test_losses_that_apply_neither(loss):
    assert not takes_softmax(gradient_of(loss), (6, 4), 1)
    assert not takes_sigmoid(gradient_of(loss), (6, 4))


def test_two_classes_and_losses_that_refuse():
    pair, labels = (6, 2), LABELS % 2
    assert takes_softmax(gradient_of(lambda o: F.cross_entropy(o, labels)), pair, 1)
    assert not takes_softmax(gradient_of(lambda o: F.multi_margin_loss(o, labels)), pair, 1)
    assert not takes_softmax(lambda values: None, pair, 1)
    assert not takes_sigmoid(lambda values: np.full(pair, np.nan), pair)


def test_what_counts_as_a_distribution():
    rows = softmax(RNG.normal(size=(5, 3, 7)), 2)
    assert distribution_axis(rows) == 2
    assert distribution_axis(np.moveaxis(rows, 2, 1)) == 1
    for other in (rows - 0.2, 1.1 * rows, rows[..., :-1], rows[0, 0], rows * np.nan,
                  np.ones((4, 1))):  # fmt: skip
        assert distribution_axis(other) is None


# Whole models ------------------------------------------------------------------------------


def report_pytorch(*tail, loss, targets=Y, dtype=torch.float32):
    torch.manual_seed(0)
    parts = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4)
    targets = torch.from_numpy(targets)
    return diagnose_pytorch(nn.Sequential(*parts, *tail).to(dtype), torch.from_numpy(X).to(dtype),
                            targets, loss=loss, steps=3)  # fmt: skip


class Probabilities(nn.Module):
    def forward(self, h):
        return torch.softmax(h, 1)


@pytest.mark.parametrize("tail", [nn.Softmax(1), Probabilities(), nn.Sigmoid()])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_in_front_of_cross_entropy_in_pytorch(tail, dtype):
    report = report_pytorch(tail, loss=F.cross_entropy, dtype=dtype)
    ((severity, where, value),) = told(report)
    assert (severity, value) == ("problem", pytest.approx(FLOOR, abs=1e-6))
    assert where.startswith("3")
    assert report.findings[0].code == "activation_twice"


def test_in_front_of_binary_cross_entropy_in_pytorch():
    loss = F.binary_cross_entropy_with_logits
    assert [s for s, _, _ in told(report_pytorch(nn.Sigmoid(), loss=loss, targets=MANY))] == [
        "problem"]  # fmt: skip
    flat = lambda o, y: loss(o[:, 0], y[:, 0])  # noqa: E731
    assert len(told(report_pytorch(nn.Sigmoid(), loss=flat, targets=MANY))) == 1
    one = nn.Sequential(nn.Sigmoid(), nn.Linear(4, 1), nn.Sigmoid(), nn.Flatten(0))
    assert len(told(report_pytorch(one, loss=loss, targets=MANY[:, 0]))) == 1


@pytest.mark.parametrize(
    ("tail", "loss", "targets"),
    [
        ((), F.cross_entropy, Y), ((nn.LogSoftmax(1),), F.nll_loss, Y),
        ((nn.LogSoftmax(1),), F.cross_entropy, Y),  # harmless: softmax takes the logarithm back
        ((nn.Softmax(1),), lambda o, y: F.nll_loss(o.log(), y), Y),
        ((nn.Softmax(1),), F.mse_loss, MANY), ((nn.Sigmoid(),), F.binary_cross_entropy, MANY),
        ((nn.Sigmoid(),), F.mse_loss, MANY), ((), F.binary_cross_entropy_with_logits, MANY),
        ((nn.Tanh(),), F.mse_loss, MANY),
    ],
)  # fmt: skip
def test_sound_pairs_of_output_and_loss_in_pytorch(tail, loss, targets):
    report = report_pytorch(*tail, loss=loss, targets=targets)
    assert told(report) == []
    assert alarms(report) == []


def report_keras(*tail, loss, targets=Y, compiled=False):
    keras.utils.set_random_seed(0)
    ends = [layers.Activation(t, name="end") if isinstance(t, str) else t for t in tail]
    model = keras.Sequential([layers.Input((8,)), layers.Dense(16, "relu"), layers.Dense(4), *ends])
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*does not represent logits")
        if not compiled:
            return diagnose_keras(model, X, targets, loss=loss, steps=2)
        model.compile("adam", loss)
        return diagnose_keras(model, X, targets, steps=2)


def raw_softmax(o, y):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(y, o))


def raw_sigmoid(o, y):
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(y, o))


LOGITS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def test_in_front_of_a_loss_of_logits_in_keras():
    floor = round(FLOOR, 6)
    assert told(report_keras("softmax", loss=raw_softmax)) == [("problem", "end", floor)]
    reshaped = report_keras("softmax", layers.Reshape((4,)), loss=LOGITS, compiled=True)
    assert told(reshaped) == [("problem", "end", floor)]
    assert told(report_keras("sigmoid", loss=raw_sigmoid, targets=MANY)) == [
        ("problem", "end", round(np.log(2), 6))]  # fmt: skip


def test_where_keras_takes_the_logits_behind_the_softmax_it_is_a_note():
    for compiled in (False, True):
        report = report_keras("softmax", loss=LOGITS, compiled=compiled)
        assert told(report) == [("info", "end", round(FLOOR, 6))]
        assert alarms(report) == []


@pytest.mark.parametrize(
    ("tail", "loss", "targets"),
    [
        ((), LOGITS, Y), (("softmax",), "sparse_categorical_crossentropy", Y),
        (("softmax",), "kl_divergence", np.eye(4, dtype="float32")[Y]),
        (("softmax",), "mse", MANY), (("sigmoid",), "binary_crossentropy", MANY),
        (("sigmoid",), "mse", MANY), ((), raw_sigmoid, MANY),
        (("log_softmax",), raw_softmax, Y),
    ],
)  # fmt: skip
def test_sound_pairs_of_output_and_loss_in_keras(tail, loss, targets):
    report = report_keras(*tail, loss=loss, targets=targets)
    assert told(report) == []
    assert alarms(report) == []


def test_of_many_rows_some_made_up_ones_are_alike_by_chance():
    labels = RNG.integers(0, 2, size=(2, 64, 64))

    def gradient(values):
        return (softmax(values, 1) - (labels[:, None] == np.arange(2)[:, None, None])) / labels.size

    assert takes_softmax(gradient, (2, 2, 64, 64), 1)
    assert not takes_softmax(gradient, (2, 2, 64, 64), 3)
