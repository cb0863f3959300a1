"""Data that ships with a package or is drawn from a seed; nothing is downloaded."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from course_lib._validation import (
    require_array,
    require_batch_size,
    require_integer,
    require_labels,
    require_real,
    require_seed,
)

CLASSES = 10
"""The digits 0 to 9."""


@dataclass(frozen=True, eq=False)
class DigitsSplit:
    """Scikit-learn's bundled 8 by 8 handwritten digits, split and standardized.

    Fields:
        x_train, x_test: float64 arrays of shape (n, 64), mean 0 and variance 1 over the training
            set as a whole (one mean and one scale for all pixels, so that images stay images).
        y_train, y_test: integer labels 0..9 of shape (n,).
    """

    x_train: np.ndarray
    y_train: np.ndarray
    x_test: np.ndarray
    y_test: np.ndarray

    def __post_init__(self) -> None:
        pixels = None
        for part in ("train", "test"):
            x = require_array(f"x_{part}", getattr(self, f"x_{part}"), shape=(None, pixels))
            y = require_labels(
                f"y_{part}", getattr(self, f"y_{part}"), shape=(len(x),), classes=CLASSES
            )
            pixels = x.shape[1]
            object.__setattr__(self, f"x_{part}", x)
            object.__setattr__(self, f"y_{part}", y)


def load_digits_split(*, seed: int, test_fraction: float = 0.25) -> DigitsSplit:
    """Return the 1797 digits, shuffled by `seed`, the last `test_fraction` held back for testing.

    Source: alpaydin1998 by way of scikit-learn, which carries the data in the package.
    """
    from sklearn.datasets import load_digits  # imported here: it takes a second

    rng = np.random.default_rng(require_seed(seed))
    test_fraction = require_real("test_fraction", test_fraction, minimum=0.0, exclusive=True)
    if test_fraction >= 1.0:
        raise ValueError(f"`test_fraction` (={test_fraction}) must be below 1.")
    x, y = load_digits(return_X_y=True)
    order = rng.permutation(len(y))
    count = round(len(y) * (1.0 - test_fraction))
    if not 0 < count < len(y):
        raise ValueError(f"`test_fraction` (={test_fraction}) must leave both parts nonempty.")
    x, y = x[order].astype(np.float64), y[order].astype(np.int64)
    mean, scale = x[:count].mean(), x[:count].std()
    x = (x - mean) / scale
    return DigitsSplit(x[:count], y[:count], x[count:], y[count:])


def gaussian_batch(count: int, n_in: int, *, seed: int) -> np.ndarray:
    """Return `count` inputs of `n_in` independent standard normal numbers, float64."""
    count = require_integer("count", count, minimum=1)
    n_in = require_integer("n_in", n_in, minimum=1)
    return np.random.default_rng(require_seed(seed)).standard_normal((count, n_in))


def draw_batches(
    count: int, *, batch_size: int | None, steps: int, seed: int | None
) -> Iterator[np.ndarray]:
    """Return an iterator over `steps` index arrays into 0..count-1; every epoch is a fresh shuffle.

    Drawn in NumPy, so that all frameworks train on the same batches in the same order.
    With `batch_size=None` every step gets all indices in order, and no seed is needed. An
    epoch's last, smaller batch is left out.
    """
    count = require_integer("count", count, minimum=1)
    steps = require_integer("steps", steps, minimum=0)
    if seed is not None or batch_size is not None:
        seed = require_seed(seed)
    if batch_size is None:
        return (np.arange(count) for _ in range(steps))
    batch_size = require_batch_size(batch_size, count=count)
    return _shuffled_batches(count, batch_size, steps, np.random.default_rng(seed))


def _shuffled_batches(
    count: int, batch_size: int, steps: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    order, used = rng.permutation(count), 0
    for _ in range(steps):
        if used + batch_size > count:
            order, used = rng.permutation(count), 0
        yield order[used : used + batch_size]
        used += batch_size
