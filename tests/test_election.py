"""Elections: docs/pitfalls.md, chapter 1, one server as a value."""

from __future__ import annotations

import itertools

import pytest
from core_text import (
    SETTINGS,
    append_entries,
    flush,
    make_candidate,
    make_leader,
    make_server,
    propose,
    sent,
    show,
    tick,
)

from txraft.core.errors import InvariantBroken
from txraft.core.membership import NOBODY
from txraft.core.messages import (
    AppendEntriesResponse,
    HardState,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)
from txraft.core.settings import RaftSettings


class TestVotesAreDurable:
    def test_a_vote_leaves_only_after_it_is_on_disk(self):
        """E01."""
        server = make_server(term=1)
        server.step("2", RequestVote(2, 5, 1))
        assert sent(server, persist=False) == []
        server.persisted()
        assert sent(server) == ["2< RequestVoteResponse term=2 granted"]

    def test_the_disk_is_given_term_and_vote_as_one(self):
        """E02, E03: never the new term with the old vote, nor the old term with no vote."""
        server = make_server(term=1, voted_for="3")
        server.step("2", RequestVote(2, 5, 1))
        assert server.ready().persist.hard_state == HardState(2, "2")

    def test_a_restarted_server_refuses_a_second_candidate_of_the_term_it_voted_in(self):
        """E01."""
        server = make_server(term=2, voted_for="2")
        server.step("3", RequestVote(2, 9, 1))
        assert sent(server) == ["3< RequestVoteResponse term=2 (voted 2)"]

    def test_a_candidate_asks_only_after_its_own_vote_is_on_disk(self):
        """E01: a crash in between must not let it vote again in that term."""
        server = make_candidate(term=1)
        assert sent(server, persist=False) == []
        server.persisted()
        assert sent(server) == [
            "2< RequestVote term=2 last_log_index=1 last_log_term=1",
            "3< RequestVote term=2 last_log_index=1 last_log_term=1",
        ]

    def test_a_vote_for_oneself_does_not_count_before_it_is_on_disk(self):
        """E01, R18."""
        server = make_server(voters="1", term=1)
        tick(server, 2)
        assert server.role.name == "candidate"
        assert server.ready().persist is not None
        assert server.role.name == "candidate"
        server.persisted()
        assert server.role.name == "leader"

    def test_a_higher_term_while_the_own_vote_is_being_written_ends_the_candidacy(self):
        """E18, R22."""
        server = make_candidate(term=1)
        assert server.ready().persist.hard_state == HardState(2, "1")
        server.step("3", AppendEntriesResponse(5, 0, 0))
        server.persisted()
        server.step("2", RequestVoteResponse(2, granted=True))
        assert (server.role.name, server.term, server.voted_for) == ("follower", 5, None)
        assert all("RequestVote " not in line for line in sent(server))

    @pytest.mark.parametrize("term", range(1, 4))
    def test_the_vote_changes_only_with_a_larger_term_or_from_none(self, term):
        """E03."""
        server = make_server(term=2, voted_for="2")
        server.step("3", RequestVote(term, 9, 9))
        expected = "3" if term > 2 else "2"
        assert server.voted_for == expected


class TestVotesAreCounted:
    def test_an_answer_of_an_earlier_candidacy_is_not_counted(self):
        """E04."""
        server = make_candidate(term=1)
        flush(server)
        tick(server, SETTINGS.max_election_ticks)
        server.step("2", PreVoteResponse(3, server.pre_vote_round, granted=True))
        flush(server)
        server.step("3", RequestVoteResponse(2, granted=True))
        assert (server.role.name, server.term) == ("candidate", 3)

    def test_an_answer_of_an_earlier_pre_vote_round_is_not_counted(self):
        """E04, original 17."""
        server = make_server(term=1)
        tick(server, SETTINGS.max_election_ticks)
        old_round = server.pre_vote_round
        tick(server, SETTINGS.max_election_ticks)
        server.step("2", PreVoteResponse(2, old_round, granted=True))
        assert server.role.name == "pre-candidate"

    def test_of_five_two_answers_of_one_server_do_not_elect(self):
        """E05."""
        server = make_server(term=1, voters="1,2,3,4,5")
        tick(server, SETTINGS.max_election_ticks)
        for _ in range(3):
            server.step("2", PreVoteResponse(2, server.pre_vote_round, granted=True))
        assert server.role.name == "pre-candidate"
        server.step("3", PreVoteResponse(2, server.pre_vote_round, granted=True))
        assert server.role.name == "candidate"

    def test_answers_of_learners_and_strangers_do_not_count(self):
        """E06."""
        server = make_server(term=1, voters="1,2,3/4")
        tick(server, SETTINGS.max_election_ticks)
        for sender in ("4", "9"):
            server.step(sender, PreVoteResponse(2, server.pre_vote_round, granted=True))
        assert server.role.name == "pre-candidate"

    def test_a_majority_of_refusals_ends_the_candidacy_and_leaves_the_timer_armed(self):
        """original 17."""
        server = make_candidate(term=1)
        flush(server)
        for sender in ("2", "3"):
            server.step(sender, RequestVoteResponse(2, granted=False))
        assert server.role.name == "follower"
        tick(server, SETTINGS.max_election_ticks)
        assert server.role.name == "pre-candidate"


class TestWhoMayBeElected:
    @pytest.mark.parametrize(
        ("theirs", "ours"), list(itertools.product(itertools.product(range(1, 4), range(1, 4)), repeat=2))
    )
    def test_up_to_date_is_term_first_then_index(self, theirs, ours):
        """E07, original 11."""
        (their_term, their_index), (our_term, our_index) = theirs, ours
        server = make_server(term=3, voters="", log=" ".join([f"{our_term}:x"] * our_index))
        server.step("2", RequestVote(4, their_index, their_term))
        is_up_to_date = their_term > our_term or (their_term == our_term and their_index >= our_index)
        assert (server.voted_for == "2") is is_up_to_date

    def test_a_leader_and_a_candidate_refuse_other_candidates_of_their_term(self):
        """E08."""
        for server, why in ((make_leader(), "leader 1"), (make_candidate(term=1), "voted 1")):
            flush(server)
            server.step("2", RequestVote(server.term, 99, 99))
            assert sent(server)[-1:] == [f"2< RequestVoteResponse term={server.term} ({why})"]

    def test_a_leader_refuses_a_pre_vote_and_ignores_a_candidate_of_a_higher_term(self):
        """E08, thesis 4.2.3: it is alive."""
        leader = make_leader()
        flush(leader)
        leader.step("2", PreVote(9, 1, 99, 99))
        assert sent(leader) == ["2< PreVoteResponse term=2 round=1 (leader 1)"]
        leader.step("2", RequestVote(9, 99, 99))
        assert (leader.role.name, leader.term) == ("leader", 2)

    def test_the_same_candidate_may_ask_again(self):
        """E19."""
        server = make_server(term=1)
        for _ in range(2):
            server.step("2", RequestVote(2, 5, 1))
            assert sent(server) == ["2< RequestVoteResponse term=2 granted"]

    def test_who_is_behind_is_told_where_the_log_ends(self):
        """E07; so that `why()` at the candidate can tell it."""
        server = make_server(term=4, log="1:a 3:b")
        server.step("2", PreVote(5, 1, 2, 1))
        server.step("2", RequestVote(5, 2, 1))
        assert sent(server) == [
            "2< PreVoteResponse term=4 round=1 (log 3@3)",
            "2< RequestVoteResponse term=5 (log 3@3)",
        ]

    def test_unanswered_voters_are_asked_again(self):
        """E19: an answer may be lost."""
        server = make_candidate(term=1)
        flush(server)
        server.step("3", RequestVoteResponse(2, granted=False))
        tick(server, SETTINGS.vote_retry_ticks)
        assert sent(server) == ["2< RequestVote term=2 last_log_index=1 last_log_term=1"]

    def test_a_server_that_is_no_member_never_campaigns(self):
        """M09, original 23."""
        for voters in ("", "2,3", "2,3/1"):
            server = make_server(term=1, voters=voters)
            tick(server, 10 * SETTINGS.max_election_ticks)
            assert (server.role.name, server.term) == ("follower", 1)

    def test_a_passive_server_has_nobody_for_a_membership(self):
        server = make_server(voters="")
        assert server.membership is NOBODY
        assert sent(server) == []

    @pytest.mark.parametrize("timings", [(5, 10, 5), (10, 10, 5), (10, 9, 5), (10, 20, 0)])
    def test_timings_that_contradict_each_other_are_refused(self, timings):
        """E08, original 15."""
        low, high, heartbeat = timings
        with pytest.raises(ValueError, match="timings"):
            RaftSettings(low, high, heartbeat, 4, 4, 1000, 4000, 100_000, 3)


class TestTimers:
    def test_refused_votes_pre_votes_and_old_leaders_do_not_hold_up_the_own_election(self):
        """E09."""
        server = make_server(term=5, log="5:a")
        for number in range(SETTINGS.max_election_ticks):
            assert server.role.name == "follower"
            server.step("2", RequestVote(5, 1, 1))
            server.step("2", PreVote(6, number, 1, 1))
            server.step("3", append_entries(4, "1@1"))
            tick(server)
            if server.role.name == "pre-candidate":
                return
        raise AssertionError("no election")

    def test_each_wait_is_drawn_anew_between_minimum_and_maximum(self):
        """E10."""
        server = make_server(term=1)
        draws = set()
        for _ in range(300):
            server.become_follower(server.term, None)
            draws.add(server.role.timeout_ticks)
        assert draws == set(range(SETTINGS.min_election_ticks, SETTINGS.max_election_ticks + 1))

    def test_servers_of_equal_seed_numbers_draw_differently(self):
        """E10."""
        draws = {make_server(str(n), voters="1,2,3,4,5").role.timeout_ticks for n in range(1, 6)}
        assert len(draws) > 1


class TestRoles:
    def test_every_role_has_a_handler_for_every_message(self):
        """No holes in the table: a message in the wrong role is a decision, not an accident."""
        from txraft.core.candidate import Candidate, PreCandidate
        from txraft.core.follower import Follower
        from txraft.core.leader import Leader
        from txraft.core.messages import Message

        for role in (Follower, PreCandidate, Candidate, Leader):
            assert set(role.HANDLERS) == set(Message.__args__), role

    def test_a_candidate_follows_the_leader_of_its_term(self):
        server = make_candidate(term=1)
        flush(server)
        server.step("3", append_entries(2, "1@1", "2:-"))
        assert (server.role.name, server.leader_id, show(server.log)) == ("follower", "3", "1:{1,2,3} 2:-")

    def test_two_leaders_in_one_term_stop_the_server(self):
        """ES."""
        leader = make_leader()
        with pytest.raises(InvariantBroken, match="two leaders"):
            leader.step("2", append_entries(leader.term, "1@1"))
        follower = make_server(term=2)
        follower.step("2", append_entries(2, "1@1"))
        with pytest.raises(InvariantBroken, match="two leaders"):
            follower.step("3", append_entries(2, "1@1"))

    def test_stepping_down_on_an_answer_clears_the_vote(self):
        """original 14."""
        leader = make_leader()
        leader.step("2", AppendEntriesResponse(9, 0, 0))
        assert (leader.term, leader.voted_for) == (9, None)

    def test_a_leader_that_steps_down_keeps_its_log(self):
        """E20: a quorum may hold the tail."""
        leader = make_leader()
        propose(leader, [b"x"])
        leader.step("2", AppendEntriesResponse(9, 0, 0))
        assert show(leader.log) == "1:{1,2,3} 2:- 2:x"

    def test_a_stored_term_below_the_logs_last_term_is_refused(self):
        """R17's kind: what is on disk must fit together."""
        import random

        from core_text import make_log

        from txraft.core.raft import Raft

        with pytest.raises(InvariantBroken, match="the stored term"):
            Raft("1", SETTINGS, random.Random(0), HardState(2, None), make_log("3:a"))


def test_who_was_a_voter_until_an_entry_that_may_be_lost_stands_for_it_and_does_not_count_itself():
    """M07: it may be the only one that has that entry, and nobody without it could be elected. Thesis §4.2.2."""
    server = make_server(log="1:{2<1,2} 1:{2/1}", voters="1,2")
    tick(server, SETTINGS.max_election_ticks)
    assert server.role.name == "pre-candidate"
    flush(server)
    server.step("2", PreVoteResponse(2, server.pre_vote_round, granted=True))
    flush(server)
    assert server.role.name == "candidate"
    server.step("2", RequestVoteResponse(2, granted=True))
    assert server.role.name == "leader"


def test_who_is_no_voter_by_a_committed_membership_never_stands():
    """M09."""
    server = make_server(log="1:{2<1,2} 1:{2/1}", voters="1,2")
    server.commit_to(3)
    tick(server, 10 * SETTINGS.max_election_ticks)
    assert server.role.name == "follower"


def test_a_server_whose_machine_is_not_restored_yet_leaves_the_election_to_others():
    """It would lead, commit, and answer nobody for as long as its snapshot is read."""
    server = make_server()
    server.is_restored = False
    tick(server, 3 * SETTINGS.max_election_ticks)
    assert server.role.name == "follower"
    server.is_restored = True
    tick(server, SETTINGS.max_election_ticks)
    assert server.role.name == "pre-candidate"
