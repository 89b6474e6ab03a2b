"""Linearizable reads, one server as a value: who confirms, when, and for what."""

from __future__ import annotations

import pytest
from core_text import answer, append_entries, flush, make_leader, make_server, sent

from txraft.core.errors import NotLeading
from txraft.core.messages import AppendEntriesResponse


class TestReads:
    def test_a_read_waits_for_an_entry_of_the_own_term(self):
        """C02, R16."""
        leader = make_leader()
        leader.request_read(7)
        assert leader.ready().reads == []
        answer(leader, "2", 2)
        flush(leader)
        answer(leader, "2", 2, round=1)
        assert leader.ready().reads == [(7, 2)]

    def test_all_reads_of_a_flush_share_one_confirmation(self):
        leader = make_leader()
        answer(leader, "2", 2)
        answer(leader, "3", 2)
        flush(leader)
        for read_id in range(100):
            leader.request_read(read_id)
        assert sent(leader) == [
            "2< AppendEntries term=2 prev_log_index=2 prev_log_term=2 leader_commit=2 round=1",
            "3< AppendEntries term=2 prev_log_index=2 prev_log_term=2 leader_commit=2 round=1",
        ]
        answer(leader, "3", 2, round=1)
        assert leader.ready().reads == [(read_id, 2) for read_id in range(100)]

    def test_an_answer_to_an_earlier_round_does_not_confirm_a_later_read(self):
        """C03."""
        leader = make_leader()
        answer(leader, "2", 2)
        leader.request_read(1)
        flush(leader)
        answer(leader, "2", 2, round=1)
        flush(leader)
        leader.request_read(2)
        flush(leader)
        answer(leader, "3", 2, round=1)
        assert leader.ready().reads == []
        answer(leader, "3", 2, round=2)
        assert leader.ready().reads == [(2, 2)]

    def test_reads_that_waited_for_a_round_begin_the_next_in_the_flush_that_ends_it(self):
        """C03: without a word more from anybody, a read waits for two rounds at most."""
        leader = make_leader()
        answer(leader, "2", 2)
        leader.request_read(1)
        flush(leader)
        leader.request_read(2)
        assert sent(leader) == []
        answer(leader, "2", 2, round=1)
        ready = leader.ready()
        assert ready.reads == [(1, 2)]
        assert [(receiver, message.round) for receiver, message in ready.messages] == [("2", 2), ("3", 2)]

    def test_reads_end_with_the_leadership(self):
        """C01, C12."""
        leader = make_leader()
        answer(leader, "2", 2)
        leader.request_read(1)
        flush(leader)
        leader.request_read(2)
        leader.step("2", AppendEntriesResponse(9, 0, 0))
        assert leader.ready().dropped_reads == [1, 2]
        with pytest.raises(NotLeading):
            leader.request_read(3)

    def test_a_follower_echoes_a_round_without_waiting_for_its_disk(self):
        follower = make_server(term=1, voters="", log="1:a")
        follower.step("2", append_entries(1, "1@1", "1:b", round=4))
        assert sent(follower, persist=False) == ["2< AppendEntriesResponse term=1 round=4 match_index=1"]

    def test_a_single_server_confirms_itself(self):
        leader = make_leader(voters="1")
        leader.request_read(1)
        assert leader.ready().reads == [(1, 2)]
