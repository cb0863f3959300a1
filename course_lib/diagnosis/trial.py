"""What a trial of the reader's own model was, in one sentence: shared by both frameworks."""

from __future__ import annotations

from collections.abc import Sequence

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
