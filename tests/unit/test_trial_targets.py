"""Between outputs and targets: shapes that are broadcast, and log-probabilities that are none."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis.targets import check_log_probabilities, check_pairing  # noqa: E402
from course_lib.pytorch import diagnose_model as diagnose_pytorch  # noqa: E402
from course_lib.tf import diagnose_model as diagnose_keras  # noqa: E402

RNG = np.random.default_rng(0)
X = RNG.normal(size=(32, 8)).astype("float32")
LABELS = np.arange(32) % 4
VALUES = RNG.normal(5.0, 3.0, size=32).astype("float32")
SHARES = RNG.dirichlet(np.ones(4), size=32).astype("float32")


def in_pytorch(targets, loss, *tail, out=1):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, out), *tail)
    report = diagnose_pytorch(model, torch.tensor(X), torch.tensor(targets), loss=loss, steps=3)
    return [(f.severity, f.code, f.where) for f in report.findings]


def in_keras(targets, loss, *tail, out=1):
    keras.utils.set_random_seed(0)
    dense = keras.layers.Dense(16, "relu"), keras.layers.Dense(out, name="last")
    model = keras.Sequential([keras.Input((8,)), *dense, *tail])
    report = diagnose_keras(model, X, targets, loss=loss, steps=3)
    return [(f.severity, f.code, f.where) for f in report.findings]


BROADCAST = [("problem", "broadcast_targets", "targets")]


@pytest.mark.filterwarnings("ignore:Using a target size")  # what PyTorch says of its own losses
@pytest.mark.parametrize("loss", [F.mse_loss, F.l1_loss, F.huber_loss,
                                  lambda o, t: ((o - t) ** 2).mean()])  # fmt: skip
def test_targets_that_are_broadcast_in_pytorch(loss):
    assert in_pytorch(VALUES, loss) == BROADCAST
    assert in_pytorch(VALUES[:, None], loss) == []
    assert in_pytorch(VALUES[:, None], lambda o, t: loss(o.squeeze(1), t)) == BROADCAST[:0]
    assert in_pytorch(VALUES, lambda o, t: loss(o.squeeze(1), t)) == []
    assert in_pytorch(VALUES[:, None], loss, nn.Flatten(0)) == BROADCAST


def test_targets_that_are_broadcast_in_tensorflow():
    def by_hand(outputs, targets):
        return tf.reduce_mean(tf.square(outputs - targets))

    assert in_keras(VALUES, by_hand) == BROADCAST
    assert in_keras(VALUES[:, None], by_hand) == []
    assert in_keras(VALUES, "mse") == []  # Keras puts the shapes right
    assert in_keras(VALUES, lambda o, t: by_hand(o[:, 0], t)) == []


def test_what_is_not_asked_about():
    same = np.full(32, 5.0, "float32")  # whichever of them is taken
    found = in_pytorch(same, lambda o, t: (o - t).abs().mean())
    assert "broadcast_targets" not in [code for _, code, _ in found]
    batch = np.arange(24.0).reshape(4, 6)
    assert check_pairing(None, batch, None, batch[0]) == []  # one row for all, no larger shape
    assert check_pairing(None, batch, None, None) == []
    assert in_pytorch(LABELS, F.cross_entropy, out=4) == []


@pytest.mark.parametrize(("tail", "found"), [
    ((), True), ((nn.Softmax(1),), True), ((nn.LogSoftmax(1),), False),
])  # fmt: skip
def test_a_likelihood_of_what_is_no_log_probability_is_named(tail, found):
    where = "3" if tail else "2"
    expected = [("problem", "missing_activation", where)] if found else []
    assert in_pytorch(LABELS, F.nll_loss, *tail, out=4) == expected

    def divergence(o, t):
        return F.kl_div(o, t, reduction="batchmean")

    assert in_pytorch(SHARES, divergence, *tail, out=4) == expected

    def skipping(o, t):  # padding, and classes that count more than others
        return F.nll_loss(o, t, ignore_index=0, weight=torch.tensor([1.0, 2.0, 3.0, 0.5]))

    assert in_pytorch(LABELS, skipping, *tail, out=4) == expected


def test_by_hand_in_tensorflow():
    def likelihood(outputs, targets):
        return -tf.reduce_mean(tf.gather(outputs, targets, axis=1, batch_dims=1))

    assert in_keras(LABELS, likelihood, out=4) == [("problem", "missing_activation", "last")]
    tail = keras.layers.Activation("log_softmax")
    assert in_keras(LABELS, likelihood, tail, out=4) == []


def test_other_straight_lines_are_no_likelihoods():
    critic = lambda o, t: -(o[:, 0]).mean()  # noqa: E731
    assert in_pytorch(VALUES, critic, out=4) == []
    margin = lambda o, t: (o * (1.0 - 2.0 * F.one_hot(t, 4))).mean()  # noqa: E731
    assert in_pytorch(LABELS, margin, out=4) == []
    assert in_pytorch(LABELS, F.cross_entropy, out=4) == []
    assert [s for s, _, _ in in_pytorch(LABELS, F.multi_margin_loss, out=4)] in ([], ["info"])
    assert check_log_probabilities(None, np.zeros((4, 3)), None, None) == []


def test_pixels_have_classes_along_the_second_axis():
    labels = RNG.integers(0, 3, size=(4, 5, 5))
    images = RNG.normal(size=(4, 1, 5, 5)).astype("float32")
    torch.manual_seed(0)
    for tail, found in (((), ["missing_activation"]), ((nn.LogSoftmax(1),), [])):
        model = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), *tail)
        report = diagnose_pytorch(model, torch.tensor(images), torch.tensor(labels),
                                  loss=F.nll_loss, steps=2)  # fmt: skip
        assert [f.code for f in report.findings] == found


def test_a_loss_that_refuses_the_outputs_is_told_with_them():
    with pytest.raises(ValueError, match=r"`targets` must .* of shape \(32, 1\), from -\d.* to "):
        in_pytorch((VALUES[:, None] > 5).astype("float32"), F.binary_cross_entropy)
    with pytest.raises(ValueError, match=r"`targets` must be .* of shape \(32, 4\), from "):
        in_keras(LABELS[:16], keras.losses.SparseCategoricalCrossentropy(from_logits=True), out=4)
