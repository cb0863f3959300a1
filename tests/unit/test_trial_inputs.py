"""Inputs that are all alike, tiny, or one feature above all others; and sound ones."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")
from keras import layers  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis.inputs import check_alike, check_features, check_small  # noqa: E402
from course_lib.pytorch import diagnose_model as diagnose_pytorch  # noqa: E402
from course_lib.tf import diagnose_model as diagnose_keras  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 16)).astype("float32"), np.arange(32) % 4
SAME, ONES = np.repeat(X[:1], 32, axis=0), np.ones_like(X)
TALL = X * np.where(np.arange(16) == 3, 1e4, 1.0).astype("float32")
PIXELS = RNG.uniform(0, 255, size=(32, 16)).astype("float32")
INPUT_CODES = ("constant_inputs", "small_inputs", "unequal_features", "large_inputs")


def told(findings):
    return [(f.severity, f.code) for f in findings]


# The rules ---------------------------------------------------------------------------------


def test_all_samples_alike():
    assert told(check_alike([[SAME]], [Y])) == [("problem", "constant_inputs")]
    assert told(check_alike([[SAME]], [np.zeros(32)])) == [("warning", "constant_inputs")]
    assert told(check_alike([[SAME]], [None])) == [("warning", "constant_inputs")]
    assert "one and the same number" in check_alike([[ONES]], [Y])[0].what
    assert check_alike([[X]], [Y]) == []
    assert check_alike([[SAME, X]], [Y]) == []  # a second input tells them apart
    assert check_alike([[SAME], [SAME + 1]], [Y, Y]) == []  # and so does another batch
    assert len(check_alike([[SAME], [SAME[:7]]], [Y, Y[:7]])) == 1
    words = np.full((8, 5), 3)
    assert len(check_alike([[words, np.ones_like(words)]], [Y[:8]])) == 1
    assert check_alike([[X[:1]]], [Y[:1]]) == []  # a single sample is like itself
    assert check_alike([[np.ones((6, 32, 4))]], [Y]) == []  # the samples lie along another axis
    assert check_alike([[]], [Y]) == []
    assert check_alike([[SAME], [SAME, X]], [Y, Y]) == []


def test_tiny_inputs():
    (finding,) = check_small([1e-6 * X], 1e-6 * X, "first")
    assert (finding.severity, finding.code, finding.where) == ("warning", "small_inputs", "first")
    assert finding.value == pytest.approx(1e-6, rel=0.1)
    assert check_small([2e-3 * X], 2e-3 * X, "first") == []
    assert check_small([1e-6 * X], X, "first") == []  # the model enlarges them
    assert check_small([1e-6 * X, X], 1e-6 * X, "first") == []  # another input has its size
    assert check_small([np.ones((4, 4), dtype=int)], 1e-6 * X, "first") == []
    assert check_small([0 * X], 0 * X, "first") == []  # all alike, and told so
    assert check_small([1e-6 * X], None, "") == []


@pytest.mark.parametrize("kind", ["Linear", "LayerNorm", "LayerNormalization", "Dense", "LSTM"])
def test_one_feature_above_all_others(kind):
    (finding,) = check_features(TALL, -1, kind, "first")
    assert finding.code == "unequal_features"
    assert "feature 3 " in finding.what
    assert 5e3 < finding.value < 2e4
    assert ("nearly 0" in finding.why) == kind.startswith("LayerNorm")
    images = np.moveaxis(TALL.reshape(8, 4, 16), 2, 1)
    assert len(check_features(images, 1, kind, "first")) == 1
    assert check_features(images, -1, kind, "first") == []
    assert check_features(X, -1, kind, "first") == []
    assert check_features(PIXELS, -1, kind, "first") == []
    assert check_features(50 * X * (TALL != X) + X, -1, kind, "first") == []


@pytest.mark.parametrize("kind", ["BatchNorm1d", "BatchNormalization", "Normalization",
                                  "InstanceNorm2d"])  # fmt: skip
def test_a_normalization_of_each_feature_mends_it(kind):
    assert check_features(TALL, -1, kind, "first") == []


def test_features_that_are_rare_or_0_are_no_measure():
    pixels = np.where(np.arange(16) < 12, 0.0, np.abs(X))
    assert check_features(pixels, -1, "Linear", "first") == []
    rare = (np.arange(1024)[:, None] == np.arange(40)).astype("float32")  # one 1 in each column
    numbers = RNG.normal(size=(1024, 3)).astype("float32")
    assert check_features(np.hstack([rare, numbers]), -1, "Linear", "first") == []
    for few in (TALL[:, :1], TALL[0], np.ones((4, 3), dtype=int), np.nan * TALL):
        assert check_features(few, -1, "Linear", "first") == []


# Whole models ------------------------------------------------------------------------------


class Rescaled(nn.Module):
    """Brings its inputs to size 1 by itself."""

    def __init__(self, factor):
        super().__init__()
        self.factor = torch.as_tensor(factor, dtype=torch.float32)
        self.linear = nn.Linear(16, 16)

    def forward(self, x):
        return self.linear(x * self.factor)


def in_pytorch(x, *first, targets=Y, batches=None):
    torch.manual_seed(0)
    model = nn.Sequential(*first, nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    given = torch.from_numpy(x), torch.from_numpy(targets)
    report = diagnose_pytorch(model, *given, loss=nn.functional.cross_entropy, steps=2)
    return [(f.severity, f.code) for f in report.findings if f.code in INPUT_CODES]


def in_keras(x, *first):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((16,)), *first, layers.Dense(32, "relu"),
                              layers.Dense(4)])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    report = diagnose_keras(model, x, Y, loss=loss, steps=2)
    return [(f.severity, f.code) for f in report.findings if f.code in INPUT_CODES]


UNEQUAL, SMALL = ("warning", "unequal_features"), ("warning", "small_inputs")
LARGE, CONSTANT = ("warning", "large_inputs"), ("problem", "constant_inputs")


def test_in_pytorch():
    assert in_pytorch(X) == []
    assert in_pytorch(SAME) == in_pytorch(ONES) == [CONSTANT]
    assert in_pytorch(1e-6 * X) == in_pytorch(1e-6 * X, nn.LayerNorm(16)) == [SMALL]
    assert in_pytorch(1e-6 * X, nn.BatchNorm1d(16)) == [SMALL]
    assert in_pytorch(1e-6 * X, Rescaled(1e6)) == []
    assert in_pytorch(TALL) == [UNEQUAL, LARGE]
    assert in_pytorch(TALL, nn.LayerNorm(16)) == [UNEQUAL]
    assert in_pytorch(TALL, nn.BatchNorm1d(16)) == []
    assert in_pytorch(TALL, Rescaled(np.where(np.arange(16) == 3, 1e-4, 1.0))) == []
    assert in_pytorch(PIXELS) == [LARGE]


def test_in_keras():
    adapted = layers.Normalization()
    adapted.adapt(TALL)
    assert in_keras(X) == []
    assert in_keras(SAME) == in_keras(ONES) == [CONSTANT]
    assert in_keras(1e-6 * X) == in_keras(1e-6 * X, layers.LayerNormalization()) == [SMALL]
    assert in_keras(1e-6 * X, layers.Rescaling(1e6)) == []
    assert in_keras(TALL) == [UNEQUAL, LARGE]
    assert in_keras(TALL, layers.LayerNormalization()) == [UNEQUAL]
    assert in_keras(TALL, layers.BatchNormalization()) == in_keras(TALL, adapted) == []


def test_pixels_directly_in_front_of_a_normalization_are_harmless():
    for norm in (nn.LayerNorm(16), nn.BatchNorm1d(16)):
        x = torch.from_numpy(PIXELS)
        # Epsilon, 1e-5, is what differs: beside a variance of 1/12 it is 6e-5 of the result.
        torch.testing.assert_close(norm(x), norm(x / 255), rtol=1e-3, atol=1e-3)
        assert in_pytorch(PIXELS, norm) == []
    assert in_keras(PIXELS, layers.LayerNormalization()) == []


def test_words_images_sequences_and_inputs_by_name():
    torch.manual_seed(0)
    words = torch.randint(50, (32, 6))
    model = nn.Sequential(nn.Embedding(50, 8), nn.Flatten(), nn.Linear(48, 4))
    loss, y = nn.functional.cross_entropy, torch.from_numpy(Y)
    assert told(diagnose_pytorch(model, words, y, loss=loss, steps=1).findings) == []
    same = diagnose_pytorch(model, words[:1].expand(32, -1), y, loss=loss, steps=1)
    assert CONSTANT in told(same.findings)
    images = torch.randn(8, 4, 6, 6) * torch.tensor([1.0, 1.0, 1e4, 1.0]).view(4, 1, 1)
    model = nn.Sequential(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4))
    report = diagnose_pytorch(model, images, y[:8], loss=loss, steps=1)
    assert UNEQUAL in told(report.findings)

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear = nn.Linear(16, 4)

        def forward(self, values, labels):
            return {"loss": loss(self.linear(values), labels)}

    given = {"values": torch.from_numpy(SAME), "labels": y}
    assert CONSTANT in told(diagnose_pytorch(Own(), given, steps=1).findings)
    given = {"values": torch.from_numpy(X), "labels": y}
    assert told(diagnose_pytorch(Own(), given, steps=1).findings) == []


def test_a_module_in_front_that_has_no_weights_is_not_the_first_layer():
    """Some prepare images, and return them beside boxes in pixels."""

    class Prepare(nn.Module):
        def forward(self, x):
            return 100 * torch.ones(len(x), 4), x

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.prepare, self.body = Prepare(), nn.Linear(16, 4)

        def forward(self, x):
            return self.body(self.prepare(x)[1])

    def codes(x):
        report = diagnose_pytorch(Net(), torch.from_numpy(x), torch.from_numpy(Y), steps=2,
                                  loss=nn.functional.cross_entropy)  # fmt: skip
        return [f.code for f in report.findings if f.code in INPUT_CODES]

    assert codes(X) == []
    assert codes(PIXELS) == ["large_inputs"]
