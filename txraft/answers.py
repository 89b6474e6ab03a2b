"""
A result of a state machine as bytes, for the table of sessions: every server keeps the same ones, also in snapshots.

`None`, `bool`, `int`, `bytes`, `str`, and tuples of them, of exactly these types. One letter, then:

    N  T  F        None, True, False
    i  b  s        4 bytes, the length; an integer (two's complement, the highest byte first), bytes, or UTF-8
    t              4 bytes, how many; so many of these, one behind the other: a tuple

Nothing that can change: a machine that answers with a list of its own would have changed it on one server before it is
kept, and not on another, as they give their machines different numbers of commands at a time.

The first letter of what stands for a result that cannot be kept is `!`, and the rest says why, in UTF-8.
"""

from __future__ import annotations

import struct
from collections.abc import Callable

MAX_ANSWER_BYTES = 64 << 10
MAX_DEPTH = 16
"""How many tuples may be in each other. The two bounds decide what is kept: the same on all servers."""

_LENGTH = struct.Struct(">I")
_CONSTANTS: dict[object, bytes] = {None: b"N", True: b"T", False: b"F"}
_OF_CONSTANTS = {letter[0]: value for value, letter in _CONSTANTS.items()}


class NotKeepable(ValueError):
    """No session keeps such a result. Says why, in the same words on every server."""


def encode_answer(result: object) -> bytes:
    """@raise NotKeepable: it is of another type, or above one of the bounds."""
    parts: list[bytes] = []
    _encode(result, parts, MAX_ANSWER_BYTES, 0)
    return b"".join(parts)


def encode_refusal(why: NotKeepable) -> bytes:
    """What is kept in place of a result that cannot be."""
    return b"!" + str(why).encode()


def _encode(result: object, parts: list[bytes], room: int, depth: int) -> int:
    """Add the parts of `result`, which may have `room` bytes; how many are left."""
    kind = type(result)
    if isinstance(result, tuple) and kind is tuple:
        if depth == MAX_DEPTH:
            raise NotKeepable(f"a result of more than {MAX_DEPTH} tuples in each other cannot be kept")
        room = _add(parts, b"t" + _LENGTH.pack(len(result)), room)
        for item in result:
            room = _encode(item, parts, room, depth + 1)
        return room
    if kind is bool or result is None:
        return _add(parts, _CONSTANTS[result], room)
    if isinstance(result, int) and kind is int:
        return _add_content(parts, b"i", result.to_bytes(result.bit_length() // 8 + 1, signed=True), room)
    if isinstance(result, bytes) and kind is bytes:
        return _add_content(parts, b"b", result, room)
    if isinstance(result, str) and kind is str:
        return _add_content(parts, b"s", result.encode("utf-8", "surrogatepass"), room)
    hint = ", as it can change: answer with a tuple" if kind is list else ""
    raise NotKeepable(f"a result of type {kind.__name__} cannot be kept{hint}")


def _add_content(parts: list[bytes], letter: bytes, content: bytes, room: int) -> int:
    return _add(parts, letter + _LENGTH.pack(len(content) & 0xFFFFFFFF) + content, room)


def _add(parts: list[bytes], part: bytes, room: int) -> int:
    if len(part) > room:
        raise NotKeepable(f"a result that takes more than {MAX_ANSWER_BYTES} bytes cannot be kept")
    parts.append(part)
    return room - len(part)


def decode_answer(data: bytes) -> object:
    """
    What was encoded: an equal result, or a `NotKeepable` (not raised) if that was what was kept.

    @raise ValueError: it is neither.
    """
    try:
        if data[:1] == b"!":
            return NotKeepable(data[1:].decode())
        value, stop = _decode(data, 0, 0)
    except (IndexError, struct.error) as error:
        raise ValueError(f"an answer that ends too soon: {error}") from None
    if stop != len(data):
        raise ValueError(f"an answer of {stop} bytes in {len(data)}")
    return value


def _decode(data: bytes, at: int, depth: int) -> tuple[object, int]:
    letter = data[at]
    if letter in _OF_CONSTANTS:
        return _OF_CONSTANTS[letter], at + 1
    (length,) = _LENGTH.unpack_from(data, at + 1)
    at += 1 + _LENGTH.size
    if letter == ord("t"):
        if depth == MAX_DEPTH:
            raise ValueError(f"an answer of more than {MAX_DEPTH} tuples in each other")
        items = []
        for _ in range(length):
            item, at = _decode(data, at, depth + 1)
            items.append(item)
        return tuple(items), at
    if letter not in _CONTENTS:
        raise ValueError(f"an answer of an unknown kind, {data[at - 5 : at - 4]!r}")
    content = data[at : at + length]
    if len(content) < length:
        raise ValueError(f"an answer that ends after {len(content)} of {length} bytes")
    return _CONTENTS[letter](content), at + length


_CONTENTS: dict[int, Callable[[bytes], object]] = {
    ord("i"): lambda content: int.from_bytes(content, signed=True),
    ord("b"): bytes,
    ord("s"): lambda content: content.decode("utf-8", "surrogatepass"),
}
