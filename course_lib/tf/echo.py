"""How far back a network trained in TensorFlow can use its input; see `course_lib.echo`."""

from __future__ import annotations

from collections.abc import Sequence

from course_lib.echo import EchoCurve, measure_echo_with
from course_lib.recurrent_specs import RecurrentSpec
from course_lib.tf.recurrent import build_recurrent
from course_lib.tf.recurrent_training import evaluate_recurrent, train_recurrent


def measure_echo(
    spec: RecurrentSpec,
    *,
    lags: Sequence[int],
    steps: int = 300,
    learning_rate: float = 0.005,
    truncation: int | None = None,
    seed: int,
) -> EchoCurve:
    """Train one network per lag on the echo task, and return the accuracies on fresh sequences.

    Adam, batches of 32 from 4096 sequences, float64; 1024 fresh sequences for the test.

    Arguments:
        spec: with 1 input and 2 outputs.
        lags: at least one, each at least 0.
        steps: updates per lag, at least 1.
        learning_rate: > 0.
        truncation: length of truncated backpropagation; None for the whole sequence.
        seed: of weights, batches and sequences.
    """
    return measure_echo_with(
        "TensorFlow", build_recurrent, train_recurrent, evaluate_recurrent, spec, lags=lags,
        steps=steps, learning_rate=learning_rate, truncation=truncation, seed=seed,
    )  # fmt: skip
