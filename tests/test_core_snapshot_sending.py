"""Sending snapshots in the core: docs/pitfalls.md, chapter 4, one leader as a value."""

from __future__ import annotations

from dataclasses import replace

import pytest
from core_text import (
    SETTINGS,
    answer,
    flush,
    make_leader,
    propose,
    sent,
    show,
    show_membership,
    show_progress,
    tick,
)

from txraft.core.change import Change
from txraft.core.messages import AppendEntriesResponse
from txraft.core.progress import Progress
from txraft.core.raft import Raft
from txraft.core.sending import ATTEMPTS, PATIENCE

TIMEOUT = SETTINGS.max_election_ticks


def leader_without_a_log(settings=SETTINGS) -> Raft:
    """It has applied and forgotten five entries; 2 has them, 3 has answered and lacks them."""
    leader = make_leader(log="1:a 1:b 1:c", settings=settings)
    answer(leader, "2", 5)
    leader.step("3", AppendEntriesResponse(2, 0, 0, True, 4, 0, 0))
    flush(leader)
    assert leader.snapshots.compact(5) and show(leader.log) == "..5@2"
    flush(leader)
    return leader


class TestLeader:
    def test_what_is_not_in_the_log_is_asked_of_the_owner(self):
        """R06, R20: and not sent as entries, whatever the hint says."""
        leader = leader_without_a_log()
        assert show_progress(leader) == "2:5/6 3:0/1*"
        assert leader.ready().snapshots == ("3",)
        assert leader.ready().snapshots == ("3",)

    def test_a_hint_below_the_log_leads_to_a_snapshot_at_once(self):
        """R20."""
        leader = make_leader(log="1:a 1:b 1:c")
        answer(leader, "2", 5)
        flush(leader)
        leader.snapshots.compact(4)
        leader.step("3", AppendEntriesResponse(2, 0, 0, True, 4, 2, 1))
        assert leader.ready().snapshots == ("3",)

    def test_heartbeats_go_on_and_prove_nothing(self):
        """S15."""
        leader = leader_without_a_log()
        tick(leader, SETTINGS.heartbeat_ticks)
        assert "3< AppendEntries term=2 leader_commit=5" in sent(leader)

    def test_a_server_that_has_not_answered_is_sent_nothing(self):
        """S10; and S04: it may be of an earlier term."""
        leader = make_leader(log="1:a 1:b 1:c")
        answer(leader, "2", 5)
        flush(leader)
        leader.snapshots.compact(5)
        propose(leader, [b"d"])
        answer(leader, "2", 6)
        flush(leader)
        leader.snapshots.compact(6)
        assert leader.ready().snapshots == ()

    def test_the_log_is_kept_from_the_snapshot_on_until_the_follower_has_caught_up(self):
        """S09."""
        leader = leader_without_a_log()
        leader.leader().sending.begun("3", 5)
        propose(leader, [b"d", b"e"])
        answer(leader, "2", 7)
        flush(leader)
        assert not leader.snapshots.compact(7)
        leader.leader().sending.sent("3")
        assert leader.ready().snapshots == ()
        answer(leader, "3", 5)
        assert not leader.snapshots.compact(7)
        assert "3< AppendEntries term=2 prev_log_index=5 prev_log_term=2 leader_commit=7 entries=[2:d 2:e]" in sent(
            leader
        )
        answer(leader, "3", 6)
        assert leader.snapshots.compact(7) and show(leader.log) == "..6@2 2:e"
        answer(leader, "3", 7)
        assert leader.snapshots.compact(7) and leader.leader().sending.held_index is None

    def test_one_that_was_away_for_long_has_as_much_time_as_any(self):
        """S10: how long it lacked something before is no delay of the snapshot."""
        leader = leader_without_a_log()
        leader.leader().sending._transfers.clear()
        leader.leader().progress["3"].end_snapshot()
        leader.leader().progress["3"].stalled_ticks = PATIENCE * TIMEOUT
        leader.leader().sending.need("3")
        leader.leader().sending.begun("3", 5)
        tick(leader)
        assert leader.ready().snapshots == ("3",)

    def test_a_follower_that_dies_meanwhile_holds_nothing_up(self):
        """S10."""
        leader = leader_without_a_log()
        leader.leader().sending.begun("3", 5)
        for _ in range(PATIENCE):
            leader.leader().progress["2"].heard(0)
            tick(leader, TIMEOUT)
        assert leader.role.name == "leader"
        assert leader.ready().snapshots == () and leader.leader().sending.held_index is None

    @pytest.mark.parametrize("comes_again", [False, True])
    def test_for_one_that_has_left_nothing_is_kept_also_if_it_comes_again(self, comes_again):
        """M10, S09: it may come with an empty disk, and begins anew."""
        leader = leader_without_a_log()
        leader.leader().sending.begun("3", 5)
        del leader.leader().progress["3"]
        if comes_again:
            leader.leader().progress["3"] = Progress(1)
        tick(leader)
        assert leader.leader().sending.wanted() == () and leader.leader().sending.held_index is None

    def test_no_more_is_kept_than_there_is_room_for(self):
        """S10: the receiver may be alive and too slow for ever."""
        leader = leader_without_a_log(replace(SETTINGS, max_held_bytes=100))
        leader.leader().sending.begun("3", 5)
        propose(leader, [bytes(150)])
        answer(leader, "2", 6)
        flush(leader)
        assert leader.snapshots.compact(6)
        assert leader.leader().sending.held_index is None

    def test_only_for_whom_there_is_no_room_nothing_is_kept(self):
        """S10: what another one needs fits, and stays."""
        leader = leader_without_a_log(replace(SETTINGS, max_held_bytes=100))
        leader.leader().sending.begun("3", 5)
        propose(leader, [bytes(150)])
        answer(leader, "2", 5)
        leader.leader().progress["2"].next_index = 1
        leader.leader().sending.need("2")
        leader.leader().sending.begun("2", 6)
        propose(leader, [b"x"])
        assert leader.leader().sending.limit(7) == 6
        assert leader.leader().sending.wanted() == ("2",)

    def test_what_failed_is_tried_again_after_a_rest(self):
        """S11: fetched again."""
        leader = leader_without_a_log()
        leader.leader().sending.begun("3", 5)
        leader.leader().sending.failed("3")
        assert leader.ready().snapshots == ()
        for _ in range(TIMEOUT):
            tick(leader)
            leader.step("2", AppendEntriesResponse(2, 0, 5))
            leader.step("3", AppendEntriesResponse(2, 0, 0))
        assert leader.ready().snapshots == ("3",)

    def test_the_log_is_kept_while_it_rests_and_not_after_many_failures(self):
        """S09, S10."""
        leader = leader_without_a_log()
        for _ in range(ATTEMPTS):
            assert leader.leader().sending.held_index == 5
            leader.leader().sending.begun("3", 5)
            leader.leader().sending.failed("3")
        assert leader.leader().sending.held_index is None

    def test_a_new_server_that_no_snapshot_reaches_is_not_waited_for(self):
        """M13: it answers, and each time something else than its silence keeps it from having what it needs."""
        leader = leader_without_a_log()
        answer(leader, "2", leader.log.last_index)
        leader.leader().reconfiguration.begin(Change(voters=("4",)))
        for _ in range(ATTEMPTS):
            assert leader.membership.next_voters == ("1", "2", "3", "4")
            for _ in range(2 * TIMEOUT):
                tick(leader)
                answer(leader, "2", leader.log.last_index)
                leader.step("4", AppendEntriesResponse(2, 0, 0, True, leader.log.last_index, 0, 0))
                flush(leader)
            leader.leader().sending.begun("4", 5)
            leader.leader().sending.failed("4")
        flush(leader)
        assert show_membership(leader.membership) == "1,2,3"
        assert leader.leader().reconfiguration.failure == "4 could not catch up: no snapshot reaches it"

    def test_what_was_sent_and_is_never_acknowledged_is_given_up(self):
        """S09: the answer may have been lost with the receiver's state."""
        leader = leader_without_a_log()
        leader.leader().sending.begun("3", 5)
        leader.leader().sending.sent("3")
        for _ in range(PATIENCE * TIMEOUT):
            leader.leader().progress["2"].heard(0)
            leader.leader().progress["3"].heard(0)
            tick(leader)
        assert leader.leader().sending.held_index is None
        assert show_progress(leader) == "2:5/6 3:0/1!"

    def test_entries_that_arrive_after_all_end_the_snapshot(self):
        """They were under way when the log was compacted."""
        leader = leader_without_a_log()
        answer(leader, "3", 5)
        assert leader.ready().snapshots == ()
        assert (show_progress(leader), leader.leader().sending.held_index) == ("2:5/6 3:5/6!", None)

    def test_a_late_refusal_does_not_end_it(self):
        leader = leader_without_a_log()
        leader.step("3", AppendEntriesResponse(2, 0, 0, True, 9, 4, 1))
        assert show_progress(leader) == "2:5/6 3:0/1*"

    @pytest.mark.parametrize("is_advancing", [True, False])
    def test_a_transfer_keeps_up_a_leadership_for_as_long_as_it_gets_on(self, is_advancing):
        """
        D14: with who receives it and the leader there is a quorum, though 2 is silent; a large one is no stalled disk.
        But others, who could commit, are not kept from electing one of theirs by one that gets nowhere.
        """
        leader = leader_without_a_log()
        leader.leader().sending.begun("3", 5)
        propose(leader, [b"d"])
        for _ in range(2 * SETTINGS.stalled_disk_ticks):
            tick(leader)
            leader.step("3", AppendEntriesResponse(2, 0, 0))
            if is_advancing:
                leader.role.sending.advanced("3")
        assert (leader.role.name == "leader") is is_advancing
