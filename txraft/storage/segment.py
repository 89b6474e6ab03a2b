"""
The bytes of one segment of the log: a header, records, zeros. No I/O here.

A segment is written over zeros, so that what was not written is zero. Sectors of 512 bytes are what a disk writes whole
or not at all; a crash may leave any of the sectors of the write that was under way, and none behind it.

**Segment header**, the first sector:

    8 bytes  magic
    4        version
    4        checksum of the last record of the segment before; 0 in the first
    8        log id: the same in all segments of a log, and in no other log
    8        sequence: 1, 2, 3...
    8        first index of the first record
    4        1: the log begins anew here, and what is in the segments before counts no more; else 0
    ...      zeros
    4        CRC32C of all of the above

**Record**, all that one flush wrote. It begins at a multiple of 16, ends at one, and lies within one segment.

    4        length of the payload; 0 in a seal
    4        CRC32C of log id, sequence, offset and the other three fields: a header proves that it is one, here
    4        checksum of the record before, in this segment or the one before
    4        checksum: CRC32C of log id, sequence, offset, length, the field above, and all that follows
    ...      payload, as `codec.encode_record` makes it, XORed with the mask if there is one
    ...      zeros up to the end of the record, less 8
    4        mask, 4 bytes that repeat; 0 if there is none
    4        end mark

A payload with a run of 64 zeros in it gets a mask that has none come out. So no sector of a record is nearly zero, and
a sector that is all zero was never written: that is how a torn write is told from damage.

**Seal**, a record header alone, with length and checksum 0: the log goes on in the next segment, which is durable.
"""

from __future__ import annotations

import struct

import attrs
import google_crc32c

FORMAT_VERSION = 1

SECTOR_BYTES = 512
ALIGNMENT = 16
HEADER_BYTES = SECTOR_BYTES
RECORD_HEADER_BYTES = 16
SEAL_BYTES = RECORD_HEADER_BYTES

_MAGIC = b"txraftWL"
_HEADER = struct.Struct("<8sIIQQQI")
_CHECKSUM = struct.Struct("<I")
_RECORD_HEADER = struct.Struct("<IIII")
_CHECKED = struct.Struct("<QQQIII")
_PLACE = struct.Struct("<QQQII")
_TRAILER = struct.Struct("<I4s")
_END_MARK = b"TXRE"
_ZERO_RUN = bytes(64)


class BadHeader(Exception):
    """The first sector of a file is not an intact segment header."""


class OtherFormat(Exception):
    """An intact segment header of another version; the argument says which."""


@attrs.frozen
class SegmentHeader:
    """What a segment says of itself. `previous_checksum` ties it to the end of the segment before."""

    log_id: int
    sequence: int
    first_index: int
    previous_checksum: int
    begins_anew: bool = False

    def encode(self) -> bytes:
        """The first sector."""
        fields = _HEADER.pack(
            _MAGIC,
            FORMAT_VERSION,
            self.previous_checksum,
            self.log_id,
            self.sequence,
            self.first_index,
            self.begins_anew,
        )
        fields = fields.ljust(HEADER_BYTES - _CHECKSUM.size, b"\0")
        return fields + _CHECKSUM.pack(google_crc32c.value(fields))

    @classmethod
    def decode(cls, data: bytes) -> SegmentHeader:
        """
        The header of the segment that `data` begins with.

        @raise BadHeader: there is none.
        @raise OtherFormat: it is intact, but another version of txraft wrote it.
        """
        sector = data[:HEADER_BYTES]
        fields = sector[: -_CHECKSUM.size]
        if len(sector) < HEADER_BYTES or _CHECKSUM.unpack(sector[len(fields) :])[0] != google_crc32c.value(fields):
            raise BadHeader("no valid segment header")
        magic, version, previous_checksum, log_id, sequence, first_index, anew = _HEADER.unpack_from(fields)
        if magic != _MAGIC:
            raise BadHeader("this is not a segment of a txraft log")
        if version != FORMAT_VERSION:
            raise OtherFormat(version)
        return cls(log_id, sequence, first_index, previous_checksum, bool(anew))


@attrs.frozen
class RecordHeader:
    """The 16 bytes at the beginning of a record, once they have proved to be that."""

    length: int
    previous_checksum: int
    checksum: int

    @property
    def is_seal(self) -> bool:
        return self.length == 0


def extent(length: int) -> int:
    """How many bytes a record with a payload of `length` takes, header and trailer included."""
    whole = RECORD_HEADER_BYTES + length + _TRAILER.size
    return whole + -whole % ALIGNMENT


def _mask(payload: bytes, mask: int) -> bytes:
    """The payload XORed with 4 bytes that repeat; the same again gives it back."""
    length = len(payload)
    pattern = (_CHECKSUM.pack(mask) * (length // 4 + 1))[:length]
    return (int.from_bytes(payload, "little") ^ int.from_bytes(pattern, "little")).to_bytes(length, "little")


def _without_zero_runs(payload: bytes) -> tuple[bytes, int]:
    """
    (masked payload, mask): what to store so that no run of 64 zeros is in it. The payload itself and 0, mostly.

    The mask comes out of the payload's checksum, so that nobody can choose a payload for which it takes long.
    """
    masked, mask = payload, 0
    while _ZERO_RUN in masked:
        mask = google_crc32c.extend(mask, payload) or 1
        masked = _mask(payload, mask)
    return masked, mask


def _header_check(segment: SegmentHeader, offset: int, length: int, previous_checksum: int, checksum: int) -> int:
    fields = _CHECKED.pack(segment.log_id, segment.sequence, offset, length, previous_checksum, checksum)
    check: int = google_crc32c.value(fields)
    return check


def _body_checksum(segment: SegmentHeader, offset: int, length: int, previous_checksum: int, body: bytes) -> int:
    place = _PLACE.pack(segment.log_id, segment.sequence, offset, length, previous_checksum)
    checksum: int = google_crc32c.extend(google_crc32c.value(place), body)
    return checksum


def encode_record(segment: SegmentHeader, offset: int, previous_checksum: int, payload: bytes) -> tuple[bytes, int]:
    """(bytes to write at `offset` of `segment`, checksum to chain the next record to)."""
    length = len(payload)
    stored, mask = _without_zero_runs(payload)
    trailer_at = extent(length) - RECORD_HEADER_BYTES - _TRAILER.size
    body = stored.ljust(trailer_at, b"\0") + _TRAILER.pack(mask, _END_MARK)
    checksum = _body_checksum(segment, offset, length, previous_checksum, body)
    check = _header_check(segment, offset, length, previous_checksum, checksum)
    return _RECORD_HEADER.pack(length, check, previous_checksum, checksum) + body, checksum


def encode_seal(segment: SegmentHeader, offset: int, previous_checksum: int) -> bytes:
    """The end of a segment that has a successor."""
    check = _header_check(segment, offset, 0, previous_checksum, 0)
    return _RECORD_HEADER.pack(0, check, previous_checksum, 0)


def decode_record_header(segment: SegmentHeader, data: bytes, offset: int) -> RecordHeader | None:
    """The header of the record (or the seal) that begins at `offset`; None if there is none that is intact."""
    if offset + RECORD_HEADER_BYTES > len(data):
        return None
    length, check, previous_checksum, checksum = _RECORD_HEADER.unpack_from(data, offset)
    if check != _header_check(segment, offset, length, previous_checksum, checksum):
        return None
    return RecordHeader(length, previous_checksum, checksum)


def decode_payload(segment: SegmentHeader, data: bytes, offset: int, record: RecordHeader) -> bytes | None:
    """The payload of the record at `offset`, whose header is `record`; None if it is not intact."""
    body = data[offset + RECORD_HEADER_BYTES : offset + extent(record.length)]
    if record.checksum != _body_checksum(segment, offset, record.length, record.previous_checksum, body):
        return None
    mask, end_mark = _TRAILER.unpack_from(body, len(body) - _TRAILER.size)
    if end_mark != _END_MARK:
        return None
    payload = body[: record.length]
    return _mask(payload, mask) if mask else payload


def is_torn(data: bytes, offset: int, record: RecordHeader) -> bool:
    """
    True if the record at `offset`, which is not intact, was never written completely.

    Then a sector of it is zero, or its end is: no sector of a complete record is. Behind the end of `data` all is zero.
    """
    stop = offset + extent(record.length)
    if stop > len(data) or not any(data[stop - _TRAILER.size : stop]):
        return True
    first_sector = offset - offset % SECTOR_BYTES
    return any(
        not any(data[max(sector, offset) : min(sector + SECTOR_BYTES, stop)])
        for sector in range(first_sector, stop, SECTOR_BYTES)
    )
