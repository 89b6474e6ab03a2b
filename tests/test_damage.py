"""Disks that rot, forget, or are not the server's own: what a server must notice, and what a quorum must bear."""

from __future__ import annotations

import random

import pytest

from txraft.core.invariants import InvariantBroken
from txraft.errors import StorageError
from txraft.node.waiters import Proposals
from txraft.storage.store import LogStore
from txraft.testing.cluster import Cluster
from txraft.testing.damage import STATE_FILE, Damage
from txraft.testing.schedule import Action
from txraft.testing.simulation import Options, Simulation

LOG_FILE = "/data/raft.log.0000000000000001"


def running_cluster(seed: int = 1) -> tuple[Cluster, Damage]:
    cluster = Cluster(seed=seed)
    cluster.start()
    leader = cluster.elect()
    for number in range(20):
        leader.propose(b"%d" % number)
        cluster.run(0.01)
    cluster.run(1)
    return cluster, Damage(cluster, random.Random(seed))


def test_a_flipped_bit_is_noticed_or_harmless():
    """D05: whatever bit it is, nothing that was durable is missing afterwards."""
    cluster, damage = running_cluster()
    done = []
    for _ in range(60):
        done.append(damage.rot("s1"))
        cluster.run(0.05)
    assert {"rot refused"} <= set(done) <= {"rot refused", "rot harmless"}


@pytest.mark.parametrize("path", [STATE_FILE, LOG_FILE])
def test_a_rotten_file_is_refused_by_name(path):
    cluster, _ = running_cluster()
    cluster.crash("s1", keep="all")
    disk = cluster.servers["s1"].disk
    data = bytearray(disk.read_file(path))
    data[len(data.rstrip(b"\0")) // 2] ^= 4
    disk.write_file(path, bytes(data))
    with pytest.raises(StorageError, match=path):
        cluster.start("s1")
    assert cluster.servers["s1"].node is None


def test_a_forgetful_disk_is_borne_by_the_others():
    """
    A write that was never made, though the disk said so, of what the other two hold: they elect, and give it again.

    The leader of that time believes for the rest of its term that it is there.
    """
    cluster, damage = running_cluster()
    done = []
    while done.count("lost write") < 3:
        leader = cluster.elect()
        follower = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not leader)
        done.append(damage.lose_write(follower))
        cluster.crash(leader.settings.server_id)
        cluster.start(leader.settings.server_id)
        cluster.elect()
        assert cluster.run_until(lambda: all(node.raft.applied_index >= 21 for node in cluster.running()), 5)
        assert len(done) < 100
    assert len(set(map(tuple, (server.machine.commands for server in cluster.servers.values())))) == 1


def test_a_segment_that_is_missing_is_refused():
    """D11: whichever it is."""
    cluster, damage = running_cluster()
    assert damage.lose_segment("s1") is None
    leader = cluster.elect()
    for number in range(100):
        leader.propose(b"%d" % number * 100)
        cluster.run(0.01)
    assert {damage.lose_segment("s1") for _ in range(10)} == {"lost segment refused"}
    assert cluster.node("s1").raft is not None


def test_a_hole_in_the_log_must_be_noticed(monkeypatch):
    """D03: with a record behind it, what was lost is no torn tail."""
    _, damage = running_cluster()
    judged = []
    monkeypatch.setattr(damage, "_judge_loss", lambda server_id, is_noticed: judged.append(is_noticed))
    for _ in range(30):
        damage.lose_write("s1")
    assert set(judged) == {True, False}
    monkeypatch.undo()
    monkeypatch.setattr(Cluster, "has_lost", lambda self, server_id: True)
    with pytest.raises(InvariantBroken, match="does not notice what its disk has lost"):
        damage._judge_loss("s1", is_noticed=True)


def test_what_only_a_bare_majority_holds_is_never_lost_on_purpose():
    cluster, damage = running_cluster()
    leader = cluster.leader()
    other, lonely = (server_id for server_id in cluster.ids if cluster.node(server_id) is not leader)
    cluster.network.partition([lonely], [other, leader.settings.server_id])
    committed: list[object] = []
    leader.propose(b"held by two").addCallback(committed.append)
    assert cluster.run_until(lambda: bool(committed), 5)
    for _ in range(20):
        assert damage.lose_write(other) in (None, "lost write refused")
        cluster.run(0.1)


def test_a_wiped_server_is_listened_to_by_nobody():
    """M11: it has the right name, and none of its promises."""
    cluster, damage = running_cluster()
    follower = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not cluster.leader())
    before = cluster.network.refused
    assert damage.wipe(follower) == "wiped disk"
    cluster.run(2)
    wiped = cluster.node(follower)
    assert (wiped.raft.commit_index, wiped.raft.role.name) == (0, "pre-candidate")
    assert cluster.network.refused > before
    damage.end()
    assert cluster.run_until(lambda: cluster.node(follower).raft.applied_index >= 21, 5)


def test_nobody_is_wiped_while_a_server_does_not_remember_it():
    """What a server knows of the others it forgets when it stops."""
    cluster, damage = running_cluster()
    cluster.crash("s1")
    assert damage.wipe("s2") is None
    cluster.network.partition(["s1"], ["s2", "s3"])
    cluster.start("s1")
    assert damage.wipe("s2") is None


def test_a_server_of_another_cluster_is_listened_to_by_nobody():
    """M16, N11."""
    cluster, damage = running_cluster()
    assert damage.join_wrong_cluster("s2") == "wrong cluster"
    cluster.run(2)
    assert cluster.node("s2").raft.commit_index == 0
    assert damage.join_wrong_cluster("s3") is None, "two of them would be a majority"


def test_a_copy_of_another_servers_disk_is_refused():
    cluster, damage = running_cluster()
    assert damage.clone("s1", "s2") == "cloned disk"
    cluster.run(1)
    assert cluster.servers["s1"].own_disk is None


def test_a_server_that_took_another_ones_disk_would_be_found(monkeypatch):
    _, damage = running_cluster()
    monkeypatch.setattr(LogStore, "_check_identity", lambda self, found: None)
    with pytest.raises(InvariantBroken, match="takes another one's disk"):
        damage.clone("s1", "s2")


def test_a_deferred_that_never_fires_would_be_found(monkeypatch):
    """C12: whoever waits is answered at the end of a leadership, and of a server."""
    monkeypatch.setattr(Proposals, "end", lambda self, why, kept_index: None)
    options = Options(seed=1, profile="standard", size=3, ending="safety", timing=0, limits=0)
    schedule = [
        *[Action.parse(f"1000 {fault}") for fault in ("isolate s1", "isolate s2", "isolate s3")],
        *[Action.parse(f"1001 client any-{number} write k1") for number in range(3)],
    ]
    with pytest.raises(InvariantBroken, match=r"a Deferred never fires|a server does not stop"):
        Simulation(options, schedule).run()
    monkeypatch.undo()
    Simulation(options, schedule).run()
