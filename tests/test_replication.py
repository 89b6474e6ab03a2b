"""Replication and commitment: docs/pitfalls.md, chapter 2, one server as a value."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest
from core_text import (
    SETTINGS,
    answer,
    append_entries,
    flush,
    make_leader,
    make_server,
    propose,
    sent,
    show,
    show_progress,
    tick,
)

from txraft.codec import encode_message
from txraft.core.errors import CommittedConflict, InvalidMessage, NotLeading, UncommittedFull
from txraft.core.messages import AppendEntriesResponse
from txraft.core.settings import RaftSettings


def refuse(leader, sender: str, prev: int, hint: str, match_index: int = 0) -> None:
    index, _, term = hint.partition("@")
    leader.step(sender, AppendEntriesResponse(leader.term, 0, match_index, True, prev, int(index), int(term)))


class TestFollower:
    def test_late_duplicate_append_keeps_acknowledged_entries(self):
        """R08, R04."""
        follower = make_server(term=1, voters="", log="1:a 1:b 1:c")
        follower.step("2", append_entries(term=1, prev="0@0", entries="1:a"))
        assert show(follower.log) == "1:a 1:b 1:c"
        assert sent(follower) == ["2< AppendEntriesResponse term=1 match_index=1"]

    def test_only_what_the_request_proved_is_committed(self):
        """R03, R19, original 2: the tail may be a deposed leader's."""
        follower = make_server(term=3, voters="", log="1:a 2:b 2:c")
        follower.step("2", append_entries(3, prev="1@1", leader_commit=3))
        assert follower.commit_index == 1
        follower.step("2", append_entries(3, prev="1@1", entries="3:x", leader_commit=9))
        assert (follower.commit_index, show(follower.log)) == (2, "1:a 3:x")

    def test_only_what_the_request_proved_is_claimed(self):
        """R04, original 1."""
        follower = make_server(term=3, voters="", log="1:a 2:b 2:c")
        follower.step("2", append_entries(3, prev="1@1"))
        assert sent(follower) == ["2< AppendEntriesResponse term=3 match_index=1"]

    def test_what_an_earlier_leader_proved_is_not_claimed_to_the_next(self):
        """R04 over two terms."""
        follower = make_server(term=2, voters="", log="1:a 2:b")
        follower.step("2", append_entries(2, prev="2@2"))
        flush(follower)
        follower.step("3", append_entries(3, prev="1@1"))
        assert sent(follower) == ["3< AppendEntriesResponse term=3 match_index=1"]

    def test_new_entries_are_acknowledged_once_and_only_when_they_are_on_disk(self):
        """R13."""
        follower = make_server(term=1, voters="", log="1:a")
        follower.step("2", append_entries(1, "1@1"))
        flush(follower)
        follower.step("2", append_entries(1, "1@1", "1:b"))
        follower.step("2", append_entries(1, "2@1", "1:c"))
        assert sent(follower, persist=False) == []
        follower.persisted()
        assert sent(follower) == ["2< AppendEntriesResponse term=1 match_index=3"]

    def test_a_heartbeat_is_answered_at_once_with_what_is_on_disk(self):
        """D14 at a follower: a slow disk must not look like a dead server."""
        follower = make_server(term=1, voters="", log="1:a")
        follower.step("2", append_entries(1, "1@1", "1:b"))
        follower.step("2", append_entries(1, "2@1"))
        assert sent(follower, persist=False) == ["2< AppendEntriesResponse term=1 match_index=1"]

    def test_nothing_is_applied_before_it_is_on_disk(self):
        follower = make_server(term=1, voters="", log="1:a")
        follower.step("2", append_entries(1, "1@1", "1:b", leader_commit=2))
        assert follower.ready().apply_index == 1
        follower.persisted()
        assert follower.ready().apply_index == 2

    def test_a_true_conflict_cuts_the_log_there(self):
        """R09."""
        follower = make_server(term=4, voters="", log="1:a 2:b 2:c 3:d")
        follower.step("2", append_entries(4, "1@1", "2:b 4:x"))
        assert show(follower.log) == "1:a 2:b 4:x"

    def test_a_conflict_at_or_below_the_commit_index_stops_the_server(self):
        """R09."""
        follower = make_server(term=2, voters="", log="1:a 1:b")
        follower.step("2", append_entries(2, "2@1", leader_commit=2))
        with pytest.raises(CommittedConflict, match=r"entry 2 .* committed"):
            follower.step("2", append_entries(2, "1@1", "2:x"))

    @pytest.mark.parametrize(
        ("prev", "expected"),
        [
            ("0@0", "match_index=1"),
            ("1@1", "match_index=2"),
            ("3@2", "match_index=4"),
            ("4@2", "refused prev_log_index=4 hint_index=3 hint_term=2"),
            ("3@3", "refused prev_log_index=3 hint_index=3 hint_term=2"),
            ("3@1", "refused prev_log_index=3 hint_index=2 hint_term=1"),
        ],
    )
    def test_the_previous_entry_decides(self, prev, expected):
        """R10: before the first, in the middle, the last, behind the last, and of another term."""
        follower = make_server(term=3, voters="", log="1:a 1:b 2:c")
        term = {"0@0": 1, "1@1": 1}.get(prev, 3)
        follower.step("2", append_entries(3, prev, f"{term}:n"))
        assert sent(follower)[-1].endswith(expected)

    def test_a_write_that_was_overtaken_does_not_make_its_successor_durable(self):
        """R14, D16: the write of (2, term 1) ends after (2, term 2) took its place."""
        follower = make_server(term=1, voters="", log="1:a")
        follower.step("2", append_entries(1, "1@1", "1:b 1:c"))
        assert follower.ready().persist.last_index == 3
        follower.step("3", append_entries(2, "1@1", "2:x 2:y 2:z"))
        follower.persisted()
        assert follower.log.durable_index == 1
        ready = follower.ready()
        assert all(message.match_index <= 1 for _, message in ready.messages)
        assert [(run.first_index, run.commands) for run in ready.persist.runs] == [
            (2, [b"x"]),
            (3, [b"y"]),
            (4, [b"z"]),
        ]
        follower.persisted()
        assert sent(follower)[-1] == "3< AppendEntriesResponse term=2 match_index=4"


class TestLeader:
    def test_a_term_starts_with_a_no_op_sent_at_once(self):
        """R16, original 3 and 18."""
        leader = make_leader()
        assert show(leader.log) == "1:{1,2,3} 2:-"

    def test_a_match_never_goes_back(self):
        """R05, R06: every order of every answer, with repetitions."""
        for order in itertools.permutations([2, 3, 4, 3]):
            leader = make_leader()
            propose(leader, [b"x", b"y"])
            flush(leader)
            best = 0
            for match_index in order:
                answer(leader, "2", match_index)
                best = max(best, match_index)
                progress = leader.leader().progress["2"]
                assert progress.match_index == best < progress.next_index
                assert leader.commit_index == best

    def test_an_answer_of_an_earlier_leadership_is_ignored(self):
        """R07: the same server leads again, and an answer of its first term arrives."""
        leader = make_leader(term=3)
        first_term = leader.term
        propose(leader, [b"x"])
        flush(leader)
        leader.step("2", append_entries(first_term + 1, "2@4"))
        leader.become_candidate()
        flush(leader)
        leader.become_leader()
        flush(leader)
        leader.step("2", AppendEntriesResponse(first_term, 0, 3))
        assert leader.leader().progress["2"].match_index == 0

    def test_entries_of_earlier_terms_are_committed_only_by_one_of_the_own(self):
        """R01, Figure 8; and R02: what is before the own entry comes with it."""
        leader = make_leader(log="2:a 3:b", term=3)
        answer(leader, "2", 3)
        assert leader.commit_index == 0
        answer(leader, "2", 4)
        assert leader.commit_index == 4

    def test_the_leader_counts_itself_only_when_it_is_on_disk(self):
        """R12."""
        leader = make_leader(voters="1,2,3,4,5")
        propose(leader, [b"x"])
        flush(leader, persist=False)
        answer(leader, "2", 3)
        answer(leader, "3", 3)
        assert leader.commit_index == 2
        leader.persisted()
        assert leader.commit_index == 3

    def test_a_single_server_commits_only_what_is_on_disk(self):
        """R18."""
        leader = make_leader(voters="1")
        propose(leader, [b"x"])
        flush(leader, persist=False)
        assert leader.commit_index == 2
        leader.persisted()
        assert leader.commit_index == 3

    def test_all_proposals_of_a_turn_leave_in_one_message(self):
        """original 16 and 18."""
        leader = make_leader()
        for other in ("2", "3"):
            answer(leader, other, 2)
        flush(leader)
        for number in range(50):
            propose(leader, [b"%d" % number])
        messages = flush(leader, persist=False)
        assert [(to, len(message.entries)) for to, message in messages] == [("2", 50), ("3", 50)]
        assert messages[0][1].entries is messages[1][1].entries

    def test_a_batch_is_capped_by_bytes_but_never_empty(self):
        """original 16."""
        leader = make_leader()
        answer(leader, "2", 2)
        flush(leader)
        propose(leader, [b"x" * 392] * 5 + [b"y" * 3000, b"z"])
        sizes = [len(message.entries) for to, message in flush(leader, persist=False) if to == "2"]
        assert sizes == [2, 2, 1, 1]
        answer(leader, "2", 8)
        assert [len(message.entries) for to, message in flush(leader, persist=False) if to == "2"] == [1]

    def test_a_backlog_of_short_runs_leaves_in_messages_of_bounded_size_and_work(self):
        """R21, N15: an entry a millisecond, each a run of its own: a second of work, while heartbeats wait."""
        settings = replace(SETTINGS, max_append_bytes=64 * 1024, max_inflight_bytes=256 * 1024)
        leader = make_leader(settings=settings)
        answer(leader, "2", 2)
        flush(leader)
        for time_ms in range(5000):
            leader.time_ms = 1_700_000_000_000 + time_ms
            propose(leader, [b"x"])
        messages = [message for to, message in flush(leader) if to == "2"]
        assert len(messages) == 5
        for message in messages:
            assert 50 <= len(message.entries.runs) <= 65
            assert len(encode_message(message)) <= settings.max_append_bytes
        assert leader.leader().progress["2"].in_flight_bytes <= settings.max_inflight_bytes + settings.max_append_bytes
        answer(leader, "2", messages[-1].entries.last_index)
        assert leader.leader().progress["2"].in_flight_bytes == 0

    def test_the_window_bounds_what_is_under_way_to_one_peer(self):
        """R15, N05: the other peer is not held up."""
        leader = make_leader()
        for other in ("2", "3"):
            answer(leader, other, 2)
        for _ in range(20):
            propose(leader, [b"x" * 900])
            flush(leader)
            answer(leader, "3", leader.log.last_index)
        progress = leader.leader().progress
        assert progress["2"].in_flight_bytes <= SETTINGS.max_inflight_bytes + SETTINGS.max_append_bytes
        assert progress["2"].next_index < 9 < progress["3"].next_index

    def test_a_probe_is_not_repeated_before_its_answer_or_its_time(self):
        """original 12: never in a tight loop."""
        leader = make_leader()
        propose(leader, [b"x"])
        assert sent(leader) == []
        tick(leader, SETTINGS.append_retry_ticks)
        assert [line.split(" entries")[0] for line in sent(leader)] == [
            "2< AppendEntries term=2 prev_log_index=1 prev_log_term=1",
            "3< AppendEntries term=2 prev_log_index=1 prev_log_term=1",
        ]

    def test_a_silent_peer_is_probed_without_entries(self):
        """N15: an unreachable peer costs no bandwidth."""
        leader = make_leader()
        propose(leader, [b"x" * 500])
        for _ in range(5):
            tick(leader, SETTINGS.append_retry_ticks)
            assert all(len(message.entries) == 0 for _, message in flush(leader))

    def test_one_refusal_of_many_in_flight_rewinds_once(self):
        """R15."""
        leader = make_leader()
        answer(leader, "2", 2)
        for _ in range(3):
            propose(leader, [b"x"])
            flush(leader)
        assert show_progress(leader).startswith("2:2/6 ")
        refuse(leader, "2", 3, "2@2", 2)
        assert show_progress(leader).startswith("2:2/3! ")
        flush(leader)
        refuse(leader, "2", 4, "2@2", 2)
        refuse(leader, "2", 5, "2@2", 2)
        assert show_progress(leader).startswith("2:2/3! ")
        assert [to for to, _ in flush(leader)] == []

    def test_a_late_refusal_below_the_match_says_nothing(self):
        """R06."""
        leader = make_leader()
        answer(leader, "2", 2)
        refuse(leader, "2", 2, "1@1")
        assert show_progress(leader).startswith("2:2/3 ")

    def test_an_answer_that_claims_more_than_was_sent_is_the_peers_fault(self):
        """original 13: one peer's nonsense does not touch the others."""
        leader = make_leader()
        with pytest.raises(InvalidMessage):
            answer(leader, "2", 99)
        with pytest.raises(InvalidMessage):
            answer(leader, "2", 2, round=5)
        answer(leader, "3", 2)
        assert leader.commit_index == 2

    def test_an_answer_of_a_stranger_is_ignored(self):
        leader = make_leader()
        answer(leader, "9", 2)
        assert leader.commit_index == 0

    def test_a_deposed_leader_appends_nothing(self):
        """R22."""
        leader = make_leader()
        leader.step("2", AppendEntriesResponse(9, 0, 0))
        with pytest.raises(NotLeading):
            propose(leader, [b"x"])
        assert show(leader.log) == "1:{1,2,3} 2:-"

    def test_what_is_uncommitted_is_bounded_and_the_bound_is_released_by_commitment(self):
        """T11."""
        settings = RaftSettings(10, 20, 5, 4, 4, 1000, 4000, max_uncommitted_bytes=200, catch_up_rounds=3)
        leader = make_leader(settings=settings)
        answer(leader, "2", 2)
        propose(leader, [b"x" * 92] * 2)
        with pytest.raises(UncommittedFull):
            propose(leader, [b"x"])
        assert leader.log.last_index == 4
        flush(leader)
        answer(leader, "2", 4)
        assert leader.leader().uncommitted_bytes == 0
        propose(leader, [b"x" * 5000])

    def test_a_heartbeat_finds_out_what_was_lost(self):
        """Messages may be dropped at any time: the next one does not fit, and is refused."""
        leader = make_leader()
        answer(leader, "2", 2)
        propose(leader, [b"x"])
        flush(leader)
        tick(leader, SETTINGS.heartbeat_ticks)
        assert "2< AppendEntries term=2 prev_log_index=3 prev_log_term=2 leader_commit=2" in sent(leader)


def refusals_until_equal(leader_log: str, follower_log: str) -> int:
    """How many refusals it takes until the logs agree."""
    leader = make_leader(log=leader_log, term=40)
    follower = make_server("2", term=40, log=follower_log)
    refusals = 0
    for _ in range(200):
        for to, message in flush(leader):
            if to == "2":
                follower.step("1", message)
        for _, message in flush(follower):
            refusals += getattr(message, "refused", False)
            leader.step("2", message)
        if show(follower.log) == show(leader.log):
            return refusals
        tick(leader)
    raise AssertionError((leader_log, follower_log))


class TestConflictHint:
    def test_each_round_skips_a_term(self):
        """R20, original 12."""
        assert refusals_until_equal("4:x " * 50, "2:a " * 30 + "3:b " * 30) <= 3

    def test_random_logs_agree_after_at_most_one_refusal_for_each_term(self):
        """R20."""
        for seed in range(300):
            rng = random.Random(seed)

            def tail(rng: random.Random = rng) -> list[int]:
                return sorted(rng.choices(range(1, 9), k=rng.randint(0, 12)))

            # Log Matching: an entry of one index and term is the same everywhere, so only terms matter.
            shared = sorted(rng.choices(range(1, 5), k=rng.randint(0, 5)))
            base = shared[-1] if shared else 1
            mine = shared + [t * 2 + 8 for t in tail() if t * 2 + 8 >= base]
            theirs = shared + [t * 2 + 9 for t in tail() if t * 2 + 9 >= base]
            to_text = lambda terms: " ".join(f"{t}:x" for t in terms)  # noqa: E731
            assert refusals_until_equal(to_text(mine), to_text(theirs)) <= len(set(mine)) + len(set(theirs)) + 1
