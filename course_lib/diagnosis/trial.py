"""What a trial of the reader's own model was, in one sentence: shared by both frameworks."""

from __future__ import annotations

from collections.abc import Callable, Sequence

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


class FirstCall:
    """Calls a function and says, if the first call raises, which argument was not what it takes.

    What a reader's own model or loss raises is whatever it is: the message of it is kept.
    """

    def __init__(self, name: str, rule: str, function: Callable) -> None:
        self.name, self.rule, self.function, self.done = name, rule, function, False

    def __call__(self, *args: object, **kwargs: object) -> object:
        try:
            result = self.function(*args, **kwargs)
        except Exception as error:
            if self.done:
                raise
            raise ValueError(
                f"`{self.name}` must be what {self.rule} ({type(error).__name__}: {error})."
            ) from error
        self.done = True
        return result
