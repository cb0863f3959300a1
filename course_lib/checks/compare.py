r"""An answer beside the expected one: None if they agree, or one sentence on how they differ.

Everything here takes plain data (`course_lib.plain_data.to_plain`) and never raises for what a
student returned, except `AnswerError`, whose text is the sentence.
"""

from __future__ import annotations

import numpy as np

SHOWN_ENTRIES = 6
SHOWN_TEXT = 60


class AnswerError(ValueError):
    """An answer of the wrong form; the text is a sentence for the student."""


def say_value(value: object) -> str:
    """Return a short text for a value: numbers to six digits, large arrays by their shape."""
    if isinstance(value, np.ndarray):
        return _say_array(value)
    if isinstance(value, bool) or value is None:
        return str(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**12 else f"{float(value):.6g}"
    if isinstance(value, str):
        return repr(value if len(value) <= SHOWN_TEXT else value[:SHOWN_TEXT] + "…")
    if isinstance(value, list):
        if len(value) <= SHOWN_ENTRIES:
            text = f"[{', '.join(say_value(entry) for entry in value)}]"
            if len(text) <= 3 * SHOWN_TEXT:
                return text
        return f"a list of {len(value)}"
    return f"a dict with the keys {', '.join(map(repr, list(value)[:SHOWN_ENTRIES])) or '(none)'}"


def _say_array(array: np.ndarray) -> str:
    if array.ndim == 0:
        return say_value(array.item())
    if array.size <= SHOWN_ENTRIES:
        return say_value(array.tolist())
    return f"an array of shape {array.shape}"


def say_kind(value: object) -> str:
    """Return what kind of thing a value is, for a sentence on the wrong kind."""
    if isinstance(value, np.ndarray):
        return f"an array of shape {value.shape}" if value.ndim else "one number"
    if isinstance(value, bool):
        return str(value)
    if isinstance(value, (int, float)):
        return "one number"
    if isinstance(value, str):
        return f"the text {say_value(value)}"
    if value is None:
        return "nothing (None)"
    if isinstance(value, list):
        return f"a list of {len(value)}"
    return say_value(value)


def as_array(
    answer: object, *, shape: tuple[int | None, ...] | None = None, name: str = "the answer"
) -> np.ndarray:
    """Return an answer as a float64 array of finite numbers, or raise a sentence.

    Arguments:
        answer: plain data.
        shape: what is required; None matches any size.
        name: how the sentence calls it.

    Raises:
        AnswerError: if it is not an array of numbers, not of this shape, or not finite.
    """
    try:
        array = np.asarray(answer)
        if array.dtype.kind not in "biuf":
            raise TypeError
        array = array.astype(np.float64)
    except (TypeError, ValueError, OverflowError):
        raise AnswerError(f"expected {name} as an array, got {say_kind(answer)}.") from None
    if shape is not None:
        agrees = array.ndim == len(shape) and all(
            want in (None, have) for have, want in zip(array.shape, shape, strict=True)
        )
        if not agrees:
            raise AnswerError(
                f"expected {name} with shape {_say_shape(shape)}, got shape {array.shape}."
            )
    if not np.isfinite(array).all():
        raise AnswerError(f"expected {name} with finite numbers, {_first_non_finite(array)}.")
    return array


def as_number(answer: object, *, name: str = "the answer") -> float:
    """Return an answer as one finite float, or raise a sentence."""
    if isinstance(answer, bool):
        raise AnswerError(f"expected {name} as one number, got {answer}.")
    if isinstance(answer, (list, dict, str)) or answer is None or np.ndim(answer) > 0:
        raise AnswerError(f"expected {name} as one number, got {say_kind(answer)}.")
    return float(as_array(answer, shape=(), name=name))


def as_arrays(
    answer: object, count: int, *, shape: tuple[int | None, ...], name: str
) -> list[np.ndarray]:
    """Return an answer as a list of `count` arrays of one shape, or raise a sentence."""
    if isinstance(answer, np.ndarray) and answer.ndim > 0:
        answer = list(answer)
    if not isinstance(answer, list) or len(answer) != count:
        raise AnswerError(f"expected a list of {count} {name}, got {say_kind(answer)}.")
    return [
        as_array(entry, shape=shape, name=f"entry {index} of the {name}")
        for index, entry in enumerate(answer)
    ]


def as_choice(answer: object, choices: tuple[str, ...], *, name: str = "the answer") -> str:
    """Return an answer as one of some words, whatever its case, or raise a sentence."""
    if isinstance(answer, str) and answer.strip().casefold() in choices:
        return answer.strip().casefold()
    raise AnswerError(f"expected {name} as one of {', '.join(choices)}, got {say_value(answer)}.")


def _say_shape(shape: tuple[int | None, ...]) -> str:
    wanted = ", ".join("any" if size is None else str(size) for size in shape)
    return f"({wanted},)" if len(shape) == 1 else f"({wanted})"


def _first_non_finite(array: np.ndarray) -> str:
    place = tuple(int(i) for i in np.argwhere(~np.isfinite(array))[0])
    where = f" at entry {list(place)}" if place else ""
    return f"got {array[place]}{where}"


def compare(answer: object, expected: object, *, rtol: float, atol: float) -> str | None:
    """Return None if `answer` is `expected` within the tolerance, else a sentence.

    Arguments:
        answer, expected: plain data. Where numbers are expected, a list of numbers does for an
            array, and an integer for a float; where True and False are expected, nothing else does.
        rtol, atol: an entry is right if |answer - expected| <= atol + rtol |expected|.

    Returns:
        A sentence that starts in lower case: "expected 0.25, got 0.5 at entry [0, 1]."
    """
    if isinstance(expected, dict):
        return _compare_dicts(answer, expected, rtol=rtol, atol=atol)
    if isinstance(expected, list):
        return _compare_lists(answer, expected, rtol=rtol, atol=atol)
    if isinstance(expected, str):
        agrees = isinstance(answer, str) and answer.strip().casefold() == expected.casefold()
        return None if agrees else f"expected {say_value(expected)}, got {say_value(answer)}."
    if expected is None:
        return None if answer is None else f"expected None, got {say_value(answer)}."
    return _compare_arrays(answer, np.asarray(expected), rtol=rtol, atol=atol)


def _compare_dicts(answer: object, expected: dict, *, rtol: float, atol: float) -> str | None:
    if not isinstance(answer, dict):
        return f"expected {say_value(expected)}, got {say_kind(answer)}."
    if answer.keys() != expected.keys():
        return f"expected {say_value(expected)}, got {say_value(answer)}."
    for key, wanted in expected.items():
        if found := compare(answer[key], wanted, rtol=rtol, atol=atol):
            return f"under the key {key!r}: {found}"
    return None


def _compare_lists(answer: object, expected: list, *, rtol: float, atol: float) -> str | None:
    if isinstance(answer, np.ndarray) and answer.ndim > 0:
        answer = [entry if entry.ndim else entry.item() for entry in map(np.asarray, answer)]
    if not isinstance(answer, list):
        return f"expected a list of {len(expected)}, got {say_kind(answer)}."
    if len(answer) != len(expected):
        return f"expected a list of {len(expected)}, got one of {len(answer)}."
    for index, (own, wanted) in enumerate(zip(answer, expected, strict=True)):
        if found := compare(own, wanted, rtol=rtol, atol=atol):
            return f"in place {index} of the list: {found}"
    return None


def _compare_arrays(
    answer: object, expected: np.ndarray, *, rtol: float, atol: float
) -> str | None:
    try:
        array = np.asarray(answer)
    except ValueError:  # a list of lists of different lengths
        return f"expected {say_kind(expected)}, got lists of different lengths."
    if array.dtype.kind not in "biuf":
        return f"expected {say_kind(expected)}, got {say_kind(answer)}."
    if array.shape != expected.shape:
        return f"expected {_say_form(expected)}, got {_say_form(array)}."
    wants_truth, is_truth = expected.dtype.kind == "b", array.dtype.kind == "b"
    if wants_truth != is_truth and array.size:
        wanted, got = ("True or False", "numbers") if wants_truth else ("numbers", "True or False")
        return f"expected {wanted}, got {got}."
    if wants_truth:
        wrong = array != expected
    else:
        wrong = _differs(array.astype(np.float64), expected.astype(np.float64), rtol, atol)
    return _say_difference(array, expected, wrong) if wrong.any() else None


def _say_form(array: np.ndarray) -> str:
    return f"shape {array.shape}" if array.ndim else "one number"


def _differs(answer: np.ndarray, expected: np.ndarray, rtol: float, atol: float) -> np.ndarray:
    with np.errstate(all="ignore"):
        close = np.abs(answer - expected) <= atol + rtol * np.abs(expected)
    same = (answer == expected) | (np.isnan(answer) & np.isnan(expected))
    return ~((close & np.isfinite(expected)) | same)


def _say_difference(array: np.ndarray, expected: np.ndarray, wrong: np.ndarray) -> str:
    """Say the first wrong entry, a nan before all others: it is the cause of what follows."""
    places = np.argwhere(wrong & np.isnan(array)) if array.dtype.kind == "f" else []
    places = places if len(places) else np.argwhere(wrong)
    place = tuple(int(i) for i in places[0])
    wanted, got = say_value(expected[place].item()), say_value(array[place].item())
    if wanted == got:
        wanted, got = f"{expected[place].item():.15g}", f"{array[place].item():.15g}"
    if not array.ndim:
        return f"expected {wanted}, got {got}."
    rest = int(wrong.sum())
    more = f" ({rest} of {array.size} entries differ)" if rest > 1 else ""
    return f"expected {wanted} at entry {list(place)}, got {got}{more}."
