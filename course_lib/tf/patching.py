"""Methods put on one object for a while, past Keras's `__setattr__`."""

from __future__ import annotations


def override(owner: object, attribute: str, function: object, patched: list) -> None:
    """Give one object a method of its own, past Keras's __setattr__, and note it in `patched`."""
    patched.append((owner, attribute, vars(owner).get(attribute)))
    object.__setattr__(owner, attribute, function)


def restore(patched: list) -> None:
    """Undo every `override`, the latest first."""
    while patched:
        owner, attribute, before = patched.pop()
        if before is None:
            object.__delattr__(owner, attribute)
        else:
            object.__setattr__(owner, attribute, before)
