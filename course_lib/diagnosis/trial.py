"""What a trial of the reader's own model was, in one sentence, and what its loss says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from course_lib.diagnosis.report import Finding
from course_lib.diagnosis.thresholds import DROPPED_WARNING
from course_lib.monitoring import FlowRecord
from course_lib.results import format_number


def describe_trial(
    name: str,
    count: int,
    steps: int,
    optimizer: str,
    learning_rate: float | None,
    losses: Sequence[float],
) -> str:
    """Say what was done with a model: to a copy of it, or to itself and undone.

    Arguments:
        name: the model's class.
        count: how many parameters it has.
        steps: how many steps were asked for; fewer losses mean that the trial stopped before.
        optimizer: the rule's name.
        learning_rate: its rate, or None if it has several.
        losses: the loss of each step that was taken.
    """
    size = f"{count / 1e6:.1f} million" if count >= 1e6 else f"{count:,}".replace(",", " ")
    rate = "" if learning_rate is None else f" at learning rate {learning_rate:g}"
    text = (
        f"Trained {name} ({size} parameters) on trial for {len(losses)} "
        f"{'step' if len(losses) == 1 else 'steps'} with {optimizer}{rate}: loss "
        f"{format_number(float(losses[0]))} to {format_number(float(losses[-1]))}"
    )
    if len(losses) < steps:
        text += f"; stopped there, of {steps} steps, because the loss is not finite"
    return text + ". The model itself is as it was."


def check_loss_value(record: FlowRecord, losses: Sequence[float]) -> list[Finding]:
    """Return a finding if the loss is not finite, and nothing before it is to blame."""
    if record.nonfinite or np.isfinite(losses[-1]):
        return []
    return [
        Finding(
            "non_finite", "problem", f"the loss is {losses[-1]:g}", f"loss, step {len(losses) - 1}",
            float(losses[-1]), float("inf"),
            "No activation and no gradient of the sampled steps is: it comes about in the loss.",
            "a look at its logarithms, divisions and square roots near zero.",
        )
    ]  # fmt: skip


def check_dropout(rates: Mapping[str, float]) -> list[Finding]:
    """Return a finding if a dropout leaves next to nothing.

    Arguments:
        rates: the share that is dropped, by the name of the layer.
    """
    if not rates or max(rates.values()) < DROPPED_WARNING:
        return []
    where = max(rates, key=rates.__getitem__)
    return [
        Finding(
            "strong_dropout", "warning", "dropout leaves next to nothing", where, rates[where],
            DROPPED_WARNING,
            "What is left is multiplied by 1/(1 - p), so that the variance grows as many times.",
            "a rate of 0.1 to 0.5; it is the share that is dropped, not the share that is kept.",
        )
    ]  # fmt: skip


def say_output(values: np.ndarray | None) -> str:
    """Say of what shape a model's output is, and between which numbers; "" if it is no array."""
    if values is None or not values.size or not np.all(np.isfinite(values)):
        return ""
    low, high = (format_number(float(v)) for v in (values.min(), values.max()))
    return f" of shape {values.shape}, from {low} to {high}"


class FirstCall:
    """Calls a function and says, if the first call raises, which argument was not what it takes.

    What a reader's own model or loss raises is whatever it is: the message of it is kept.

    Arguments:
        name, rule: the argument, and what it must be: "what" and these words.
        function: to be called.
        show: from the first positional argument to an array to be described, or to None.
    """

    def __init__(
        self, name: str, rule: str, function: Callable, show: Callable | None = None
    ) -> None:
        self.name, self.rule, self.function, self.show = name, rule, function, show
        self.done = False

    def __call__(self, *args: object, **kwargs: object) -> object:
        try:
            result = self.function(*args, **kwargs)
        except Exception as error:
            if self.done:
                raise
            shown = say_output(self.show(args[0])) if self.show and args else ""
            raise ValueError(
                f"`{self.name}` must be what {self.rule}{shown} ({type(error).__name__}: {error})."
            ) from error
        self.done = True
        return result
