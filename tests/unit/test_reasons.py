"""What a finding says about how something came about: reasons and remedies that fit the case."""

import itertools
from dataclasses import replace

import keras
import numpy as np
import pytest
import torch
from torch import nn

from course_lib import pytorch
from course_lib import tf as course_tf
from course_lib.diagnosis import diagnose
from course_lib.diagnosis.connections import check_frozen
from course_lib.recurrent_results import BPTTProfile

RNG = np.random.default_rng(0)
X, Y = RNG.normal(size=(256, 8)).astype("float32"), RNG.integers(0, 4, 256)
cross_entropy = nn.functional.cross_entropy


def watch(model, *, spoil=None, rate=0.1, steps=20, every=2, x=X):
    """Train with the monitor; `spoil` may change the batch, or the rule, at a step."""
    rule = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=rate)
    with pytorch.GradientFlowMonitor(model, every=every) as monitor:
        for step in range(steps):
            batch, labels = torch.tensor(x[:64]), torch.tensor(Y[:64])
            batch = spoil(step, batch, rule) if spoil else batch
            rule.zero_grad()
            cross_entropy(model(batch), labels).backward()
            rule.step()
    return diagnose(monitor)


def perceptron(*sizes):
    torch.manual_seed(0)
    pairs = [(nn.Linear(a, b), nn.ReLU()) for a, b in itertools.pairwise(sizes)]
    return nn.Sequential(*[part for pair in pairs for part in pair][:-1])


def test_a_batch_that_holds_nan_is_to_blame_and_not_the_rate():
    def spoil(step, batch, rule):
        batch = batch.clone()
        batch[3, 2] = float("nan") if step == 8 else batch[3, 2]
        return batch

    found = watch(perceptron(8, 16, 4), spoil=spoil).findings[0]
    assert (found.code, found.where) == ("non_finite", "0, step 8")
    assert "what goes in is not" in found.why
    assert "missing values" in found.remedy
    assert "learning rate" not in found.remedy


def test_a_keras_batch_that_holds_nan_is_to_blame():
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, name="first"),
                              keras.layers.Dense(4)])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss)
    x = X.copy()
    x[100, 2] = np.nan
    monitor = course_tf.GradientFlowMonitor(every=1)
    model.fit(x, Y, batch_size=32, shuffle=False, verbose=0, callbacks=[monitor])
    found = diagnose(monitor).findings[0]
    assert (found.code, found.where) == ("non_finite", "first, step 3")
    assert "missing values" in found.remedy


def test_what_overflows_in_training_is_laid_to_the_step():
    found = watch(perceptron(8, 16, 16, 4), rate=1e12, every=1).findings[0]
    assert found.code == "non_finite"
    assert found.remedy.startswith("a smaller learning rate")


def test_what_overflows_later_points_to_what_was_there_at_first():
    model = perceptron(8, *[32] * 9, 4)
    for part in model[::2]:
        nn.init.normal_(part.weight)
    found = watch(model, rate=1e-2, every=1).findings
    assert found[0].code == "non_finite"
    assert int(found[0].where.rpartition(" ")[2]) > 0
    assert found[0].remedy.startswith("first what the finding on ")
    codes = [f.code for f in found]
    assert any(f"finding on {code.replace('_', ' ')} says" in found[0].remedy for code in codes)


def test_what_is_there_before_the_first_step_is_laid_to_no_rate():
    model = perceptron(8, 16, 4)
    with torch.no_grad():
        model[2].weight[0, 0] = float("nan")
    found = watch(model).findings[0]
    assert found.where == "2, step 0"
    assert "The weight 2.weight was so before the first step" in found.why
    assert found.remedy.startswith("weights drawn anew")

    class Pole(nn.Module):
        def forward(self, x):
            return torch.log(0 * x)

    found = watch(nn.Sequential(nn.Linear(8, 4), Pole())).findings[0]
    assert found.where == "1, step 0"
    assert "before the first update" in found.why
    assert "logarithms" in found.remedy
    assert "learning rate" not in found.remedy


def test_a_jump_is_named_before_the_units_that_it_killed():
    def spoil(step, batch, rule):
        if step == 10:
            rule.param_groups[0]["lr"] = 40.0
        return batch

    report = watch(perceptron(8, 32, 32, 4), spoil=spoil, steps=40)
    assert report.codes[:2] == ("unstable_training", "dead_units")
    assert report.findings[0].severity == "problem"

    model = perceptron(8, 32, 32, 4)  # dead at once: no jump is to blame
    nn.init.constant_(model[2].bias, -30.0)
    record = watch(model, steps=40).results[0]
    assert diagnose(record).codes[0] == "dead_units"
    norms = record.weight_grad_norms.copy()
    norms[12] *= 1e4
    report = diagnose(replace(record, weight_grad_norms=norms))
    jump = next(f for f in report.findings if f.code == "unstable_training")
    assert jump.severity == "warning"
    assert report.codes[0] == "dead_units"


def test_a_weight_that_is_far_too_large_hardly_moves_and_the_reason_is_its_size():
    model = perceptron(8, 32, 32, 32, 4)
    model[6].weight.data *= 1e4
    rule = torch.optim.Adam(model.parameters(), lr=1e-4)
    with pytorch.GradientFlowMonitor(model, every=1) as monitor:
        for _ in range(6):
            rule.zero_grad()
            cross_entropy(model(torch.tensor(X[:64])), torch.tensor(Y[:64])).backward()
            rule.step()
    by_code = {f.code: f for f in diagnose(monitor).findings}
    assert by_code["rescaled_layer"].where == "6"
    still = by_code["standing_still"]
    assert (still.severity, still.where) == ("info", "6.weight")
    assert still.what == "1 weight hardly moves"
    assert "It is so large" in still.why


class Reader(nn.Module):
    def __init__(self, factor=1.0):
        super().__init__()
        torch.manual_seed(0)
        self.inside, self.cell, self.head = nn.Linear(4, 16), nn.RNN(16, 64), nn.Linear(64, 4)
        self.cell.weight_hh_l0.data *= factor

    def forward(self, x):
        return self.head(self.cell(self.inside(x))[0][-1])


@pytest.mark.parametrize(("factor", "found"), [(1.0, False), (20.0, True)])
def test_growth_on_the_way_back_through_a_recurrent_layer_is_seen_by_the_monitor(factor, found):
    x = RNG.normal(size=(40, 64, 4)).astype("float32")
    model = Reader(factor)
    rule = torch.optim.SGD(model.parameters(), lr=1e-3)
    with pytorch.GradientFlowMonitor(model) as monitor:
        cross_entropy(model(torch.tensor(x)), torch.tensor(Y[:64])).backward()
        rule.step()
    growth = [f for f in diagnose(monitor).findings if f.code == "exploding_over_time"]
    assert [f.where for f in growth] == (["cell"] if found else [])
    keras.utils.set_random_seed(0)
    cell = keras.layers.SimpleRNN(64, name="cell")
    twin = keras.Sequential([keras.Input((40, 4)), keras.layers.Dense(16), cell,
                             keras.layers.Dense(4)])  # fmt: skip
    kernel = cell.cell.recurrent_kernel
    kernel.assign(factor * kernel / (1 if factor == 1.0 else 1.7))
    twin.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    monitor = course_tf.GradientFlowMonitor()
    twin.fit(x.transpose(1, 0, 2), Y[:64], batch_size=64, verbose=0, callbacks=[monitor])
    growth = [f for f in diagnose(monitor).findings if f.code == "exploding_over_time"]
    assert [f.where for f in growth] == (["cell"] if found else [])


def test_growth_over_time_is_told_once_where_a_profile_tells_it():
    x = RNG.normal(size=(40, 64, 4)).astype("float32")
    report = pytorch.diagnose_model(Reader(20.0), torch.tensor(x), torch.tensor(Y[:64]),
                                    loss=cross_entropy, steps=1)  # fmt: skip
    growth = [f.where for f in report.findings if f.code == "exploding_over_time"]
    assert growth in ([], ["cell, tanh_rnn, time steps"])


def test_a_sequence_shorter_than_the_horizon_is_told_by_what_it_loses():
    def told(decades_per_step, steps):
        norms = decades_per_step * np.arange(steps, -1, -1.0)
        (found,) = diagnose(BPTTProfile("NumPy", "float64", "gru", "recursion", norms)).findings
        return found

    short, long = told(-0.22, 11), told(-0.22, 39)
    assert short.what == "the gradient falls by 2.4 decades in all 11 steps back"
    assert (short.value, short.threshold) == (pytest.approx(-2.42), -2.0)
    assert long.what == "the gradient falls by three decades in 14 steps back, of 39"
    assert (long.value, long.threshold) == (pytest.approx(-8.58), -3.0)
    grows = told(0.03, 10)
    assert grows.what == "the gradient grows by 0.3 decades in all 10 steps back"
    assert grows.threshold == 0.2


class Adapted(nn.Module):
    def __init__(self, base, rank=2, *, factors=2):
        super().__init__()
        self.base, self.factors = base.requires_grad_(False), factors
        self.down = nn.Parameter(0.1 * torch.randn(rank, base.in_features))
        self.up = nn.Parameter(torch.zeros(base.out_features, rank), requires_grad=factors > 1)

    def forward(self, x):
        return self.base(x) + x @ self.down.T @ self.up.T


def test_adapters_of_low_rank_are_a_note_and_a_frozen_layer_among_trained_ones_a_warning():
    def severities(model):
        return [f.severity for f in check_frozen(watch(model).results[0])]

    torch.manual_seed(0)
    layers = [Adapted(nn.Linear(a, b)) for a, b in ((8, 16), (16, 16), (16, 4))]
    assert severities(nn.Sequential(*layers)) == ["info"]
    model = perceptron(8, 16, 16, 16, 4)
    model[4].requires_grad_(False)
    assert severities(model) == ["warning"]
    assert check_frozen(watch(model).results[0])[0].what == "1 of 4 weight matrices is frozen"
    blocks = nn.Sequential(*[nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8))
                             for _ in range(3)], nn.Linear(8, 4))  # fmt: skip
    for block in blocks[1:3]:
        block[0].requires_grad_(False)
    assert severities(blocks) == ["warning"]


@pytest.mark.parametrize("every", [1, 2])
def test_a_head_that_the_optimizer_lacks_is_named_and_the_first_sample_is_of_the_first_step(every):
    model = perceptron(8, 16, 16, 4)
    rule = torch.optim.SGD(model[:4].parameters(), lr=0.1)
    true = {}
    with pytorch.GradientFlowMonitor(model, every=every) as monitor:
        for step in range(6):
            model.zero_grad()
            cross_entropy(model(torch.tensor(X[:64])), torch.tensor(Y[:64])).backward()
            true[step] = [float(p.grad.norm()) for p in model.parameters()]
            rule.step()
    record = monitor.record
    assert record.steps.tolist() == ([0, 2, 3, 4, 5] if every == 1 else [0, 2, 4])
    expected = [true[step] for step in record.steps]
    np.testing.assert_allclose(record.weight_grad_norms, expected, rtol=1e-5)
    (found,) = diagnose(monitor).findings
    assert found.what == "1 weight matrix gets a gradient and never moves"
    assert found.where == "4.weight"


def test_who_gives_the_wrong_thing_is_told_what_to_give():
    with pytest.raises(TypeError, match="diagnose_model"):
        diagnose(perceptron(8, 4))
    model = perceptron(8, 4)
    with pytest.raises(ValueError, match="inside `with monitor:`"):
        diagnose(pytorch.GradientFlowMonitor(model))
    twin = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    twin.compile("sgd", "mse")
    with (pytest.raises(RuntimeError, match=r"callbacks=\[monitor\]"),
          course_tf.GradientFlowMonitor(twin)):  # fmt: skip
        twin.fit(X, np.eye(4)[Y], verbose=0)
