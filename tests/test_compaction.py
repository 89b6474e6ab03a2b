"""The log beside its snapshots: what may go, what a start makes of both, and every crash in between."""

from __future__ import annotations

import contextlib
import errno

import pytest
from snapshot_cases import encoded, meta
from storage_cases import SNAPSHOTS, STATE, entries, run
from storage_steps import SnapshotServer, big

from txraft.core.messages import HardState
from txraft.errors import StorageError
from txraft.testing.disk import Halted


def history(server):
    """Rotations, two snapshots of our own, three of others: ahead of the log, matching it, contradicting it."""
    server.write(HardState(1, "s1"), run(1, "a"))
    server.write(None, *big(2, 4))
    server.take(4)
    server.compact(5)
    server.write(None, *big(6, 3))
    server.take(8)
    server.compact(3)
    server.compact(9)
    server.write(None, *big(9, 3))
    server.install(20, 1)  # ahead
    server.compact(21)
    server.write(HardState(2, None), *big(21, 4, term=2))
    server.install(22, 2)  # matches: what is behind it stays
    server.compact(23)
    server.write(HardState(3, "s2"))
    for one in big(25, 12, term=3):
        server.write(None, one)
    server.install(27, 4)  # contradicts: a log that is longer, of an older term
    server.write(HardState(5, "s3"), *big(28, 3, term=5))
    server.install(29, 6)
    server.install(33, 6)
    server.write(None, *big(34, 1, term=6))
    server.compact(34)


@pytest.fixture
def server():
    server = SnapshotServer()
    server.open()
    return server


def test_the_history_is_there_after_a_restart(server):
    history(server)
    server.crash(keep="none")
    assert server.look() == server.acknowledged
    assert server.acknowledged[1:] == (33, entries(big(34, 1, term=6)))


def count_crash_points():
    server = SnapshotServer()
    server.open()
    before = server.disk.calls.total()
    history(server)
    return server.disk.calls.total() - before


CRASH_POINTS = count_crash_points()


@pytest.mark.parametrize("keep", ["none", "some", "all"])
def test_crash_at_any_call_leaves_the_old_state_or_the_new(keep):
    """S01, S02, S07, S13, S14, D02: write, rotate, take, compact, install, reset, and all over again."""
    for seed in range(6) if keep == "some" else [0]:
        for point in range(1, CRASH_POINTS + 1):
            server = SnapshotServer(seed)
            server.open()
            server.disk.halt_at(point)
            with contextlib.suppress(Halted, StorageError):
                history(server)
            server.crash(keep)
            found = server.look()
            assert found in (server.acknowledged, server.attempted), (seed, point)
            # And it goes on from there.
            server.acknowledged = found
            last_index = max([found[1], *(index for index, _, _ in found[2])])
            server.write(HardState(9, "s9"), *big(last_index + 1, 2, term=9))
            server.take(last_index + 1)
            server.compact(last_index + 2)
            server.crash()
            assert server.look() == server.acknowledged, (seed, point)


def test_a_crash_while_a_start_gives_up_an_old_log_leaves_a_log_that_opens():
    """Second failure while the first is being repaired."""
    for seed in range(30):
        for point in range(1, 40):
            server = SnapshotServer(seed)
            server.open()
            server.write(HardState(1, "s1"), *big(1, 10))
            server.disk.halt_at(point)
            with contextlib.suppress(Halted, StorageError):
                server.install(5, 2)
            server.crash()
            for again in range(1, 45, 3):
                server.disk.halt_at(again)
                with contextlib.suppress(Halted):
                    server.open()
                server.crash()
            assert server.look() in (server.acknowledged, server.attempted), (seed, point)


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("written", [0, 300])
def test_a_failed_call_leaves_the_old_state_or_the_new(error, written):
    """D01, D08: a full or failing disk, at every call."""
    probe = SnapshotServer()
    probe.open()
    before = probe.disk.calls.copy()
    history(probe)
    for call, count in sorted((probe.disk.calls - before).items()):
        for number in range(1, count + 1):
            server = SnapshotServer(number)
            server.open()
            server.disk.fail(call, number, error, written)
            with contextlib.suppress(StorageError):
                history(server)
            server.crash()
            assert server.look() in (server.acknowledged, server.attempted), (call, number)


def test_a_failed_compaction_stops_the_store(server):
    server.fill(1, 8)
    server.take(6)
    server.disk.fail("fsync_directory")
    with pytest.raises(StorageError):
        server.compact(7)
    with pytest.raises(StorageError, match="nothing is written after a failure"):
        server.write(None, run(9, "x"))


def test_a_failed_snapshot_does_not_stop_the_store(server):
    server.fill(1, 4)
    server.disk.fail("pwrite", error=errno.ENOSPC)
    with pytest.raises(StorageError):
        server.take(3)
    server.write(None, run(5, "x"))
    server.take(4)


def test_nothing_goes_that_no_snapshot_covers(server):
    """S07."""
    server.fill(1, 12)
    server.compact(12)
    assert len(server.segments()) == 4
    server.take(5)
    server.compact(12)
    assert server.open_again().runs[0].first_index <= 6


def test_the_log_reaches_back_to_the_oldest_snapshot_that_is_kept(server):
    """S11: a damaged newest is no loss."""
    server.fill(1, 20)
    for index in (5, 11, 16):
        server.take(index)
        server.compact(index + 1)
    server.close()
    newest = next(path for path in server.disk.file_names() if path.startswith(f"{SNAPSHOTS}/{16:020d}"))
    data = server.disk.read_file(newest)
    server.disk.write_file(newest, data[:-1])
    recovered = server.open()
    assert recovered.snapshot.meta.last_index == 11
    assert recovered.runs[-1].last_index == 20
    assert "damaged" in server.store.snapshots.problem


def test_what_the_snapshot_holds_and_the_log_too_is_kept_for_slow_followers(server):
    server.fill(1, 12)
    server.take(10)
    server.compact(6)
    recovered = server.open_again()
    assert (recovered.base_index, recovered.base_term, recovered.snapshot.meta.last_index) == (4, 1, 10)
    assert [index for index, _, _ in entries(recovered.runs)] == [*range(5, 13)]


def test_every_start_is_right_whereever_the_log_was_cut():
    """S01: restart at every compaction boundary."""
    for last_index in range(1, 13):
        for first_index in range(1, last_index + 2):
            server = SnapshotServer()
            server.open()
            server.fill(1, 12)
            server.take(last_index)
            server.compact(first_index)
            server.close()
            assert server.look() == server.acknowledged, (last_index, first_index)


def test_a_run_that_is_cut_by_the_beginning_of_the_log_comes_back_from_its_second_entry(server):
    server.write(None, run(1, "abcdef"))
    server.take(3)
    recovered = server.open_again()
    assert (recovered.base_index, recovered.base_term) == (1, 1)
    assert entries(recovered.runs) == [(index, 1, b"abcdef"[index - 1 : index]) for index in range(2, 7)]


def test_a_log_that_no_snapshot_reaches_is_refused_and_says_why(server):
    server.fill(1, 12)
    for index in (5, 9):
        server.take(index)
    server.compact(12)
    server.close()
    for path in server.disk.file_names():
        if path.startswith(SNAPSHOTS):
            server.disk.write_file(path, b"garbage" * 9)
    before = {path: server.disk.read_file(path) for path in server.disk.file_names() if not path.endswith(".tmp")}
    with pytest.raises(
        StorageError, match=r"the log begins at entry 4; those from 1 on are missing.*snapshot.*damaged"
    ):
        server.open()
    assert {path: server.disk.read_file(path) for path in server.disk.file_names()} == before


def test_where_the_snapshots_are_gone_the_log_is_not_all_that_is_blamed(server):
    """Somebody has removed them, or they are on a volume that is not mounted."""
    server.fill(1, 12)
    for index in (5, 9):
        server.take(index)
    server.compact(12)
    server.close()
    for path in server.disk.file_names():
        if path.startswith(SNAPSHOTS):
            server.disk.unlink(path)
    with pytest.raises(StorageError, match=r"no snapshot in snapshot_dir holds them.*restore .* the snapshots"):
        server.open()


def test_a_snapshot_of_another_cluster_is_refused(server):
    """D13."""
    server.fill(1, 3)
    data, _ = encoded(meta(2, 1, cluster_id="elsewhere"))
    server.close()
    server.disk.write_file(f"{SNAPSHOTS}/{2:020d}-{1:020d}.snapshot", data)
    with pytest.raises(StorageError, match="of cluster 'elsewhere', but this server belongs to cluster 'c'"):
        server.open()


def test_a_lost_vote_beside_a_snapshot_is_refused(server):
    server.write(None, run(1, "a"))
    server.take(1)
    server.close()
    for path in (*server.segments(), STATE):
        server.disk.remove_file(path)
    with pytest.raises(StorageError, match="core_map: missing, but a snapshot in"):
        server.open()


def test_disk_use_stays_bounded(server):
    sizes = []
    for index in range(1, 200):
        server.write(None, *big(index, 1))
        if index % 10 == 0:
            server.take(index)
            server.compact(index + 1)
        sizes.append(sum(len(server.disk.read_file(path)) for path in server.disk.file_names()))
    assert max(sizes) < 12_000
