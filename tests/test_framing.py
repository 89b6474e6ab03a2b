"""The splitter agrees with a simple one on every stream and every way to cut it, and holds no more than it must."""

from __future__ import annotations

import struct
from itertools import pairwise

import google_crc32c
import pytest
from hypothesis import given
from hypothesis import strategies as st

from txraft.framing import FramingError, Splitter, frame

LIMIT = 40
PAYLOADS = st.lists(st.binary(min_size=1, max_size=LIMIT), max_size=6)


def raw_frame(length: int, payload: bytes, checksum: int | None = None) -> bytes:
    checksum = google_crc32c.value(payload) if checksum is None else checksum
    return struct.pack(">II", length, checksum) + payload


def outcome(chunks: list[bytes], limit: int = LIMIT) -> list[bytes | str]:
    """What a splitter makes of the chunks; the error's text last, if there was one."""
    splitter = Splitter(limit)
    payloads: list[bytes | str] = []
    try:
        for chunk in chunks:
            payloads += splitter.feed(chunk)
    except FramingError as error:
        payloads.append(str(error))
    return payloads


def oracle(stream: bytes, limit: int = LIMIT) -> list[bytes | str]:
    """The same from the whole stream at once, one frame at a time, by the definition of a frame."""
    payloads: list[bytes | str] = []
    while len(stream) >= 8:
        length, checksum = struct.unpack(">II", stream[:8])
        if length == 0:
            return [*payloads, "empty frame"]
        if length > limit:
            return [*payloads, f"frame of {length} bytes, but the limit here is {limit}"]
        if len(stream) < 8 + length:
            break
        payload, stream = stream[8 : 8 + length], stream[8 + length :]
        if google_crc32c.value(payload) != checksum:
            return [*payloads, f"wrong checksum on a frame of {length} bytes"]
        payloads.append(payload)
    return payloads


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    edges = [0, *sorted(place % (len(stream) + 1) for place in places), len(stream)]
    return [stream[start:stop] for start, stop in pairwise(edges)]


@given(payloads=PAYLOADS, places=st.lists(st.integers(0, 10_000), max_size=12))
def test_frames_come_out_however_the_stream_is_cut(payloads: list[bytes], places: list[int]) -> None:
    stream = b"".join(map(frame, payloads))
    assert outcome(cut(stream, places)) == oracle(stream) == payloads


@given(payloads=PAYLOADS, rest=st.binary(max_size=60))
def test_byte_by_byte_gives_what_the_whole_stream_gives(payloads: list[bytes], rest: bytes) -> None:
    stream = b"".join(map(frame, payloads)) + rest
    assert outcome([stream[place : place + 1] for place in range(len(stream))]) == oracle(stream)


@given(
    payloads=PAYLOADS.filter(bool),
    flip=st.integers(0, 1_000_000),
    places=st.lists(st.integers(0, 10_000), max_size=4),
)
def test_no_flipped_bit_ever_changes_a_payload(payloads: list[bytes], flip: int, places: list[int]) -> None:
    """N01"""
    stream = bytearray(b"".join(map(frame, payloads)))
    stream[flip // 8 % len(stream)] ^= 1 << flip % 8
    found = [payload for payload in outcome(cut(bytes(stream), places)) if isinstance(payload, bytes)]
    assert found == payloads[: len(found)]
    assert len(found) < len(payloads)


def test_every_cut_of_two_frames_gives_both() -> None:
    stream = frame(b"first") + frame(b"second one")
    for place in range(len(stream) + 1):
        assert outcome([stream[:place], stream[place:]]) == [b"first", b"second one"]


@pytest.mark.parametrize(
    ("stream", "why"),
    [
        (raw_frame(0, b""), "empty frame"),
        (raw_frame(LIMIT + 1, b""), "frame of 41 bytes, but the limit here is 40"),
        (raw_frame(0xFFFFFFFF, b""), "frame of 4294967295 bytes, but the limit here is 40"),
        (raw_frame(3, b"abc", checksum=1), "wrong checksum on a frame of 3 bytes"),
    ],
)
def test_a_bad_frame_is_refused_with_the_reason(stream: bytes, why: str) -> None:
    """N01: the length alone is enough to refuse."""
    for cut_at in range(len(stream)):
        assert outcome([stream[:cut_at], stream[cut_at:]]) == [why]


def test_a_frame_of_the_limit_is_accepted_and_the_limit_can_be_raised() -> None:
    splitter = Splitter(4)
    assert splitter.feed(frame(b"1234")) == [b"1234"]
    with pytest.raises(FramingError):
        Splitter(4).feed(frame(b"12345"))
    splitter.max_frame_bytes = 5
    assert splitter.feed(frame(b"12345")) == [b"12345"]


def test_a_large_frame_in_small_pieces_is_copied_a_bounded_number_of_times() -> None:
    """Cost: looking at the held bytes once per chunk would be quadratic."""
    splitter = Splitter(1 << 20)
    stream = frame(bytes(range(256)) * 4096)
    passes: list[int] = []
    split = splitter._split

    def counting_split(data: bytes | bytearray) -> list[bytes]:
        passes.append(len(data))
        return split(data)

    splitter._split = counting_split  # type: ignore[method-assign]
    payloads = [payload for place in range(0, len(stream), 64) for payload in splitter.feed(stream[place : place + 64])]
    assert payloads == [stream[8:]]
    assert len(passes) <= 2


def test_payloads_do_not_keep_the_read_buffer_alive_or_change_with_it() -> None:
    splitter = Splitter(LIMIT)
    stream = frame(b"first") + frame(b"second")
    splitter.feed(stream[:3])
    (first,) = splitter.feed(stream[3:20])
    (second,) = splitter.feed(stream[20:])
    assert (type(first), first, second) == (bytes, b"first", b"second")
