"""What the loss of a trial says: not finite, refused, far too high at first; decay; dropout."""

import numpy as np
import pytest

keras = pytest.importorskip("keras")
tf = pytest.importorskip("tensorflow")
torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from keras import layers  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.diagnosis.connections import is_position  # noqa: E402
from course_lib.diagnosis.training import check_decay, check_updates, is_rising  # noqa: E402
from course_lib.diagnosis.trial import check_dropout  # noqa: E402
from course_lib.flow_recorder import FlowRecorder  # noqa: E402
from course_lib.monitoring import ParameterState, Sample, Site  # noqa: E402
from course_lib.pytorch import diagnose_model as diagnose_pytorch  # noqa: E402
from course_lib.tf import diagnose_model as diagnose_keras  # noqa: E402

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(32, 8)).astype("float32"), np.arange(32) % 4
ONE = (X[:, :1] > 0).astype("float32")


def told(report):
    return [(f.severity, f.code, f.where) for f in report.findings if f.severity != "info"]


def model_pytorch(*tail, scale=1.0, out=4):
    torch.manual_seed(0)
    parts = nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, out)
    with torch.no_grad():
        parts[-1].weight.mul_(scale)
    return nn.Sequential(*parts, *tail)


def in_pytorch(model, targets=Y, *, loss=F.cross_entropy, steps=4, **options):
    return diagnose_pytorch(model, torch.from_numpy(X), torch.from_numpy(targets), loss=loss,
                            steps=steps, **options)  # fmt: skip


# Not finite --------------------------------------------------------------------------------


@pytest.mark.parametrize("fault", ["weight", "rate", "second batch"])
def test_a_loss_that_raises_on_nan_does_not_end_the_trial(fault):
    """`F.binary_cross_entropy` refuses what is not between 0 and 1."""
    model, batches, options = model_pytorch(nn.Sigmoid(), out=1), [(X, ONE), (X.copy(), ONE)], {}
    if fault == "weight":
        model[2].weight.data[0, 0] = torch.nan
    elif fault == "rate":
        options = {"learning_rate": 1e30}
    else:
        batches[1][0][0, 0] = np.nan
    report = diagnose_pytorch(model, batches, loss=F.binary_cross_entropy, steps=4, **options)
    finding = report.findings[0]
    # layer 0 gives 1e30, which is a number
    first = {"weight": "2", "rate": "2", "second batch": "inputs"}[fault]
    assert (finding.code, finding.where.split(",")[0]) == ("non_finite", first)
    assert "stopped there, of 4 steps" in report.subjects[0]


def test_a_loss_that_raises_on_sound_outputs_raises_as_before():
    calls = []

    def loss(o, y):
        calls.append(1)
        if len(calls) == 3:
            raise RuntimeError("third")
        return F.cross_entropy(o, y)

    with pytest.raises(RuntimeError, match="third"):
        in_pytorch(model_pytorch(), loss=loss)


def test_a_loss_that_is_not_finite_by_itself_is_named():
    report = in_pytorch(model_pytorch(), loss=lambda o, y: F.cross_entropy(o, y)
                        + (0 * o).mean().relu().log())  # fmt: skip
    assert told(report)[0] == ("problem", "non_finite", "loss, step 0")
    assert report.findings[0].value == -np.inf
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((8,)), layers.Dense(4)])
    report = diagnose_keras(model, X, Y, steps=2, loss=lambda o, y: tf.reduce_mean(o**2)
                            + tf.math.log(tf.stop_gradient(0 * o[0, 0])))  # fmt: skip
    assert told(report)[0] == ("problem", "non_finite", "loss, step 0")


class Careful(nn.Module):
    """A model that itself refuses what is no number, as one that sorts or looks up may."""

    def __init__(self):
        super().__init__()
        self.body = model_pytorch()

    def forward(self, x, mask=None):
        h = self.body[1](self.body[0](x))
        if h.isnan().any():
            raise RuntimeError("index -1 is out of bounds")
        return self.body[2:](h)


@keras.saving.register_keras_serializable("course")
class CarefulKeras(keras.Model):
    """The same in Keras."""

    def __init__(self, **options):
        super().__init__(**options)
        self.body, self.head = layers.Dense(16), layers.Dense(4)

    def call(self, x):
        h = self.body(x)
        tf.debugging.assert_all_finite(h, "h")
        return self.head(tf.nn.relu(h))


@pytest.mark.parametrize("where", ["inputs", "0"])
def test_a_model_that_raises_on_nan_does_not_end_the_trial(where):
    model, x = Careful(), X.copy()
    if where == "inputs":
        x[0, 0] = np.nan
    else:
        model.body[0].weight.data[0, 0] = torch.nan
    report = diagnose_pytorch(model, torch.from_numpy(x), torch.from_numpy(Y), loss=F.cross_entropy)
    assert report.findings[0].code == "non_finite"
    assert where in report.findings[0].where


def test_an_error_is_no_finding_because_a_mask_holds_infinity():
    class Wrong(Careful):
        def forward(self, x, mask):
            raise RuntimeError("something else")

    mask = torch.full((32, 32), -torch.inf).triu(1)
    with pytest.raises(ValueError, match="something else"):
        diagnose_pytorch(Wrong(), (torch.from_numpy(X), mask), loss=torch.sum)


@pytest.mark.parametrize("where", ["inputs", "dense"])
def test_a_keras_model_that_raises_on_nan_does_not_end_the_trial(where):
    keras.utils.set_random_seed(0)
    model, x = CarefulKeras(), X.copy()
    model(X)
    if where == "inputs":
        x[0, 0] = np.nan
    else:
        kernel = model.body.kernel.numpy()
        kernel[0, 0] = np.nan
        model.body.kernel.assign(kernel)
    cross = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    report = diagnose_keras(model, x, Y, loss=cross, steps=2)
    assert report.findings[0].code == "non_finite"
    assert where in report.findings[0].where


# The first loss ----------------------------------------------------------------------------


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_a_first_loss_far_above_that_of_equal_answers_is_named(reduction):
    def loss(o, y):
        return F.cross_entropy(o, y, reduction=reduction)

    large = in_pytorch(model_pytorch(scale=3000.0), loss=loss)
    assert ("warning", "large_outputs", "4") in told(large)
    assert told(in_pytorch(model_pytorch(), loss=loss)) == []
    assert "large_outputs" not in [
        c for _, c, _ in told(in_pytorch(model_pytorch(scale=30.0), loss=loss))
    ]


def test_the_head_is_named_where_another_layer_runs_last():
    class Late(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.body, self.head, self.side = nn.Linear(8, 16), nn.Linear(16, 4), nn.Linear(16, 2)
            self.head.weight.data.mul_(1000)

        def forward(self, x):
            h = torch.tanh(self.body(x))
            logits = self.head(h)
            self.kept = self.side(h).sum().item()
            return logits

    report = in_pytorch(Late())
    assert report.results[0].layers[-1] == "side"
    assert ("warning", "large_outputs", "head") in told(report)


def test_a_model_that_has_learned_may_be_sure():
    torch.manual_seed(0)
    model, y = model_pytorch(), torch.from_numpy(np.abs(X[:, :4]).argmax(1))
    rule, x = torch.optim.Adam(model.parameters(), lr=0.02), torch.from_numpy(X)
    for _ in range(400):
        rule.zero_grad()
        F.cross_entropy(model(x), y).backward()
        rule.step()
    spread = model(x).var(1).mean().sqrt().item()
    assert spread > 5
    report = in_pytorch(model, y.numpy())
    assert "large_outputs" not in [f.code for f in report.findings]


def test_large_outputs_of_other_losses_are_none():
    assert "large_outputs" not in [c for _, c, _ in told(in_pytorch(
        model_pytorch(scale=1000.0), 100 * X[:, :4], loss=F.mse_loss))]  # fmt: skip


def test_the_first_loss_in_keras():
    def report(scale):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([layers.Input((8,)), layers.Dense(16, "relu"), layers.Dense(4)])
        model.layers[-1].kernel.assign(scale * model.layers[-1].kernel)
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return [c for _, c, _ in told(diagnose_keras(model, X, Y, loss=loss, steps=1))]

    assert "large_outputs" in report(500.0)
    assert report(1.0) == []


# Weight decay ------------------------------------------------------------------------------


def test_a_decay_that_takes_all_weights_away_is_named():
    def rule(decay):
        return lambda parameters: torch.optim.AdamW(parameters, lr=1e-2, weight_decay=decay)

    report = in_pytorch(model_pytorch(), optimizer=rule(10.0), steps=6)
    (finding,) = [f for f in report.findings if f.code == "weights_decay"]
    assert finding.value == pytest.approx(0.1, rel=0.3)
    for decay in (0.0, 0.01, 0.1):
        report = in_pytorch(model_pytorch(), optimizer=rule(decay), steps=6)
        assert "weights_decay" not in [f.code for f in report.findings]


def steps_of(norms, updates=None):
    """A record whose matrices have these norms, shape (steps, matrices)."""
    recorder = FlowRecorder(framework="NumPy", every=1, max_records=99, share=0.1)
    norms = np.asarray(norms, dtype=float)
    updates = 1e-3 * norms if updates is None else np.asarray(updates)
    for step, (row, moved) in enumerate(zip(norms, updates, strict=True)):
        sites = [Site(f"l{k}", "Linear", None, 64, 1, 8.0, 1.0) for k in range(len(row))]
        states = [ParameterState(f"l{k}.weight", f"l{k}", 2, True, 1.0, n, u)
                  for k, (n, u) in enumerate(zip(row, moved, strict=True))]  # fmt: skip
        recorder.add(Sample(step, sites, states))
    return recorder.record()


def test_decay_is_told_by_all_matrices_alike():
    shrink = 0.95 ** np.arange(5)[:, None]
    (finding,) = check_decay(steps_of(shrink * [1.0, 2.0, 3.0, 4.0]))
    assert finding.value == pytest.approx(-np.log(0.95))
    assert check_decay(steps_of(0.995 ** np.arange(5)[:, None] * np.ones(4))) == []
    unlike = np.array([0.95, 0.99, 0.9, 1.02]) ** np.arange(5)[:, None]
    assert check_decay(steps_of(unlike)) == []
    assert check_decay(steps_of(shrink[:2] * np.ones(4))) == []  # two samples are too few
    assert check_decay(steps_of(shrink * np.ones(1))) == []
    assert check_decay(steps_of(shrink * np.zeros(4))) == []


# What is on its way, or fixed by design ----------------------------------------------------


def test_a_weight_whose_updates_grow_does_not_stand_still():
    assert is_rising(np.array([0.0, 1e-9, 1e-7]))
    assert not is_rising(np.array([1e-9, 2e-9, 1e-9]))
    assert not is_rising(np.array([np.nan, 1e-9]))
    slow = np.full((4, 3), 1e-3)
    slow[:, 1] = 1e-9
    assert [f.code for f in check_updates(steps_of(np.ones((4, 3)), slow))] == ["standing_still"]
    slow[:, 1] = [0.0, 1e-9, 1e-8, 1e-7]
    assert check_updates(steps_of(np.ones((4, 3)), slow)) == []


def test_tables_of_positions_are_known_by_their_names():
    for name in ("model.encoder.embed_positions.weight", "vit.embeddings.position_embeddings",
                 "encoder.positional_encoder.position_enc", "classifier.positional_emb",
                 "decoder_pos_embed"):  # fmt: skip
        assert is_position(name)
    for name in ("pose.weight", "head.compose.weight", "embed_tokens.weight", "deposit.table"):
        assert not is_position(name)


def test_a_table_of_positions_that_is_fixed_is_a_note():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.head = (nn.Linear(8, 16), nn.Linear(16, 16),
                                                  nn.Linear(16, 4))  # fmt: skip
            self.embed_positions = nn.Embedding(5, 16)
            self.embed_positions.weight.requires_grad_(False)

        def forward(self, x):
            h = torch.tanh(self.first(x)) + self.embed_positions(torch.zeros(len(x), dtype=int))
            return self.head(torch.tanh(self.second(h)))

    torch.manual_seed(0)
    report = in_pytorch(Net())
    assert told(report) == []
    assert "frozen_parameters" in [f.code for f in report.findings]


# Dropout -----------------------------------------------------------------------------------


def test_dropout_that_leaves_next_to_nothing_is_named():
    assert check_dropout({}) == check_dropout({"a": 0.5, "b": 0.89}) == []
    assert check_dropout({"a": 0.5, "b": 0.95})[0].where == "b"
    found = told(in_pytorch(nn.Sequential(model_pytorch(), nn.Dropout(0.99))))
    assert ("warning", "strong_dropout", "1") in found
    keras.utils.set_random_seed(0)
    model = keras.Sequential([layers.Input((8,)), layers.Dropout(0.95, name="drop"),
                              layers.Dense(4)])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    assert ("warning", "strong_dropout", "drop") in told(
        diagnose_keras(model, X, Y, loss=loss, steps=1))  # fmt: skip
