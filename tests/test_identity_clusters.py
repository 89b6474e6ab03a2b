"""Whole clusters whose servers are wiped, copied and moved: who still counts."""

from __future__ import annotations

import random

import pytest
from test_reconfiguration import decided, outcome

from txraft.core import cluster_id as ids
from txraft.core.change import Change
from txraft.core.log import RUN_OVERHEAD_BYTES
from txraft.testing.cluster import Cluster
from txraft.testing.disk import FakeDisk


def running_cluster(**options) -> Cluster:
    cluster = Cluster(**options)
    cluster.start()
    leader = cluster.elect()
    for _ in range(2):
        outcome(leader.propose(b"x"))
        cluster.run(1)
    return cluster


def pinned(cluster: Cluster) -> set[tuple[tuple[str, int], ...]]:
    return {node.raft.membership.incarnations for node in cluster.running()}


def wipe(cluster: Cluster, server_id: str) -> None:
    """Its disk is gone for good, and it starts with an empty one."""
    if cluster.servers[server_id].node is not None:
        cluster.crash(server_id)
    cluster.wipe(server_id)
    cluster.start(server_id)


def put_in_empty_disk(cluster: Cluster, server_id: str) -> None:
    """For a server that is not to be listened to."""
    cluster.put_in(server_id, FakeDisk(random.Random(7)))


def test_the_first_leader_writes_down_who_everybody_is_and_which_cluster_it_is():
    cluster = running_cluster()
    assert pinned(cluster) == {
        tuple((server_id, cluster.node(server_id).identity.incarnation) for server_id in cluster.ids)
    }
    [epoch] = {node.identity.cluster_id for node in cluster.running()}
    assert ids.has_epoch(epoch)
    for server_id in cluster.ids:
        cluster.crash(server_id, "none")
    cluster.start()
    assert {node.identity.cluster_id for node in cluster.running()} == {epoch}


def test_a_founder_knows_for_good_which_cluster_it_has_founded_before_it_writes_anything_else():
    """M09: it may die now, and be removed before it comes back; as one that does not know, it could never be told."""
    cluster = Cluster(seed=5)
    cluster.start()
    cluster.elect()
    cluster.run(0.5)
    for server_id in cluster.ids:
        cluster.crash(server_id, "none")
    for server_id in cluster.ids:
        cluster.start(server_id)
        assert ids.has_epoch(cluster.node(server_id).identity.cluster_id), server_id
        cluster.crash(server_id, "none")


def test_what_is_not_a_change_of_roles_holds_up_no_change():
    cluster = Cluster(seed=3, passive=1)
    cluster.start("s1", "s2", "s4")
    leader = cluster.elect()
    cluster.run(1)
    cluster.start("s3")
    assert cluster.run_until(lambda: leader.raft.commit_index < leader.raft.memberships.current_index, 5)
    assert decided(cluster, leader, Change(voters=("s4",))).voters == ("s1", "s2", "s3", "s4")


def test_a_wiped_voter_is_refused_also_by_servers_that_have_never_met_it():
    """M10, M11: what was acknowledged with its help must not be lost with its disk."""
    cluster = running_cluster(seed=4)
    leader = cluster.leader()
    wiped = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not leader)
    for server_id in cluster.ids:
        cluster.crash(server_id, "none")
    others = [server_id for server_id in cluster.ids if server_id != wiped]
    cluster.start(others[0])
    put_in_empty_disk(cluster, wiped)
    cluster.run(5)
    assert cluster.leader() is None, "one voter and an impostor are no quorum"
    cluster.start(others[1])
    cluster.elect()
    cluster.run(2)
    assert cluster.node(wiped).raft.commit_index == 0
    assert cluster.node(wiped).raft.role.name == "pre-candidate"


def test_a_wiped_voter_that_is_removed_and_added_is_pinned_anew():
    cluster = running_cluster(seed=5)
    leader = cluster.leader()
    wiped = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not leader)
    before = cluster.node(wiped).identity
    wipe(cluster, wiped)
    cluster.run(1)
    decided(cluster, leader, Change(removed=(wiped,)))
    membership = decided(cluster, leader, Change(voters=(wiped,)))
    now = cluster.node(wiped).identity
    assert membership.incarnation(wiped) == now.incarnation != before.incarnation
    cluster.run(1)
    assert (len(pinned(cluster)), cluster.servers[wiped].machine.commands) == (1, [b"x", b"x"])


def test_a_wiped_server_that_knows_no_cluster_says_why_it_is_refused_until_it_is_taken_in_again():
    cluster = running_cluster(seed=5, passive=1)
    leader = cluster.leader()
    decided(cluster, leader, Change(voters=("s4",)))
    wipe(cluster, "s4")
    told = "This server belongs to no cluster: its leader must be asked to add it. It was refused: 's"
    assert cluster.run_until(lambda: told in "".join(cluster.node("s4").status().waiting_for), 5)
    [sentence] = cluster.node("s4").status().waiting_for
    assert "'s4' has lost its data, or has another server's: remove it from the cluster and add it again" in sentence
    decided(cluster, leader, Change(removed=("s4",)))
    decided(cluster, leader, Change(voters=("s4",)))
    cluster.run(1)
    assert cluster.node("s4").status().waiting_for == ()


@pytest.mark.parametrize("waits_s", [0.0, 20.0])
def test_a_removed_server_that_was_there_again_before_it_was_wiped_is_added_as_a_new_one(waits_s):
    """M10: whoever leads has met the old one once more, as a stranger or on its way out."""
    cluster = running_cluster(seed=9)
    leader = cluster.leader()
    old = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not leader)
    decided(cluster, leader, Change(removed=(old,)))
    cluster.run(waits_s)
    decided(cluster, leader, Change(learners=("s9",)))
    cluster.crash(old)
    cluster.start(old)
    cluster.run(0.01)
    cluster.crash(old)
    cluster.wipe(old)
    cluster.servers[old].is_renewed = True
    cluster.start(old)
    assert old in decided(cluster, leader, Change(voters=(old,))).voters
    assert cluster.run_until(lambda: len(cluster.servers[old].machine.commands) == 2, 5)


def test_a_server_that_was_away_follows_one_that_was_wiped_and_added_again():
    """It knows it by another data directory: its answers count for nothing there, its leadership does."""
    cluster = running_cluster(seed=6, size=5)
    leader = cluster.leader()
    wiped, away, *_ = [server_id for server_id in cluster.ids if cluster.node(server_id) is not leader]
    cluster.crash(away, "all")
    wipe(cluster, wiped)
    decided(cluster, leader, Change(removed=(wiped,)))
    decided(cluster, leader, Change(voters=(wiped,)))
    found = outcome(leader.transfer_leadership(wiped))
    assert cluster.run_until(lambda: bool(found), 5)
    assert cluster.leader() is cluster.node(wiped)
    cluster.start(away)
    assert cluster.run_until(lambda: cluster.node(away).raft.leader_id == wiped, 5)
    assert cluster.run_until(lambda: len(pinned(cluster)) == 1, 5)


def test_a_new_server_catches_up_from_a_leader_whom_memberships_of_long_ago_know_by_another_disk():
    """M11. The first message that it gets holds who everybody was at first, and not who they are now."""
    cluster = running_cluster(seed=6, passive=1, max_append_bytes=5 * RUN_OVERHEAD_BYTES)
    for _ in range(10):
        outcome(cluster.leader().propose(b"x"))
        cluster.run(0.05)
    for replaced in ("s1", "s2", "s3"):
        if cluster.leader() is cluster.node(replaced):
            found = outcome(cluster.leader().transfer_leadership("s1" if replaced != "s1" else "s2"))
            assert cluster.run_until(lambda found=found: bool(found), 5)
        wipe(cluster, replaced)
        leader = cluster.elect()
        assert replaced not in decided(cluster, leader, Change(removed=(replaced,))).voters
        assert replaced in decided(cluster, leader, Change(voters=(replaced,))).voters
    membership = decided(cluster, cluster.elect(), Change(voters=("s4",)))
    assert getattr(membership, "voters", membership) == ("s1", "s2", "s3", "s4")


def test_two_wiped_founders_do_not_make_an_empty_cluster_when_the_third_can_tell_them():
    cluster = running_cluster(seed=7)
    for server_id in ("s2", "s3"):
        cluster.crash(server_id)
    for server_id in ("s2", "s3"):
        put_in_empty_disk(cluster, server_id)
    cluster.run(10)
    assert cluster.leader() is None
    assert [len(cluster.servers[server_id].machine.commands) for server_id in cluster.ids] == [2, 0, 0]


def test_a_member_that_moved_is_reached_at_its_new_address_and_stays_what_it_was():
    """M19."""
    cluster = running_cluster(seed=8, passive=1)
    leader = cluster.leader()
    decided(cluster, leader, Change(learners=("s4",)))
    cluster.run(1)
    cluster.network.addresses["s4"] = "elsewhere"
    outcome(leader.propose(b"unheard"))
    cluster.run(1)
    assert len(cluster.servers["s4"].machine.commands) == 2
    membership = decided(cluster, leader, Change(addresses={"s4": "elsewhere"}))
    assert (membership.learners, membership.address("s4")) == (("s4",), "elsewhere")
    assert cluster.run_until(lambda: len(cluster.servers["s4"].machine.commands) == 3, 5)
