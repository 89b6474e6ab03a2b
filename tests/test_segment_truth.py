"""What the simulation knows of the files of a log beside the servers: each check notices what it is for."""

from __future__ import annotations

from typing import Any

import pytest

from txraft.core.errors import InvariantBroken
from txraft.errors import OutcomeUnknown
from txraft.storage.store import LogStore
from txraft.storage.wal import WriteAheadLog
from txraft.testing.cluster import Cluster


def alone(**settings: Any) -> tuple[Cluster, str]:
    """A server that leads itself, with small segments."""
    cluster = Cluster(size=1, **settings)
    cluster.segment_bytes = 1024
    cluster.start()
    return cluster, cluster.elect().settings.server_id


def write(cluster: Cluster, count: int) -> None:
    """So many records."""
    for number in range(count):
        done = cluster.leader().propose(b"%d" % number).addErrback(lambda failure: failure.trap(OutcomeUnknown))
        assert cluster.run_until(lambda done=done: bool(done.called))


def snapshots_between_writes(cluster: Cluster, server_id: str, count: int) -> None:
    """A snapshot after each 20 records, which are more than a segment."""
    for _ in range(count):
        write(cluster, 20)
        taken = cluster.node(server_id).take_snapshot()
        assert cluster.run_until(lambda taken=taken: bool(taken.called))
        cluster.run(0.1)


def test_what_is_behind_the_last_record_is_noticed():
    """D06: as if a torn tail had not been cut."""
    cluster, server_id = alone()
    disk = cluster.servers[server_id].disk
    path = max(path for path in disk.file_names() if "raft.log.0" in path)
    content = disk.read_file(path)
    disk.write_file(path, content[:-20] + b"an old record" + content[-7:])
    with pytest.raises(InvariantBroken, match="something is behind the last record"):
        write(cluster, 1)


def test_segments_go_when_two_snapshots_hold_what_is_in_them():
    """S10."""
    cluster, server_id = alone()
    snapshots_between_writes(cluster, server_id, 6)
    assert cluster.node(server_id).status().storage.segments <= 5


def test_a_segment_that_is_never_given_up_is_noticed(monkeypatch):
    """S10."""
    monkeypatch.setattr(WriteAheadLog, "release", lambda self, first_index: None)
    cluster, server_id = alone()
    with pytest.raises(InvariantBroken, match="a segment stays of which nothing is needed"):
        snapshots_between_writes(cluster, server_id, 6)


def test_a_log_that_is_forgotten_in_memory_only_is_noticed(monkeypatch):
    """S10."""
    cluster, server_id = alone()
    monkeypatch.setattr(
        cluster.node(server_id).snapshots,
        "_compact",
        lambda raft, newest: raft.snapshots.compact(newest.meta.last_index),
    )
    with pytest.raises(InvariantBroken, match="the log is forgotten, and its files stay"):
        snapshots_between_writes(cluster, server_id, 1)


def test_a_log_that_does_not_reach_back_to_the_older_snapshot_is_noticed(monkeypatch):
    """S11: nothing would be left to start from, should the newer one be damaged."""
    monkeypatch.setattr(
        LogStore, "compact", lambda self, first_index: self._on_writer(lambda wal: wal.release(first_index))
    )
    cluster, server_id = alone()
    with pytest.raises(InvariantBroken, match="what follows the older snapshot is given up"):
        snapshots_between_writes(cluster, server_id, 6)
