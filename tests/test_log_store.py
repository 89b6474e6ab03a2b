"""The log store as the node sees it: what it says is durable is there, and what fails stops it."""

from __future__ import annotations

import contextlib
import errno

import pytest
from storage_cases import DATA_DIR, HISTORY, LOG, STATE, Server, allowed, found, run
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from zope.interface.verify import verifyObject

from txraft import codec
from txraft.core.messages import HardState
from txraft.errors import StorageError
from txraft.interfaces import ILogStore
from txraft.storage.files import FileSystem, IFileSystem
from txraft.storage.snapshots import SnapshotStore
from txraft.storage.store import LogStore
from txraft.storage.writer import IWriter
from txraft.testing.disk import FakeDisk, Halted
from txraft.testing.writer import FakeWriter

SEEDS = range(4)


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
    assert verifyObject(ILogStore, server.make_store())
    assert verifyObject(IFileSystem, server.disk)
    assert verifyObject(IWriter, FakeWriter(Clock()))


def test_new_directory_is_empty_and_gets_the_configured_identity(server):
    recovered = server.open()
    assert found(recovered) == (HardState(), [])
    assert (recovered.identity.cluster_id, recovered.identity.server_id) == ("c", "s1")


def test_everything_written_is_there_after_a_restart(server):
    identity = server.open().identity
    attempted, error = server.write_history()
    assert error is None
    server.close()
    recovered = server.open()
    assert found(recovered) == attempted
    assert recovered.identity == identity


def test_everything_acknowledged_is_there_after_power_loss_although_nothing_else_was_synced(server):
    server.open()
    server.write_history()
    server.crash(keep="none")
    assert found(server.open()) == server.acknowledged


def test_replaced_suffix_does_not_come_back(server):
    """D06, D10."""
    server.open()
    server.write(None, [run(1, "abcdef")])
    server.write(None, [run(3, "X", term=2)])
    server.crash()
    assert found(server.open())[1] == [(1, 1, b"a"), (2, 1, b"b"), (3, 2, b"X")]


def count_crash_points():
    server = Server()
    server.open()
    server.write_history()
    return server.disk.calls.total()


CRASH_POINTS = count_crash_points()


@pytest.mark.parametrize("keep", ["none", "some", "all"])
def test_crash_at_any_call_loses_nothing_acknowledged_and_invents_nothing(keep):
    """D02, D06, D10, D21: from the first call of the first start to the last of the history."""
    for seed in SEEDS if keep == "some" else [0]:
        for point in range(1, CRASH_POINTS + 1):
            server = Server(seed)
            server.disk.halt_at(point)
            attempted = server.acknowledged
            try:
                server.open()
                attempted, _ = server.write_history()
            except Halted:
                pass
            server.crash(keep)
            after = found(server.open())
            assert after in allowed(server.acknowledged, attempted), (seed, point)
            # And the log goes on from there, whatever was cut.
            server.acknowledged = after
            next_index = after[1][-1][0] + 1 if after[1] else 1
            server.write(HardState(9, "s9"), [run(next_index, [b"after" * 99], term=9)])
            server.crash()
            assert found(server.open()) == server.acknowledged, (seed, point)


def test_crash_during_the_recovery_from_a_crash_loses_nothing():
    """Second failure while the first is being repaired."""
    for seed in range(25):
        for point in range(40, CRASH_POINTS, 7):
            server = Server(seed)
            server.open()
            server.disk.halt_at(point)
            attempted, _ = server.write_history()
            server.crash()
            for again in range(1, 12):
                server.disk.halt_at(again)
                with contextlib.suppress(Halted):
                    server.open()
                server.crash()
            assert found(server.open()) in allowed(server.acknowledged, attempted), (seed, point)


def test_a_crash_while_a_torn_record_is_overwritten_leaves_a_log_that_opens():
    """D06: what was cut must not show through the sectors of the record that was written over it."""
    for seed in range(300):
        server = Server(seed, segment_bytes=8192)
        server.open()
        for commands in ([b"a" * 1100], [b"b" * 2100]):
            server.disk.halt_at(2)
            with pytest.raises(StorageError):
                server.write(None, [run(1, commands)])
            server.crash()
            server.open()
        server.write(None, [run(1, "c")])


def failures():
    """Every call of a history, by name and number."""
    server = Server()
    server.open()
    before = server.disk.calls.copy()
    server.write_history()
    for call, count in sorted((server.disk.calls - before).items()):
        for number in range(1, count + 1):
            yield call, number


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("written", [0, 5, 600])
def test_a_failed_call_stops_the_store_and_loses_nothing_acknowledged(error, written):
    """D01, D08: a short write, a full disk, a sync that fails and would succeed if it was asked again."""
    for call, number in failures():
        server = Server(number)
        server.open()
        server.disk.fail(call, number, error, written)
        attempted, failure = server.write_history()
        if failure is None:
            # It failed while the next segment was prepared, behind the last write.
            with pytest.raises(StorageError) as caught:
                server.write(None, [run(105, "x", term=5)])
            failure = caught.value
        assert isinstance(failure, StorageError), (call, number, failure)
        assert "/raft-data" in str(failure)
        with pytest.raises(StorageError):
            server.write(HardState(9, "s9"), [run(1, "z")])
        server.crash()
        assert found(server.open()) in allowed(server.acknowledged, attempted), (call, number)


def test_a_failed_call_while_opening_is_a_storage_error_and_lets_go_of_the_lock():
    """A start on a full or failing disk is refused, and works when the disk does again."""
    trial = Server()
    trial.open()
    trial.write_history()
    trial.close()
    before = trial.disk.calls.copy()
    trial.open()
    for call, count in sorted((trial.disk.calls - before).items()):
        for number in range(1, count + 1):
            server = Server()
            server.open()
            server.write_history()
            server.close()
            server.disk.fail(call, number)
            with pytest.raises(StorageError, match=r"/raft-data.*Input/output error"):
                server.open()
            assert found(server.open()) == server.acknowledged, (call, number)


def test_a_flush_costs_one_write_and_one_sync(server):
    """D16 has nothing to shuffle: state and log of a flush are one job."""
    server.segment_bytes = 1 << 20
    server.open()
    for _ in range(70):  # until the next segment is ready
        server.write(None, [run(1, [b"x" * 8000])])
    before = server.disk.calls.copy()
    server.write(None, [run(2, "abc"), run(5, "d", time_ms=1001), run(6, "e", term=2)])
    assert server.disk.calls - before == {"pwrite": 1, "fdatasync": 1}


def test_a_run_is_encoded_on_the_callers_turn_and_once(server):
    server.open()
    new_run = run(1, "a")
    server.store.write(None, [new_run])
    assert new_run.encoded == codec.encode_run(run(1, "a"))


def test_the_state_is_durable_before_the_log_is_touched(server):
    """An entry of a term must never be there without the term."""
    server.open()
    server.write(None, [run(1, "a")])
    server.disk.fail("rename")
    with pytest.raises(StorageError):
        server.write(HardState(5, "s2"), [run(2, "b", term=5)])
    server.crash()
    assert found(server.open()) == (HardState(), [(1, 1, b"a")])


def test_a_second_process_is_refused(server):
    """D12."""
    server.open()
    with pytest.raises(StorageError, match=DATA_DIR):
        server.open()


def test_a_closed_store_lets_go_of_the_directory_and_writes_no_more(server):
    server.open()
    server.close()
    with pytest.raises(StorageError, match="not open"):
        server.write(None, [run(1, "a")])
    server.open()


def test_close_finishes_the_outstanding_write(server):
    server.open()
    done = server.store.write(None, [run(1, "a")])
    server.finish(server.store.close())
    assert done.called
    server.crash(keep="none")
    assert found(server.open())[1] == [(1, 1, b"a")]


def test_missing_directories_are_made_for_good(tmp_path):
    """D02, on real files: the data directory, and where log and state are kept elsewhere."""
    clock = Clock()
    store = LogStore(
        data_dir=str(tmp_path / "a" / "data"),
        log_file=str(tmp_path / "b" / "c" / "log"),
        core_map_file=str(tmp_path / "d" / "core_map"),
        server_id="s1",
        cluster_id="c",
        segment_bytes=4096,
        fsync=True,
        files=FileSystem(),
        writer=FakeWriter(clock),
        new_incarnation=lambda: 1,
        monotonic=clock.seconds,
        snapshots=SnapshotStore(FileSystem(), str(tmp_path / "e" / "f"), 2, True, FakeWriter(clock)),
    )
    store.open()
    done = store.write(HardState(1, "s1"), [run(1, "a")])
    clock.pump([0, 0])
    assert done.result is None
    store.close()
    clock.pump([0, 0])
    assert found(store.open()) == (HardState(1, "s1"), [(1, 1, b"a")])
    store.close()
    clock.pump([0, 0])
    assert sorted(path.name for path in tmp_path.rglob("*") if path.is_file()) == [
        "core_map",
        "lock",
        "log.0000000000000001",
    ]


def test_close_without_open_is_done_at_once(server):
    assert server.make_store().close().called


@pytest.mark.parametrize(
    ("stored", "configured"),
    [(("s1", "c"), ("s2", "c")), (("s1", "c"), ("s1", "d")), (("s1", ""), ("s2", ""))],
)
def test_another_servers_directory_is_refused_and_both_are_named(server, stored, configured):
    """D13."""
    server.open(server_id=stored[0], cluster_id=stored[1])
    server.close()
    with pytest.raises(StorageError) as caught:
        server.open(server_id=configured[0], cluster_id=configured[1])
    for name in (*stored, *configured, STATE):
        assert name in str(caught.value)


@pytest.mark.parametrize(("stored", "configured"), [("", "c"), ("c", ""), ("", ""), ("c", "c")])
def test_a_passive_side_belongs_to_any_cluster(server, stored, configured):
    server.open(cluster_id=stored)
    server.close()
    assert server.open(cluster_id=configured).identity.cluster_id == stored


def test_log_of_another_directory_is_refused(server):
    """D13: the files of two servers, mixed."""
    other = Server(seed=7)
    for each in (server, other):
        each.open()
        each.write_history()
        each.close()
    for path in server.segments():
        server.disk.write_file(path, other.disk.read_file(path))
    with pytest.raises(StorageError, match="another data directory"):
        server.open()


def test_a_lost_log_is_refused(server):
    server.open()
    server.write(HardState(1, "s1"), [])
    server.close()
    server.disk.remove_file(server.segments()[0])
    with pytest.raises(StorageError, match=r"log\.0000000000000001: missing.*add the server to the cluster again"):
        server.open()


def test_a_lost_vote_is_refused(server):
    server.open()
    server.write(HardState(1, "s1"), [run(1, "a")])
    server.close()
    server.disk.remove_file(STATE)
    before = [server.disk.read_file(path) for path in server.segments()]
    with pytest.raises(StorageError, match=r"core_map: missing.*vote twice"):
        server.open()
    assert [server.disk.read_file(path) for path in server.segments()] == before


def test_leftover_temporary_files_are_removed(server):
    server.open()
    server.close()
    server.disk.write_file(STATE + ".tmp", b"half")
    server.disk.write_file(LOG + ".next.tmp", bytes(100))
    server.open()
    assert not [path for path in server.disk.file_names() if path.endswith(".tmp")]


def test_without_fsync_nothing_is_synced_and_everybody_is_told(logged):
    """D19: what is not asked for is said."""
    server = Server(fsync=False)
    server.open()
    server.write_history()
    assert not [call for call in server.disk.calls if "sync" in call]
    assert server.store.status().unsafe
    warnings = [event["log_format"] for event in logged if event["log_level"] is LogLevel.warn]
    assert [text for text in warnings if text.startswith("UNSAFE")]
    server.crash(keep="all")
    assert found(server.open()) == server.acknowledged


def test_status_says_what_the_disk_is_doing(server):
    server.make_store()
    assert server.store.status().segments == 0
    server.store.open()
    server.store.write(None, [run(1, "a")])
    server.clock.rightNow = 2.5
    assert server.store.status().write_seconds == 2.5
    server.clock.advance(0)
    server.clock.advance(0)
    status = server.store.status()
    assert (status.path, status.segments, status.unsafe, status.write_seconds) == (DATA_DIR, 1, False, None)
    assert status.log_bytes > 512
    assert status.syncs == sum(count for call, count in server.disk.calls.items() if "sync" in call)


def test_payloads_are_never_logged(server, logged):
    server.open()
    server.write(None, [run(1, [b"secret" * 300])])
    path = server.segments()[-1]
    data = server.disk.read_file(path)
    server.close()
    server.disk.write_file(path, data[: len(data.rstrip(b"\0")) - 600] + bytes(600))
    server.open()
    assert [event for event in logged if "cut" in event["log_format"]]
    assert "secret" not in repr(logged)


def test_the_history_covers_what_it_should(server):
    """Segments that are full, one that is longer than the others, and several of them."""
    server.open()
    server.write_history()
    sizes = [len(server.disk.read_file(path)) for path in server.segments()]
    assert len(sizes) >= 4
    assert max(sizes) > server.segment_bytes
    assert len(HISTORY) == 13
    assert isinstance(server.disk, FakeDisk)
