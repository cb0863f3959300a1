r"""Plain data: what a graded answer may consist of, and its form in bytes.

Answers cross from a student's process into one that trusts nobody, so they are data and never
objects: None, bool, int, float, str, lists, dicts with string keys, and NumPy arrays of booleans,
integers and floats. `to_plain` makes plain data of what a student returns (tensors included),
`encode` writes it as JSON, and `decode` reads it back and believes nothing: every shape, dtype,
size and depth is checked, and no byte is ever executed.

This module needs NumPy and nothing else of the course, so that it can be loaded alone.
"""

from __future__ import annotations

import base64
import binascii
import json
import math

import numpy as np

MAX_BYTES = 16_000_000
MAX_DEPTH = 32
MAX_ITEMS = 200_000
MAX_INTEGER_BITS = 1023  # so that every integer is also a finite float
DTYPES = (
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64",
    "float16", "float32", "float64",
)  # fmt: skip
NON_FINITE = {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}


class PlainDataError(ValueError):
    """Bytes that are not the encoding of plain data, or too much of it."""


def type_name(value: object) -> str:
    """Return how to call the type of `value` in a sentence, such as "set" or "torch.Tensor"."""
    kind = type(value)
    root = kind.__module__.split(".")[0]
    return kind.__name__ if root in ("builtins", "__main__") else f"{root}.{kind.__name__}"


def to_plain(value: object) -> object:
    """Return `value` as plain data: tensors as arrays, tuples as lists, subclasses as their base.

    Arguments:
        value: None, bool, int, float, str, list, tuple, dict with str keys, NumPy array or scalar,
            PyTorch, TensorFlow or Keras tensor, or any of these inside one another.

    Raises:
        TypeError: for anything else, with the name of its type.
        ValueError: if it is nested too deeply (or holds itself), holds too many items, an integer
            beyond 1023 bits, or a string that is not Unicode text.
    """
    return _Converter().convert(value, depth=0)


class _Converter:
    """One conversion, which counts the items that it has met."""

    def __init__(self) -> None:
        self.items = 0

    def convert(self, value: object, *, depth: int) -> object:
        self.items += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"lists are nested more than {MAX_DEPTH} deep.")
        if self.items > MAX_ITEMS:
            raise ValueError(f"there are more than {MAX_ITEMS} items.")
        if isinstance(value, (list, tuple)):
            walk = list.__iter__ if isinstance(value, list) else tuple.__iter__
            return [self.convert(entry, depth=depth + 1) for entry in walk(value)]
        if isinstance(value, dict):
            return self.convert_dict(value, depth=depth)
        return _plain_leaf(value)

    def convert_dict(self, value: dict, *, depth: int) -> dict:
        for key in dict.keys(value):
            if not isinstance(key, str):
                raise TypeError(f"the keys of a dict must be strings, not {type_name(key)}.")
        return {
            _plain_string(key): self.convert(entry, depth=depth + 1)
            for key, entry in dict.items(value)
        }


def _plain_leaf(value: object) -> object:
    # The base type's own methods, not the object's: a subclass may claim to equal everything.
    if value is None or value is True or value is False:
        return value
    if isinstance(value, np.generic):
        return _plain_array(np.asarray(value)).item()
    if isinstance(value, int):
        return _plain_integer(int.__int__(value))
    if isinstance(value, float):
        return float.__float__(value)
    if isinstance(value, str):
        return _plain_string(value)
    if isinstance(value, np.ndarray):
        return _plain_array(value)
    tensor = _tensor_to_array(value)
    if tensor is not None:
        return _plain_array(tensor)
    raise TypeError(
        f"a {type_name(value)} is not plain data; numbers, strings, lists, dicts, arrays and "
        "tensors are."
    )


def _plain_integer(value: int) -> int:
    if value.bit_length() > MAX_INTEGER_BITS:
        raise ValueError(f"an integer has more than {MAX_INTEGER_BITS} bits.")
    return value


def _plain_string(value: str) -> str:
    text = str.__str__(value)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a string is not Unicode text (it holds half a surrogate pair).") from None
    return text


def _plain_array(value: np.ndarray) -> np.ndarray:
    """Return an own, native, contiguous array of one of `DTYPES`."""
    if isinstance(value, np.ma.MaskedArray):
        raise TypeError("a masked array is not plain data; fill it first.")
    array = np.ndarray.view(value, np.ndarray)
    if array.dtype.kind == "f" and array.dtype.itemsize > 8:
        array = array.astype(np.float64)
    name = array.dtype.name
    if name not in DTYPES:
        raise TypeError(f"an array of dtype {name} is not plain data; numbers and booleans are.")
    # `ascontiguousarray` would make an array of shape (1,) of one number.
    return np.array(array, dtype=name, order="C", copy=True)


def _tensor_to_array(value: object) -> np.ndarray | None:
    """Return the numbers of a PyTorch, TensorFlow or Keras tensor; None for anything else."""
    roots = {kind.__module__.split(".")[0] for kind in type(value).__mro__}
    try:
        if "torch" in roots and hasattr(value, "detach"):
            dense = value.detach().cpu()
            dense = dense.float() if str(dense.dtype) == "torch.bfloat16" else dense
            return np.asarray(dense.resolve_conj().resolve_neg().numpy())
        if roots & {"tensorflow", "keras"} and hasattr(value, "numpy"):
            array = np.asarray(value.numpy())
            return array.astype(np.float32) if array.dtype.name == "bfloat16" else array
    except Exception as error:
        # A symbolic, sparse or deleted tensor: each framework has its own exception for it.
        raise TypeError(f"a {type_name(value)} without numbers is not plain data.") from error
    return None


def encode(value: object) -> bytes:
    """Return `value`, made plain by `to_plain`, as bytes of JSON; see there for what is raised."""
    text = json.dumps(_tag(to_plain(value)), allow_nan=False, separators=(",", ":"))
    return text.encode("ascii")


def _tag(value: object) -> object:
    """JSON has no arrays with a dtype, no nan, and only one kind of object: tag what is special."""
    if isinstance(value, float) and not math.isfinite(value):
        return {"float": repr(value)}
    if isinstance(value, list):
        return [_tag(entry) for entry in value]
    if isinstance(value, dict):
        return {"dict": {key: _tag(entry) for key, entry in value.items()}}
    if isinstance(value, np.ndarray):
        little = value.astype(value.dtype.newbyteorder("<"), copy=False)
        body = base64.b64encode(little.tobytes()).decode("ascii")
        return {"array": [value.dtype.name, list(value.shape), body]}
    return value


def decode(data: bytes, *, max_bytes: int = MAX_BYTES) -> object:
    """Return the plain data that `data` encodes.

    Arguments:
        data: what `encode` returned, or what somebody claims that it returned.
        max_bytes: the most that is read.

    Raises:
        PlainDataError: if it is too large, not JSON, or not plain data.
    """
    if not isinstance(data, (bytes, bytearray)):
        raise TypeError(f"`data` (a {type(data).__name__}) must be bytes.")
    if len(data) > max_bytes:
        raise PlainDataError(f"{len(data)} bytes are more than the {max_bytes} allowed.")
    try:
        raw = json.loads(
            bytes(data).decode("utf-8"),
            object_pairs_hook=_single_keys,
            parse_constant=_refuse_constant,
        )
        untagged = _untag(raw, depth=0)
        return to_plain(untagged)
    except PlainDataError:
        raise
    except (ValueError, TypeError, RecursionError, MemoryError, OverflowError) as error:
        raise PlainDataError(f"not plain data: {str(error)[:200]}") from None


def _single_keys(pairs: list[tuple[str, object]]) -> dict:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise PlainDataError("a key stands twice in one object.")
    return found


def _refuse_constant(name: str) -> None:
    raise PlainDataError(f"{name} is not JSON.")


def _untag(value: object, *, depth: int) -> object:
    if depth > MAX_DEPTH:
        raise PlainDataError(f"lists are nested more than {MAX_DEPTH} deep.")
    if isinstance(value, list):
        return [_untag(entry, depth=depth + 1) for entry in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise PlainDataError("an object must have exactly one tag.")
    ((tag, body),) = value.items()
    if tag == "dict" and isinstance(body, dict):
        return {key: _untag(entry, depth=depth + 1) for key, entry in body.items()}
    if tag == "float" and isinstance(body, str) and body in NON_FINITE:
        return NON_FINITE[body]
    if tag == "array" and isinstance(body, list) and len(body) == 3:
        return _read_array(*body)
    raise PlainDataError(f"an object with the unknown tag {tag[:40]!r}.")


def _read_array(name: object, shape: object, body: object) -> np.ndarray:
    if not isinstance(name, str) or name not in DTYPES:
        raise PlainDataError("an array of an unknown dtype.")
    if not isinstance(shape, list) or len(shape) > MAX_DEPTH:
        raise PlainDataError("an array without a shape.")
    if not all(type(size) is int and 0 <= size <= MAX_BYTES for size in shape):
        raise PlainDataError("an array with an impossible shape.")
    if not isinstance(body, str):
        raise PlainDataError("an array without numbers.")
    try:
        raw = base64.b64decode(body.encode("ascii"), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise PlainDataError("the numbers of an array are not base64.") from None
    dtype = np.dtype(name).newbyteorder("<")
    if len(raw) != math.prod(shape) * dtype.itemsize:
        raise PlainDataError(f"an array of shape {tuple(shape)} with {len(raw)} bytes.")
    if name == "bool" and raw.strip(b"\x00\x01"):
        raise PlainDataError("a boolean that is neither true nor false.")
    return np.frombuffer(raw, dtype=dtype).reshape(shape).astype(name)
