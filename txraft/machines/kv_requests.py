"""
Requests out of a byte stream that speaks two dialects: the Redis protocol, and the original's plain lines.

No I/O. A request that starts with `*` is Redis's, anything else is a line; that is decided anew for every request.
hiredis parses the Redis requests, but it neither says where in the stream it stands nor bounds what a header makes it
allocate. Both are done here, with a few C-level passes over a whole read and no Python step per request.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

import hiredis

Request = list[bytes] | bytes
"""A Redis request is its arguments, at least one; a line is its bytes without its end."""

_STAR = 0x2A
# A header that makes hiredis allocate a list of ten elements or more at once, or that may still become one.
_LIST_HEADER = re.compile(rb"\*(?:\d{2,10}|\d?\Z)")
_LIST_OR_PUSH_HEADER = re.compile(rb"[*>](?:\d{2,10}|\d?\Z)")
_HEADER_BYTES = 11
_MIN_ARGUMENT_BYTES = 6
# Where the dialects alternate within one read, what follows a line is parsed in steps of this size, so that a read of
# many alternations does not cost its length once for each of them.
_STEP_BYTES = 512
_DIGITS = bytes(len(str(length)) for length in range(1 << 16))


class BrokenStream(Exception):
    """What follows cannot be understood: nobody knows where the next request begins. Says what to tell the client."""


class RequestSplitter:
    """
    The requests of one connection.

    `max_request_bytes` bounds what is kept of a request that is not complete, and what its header may promise.
    """

    def __init__(self, max_request_bytes: int) -> None:
        self._max_request_bytes = max_request_bytes
        self._reader = hiredis.Reader()
        # Bytes of an incomplete Redis request that the reader holds; if 0, the next byte begins a request.
        self._unfinished = 0
        # Bytes that follow those: an incomplete line, or what may become a header that must be looked at first.
        self._kept = b""

    def split(self, data: bytes, requests: list[Request]) -> None:
        """
        Append to `requests` all that are complete now.

        @raise BrokenStream: after the requests before that point were appended.
        """
        if not self._kept and not self._unfinished and self._take_lone_array(data, requests):
            return
        if self._kept:
            data = self._kept + data
        position, step = 0, len(data)
        while position < len(data):
            if self._unfinished or data[position] == _STAR:
                taken = self._take_arrays(data[position : position + step], requests)
            else:
                taken = self._take_lines(data, position, requests)
                step = _STEP_BYTES
            if not taken:
                break
            position += taken
        self._kept = data[position:]
        if self._unfinished + len(self._kept) > self._max_request_bytes:
            raise BrokenStream(f"Protocol error: request longer than {self._max_request_bytes} bytes")

    def _take_lone_array(self, data: bytes, requests: list[Request]) -> bool:
        """
        Take `data` if it is one whole Redis request and nothing else, which is what a client without a pipeline sends.

        False if it is not, or not surely: then nothing was done.
        """
        # One header, of one digit: hiredis is led to allocate nothing that is not there.
        if data[:1] != b"*" or data[2:4] != b"\r\n" or b"\n*" in data or b">" in data:
            return False
        reader = self._reader
        try:
            reader.feed(data)
            value: Any = reader.gets()
            if value and not reader.has_data() and _is_request(value):
                requests.append(value)
                return True
        except (hiredis.HiredisError, TypeError, ValueError):
            pass
        self._reader = hiredis.Reader()
        return False

    def _take_lines(self, data: bytes, start: int, requests: list[Request]) -> int:
        """Take complete lines up to the next `*` at the start of one; answer the number of bytes taken."""
        position = start
        while position < len(data) and data[position] != _STAR:
            stop = data.find(b"\n", position)
            if stop < 0:
                break
            requests.append(data[position:stop].removesuffix(b"\r"))
            position = stop + 1
        return position - start

    def _take_arrays(self, data: bytes, requests: list[Request]) -> int:
        """
        Give `data` to hiredis, but not a line that follows the arrays in it; answer the number of bytes taken.

        @raise BrokenStream: it is no Redis request although it began as one.
        """
        stop, is_stray = self._feed_guarded(data, requests)
        if 0 < self._unfinished <= stop and data[stop - self._unfinished] != _STAR:
            # The incomplete request begins in this data, and is none of Redis's.
            stop -= self._unfinished
            self._reader, self._unfinished = hiredis.Reader(), 0
            return stop
        if is_stray or self._unfinished < 0:
            raise BrokenStream("Protocol error: expected an array of bulk strings")
        return stop

    def _feed_guarded(self, data: bytes, requests: list[Request]) -> tuple[int, bool]:
        """
        Feed `data` up to each header that could make hiredis allocate much, and look at that before going on.

        Answers the number of bytes fed, and whether hiredis met something else than a Redis request.
        What looks like a header but stands in the middle of an argument is none: then the reader has bytes left over.
        """
        start = 0
        for match in (_LIST_OR_PUSH_HEADER if b">" in data else _LIST_HEADER).finditer(data):
            at = match.start()
            if self._feed(data[start:at], requests):
                return at, True
            start = at
            if match.end() == len(data) and match.end() - at < _HEADER_BYTES:
                return at, False
            if self._reader.has_data():
                continue
            if self._unfinished:
                raise BrokenStream("Protocol error: expected '$'")
            if data[at] != _STAR:
                return at, False
            if int(match[0][1:]) * _MIN_ARGUMENT_BYTES > self._max_request_bytes:
                raise BrokenStream("Protocol error: invalid multibulk length")
        return len(data), self._feed(data[start:], requests)

    def _feed(self, data: bytes, requests: list[Request]) -> bool:
        """True if hiredis met something else than an array of bulk strings; what was before it is in `requests`."""
        values: list[Any] = []
        is_stray = False
        self._reader.feed(data)
        try:
            # extend keeps what came before an error.
            values.extend(iter(self._reader.gets, False))
        except (hiredis.HiredisError, TypeError, ValueError):
            is_stray = True
        if not _are_all(list, values) or not _are_all(bytes, chain.from_iterable(values)):
            is_stray = True
            del values[next(at for at, value in enumerate(values) if not _is_request(value)) :]
        self._unfinished += len(data) - _wire_bytes(values)
        requests += filter(None, values)
        return is_stray


def _are_all(kind: type, values: Any) -> bool:
    return not set(map(type, values)) - {kind}


def _is_request(value: Any) -> bool:
    return type(value) is list and _are_all(bytes, value)


def _wire_bytes(arrays: Sequence[list[bytes]]) -> int:
    """How long `arrays` are on the wire: `*<n>CRLF` each, and `$<length>CRLF` and `CRLF` around each argument."""
    lengths = list(map(len, chain.from_iterable(arrays)))
    counts = list(map(len, arrays))
    return sum(lengths) + 5 * len(lengths) + _sum_digits(lengths) + 3 * len(counts) + _sum_digits(counts)


def _sum_digits(numbers: list[int]) -> int:
    try:
        return sum(map(_DIGITS.__getitem__, numbers))
    except IndexError:
        return sum(len(str(number)) for number in numbers)
