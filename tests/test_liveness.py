"""Elections that would be lost, or never held, although nothing stands in the way: seen in simulated runs."""

from __future__ import annotations

import pytest
from core_text import SETTINGS, flush, make_leader, make_server, propose, sent, tick

from txraft.core.messages import AppendEntriesResponse, PreVoteResponse, RequestVote, RequestVoteResponse


def make_candidate():
    server = make_server(term=1, voters="1,2,3,4,5")
    tick(server, SETTINGS.max_election_ticks)
    for sender in ("2", "3"):
        server.step(sender, PreVoteResponse(2, server.pre_vote_round, granted=True))
    flush(server)
    assert server.role.name == "candidate"
    return server


def test_who_has_our_vote_is_not_refused_for_an_older_request_of_its():
    """E04: the refusal would carry the new term, and look like the answer to the request that was granted."""
    server = make_server(term=1)
    server.step("2", RequestVote(5, 1, 1))
    assert sent(server) == ["2< RequestVoteResponse term=5 granted"]
    server.step("2", RequestVote(4, 1, 1))
    assert sent(server) == []
    server.step("3", RequestVote(4, 1, 1))
    assert sent(server) == ["3< RequestVoteResponse term=5"]


@pytest.mark.parametrize("answers", [[False, True], [True, False], [True, True, False]])
def test_a_vote_counts_whatever_the_same_server_said_before_or_says_later(answers):
    """E04, E05"""
    server = make_candidate()
    for granted in answers:
        server.step("2", RequestVoteResponse(2, granted))
    assert server.role.name == "candidate"
    server.step("3", RequestVoteResponse(2, granted=True))
    assert server.role.name == "leader"


def test_a_leader_steps_down_if_those_who_answer_it_take_nothing():
    """D14, E14: they hear a leader, and refuse one that could commit, for ever."""
    leader = make_leader()
    propose(leader, [b"x"])
    flush(leader)
    heard = AppendEntriesResponse(leader.term, 0, 0)
    for _ in range(SETTINGS.stalled_disk_ticks + SETTINGS.max_election_ticks):
        leader.step("2", heard)
        tick(leader)
        flush(leader)
    assert leader.role.name != "leader"


def test_a_leader_stays_while_a_quorum_takes_something_now_and_then():
    """A log may take long to be copied."""
    leader = make_leader()
    propose(leader, [b"x"] * 20)
    flush(leader)
    for match_index in range(2, 20):
        for _ in range(SETTINGS.stalled_disk_ticks - 1):
            leader.step("2", AppendEntriesResponse(leader.term, 0, match_index))
            tick(leader)
    assert leader.role.name == "leader"


def test_a_leader_with_nothing_to_copy_stays():
    """However long it was quiet: what comes then has its time."""
    leader = make_leader()
    flush(leader)
    everything = AppendEntriesResponse(leader.term, 0, leader.log.last_index)
    for _ in range(3 * SETTINGS.stalled_disk_ticks):
        leader.step("2", everything)
        tick(leader)
    propose(leader, [b"x"])
    for _ in range(SETTINGS.stalled_disk_ticks - 1):
        leader.step("2", everything)
        tick(leader)
    assert leader.role.name == "leader"
