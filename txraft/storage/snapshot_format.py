"""
The bytes of a snapshot file: frames, as `txraft.framing` makes them. No I/O here.

**Header**, the first frame:

    8 bytes  magic
    4        version
    8        index of the last entry that the state is made of
    8        its term
    8        its time, ms since 1970
    8        index of the membership below
    4        length of the cluster id
    ...      cluster id, UTF-8
    ...      the membership in force at the last entry, as it was in the log

**Records**, any number: one byte that says what it is, and the content.

    "s"      a chunk of the table of sessions, see `txraft.sessions`; these come before all others
    "c"      a chunk of the machine's, or the end of one, in the order in which it made them
    "p"      the beginning of a chunk, or its middle: more of it follows

Other letters are left for what a later version has to add; this one refuses them.

**Trailer**, the last frame, and nothing behind it:

    1 byte   "t"
    8        number of frames before this one
    8        number of bytes before this one
    32       BLAKE2b of the payloads before this one, each behind its length in 4 bytes
"""

from __future__ import annotations

import hashlib
import struct
from collections import deque
from collections.abc import Iterator

import attrs

from txraft.core.snapshot import SnapshotMeta
from txraft.framing import HEADER_BYTES, FramingError, Splitter, frame

FORMAT_VERSION = 1
RECORD_BYTES = 1 << 20
"""The most of a chunk that one record holds."""
DIGEST_BYTES = 32

_MAGIC = b"txraftSN"
_HEADER = struct.Struct(">8sIQQQQI")
_TRAILER = struct.Struct(f">cQQ{DIGEST_BYTES}s")
_LENGTH = struct.Struct(">I")
_SESSIONS, _CHUNK, _PART, _TRAILER_MARK = b"s", b"c", b"p", b"t"
# A header's lists of servers may take some room; nothing else that is not a record's content does.
_MAX_FRAME_BYTES = RECORD_BYTES + (1 << 16)
TRAILER_FRAME_BYTES = HEADER_BYTES + _TRAILER.size
OUTLINE_BYTES = HEADER_BYTES + _MAX_FRAME_BYTES


class BadSnapshot(Exception):
    """These bytes are not a whole, intact snapshot. Says what is wrong, and where as far as that can be known."""


class OtherFormat(Exception):
    """An intact header of another version; the argument says which."""


@attrs.frozen
class Trailer:
    """What the last frame says of those before it."""

    frames: int
    size: int
    digest: bytes

    def encode(self) -> bytes:
        return frame(_TRAILER.pack(_TRAILER_MARK, self.frames, self.size, self.digest))

    @classmethod
    def decode(cls, payload: bytes) -> Trailer:
        """@raise BadSnapshot: this is none."""
        if len(payload) != _TRAILER.size:
            raise BadSnapshot(f"a trailer of {len(payload)} bytes")
        _, frames, size, digest = _TRAILER.unpack(payload)
        return cls(frames, size, digest)


def _encode_meta(meta: SnapshotMeta) -> bytes:
    cluster_id = meta.cluster_id.encode()
    numbers = (meta.last_index, meta.last_term, meta.time_ms, meta.membership_index)
    return _HEADER.pack(_MAGIC, FORMAT_VERSION, *numbers, len(cluster_id)) + cluster_id + meta.membership


def _decode_meta(payload: bytes) -> SnapshotMeta:
    if payload[: len(_MAGIC)] != _MAGIC or len(payload) < _HEADER.size:
        raise BadSnapshot("this is not a snapshot of txraft")
    _, version, last_index, last_term, time_ms, membership_index, length = _HEADER.unpack_from(payload)
    if version != FORMAT_VERSION:
        raise OtherFormat(version)
    rest = payload[_HEADER.size :]
    try:
        cluster_id = rest[:length].decode()
    except UnicodeDecodeError:
        raise BadSnapshot("a cluster id that is not text") from None
    if length > len(rest):
        raise BadSnapshot(f"a cluster id of {length} bytes in {len(rest)}")
    return SnapshotMeta(cluster_id, last_index, last_term, time_ms, rest[length:], membership_index)


class _Tally:
    """Frames, bytes and digest of what went by."""

    def __init__(self) -> None:
        self._frames = 0
        self._size = 0
        self._hash = hashlib.blake2b(digest_size=DIGEST_BYTES)

    @property
    def size(self) -> int:
        return self._size

    def add(self, payload: bytes) -> None:
        self._frames += 1
        self._size += HEADER_BYTES + len(payload)
        self._hash.update(_LENGTH.pack(len(payload)))
        self._hash.update(payload)

    def trailer(self) -> Trailer:
        return Trailer(self._frames, self._size, self._hash.digest())


class Encoder:
    """The bytes of one snapshot file, in order: `header`, `sessions` and then `chunk` for each, and `trailer`."""

    def __init__(self, meta: SnapshotMeta) -> None:
        self._meta = meta
        self._tally = _Tally()

    def header(self) -> bytes:
        return self._frame(_encode_meta(self._meta))

    def sessions(self, chunk: bytes) -> bytes:
        """The record of a chunk of the table of sessions."""
        assert len(chunk) <= RECORD_BYTES, len(chunk)
        return self._frame(_SESSIONS + chunk)

    def chunk(self, chunk: bytes) -> Iterator[bytes]:
        """The records of one chunk: one for each `RECORD_BYTES`, and one for an empty chunk."""
        start, last = 0, max(0, len(chunk) - 1) // RECORD_BYTES * RECORD_BYTES
        while start < last:
            yield self._frame(_PART + chunk[start : start + RECORD_BYTES])
            start += RECORD_BYTES
        yield self._frame(_CHUNK + chunk[start:])

    def trailer(self) -> tuple[bytes, int, bytes]:
        """(the last bytes, size of the whole file, digest)."""
        trailer = self._tally.trailer()
        return trailer.encode(), trailer.size + TRAILER_FRAME_BYTES, trailer.digest

    def record(self, payload: bytes) -> bytes:
        """A record as `Decoder.records` gave it."""
        return self._frame(payload)

    def _frame(self, payload: bytes) -> bytes:
        self._tally.add(payload)
        return frame(payload)


class Decoder:
    """
    The chunks of one snapshot file, out of its bytes in order. `meta` is None until the header has come; `sessions` are
    the chunks of the table of sessions, for whoever reads on to take away.

    A whole chunk is held until its end has come: what memory that takes, the machine that made it has decided.
    """

    def __init__(self) -> None:
        self.meta: SnapshotMeta | None = None
        self.trailer: Trailer | None = None
        self._splitter = Splitter(_MAX_FRAME_BYTES)
        self._tally = _Tally()
        self._parts: list[bytes] = []
        self.sessions: deque[bytes] = deque()
        self._has_chunks = False

    def feed(self, data: bytes) -> list[bytes]:
        """
        The chunks that `data` completes.

        @raise BadSnapshot: it is not what an `Encoder` made.
        @raise OtherFormat: another version of txraft made it.
        """
        return [chunk for payload in self._split(data) for chunk in self._checked(payload)]

    def records(self, data: bytes) -> list[bytes]:
        """As `feed`, but the records that `data` completes, as they are, for a copy."""
        records = []
        for payload in self._split(data):
            is_header = self.meta is None
            self._checked(payload)
            if not is_header and self.trailer is None:
                records.append(payload)
        return records

    def _split(self, data: bytes) -> list[bytes]:
        try:
            return self._splitter.feed(data)
        except FramingError as error:
            raise BadSnapshot(f"behind offset {self._tally.size}: {error}") from None

    def _checked(self, payload: bytes) -> list[bytes]:
        try:
            return self._take(payload)
        except BadSnapshot as error:
            raise BadSnapshot(f"at offset {self._tally.size}: {error}") from None

    def _take(self, payload: bytes) -> list[bytes]:
        if self.trailer is not None:
            raise BadSnapshot("something behind its end")
        if self.meta is None:
            self.meta = _decode_meta(payload)
        elif payload[:1] == _TRAILER_MARK:
            self.trailer = self._fitting(Trailer.decode(payload))
            return []
        elif payload[:1] == _SESSIONS and not self._has_chunks:
            self.sessions.append(payload[1:])
        elif payload[:1] == _PART:
            self._has_chunks = True
            self._parts.append(payload[1:])
        elif payload[:1] == _CHUNK:
            self._has_chunks = True
            self._tally.add(payload)
            chunk = b"".join([*self._parts, payload[1:]]) if self._parts else payload[1:]
            self._parts.clear()
            return [chunk]
        else:
            raise BadSnapshot(f"a record of an unknown kind, or out of place, {payload[:1]!r}")
        self._tally.add(payload)
        return []

    def _fitting(self, trailer: Trailer) -> Trailer:
        found = self._tally.trailer()
        if self._parts:
            raise BadSnapshot("its last chunk is not complete")
        if found != trailer:
            raise BadSnapshot(
                f"its trailer tells of {trailer.frames} records in {trailer.size} bytes with digest "
                f"{trailer.digest.hex()[:16]}, but before it are {found.frames} in {found.size} bytes with digest "
                f"{found.digest.hex()[:16]}"
            )
        return trailer

    def finish(self, size: int) -> Trailer:
        """
        The trailer, once all bytes of a file of `size` have been fed.

        @raise BadSnapshot: the file ends too soon, or goes on.
        """
        if self.trailer is None:
            raise BadSnapshot(f"it ends at offset {size}, and its trailer is missing")
        stop = self.trailer.size + TRAILER_FRAME_BYTES
        if stop != size:
            raise BadSnapshot(f"at offset {stop}: something behind its end")
        return self.trailer


def outline(start: bytes, end: bytes, size: int) -> tuple[SnapshotMeta, int, bytes]:
    """
    (meta, size, digest) as the first bytes of a file and its last `TRAILER_FRAME_BYTES` say.

    @param start: `OUTLINE_BYTES`, or the whole file if that is shorter.
    @raise BadSnapshot: they are not what an `Encoder` made.
    @raise OtherFormat: another version of txraft made it.
    """
    length = _LENGTH.unpack_from(start)[0] if len(start) >= HEADER_BYTES else 0
    try:
        header = Splitter(_MAX_FRAME_BYTES).feed(start[: HEADER_BYTES + length])
        trailer = Splitter(_TRAILER.size).feed(end)
    except FramingError as error:
        raise BadSnapshot(f"its header or its trailer: {error}") from None
    if not header or not trailer:
        raise BadSnapshot("its header or its trailer is missing")
    decoded = Trailer.decode(trailer[0])
    if decoded.size + TRAILER_FRAME_BYTES != size:
        raise BadSnapshot(f"{size} bytes, but its trailer says {decoded.size + TRAILER_FRAME_BYTES}")
    return _decode_meta(header[0]), size, decoded.digest
