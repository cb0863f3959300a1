"""A long chain of normalizations without a skip connection: the gradient grows at every one."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
torch = pytest.importorskip("torch")
from keras import layers  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis import diagnose  # noqa: E402
from course_lib.diagnosis.depth import check_shortcuts, unbroken_growth  # noqa: E402
from course_lib.flow_recorder import FlowRecorder  # noqa: E402
from course_lib.monitoring import Sample, Site  # noqa: E402
from course_lib.pytorch import diagnose_model as diagnose_pytorch  # noqa: E402
from course_lib.tf import diagnose_model as diagnose_keras  # noqa: E402

WIDTH = 64
X = np.random.default_rng(0).normal(size=(64, WIDTH)).astype("float32")
Y = np.arange(64) % 4


def record(growth):
    """A record of pairs of layer and normalization; the gradient changes by `growth` decades."""
    recorder = FlowRecorder(framework="NumPy", every=1, max_records=9, share=0.1)
    grads = 10 ** np.cumsum([0.0, *growth])[::-1]
    sites = []
    for k, grad in enumerate(grads):
        sites.append(Site(f"l{k}", "Linear", None, 64, 1, 8.0, float(2 * grad)))
        sites.append(Site(f"n{k}", "BatchNorm1d", None, 64, 1, 8.0, float(grad)))
    recorder.add(Sample(0, sites, []))
    return recorder.record()


def test_growth_at_every_normalization_is_named_from_three_decades_on():
    decades, last, first = unbroken_growth(record([0.083] * 40))
    assert (round(decades, 2), last, first) == (3.32, 81, 1)
    (finding,) = check_shortcuts(record([0.083] * 40))
    assert (finding.severity, finding.code, finding.where) == (
        "warning", "exploding_gradient", "n40 to n0")  # fmt: skip
    assert "at every one of 41 normalizations" in finding.what
    assert diagnose(record([0.083] * 40)).findings == (finding,)
    assert check_shortcuts(record([0.083] * 35)) == []  # 2.9 decades
    assert check_shortcuts(record([0.4] * 14)) == []  # few layers: a steep explosion, not this


def test_one_fall_ends_the_growth_and_one_jump_does_not_make_it():
    assert check_shortcuts(record([*[0.083] * 20, -0.01, *[0.083] * 20])) == []
    assert check_shortcuts(record([*[0.01] * 20, 6.0, *[0.01] * 20])) == []  # a branch drawn small


def chain_pytorch(depth, *, skips, seed):
    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.linear, self.norm = nn.Linear(WIDTH, WIDTH), nn.BatchNorm1d(WIDTH)

        def forward(self, x):
            h = torch.relu(self.norm(self.linear(x)))
            return x + h if skips else h

    torch.manual_seed(seed)
    return nn.Sequential(*[Block() for _ in range(depth)], nn.Linear(WIDTH, 4))


def chain_keras(depth, *, skips, seed):
    keras.utils.set_random_seed(seed)
    x = h = keras.Input((WIDTH,))
    for _ in range(depth):
        z = layers.BatchNormalization()(layers.Dense(WIDTH)(h))
        z = layers.Activation("relu")(z)
        h = layers.Add()([h, z]) if skips else z
    return keras.Model(x, layers.Dense(4)(h))


def told(depth, *, skips, seed=0, framework="PyTorch"):
    if framework == "PyTorch":
        report = diagnose_pytorch(
            chain_pytorch(depth, skips=skips, seed=seed), torch.from_numpy(X), torch.from_numpy(Y),
            loss=nn.functional.cross_entropy, steps=2,
        )  # fmt: skip
    else:
        report = diagnose_keras(
            chain_keras(depth, skips=skips, seed=seed), X, Y, steps=1,
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        )  # fmt: skip
    return [(f.severity, f.code) for f in report.findings if f.severity != "info"]


@pytest.mark.parametrize("seed", range(4))
def test_a_deep_chain_in_pytorch_with_and_without_skip_connections(seed):
    assert told(50, skips=False, seed=seed) == [("warning", "exploding_gradient")]
    assert told(50, skips=True, seed=seed) == []
    assert told(20, skips=False, seed=seed) == []


def test_a_deep_chain_in_keras_with_and_without_skip_connections():
    assert told(50, skips=False, framework="Keras") == [("warning", "exploding_gradient")]
    assert told(50, skips=True, framework="Keras") == []
