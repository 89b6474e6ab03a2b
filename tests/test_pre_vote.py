"""Pre-votes and the check of the quorum: docs/pitfalls.md, chapter 1, one server as a value."""

from __future__ import annotations

from core_text import (
    SETTINGS,
    append_entries,
    flush,
    make_candidate,
    make_leader,
    make_server,
    propose,
    sent,
    tick,
)

from txraft.core.messages import (
    AppendEntriesResponse,
    PreVote,
    PreVoteResponse,
    RequestVote,
)


class TestPreVote:
    def test_a_pre_vote_changes_neither_term_nor_vote(self):
        """E11."""
        server = make_server(term=1)
        server.step("2", PreVote(7, 3, 9, 9))
        assert (server.term, server.voted_for, server.role.name) == (1, None, "follower")
        assert sent(server) == ["2< PreVoteResponse term=7 round=3 granted"]

    def test_asking_changes_neither_term_nor_vote(self):
        """E11: a server that cannot win raises nobody's term, not even its own."""
        server = make_server(term=1)
        tick(server, 10 * SETTINGS.max_election_ticks)
        assert (server.term, server.voted_for) == (1, None)

    def test_a_refused_pre_vote_brings_the_higher_term(self):
        """E12: a long log of low term must learn of the term, or it blocks a short log of high term."""
        server = make_server(term=7)
        server.step("2", PreVote(2, 1, 9, 9))
        assert sent(server) == ["2< PreVoteResponse term=7 round=1"]
        server.step("2", RequestVote(2, 9, 9))
        assert sent(server) == ["2< RequestVoteResponse term=7"]
        asker = make_server("2", term=1)
        tick(asker, SETTINGS.max_election_ticks)
        asker.step("1", PreVoteResponse(7, asker.pre_vote_round, granted=False))
        assert (asker.role.name, asker.term) == ("follower", 7)

    def test_a_refusal_of_a_lower_term_is_counted_too(self):
        """E11: it must not be dropped as outdated."""
        server = make_server(term=7)
        tick(server, SETTINGS.max_election_ticks)
        for sender in ("2", "3"):
            server.step(sender, PreVoteResponse(3, server.pre_vote_round, granted=False))
        assert server.role.name == "follower"

    def test_an_old_leader_is_told_of_the_higher_term(self):
        """E13."""
        server = make_server(term=7)
        server.step("2", append_entries(3, "1@1"))
        assert sent(server) == ["2< AppendEntriesResponse term=7"]
        leader = make_leader()
        leader.step("2", AppendEntriesResponse(7, 0, 0))
        assert (leader.role.name, leader.term) == ("follower", 7)

    def test_who_hears_a_leader_refuses_pre_votes_and_ignores_candidates(self):
        """E14, thesis 4.2.3."""
        server = make_server(term=2)
        server.step("3", append_entries(2, "1@1"))
        flush(server)
        server.step("2", PreVote(3, 1, 99, 99))
        server.step("2", RequestVote(3, 99, 99))
        assert sent(server) == ["2< PreVoteResponse term=2 round=1 (leader 3)"]
        tick(server, SETTINGS.min_election_ticks)
        server.step("2", RequestVote(3, 99, 99))
        assert server.voted_for == "2"


class TestCheckQuorum:
    def test_a_leader_that_hears_no_quorum_for_an_election_timeout_steps_down(self):
        """E15, original 19."""
        leader = make_leader()
        tick(leader, SETTINGS.max_election_ticks - 1)
        assert leader.role.name == "leader"
        tick(leader)
        assert (leader.role.name, leader.leader_id) == ("follower", None)

    def test_a_leader_that_hears_one_of_two_stays(self):
        leader = make_leader()
        for _ in range(10 * SETTINGS.max_election_ticks):
            leader.step("2", AppendEntriesResponse(leader.term, 0, leader.log.last_index))
            tick(leader)
        assert leader.role.name == "leader"

    def test_a_leader_with_a_stalled_disk_steps_down(self):
        """D14."""
        leader = make_leader()
        propose(leader, [b"x"])
        assert leader.ready().persist is not None
        for _ in range(SETTINGS.stalled_disk_ticks):
            assert leader.role.name == "leader"
            leader.step("2", AppendEntriesResponse(leader.term, 0, 0))
            tick(leader)
        assert leader.role.name == "follower"

    def test_a_stalled_disk_gathers_one_answer_of_a_kind_for_each_server(self):
        """N05, D14: however long it takes, what waits for it is bounded, and the latest is what counts."""
        server = make_server(term=1, log="1:a")
        server.step("2", append_entries(2, "2@1"))
        assert server.ready().persist is not None
        for round_ in range(1, 1000):
            server.step("2", append_entries(2, "2@1", round=round_))
            server.step("3", RequestVote(2, 2, 1))
            assert server.ready().messages == []
        server.persisted()
        assert sent(server) == [
            "2< AppendEntriesResponse term=2 round=999 match_index=2",
            "3< RequestVoteResponse term=2 (leader 2)",
        ]

    def test_a_server_with_a_stalled_disk_wins_no_election(self):
        """D15: without its own vote on disk it does not even ask."""
        server = make_candidate(term=1)
        assert server.ready().persist is not None
        for _ in range(100):
            tick(server)
            server.step("2", PreVoteResponse(server.term + 1, server.pre_vote_round, granted=True))
            assert all("RequestVote" not in line for line in sent(server, persist=False))
