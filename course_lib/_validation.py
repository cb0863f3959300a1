"""Checks of what a caller passed in; every error names the argument, its value and the rule.

All functions return the checked value in its canonical type, so a caller writes
``depth = require_integer("depth", depth, minimum=1)``.
"""

from __future__ import annotations

import numbers
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np


def require_integer(name: str, value: object, *, minimum: int) -> int:
    """Return `value` as an int, or raise if it is not an integer of at least `minimum`."""
    rule = f"must be an integer >= {minimum}"
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Integral):
        raise TypeError(f"`{name}` (={value!r}) {rule}.")
    if value < minimum:
        raise ValueError(f"`{name}` (={value}) {rule}.")
    return int(value)


def require_seed(value: object, *, name: str = "seed") -> int:
    """Return a seed: an integer of at least 0."""
    return require_integer(name, value, minimum=0)


def require_seeds(value: object, *, name: str = "seeds") -> list[int]:
    """Return at least one seed, each an integer of at least 0."""
    seeds = require_sequence(name, value, of="seeds")
    return [require_seed(seed, name=f"{name}[{k}]") for k, seed in enumerate(seeds)]


def require_real(
    name: str,
    value: object,
    *,
    minimum: float = -np.inf,
    exclusive: bool = False,
    maximum: float = np.inf,
) -> float:
    """Return `value` as a finite float inside the stated range.

    `exclusive` leaves `minimum` itself out.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, numbers.Real):
        raise TypeError(f"`{name}` (={value!r}) must be a real number.")
    try:
        number = float(value)
    except OverflowError:
        number = float("inf")
    if not np.isfinite(number):
        raise ValueError(f"`{name}` (={number}) must be finite.")
    if number < minimum or (exclusive and number == minimum):
        sign = ">" if exclusive else ">="
        raise ValueError(f"`{name}` (={number}) must be {sign} {minimum}.")
    if number > maximum:
        raise ValueError(f"`{name}` (={number}) must be <= {maximum}.")
    return number


def require_batch_size(value: object, *, count: int, batch_norm: bool = False) -> int:
    """Return the size of a batch drawn from `count` inputs: with batch normalization 2 or more."""
    size = require_integer("batch_size", value, minimum=1)
    if size > count:
        raise ValueError(f"`batch_size` (={size}) must be at most {count}, the data's size.")
    if batch_norm and size < 2:
        raise ValueError(f"`batch_size` (={size}) must be at least 2 with batch normalization.")
    return size


def require_flag(name: str, value: object) -> bool:
    """Return `value` if it is True or False."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"`{name}` (={value!r}) must be True or False.")
    return bool(value)


def require_function(name: str, value: object) -> Callable:
    """Return `value` if it can be called."""
    if not callable(value):
        raise TypeError(f"`{name}` (a {type(value).__name__}) must be a function.")
    return value


def require_type(name: str, value: object, kind: type) -> object:
    """Return `value` if it is an instance of `kind`."""
    if not isinstance(value, kind):
        article = "an" if kind.__name__[0] in "AEIO" else "a"
        raise TypeError(f"`{name}` (a {type(value).__name__}) must be {article} {kind.__name__}.")
    return value


def require_sequence(name: str, value: object, *, of: str, empty: bool = False) -> Sequence:
    """Return `value` if it is a list, tuple or array that holds at least one entry, or is `empty`.

    `of` names the entries in the message; their own check is the caller's.
    """
    listlike = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
    if not listlike and not (isinstance(value, np.ndarray) and value.ndim > 0):
        raise TypeError(f"`{name}` (a {type(value).__name__}) must be a list of {of}.")
    if len(value) == 0 and not empty:
        raise ValueError(f"`{name}` (={value!r}) must hold at least one entry.")
    return value


def require_instances(name: str, value: object, kind: type) -> Sequence:
    """Return `value` if it is a list of at least one instance of `kind`."""
    for k, entry in enumerate(require_sequence(name, value, of=f"{kind.__name__}s")):
        require_type(f"{name}[{k}]", entry, kind)
    return value


def require_labelled_lists(name: str, value: object, kind: type) -> Mapping:
    """Return `value` if it maps at least one label to a list of instances of `kind`."""
    if not isinstance(value, Mapping) or not value:
        raise ValueError(
            f"`{name}` (={value!r}) must map at least one label to {kind.__name__}s."
        )
    for label, entries in value.items():
        require_instances(f"{name}[{label!r}]", entries, kind)
    return value


def require_labelled(name: str, value: object, kind: type) -> Mapping:
    """Return `value` if it maps at least one label to instances of `kind`."""
    if not isinstance(value, Mapping) or not value:
        raise ValueError(f"`{name}` (={value!r}) must map at least one label to a {kind.__name__}.")
    for label, entry in value.items():
        require_type(f"{name}[{label!r}]", entry, kind)
    return value


def require_choice(name: str, value: object, choices: Iterable[str]) -> str:
    """Return `value` if it is one of `choices`."""
    allowed = tuple(choices)
    if not isinstance(value, str):
        raise TypeError(f"`{name}` (={value!r}) must be a string, one of {', '.join(allowed)}.")
    if value not in allowed:
        raise ValueError(f"`{name}` (={value!r}) must be one of {', '.join(allowed)}.")
    return value


def require_array(
    name: str,
    value: object,
    *,
    ndim: int | None = None,
    shape: tuple[int | None, ...] | None = None,
    finite: bool = True,
) -> np.ndarray:
    """Return `value` as a float64 array of the stated rank or shape (`None` matches any size)."""
    try:
        array = np.asarray(value)
        if array.dtype.kind not in "biuf" and array.size > 0:  # nor strings that look like numbers
            raise TypeError(f"dtype {array.dtype}")
        array = array.astype(np.float64, copy=False)
    except (TypeError, ValueError, OverflowError, RuntimeError) as error:
        raise TypeError(f"`{name}` (={value!r}) must be an array of real numbers.") from error
    expected = ndim if shape is None else len(shape)
    if expected is not None and array.ndim != expected:
        raise ValueError(f"`{name}` (shape {array.shape}) must have {expected} dimension(s).")
    if shape is not None:
        agrees = all(
            want is None or have == want for have, want in zip(array.shape, shape, strict=True)
        )
        if not agrees:
            wanted = ", ".join("any" if s is None else str(s) for s in shape)
            wanted = f"({wanted},)" if len(shape) == 1 else f"({wanted})"
            raise ValueError(f"`{name}` (shape {array.shape}) must have shape {wanted}.")
    if array.size == 0:
        raise ValueError(f"`{name}` (shape {array.shape}) must not be empty.")
    if finite and not np.all(np.isfinite(array)):
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
        raise ValueError(f"`{name}` (={array[first]} at index {first}) must be finite everywhere.")
    return array


def require_no_nan(name: str, array: np.ndarray) -> None:
    """Raise ValueError, with the place, if an array of real numbers holds a NaN."""
    if np.isnan(array).any():
        first = tuple(int(i) for i in np.argwhere(np.isnan(array))[0])
        raise ValueError(f"`{name}` (=nan at index {first}) must hold no NaN.")


def require_labels(
    name: str, value: object, *, shape: tuple[int, ...], classes: int
) -> np.ndarray:
    """Return integer class labels of the given shape, each in 0..classes-1."""
    try:
        labels = np.asarray(value)
    except (TypeError, ValueError, RuntimeError) as error:
        raise TypeError(f"`{name}` (={value!r}) must hold integer class labels.") from error
    if labels.shape != shape:
        raise ValueError(f"`{name}` (shape {labels.shape}) must have shape {shape}.")
    if not np.issubdtype(labels.dtype, np.integer):
        raise TypeError(f"`{name}` (dtype {labels.dtype}) must hold integer class labels.")
    if labels.min() < 0 or labels.max() >= classes:
        raise ValueError(
            f"`{name}` (values {labels.min()} to {labels.max()}) must lie in 0..{classes - 1}."
        )
    return labels.astype(np.int64)
