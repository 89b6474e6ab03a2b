"""Growing, shrinking and handing over, with whole servers: who joins, who leaves, and what is answered meanwhile."""

from __future__ import annotations

from typing import Any

import pytest
from twisted.python.failure import Failure

from txraft.core.change import Change
from txraft.errors import ChangeFailed, ChangeRefused, HandOverFailed, NotLeader, OutcomeUnknown, Stopped
from txraft.node import RaftNode
from txraft.testing.cluster import Cluster


def outcome(deferred: Any) -> list[Any]:
    """Filled with the result, or with the exception, once there is one."""
    found: list[Any] = []
    deferred.addCallbacks(found.append, lambda failure: found.append(failure.value))
    return found


def decided(cluster: Cluster, node: RaftNode, change: Change, seconds: float = 30) -> Any:
    found = outcome(node.change_membership(change))
    assert cluster.run_until(lambda: bool(found), seconds), "nothing was decided"
    return found[0]


def members(cluster: Cluster) -> set[tuple[tuple[str, ...], tuple[str, ...]]]:
    """What the running servers that are members take for voters and learners."""
    rafts = [node.raft for node in cluster.running() if node.raft is not None]
    return {(raft.membership.voters, raft.membership.learners) for raft in rafts}


def test_who_has_caught_up_and_waits_for_another_new_server_begins_no_further_round():
    """M13. It would be in round 39 of 10 while the other one is waited for."""
    cluster = Cluster(seed=1, size=1, passive=2)
    cluster.start("s1", "s2")
    leader = cluster.elect()
    outcome(leader.change_membership(Change(voters=("s2", "s3"))))
    for _ in range(20):
        outcome(leader.propose(b"x"))
        cluster.run(0.1)
    ready, missing = leader.status().catching_up
    assert (ready.server_id, ready.round, ready.match_index) == ("s2", 1, leader.status().last_index)
    assert (missing.server_id, missing.round, missing.match_index) == ("s3", 1, 0)
    cluster.start("s3")
    assert cluster.run_until(lambda: leader.raft.membership.voters == ("s1", "s2", "s3"), 5)


def test_one_server_grows_to_three_and_writes_go_on():
    """M13."""
    cluster = Cluster(seed=1, size=1, passive=2)
    cluster.start()
    leader = cluster.elect()
    assert cluster.node("s2").status().role == "passive"
    written = [outcome(leader.propose(b"%d" % number)) for number in range(10)]
    membership = decided(cluster, leader, Change(voters=("s2", "s3")))
    assert membership.voters == ("s1", "s2", "s3")
    written.append(outcome(leader.propose(b"after")))
    assert cluster.run_until(lambda: all(written), 5)
    assert cluster.run_until(lambda: all(len(s.machine.commands) == 11 for s in cluster.servers.values()), 5)
    assert members(cluster) == {(("s1", "s2", "s3"), ())}
    assert {node.identity.cluster_id for node in cluster.running()} == {leader.raft.membership.cluster_id}


def test_a_server_that_was_asked_in_belongs_to_the_cluster_after_a_restart():
    """M04, M16."""
    cluster = Cluster(seed=2, size=1, passive=2)
    cluster.start()
    decided(cluster, cluster.elect(), Change(voters=("s2", "s3")))
    cluster.run(1)
    for server_id in cluster.ids:
        cluster.crash(server_id, "none")
    cluster.start("s2", "s3")
    leader = cluster.elect()
    assert leader.settings.server_id in ("s2", "s3")
    assert leader.identity.cluster_id == leader.raft.membership.cluster_id


def test_who_leads_may_remove_itself():
    """M07."""
    cluster = Cluster(seed=3)
    cluster.start()
    old = cluster.elect()
    server_id = old.settings.server_id
    assert server_id not in decided(cluster, old, Change(removed=(server_id,))).voters
    before = cluster.clock.now
    assert cluster.run_until(lambda: cluster.leader() not in (None, old), 5)
    assert cluster.clock.now - before < 0.15, "it hands over: nobody waits for an election timeout"
    term = cluster.elect().raft.term
    cluster.run(5)
    assert (old.raft.role.name, cluster.leader().raft.term) == ("follower", term)


def test_a_removed_server_stands_for_no_election_and_says_why():
    """M09."""
    cluster = Cluster(seed=4)
    cluster.start()
    leader = cluster.elect()
    other = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not leader)
    decided(cluster, leader, Change(removed=(other,)))
    cluster.run(5)
    assert cluster.leader() is leader
    assert cluster.node(other).raft.role.name == "follower"
    assert cluster.node(other).status().role == "removed"
    assert "removed" in " ".join(cluster.node(other).status().waiting_for)


def test_a_server_that_was_removed_while_nobody_reached_it_is_told_when_it_asks_for_votes():
    """M09."""
    cluster = Cluster(seed=14)
    cluster.start()
    leader = cluster.elect()
    other = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not leader)
    # A founder that never knew which cluster it belongs to is refused as a stranger.
    cluster.run(1)
    cluster.crash(other)
    decided(cluster, leader, Change(removed=(other,)))
    cluster.run(30)
    cluster.start(other)
    assert cluster.run_until(lambda: cluster.node(other).status().role == "removed", 5)
    cluster.run(5)
    assert cluster.leader() is leader


def test_a_voter_that_has_not_heard_of_a_new_one_votes_for_it_all_the_same():
    """M14."""
    cluster = Cluster(seed=15, size=3, passive=2)
    cluster.start()
    leader = cluster.elect()
    late = next(server_id for server_id in cluster.ids[:3] if cluster.node(server_id) is not leader)
    cluster.network.partition([late], [server_id for server_id in cluster.ids if server_id != late])
    decided(cluster, leader, Change(voters=("s4", "s5")))
    for server_id in cluster.ids[:3]:
        if server_id != late:
            cluster.crash(server_id)
    cluster.network.heal()
    assert cluster.node(late).raft.membership.voters == ("s1", "s2", "s3")
    assert cluster.elect().settings.server_id in ("s4", "s5")


def test_a_dead_server_is_replaced_in_one_change():
    cluster = Cluster(seed=5, size=3, passive=1)
    cluster.start()
    leader = cluster.elect()
    dead = next(server_id for server_id in cluster.ids[:3] if cluster.node(server_id) is not leader)
    cluster.crash(dead)
    membership = decided(cluster, leader, Change(voters=("s4",), removed=(dead,)))
    assert len(membership.voters) == 3 and "s4" in membership.voters and dead not in membership.voters


def test_a_server_that_is_not_there_is_given_up_and_nothing_waited_for_it():
    """M13."""
    cluster = Cluster(seed=6, size=3, passive=1)
    cluster.start("s1", "s2", "s3")
    leader = cluster.elect()
    asked = outcome(leader.change_membership(Change(voters=("s4",))))
    written = outcome(leader.propose(b"x"))
    assert cluster.run_until(lambda: bool(written), 1)
    assert not asked
    assert cluster.run_until(lambda: bool(asked), 10)
    assert isinstance(asked[0], ChangeFailed), asked
    assert "s4 could not catch up" in str(asked[0])
    assert not str(asked[0]).endswith(")")
    cluster.run(1)
    assert members(cluster) == {(("s1", "s2", "s3"), ())}


@pytest.mark.parametrize("is_up", [True, False])
def test_a_change_is_answered_also_if_the_next_one_begins_in_the_turn_in_which_it_is_decided(is_up):
    """M13: the first flush after that is too late, as nothing is to be seen of it then."""
    cluster = Cluster(seed=6, size=3, passive=2)
    cluster.start("s1", "s2", "s3", "s5", *(["s4"] if is_up else []))
    leader = cluster.elect()
    raft = leader.raft
    asked = outcome(leader.change_membership(Change(voters=("s4",))))
    cluster.run(0.001)
    began, commit_to, others = raft.memberships.current_index, raft.commit_to, []

    def commit_to_and_ask(index):
        commit_to(index)
        is_over = not raft.membership.is_changing and index >= raft.memberships.current_index > began
        if is_over and not others:
            others.append(outcome(leader.change_membership(Change(learners=("s5",)))))

    raft.commit_to = commit_to_and_ask
    assert cluster.run_until(lambda: bool(others and others[0] and asked), 20)
    [first], [second] = asked, others[0]
    assert second.learners == ("s5",)
    if is_up:
        assert first.voters == ("s1", "s2", "s3", "s4")
    else:
        assert "s4 could not catch up" in str(first)


def test_a_new_server_that_is_given_up_is_named_with_why_there_is_no_link():
    """M13."""
    cluster = Cluster(seed=6, size=1, passive=1)
    cluster.start()
    leader = cluster.elect()
    cluster.network.cut("s1", "s2")
    failed = decided(cluster, leader, Change(voters=("s2",)))
    assert str(failed).startswith("s2 could not catch up: it has nothing new for 10 election timeouts: entry 0 of")
    assert str(failed).endswith("(cut)")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (Change(removed=("s1", "s2", "s3")), "no voter would be left"),
        (Change(), "no server is named"),
        (Change(voters=("s1",), removed=("s1",)), "s1: named more than once"),
    ],
)
def test_what_cannot_be_is_refused(change, why):
    """M08."""
    cluster = Cluster(seed=7)
    cluster.start()
    found = decided(cluster, cluster.elect(), change)
    assert isinstance(found, ChangeRefused)
    assert str(found) == why


def test_asking_for_what_is_so_is_answered_at_once():
    """M20."""
    cluster = Cluster(seed=8)
    cluster.start()
    leader = cluster.elect()
    last_index = leader.raft.log.last_index
    assert decided(cluster, leader, Change(voters=("s1",), removed=("s9",)), seconds=0.1).voters == ("s1", "s2", "s3")
    assert leader.raft.log.last_index == last_index


def test_a_follower_and_a_stopped_server_change_nothing():
    cluster = Cluster(seed=9)
    cluster.start()
    leader = cluster.elect()
    follower = next(node for node in cluster.running() if node is not leader)
    assert isinstance(decided(cluster, follower, Change(removed=("s1",))), NotLeader)
    leader.stopService()
    cluster.run(20)
    assert isinstance(decided(cluster, leader, Change(removed=("s1",))), Stopped)


def test_whether_a_change_is_made_that_its_leader_does_not_see_the_end_of_is_unknown():
    """The next leader goes on with it: here, it adds the server."""
    cluster = Cluster(seed=9, size=3, passive=1)
    cluster.start("s1", "s2", "s3")
    leader = cluster.elect()
    waiting = outcome(leader.change_membership(Change(voters=("s4",))))
    cluster.run(0.2)
    leader.stopService()
    assert cluster.run_until(lambda: bool(waiting), 20)
    assert isinstance(waiting[0], OutcomeUnknown), waiting
    cluster.start("s4")
    membership = cluster.node("s4").raft.memberships
    assert cluster.run_until(lambda: membership.current.voters == ("s1", "s2", "s3", "s4"), 20)


def test_who_waits_for_a_hand_over_is_not_told_that_nothing_was_done_if_its_leader_ends():
    cluster = Cluster(seed=9)
    cluster.start()
    leader = cluster.elect()
    heir = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not leader)
    handed = outcome(leader.transfer_leadership(heir))
    leader.stopService()
    cluster.crash(heir)
    assert cluster.run_until(lambda: bool(handed), 20)
    assert isinstance(handed[0], HandOverFailed), handed


def test_the_leadership_is_handed_over_and_no_proposal_is_lost():
    """E17: what came before is done before, and what comes meanwhile waits."""
    cluster = Cluster(seed=10)
    cluster.start()
    old = cluster.elect()
    heir = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not old)
    first = outcome(old.propose(b"before"))
    handed = outcome(old.transfer_leadership(heir))
    meanwhile = outcome(old.propose(b"meanwhile"))
    assert cluster.run_until(lambda: bool(handed and first and meanwhile), 1)
    assert cluster.leader().settings.server_id == heir
    assert first == [1]
    assert isinstance(meanwhile[0], NotLeader), "nothing was done: it may be repeated there"


def test_a_hand_over_to_a_dead_server_fails_and_the_old_leader_goes_on():
    """E17."""
    cluster = Cluster(seed=11)
    cluster.start()
    old = cluster.elect()
    heir = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not old)
    cluster.crash(heir)
    handed = outcome(old.transfer_leadership(heir))
    meanwhile = outcome(old.propose(b"meanwhile"))
    assert cluster.run_until(lambda: bool(handed and meanwhile), 2)
    assert isinstance(handed[0], ChangeFailed)
    assert str(handed[0]) == f"{heir} did not take over in time: nothing is heard from it"
    assert meanwhile == [1]
    assert cluster.leader() is old


def test_a_hand_over_to_a_server_whose_disk_hangs_says_what_it_lacks():
    """E17."""
    cluster = Cluster(seed=11)
    cluster.start()
    old = cluster.elect()
    heir = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not old)
    cluster.run(1)
    cluster.servers[heir].disk_seconds = lambda: 1e9
    outcome(old.propose(b"x"))
    handed = outcome(old.transfer_leadership(heir))
    assert cluster.run_until(lambda: bool(handed), 2)
    assert str(handed[0]) == f"{heir} did not take over in time: it lacks 1 entry"


def test_a_hand_over_that_makes_another_lead_says_so():
    """E17: the leader has given way, and the one that was to lead dies before it does."""
    cluster = Cluster(seed=11)
    cluster.start()
    old = cluster.elect()
    heir = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not old)
    handed = outcome(old.transfer_leadership(heir))
    assert cluster.run_until(lambda: old.raft.role.name != "leader", 2)
    cluster.crash(heir)
    assert cluster.run_until(lambda: bool(handed), 5)
    assert isinstance(handed[0], HandOverFailed)
    assert f"leads now, not {heir}" in str(handed[0])


@pytest.mark.parametrize(("server_id", "why"), [("s4", "s4 is no voter"), ("s9", "s9 is no member of this cluster")])
def test_only_a_voter_can_be_handed_the_leadership(server_id, why):
    """E16."""
    cluster = Cluster(seed=12, size=3, passive=1)
    cluster.start()
    leader = cluster.elect()
    decided(cluster, leader, Change(learners=("s4",)))
    found = outcome(leader.transfer_leadership(server_id))
    assert isinstance(found[0], ChangeRefused)
    assert str(found[0]) == why


def test_handing_over_to_who_leads_is_done_at_once():
    cluster = Cluster(seed=13)
    cluster.start()
    leader = cluster.elect()
    found = outcome(leader.transfer_leadership(leader.settings.server_id))
    cluster.run(0.1)
    assert not isinstance(found[0], (Exception, Failure))
    assert cluster.leader() is leader


def test_a_passive_server_goes_on_with_the_next_leader():
    """M14: what it has heard from the one before, before it got an entry, binds it to nobody."""
    cluster = Cluster(seed=16, size=3, passive=1)
    cluster.start()
    old = cluster.elect()
    asked = outcome(old.change_membership(Change(voters=("s4",))))
    # A heartbeat is enough to know a leader.
    assert cluster.run_until(lambda: cluster.node("s4").raft.leader_id is not None, 2)
    assert cluster.node("s4").raft.log.last_index == 0
    cluster.crash(old.settings.server_id, "none")
    new = cluster.elect()
    assert decided(cluster, new, Change(voters=("s4",))).voters == ("s1", "s2", "s3", "s4")
    assert not asked


def test_a_leader_that_has_just_been_elected_is_asked_once_and_begins_when_it_can():
    """M01: who hands over and then asks the next leader need not ask twice."""
    cluster = Cluster(seed=14)
    cluster.start()
    assert cluster.run_until(lambda: cluster.leader() is not None, 10)
    leader = cluster.leader()
    assert leader.raft.log.term(leader.raft.commit_index) != leader.raft.term
    other = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not leader)
    assert other not in decided(cluster, leader, Change(removed=(other,))).voters


def test_who_waits_for_a_leader_that_commits_nothing_is_told_that_it_leads_no_more():
    cluster = Cluster(seed=14)
    cluster.start()
    assert cluster.run_until(lambda: cluster.leader() is not None, 10)
    leader = cluster.leader()
    for other in cluster.ids:
        if cluster.node(other) is not leader:
            cluster.crash(other)
    index = leader.raft.log.last_index
    assert isinstance(decided(cluster, leader, Change(removed=("s1",))), NotLeader)
    assert leader.raft.log.last_index == index
