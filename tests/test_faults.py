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


def test_a_role_in_a_servers_place_is_whoever_has_it_when_it_is_done():
    cluster, faults, leader_id = running_cluster()
    faults.carry_out(Action(0, "pause", ("follower",)))
    assert not cluster.is_paused(leader_id)
    assert sum(map(cluster.is_paused, cluster.ids)) == 1
    faults.carry_out(Action(0, "pause", ("leader",)))
    assert cluster.is_paused(leader_id)


@pytest.mark.parametrize(
    ("direction", "out", "back"), [("out", True, False), ("in", False, True), ("both", True, True)]
)
def test_a_blip_ends_by_itself_and_mends_only_what_it_cut(direction, out, back):
    cluster, faults, _ = running_cluster()
    faults.carry_out(Action(0, "cut", ("s1", "s2")))
    faults.carry_out(Action(0, "blip", ("s1", direction, "100")))
    assert (cluster.network.is_cut("s1", "s3"), cluster.network.is_cut("s3", "s1")) == (out, back)
    cluster.run(0.2)
    assert cluster.network.is_cut("s1", "s2")
    assert not cluster.network.is_cut("s1", "s3")
    assert not cluster.network.is_cut("s3", "s1")


def test_a_bounced_server_comes_back_and_a_hiccup_ends():
    cluster, faults, _ = running_cluster()
    faults.carry_out(Action(0, "bounce", ("s1", "all", "100")))
    faults.carry_out(Action(0, "hiccup", ("s2", "100")))
    assert cluster.servers["s1"].node is None
    assert cluster.is_paused("s2")
    cluster.run(0.2)
    assert cluster.node("s1").raft is not None
    assert not cluster.is_paused("s2")


def test_nothing_ends_by_itself_once_the_runs_ending_has_begun():
    cluster, faults, _ = running_cluster()
    faults.carry_out(Action(0, "bounce", ("s1", "all", "100")))
    faults.carry_out(Action(0, "hiccup", ("s2", "100")))
    faults.carry_out(Action(0, "blip", ("s3", "both", "100")))
    faults.end()
    cluster.run(0.2)
    assert cluster.servers["s1"].node is None
    assert cluster.is_paused("s2")
    assert cluster.network.is_cut("s3", "s1")


def test_a_server_halts_within_a_write_and_starts_again():
    """D02, D08, D21"""
    cluster, faults, leader_id = running_cluster()
    old = cluster.node(leader_id)
    faults.carry_out(Action(0, "halt", (leader_id, "none", "2")))
    old.propose(b"x").addErrback(lambda failure: None)
    cluster.run(0.1)
    assert faults.counts["halt"] == 1
    assert cluster.node(leader_id) is not old
    assert cluster.elect() is not None
