"""Lecture 3's problematic network, and the changes by which the lecture repairs it, one by one.

The lecture's network has four hidden layers of 128 sigmoid units; its improved network has six
things changed, one of them without a word: it has a hidden layer less. Here each is a change of one
field, so that each can be made alone, or on top of the others. Pictures have 64 pixels, the
lecture's 784. Built and trained by `course_lib.pytorch.train_repair` and `course_lib.tf`'s twin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType

from course_lib._validation import (
    require_choice,
    require_flag,
    require_integer,
    require_real,
    require_seed,
    require_type,
)
from course_lib.cure_trials import change_by_name, change_network
from course_lib.recording import OPTIMIZERS, check_digits
from course_lib.results import format_number
from course_lib.specs import MLPWeights, NetworkSpec, check_weights


@dataclass(frozen=True)
class Repair:
    """A classifier of the digits and how it is trained, as data.

    Arguments:
        network: shape, activation, law of the weights.
        batch_norm: whether batch normalization follows every hidden activation, as in Lecture 3
            (the inventors put it before the activation).
        dropout: share of the hidden outputs that are dropped in training, 0 to below 1.
        clip_norm: limit on the norm of each tensor's gradient, as Keras's `clipnorm`; or None.
        optimizer: "sgd" or "adam".
        learning_rate: > 0.
        batch_share: share of each new batch in batch norm's running averages, above 0, at most 1.
            Keras's is 0.01 unless it is told otherwise, PyTorch's 0.1.
    """

    network: NetworkSpec
    batch_norm: bool = False
    dropout: float = 0.0
    clip_norm: float | None = None
    optimizer: str = "adam"
    learning_rate: float = 1e-3
    batch_share: float = 0.01

    def __post_init__(self) -> None:
        require_type("network", self.network, NetworkSpec)
        require_flag("batch_norm", self.batch_norm)
        if require_real("dropout", self.dropout, minimum=0.0) >= 1.0:
            raise ValueError(f"`dropout` (={self.dropout}) must be below 1.")
        if self.clip_norm is not None:
            require_real("clip_norm", self.clip_norm, minimum=0.0, exclusive=True)
        require_choice("optimizer", self.optimizer, OPTIMIZERS)
        require_real("learning_rate", self.learning_rate, minimum=0.0, exclusive=True)
        require_real("batch_share", self.batch_share, minimum=0.0, exclusive=True, maximum=1.0)


def check_repair(
    repair: Repair, weights: MLPWeights, data: object, *, epochs: object, batch_size: object,
    seed: object,
) -> tuple[int, int, int]:  # fmt: skip
    """Return the checked epochs, batch size and seed of a `train_repair` call."""
    network = require_type("repair", repair, Repair).network
    check_weights(network, weights)
    batch_size = check_digits(
        data, batch_size, n_in=network.n_in, n_out=network.n_out, batch_norm=repair.batch_norm
    )
    return require_integer("epochs", epochs, minimum=1), batch_size, require_seed(seed)


PROBLEMATIC = Repair(
    NetworkSpec(n_in=64, width=128, depth=5, n_out=10, activation="sigmoid", init="glorot_uniform"),
    optimizer="sgd", learning_rate=0.1,
)  # fmt: skip
"""Lecture 3's network as given, in SGD's hands: the lecture names no optimizer for it."""


CHANGES = MappingProxyType({
    "Adam": lambda r: replace(r, optimizer="adam", learning_rate=1e-3),
    "ReLU": lambda r: change_network(r, activation="relu"),
    "He": lambda r: change_network(r, init="he_normal"),
    "batch norm": lambda r: replace(r, batch_norm=True),
    "dropout": lambda r: replace(r, dropout=0.2),
    "clipnorm": lambda r: replace(r, clip_norm=1.0),
    "a layer less": lambda r: change_network(r, depth=r.network.depth - 1),
})  # fmt: skip
"""Lecture 3's changes, in the order in which its listing shows them, after the optimizer."""


def apply_changes(repair: Repair, changes: Sequence[str]) -> Repair:
    """Return the repair with the named `CHANGES` made, in their order."""
    require_type("repair", repair, Repair)
    return change_by_name(repair, changes, CHANGES, argument="changes")


@dataclass(frozen=True)
class RepairRun:
    """What became of one repair.

    Fields:
        framework: "PyTorch" or "TensorFlow".
        updates: number of updates.
        first_loss: the loss on the first batch, before the first update.
        accuracies: on the test set after every epoch.
    """

    framework: str
    updates: int
    first_loss: float
    accuracies: tuple[float, ...]

    def describe(self) -> str:
        """Say the first loss and the accuracies after the first and the last epoch."""
        return (
            f"{self.framework}, {self.updates} updates: first loss "
            f"{format_number(self.first_loss)}, accuracy {100 * self.accuracies[0]:.0f} % after "
            f"one epoch and {100 * self.accuracies[-1]:.0f} % after {len(self.accuracies)}."
        )
