"""Plain data comes back as it was sent; anything else is refused in a sentence."""

import base64
import contextlib
import json
import math
import subprocess
import sys
from collections import namedtuple
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp

from course_lib import plain_data
from course_lib.plain_data import DTYPES, PlainDataError, decode, encode, to_plain

# Characters that UTF-8 can write; half a surrogate pair is not one of them.
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
ARRAYS = st.sampled_from(DTYPES).flatmap(
    lambda name: hnp.arrays(np.dtype(name), hnp.array_shapes(min_dims=0, min_side=0, max_side=4))
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**1000), 2**1000), st.floats(), TEXT, ARRAYS
)
PLAIN = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4)
)


def same(left, right):
    """Equal in value, type, dtype and shape, with nan equal to itself."""
    if type(left) is not type(right):
        return False
    if isinstance(left, np.ndarray):
        return left.dtype == right.dtype and np.array_equal(
            left, right, equal_nan=left.dtype.kind == "f"
        )
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[k], right[k]) for k in left)
    if isinstance(left, float):
        if math.isnan(left):
            return math.isnan(right)
        return left == right and math.copysign(1, left) == math.copysign(1, right)
    return left == right


@given(PLAIN)
def test_plain_data_comes_back_as_it_was_sent(value):
    assert same(decode(encode(value)), value)
    assert encode(decode(encode(value))) == encode(value)


def test_same_distinguishes_what_it_should():
    assert not same(1, True)
    assert not same(0.0, -0.0)
    assert not same(np.zeros(2), np.zeros(2, dtype=np.float32))


def test_subclasses_become_their_base():
    class Always(float):
        def __eq__(self, other):
            return True

        __hash__ = float.__hash__

    class Sly(list):
        def __iter__(self):
            return iter([42])

    Pair = namedtuple("Pair", "left right")
    plain = to_plain([Always(2.0), Sly([1, 2]), Pair(3, np.float32(0.5)), np.bool_(True)])
    assert plain == [2.0, [1, 2], [3, 0.5], True]
    assert [type(entry) for entry in plain] == [float, list, list, bool]
    assert type(plain[2][1]) is float


def test_arrays_are_own_copies_in_native_order():
    big = np.arange(6, dtype=">f8").reshape(2, 3)[:, ::-1]
    plain = to_plain(big)
    assert plain.dtype == np.float64
    assert plain.dtype.isnative
    assert np.array_equal(plain, big)
    big[:] = 0
    assert plain[0, 0] == 2
    assert to_plain(np.longdouble(2) * np.ones(1)).dtype == np.float64


@pytest.mark.parametrize("framework", ["torch", "tensorflow"])
def test_tensors_become_arrays(framework):
    library = pytest.importorskip(framework)
    if framework == "torch":
        weight = library.nn.Parameter(library.arange(3.0))
        found = to_plain([weight, weight * 2, weight.to(library.bfloat16), library.tensor(True)])
    else:
        weight = library.Variable([0.0, 1.0, 2.0])
        tensor = weight + 0.0
        found = to_plain(
            [weight, tensor * 2, library.cast(tensor, library.bfloat16), library.constant(True)]
        )
    assert [entry.dtype.name for entry in found] == ["float32"] * 3 + ["bool"]
    assert np.array_equal(found[0], [0, 1, 2])
    assert np.array_equal(found[1], [0, 2, 4])
    assert found[3].shape == ()


def test_keras_variables_become_arrays():
    keras = pytest.importorskip("keras")
    assert np.array_equal(to_plain(keras.Variable([1.0, 2.0])), [1, 2])
    with pytest.raises(TypeError, match="KerasTensor is not plain data"):
        to_plain(keras.Input((3,)))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({1, 2}, "a set is not plain data"),
        (1j, "a complex is not plain data"),
        (b"bytes", "a bytes is not plain data"),
        (object(), "an? object is not plain data"),
        (lambda: 0, "a function is not plain data"),
        (np.array([1j]), "dtype complex128"),
        (np.array(["a"]), "dtype str"),
        (np.array([None]), "dtype object"),
        (np.ma.array([1.0], mask=[True]), "masked"),
        ({1: 2}, "keys of a dict must be strings, not int"),
        (np.datetime64("2020-01-01"), "dtype datetime64"),
    ],
)
def test_other_types_are_named(value, said):
    with pytest.raises(TypeError, match=said):
        to_plain(value)
    with pytest.raises(TypeError, match=said):
        encode([value])


def test_too_much_is_refused(monkeypatch):
    loop = []
    loop.append(loop)
    with pytest.raises(ValueError, match="nested more than 32 deep"):
        to_plain(loop)
    with pytest.raises(ValueError, match="more than 200000 items"):
        to_plain([0] * 200_001)
    with pytest.raises(ValueError, match="more than 1023 bits"):
        to_plain(2**1023)
    with pytest.raises(ValueError, match="not Unicode text"):
        to_plain("\ud800")
    with pytest.raises(PlainDataError, match="more than the 10 allowed"):
        decode(encode([1.0] * 10), max_bytes=10)


def array_of(dtype, shape, raw):
    return json.dumps({"array": [dtype, shape, base64.b64encode(raw).decode()]}).encode()


@pytest.mark.parametrize(
    "data",
    [
        b"", b"{", b"\xff", b"NaN", b"[Infinity]", b"1 2", b'{"a": 1}', b'{"float": "1.0"}',
        b'{"dict": []}', b'{"dict": {"a": 1, "a": 2}}', b'{"dict": {}, "float": "nan"}',
        b'{"array": []}', b'{"array": ["float64", [1], "AAAA"]}', b'{"array": ["f8", [0], ""]}',
        b'{"array": ["object", [0], ""]}', b'{"array": ["int8", 3, ""]}', b'"\\ud800"',
        b'{"array": ["int8", [-1], ""]}', b'{"array": ["int8", [true], "AA=="]}',
        b'{"array": ["int8", [1], "!!!!"]}', b'{"array": ["int8", [1], "\xc3\xa9"]}',
        b'{"array": ["int8", [1], null]}', b"9" * 5000, b"[" * 100_000, b"[" * 40 + b"]" * 40,
        b'{"dict":{"a":' * 40 + b"1" + b"}}" * 40,
        array_of("bool", [2], b"\x01\x02"), array_of("float64", [2], b"\x00" * 8),
        array_of("int8", [10**9, 10**9, 0, 10**9], b""), array_of("int8", [1] * 40, b"\x00"),
        array_of("int8", [1] * 200, b"\x00"),
    ],
)  # fmt: skip
def test_bytes_that_are_no_plain_data_are_refused(data):
    with pytest.raises(PlainDataError):
        decode(data)


@given(st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_no_bytes_make_decode_raise_anything_else(data):
    with contextlib.suppress(PlainDataError):
        decode(data)


@given(PLAIN, st.data())
def test_no_damaged_encoding_makes_decode_raise_anything_else(value, data):
    sent = bytearray(encode(value))
    place = data.draw(st.integers(0, len(sent) - 1))
    sent[place] = data.draw(st.integers(0, 255))
    try:
        found = decode(bytes(sent))
    except PlainDataError:
        return
    assert same(decode(encode(found)), found)


def test_decode_wants_bytes():
    with pytest.raises(TypeError, match="must be bytes"):
        decode("1")


def test_it_can_be_loaded_alone():
    code = (
        "import sys; sys.path.insert(0, sys.argv[1]); import plain_data; "
        "assert not [m for m in sys.modules if m.startswith('course_lib')]; "
        "print(plain_data.decode(plain_data.encode([1, 2.5])))"
    )
    folder = Path(plain_data.__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[1, 2.5]"
