"""Faults of the simulation that aim at something."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from txraft.codec import decode_message
from txraft.testing.cluster import Cluster
from txraft.testing.faults import Faults
from txraft.testing.schedule import Action


def running_cluster() -> tuple[Cluster, Faults, str]:
    """With the leader's id."""
    cluster = Cluster(seed=1)
    cluster.start()
    leader_id = cluster.elect().settings.server_id
    return cluster, Faults(cluster, random.Random(1)), leader_id


def test_a_replay_brings_back_each_kind_of_message_as_often():
    """Heartbeats are nearly all that is ever sent; what an old vote does would hardly be seen."""
    cluster, _, _ = running_cluster()
    cluster.run(20)
    delivered: Counter[str] = Counter()

    def count(line: bytes) -> None:
        delivered[type(decode_message(line.split(b" ", 1)[1])).__name__] += 1

    cluster.network.trace = count
    cluster.network.replay(600)
    # What is replayed comes at once, its answers later.
    cluster.run(0)
    assert len(delivered) == 6
    assert min(delivered.values()) > 60
    assert delivered.total() == 600


@pytest.mark.parametrize("how", ["pause", "stall", "cut"])
def test_to_strand_the_leader_makes_others_elect_another(how):
    """D14, T02"""
    cluster, faults, leader_id = running_cluster()
    term = cluster.node(leader_id).raft.term
    cluster.node(leader_id).propose(b"x").addErrback(lambda failure: None)
    faults.carry_out(Action(0, "strand", (how,)))
    assert faults.counts[f"strand {how}"] == 1
    assert cluster.is_paused(leader_id) is (how == "pause")
    others = [server_id for server_id in cluster.ids if server_id != leader_id]
    assert all(cluster.network.is_cut(leader_id, other) for other in others) is (how == "cut")
    cluster.servers[leader_id].disk_seconds = lambda: 10.0 if how != "pause" else 0.001
    assert cluster.run_until(lambda: any(cluster.node(other).raft.role.name == "leader" for other in others), 5)
    assert cluster.leader().raft.term > term


def test_without_a_leader_nobody_is_stranded():
    cluster, faults, leader_id = running_cluster()
    for server_id in cluster.ids:
        cluster.crash(server_id)
    faults.carry_out(Action(0, "strand", ("cut",)))
    assert not faults.counts
    assert not cluster.network.is_cut(leader_id, cluster.ids[0])
