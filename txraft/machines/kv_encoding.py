"""
How the kv machine's commands and read requests look as bytes. Commands are in the replicated log: never change one.

The first byte says what it is. Behind it are either *fields* (each a big-endian uint32 length and that many bytes), or
a *key and rest*: one field, the key, and then everything up to the end. `unpack_*` are total: any bytes give a value
or `CorruptCommand`.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum, IntFlag
from struct import Struct

_LENGTH = Struct(">I")
_INCREMENT = Struct(">q")
_SCAN = Struct(">QI")
_HEAD = Struct(">BI")

MIN_INTEGER = -(2**63)
MAX_INTEGER = 2**63 - 1


class Op(IntEnum):
    """First byte of a command in the log. The numbers are on disk."""

    SET = 1  # key, rest = value
    SET_WITH = 2  # key, rest = one byte of SetFlag and the value
    SET_NEW = 3  # key, rest = value
    SET_MANY = 4  # fields: key, value, key, value...
    DELETE = 5  # fields: keys
    INCREMENT = 6  # key, rest = int64
    APPEND = 7  # key, rest = uint32, the longest value allowed, and what to append
    FLUSH = 8  # nothing


class SetFlag(IntFlag):
    """Conditions of SET_WITH; the numbers are on disk."""

    IF_ABSENT = 1
    IF_PRESENT = 2
    RETURN_OLD = 4


class Ask(IntEnum):
    """First byte of a read request. Never stored."""

    GET = 1  # the rest is the key
    GET_MANY = 2  # fields: keys
    EXISTS = 3  # fields: keys
    LENGTH = 4  # the rest is the key
    TYPE = 5  # the rest is the key
    SIZE = 6  # nothing
    KEYS = 7  # the rest is the pattern
    SCAN = 8  # uint64 cursor, uint32 count, pattern


GET_PREFIX = bytes([Ask.GET])


class CorruptCommand(ValueError):
    """Bytes that this version cannot read."""


def pack_keyed(op: Op, key: bytes, rest: bytes) -> bytes:
    """A command of one key and what belongs to it."""
    return _HEAD.pack(op, len(key)) + key + rest


MAX_OVERHEAD_BYTES = 9
"""What a command adds to one key and one value at most: SET_MANY its lengths, APPEND its limit."""


def pack_set(key: bytes, value: bytes) -> bytes:
    """`pack_keyed(Op.SET, ...)`, which the busiest path calls for every request."""
    return _HEAD.pack(1, len(key)) + key + value


def unpack_keyed(command: bytes) -> tuple[bytes, bytes]:
    """(key, rest)."""
    if len(command) < 5:
        raise CorruptCommand("too short")
    stop = 5 + _LENGTH.unpack_from(command, 1)[0]
    if stop > len(command):
        raise CorruptCommand("the key is longer than the command")
    return command[5:stop], command[stop:]


def pack_fields(op: Op | Ask, fields: Sequence[bytes]) -> bytes:
    """A command or request of any number of fields."""
    pack = _LENGTH.pack
    parts = [bytes([op])]
    for field in fields:
        parts += (pack(len(field)), field)
    return b"".join(parts)


def unpack_fields(command: bytes) -> list[bytes]:
    """The fields behind the first byte."""
    fields = []
    start, end = 1, len(command)
    while start < end:
        if start + 4 > end:
            raise CorruptCommand("cut in a length")
        stop = start + 4 + _LENGTH.unpack_from(command, start)[0]
        if stop > end:
            raise CorruptCommand("a field is longer than the command")
        fields.append(command[start + 4 : stop])
        start = stop
    return fields


def pack_set_with(key: bytes, value: bytes, flags: SetFlag) -> bytes:
    """SET under conditions, or one that answers the old value."""
    return pack_keyed(Op.SET_WITH, key, bytes([flags]) + value)


def unpack_set_with(command: bytes) -> tuple[bytes, bytes, SetFlag]:
    """(key, value, flags)."""
    key, rest = unpack_keyed(command)
    if not rest or rest[0] > 7:
        raise CorruptCommand("flags missing or unknown")
    return key, rest[1:], SetFlag(rest[0])


def pack_increment(key: bytes, amount: int) -> bytes:
    """`amount` fits into 64 bits, signed."""
    return pack_keyed(Op.INCREMENT, key, _INCREMENT.pack(amount))


def unpack_increment(command: bytes) -> tuple[bytes, int]:
    """(key, amount)."""
    key, rest = unpack_keyed(command)
    if len(rest) != _INCREMENT.size:
        raise CorruptCommand("an increment has 8 bytes")
    return key, _INCREMENT.unpack(rest)[0]


def pack_append(key: bytes, addition: bytes, max_value_bytes: int) -> bytes:
    """The limit travels with the command, so that every server decides alike whatever its own configuration says."""
    return pack_keyed(Op.APPEND, key, _LENGTH.pack(max_value_bytes) + addition)


def unpack_append(command: bytes) -> tuple[bytes, bytes, int]:
    """(key, addition, longest value allowed)."""
    key, rest = unpack_keyed(command)
    if len(rest) < _LENGTH.size:
        raise CorruptCommand("the limit is missing")
    return key, rest[_LENGTH.size :], _LENGTH.unpack_from(rest)[0]


def pack_scan(cursor: int, count: int, pattern: bytes) -> bytes:
    """`cursor` below 2**64, `count` below 2**32; an empty pattern matches no key but the empty one."""
    return bytes([Ask.SCAN]) + _SCAN.pack(cursor, count) + pattern


def unpack_scan(request: bytes) -> tuple[int, int, bytes]:
    """(cursor, count, pattern)."""
    if len(request) < 1 + _SCAN.size:
        raise CorruptCommand("too short")
    cursor, count = _SCAN.unpack_from(request, 1)
    return cursor, count, request[1 + _SCAN.size :]


def parse_integer(text: bytes) -> int | None:
    """A 64-bit integer exactly as Redis writes one (no plus sign, no leading zeros, no spaces); None if it is not."""
    if not 0 < len(text) <= 20 or not text.removeprefix(b"-").isdigit():
        return None
    number = int(text)
    return number if MIN_INTEGER <= number <= MAX_INTEGER and b"%d" % number == text else None
