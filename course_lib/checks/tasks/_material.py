"""What several task modules share: judging by a law, and digits that no table knows."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from course_lib.checks.compare import as_array
from course_lib.checks.task import Case

FLOAT32 = (
    "1e-4 of the expected entry: float32, the default of both frameworks, keeps seven digits and "
    "loses one or two on the way; every foreseen mistake is off by more than a percent"
)
"""The reason of the tolerance that most tasks share."""


class Fault(NamedTuple):
    """What a judge found: a short key for the kind of fault, and the sentence for the student."""

    key: str
    sentence: str


Finder = Callable[[Case, object], Fault | None]
"""(case, answer) -> the first fault, or None if the answer is right."""


def judge_by(find: Finder) -> Callable[[Case, object, object], str | None]:
    """Return the judge that says what `find` finds."""

    def judge(case: Case, answer: object, expected: object) -> str | None:
        fault = find(case, answer)
        return None if fault is None else fault.sentence

    return judge


def shows(find: Finder, key: str) -> Callable[[Case, object, object], bool]:
    """Return whether an answer has the fault `key`, or none: a mistake need not hurt every case."""

    def recognizes(case: Case, answer: object, expected: object) -> bool:
        fault = find(case, answer)
        return fault is None or fault.key == key

    return recognizes


class Digits(NamedTuple):
    """Digits to learn from and unseen ones: (n, 64) float32 arrays and (n,) int64 labels."""

    x_train: np.ndarray
    y_train: np.ndarray
    x_new: np.ndarray
    y_new: np.ndarray


@functools.cache
def _standard_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # imported here: it takes a second

    x, y = load_digits(return_X_y=True)
    return (x - x.mean()) / x.std(), y.astype(np.int64)


def scramble_digits(rng: np.random.Generator, *, train: int, new: int, noise: float) -> Digits:
    """Return digits of scikit-learn with their pixels in a secret order and noise on each pixel.

    Both come from `rng`: whoever knows the published digits and their labels by heart does not
    recognize these. A fully connected network does not mind the order.

    Arguments:
        rng: of the choice of digits, of the order and of the noise.
        train, new: how many of each.
        noise: its standard deviation, where the pixels have 1.
    """
    x, y = _standard_digits()
    rows = rng.permutation(len(y))[: train + new]
    x = x[rows][:, rng.permutation(x.shape[1])]
    x = (x + noise * rng.standard_normal(x.shape)).astype(np.float32)
    return Digits(x[:train], y[rows[:train]], x[train:], y[rows[train:]])


def share_right(answer: object, labels: np.ndarray) -> float:
    """Return the share of the labels in `answer` that are right; AnswerError if they are none."""
    given = as_array(answer, shape=labels.shape, name="the labels")
    return float(np.mean(given == labels))
