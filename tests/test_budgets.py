"""What a batch costs, as counts: cheap enough is a property of the design, not of the machine."""

from __future__ import annotations

from txraft import codec
from txraft.testing.cluster import Cluster


def settled_cluster() -> Cluster:
    """With a leader that knows by experience that its machine is quick."""
    cluster = Cluster(seed=1)
    cluster.segment_bytes = 1 << 20  # the cost of a new segment is not the cost of a batch
    cluster.start()
    leader = cluster.elect()
    leader.propose_many([b"warm up"] * 100)
    cluster.run(1)
    return cluster


def test_a_thousand_proposals_in_one_turn_cost_one_of_everything(monkeypatch):
    """1 encode, 1 sync per server, 2 frames out, 2 back, 1 apply at the leader."""
    cluster = settled_cluster()
    leader = cluster.leader()
    assert leader is not None
    me = leader.settings.server_id
    encoded: list[int] = []
    serialize = codec._serialize_run
    monkeypatch.setattr(codec, "_serialize_run", lambda run: encoded.append(run.first_index) or serialize(run))
    syncs = {server_id: server.disk.calls["fdatasync"] for server_id, server in cluster.servers.items()}
    writes = {server_id: server.disk.calls["pwrite"] for server_id, server in cluster.servers.items()}
    calls = cluster.servers[me].machine.calls
    cluster.network.frames.clear()
    results: list[int] = []
    for number in range(1000):
        leader.propose(b"%d" % number).addCallback(results.append)
    # Heartbeats are frames, too: look before the next one is due.
    assert cluster.run_until(lambda: len(results) == 1000, leader.settings.heartbeat_rate / 1000 / 2)
    cluster.run(0.01)
    assert len(encoded) == 1
    frames = cluster.network.frames
    assert sum(n for (sender, _, name), n in frames.items() if sender == me and name == "AppendEntries") == 2
    assert sum(n for (_, to, name), n in frames.items() if to == me and name == "AppendEntriesResponse") == 2
    assert sum(frames.values()) == 4
    for server_id, server in cluster.servers.items():
        assert server.disk.calls["fdatasync"] - syncs[server_id] == 1
        assert server.disk.calls["pwrite"] - writes[server_id] <= 2, "the record, and zeros ahead of need"
    assert cluster.servers[me].machine.calls - calls == 1


def test_a_thousand_reads_in_one_turn_cost_one_confirmation_and_no_sync():
    cluster = settled_cluster()
    leader = cluster.leader()
    assert leader is not None
    syncs = sum(server.disk.calls["fdatasync"] for server in cluster.servers.values())
    cluster.network.frames.clear()
    results: list[int] = []
    for _ in range(1000):
        leader.read(b"").addCallback(results.append)
    assert cluster.run_until(lambda: len(results) == 1000, leader.settings.heartbeat_rate / 1000 / 2)
    assert sum(cluster.network.frames.values()) == 4
    assert sum(server.disk.calls["fdatasync"] for server in cluster.servers.values()) == syncs


def test_what_arrives_during_a_write_becomes_one_batch():
    """Group commit without a timer: while a write is outstanding, later proposals gather."""
    cluster = settled_cluster()
    leader = cluster.leader()
    assert leader is not None
    server = cluster.servers[leader.settings.server_id]
    server.disk_seconds = lambda: 0.02
    before = server.disk.calls["fdatasync"]
    results: list[int] = []
    for _ in range(20):
        leader.propose(b"x").addCallback(results.append)
        cluster.run(0.001)
    assert cluster.run_until(lambda: len(results) == 20, 1)
    assert server.disk.calls["fdatasync"] - before == 2


def test_an_idle_cluster_writes_nothing():
    cluster = settled_cluster()

    def writes() -> int:
        return sum(server.disk.calls["pwrite"] + server.disk.calls["fsync"] for server in cluster.servers.values())

    before = writes()
    cluster.run(10)
    assert writes() == before
