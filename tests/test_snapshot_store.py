"""Snapshots on disk: what counts is durable and whole, whatever crashes, fails or is tampered with."""

from __future__ import annotations

import contextlib
import errno

import pytest
from snapshot_cases import CHUNKS, DIRECTORY, Server, encoded, meta
from twisted.logger import LogLevel, globalLogPublisher
from zope.interface.verify import verifyObject

from txraft.errors import DamagedSnapshot, ProtocolError, StorageError
from txraft.interfaces import IPartialSnapshot, ISnapshotReader, ISnapshotStore, ISnapshotWriter, Snapshot
from txraft.node.restoring import prepare
from txraft.node.state import State
from txraft.storage.snapshot_file import verify
from txraft.testing.disk import Halted
from txraft.testing.recording import RecordingMachine


@pytest.fixture
def server():
    return Server()


@pytest.fixture
def logged():
    events = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def test_parts_provide_their_interfaces(server):
    assert verifyObject(ISnapshotStore, server.store)
    assert verifyObject(ISnapshotWriter, server.store.begin(meta()))
    snapshot = server.take(meta())
    assert verifyObject(ISnapshotReader, server.wait(server.store.open(snapshot)))
    assert verifyObject(IPartialSnapshot, server.wait(server.store.receive(encoded(meta(9))[1])))


def test_a_snapshot_is_there_after_a_restart_with_all_that_was_written(server):
    data, expected = encoded()
    assert server.take(meta()) == expected
    server.crash(keep="none")
    assert server.start() == expected
    assert server.chunks(expected) == CHUNKS
    assert server.content(expected) == data


def test_a_snapshot_without_chunks_is_one(server):
    snapshot = server.take(meta(), [])
    assert server.chunks(snapshot) == []


def test_what_a_child_wrote_counts_when_it_is_adopted(server):
    writer = server.store.begin(meta())
    server.store.begin(meta()).write_here(
        [], CHUNKS, lambda: None
    )  # in the child, all of the parent's objects are there twice
    assert server.indexes() == []
    assert server.wait(writer.adopt()) == encoded()[1]


def test_adopting_what_nobody_wrote_fails(server):
    with pytest.raises(StorageError, match="no such file"):
        server.wait(server.store.begin(meta()).adopt())
    assert server.indexes() == []


def test_what_is_adopted_must_be_what_was_asked_for(server):
    writer = server.store.begin(meta(time_ms=1))
    server.store.begin(meta(time_ms=2)).write_here([], CHUNKS, lambda: None)
    with pytest.raises(DamagedSnapshot, match="time_ms=2"):
        server.wait(writer.adopt())
    assert server.disk.file_names() == []


def test_it_is_read_back_before_it_counts(server):
    """S07, S11."""
    writer = server.store.begin(meta())
    server.store.begin(meta()).write_here([], CHUNKS, lambda: None)
    path = server.disk.file_names()[0]
    data = server.disk.read_file(path)
    server.disk.write_file(path, data.replace(b"first", b"fiRst"))
    with pytest.raises(DamagedSnapshot):
        server.wait(writer.adopt())
    assert (server.indexes(), server.disk.file_names()) == ([], [])


def test_an_abandoned_snapshot_leaves_nothing(server):
    writer = server.store.begin(meta())
    server.wait(writer.write(b"x"))
    server.wait(writer.abort())
    assert server.disk.file_names() == []
    with pytest.raises(StorageError, match="given up"):
        server.wait(writer.commit())


def test_the_newest_are_kept(server):
    for index in (3, 5, 9):
        server.take(meta(index))
    assert server.indexes() == [9, 5]
    assert len(server.disk.file_names()) == 2
    assert server.start().meta.last_index == 9
    assert server.indexes() == [9, 5]


def test_taking_one_again_replaces_it(server):
    server.take(meta(3), [b"old"])
    again = server.take(meta(3), [b"new"])
    assert server.indexes() == [3]
    assert server.chunks(again) == [b"new"]


def test_a_snapshot_that_is_being_read_can_be_read_to_its_end(server):
    data, old = encoded(meta(3))
    server.take(meta(3))
    reader = server.wait(server.store.open(old))
    for index in (5, 9):
        server.take(meta(index))
    assert server.wait(reader.read(0, len(data))) == data
    with pytest.raises(StorageError, match="no longer kept"):
        server.wait(server.store.open(old))


def test_a_damaged_newest_falls_back_to_the_one_before_and_says_so(server, logged):
    """S11: every byte."""
    server.take(meta(3))
    newest = server.take(meta(5), [b"a few", b"bytes"])
    path = server.disk.file_names()[1]
    data = server.disk.read_file(path)
    for at in range(len(data)):
        server.disk.write_file(path, data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :])
        assert server.start().meta.last_index == 3, at
        assert path in server.store.problem
    errors = [event for event in logged if event["log_level"] is LogLevel.error]
    assert len(errors) == len(data)
    server.disk.write_file(path, data)
    assert server.start() == newest
    assert server.store.problem == ""


def test_a_cut_newest_falls_back_to_the_one_before(server):
    server.take(meta(3))
    server.take(meta(5), [b"bytes"])
    path = server.disk.file_names()[1]
    data = server.disk.read_file(path)
    for stop in range(len(data)):
        server.disk.write_file(path, data[:stop])
        assert server.start().meta.last_index == 3, stop


def test_a_damaged_one_is_gone_when_there_is_another(server):
    server.take(meta(3))
    server.disk.write_file(f"{DIRECTORY}/{5:020d}-{2:020d}.snapshot", b"not a snapshot")
    server.start()
    server.take(meta(4))
    assert server.indexes() == [4, 3]
    assert len(server.disk.file_names()) == 2
    assert server.store.problem == ""


def test_a_snapshot_under_the_name_of_another_is_damaged(server):
    """D07."""
    server.take(meta(3))
    (path,) = server.disk.file_names()
    server.disk.write_file(path.replace("3-", "4-"), server.disk.read_file(path))
    assert server.start().meta.last_index == 3
    assert "entry 3, not what its name says" in server.store.problem


def test_what_was_left_half_written_is_removed_at_the_start(server):
    """S14."""
    server.take(meta(3))
    for name in (f"{9:020d}-{2:020d}.tmp", f"{3:020d}-{2:020d}-100-{'ab' * 32}.part"):
        server.disk.write_file(f"{DIRECTORY}/{name}", b"half")
    server.start()
    assert len(server.disk.file_names()) == 1


# -- received


def test_what_is_received_counts_when_it_is_whole(server):
    data, offer = encoded()
    assert server.receive(data, offer) == offer
    server.crash(keep="none")
    assert server.start() == offer
    assert server.chunks(offer) == CHUNKS


def test_a_transfer_goes_on_where_it_stopped(server):
    """S06: restart of the receiver at each chunk."""
    data, offer = encoded()
    while True:
        partial = server.wait(server.store.receive(offer))
        if partial.offset == len(data):
            break
        server.wait(partial.append(partial.offset, data[partial.offset : partial.offset + 500]))
        server.crash(keep="all")
        server.start()
    assert server.wait(partial.commit()) == offer


def test_two_transfers_are_never_mixed(server):
    """S06: another leader's snapshot of the same entry, that differs."""
    data, offer = encoded()
    other_data, other_offer = encoded(chunks=[b"other"] * 900)
    partial = server.wait(server.store.receive(offer))
    server.wait(partial.append(0, data[:2000]))
    server.wait(partial.close())
    assert server.wait(server.store.receive(other_offer)).offset == 0
    assert server.receive(other_data, other_offer) == other_offer


@pytest.mark.parametrize("also_fails", [False, True])
def test_what_a_sync_has_failed_for_comes_again_from_its_beginning(server, also_fails):
    """S14, D02: the next sync of that file succeeds, and what the first one lost is not on the disk."""
    data, offer = encoded()
    server.disk.fail("fsync")
    if also_fails:
        server.disk.fail("unlink")
    with pytest.raises(StorageError):
        server.receive(data, offer)
    partial = server.wait(server.store.receive(offer))
    assert partial.offset == 0
    server.wait(partial.close())
    assert server.receive(data, offer) == offer
    server.crash(keep="none")
    assert server.start() == offer


def test_what_could_not_be_removed_goes_before_the_next_one(server):
    """S14."""
    for call in ("pwrite", "unlink"):
        server.disk.fail(call)
    with pytest.raises(StorageError):
        server.take(meta(3))
    assert [name[-4:] for name in server.disk.file_names()] == [".tmp"]
    newest = server.take(meta(9))
    assert server.disk.file_names() == [server.store._directory.path_of(newest.meta)]


def test_bytes_at_a_wrong_offset_are_refused(server):
    data, offer = encoded()
    partial = server.wait(server.store.receive(offer))
    server.wait(partial.append(0, data[:100]))
    for offset, piece in ((0, data[:100]), (200, data[200:300]), (100, b""), (100, data[100:] + b"x")):
        with pytest.raises(ProtocolError, match="of which 100 are here"):
            partial.append(offset, piece)
    assert partial.offset == 100


def test_a_damaged_one_is_refused_removed_and_can_be_fetched_again(server):
    """S11."""
    data, offer = encoded()
    for wrong in (
        data.replace(b"first", b"fiRst"),
        data[:-1] + b"\0",
        encoded(chunks=[*CHUNKS[:3], bytes(699), b""])[0][: len(data)].ljust(len(data), b"x"),
    ):
        with pytest.raises(ProtocolError, match="not the snapshot that was offered"):
            server.receive(wrong, offer)
        assert server.disk.file_names() == []
    assert server.receive(data, offer) == offer


def test_whatever_byte_is_damaged_on_the_way_is_noticed_and_the_next_try_succeeds(server):
    """S11: on the way, or on the disk of the sender, after it had verified it."""
    data, offer = encoded(chunks=[b"a few", b"bytes"])
    for at in range(len(data)):
        for bit in (1 << at % 8, 255):
            with pytest.raises(ProtocolError, match="not the snapshot that was offered"):
                server.receive(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :], offer)
            assert (server.indexes(), server.disk.file_names()) == ([], []), at
    assert server.receive(data, offer) == offer


def test_a_byte_that_rots_in_a_kept_snapshot_is_noticed_by_who_reads_it(server):
    """S11, D18: nothing of it becomes anybody's state."""
    snapshot = server.take(meta(), [b"a few", b"bytes"])
    [path] = server.disk.file_names()
    data = server.disk.read_file(path)
    for at in range(len(data)):
        server.disk.write_file(path, data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :])
        machine = RecordingMachine()
        with pytest.raises(DamagedSnapshot, match="damaged"):
            server.wait(prepare(server.store, State(machine), snapshot))
        assert machine.commands == []


def test_one_that_is_checked_and_is_damaged_is_not_kept_any_longer(server):
    """S11, D18."""
    server.take(meta(3))
    snapshot = server.take(meta(5))
    assert server.wait(server.store.check(snapshot))
    path = server.disk.file_names()[1]
    server.disk.write_file(path, server.disk.read_file(path).replace(b"first", b"fiRst"))
    server.disk.fail("pread")
    with pytest.raises(StorageError, match="Input/output"):
        server.wait(server.store.check(snapshot))
    assert server.indexes() == [5, 3]
    assert not server.wait(server.store.check(snapshot))
    assert server.indexes() == [3]
    assert path in server.store.problem
    assert server.wait(server.store.check(snapshot)), "nobody needs it"
    assert server.take(meta(5)) == snapshot
    assert (server.indexes(), server.store.problem) == ([5, 3], "")
    data, _ = encoded(meta(5), [b"others"])
    server.disk.write_file(path, data)
    assert not server.wait(server.store.check(snapshot))
    assert "another snapshot than it was" in server.store.problem


def test_a_whole_snapshot_that_is_another_than_the_offered_is_refused(server):
    data, offer = encoded(meta(7))
    with pytest.raises(ProtocolError, match="not the snapshot that was offered"):
        server.receive(data, Snapshot(meta(8), offer.size, offer.digest))
    assert server.indexes() == []


def test_an_older_one_than_is_here_is_refused(server):
    """S03."""
    server.take(meta(7))
    for index in (6, 7):
        with pytest.raises(ProtocolError, match="one at 7 is here"):
            server.wait(server.store.receive(encoded(meta(index))[1]))


# -- crashes and failures


def steps(server, received=True):
    """Snapshots of all sorts, one after the other; yields what is acknowledged after each."""
    yield server.take(meta(3))
    yield server.take(meta(5), [b"child"])
    if received:
        data, offer = encoded(meta(8))
        yield server.receive(data, offer)
    yield server.take(meta(9))


def count_crash_points():
    server = Server()
    before = server.disk.calls.total()
    list(steps(server))
    return server.disk.calls.total() - before


CRASH_POINTS = count_crash_points()


@pytest.mark.parametrize("keep", ["none", "some", "all"])
def test_crash_at_any_call_loses_no_snapshot_that_counted(keep):
    """S07, S14, D02: while one is written, received, committed, and while old ones are removed."""
    for seed in range(8) if keep == "some" else [0]:
        for point in range(1, CRASH_POINTS + 1):
            server = Server(seed)
            server.disk.halt_at(point)
            done = []
            with contextlib.suppress(Halted):
                done.extend(steps(server))  # keeps what came before the exception
            server.crash(keep)
            newest = server.start()
            acknowledged = max([0, *(snapshot.meta.last_index for snapshot in done)])
            found = newest.meta.last_index if newest else 0
            assert acknowledged <= found, (seed, point)
            assert server.store.problem == "", (seed, point)
            assert not [name for name in server.disk.file_names() if name.endswith(".tmp")]
            # And it goes on from there.
            server.take(meta(20))
            assert server.indexes()[0] == 20
            if newest:
                assert server.indexes()[1] == found


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("written", [0, 600])
def test_a_failed_call_costs_one_snapshot_and_no_other(error, written):
    """D08, S14: a full disk, at every call; what was written is gone, and the next one succeeds."""
    probe = Server()
    before = probe.disk.calls.copy()
    list(steps(probe))
    for call, count in sorted((probe.disk.calls - before).items()):
        for number in range(1, count + 1):
            server = Server()
            server.disk.fail(call, number, error, written)
            done = []
            with contextlib.suppress(StorageError):
                done.extend(steps(server))
            server.disk.mend()
            acknowledged = max([0, *(snapshot.meta.last_index for snapshot in done)])
            assert [0, *server.indexes()[::-1]][-1] >= acknowledged, (call, number)
            server.take(meta(20))
            assert server.start().meta.last_index == 20, (call, number)


def test_a_snapshot_for_which_there_is_no_room_is_not_begun(server):
    """S10, D08: the log on the same disk needs what is left. A quarter more, as the state may have grown."""
    size = server.take(meta(3)).size
    server.disk.free = size * 5 // 4 - 1
    with pytest.raises(StorageError, match=f"would take about {size * 5 // 4} bytes, and {server.disk.free} are free"):
        server.take(meta(5))
    assert server.indexes() == [3]
    assert len(server.disk.file_names()) == 1
    server.disk.free += 1
    server.take(meta(5))
    assert server.indexes() == [5, 3]


def test_the_first_snapshot_is_tried_whatever_is_free(server):
    """Nobody knows its size."""
    server.disk.free = 0
    assert server.take(meta(3)).meta.last_index == 3


def test_one_that_grows_until_the_log_would_have_no_room_is_given_up(server):
    """S10, D08: nobody knew how large it was going to be."""
    mebibytes = [bytes(1 << 20)] * 20
    server.disk.free = 3 << 20
    with pytest.raises(StorageError, match=f"would leave {3 << 20} for the log"):
        server.take(meta(3), mebibytes)
    assert (server.indexes(), server.disk.file_names()) == ([], [])
    assert server.take(meta(3), mebibytes[:10]).meta.last_index == 3


def test_only_what_is_missing_of_an_offered_snapshot_needs_room(server):
    """S10, D08."""
    data, offer = encoded()
    server.disk.free = len(data) - 1
    with pytest.raises(StorageError, match=f"the rest of the snapshot that is offered would take about {len(data)} "):
        server.wait(server.store.receive(offer))
    server.disk.free = len(data)
    partial = server.wait(server.store.receive(offer))
    server.wait(partial.append(0, data[:500]))
    server.wait(partial.close())
    server.disk.free -= 500
    assert server.receive(data, offer) == offer


def test_a_disk_that_fails_at_the_start_is_an_error_and_no_reason_to_use_an_older_one(server):
    server.take(meta(3))
    server.take(meta(5))
    server.disk.fail("pread")
    with pytest.raises(StorageError, match="Input/output"):
        server.start()


def test_verify_tells_how_far_it_is(server):
    snapshot = server.take(meta(), [b"x" * 2_500_000])
    seen = []
    (path,) = server.disk.file_names()
    assert verify(server.disk, path, lambda done, size: seen.append((done, size))) == snapshot
    assert seen == [(1 << 20, snapshot.size), (2 << 20, snapshot.size), (snapshot.size, snapshot.size)]


def test_a_large_one_is_synced_bit_by_bit(server):
    """What is left to the end is what a write of the log, on the same disk, waits for."""
    server.take(meta(), [b"x" * 100_000] * 300)
    assert server.disk.calls["fdatasync"] == 3
