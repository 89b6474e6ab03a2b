"""What a session can keep of a machine's results, and what it says of what it cannot."""

from __future__ import annotations

import enum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from txraft.answers import (
    MAX_ANSWER_BYTES,
    MAX_DEPTH,
    NotKeepable,
    decode_answer,
    encode_answer,
    encode_refusal,
)

SCALARS = st.none() | st.booleans() | st.integers() | st.binary() | st.text(st.characters())
VALUES = st.recursive(SCALARS, lambda inner: st.lists(inner).map(tuple), max_leaves=20)


class Color(enum.IntEnum):
    RED = 1


def show(value: object) -> str:
    """With the type of everything: 1 is not True."""
    return f"{type(value).__name__} {value!r}"


@given(VALUES)
def test_what_is_kept_comes_back_as_it_was(value):
    assert show(decode_answer(encode_answer(value))) == show(value)


@pytest.mark.parametrize("value", [0, -1, 255, -256, 2**64, -(2**200), "\ud800", b"", "", ()])
def test_edges_come_back_as_they_were(value):
    assert show(decode_answer(encode_answer(value))) == show(value)


@pytest.mark.parametrize(
    ("value", "why"),
    [
        (1.0, "type float"),
        ({}, "type dict"),
        ([1], "type list cannot be kept, as it can change: answer with a tuple"),
        ((1, [2]), "type list"),
        ((1, (2, object())), "type object"),
        (Color.RED, "type Color"),
        (bytearray(b"x"), "type bytearray"),
        (b"x" * MAX_ANSWER_BYTES, "more than 65536 bytes"),
        ((None,) * MAX_ANSWER_BYTES, "more than 65536 bytes"),
    ],
)
def test_what_cannot_be_kept_is_named(value, why):
    with pytest.raises(NotKeepable, match=why) as caught:
        encode_answer(value)
    kept = decode_answer(encode_refusal(caught.value))
    assert isinstance(kept, NotKeepable)
    assert str(kept) == str(caught.value)


def test_an_integer_without_end_is_named_too():
    with pytest.raises(NotKeepable, match="more than 65536 bytes"):
        encode_answer(1 << 8 * MAX_ANSWER_BYTES)


def test_tuples_within_tuples_have_a_bound():
    value: object = None
    for _ in range(MAX_DEPTH):
        value = (value,)
    assert decode_answer(encode_answer(value)) == value
    with pytest.raises(NotKeepable, match="16 tuples in each other"):
        encode_answer((value,))


def test_every_cut_and_every_byte_too_many_is_an_error():
    whole = encode_answer((1, b"ab", "c", (None, True)))
    for stop in range(len(whole)):
        with pytest.raises(ValueError, match="answer"):
            decode_answer(whole[:stop])
    for wrong in (whole + b"N", b"?", b"z\0\0\0\0"):
        with pytest.raises(ValueError, match="answer"):
            decode_answer(wrong)
