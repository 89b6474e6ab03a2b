"""What the simulation knows of snapshots beside the servers: each check notices what it is for."""

from __future__ import annotations

import random
from typing import Any

import pytest

from txraft.core.errors import InvariantBroken
from txraft.errors import ChildFailed
from txraft.images import SnapshotWay
from txraft.storage import snapshot_directory, snapshot_file
from txraft.testing.cluster import Cluster
from txraft.testing.disk import FakeDisk
from txraft.testing.forker import FakeForker
from txraft.testing.registers import RegisterMachine
from txraft.testing.snapshot_faults import SNAPSHOTS, SnapshotFaults
from txraft.testing.witness import Witness


def working(count: int = 10, **settings: Any) -> tuple[Cluster, str]:
    """A cluster that has applied so many commands, and its leader's id."""
    cluster = Cluster(**settings)
    cluster.start()
    leader = cluster.elect()
    for number in range(count):
        leader.propose(b"%d" % number)
    assert cluster.run_until(lambda: all(len(each.machine.commands) == count for each in cluster.servers.values()))
    return cluster, leader.settings.server_id


def take(cluster: Cluster, server_id: str) -> list[Any]:
    """What comes of a snapshot there."""
    taken: list[Any] = []
    cluster.node(server_id).take_snapshot().addBoth(taken.append)
    assert cluster.run_until(lambda: bool(taken))
    cluster.run(0.1)
    return taken


@pytest.mark.parametrize("way", list(SnapshotWay))
def test_a_snapshot_taken_in_any_way_is_what_a_replay_leads_to(way):
    """S08."""
    cluster, server_id = working()
    witness = cluster.servers[server_id].witness
    witness.snapshot_way = way
    [snapshot] = take(cluster, server_id)
    assert cluster.node(server_id).status().snapshots.index == snapshot.meta.last_index
    cluster.check_replay()


def test_a_snapshot_of_another_state_is_noticed():
    """S08: the state is of one index, and the snapshot says another."""
    cluster, server_id = working()
    witness = cluster.servers[server_id].witness
    witness.snapshot_way = SnapshotWay.INLINE
    chunks = witness.snapshot()
    cluster.node(server_id).propose(b"one more")
    cluster.run(0.5)
    witness.snapshot = lambda: chunks
    with pytest.raises(InvariantBroken, match="not what a replay leads to"):
        take(cluster, server_id)


def test_a_snapshot_that_counts_too_soon_is_noticed(monkeypatch):
    """S07."""
    cluster, server_id = working()
    monkeypatch.setattr(FakeDisk, "fsync_directory", lambda self, path: None)
    with pytest.raises(InvariantBroken, match="name is not durable"):
        take(cluster, server_id)


def test_a_garbled_snapshot_never_counts():
    """S11."""
    cluster, server_id = working()
    SnapshotFaults(cluster, random.Random(1)).do_garble(server_id, "1000", "2")
    [failure] = take(cluster, server_id)
    assert "damaged" in str(failure.value)
    assert cluster.node(server_id).status().snapshots.index == 0


def test_a_garbled_snapshot_that_counts_is_noticed(monkeypatch):
    """S11."""

    def believe(files, path):
        reader = snapshot_directory.SnapshotFileReader(files, path)
        try:
            return reader.outline()
        finally:
            reader.close()

    monkeypatch.setattr(snapshot_directory, "verify", believe)
    cluster, server_id = working()
    cluster.servers[server_id].witness.snapshot_way = SnapshotWay.INLINE
    write = snapshot_file.SnapshotFileWriter.write

    def write_garbled(self, chunk):
        cluster.servers[server_id].disk.garble(SNAPSHOTS, 200)
        write(self, chunk)

    monkeypatch.setattr(snapshot_file.SnapshotFileWriter, "write", write_garbled)
    with pytest.raises(InvariantBroken, match="damaged, or not durable"):
        take(cluster, server_id)


def test_what_a_start_leaves_lying_is_noticed(monkeypatch):
    """S14."""
    cluster, server_id = working()
    cluster.crash(server_id, keep="all")
    cluster.servers[server_id].disk.write_file(f"{SNAPSHOTS}/{1:020d}-{1:020d}.tmp", b"half")
    monkeypatch.setattr(snapshot_directory.SnapshotDirectory, "open", lambda self: None)
    with pytest.raises(InvariantBroken, match="half of a snapshot stays"):
        cluster.start(server_id)


def test_a_log_that_is_never_forgotten_is_noticed(monkeypatch):
    """S10."""
    cluster, server_id = working(snapshot_hold_bytes=10)
    monkeypatch.setattr(cluster.node(server_id).snapshots, "_compact", lambda raft, newest: None)
    with pytest.raises(InvariantBroken, match="the log is kept although a snapshot holds it"):
        take(cluster, server_id)
        cluster.run(5)


def test_a_server_that_is_kept_busy_by_its_snapshot_is_noticed():
    """S12."""
    cluster, server_id = working(snapshot_slice_ms=1000)
    server = cluster.servers[server_id]
    server.witness.snapshot_way, server.chunk_seconds = SnapshotWay.INCREMENTAL, 0.002
    with pytest.raises(InvariantBroken, match="keeps a server from all else"):
        take(cluster, server_id)


def test_a_machine_that_makes_all_of_its_snapshot_at_once_is_noticed():
    """S12: it said that its state may be large."""
    cluster, server_id = working()
    witness = cluster.servers[server_id].witness
    witness.snapshot_way = SnapshotWay.FORK
    with pytest.raises(InvariantBroken, match="all of its snapshot at once"):
        witness.snapshot()


def test_a_machine_that_is_restored_in_one_turn_is_noticed():
    """S12."""
    cluster, server_id = working()
    server = cluster.servers[server_id]
    server.machine, server.chunk_seconds = RegisterMachine(), 0.01
    restoring = Witness(server, cluster.record, cluster._judging, SnapshotWay.FORK).restoring()
    restoring.add(b"one")
    with pytest.raises(InvariantBroken, match="keeps a server from all else"):
        restoring.add(b"another")


def test_a_snapshot_that_takes_long_is_made_in_slices():
    """S12."""
    cluster, server_id = working()
    server = cluster.servers[server_id]
    server.witness.snapshot_way, server.chunk_seconds = SnapshotWay.INCREMENTAL, 0.002
    take(cluster, server_id)
    assert "S12" in cluster.record.rows


@pytest.mark.parametrize(("call", "error"), [("create", "EIO"), ("pwrite", "ENOSPC"), ("rename", "EIO")])
def test_faults_reach_the_writer_of_snapshots(call, error):
    """D08: and nobody else, whose calls are many more."""
    cluster, server_id = working()
    SnapshotFaults(cluster, random.Random(1)).do_fail_snapshot(server_id, call, error, "1")
    cluster.node(server_id).propose(b"the log is written as before")
    cluster.run(0.5)
    [failure] = take(cluster, server_id)
    assert f"{call} failed" in str(failure.value)
    assert cluster.node(server_id).failure is None


def test_power_is_lost_within_a_snapshot():
    cluster, server_id = working()
    faults = SnapshotFaults(cluster, random.Random(1))
    faults.do_halt_snapshot(server_id, "none", "2")
    cluster.node(server_id).propose(b"the log is written as before")
    cluster.run(0.5)
    assert faults.counts["halt"] == 0
    cluster.node(server_id).take_snapshot()
    cluster.run(0.5)
    assert faults.counts["halt"] == 1


def test_who_lags_is_sent_a_snapshot_and_is_overtaken():
    """S03: another leader gives it entries before it has installed what has come."""
    cluster, server_id = working()
    faults = SnapshotFaults(cluster, random.Random(1))
    away = next(other for other in cluster.ids if other != server_id)
    # A child may hang.
    cluster.servers[server_id].witness.snapshot_way = SnapshotWay.INLINE
    faults.do_lag(away, "200")
    cluster.run(0.05)
    cluster.leader().propose(b"missed")
    faults.do_overtake("cut", "3")
    assert cluster.run_until(lambda: faults.counts["overtake cut"] == 1, 2)
    assert cluster.run_until(lambda: cluster.leader().settings.server_id != server_id, 2)


def test_a_child_does_its_job_or_dies():
    """The share of those that die is what the simulation wants; both ends are told later."""
    cluster, server_id = working()
    server = cluster.servers[server_id]
    ends = []
    for seed in range(30):
        done = FakeForker(server, random.Random(seed)).run(lambda alive: alive())
        assert not done.called
        done.addCallbacks(lambda _: ends.append("done"), lambda failure: ends.append(failure.trap(ChildFailed)))
    cluster.run(0.5)
    assert len(ends) == 30
    assert {"done", ChildFailed} == set(ends)


def test_a_bit_of_one_write_is_garbled_and_of_no_other():
    disk = FakeDisk(random.Random(1))
    one, other = disk.create("/one"), disk.create("/other")
    disk.garble("/other", 9, number=2)
    for handle in (other, one, other, other):
        disk.pwrite(handle, len(handle.file.cached), b"\0\0")
    assert disk.read_file("/one") == b"\0\0"
    assert disk.read_file("/other") == b"\0\0\0\2\0\0"
