"""Redis's glob patterns, on bytes. `fnmatch` differs from them: negation is `^`, and a backslash escapes."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache

MAX_PATTERN_BYTES = 1024
"""Longer patterns match nothing sensible, and the time of a match grows with pattern times key."""


@lru_cache(maxsize=64)
def glob_matcher(pattern: bytes) -> Callable[[bytes], object]:
    """
    A function that is true of the keys `pattern` matches, whole.

    `*` any bytes, `?` one byte, `[a-z]` one of, `[^a]` none of, `\\` takes the next byte as it is. A class that is not
    closed ends with the pattern, as in Redis.
    Cost of a match: at most length of the pattern times length of the key, whatever the number of stars, because a
    segment between two stars is looked for once, from the left, and never tried again further right.
    """
    if pattern == b"*":
        return _everything
    first, *others = _segments(pattern)
    if not others:
        return re.compile(first, re.DOTALL).fullmatch
    middle = b"".join(b"(?>.*?%b)" % segment for segment in others[:-1] if segment)
    return re.compile(first + middle + b".*" + others[-1], re.DOTALL).fullmatch


def _everything(key: bytes) -> bool:
    return True


def _segments(pattern: bytes) -> list[bytes]:
    """What stands between the stars, as regular expressions; always at least one, which may be empty."""
    segments, position, stop = [b""], 0, len(pattern)
    while position < stop:
        byte = pattern[position : position + 1]
        position += 1
        if byte == b"*":
            segments.append(b"")
        elif byte == b"?":
            segments[-1] += b"."
        elif byte == b"[":
            expression, position = _byte_class(pattern, position)
            segments[-1] += expression
        else:
            if byte == b"\\" and position < stop:
                byte = pattern[position : position + 1]
                position += 1
            segments[-1] += re.escape(byte)
    return segments


def _byte_class(pattern: bytes, position: int) -> tuple[bytes, int]:
    """(a regular expression for the class that starts behind its bracket, the position behind it)."""
    negated = pattern[position : position + 1] == b"^"
    position += negated
    members: set[int] = set()
    stop = len(pattern)
    while position < stop and pattern[position] != 0x5D:
        if pattern[position] == 0x5C and position + 1 < stop:
            members.add(pattern[position + 1])
            position += 2
        elif position + 2 < stop and pattern[position + 1] == 0x2D:
            low, high = sorted((pattern[position], pattern[position + 2]))
            members.update(range(low, high + 1))
            position += 3
        else:
            members.add(pattern[position])
            position += 1
    if not members:
        return (b"." if negated else b"(?!)"), position + 1
    listed = b"".join(b"\\x%02x" % member for member in sorted(members))
    return (b"[^%b]" if negated else b"[%b]") % listed, position + 1
