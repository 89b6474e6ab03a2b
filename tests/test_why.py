"""What a server says it waits for, in each situation that an operator meets."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from txraft.core.change import Change
from txraft.core.messages import PreVoteResponse, Refusal, RefusalReason
from txraft.node import RaftNode
from txraft.testing.cluster import Cluster


def why(node: RaftNode) -> str:
    return " ".join(node.status().waiting_for)


def ignore(deferred: Any) -> None:
    deferred.addErrback(lambda failure: None)


def started(size: int = 3, passive: int = 0, seed: int = 1) -> tuple[Cluster, RaftNode, list[str]]:
    """A cluster with a leader, and the names of the others."""
    cluster = Cluster(seed=seed, size=size, passive=passive)
    cluster.start()
    leader = cluster.elect()
    cluster.run(1)
    founders = cluster.ids[:size]
    return cluster, leader, [server_id for server_id in founders if server_id != leader.settings.server_id]


def test_a_cluster_in_which_all_is_well_waits_for_nothing():
    cluster, _, _ = started()
    assert [node.status().waiting_for for node in cluster.running()] == [(), (), ()]


def test_who_is_cut_off_names_those_that_do_not_answer_and_why():
    cluster, _, others = started()
    victim = others[0]
    for other in cluster.ids:
        if other != victim:
            cluster.network.cut(victim, other)
            cluster.network.cut(other, victim)
    silent = ", ".join(f"{other} (cut)" for other in cluster.ids if other != victim)
    assert cluster.run_until(lambda: f"no answer from {silent}." in why(cluster.node(victim)), 5)
    assert "No leader is known in term" in why(cluster.node(victim))


def test_who_is_refused_names_those_that_refused_while_it_stands_and_after_it_was_not_elected():
    """Its log is behind, and those who could lead never stand for election."""
    cluster, leader, others = started()
    behind, voter = others
    cluster.crash(behind)
    done: list[Any] = []
    leader.propose(b"x").addCallback(done.append)
    assert cluster.run_until(lambda: bool(done), 5)
    cluster.crash(leader.settings.server_id)
    hold_back(cluster.node(voter))
    cluster.start(behind)
    node = cluster.node(behind)
    assert cluster.run_until(lambda: f"votes refused by {voter}" in why(node), 10), why(node)
    assert f"no answer from {leader.settings.server_id}." in why(node)
    cluster.start(leader.settings.server_id)
    hold_back(cluster.node(leader.settings.server_id))
    last, lacks = cluster.node(voter).status().last_index, node.status().last_index
    is_behind = f"(its log is further: it ends with entry {last} of term 2, this server's with entry {lacks} of term 2)"
    refused = ", ".join(f"{refuser} {is_behind}" for refuser in sorted([voter, leader.settings.server_id]))
    told = f"this server was not elected, with votes refused by {refused}, and no answer from nobody."
    assert cluster.run_until(lambda: told in why(node), 10), why(node)
    cluster.node(voter).raft.is_restored = True
    assert cluster.run_until(lambda: not why(node), 10)
    assert node.raft.leader_id == voter


def test_an_election_that_was_won_explains_nothing_once_the_leadership_is_lost():
    cluster, leader, others = started(size=2)
    cluster.crash(others[0])
    assert cluster.run_until(lambda: leader.status().leader_id is None and leader.raft.role.name == "follower", 5)
    assert why(leader).startswith("No leader is known in term") and "was not elected" not in why(leader)
    assert cluster.run_until(
        lambda: f"stands for election, with votes refused by nobody, and no answer from {others[0]}." in why(leader), 5
    ), why(leader)


def test_who_has_moved_and_was_not_announced_is_told_where_the_others_answer():
    """They hear it, and their answers go to where it was."""
    cluster, _, others = started()
    victim = others[0]
    for other in cluster.ids:
        if other != victim:
            cluster.network.cut(other, victim)
    node = cluster.node(victim)
    assert cluster.run_until(lambda: f"They answer to {victim}: if this server is elsewhere now" in why(node), 5), why(
        node
    )
    cluster.network.heal()
    assert cluster.run_until(lambda: not why(node), 10), why(node)


def test_who_hears_from_a_leader_that_this_server_does_not_hear_is_quoted():
    cluster, leader, others = started()
    victim, other = others
    leader_id = leader.settings.server_id
    cluster.network.cut(leader_id, victim)
    told = f"with votes refused by {other} (it hears from {leader_id}, which leads), "
    assert cluster.run_until(lambda: told in why(cluster.node(victim)), 5), why(cluster.node(victim))


@pytest.mark.parametrize(
    ("refusal", "sentence"),
    [
        (Refusal(RefusalReason.LEADER, "REFUSER"), "REFUSER (it leads itself), and"),
        (Refusal(RefusalReason.VOTED, "s9"), "REFUSER (it has voted for s9), and"),
        (Refusal(RefusalReason.NO_VOTE), "REFUSER (it has lost its data, and has no vote), and"),
        (Refusal(RefusalReason.UNKNOWN), "REFUSER, and"),
        (None, "REFUSER, and"),
    ],
)
def test_every_reason_for_a_refusal_is_a_sentence(refusal, sentence):
    cluster, leader, others = started()
    victim = others[0]
    cluster.crash(others[1])
    cluster.crash(leader.settings.server_id)
    raft = cluster.node(victim).raft
    assert cluster.run_until(lambda: raft.role.name == "pre-candidate", 5)
    if refusal is not None and refusal.server_id == "REFUSER":
        refusal = replace(refusal, server_id=others[1])
    raft.step(others[1], PreVoteResponse(raft.term, raft.pre_vote_round, False, refusal))
    assert f"refused by {sentence.replace('REFUSER', others[1])}" in why(cluster.node(victim))


def test_a_refusal_is_told_no_longer_than_one_election_after_its_voter_has_fallen_silent():
    cluster, leader, others = started()
    victim, other = others
    leader_id = leader.settings.server_id
    cluster.network.cut(leader_id, victim)
    node = cluster.node(victim)
    assert cluster.run_until(lambda: f"refused by {other} " in why(node), 5)
    cluster.crash(other)
    cluster.crash(leader_id)
    silent = ", ".join(sorted([other, leader_id]))
    assert cluster.run_until(lambda: f"refused by nobody, and no answer from {silent}" in why(node), 5), why(node)


def hold_back(node: RaftNode) -> None:
    """It stands for no election, as one whose machine is not restored yet."""
    node.raft.is_restored = False


def test_a_candidate_waits_for_its_own_disk():
    cluster, leader, others = started()
    for server_id in others:
        cluster.servers[server_id].disk_seconds = lambda: 1e9
    cluster.crash(leader.settings.server_id)
    candidates = [cluster.node(server_id) for server_id in others]
    assert cluster.run_until(lambda: any("from its own disk" in why(node) for node in candidates), 10)
    cluster.run(1)
    assert any("A disk write has been outstanding for " in why(node) for node in candidates)


def test_a_leader_names_the_entries_and_who_lacks_them_since_when():
    cluster, leader, others = started()
    for other in others:
        cluster.crash(other)
    ignore(leader.propose(b"x"))
    cluster.run(0.12)
    for other in others:
        last = leader.status().last_index
        assert f"Entry {last} is not committed yet: {other} has {last - 1}, was last heard from 0." in why(leader)


def test_reads_that_wait_for_a_majority_name_those_that_do_not_confirm():
    cluster, leader, others = started()
    for other in others:
        cluster.network.cut(other, leader.settings.server_id)
    ignore(leader.read(b""))
    cluster.run(0.05)
    for other in others:
        waits = f"Reads wait until a majority confirms that this server leads: {other} has not, and was last heard from"
        assert waits in why(leader)


def test_a_leader_names_its_own_disk():
    cluster, leader, others = started()
    cluster.servers[leader.settings.server_id].disk_seconds = lambda: 1e9
    for other in others:
        cluster.network.cut(leader.settings.server_id, other)
    ignore(leader.propose(b"x"))
    cluster.run(0.05)
    last = leader.status().last_index
    assert f"Entry {last} is not committed yet: this server's own disk has {last - 1}." in why(leader)


def test_a_change_names_the_server_that_it_waits_for_with_its_round_and_index():
    """M13."""
    cluster, leader, _ = started(passive=1)
    cluster.crash("s4")
    ignore(leader.change_membership(Change(voters=("s4",))))
    cluster.run(0.5)
    goal = leader.status().catching_up[0].goal_index
    waits = f"A change of the membership waits for s4 to catch up: in round 1 of 10 it has 0 of {goal} entries."
    assert waits in why(leader)


def test_a_joint_membership_names_both_majorities_that_must_agree():
    cluster, leader, others = started()
    for other in others:
        cluster.network.cut(other, leader.settings.server_id)
    ignore(leader.change_membership(Change(removed=(others[0],))))
    cluster.run(0.05)
    index = leader.raft.memberships.current_index
    assert f"A change of the membership waits for entry {index}, on which a majority of s1, s2, s3 and one" in why(
        leader
    )


def test_a_hand_over_names_who_is_waited_for():
    cluster, leader, others = started()
    cluster.crash(others[0])
    ignore(leader.transfer_leadership(others[0]))
    cluster.run(0.05)
    assert f"The leadership is being handed over to {others[0]}, which lacks" in why(leader)


def test_a_new_leader_says_that_it_has_committed_nothing_yet():
    cluster = Cluster(seed=3)
    cluster.start()
    cluster.run_until(lambda: cluster.leader() is not None, 10)
    leader = cluster.leader()
    assert "This leader has committed nothing in its term yet" in why(leader)
    cluster.run(1)
    assert why(leader) == ""


def test_passive_removed_learning_and_stopped_servers_say_what_they_are():
    cluster, leader, others = started(passive=2)
    assert "belongs to no cluster" in why(cluster.node("s4"))
    ignore(leader.change_membership(Change(learners=("s5",), removed=(others[0],))))
    cluster.run(2)
    index = cluster.node(others[0]).raft.memberships.current_index
    assert f"Entry {index} has removed this server" in why(cluster.node(others[0]))
    for server_id in (leader.settings.server_id, others[1]):
        cluster.crash(server_id)
    cluster.run(5)
    cluster.crash("s5")
    cluster.start("s5")
    assert "this server has no vote: it waits to hear from one" in why(cluster.node("s5"))
    cluster.node("s4").stopService()
    cluster.run(10)
    assert why(cluster.node("s4")) == "This server is not running."


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("is_restored", False, "cannot lead before its state is restored"),
        ("incarnation", 0, "has not read yet in its log that {} has this data directory"),
    ],
)
def test_a_voter_that_may_not_stand_says_why_and_whom_it_asks(name, value, reason):
    cluster, leader, others = started()
    silent, waiting = others
    raft = cluster.node(waiting).raft
    setattr(raft, name, value)
    for server_id in (leader.settings.server_id, silent):
        cluster.crash(server_id)
    assert cluster.run_until(lambda: raft.leader_id is None)
    asked = ", ".join(server_id for server_id in cluster.ids if server_id != waiting)
    sentence = f"and this server {reason.format(waiting)}: it waits to hear from one, and asks {asked}."
    assert sentence in why(cluster.node(waiting))


def test_a_machine_that_is_slow_is_named():
    cluster, leader, _ = started()
    leader.raft.applied_index -= 1
    assert (
        f"The state machine is behind: entry {leader.status().commit_index} is committed and not applied yet."
        in why(leader)
    )
    leader.raft.applied_index += 1
    assert cluster.leader() is leader
