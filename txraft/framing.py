"""
Frames out of a byte stream: an 8-byte header and a payload.

Header: length of the payload, then its CRC32C, both 32-bit big-endian. An empty payload is not a frame. The checksum
finds what TCP's does not and, more often, a stream that is not ours or has lost its place. No I/O here.
"""

from __future__ import annotations

from struct import Struct

import google_crc32c

_HEADER = Struct(">II")
HEADER_BYTES = _HEADER.size


class FramingError(Exception):
    """The stream cannot be continued: an empty frame, one over the limit, or a wrong checksum. Says which."""


def frame(payload: bytes) -> bytes:
    """The frame of a payload of at least one byte."""
    assert payload, "an empty payload cannot be framed"
    return _HEADER.pack(len(payload), google_crc32c.value(payload)) + payload


class Splitter:
    """
    Turns the chunks of one stream into payloads. What comes out does not depend on how the stream was cut.

    `max_frame_bytes` bounds a payload; it may be raised between two calls. At most one incomplete frame and one chunk
    are held.
    """

    def __init__(self, max_frame_bytes: int) -> None:
        self.max_frame_bytes = max_frame_bytes
        self._held = bytearray()
        # Nothing can come of the held bytes before there are this many: a large frame is looked at twice, not once
        # for each chunk of it.
        self._needed_bytes = HEADER_BYTES

    def feed(self, data: bytes) -> list[bytes]:
        """
        The payloads that `data` completes, oldest first.

        @raise FramingError: the stream is broken. Payloads that this call had found are lost, and the splitter must
            not be used again.
        """
        held = self._held
        if not held and len(data) >= self._needed_bytes:
            return self._split(data)
        held += data
        if len(held) < self._needed_bytes:
            return []
        # A new buffer, because a bytearray cannot shrink while it is being looked at.
        self._held = bytearray()
        return self._split(held)

    def _split(self, data: bytes | bytearray) -> list[bytes]:
        """One pass over `data`; keeps the part of it behind the last whole frame."""
        payloads = []
        view = memoryview(data)
        start, stop = 0, len(data)
        needed_bytes = HEADER_BYTES
        while stop - start >= HEADER_BYTES:
            length, checksum = _HEADER.unpack_from(data, start)
            if not 0 < length <= self.max_frame_bytes:
                raise FramingError(self._length_problem(length))
            payload_start, payload_stop = start + HEADER_BYTES, start + HEADER_BYTES + length
            if payload_stop > stop:
                needed_bytes = HEADER_BYTES + length
                break
            payload = bytes(view[payload_start:payload_stop])
            if google_crc32c.value(payload) != checksum:
                raise FramingError(f"wrong checksum on a frame of {length} bytes")
            payloads.append(payload)
            start = payload_stop
        self._held += view[start:]
        self._needed_bytes = needed_bytes
        return payloads

    def _length_problem(self, length: int) -> str:
        if length == 0:
            return "empty frame"
        return f"frame of {length} bytes, but the limit here is {self.max_frame_bytes}"
