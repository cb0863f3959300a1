r"""How far back a trained recurrent network can still use its input: the echo task.

A stream of random bits, one per step; at the last step the network has to name the bit that came
`lag` steps before. Every step brings a new bit that has to be kept apart from the others, so that
a network cannot latch on to the first thing it sees (as it can in `tasks.recall_task`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from course_lib._validation import require_integer, require_real, require_seed, require_sequence
from course_lib.recurrent_specs import RecurrentSpec, draw_recurrent_weights
from course_lib.tasks import SequenceTask

EXTRA_STEPS = 5
"""Steps before the bit that counts, so that it is not recognized by being the first."""


def echo_task(count: int, *, lag: int, seed: int) -> SequenceTask:
    """Draw streams of random bits (as -1 and 1); the target is the bit `lag` steps ago, 0 or 1.

    Sequences have T = lag + 6 steps with one input each; guessing is right in half the cases.

    Arguments:
        count: sequences, at least 1.
        lag: at least 0; 0 asks for the last bit itself.
        seed: of the draw.
    """
    count = require_integer("count", count, minimum=1)
    lag = require_integer("lag", lag, minimum=0)
    rng = np.random.default_rng(require_seed(seed))
    bits = rng.integers(0, 2, size=(count, lag + 1 + EXTRA_STEPS))
    return SequenceTask(
        f"the echo of {lag} steps ago", 2.0 * bits[:, :, None] - 1.0, bits[:, -1 - lag],
        "cross_entropy", "last", n_out=2, baseline_loss=float(np.log(2.0)), baseline_accuracy=0.5,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class EchoCurve:
    """Accuracy of trained networks on the echo task, one network per lag.

    Fields:
        framework: "PyTorch" or "TensorFlow".
        lags: ascending, shape (K,).
        accuracies: on fresh sequences, shape (K,); guessing is right in half the cases.
        truncation: length of truncated backpropagation, None for the whole sequence.
    """

    framework: str
    lags: np.ndarray
    accuracies: np.ndarray
    truncation: int | None = None

    def span(self, *, accuracy: float = 0.9) -> int | None:
        """Return the largest lag up to which every tested lag reaches `accuracy`, None if none."""
        accuracy = require_real("accuracy", accuracy, minimum=0.0, maximum=1.0)
        failed = np.flatnonzero(self.accuracies < accuracy)
        count = failed[0] if len(failed) else len(self.lags)
        return int(self.lags[count - 1]) if count else None

    def describe(self) -> str:
        """Say up to which lag the networks are right, and which lags fail."""
        missed = [str(k) for k, a in zip(self.lags, self.accuracies, strict=True) if a < 0.9]
        span, text = self.span(), self.framework
        if self.truncation is not None:
            text += f", truncated at {self.truncation}"
        reach = "no lag reaches 90 %" if span is None else f"at least 90 % right up to lag {span}"
        return f"{text}: {reach}" + (f", below that at lag {', '.join(missed)}." if missed else ".")


def measure_echo_with(
    framework: str,
    build: Callable,
    train: Callable,
    evaluate: Callable,
    spec: RecurrentSpec,
    *,
    lags: Sequence[int],
    steps: int,
    learning_rate: float,
    truncation: int | None,
    seed: int,
) -> EchoCurve:
    """Do what `measure_echo` of both frameworks does, with that framework's functions."""
    if not isinstance(spec, RecurrentSpec):
        raise TypeError(f"`spec` (={spec!r}) must be a RecurrentSpec.")
    if (spec.n_in, spec.n_out) != (1, 2):
        raise ValueError(f"`spec` (n_in {spec.n_in}, n_out {spec.n_out}) must have 1 and 2.")
    seed = require_seed(seed)
    lags = enumerate(require_sequence("lags", lags, of="lags"))
    lags = sorted(require_integer(f"lags[{k}]", lag, minimum=0) for k, lag in lags)
    accuracies = []
    for lag in lags:
        model = build(spec, draw_recurrent_weights(spec, seed=seed), dtype="float64")
        train(
            model, echo_task(4096, lag=lag, seed=seed + 1), optimizer="adam", steps=steps,
            learning_rate=learning_rate, batch_size=32, seed=seed, truncation=truncation,
            record_every=steps,
        )  # fmt: skip
        accuracies.append(evaluate(model, echo_task(1024, lag=lag, seed=seed + 2)).accuracy)
    return EchoCurve(framework, np.array(lags), np.array(accuracies), truncation)
