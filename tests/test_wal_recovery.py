"""Recovery: a log that was cut, flipped or shuffled is a prefix that holds everything acknowledged, or is refused."""

from __future__ import annotations

import random

import pytest
from storage_cases import entries, run
from twisted.logger import globalLogPublisher

from txraft.errors import DamagedLog
from txraft.storage import segment as layout
from txraft.storage.files import Syncs
from txraft.storage.recovery import replay, segment_path
from txraft.storage.wal import WriteAheadLog
from txraft.testing.disk import FakeDisk

LOG = "/log"
SEGMENT_BYTES = 1536

WRITES = [
    [run(1, "a")],
    [run(2, [b"b" * 100])],
    [run(3, [b"c" * 150, b"C"])],
    [run(5, [b"d" * 633])],
    [run(4, "ef", term=2), run(6, [bytes(100)], term=2)],
    [run(7, [b"g" * 500], term=2)],
    [run(8, [b"h" * 40], term=3)],
    [run(9, [b"i" * 1200], term=3)],
    [run(10, [b"j" * 300], term=3)],
    [run(11, [b"k" * 600], term=3)],
]


def make_wal(disk):
    return WriteAheadLog(disk, Syncs(disk, enabled=True), LOG, SEGMENT_BYTES, log_id=77)


class WrittenLog:
    """A log of several segments, its files, and what it was after each write, with the place of each record."""

    def __init__(self):
        disk = FakeDisk(random.Random(1))
        wal = make_wal(disk)
        wal.create()
        self.states = [[]]
        self.places = []
        for runs in WRITES:
            wal.append(runs)
            state = self.states[-1]
            for each in runs:
                state = [entry for entry in state if entry[0] < each.first_index] + entries([each])
            self.states.append(state)
            segment = wal.segments[-1]
            self.places.append((segment.path, segment.stop_offset - wal._last_extent, segment.stop_offset))
        wal.close()
        self.files = {path: disk.read_file(path) for path in disk.file_names()}
        self.paths = sorted(self.files)
        self.complete = self.states[-1]

    def records_before(self, path, offset):
        """How many records are whole if the log ends there."""
        return sum((place_path, stop) <= (path, offset) for place_path, _, stop in self.places)


WRITTEN = WrittenLog()
LAST_PATH, LAST_START, LAST_STOP = WRITTEN.places[-1]


def recover(files):
    """What is recovered from these files, and the files behind that; raises `DamagedLog` having changed nothing."""
    disk = FakeDisk(random.Random(1))
    for path, data in files.items():
        disk.write_file(path, data)
    wal = make_wal(disk)
    try:
        runs = wal.recover(1)
    except DamagedLog as error:
        assert {path: disk.read_file(path) for path in disk.file_names()} == files
        assert error.path in files
        assert f"{error.path}: damaged at offset {error.offset}: " in str(error)
        assert "add the server to the cluster again" in str(error)
        raise
    wal.close()
    return entries(runs), {path: disk.read_file(path) for path in disk.file_names()}


def outcome(files):
    """What is recovered, or None if that is refused."""
    try:
        return recover(files)[0]
    except DamagedLog:
        return None


def with_bytes(path, offset, data):
    old = WRITTEN.files[path]
    return {**WRITTEN.files, path: old[:offset] + data + old[offset + len(data) :]}


@pytest.fixture
def warnings():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def test_the_log_is_what_the_cases_need():
    assert len(WRITTEN.paths) >= 4
    assert LAST_STOP - LAST_START > 600  # the last record has a sector of its own
    assert LAST_START > layout.HEADER_BYTES  # and is not alone in its segment
    assert outcome(WRITTEN.files) == WRITTEN.complete


@pytest.mark.parametrize("path", WRITTEN.paths)
def test_a_log_cut_at_any_byte_is_a_prefix_of_what_is_left_or_refused(path):
    """D04."""
    for offset in range(len(WRITTEN.files[path]) + 1):
        recovered = outcome({**WRITTEN.files, path: WRITTEN.files[path][:offset]})
        whole = WRITTEN.records_before(path, offset)
        if path != WRITTEN.paths[-1]:
            assert recovered == (WRITTEN.complete if offset >= stop_of(path) else None), offset
        elif offset < layout.HEADER_BYTES:
            assert recovered is None
        else:
            assert recovered == WRITTEN.states[whole], offset


def stop_of(path):
    """Where the last record of a segment ends."""
    return max(stop for place_path, _, stop in WRITTEN.places if place_path == path)


@pytest.mark.parametrize("path", WRITTEN.paths)
def test_a_flipped_byte_anywhere_loses_nothing(path):
    """D03, D05: two bits of every byte, and every byte as a whole."""
    refused = 0
    for offset in range(len(WRITTEN.files[path])):
        for flip in (1 << offset % 8, 1 << (offset + offset // 8 + 3) % 8, 255):
            data = bytes([WRITTEN.files[path][offset] ^ flip])
            record_start = start_of_record(path, offset)
            try:
                assert recover(with_bytes(path, offset, data))[0] == WRITTEN.complete, (offset, flip)
                assert record_start is None
            except DamagedLog as error:
                refused += 1
                if record_start is not None:
                    assert (error.path, error.offset) == (path, record_start), (offset, flip)
    assert refused > 1500


def start_of_record(path, offset):
    """Where the record begins that has a byte at `offset`; None if none has."""
    starts = [start for place, start, stop in WRITTEN.places if place == path and start <= offset < stop]
    return starts[0] if starts else None


def sector_fillings(path, sector):
    rng = random.Random(sector)
    neighbour = WRITTEN.files[path][(sector + 512) % len(WRITTEN.files[path]) :][:512]
    return [b"\xff" * 512, rng.randbytes(512), neighbour]


@pytest.mark.parametrize("path", WRITTEN.paths)
def test_a_sector_with_other_content_loses_nothing(path):
    for sector in range(0, len(WRITTEN.files[path]), 512):
        for filling in sector_fillings(path, sector):
            assert outcome(with_bytes(path, sector, filling)) in (None, WRITTEN.complete)


@pytest.mark.parametrize("path", WRITTEN.paths[:-1])
def test_a_zeroed_sector_before_the_last_record_is_refused(path):
    """D03, D04: this is how a torn tail looks, but records are behind it."""
    for sector in range(0, stop_of(path), 512):
        assert outcome(with_bytes(path, sector, bytes(512))) is None


def small_segment(count, letter=b"r"):
    """A disk with one segment of `count` small records, where each begins, and what each left."""
    disk = FakeDisk(random.Random(1))
    wal = WriteAheadLog(disk, Syncs(disk, enabled=True), LOG, 4096, log_id=77)
    wal.create()
    starts = []
    for index in range(1, count + 1):
        starts.append(wal.segments[0].stop_offset)
        wal.append([run(index, [letter * 60])])
    wal.close()
    path = segment_path(LOG, 1)
    return disk, path, bytearray(disk.read_file(path)), starts


@pytest.mark.parametrize("bad", range(5))
def test_a_bad_record_with_a_good_one_behind_it_is_refused_with_both_offsets(bad):
    """D03."""
    disk, path, data, starts = small_segment(6)
    data[starts[bad] + 30] ^= 1
    disk.write_file(path, bytes(data))
    with pytest.raises(DamagedLog, match=f"another one behind it at offset {starts[bad + 1]}") as caught:
        make_wal(disk).recover(1)
    assert caught.value.offset == starts[bad]


def test_a_bad_header_with_a_good_record_behind_it_is_refused():
    """D03, D05: the length cannot be used to find the next record."""
    disk, path, data, starts = small_segment(6)
    data[starts[2] : starts[2] + 16] = bytes(16)
    disk.write_file(path, bytes(data))
    with pytest.raises(DamagedLog, match=f"another one behind it at offset {starts[3]}"):
        make_wal(disk).recover(1)


def test_a_bad_record_with_only_a_torn_one_behind_it_is_refused():
    """D03: a record is begun when the one before is durable, so this one was acknowledged."""
    disk, path, data, starts = small_segment(6)
    data[starts[4] + 40 : starts[4] + 60] = bytes(20)
    data[starts[5] + 16 :] = bytes(len(data) - starts[5] - 16)
    disk.write_file(path, bytes(data))
    with pytest.raises(DamagedLog):
        make_wal(disk).recover(1)


def test_swapped_records_of_one_length_are_refused():
    """D07."""
    disk, path, data, starts = small_segment(4)
    first, second, stop = starts[1], starts[2], starts[3]
    data[first:stop] = data[second:stop] + data[first:second]
    disk.write_file(path, bytes(data))
    with pytest.raises(DamagedLog) as caught:
        make_wal(disk).recover(1)
    assert caught.value.offset == first


def test_a_record_written_over_an_earlier_one_is_refused():
    """D07: a misdirected write."""
    disk, path, data, starts = small_segment(4)
    data[starts[1] : starts[2]] = data[starts[3] : starts[3] + starts[2] - starts[1]]
    disk.write_file(path, bytes(data))
    with pytest.raises(DamagedLog):
        make_wal(disk).recover(1)


def test_a_torn_last_record_is_cut_and_logged_and_the_log_goes_on(warnings):
    """D04: any of its sectors may be missing, and any other part of it may be there."""
    rng = random.Random(3)
    for _ in range(300):
        data = bytearray(WRITTEN.files[LAST_PATH])
        sectors = range(LAST_START - LAST_START % 512, LAST_STOP, 512)
        missing = [sector for sector in sectors if rng.random() < 0.5] or [rng.choice(sectors)]
        for sector in missing:
            start, stop = max(sector, LAST_START), min(sector + 512, LAST_STOP)
            data[start:stop] = bytes(stop - start)
        warnings.clear()
        recovered, files = recover({**WRITTEN.files, LAST_PATH: bytes(data)})
        assert recovered == WRITTEN.states[-2]
        assert not any(files[LAST_PATH][LAST_START:])
        if any(data[LAST_START:]):
            (event,) = warnings
            assert (event["path"], event["offset"]) == (LAST_PATH, LAST_START)
            assert 0 < event["count"] <= LAST_STOP - LAST_START
        assert outcome(files) == recovered


def test_any_prefix_of_the_last_record_is_cut():
    """D08: the process was killed while the kernel copied, so the tear is inside a sector."""
    for offset in range(LAST_START, LAST_STOP - 4):
        recovered, _ = recover(with_bytes(LAST_PATH, offset, bytes(LAST_STOP - offset)))
        assert recovered == WRITTEN.states[-2], offset


def test_a_record_that_follows_another_one_than_it_was_written_behind_is_refused():
    """D06, D07: right place, right log, valid, but from another past."""
    disk, path, data, starts = small_segment(4)
    _, _, other, _ = small_segment(4, letter=b"o")
    data[starts[2] : starts[3]] = other[starts[2] : starts[3]]
    disk.write_file(path, bytes(data))
    with pytest.raises(DamagedLog, match="does not follow") as caught:
        make_wal(disk).recover(1)
    assert caught.value.offset == starts[2]


def test_a_gap_between_entries_is_refused():
    with pytest.raises(ValueError, match="from 5 on, but the log before them ends at 3"):
        replay([run(1, "abc")], 0, [run(5, "e")])
    with pytest.raises(ValueError, match="ends at 0"):
        replay([], 0, [run(2, "b")])


def test_a_complete_last_record_that_is_wrong_is_refused_and_not_cut():
    """D03: it may have been acknowledged."""
    for offset in range(LAST_START, LAST_STOP):
        assert outcome(with_bytes(LAST_PATH, offset, bytes([WRITTEN.files[LAST_PATH][offset] ^ 0x55]))) is None


def test_a_torn_record_needs_no_space_to_be_cut():
    """D09: start with the disk full."""
    disk = FakeDisk(random.Random(1))
    for path, data in with_bytes(LAST_PATH, LAST_STOP - 100, bytes(100)).items():
        disk.write_file(path, data)
    sizes = {path: len(disk.read_file(path)) for path in disk.file_names()}
    assert entries(make_wal(disk).recover(1)) == WRITTEN.states[-2]
    assert {path: len(disk.read_file(path)) for path in disk.file_names()} == sizes


@pytest.mark.parametrize("path", WRITTEN.paths)
def test_a_dropped_segment_is_refused(path):
    """D11: the first, one in between, and also the last, which the seal of the one before knows of."""
    files = {each: data for each, data in WRITTEN.files.items() if each != path}
    first, last = WRITTEN.paths[0], WRITTEN.paths[-1]
    problem = {first: "those from 1 on are missing", last: f"the log goes on in {last}, which is missing"}
    with pytest.raises(DamagedLog, match=problem.get(path, "the segment before this one is missing")):
        recover(files)


def test_a_segment_without_its_seal_gets_it_at_the_next_start():
    """D11: the server died between a segment's name and the seal before it. What is lost later must be noticed."""
    first, last = WRITTEN.paths[-2:]
    _, _, seal = max(place for place in WRITTEN.places if place[0] == first)
    disk = FakeDisk(random.Random(1))
    for path, data in with_bytes(first, seal, bytes(layout.SEAL_BYTES)).items():
        disk.write_file(path, data)
    wal = make_wal(disk)
    assert entries(wal.recover(1)) == WRITTEN.complete
    wal.close()
    assert {path: disk.read_file(path) for path in WRITTEN.paths} == WRITTEN.files
    disk.remove_file(last)
    with pytest.raises(DamagedLog, match=f"the log goes on in {last}, which is missing"):
        make_wal(disk).recover(1)


@pytest.mark.parametrize("path", WRITTEN.paths)
def test_an_empty_segment_is_refused(path):
    """D11: a segment gets its name when its header is durable."""
    assert outcome({**WRITTEN.files, path: b""}) is None
    assert outcome({**WRITTEN.files, path: bytes(SEGMENT_BYTES)}) is None


@pytest.mark.parametrize("path", WRITTEN.paths[:-1])
def test_a_segment_that_lost_its_records_is_refused(path):
    """D11: header-only, with others behind it."""
    header = WRITTEN.files[path][: layout.HEADER_BYTES]
    assert outcome({**WRITTEN.files, path: header}) is None
    assert outcome({**WRITTEN.files, path: header.ljust(SEGMENT_BYTES, b"\0")}) is None


def test_a_duplicated_or_renamed_segment_is_refused():
    """D11."""
    for path in WRITTEN.paths:
        copied = {**WRITTEN.files, segment_path(LOG, len(WRITTEN.paths) + 1): WRITTEN.files[path]}
        with pytest.raises(DamagedLog, match="under the name of segment"):
            recover(copied)
    for first in WRITTEN.paths:
        for second in WRITTEN.paths:
            swapped = {**WRITTEN.files, first: WRITTEN.files[second], second: WRITTEN.files[first]}
            assert outcome(swapped) == (WRITTEN.complete if first == second else None)


def test_a_new_segment_without_records_is_where_the_log_goes_on():
    """A crash between a rotation and the write that needed it."""
    disk = FakeDisk(random.Random(1))
    for path, data in WRITTEN.files.items():
        disk.write_file(path, data)
    wal = make_wal(disk)
    wal.recover(1)
    disk.fail("pwrite", number=4)  # zeros, header, seal, record
    with pytest.raises(Exception, match="pwrite"):
        wal.append([run(12, [b"l" * 900], term=3)])
    disk.crash(keep="none")
    assert len(disk.file_names()) == len(WRITTEN.paths) + 1
    files = {path: disk.read_file(path) for path in disk.file_names()}
    lost = files[LAST_PATH][:LAST_START].ljust(len(files[LAST_PATH]), b"\0")
    with pytest.raises(DamagedLog, match="records are missing there"):
        recover({**files, LAST_PATH: lost})
    wal = make_wal(disk)
    assert entries(wal.recover(1)) == WRITTEN.complete
    wal.append([run(12, "l", term=3)])
    wal.close()
    assert entries(make_wal(disk).recover(1)) == [*WRITTEN.complete, (12, 3, b"l")]


def test_a_log_that_goes_on_otherwise_than_a_crashed_rotation_meant_can_lose_its_beginning():
    """D06, S01: the new segment was made for a record that replaces a suffix, and that got lost."""
    disk = FakeDisk(random.Random(1))
    wal = make_wal(disk)
    wal.create()
    wal.append([run(1, [b"a" * 400, b"b" * 400, b"c" * 400])])
    disk.fail("pwrite", number=4)  # zeros, header, seal, record
    with pytest.raises(Exception, match="pwrite"):
        wal.append([run(2, [b"d" * 400], term=2)])
    disk.crash(keep="none")
    wal = make_wal(disk)
    assert [entry[0] for entry in entries(wal.recover(1))] == [1, 2, 3]
    wal.append([run(4, "e", term=3)])
    wal.release(4)
    wal.close()
    assert entries(make_wal(disk).recover(4, previous_term=1)) == [(4, 3, b"e")]


def test_random_damage_never_shortens_the_log_in_silence():
    """Several bytes in several files at once: the whole log, or refused."""
    rng = random.Random(5)
    for _ in range(3000):
        files = dict(WRITTEN.files)
        for _ in range(rng.randrange(1, 4)):
            path = rng.choice(WRITTEN.paths)
            data = bytearray(files[path])
            start = rng.randrange(len(data))
            size = rng.choice([1, 2, 30])
            data[start : start + size] = rng.randbytes(len(data[start : start + size]))
            files[path] = bytes(data)
        assert outcome(files) in (None, WRITTEN.complete)
