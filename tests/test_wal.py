"""The write-ahead log as it is written: segments, the next one ahead of need, the format's promises."""

from __future__ import annotations

import contextlib
import random

import pytest
from storage_cases import entries, run
from twisted.trial.unittest import SynchronousTestCase

from txraft import codec
from txraft.errors import DamagedLog, StorageError
from txraft.storage import segment as layout
from txraft.storage.files import Syncs
from txraft.storage.segment import BadHeader, SegmentHeader
from txraft.storage.wal import WriteAheadLog
from txraft.testing.disk import FakeDisk

LOG = "/log"
SPARE = "/log.next.tmp"


def make_wal(disk, segment_bytes=4096, log_id=77):
    return WriteAheadLog(disk, Syncs(disk, enabled=True), LOG, segment_bytes, log_id)


def recovered(disk, first_index=1):
    wal = make_wal(disk)
    runs = wal.recover(first_index)
    wal.close()
    return entries(runs)


class WriteAheadLogTests(SynchronousTestCase):
    def setUp(self):
        self.disk = FakeDisk(random.Random(1))
        self.wal = make_wal(self.disk)
        self.wal.create()

    def fill(self, first_index, stop_index, size=900):
        for index in range(first_index, stop_index):
            self.wal.append([run(index, [bytes([65 + index % 26]) * size])])

    def test_a_record_is_one_write_and_one_fdatasync(self):
        before = self.disk.calls.copy()
        self.wal.append([run(1, "abc"), run(4, "d", term=2)])
        self.assertEqual(self.disk.calls - before, {"pwrite": 1, "fdatasync": 1})

    def test_a_segment_has_its_length_before_its_first_record(self):
        self.assertEqual(len(self.disk.read_file("/log.0000000000000001")), 4096)

    def test_a_full_segment_is_followed_by_the_next(self):
        self.fill(1, 10)
        self.assertEqual(self.disk.file_names(), [f"/log.000000000000000{n}" for n in (1, 2, 3)])
        self.assertEqual([index for index, _, _ in recovered(self.disk)], list(range(1, 10)))

    def test_a_record_longer_than_a_segment_gets_a_longer_one(self):
        self.wal.append([run(1, [b"x" * 10_000])])
        self.wal.append([run(2, "y")])
        self.assertGreater(len(self.disk.read_file("/log.0000000000000002")), 10_000)
        self.assertEqual(len(recovered(self.disk)), 2)

    def test_a_segment_that_is_ready_costs_no_zeros_when_it_is_needed(self):
        self.fill(1, 4)
        self.wal.prepare()
        before = self.disk.calls.copy()
        self.fill(4, 5)
        spent = self.disk.calls - before
        self.assertEqual(spent["pwrite"], 3)  # header, seal, record
        self.assertNotIn("create", spent)

    def test_the_next_segment_is_filled_in_bounded_parts(self):
        self.wal = make_wal(FakeDisk(random.Random(1)), segment_bytes=1 << 22)
        self.wal.create()
        disk = self.wal._files
        for number in range(1, 100):
            self.wal.append([run(number, [b"x" * 50_000])])
            before = len(disk.read_file(SPARE)) if SPARE in disk.file_names() else 0
            self.wal.prepare()
            if len(disk.read_file(SPARE)) == 1 << 22:
                break
            self.assertTrue(65_536 <= len(disk.read_file(SPARE)) - before <= 110_000)
        # Durable bit by bit: what is left to the end is what the next write would wait for.
        self.assertGreater(disk.calls["fsync"], 25)
        # Ready when this one is half full.
        self.assertLess(self.wal.segments[0].stop_offset, (1 << 21) + 110_000)

    def test_a_next_segment_that_is_ready_costs_nothing_more(self):
        self.wal.prepare()
        before = self.disk.calls.copy()
        self.wal.prepare()
        self.assertEqual(self.disk.calls - before, {})

    def test_a_gap_is_never_written(self):
        self.wal.append([run(1, "ab")])
        self.assertRaises(AssertionError, self.wal.append, [run(4, "d")])

    def test_released_segments_go_oldest_first_and_one_becomes_the_next(self):
        self.fill(1, 14)
        names = self.disk.file_names()
        self.wal.release(9)
        self.assertEqual(self.disk.file_names(), names[2:] + [SPARE])
        self.fill(14, 20)
        self.assertEqual(recovered(self.disk, first_index=9)[0][0], 7)
        self.assertEqual(recovered(self.disk, first_index=9)[-1][0], 19)

    def test_a_recycled_segment_holds_nothing_of_what_it_held(self):
        """D06."""
        self.fill(1, 8)
        self.wal.release(7)
        self.fill(8, 11)
        content = b"".join(self.disk.read_file(path) for path in self.disk.file_names())
        for index in (1, 2, 3):
            self.assertNotIn(bytes([65 + index]) * 20, content)
        self.assertIn(bytes([65 + 10]) * 20, content)

    def test_a_next_segment_that_is_ready_is_not_given_up_for_a_released_one(self):
        self.fill(1, 4)
        self.wal.prepare()
        self.fill(4, 7)
        self.wal.prepare()
        self.wal.release(4)
        before = self.disk.calls.copy()
        self.fill(7, 8)
        self.assertEqual((self.disk.calls - before)["pwrite"], 3)  # header, seal, record

    def test_the_seal_has_room_in_its_segment(self):
        for size in range(3500, 3560):
            disk = FakeDisk(random.Random(1))
            wal = make_wal(disk)
            wal.create()
            wal.append([run(1, [b"x" * size])])
            wal.append([run(2, [b"y" * 900])])
            for segment in wal.segments:
                self.assertEqual(len(disk.read_file(segment.path)), segment.size)

    def test_an_entry_that_is_needed_is_not_released(self):
        self.fill(1, 14)
        last_index = self.wal.segments[0].last_index
        self.wal.release(last_index)
        self.assertEqual(len(recovered(self.disk)), 13)
        self.wal.release(last_index + 1)
        self.assertEqual(recovered(self.disk, last_index + 1)[0][0], last_index + 1)

    def test_the_last_segment_is_never_released(self):
        self.fill(1, 14)
        self.wal.release(1000)
        self.assertEqual(recovered(self.disk, 14)[-1][0], 13)

    def test_a_log_that_begins_too_late_is_refused(self):
        self.fill(1, 14)
        self.wal.release(7)
        with self.assertRaisesRegex(DamagedLog, "those from 1 on are missing"):
            recovered(self.disk)

    def test_a_crash_while_segments_are_released_leaves_no_gap(self):
        """D02."""
        for point in range(1, 12):
            for seed in range(6):
                self.disk = FakeDisk(random.Random(seed))
                self.wal = make_wal(self.disk, segment_bytes=1024)
                self.wal.create()
                self.fill(1, 8, size=400)
                self.disk.halt_at(point)
                with contextlib.suppress(Exception):
                    self.wal.release(7)
                self.disk.crash()
                self.assertEqual([index for index, _, _ in recovered(self.disk, 7)][-2:], [6, 7])


HEADER = SegmentHeader(log_id=2**64 - 1, sequence=3, first_index=17, previous_checksum=5)


def test_segment_header_comes_back_as_it_was():
    assert SegmentHeader.decode(HEADER.encode() + b"records") == HEADER


@pytest.mark.parametrize("bit", range(8))
def test_no_bit_of_a_segment_header_can_flip_unseen(bit):
    for at in range(layout.HEADER_BYTES):
        data = bytearray(HEADER.encode())
        data[at] ^= 1 << bit
        with pytest.raises(BadHeader):
            SegmentHeader.decode(bytes(data))


def placed(payload, offset=528):
    record, _ = layout.encode_record(HEADER, offset, 99, payload)
    return bytes(offset) + record


def decoded(data, offset=528, header=HEADER):
    record = layout.decode_record_header(header, data, offset)
    return record and layout.decode_payload(header, data, offset, record)


PAYLOADS = [
    b"x",
    b"x" * 511,
    bytes(63),
    bytes(64),
    bytes(100_000),
    b"a" * 40 + bytes(3000) + b"b",
    (bytes(299) + b"x") * 10,
    bytes(64) + b"\1\0\0\0" * 16,
    bytes(range(256)) * 20,
    b"".join(bytes([n]) * 64 for n in range(256)),
]


@pytest.mark.parametrize("payload", PAYLOADS, ids=len)
def test_a_record_comes_back_as_it_was_and_is_aligned(payload):
    data = placed(payload)
    assert decoded(data) == payload
    assert len(data) == 528 + layout.extent(len(payload))
    assert len(data) % layout.ALIGNMENT == 0


@pytest.mark.parametrize("payload", PAYLOADS, ids=len)
def test_no_sector_of_a_record_is_nearly_zero(payload):
    """That is how what was never written is told from what was damaged: one byte cannot turn one into the other."""
    for offset in range(512, 1024, 16):
        data = placed(payload, offset)
        for sector in range(0, len(data), 512):
            part = data[max(sector, offset) : sector + 512]
            assert not part or len(part) - part.count(0) >= 4, (offset, sector)
        assert any(data[-4:])


def test_a_record_is_valid_at_its_place_only():
    """D07: another offset, another segment, another log."""
    data = placed(b"payload")
    assert decoded(data) == b"payload"
    assert decoded(bytes(16) + data, 544) is None
    for header in (
        SegmentHeader(HEADER.log_id, 4, 17, 5),
        SegmentHeader(1, 3, 17, 5),
    ):
        assert decoded(data, header=header) is None


@pytest.mark.parametrize("payload", [b"x" * 40, bytes(90)], ids=["plain", "masked"])
def test_no_bit_of_a_record_can_flip_unseen(payload):
    """D05: length, chain and mask are covered like the payload."""
    for at in range(528, len(placed(payload))):
        for bit in range(8):
            data = bytearray(placed(payload))
            data[at] ^= 1 << bit
            assert decoded(bytes(data)) is None


def test_a_length_that_cannot_be_is_never_believed():
    """D05: a header is proved before its length is used."""
    data = bytearray(placed(b"x" * 40))
    data[528:532] = b"\xff\xff\xff\xff"
    assert layout.decode_record_header(HEADER, bytes(data), 528) is None


GOLDEN_FIELDS = bytes.fromhex("747872616674574c01000000ddccbbaa887766554433221102000000000000000700000000000000")
GOLDEN_HEADER = GOLDEN_FIELDS.ljust(508, b"\0") + bytes.fromhex("e17f084e")
GOLDEN_RECORD = bytes.fromhex(
    "5400000033223beeddccbbaaa2e10d35f64310ffec123810fb3b1999d65718f8fc1118f8fc1118f8fc1118f8fc1118f8fc11"
    "18f8fc1118f8fc1118f8fc1118f8fc1118f8fc1118f8fc1118f8fc1118f8fc1118f8fc1118f8fc1118f8fc1118f8fc1118f8"
    "00000000fc1118f854585245"
)
GOLDEN_SEAL = bytes.fromhex("00000000d29fbfeba2e10d3500000000")


def test_format_1_is_read_as_it_was_first_written():
    """D20: these bytes must be read for as long as there is a format 1."""
    header = SegmentHeader.decode(GOLDEN_HEADER)
    assert header == SegmentHeader(0x1122334455667788, 2, 7, 0xAABBCCDD)
    data = GOLDEN_HEADER + GOLDEN_RECORD + GOLDEN_SEAL
    assert codec.decode_record(decoded(data, 512, header)) == ([run(7, [b"a", bytes(70)], term=3)], 0)
    assert layout.decode_record_header(header, data, 512 + len(GOLDEN_RECORD)).is_seal


def test_a_segment_of_another_format_is_refused_and_says_so(monkeypatch):
    """D20."""
    disk = FakeDisk(random.Random(1))
    monkeypatch.setattr(layout, "FORMAT_VERSION", 2)
    make_wal(disk).create()
    monkeypatch.undo()
    with pytest.raises(StorageError, match=r"/log\.0000000000000001: format 2, .* run the version that wrote it"):
        recovered(disk)
