r"""Small sequence tasks, drawn in NumPy from a seed, each with the best answer that needs no input.

| task | remembers | source |
|---|---|---|
| adding_problem | two numbers marked in a sequence | hochreiter1997, le2015 |
| copy_task | ten symbols over a gap | hochreiter1997, arjovsky2016 |
| recall_task | one symbol, a given lag ago | bengio1994 |
| digit_rows, digit_pixels | an image read row by row, or pixel by pixel | le2015 |
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from course_lib._validation import (
    require_array,
    require_choice,
    require_integer,
    require_real,
    require_seed,
    require_type,
)
from course_lib.data import load_digits_split
from course_lib.sequence_losses import check_sequences


@dataclass(frozen=True, eq=False)
class SequenceTask:
    """Sequences with targets, the loss to train on them, and the trivial baseline.

    Fields:
        name: what to call it in words.
        x: inputs, float64, shape (count, T, n_in).
        y: targets: (count,) labels or (count, n_out) for `over` = "last", else with T in between.
        loss, over: which loss; see `course_lib.sequence_losses`.
        n_out: the number of outputs a network needs.
        baseline_loss: the loss of the best constant answer.
        baseline_accuracy: the accuracy of guessing; None for real targets.
        scored_steps: how many of the last steps count for the accuracy.
    """

    name: str
    x: np.ndarray = field(repr=False)
    y: np.ndarray = field(repr=False)
    loss: str
    over: str
    n_out: int
    baseline_loss: float
    baseline_accuracy: float | None = None
    scored_steps: int = 1

    def __post_init__(self) -> None:
        require_type("name", self.name, str)
        n_out = require_integer("n_out", self.n_out, minimum=1)
        x = require_array("x", self.x, ndim=3)
        x, y = check_sequences(
            x, self.y, loss=self.loss, over=self.over, n_in=x.shape[2], n_out=n_out
        )
        require_real("baseline_loss", self.baseline_loss)
        if self.baseline_accuracy is not None:
            require_real("baseline_accuracy", self.baseline_accuracy, minimum=0.0, maximum=1.0)
        if require_integer("scored_steps", self.scored_steps, minimum=1) > self.length:
            raise ValueError(
                f"`scored_steps` (={self.scored_steps}) must be at most {self.length}, all steps."
            )
        object.__setattr__(self, "x", x)
        object.__setattr__(self, "y", y)

    @property
    def length(self) -> int:
        """The number T of steps."""
        return self.x.shape[1]

    @property
    def n_in(self) -> int:
        """The number of inputs per step."""
        return self.x.shape[2]

    def describe(self) -> str:
        """Say the sizes and the baseline."""
        text = (
            f"{self.name}: {len(self.x)} sequences of {self.length} steps with {self.n_in} inputs "
            f"each; the best answer that ignores the input has a loss of {self.baseline_loss:.3f}"
        )
        if self.baseline_accuracy is not None:
            text += f" and is right in {100 * self.baseline_accuracy:.0f} % of the cases"
        return text + "."


@dataclass(frozen=True)
class Evaluation:
    """A network's loss on a task, and its accuracy (None for real targets), beside the baseline."""

    framework: str
    task: str
    loss: float
    accuracy: float | None
    baseline_loss: float
    baseline_accuracy: float | None

    def describe(self) -> str:
        """Say loss and accuracy beside the baseline's."""
        text = (
            f"{self.framework} on {self.task}: loss {self.loss:.2f} "
            f"(baseline {self.baseline_loss:.2f})"
        )
        if self.accuracy is not None:
            text += (
                f", accuracy {100 * self.accuracy:.0f} % "
                f"(baseline {100 * self.baseline_accuracy:.0f} %)"
            )
        return text + "."


def score(outputs: np.ndarray, task: SequenceTask) -> float | None:
    """Return the accuracy of `outputs`, shape (count, T, n_out), on `task`; None without labels."""
    if task.loss != "cross_entropy":
        return None
    guesses = outputs[:, -task.scored_steps :].argmax(axis=2)
    labels = task.y[:, None] if task.over == "last" else task.y[:, -task.scored_steps :]
    return float(np.mean(guesses == labels))


def adding_problem(count: int, *, length: int, seed: int) -> SequenceTask:
    r"""Draw sequences of numbers, two of them marked; the target is the sum of the two.

    Inputs at each step: a number from $U(0, 1)$, and a marker that is 1 at one step in each half
    and 0 elsewhere. The best constant answer is 1, with a mean squared error of 1/6.

    Arguments:
        count: sequences, at least 1.
        length: T, at least 2.
        seed: of the draw.
    """
    count = require_integer("count", count, minimum=1)
    length = require_integer("length", length, minimum=2)
    rng = np.random.default_rng(require_seed(seed))
    x = np.zeros((count, length, 2))
    x[:, :, 0] = rng.uniform(size=(count, length))
    rows = np.arange(count)
    first = rng.integers(0, length // 2, size=count)
    second = rng.integers(length // 2, length, size=count)
    x[rows, first, 1] = x[rows, second, 1] = 1.0
    y = (x[rows, first, 0] + x[rows, second, 0])[:, None]
    return SequenceTask(f"the adding problem at T = {length}", x, y, "mean_squared_error", "last",
                        n_out=1, baseline_loss=1.0 / 6.0)  # fmt: skip


def copy_task(
    count: int, *, gap: int, seed: int, symbols: int = 8, copies: int = 10
) -> SequenceTask:
    r"""Draw `copies` symbols to be written out again after a gap.

    A sequence has T = gap + 2 `copies` steps, its inputs one-hot over `symbols` + 2: the symbols,
    then blanks, with a "go" sign `copies` + 1 steps before the end. The target is blank until the
    last `copies` steps, and there the symbols in order. Who only knows the format says blank, and
    then guesses: a cross-entropy of copies · ln(symbols) / T, averaged over the steps.

    Arguments:
        count: sequences, at least 1.
        gap: steps between, at least 1.
        seed: of the draw.
        symbols, copies: at least 2 symbols, at least 1 of them to copy.
    """
    count = require_integer("count", count, minimum=1)
    gap = require_integer("gap", gap, minimum=1)
    symbols = require_integer("symbols", symbols, minimum=2)
    copies = require_integer("copies", copies, minimum=1)
    rng = np.random.default_rng(require_seed(seed))
    steps, blank, go = gap + 2 * copies, symbols, symbols + 1
    codes = np.full((count, steps), blank)
    codes[:, :copies] = rng.integers(0, symbols, size=(count, copies))
    codes[:, -copies - 1] = go
    y = np.full((count, steps), blank)
    y[:, -copies:] = codes[:, :copies]
    x = np.eye(symbols + 2)[codes]
    return SequenceTask(
        f"the copy task with a gap of {gap}", x, y, "cross_entropy", "mean", n_out=symbols + 1,
        baseline_loss=copies * np.log(symbols) / steps, baseline_accuracy=1.0 / symbols,
        scored_steps=copies,
    )  # fmt: skip


def recall_task(
    count: int, *, lag: int, length: int | None = None, seed: int, symbols: int = 2,
    noise: float = 0.1,
) -> SequenceTask:  # fmt: skip
    r"""Draw sequences in which one symbol is shown `lag` steps before the end, to be named there.

    Inputs are one-hot over the symbols at step T - lag, plus Gaussian noise at every step. A
    network solves it only if it can carry a symbol over `lag` steps.

    Arguments:
        count: sequences, at least 1.
        lag: 0 (shown at the last step) up to length - 1.
        length: T; lag + 1 if None, so that the symbol comes first.
        seed: of the draw.
        symbols: at least 2; guessing is right in one of so many cases.
        noise: standard deviation of the noise, at least 0.
    """
    count = require_integer("count", count, minimum=1)
    lag = require_integer("lag", lag, minimum=0)
    length = require_integer("length", lag + 1 if length is None else length, minimum=1)
    if lag >= length:
        raise ValueError(f"`lag` (={lag}) must be below `length` (={length}).")
    symbols = require_integer("symbols", symbols, minimum=2)
    noise = require_real("noise", noise, minimum=0.0)
    rng = np.random.default_rng(require_seed(seed))
    y = rng.integers(0, symbols, size=count)
    x = noise * rng.standard_normal((count, length, symbols))
    x[np.arange(count), length - 1 - lag, y] += 1.0
    return SequenceTask(
        f"recall over a lag of {lag}", x, y, "cross_entropy", "last", n_out=symbols,
        baseline_loss=float(np.log(symbols)), baseline_accuracy=1.0 / symbols,
    )  # fmt: skip


def digit_rows(*, seed: int, part: str = "train") -> SequenceTask:
    """Return scikit-learn's digits read row by row from the top: 8 steps of 8 pixels.

    Arguments:
        seed: of the split; see `course_lib.data.load_digits_split`.
        part: "train" or "test".
    """
    return _digits("row", 8, seed=seed, part=part)


def digit_pixels(*, seed: int, part: str = "train") -> SequenceTask:
    """Return the digits read pixel by pixel, in rows from the top: 64 steps of 1 pixel."""
    return _digits("pixel", 64, seed=seed, part=part)


def _digits(what: str, steps: int, *, seed: int, part: str) -> SequenceTask:
    require_choice("part", part, ("train", "test"))
    split = load_digits_split(seed=seed)
    x, y = (split.x_train, split.y_train) if part == "train" else (split.x_test, split.y_test)
    shares = np.bincount(split.y_train, minlength=10) / len(split.y_train)
    return SequenceTask(
        f"the digits {what} by {what} ({part})", x.reshape(len(x), steps, -1), y, "cross_entropy",
        "last", n_out=10, baseline_loss=float(-np.mean(np.log(shares[y]))),
        baseline_accuracy=float(np.mean(y == shares.argmax())),
    )  # fmt: skip
