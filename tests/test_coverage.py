"""What runs have reached: the tables name everything, and each counter counts what it says."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Callable

import pytest

from txraft.core import voting
from txraft.core.change import Change
from txraft.core.errors import InvariantBroken
from txraft.core.follower import Follower
from txraft.core.log import EntryKind, LogSlice
from txraft.core.membership import Membership
from txraft.core.messages import AppendEntries, PreVote, Refusal, RefusalReason, RequestVote, TimeoutNow
from txraft.core.raft import Raft
from txraft.core.reconfiguration import CatchUp, Reconfiguration
from txraft.errors import OutcomeUnknown
from txraft.testing.cluster import Cluster
from txraft.testing.coverage import EVERYTHING, missing
from txraft.testing.coverage.catalogue import IN_PART, OUTSIDE, SITUATIONS
from txraft.testing.coverage.cells import CELLS, IMPOSSIBLE, OUTCOMES, ROLES
from txraft.testing.coverage.watch import Coverage
from txraft.testing.simulation import Options, Simulation

ROOT = pathlib.Path(__file__).parents[1]


class Watched:
    """A cluster whose servers are watched, with a leader."""

    def __init__(self, size: int = 3) -> None:
        self.cluster = Cluster(seed=1, size=size)
        self.coverage = Coverage(self.cluster)
        self.cluster.start()
        self.leader = self.cluster.elect()
        self.leader_id = self.leader.settings.server_id
        self.others = [server_id for server_id in self.cluster.ids if server_id != self.leader_id]

    def reached(self) -> dict[str, int]:
        return self.coverage.reached({}, {})

    def rows_reached_by(self, do: Callable[[], None]) -> set[str]:
        """Those that were not reached before."""
        before = self.reached()
        do()
        return {name for name in self.reached() if name in SITUATIONS and name not in before}


def test_every_row_of_the_catalogue_has_a_situation_or_a_reason():
    rows = re.findall(r"^\| ([A-Z]\d\d) \|", (ROOT / "docs" / "pitfalls.md").read_text(), re.MULTILINE)
    assert sorted([*SITUATIONS, *OUTSIDE]) == sorted(rows)


def test_whatever_says_the_rest_is_there():
    assert set(IN_PART) <= set(SITUATIONS)
    named = re.findall(r"(?:tests|benchmarks)/\w+\.py", " ".join(IN_PART.values()))
    assert len(named) >= len(IN_PART)
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_the_table_leaves_out_only_what_it_names():
    for (role, message), reasons in IMPOSSIBLE.items():
        names = [outcome for outcomes in reasons.values() for outcome in outcomes]
        assert role in ROLES
        assert set(names) < set(OUTCOMES[message])
        assert len(set(names)) == len(names), (role, message)
    left_out = sum(len(names) for reasons in IMPOSSIBLE.values() for names in reasons.values())
    assert len(CELLS) == len(ROLES) * sum(map(len, OUTCOMES.values())) - left_out


def test_what_is_at_zero_is_missing():
    everything = dict.fromkeys(EVERYTHING, 1)
    assert missing(everything) == []
    assert missing(everything | {"E01": 0}) == ["E01"]
    assert missing({}) == list(EVERYTHING)


def test_an_election_without_faults_reaches_this_and_nothing_else():
    watched = Watched()
    reached = watched.reached()
    assert reached["candidate RequestVoteResponse: won"] == watched.cluster.leader_count == 1
    assert reached["pre-candidate PreVoteResponse: won"] == 1
    assert reached["follower RequestVote: term raised"] == reached["follower RequestVote: granted"] == 2
    assert reached["candidate RequestVoteResponse: counted"] == 1
    assert {name for name in reached if name in SITUATIONS} <= {"R12", "R16"}


def test_a_leader_of_the_past_that_is_not_told_is_an_outcome_that_cannot_be():
    """E13"""
    watched = Watched()
    raft = watched.cluster.node(watched.others[0]).raft
    old = AppendEntries(0, 0, 0, 0, 0, LogSlice(1))
    raft.step(watched.leader_id, old)
    assert watched.reached()["follower AppendEntries: outdated"] == 1
    raft._is_outdated = lambda sender, message: True
    with pytest.raises(InvariantBroken, match="outdated, and not told"):
        raft.step(watched.leader_id, old)


def test_a_message_counts_with_the_role_that_deals_with_it():
    """A deposed leader is a follower before it replaces its tail; both are counted, each with its role."""
    watched = Watched()
    cluster = watched.cluster

    def depose() -> None:
        cluster.network.partition([watched.leader_id], watched.others)
        watched.leader.propose(b"lost").addErrback(lambda failure: failure.trap(OutcomeUnknown))
        cluster.pause(watched.leader_id)
        assert cluster.run_until(lambda: cluster.leader() is not watched.leader and has_committed(cluster))
        cluster.resume(watched.leader_id)
        cluster.network.heal()
        cluster.run(1)

    rows = watched.rows_reached_by(depose)
    reached = watched.reached()
    assert reached["follower AppendEntries: replaced"] == 1
    assert sum(count for name, count in reached.items() if re.match("leader .*: term raised", name)) == 1
    assert {"R09", "C09", "E03", "T02"} <= rows


def has_committed(cluster: Cluster) -> bool:
    leader = cluster.leader()
    assert leader is not None and leader.raft is not None
    return leader.raft.log.term(leader.raft.commit_index) == leader.raft.term


def test_what_a_dying_server_was_writing_counts():
    """R13 needs entries that are not durable, D01 a sync that failed; a quiet server's death counts for neither."""
    watched = Watched()
    quiet, busy = watched.others
    watched.cluster.run(1)
    assert watched.rows_reached_by(lambda: watched.cluster.crash(quiet)) <= {"D02"}
    watched.cluster.start(quiet)
    watched.cluster.servers[busy].disk_seconds = lambda: 10.0
    watched.leader.propose(b"x").addErrback(lambda failure: failure.trap(OutcomeUnknown))
    watched.cluster.run(0.1)
    assert "R13" in watched.rows_reached_by(lambda: watched.cluster.crash(busy))


def test_a_server_of_its_own_counts_for_what_it_had_not_written():
    """R18"""
    watched = Watched(size=1)
    watched.cluster.run(1)
    watched.leader.propose(b"x")
    assert watched.rows_reached_by(lambda: watched.cluster.run(0)) == set()
    assert watched.leader.raft.log.last_index > watched.leader.raft.log.durable_index
    assert watched.rows_reached_by(lambda: watched.cluster.crash("s1")) - {"D02"} == {"R18"}


def test_a_repetition_counts_and_more_so_at_a_leader_that_was_none_when_the_command_was_carried_out():
    """C07, C14."""
    watched = Watched()
    cluster, opened = watched.cluster, []
    watched.leader.open_session().addCallback(opened.append)
    cluster.run(1)

    def propose() -> None:
        leader = cluster.leader()
        assert leader is not None
        leader.propose_in_session(opened[0].id, 1, b"x", 1)
        cluster.run(1)

    assert watched.rows_reached_by(propose) & {"C07", "C14"} == set()
    assert watched.rows_reached_by(propose) & {"C07", "C14"} == {"C07"}
    watched.leader.transfer_leadership(watched.others[0])
    cluster.run(1)
    assert cluster.leader() is not watched.leader
    assert watched.rows_reached_by(propose) & {"C07", "C14"} == {"C14"}


@pytest.mark.parametrize(("call", "row"), [("fdatasync", "D01"), ("pwrite", "D08")])
def test_a_disk_that_fails_counts_by_the_call_that_failed(call, row):
    watched = Watched()
    victim = watched.others[0]
    watched.cluster.servers[victim].disk.fail(call)
    watched.leader.propose(b"x")
    watched.cluster.run(1)
    assert row in watched.rows_reached_by(lambda: watched.cluster.crash(victim))


@pytest.mark.parametrize(("asks_again", "is_reached"), [(True, False), (False, True)])
def test_the_votes_of_an_earlier_life_are_known(asks_again, is_reached):
    """E01: another candidate of the same term asks a server that has restarted since it voted."""
    watched = Watched()
    voter, another = watched.others
    watched.cluster.crash(voter)
    watched.cluster.start(voter)
    core = watched.cluster.node(voter).raft
    candidate = watched.leader_id if asks_again else another
    rows = watched.rows_reached_by(lambda: core.step(candidate, RequestVote(core.term, 100, core.term)))
    assert ("E01" in rows) is is_reached


def test_an_outcome_that_the_table_excludes_breaks_an_invariant(monkeypatch):
    """A leader that lets a candidate depose it: no other check has anything against that."""
    watched = Watched()
    monkeypatch.setattr(Raft, "_may_raise_term", lambda self, message: True)
    core = watched.leader.raft
    with pytest.raises(InvariantBroken, match=r"impossible: \(\('leader', 'RequestVote', 'term raised'\)"):
        core.step(watched.others[0], RequestVote(core.term + 1, 100, core.term))


@pytest.mark.parametrize("kind", ["PreVote", "RequestVote"])
def test_a_vote_is_refused_with_a_reason(monkeypatch, kind):
    """M14: whom the voter takes for members is none."""
    watched = Watched()
    monkeypatch.setattr(voting, "_standing_refusal", lambda raft, message: Refusal(RefusalReason.LOG))
    core = watched.cluster.node(watched.others[0]).raft
    core.become_follower(core.term, None)
    log = 100, core.term
    request = PreVote(core.term + 1, 1, *log) if kind == "PreVote" else RequestVote(core.term + 1, *log)
    with pytest.raises(InvariantBroken, match="refused without a reason"):
        core.step("a stranger", request)


def test_nobody_stands_for_another_than_its_leader(monkeypatch):
    """E16"""
    watched = Watched()
    core = watched.cluster.node(watched.others[0]).raft
    core.step(watched.others[1], TimeoutNow(core.term))
    assert core.role.name == "follower"
    monkeypatch.setitem(
        Follower.HANDLERS, TimeoutNow, lambda role, sender, message: role.raft.become_candidate(told_by_leader=True)
    )
    with pytest.raises(InvariantBroken, match="told by somebody that it does not follow"):
        core.step(watched.others[1], TimeoutNow(core.term))


@pytest.mark.parametrize("stand", ["become_pre_candidate", "become_candidate"])
def test_who_is_no_voter_does_not_stand(stand):
    """M09: nor may one that an entry has removed which is not committed stand for longer than that."""
    watched = Watched()
    core = watched.cluster.node(watched.others[0]).raft
    index = core.log.last_index + 1
    core.append(EntryKind.CONFIGURATION, [Membership("", ("s7",)).encode()])
    getattr(core, stand)()
    core.become_follower(core.term, None)
    core.commit_to(index)
    with pytest.raises(InvariantBroken, match="who is no voter stands"):
        getattr(core, stand)()


def test_a_hand_over_has_an_end(monkeypatch):
    """E17"""
    watched = Watched()
    monkeypatch.setattr(Reconfiguration, "_tick_hand_over", lambda reconfiguration: None)
    core = watched.leader.raft
    core.leader().reconfiguration.hand_over(watched.others[0])
    for _ in range(core.settings.max_election_ticks):
        core.role.reconfiguration.tick(core.role.progress)
    with pytest.raises(InvariantBroken, match="a hand-over has no end"):
        core.role.reconfiguration.tick(core.role.progress)


@pytest.mark.parametrize("is_given_up", [True, False])
def test_no_change_waits_for_ever_for_a_new_server(monkeypatch, is_given_up):
    """M13"""
    watched = Watched()
    outcome = []
    watched.leader.change_membership(Change(voters=("s4",))).addBoth(outcome.append)
    if not is_given_up:
        monkeypatch.setattr(CatchUp, "problem", lambda catch_up, rounds, election_ticks, lost_snapshots: None)
    watched.cluster.run(5)
    if is_given_up:
        assert "could not catch up" in str(outcome[0].value)
    else:
        assert "a change waits for ever" in str(watched.leader.failure)


def test_watching_changes_nothing(monkeypatch):
    digest = Simulation(Options.expand(1)).run().digest
    monkeypatch.setattr(Coverage, "_started", lambda self, server: None)
    monkeypatch.setattr(Coverage, "_crashes", lambda self, server: None)
    assert Simulation(Options.expand(1)).run().digest == digest
