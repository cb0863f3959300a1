"""Data: the split is a partition, batches cover each epoch once, seeds decide everything."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from course_lib.data import draw_batches, gaussian_batch, load_digits_split

FEW = settings(max_examples=60, deadline=None, derandomize=True)


@pytest.fixture(scope="module")
def split():
    return load_digits_split(seed=3)


def test_split_is_a_partition_of_the_digits(split):
    from sklearn.datasets import load_digits

    original, labels = load_digits(return_X_y=True)
    assert split.x_train.shape == (1348, 64)
    assert split.x_test.shape == (449, 64)
    x = np.concatenate([split.x_train, split.x_test])
    y = np.concatenate([split.y_train, split.y_test])
    # Standardizing is increasing, so pixel values can be counted back to 0..16.
    scale = (original.max() - original.min()) / (x.max() - x.min())
    pixels = np.rint((x - x.min()) * scale)
    ours = sorted((*row, label) for row, label in zip(pixels, y, strict=True))
    theirs = sorted((*row, label) for row, label in zip(original, labels, strict=True))
    assert ours == theirs


def test_training_set_is_standardized_as_a_whole(split):
    assert split.x_train.mean() == pytest.approx(0.0, abs=1e-12)
    assert split.x_train.std() == pytest.approx(1.0, abs=1e-12)
    # The test set is scaled with the training set's numbers, not with its own.
    assert split.x_test.mean() != pytest.approx(0.0, abs=1e-6)
    assert split.y_train.dtype == np.int64


def test_split_depends_on_the_seed_alone(split):
    np.testing.assert_array_equal(load_digits_split(seed=3).x_train, split.x_train)
    assert not np.array_equal(load_digits_split(seed=4).y_train, split.y_train)


def test_test_fraction():
    assert len(load_digits_split(seed=0, test_fraction=0.1).y_test) == 180


def test_gaussian_batch():
    batch = gaussian_batch(200, 50, seed=0)
    assert batch.shape == (200, 50)
    assert batch.std() == pytest.approx(1.0, abs=0.03)  # the spread is 0.7 %
    assert abs(batch.mean()) < 0.04
    np.testing.assert_array_equal(batch, gaussian_batch(200, 50, seed=0))


@given(count=st.integers(1, 40), data=st.data())
@FEW
def test_every_epoch_is_drawn_without_replacement(count, data):
    batch_size = data.draw(st.integers(1, count))
    per_epoch = count // batch_size
    batches = list(draw_batches(count, batch_size=batch_size, steps=3 * per_epoch, seed=1))
    assert len(batches) == 3 * per_epoch
    for epoch in range(3):
        rows = np.concatenate(batches[epoch * per_epoch : (epoch + 1) * per_epoch])
        assert len(np.unique(rows)) == len(rows) == per_epoch * batch_size
        assert rows.min() >= 0
        assert rows.max() < count


def test_epochs_are_shuffled_anew():
    one, two = draw_batches(50, batch_size=50, steps=2, seed=0)
    assert sorted(one) == sorted(two)
    assert not np.array_equal(one, two)
    assert not np.array_equal(one, np.arange(50))


def test_full_batches_need_no_seed():
    batches = list(draw_batches(4, batch_size=None, steps=2, seed=None))
    np.testing.assert_array_equal(batches, [[0, 1, 2, 3]] * 2)


def test_a_bad_argument_is_reported_at_the_call():
    with pytest.raises(ValueError, match="batch_size"):
        draw_batches(4, batch_size=5, steps=2, seed=0)
