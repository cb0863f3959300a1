"""A minus too many, one too few, or an optimizer that climbs: named, and nothing sound with it."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from keras import layers  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis.direction import check_direction, loss_sign, uphill  # noqa: E402
from course_lib.pytorch import diagnose_model as diagnose_pytorch  # noqa: E402
from course_lib.tf import diagnose_model as diagnose_keras  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 8)).astype("float32"), np.arange(32) % 4
LABELS, REAL = torch.from_numpy(Y), torch.from_numpy(RNG.normal(size=(32, 4)))
SIGNS = torch.tensor([1.0, -1.0]).repeat(16)


def smallest_distance(o):
    d = (o[:, None] - o[None]).square().sum(-1)
    return d.mean() + (1 - d).relu().mean()


LOSSES = {
    "cross-entropy": (lambda o: F.cross_entropy(o, LABELS), 1),
    "with smoothing": (lambda o: F.cross_entropy(o, LABELS, label_smoothing=0.1), 1),
    "two of four outputs": (lambda o: F.cross_entropy(o[:, :2], LABELS % 2), 0),
    "logistic": (lambda o: F.binary_cross_entropy_with_logits(o, REAL.gt(0).to(o)), 1),
    "squares": (lambda o: F.mse_loss(o, REAL.to(o)), 1),
    "squares, far away": (lambda o: F.mse_loss(o, 500 + REAL.to(o)), 1),
    "absolute values": (lambda o: F.l1_loss(o, REAL.to(o)), 1),
    "absolute values, far away": (lambda o: F.l1_loss(o, 500 + REAL.to(o)), 1),
    "Huber": (lambda o: F.smooth_l1_loss(o, REAL.to(o)), 1),
    "one column": (lambda o: (o[:, 0] - 3).square().mean(), 1),
    "a critic": (lambda o: (SIGNS[:, None].to(o) * o).mean(), 0),
    "a policy": (lambda o: (SIGNS.to(o) * F.cross_entropy(o, LABELS, reduction="none")).mean(), 0),
    "cosines": (lambda o: -F.cosine_similarity(o, REAL.to(o)).mean(), 0),
    "distances": (smallest_distance, 0),
    "bounded": (lambda o: (1 - torch.exp(-(o - REAL.to(o)).square())).mean(), 0),
    "hinge": (lambda o: (1 - SIGNS[:, None].to(o) * o).relu().mean(), 1),
}


def gradient_of(loss, sign=1):
    def gradient(values):
        made = torch.tensor(values, requires_grad=True)
        return sign * torch.autograd.grad(loss(made), made)[0].numpy()

    return gradient


@pytest.mark.parametrize("turned", [1, -1])
@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_shows_its_sign_or_nothing(name, turned):
    loss, wanted = LOSSES[name]
    assert loss_sign(gradient_of(loss, turned), (32, 4)) == turned * wanted


def test_a_step_that_climbs_has_a_positive_cosine():
    steps = [RNG.normal(size=(3, 4)), RNG.normal(size=5)]
    assert uphill([(s, 7 * s) for s in steps]) == pytest.approx(1)
    assert uphill([(s, -s) for s in steps]) == pytest.approx(-1)
    assert np.isnan(uphill([(0 * s, s) for s in steps]))


@pytest.mark.parametrize(
    ("sign", "cosine", "asked", "severity"),
    [(1, -0.5, False, None), (1, np.nan, False, None), (1, 0.001, False, None),
     (1, 0.07, False, "problem"),
     (1, 0.5, True, "problem"), (-1, -0.5, False, "problem"), (-1, np.nan, False, "problem"),
     (-1, 0.5, True, None), (0, -0.5, False, None), (0, 0.5, True, None),
     (0, 0.5, False, "warning")],
)  # fmt: skip
def test_the_sign_of_the_loss_and_of_the_step_are_judged_together(sign, cosine, asked, severity):
    found = check_direction(sign, cosine, asked=asked)
    assert [f.severity for f in found] == ([severity] if severity else [])


# Models ------------------------------------------------------------------------------------


def told(report):
    return [(f.severity, f.code, f.where) for f in report.findings if f.severity != "info"]


TURNED = ("problem", "wrong_sign", "loss")
CLIMBS = ("problem", "wrong_sign", "optimizer")


def model_pytorch(*tail):
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(),
                         nn.Linear(16, 4), *tail)  # fmt: skip


def negative(o, y):
    return -F.cross_entropy(o, y)


def no_minus(o, y):
    return o[torch.arange(len(y)), y].mean()


def climbing(parameters):
    return torch.optim.Adam(parameters, lr=1e-3, maximize=True)


def backwards(parameters):
    rule = torch.optim.SGD(parameters, lr=0.01)
    rule.param_groups[0]["lr"] = -0.01
    return rule


@pytest.mark.parametrize(
    ("tail", "loss", "optimizer", "wanted"),
    [((), F.cross_entropy, None, []), ((), negative, None, [TURNED]),
     ((nn.LogSoftmax(1),), F.nll_loss, None, []), ((nn.LogSoftmax(1),), no_minus, None, [TURNED]),
     ((), F.cross_entropy, climbing, [CLIMBS]), ((), negative, climbing, []),
     ((), F.cross_entropy, backwards, [CLIMBS]),
     ((), lambda o, y: o.mean(), backwards, [("warning", "wrong_sign", "optimizer")]),
     ((), lambda o, y: o.mean(), climbing, [])],
)  # fmt: skip
def test_in_pytorch(tail, loss, optimizer, wanted):
    report = diagnose_pytorch(model_pytorch(*tail), torch.from_numpy(X), LABELS, loss=loss,
                              optimizer=optimizer, steps=3)  # fmt: skip
    assert told(report) == wanted


class WithLoss(nn.Module):
    """Gives its own loss, as the models of transformers do."""

    class Output:
        def __init__(self, loss):
            self.loss = loss

    def __init__(self):
        super().__init__()
        self.inner = model_pytorch()

    def forward(self, x, labels):
        return self.Output(F.cross_entropy(self.inner(x), labels))


@pytest.mark.parametrize(
    ("loss", "optimizer", "wanted"),
    [(None, None, []), (lambda o: -o.loss, None, [TURNED]), (None, climbing, [CLIMBS]),
     (lambda o: -o.loss, climbing, []), (lambda o: 2 * o.loss, None, [])],
)  # fmt: skip
def test_a_model_that_gives_its_own_loss(loss, optimizer, wanted):
    given = {"x": torch.from_numpy(X), "labels": LABELS}
    report = diagnose_pytorch(WithLoss(), given, loss=loss, optimizer=optimizer, steps=3)
    assert told(report) == wanted


def model_keras(*tail):
    keras.utils.set_random_seed(0)
    return keras.Sequential([layers.Input((8,)), layers.Dense(16, "relu"),
                             layers.Dense(16, "relu"), layers.Dense(4), *tail])  # fmt: skip


CROSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("loss", "rate", "wanted"),
    [(CROSS, 0.01, []), (lambda o, y: -CROSS(y, o), 0.01, [TURNED]), (CROSS, -0.01, [CLIMBS]),
     (lambda o, y: -CROSS(y, o), -0.01, [])],
)  # fmt: skip
def test_in_keras(loss, rate, wanted):
    model = model_keras()
    before = [w.numpy() for w in model.weights]
    report = diagnose_keras(model, X, Y, loss=loss, steps=3,
                            optimizer=lambda: keras.optimizers.SGD(rate))  # fmt: skip
    assert told(report) == wanted
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(before, model.weights, strict=True))


def test_keras_squares_turned_round():
    model, y = model_keras(), RNG.normal(size=(32, 4)).astype("float32")
    report = diagnose_keras(model, X, y, loss=lambda o, t: -tf.reduce_mean((o - t) ** 2), steps=3)
    assert told(report) == [TURNED]
