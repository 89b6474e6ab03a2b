"""`core_map_file`: old or new after a crash, and never believed when it is damaged."""

from __future__ import annotations

import random

import pytest

from txraft.core.messages import HardState
from txraft.errors import StorageError
from txraft.interfaces import Identity
from txraft.storage.files import Syncs
from txraft.storage.state_file import StateFile
from txraft.testing.disk import FakeDisk, Halted

PATH = "/core_map"
OLD = (Identity("c", "s1", 2**64 - 1), HardState(3, "s2"))
NEW = (Identity("c", "s1", 2**64 - 1), HardState(4, None))


@pytest.fixture
def disk():
    return FakeDisk(random.Random(1))


def state_file(disk):
    return StateFile(disk, Syncs(disk, enabled=True), PATH)


def written(disk):
    state_file(disk).write(*OLD)
    return disk.read_file(PATH)


def test_what_was_written_is_read(disk):
    state_file(disk).write(*OLD)
    state_file(disk).write(*NEW)
    assert state_file(disk).read() == NEW


def test_what_was_never_written_is_none(disk):
    assert state_file(disk).read() is None


def test_what_was_written_is_durable(disk):
    """D02: the name too."""
    state_file(disk).write(*OLD)
    disk.crash(keep="none")
    assert state_file(disk).read() == OLD


@pytest.mark.parametrize("seed", range(40))
def test_a_crash_at_any_call_leaves_the_old_state_or_the_new(seed):
    """D02, D10."""
    for point in range(1, 8):
        disk = FakeDisk(random.Random(seed))
        state_file(disk).write(*OLD)
        disk.halt_at(point)
        try:
            state_file(disk).write(*NEW)
            expected = [NEW]
        except Halted:
            expected = [OLD, NEW]
        disk.crash()
        assert state_file(disk).read() in expected
        assert disk.file_names() == [PATH]
        state_file(disk).write(*NEW)


def refusal(disk, data):
    disk.write_file(PATH, data)
    with pytest.raises(StorageError, match=PATH) as caught:
        state_file(disk).read()
    assert disk.read_file(PATH) == data
    return str(caught.value)


def test_a_flipped_bit_anywhere_is_refused(disk):
    """D05."""
    data = written(disk)
    for at in range(len(data)):
        for flip in (1, 2, 4, 8, 16, 32, 64, 128, 255):
            flipped = bytearray(data)
            flipped[at] ^= flip
            message = refusal(disk, bytes(flipped))
            assert "at offset" in message
            assert "vote twice" in message
            assert "add the server to the cluster again" in message


def test_a_cut_or_longer_file_is_refused(disk):
    data = written(disk)
    for length in range(len(data)):
        assert "at offset" in refusal(disk, data[:length])
    assert "at offset" in refusal(disk, data + b"\0")


def test_another_format_is_refused_and_says_what_to_run(disk, monkeypatch):
    """D20."""
    monkeypatch.setattr("txraft.storage.state_file._VERSION", 2)
    data = written(disk)
    monkeypatch.undo()
    assert "format 2" in refusal(disk, data)


def test_format_1_is_read_as_it_was_first_written(disk):
    """D20: these bytes must be read for as long as there is a format 1."""
    data = bytes.fromhex("74787261667453540100000016000000acb7ab610803120273321a01632202733129ffffffffffffffff")
    disk.write_file(PATH, data)
    assert state_file(disk).read() == OLD


def test_a_leftover_temporary_file_is_removed_for_good(disk):
    written(disk)
    disk.write_file(PATH + ".tmp", b"half")
    assert state_file(disk).read() == OLD
    disk.crash(keep="none")
    assert disk.file_names() == [PATH]
