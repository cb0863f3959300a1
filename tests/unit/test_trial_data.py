"""What is wrong with the data themselves: numbers that are none, and targets that are all one."""

import numpy as np
import pytest

from course_lib.diagnosis.inputs import check_numbers, check_targets

torch = pytest.importorskip("torch")
import torch.nn.functional as F  # noqa: E402
from torch import nn  # noqa: E402

from course_lib.pytorch import diagnose_model  # noqa: E402

X = np.random.default_rng(0).normal(size=(32, 16)).astype("float32")
Y = np.arange(32) % 4


def told(findings):
    return [(f.severity, f.code, f.where) for f in findings]


def with_value(array, value):
    array = array.copy()
    array.flat[5] = value
    return array


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_none(value):
    bad = [("problem", "non_finite", "inputs")]
    assert told(check_numbers([[X], [with_value(X, value)]], [Y, Y])) == bad
    assert told(check_numbers([[X]], [with_value(X, value)]))[0][2] == "targets"
    assert check_numbers([[X, Y]], [None]) == []


def test_a_mask_is_none():
    mask = np.where(np.tri(8) > 0, 0.0, -np.inf)
    assert check_numbers([[X, mask]], [Y]) == []
    assert len(check_numbers([[X, with_value(mask, np.nan)]], [Y])) == 1


def test_targets_that_are_all_one():
    assert told(check_targets([Y * 0 + 3])) == [("warning", "constant_targets", "targets")]
    assert told(check_targets([Y[:8] * 0, Y[:8] * 0])) == [
        ("warning", "constant_targets", "targets")]  # fmt: skip
    for few_or_real in ([Y[:1].repeat(15)], [np.ones((32, 1))], [np.zeros((64, 2))]):
        assert told(check_targets(few_or_real)) == [("info", "constant_targets", "targets")]
    for sound in ([Y], [Y * 0, Y * 0 + 1], [Y * 0, None], [None], [Y[:1]], []):
        assert check_targets(sound) == []


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))


def trial(x, y, loss):
    return diagnose_model(model(), torch.from_numpy(x), torch.from_numpy(y), loss=loss, steps=3)


def test_in_pytorch():
    report = trial(with_value(X, np.nan), Y, F.cross_entropy)
    assert told(report.findings) == [
        ("problem", "non_finite", "inputs"), ("problem", "non_finite", "0, step 0")]  # fmt: skip
    assert trial(X, Y * 0, F.cross_entropy).codes == ("constant_targets",)
    assert trial(X, Y, F.cross_entropy).codes == ()


def test_a_loss_that_refuses_its_targets_is_told_as_a_finding():
    chances = with_value(np.full((32, 4), 0.5, "float32"), np.nan)
    with pytest.raises(RuntimeError):
        F.binary_cross_entropy(torch.full((32, 4), 0.5), torch.from_numpy(chances))

    def loss(output, targets):
        return F.binary_cross_entropy(output.sigmoid(), targets)

    found = told(trial(X, chances, loss).findings)
    assert found[0] == ("problem", "non_finite", "targets")
    with pytest.raises(ValueError, match="`targets` must be"):  # refused for another reason
        trial(X, np.full((32, 4), 2.0, "float32"), loss)


def test_in_keras():
    keras = pytest.importorskip("keras")
    pytest.importorskip("tensorflow")
    from course_lib.tf import diagnose_model as diagnose_keras

    keras.utils.set_random_seed(0)
    network = keras.Sequential([keras.layers.Input((16,)), keras.layers.Dense(32, "relu"),
                                keras.layers.Dense(4)])  # fmt: skip
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    report = diagnose_keras(network, with_value(X, np.nan), Y, loss=loss, steps=2)
    assert told(report.findings)[0] == ("problem", "non_finite", "inputs")
    assert diagnose_keras(network, X, Y * 0, loss=loss, steps=2).codes == ("constant_targets",)
