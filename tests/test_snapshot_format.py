"""The bytes of a snapshot: what comes back, and that nothing can change unseen."""

from __future__ import annotations

import random

import pytest
from snapshot_cases import CHUNKS, encoded, meta

from txraft.framing import frame
from txraft.storage import snapshot_format as layout
from txraft.storage.snapshot_format import BadSnapshot, Decoder, Encoder, OtherFormat


def decoded(data, cuts=()):
    """(meta, chunks) of these bytes, fed in pieces."""
    decoder, chunks = Decoder(), []
    for start, stop in zip([0, *cuts], [*cuts, len(data)], strict=True):
        chunks += decoder.feed(data[start:stop])
    decoder.finish(len(data))
    return decoder.meta, chunks


def test_meta_and_chunks_come_back_however_the_bytes_are_cut():
    data, _ = encoded()
    for seed in range(50):
        rng = random.Random(seed)
        cuts = sorted(rng.sample(range(1, len(data)), rng.randrange(12)))
        assert decoded(data, cuts) == (meta(), CHUNKS)


@pytest.mark.parametrize("size", [0, 1, 1 << 20, (1 << 20) + 1, 3 << 20, (3 << 20) + 5])
def test_a_chunk_of_any_size_comes_back_as_one_and_takes_records_of_a_bounded_size(size):
    chunk = random.Random(size).randbytes(size)
    records = list(Encoder(meta()).chunk(chunk))
    assert max(map(len, records)) <= layout.RECORD_BYTES + 9
    data, _ = encoded(chunks=[b"before", chunk, b"behind"])
    assert decoded(data)[1] == [b"before", chunk, b"behind"]


def test_a_snapshot_without_chunks_comes_back():
    assert decoded(encoded(chunks=[])[0]) == (meta(), [])


@pytest.mark.parametrize(
    "of",
    [
        meta(cluster_id="\u00fcber", membership=b""),
        meta(2**64 - 1, 2**64 - 1, time_ms=2**63),
        meta(time_ms=0, membership_index=0),
    ],
)
def test_every_meta_comes_back(of):
    assert decoded(encoded(of)[0])[0] == of


def test_servers_with_the_same_state_write_the_same_bytes():
    assert encoded() == encoded()
    assert encoded()[1].digest != encoded(chunks=[*CHUNKS, b""])[1].digest


@pytest.mark.parametrize("bit", range(8))
def test_no_bit_can_flip_unseen(bit):
    """S11."""
    data, _ = encoded(chunks=[b"first", bytes(100), b"y" * 200])
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1 << bit
        with pytest.raises(BadSnapshot):
            decoded(bytes(damaged))


def test_no_part_of_it_can_be_missing_unseen():
    """S11."""
    data, _ = encoded()
    for stop in range(len(data)):
        with pytest.raises(BadSnapshot):
            decoded(data[:stop])


def frames(*payloads):
    return b"".join(map(frame, payloads))


def payloads(data):
    return layout.Splitter(1 << 21).feed(data)


def test_records_that_are_intact_but_lost_doubled_or_swapped_are_noticed():
    """S06: a record of another transfer is intact, too."""
    header, first, second, *rest = payloads(encoded()[0])
    for wrong in (
        [header, first, *rest],
        [header, first, first, second, *rest],
        [header, second, first, *rest],
        [header, header, first, second, *rest],
        [first, second, *rest],
    ):
        with pytest.raises(BadSnapshot):
            decoded(frames(*wrong))


def test_the_end_is_the_end():
    data, _ = encoded()
    for more in (b"x", frame(b"cmore"), data):
        with pytest.raises(BadSnapshot, match="behind its end"):
            decoded(data + more)


def test_a_chunk_without_its_end_is_noticed():
    header, *_ = payloads(encoded()[0])
    decoder = Decoder()
    decoder.feed(frames(header, b"pbeginning"))
    trailer = decoder._tally.trailer().encode()
    with pytest.raises(BadSnapshot, match="last chunk is not complete"):
        decoder.feed(trailer)


def test_a_record_of_an_unknown_kind_is_refused():
    header, *_ = payloads(encoded()[0])
    with pytest.raises(BadSnapshot, match="unknown kind, or out of place, b'z'"):
        Decoder().feed(frames(header, b"zzz"))


def test_sessions_come_back_apart_from_the_chunks():
    """S05."""
    encoder = Encoder(meta())
    records = [encoder.header(), encoder.sessions(b"one"), encoder.sessions(b""), *encoder.chunk(b"chunk")]
    data = b"".join([*records, encoder.trailer()[0]])
    decoder = Decoder()
    assert decoder.feed(data) == [b"chunk"]
    assert [*decoder.sessions] == [b"one", b""]
    decoder.finish(len(data))
    assert decoder.meta == meta()


@pytest.mark.parametrize("before", [b"cchunk", b"pbeginning of one"])
def test_sessions_behind_a_chunk_are_refused(before):
    """Whoever has been given a chunk has had all sessions."""
    header, *_ = payloads(encoded()[0])
    with pytest.raises(BadSnapshot, match="out of place, b's'"):
        Decoder().feed(frames(header, b"sfirst", before, b"ssecond"))


def test_another_format_is_told_from_damage(monkeypatch):
    """D20."""
    monkeypatch.setattr(layout, "FORMAT_VERSION", 2)
    data, _ = encoded()
    monkeypatch.undo()
    with pytest.raises(OtherFormat):
        Decoder().feed(data)


GOLDEN = bytes.fromhex(
    "00000032f362dcba747872616674534e0000000100000000000000090000000000000003000000000000004d000000000000"
    "000400000001636d00000002d6b7ea2c63610000000120eb33c763000000310bbe1ac8740000000000000003000000000000"
    "004db6da909d553c8d6217c1b824dae731ad5dd83f88619a6c0543a5dcc5fb63a131"
)


def test_format_1_is_read_as_it_was_first_written():
    """D20: these bytes must be read for as long as there is a format 1."""
    of = meta(9, 3, time_ms=77, membership=b"m", membership_index=4)
    assert decoded(GOLDEN) == (of, [b"a", b""])
    assert encoded(of, [b"a", b""])[0] == GOLDEN


def test_outline_says_what_the_whole_file_does():
    data, snapshot = encoded()
    assert layout.outline(data[: layout.OUTLINE_BYTES], data[-layout.TRAILER_FRAME_BYTES :], len(data)) == (
        snapshot.meta,
        snapshot.size,
        snapshot.digest,
    )


def test_an_outline_of_what_is_cut_is_refused():
    data, _ = encoded()
    for stop in range(len(data)):
        cut = data[:stop]
        with pytest.raises(BadSnapshot):
            layout.outline(cut, cut[-layout.TRAILER_FRAME_BYTES :], len(cut))
