"""Who is removed while it hears nothing asks who leads, whether it has a vote or not, and is told."""

from __future__ import annotations

import pytest
from core_text import SETTINGS, append_entries, make_leader, make_server, sent, tick
from test_reconfiguration import decided

from txraft.core.change import Change
from txraft.core.messages import PreVote, PreVoteResponse, Refusal, RefusalReason
from txraft.node import RaftNode
from txraft.testing.cluster import Cluster

QUESTION = "PreVote term=2 last_log_index=1 last_log_term=1"


def silence(server):
    """Hear nothing for the longest election timeout; what is sent meanwhile."""
    tick(server, SETTINGS.max_election_ticks)
    return sent(server)


def test_a_learner_that_hears_no_leader_asks_the_voters_and_stands_for_nothing():
    """M09."""
    learner = make_server("4", voters="1,2/4")
    assert silence(learner) == [f"1< {QUESTION}", f"2< {QUESTION}"]
    for voter in "12":
        learner.step(voter, PreVoteResponse(2, 0, granted=True))
    assert (learner.role.name, learner.term, sent(learner)) == ("follower", 1, [])


@pytest.mark.parametrize("voters", ["", "1,2"])
def test_who_is_no_member_as_far_as_it_knows_asks_nobody(voters):
    """M09: it waits to be added, or knows that it was removed."""
    assert silence(make_server("4", voters=voters)) == []


def test_a_learner_does_not_call_leader_who_is_silent():
    learner = make_server("4", voters="1,2/4")
    learner.step("1", append_entries(2, prev="1@1"))
    assert learner.leader_id == "1"
    silence(learner)
    assert learner.leader_id is None


def test_a_learner_asks_who_is_said_to_lead_as_long_as_that_is_said():
    """M09: all who lead now may have come after it went."""
    learner = make_server("4", voters="1,2/4")
    silence(learner)
    learner.step("1", PreVoteResponse(1, 0, granted=False, refusal=Refusal(RefusalReason.LEADER, "7")))
    assert silence(learner)[2:] == [f"7< {QUESTION}"]
    learner.step("1", PreVoteResponse(2, 0, granted=True))
    assert silence(learner)[2:] == []


def test_a_leader_tells_whoever_asks_and_is_no_member_for_a_time():
    """M09."""
    leader = make_leader(voters="1")
    leader.step("4", PreVote(2, 0, 1, 1))
    assert [line for line in sent(leader) if line.startswith("4< AppendEntries")]
    tick(leader, 4 * SETTINGS.max_election_ticks)
    assert "4" not in leader.leader().progress


def with_learner(seed: int = 1) -> tuple[Cluster, RaftNode]:
    """Four servers, of which s4 has no vote and knows it."""
    cluster = Cluster(seed=seed, passive=2)
    cluster.start()
    leader = cluster.elect()
    decided(cluster, leader, Change(learners=("s4",)))
    cluster.run(1)
    return cluster, leader


def role(cluster: Cluster, server_id: str) -> str:
    return cluster.node(server_id).status().role


def test_a_learner_that_was_removed_while_it_was_away_is_told_when_it_comes_back():
    """M09."""
    cluster, leader = with_learner()
    cluster.crash("s4", keep="all")
    decided(cluster, leader, Change(removed=("s4",)))
    cluster.run(5)
    cluster.start("s4")
    assert cluster.run_until(lambda: role(cluster, "s4") == "removed", 5)
    cluster.run(5)
    assert cluster.leader() is leader
    assert "s4" not in leader.raft.leader().progress, "who is told need not be told for ever"


def test_a_learner_that_was_removed_while_it_was_cut_off_is_told_when_it_hears_again():
    """M09: by a leader that came after it, too."""
    cluster, leader = with_learner()
    for other in ("s1", "s2", "s3", "s5"):
        cluster.network.partition([other], ["s4"])
    decided(cluster, leader, Change(voters=("s5",), removed=("s4",)))
    leader.transfer_leadership("s5")
    assert cluster.run_until(lambda: cluster.leader() is cluster.node("s5"))
    cluster.run(5)
    assert "No leader is known" in " ".join(cluster.node("s4").status().waiting_for)
    cluster.network.heal()
    assert cluster.run_until(lambda: role(cluster, "s4") == "removed", 5)


def test_a_removed_server_that_was_wiped_hears_nothing_until_it_is_added_again():
    """M10."""
    cluster, leader = with_learner()
    decided(cluster, leader, Change(removed=("s4",)))
    cluster.run(5)
    cluster.crash("s4")
    cluster.wipe("s4")
    cluster.start("s4")
    cluster.run(5)
    assert (role(cluster, "s4"), cluster.node("s4").raft.log.last_index) == ("passive", 0)
    assert "s4" in decided(cluster, leader, Change(voters=("s4",))).voters


def test_a_founder_that_never_knew_which_cluster_it_founded_is_told_by_whom_it_is_refused_and_what_to_do():
    """M09, M16: names alone prove nothing, so it cannot be told that it is removed."""
    cluster = Cluster(seed=1)
    cluster.start("s1", "s2")
    leader = cluster.elect()
    decided(cluster, leader, Change(removed=("s3",)))
    cluster.run(5)
    cluster.start("s3")
    assert cluster.run_until(lambda: "it may be stopped" in cluster.node("s3")._transport.refusal, 5)
