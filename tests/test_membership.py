"""Who counts, and how: majorities of plain and joint memberships, learners, and history by index."""

from __future__ import annotations

import itertools

import pytest
from core_text import SETTINGS, append_entries, flush, make_server, membership, propose, sent, tick

from txraft.core.errors import InvalidMessage, InvariantBroken
from txraft.core.invariants import ClusterInvariants
from txraft.core.log import EntryKind, EntryRun, LogSlice
from txraft.core.membership import NOBODY, Membership, MembershipHistory
from txraft.core.messages import AppendEntries, AppendEntriesResponse, PreVoteResponse, RequestVoteResponse
from txraft.core.quorum import VoteResult, committed_index, vote_result


@pytest.mark.parametrize(
    ("members", "matches", "expected"),
    [
        ("1", {"1": 7}, 7),
        ("1,2", {"1": 7, "2": 3}, 3),
        ("1,2,3", {"1": 7, "2": 3, "3": 5}, 5),
        ("1,2,3,4", {"1": 9, "2": 8, "3": 1, "4": 0}, 1),
        ("1,2,3,4,5", {"1": 9, "2": 8, "3": 7, "4": 0, "5": 0}, 7),
        # Joint: a majority of each half, never of the union.
        ("1,2,3<4,5,6", {"1": 9, "2": 9, "3": 9, "4": 1, "5": 2, "6": 3}, 2),
        ("4<1,2,3", {"1": 9, "2": 9, "3": 9, "4": 0}, 0),
        ("1,2,3<1,2", {"1": 9, "2": 4, "3": 9}, 4),
        # Learners count for nothing.
        ("1,2,3/4,5", {"1": 2, "2": 1, "3": 1, "4": 9, "5": 9}, 1),
        ("", {}, 0),
    ],
)
def test_what_a_majority_of_each_half_has_is_committed(members, matches, expected):
    """M03."""
    assert committed_index(membership(members), matches.__getitem__) == expected


def test_any_two_majorities_of_a_joint_membership_and_of_its_halves_meet():
    """M03: two disjoint sets of servers never both win."""
    joint = membership("1,2,3<3,4,5")
    servers = ["1", "2", "3", "4", "5"]
    for votes in itertools.product([True, False], repeat=len(servers)):
        yes = dict(zip(servers, votes, strict=True))
        no = {server: not vote for server, vote in yes.items()}
        assert not (vote_result(joint, yes) is vote_result(joint, no) is VoteResult.WON)
        for half in ("1,2,3", "3,4,5"):
            assert not (vote_result(joint, yes) is vote_result(membership(half), no) is VoteResult.WON)


@pytest.mark.parametrize(
    ("members", "votes", "expected"),
    [
        ("1,2,3", {"1": True}, "pending"),
        ("1,2,3", {"1": True, "2": True}, "won"),
        ("1,2,3", {"1": True, "2": False, "3": False}, "lost"),
        ("1,2,3,4", {"1": True, "2": True}, "pending"),
        ("1,2,3,4", {"1": False, "2": False}, "lost"),
        ("1,2,3", {"1": True, "9": True, "8": True}, "pending"),
        ("1,2/3,4", {"1": True, "3": True, "4": True}, "pending"),
        ("1,2,3<4,5,6", {"1": True, "2": True, "4": True}, "pending"),
        ("1,2,3<4,5,6", {"1": True, "2": True, "4": False, "5": False}, "lost"),
        ("1,2,3<4,5,6", {"1": True, "2": True, "4": True, "5": True}, "won"),
        ("", {"1": True}, "lost"),
    ],
)
def test_an_election_is_won_and_lost_by_majorities_of_each_half(members, votes, expected):
    """E05, E06, M03."""
    assert vote_result(membership(members), votes).value == expected


def test_a_membership_is_the_same_bytes_on_every_server():
    one = Membership("c", ("a", "b"), learners=("z", "y"))
    other = Membership("c", ("b", "a"), learners=("y", "z"))
    assert one.encode() == other.encode()
    assert Membership.decode(one.encode()).voters == ("a", "b")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff\xfe",
        b"null",
        b"[" * 100_000,
        Membership("c", ("a",)).encode().replace(b'["a"]', b'"ab"'),
        Membership("c", ("a", "b")).encode().replace(b'"a","b"', b'"b","a"'),
        Membership("c", ("a",)).encode().replace(b'"a"', b"1"),
        Membership("c", ("a",)).encode().replace(b'"c"', b"null"),
        Membership("c", ("a",)).encode().replace(b'"learners":[],', b""),
    ],
)
def test_what_is_no_membership_is_refused(data):
    with pytest.raises(ValueError, match="not a membership"):
        Membership.decode(data)


def test_a_leader_that_sends_what_is_no_membership_changes_nothing():
    follower = make_server(term=1)
    run = EntryRun(2, 1, EntryKind.CONFIGURATION, 0, [b"nonsense"])
    with pytest.raises(InvalidMessage):
        follower.step("2", AppendEntries(1, 1, 1, 0, 0, LogSlice(2, [run])))
    assert follower.log.last_index == 1


class TestHistory:
    def test_the_newest_is_in_force_and_truncation_undoes_it(self):
        """M05."""
        history = MembershipHistory()
        assert history.current is NOBODY
        for index, members in ((1, "1"), (4, "1,2"), (6, "1,2,3")):
            history.append(index, membership(members))
        assert [history.at(index).voters for index in (0, 1, 3, 4, 5, 6)] == [
            (),
            ("1",),
            ("1",),
            ("1", "2"),
            ("1", "2"),
            ("1", "2", "3"),
        ]
        history.truncate(5)
        assert (history.current.voters, history.current_index) == (("1", "2"), 4)
        history.truncate(0)
        assert history.current is NOBODY

    def test_it_is_in_force_when_it_is_appended_and_not_when_it_is_committed(self):
        """M04."""
        follower = make_server(term=1, voters="1,2,3")
        follower.step("2", append_entries(1, "1@1", "1:{1,2,3,4,5}"))
        assert follower.membership.voters == ("1", "2", "3", "4", "5")
        assert follower.commit_index == 0

    def test_several_in_one_message_are_all_undone_by_a_conflict(self):
        """M05, original 7."""
        follower = make_server(term=1, voters="1,2,3")
        follower.step("2", append_entries(1, "1@1", "1:{1,2} 1:{1,2,4} 1:{2,4}"))
        assert follower.membership.voters == ("2", "4")
        flush(follower)
        follower.step("3", append_entries(2, "2@1", "2:-"))
        assert follower.membership.voters == ("1", "2")

    @pytest.mark.parametrize(
        ("after", "is_safe"),
        [("1,2", True), ("1,2,3,4", True), ("1,4,5", False), ("1,2,3,4,5", False), ("4,5,6<1,2,3", True)],
    )
    def test_two_in_a_row_that_can_decide_apart_would_be_found(self, after, is_safe):
        """M03."""
        follower = make_server(term=1, voters="1,2,3")
        follower.step("2", append_entries(1, "1@1", f"1:{{{after}}}"))
        if is_safe:
            ClusterInvariants().check({"1": follower})
        else:
            with pytest.raises(InvariantBroken, match="decide apart"):
                ClusterInvariants().check({"1": follower})

    def test_a_restart_finds_it_in_the_log(self):
        """M04: also if it was not committed."""
        server = make_server(term=2, voters="1", log="1:a 2:{1,2,3} 2:b")
        assert server.membership.voters == ("1", "2", "3")
        assert server.memberships.at(2).voters == ("1",)


class TestReplicationTo:
    def test_learners_are_replicated_to_and_count_for_nothing(self):
        leader = make_any_leader("1,2/3")
        assert {to for to, _ in flush_after_proposal(leader)} == {"2", "3"}
        leader.step("3", AppendEntriesResponse(leader.term, 0, leader.log.last_index))
        assert leader.commit_index == 0
        leader.step("2", AppendEntriesResponse(leader.term, 0, leader.log.last_index))
        assert leader.commit_index == leader.log.last_index

    def test_a_joint_membership_commits_by_both_halves(self):
        leader = make_any_leader("1,2,3<1,4,5")
        flush_after_proposal(leader)
        last_index = leader.log.last_index
        leader.step("2", AppendEntriesResponse(leader.term, 0, last_index))
        assert leader.commit_index == 0
        leader.step("4", AppendEntriesResponse(leader.term, 0, last_index))
        assert leader.commit_index == last_index


def make_any_leader(members: str):
    """A leader under any membership: everybody votes for it."""
    server = make_server(term=1, voters=members)
    tick(server, SETTINGS.max_election_ticks)
    for other in server.membership.members[1:]:
        if server.role.name == "pre-candidate":
            server.step(other, PreVoteResponse(2, server.pre_vote_round, granted=True))
    flush(server)
    for other in server.membership.members[1:]:
        if server.role.name == "candidate":
            server.step(other, RequestVoteResponse(2, granted=True))
    assert server.role.name == "leader"
    sent(server)
    return server


def flush_after_proposal(leader):
    for other in leader.membership.members[1:]:
        leader.step(other, AppendEntriesResponse(leader.term, 0, 1))
    propose(leader, [b"x"])
    return flush(leader)
