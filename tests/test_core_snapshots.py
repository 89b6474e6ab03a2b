"""Compaction, installing and sending in the core: docs/pitfalls.md, chapter 4, one server as a value."""

from __future__ import annotations

import random
import sys
from dataclasses import replace

import pytest
from core_text import (
    SETTINGS,
    append_entries,
    flush,
    make_log,
    make_server,
    membership,
    sent,
    show,
    show_membership,
    tick,
)

from txraft.core.errors import InvalidMessage
from txraft.core.log import EntryKind, EntryRun, Log
from txraft.core.messages import HardState, PreVoteResponse, RequestVote, RequestVoteResponse, TimeoutNow
from txraft.core.raft import Raft
from txraft.core.snapshot import SnapshotMeta

TIMEOUT = SETTINGS.max_election_ticks


def snapshot(last_index: int, last_term: int, voters: str = "1,2,3", membership_index: int = 1) -> SnapshotMeta:
    return SnapshotMeta("test", last_index, last_term, 7, membership(voters).encode(), membership_index)


def compacted(term: int, log: str, last_index: int) -> Raft:
    """A follower that has applied, and forgotten, everything up to `last_index`."""
    server = make_server(term=term, voters="", log=log)
    server.step("2", append_entries(term, f"{last_index}@{server.log.term(last_index)}", leader_commit=last_index))
    flush(server)
    assert server.snapshots.compact(last_index)
    return server


class TestLog:
    @pytest.mark.parametrize("index", range(1, 7))
    def test_a_compacted_log_is_the_rest_of_what_it_was(self, index):
        """S01, at every boundary."""
        whole, log = make_log("1:a 1:b 2:c 2:d 2:e 4:f"), make_log("1:a 1:b 2:c 2:d 2:e 4:f")
        log.compact(index)
        assert (log.base_index, log.first_index, log.last_index, log.last_term) == (index, index + 1, 6, 4)
        assert [log.term(at) for at in range(8)] == [None] * index + [whole.term(at) for at in range(index, 8)]
        assert log.runs(index + 1, 7) == whole.runs(index + 1, 7)
        assert [log.command(at) for at in range(index + 1, 7)] == [whole.command(at) for at in range(index + 1, 7)]
        log.append(4, 0, 0, [b"g"])
        assert (log.last_index, log.command(7), log.last_time_ms) == (7, b"g", 0)

    @pytest.mark.parametrize("is_leader", [True, False])
    @pytest.mark.parametrize("index", [1, 50, 100])
    def test_what_is_compacted_is_no_longer_in_memory(self, is_leader, index):
        """S01: nothing else holds on to it, whether it was appended here and sent, or received."""
        commands = [b"command %d" % number for number in range(100)]
        held = [sys.getrefcount(command) for command in commands]
        log = Log()
        if is_leader:
            log.append(1, EntryKind.COMMAND, 0, commands)
            assert log.slice(1, 1 << 20).last_index == 100
        else:
            log.extend(EntryRun(1, 1, EntryKind.COMMAND, 0, list(commands)))
        log.take_unwritten()
        log.made_durable(100, 1)
        assert [sys.getrefcount(command) for command in commands] > held
        log.compact(index)
        assert [sys.getrefcount(command) for command in commands][:index] == held[:index]
        assert [log.command(at) for at in range(index + 1, 101)] == commands[index:]

    def test_compaction_in_small_steps_is_the_same_as_in_one(self):
        rng = random.Random(1)
        for _ in range(50):
            text = " ".join(f"{term}:{term}{at}" for at, term in enumerate(sorted(rng.choices(range(1, 5), k=12))))
            whole, log = make_log(text), make_log(text)
            for index in sorted(rng.sample(range(1, 13), 4)):
                log.compact(index)
                assert log.runs(index + 1, 13) == whole.runs(index + 1, 13)
                assert (log.base_term, log.last_term) == (whole.term(index), whole.last_term)

    def test_time_does_not_go_back_behind_an_empty_log(self):
        log = Log()
        log.append(1, 0, 50, [b"a"])
        log.take_unwritten()
        log.made_durable(1, 1)
        log.compact(1)
        log.append(1, 0, 20, [b"b"])
        assert log.time_ms(1) == log.time_ms(2) == 50

    def test_truncation_down_to_the_base_leaves_its_term(self):
        log = make_log("1:a 2:b 2:c")
        log.compact(2)
        log.truncate(2)
        assert (log.last_index, log.last_term, log.term(2)) == (2, 2, 2)


class TestFollower:
    @pytest.mark.parametrize(
        ("prev", "entries", "expected", "log"),
        [
            ("0@0", "", "match_index=3", "..3@2 2:d 2:e"),
            ("0@0", "1:a 1:b 2:c 2:d", "match_index=4", "..3@2 2:d 2:e"),
            ("2@1", "", "match_index=3", "..3@2 2:d 2:e"),
            ("2@1", "2:c 2:d 2:e", "match_index=5", "..3@2 2:d 2:e"),
            ("3@2", "", "match_index=3", "..3@2 2:d 2:e"),
            ("3@2", "3:x", "match_index=4", "..3@2 3:x"),
            ("4@2", "", "match_index=4", "..3@2 2:d 2:e"),
            ("4@2", "2:e 3:f", "match_index=6", "..3@2 2:d 2:e 3:f"),
            ("5@3", "", "match_index=3 refused prev_log_index=5 hint_index=5 hint_term=2", "..3@2 2:d 2:e"),
            ("6@3", "", "match_index=3 refused prev_log_index=6 hint_index=5 hint_term=2", "..3@2 2:d 2:e"),
            ("6@1", "", "match_index=3 refused prev_log_index=6 hint_index=3 hint_term=2", "..3@2 2:d 2:e"),
        ],
    )
    def test_the_previous_entry_is_anywhere_around_the_base(self, prev, entries, expected, log):
        """S01, R10: {0, base-1, base, base+1, last, last+1}. What is below the base is committed, hence equal."""
        follower = compacted(3, "1:a 1:b 2:c 2:d 2:e", 3)
        flush(follower)
        follower.step("2", append_entries(3, prev, entries))
        assert sent(follower)[-1] == f"2< AppendEntriesResponse term=3 {expected}"
        assert show(follower.log) == log

    def test_a_log_without_entries_votes_by_the_last_one_of_the_snapshot(self):
        """S01: an empty log is not an old one."""
        server = compacted(3, "1:a 2:b", 2)
        assert not server.is_up_to_date(1, 2)
        assert not server.is_up_to_date(9, 1)
        assert server.is_up_to_date(2, 2)

    def test_only_what_is_applied_is_forgotten(self):
        """S07 in memory: the snapshot of another time says nothing of this machine."""
        server = make_server(term=1, voters="", log="1:a 1:b 1:c")
        assert not server.snapshots.compact(3)
        server.step("2", append_entries(1, "3@1", leader_commit=2))
        flush(server)
        assert server.snapshots.compact(3) and show(server.log) == "..2@1 1:c"

    def test_some_entries_are_kept_for_those_who_are_a_little_behind(self):
        server = make_server(term=1, voters="", log="1:a 1:b 1:c", settings=replace(SETTINGS, log_keep_entries=2))
        server.step("2", append_entries(1, "3@1", leader_commit=3))
        flush(server)
        assert server.snapshots.compact(3) and show(server.log) == "..1@1 1:b 1:c"
        assert not server.snapshots.compact(3)

    def test_no_more_of_them_are_kept_than_a_size_allows(self):
        """S10: large entries. What one weighs is its length, and eight bytes."""
        settings = replace(SETTINGS, log_keep_entries=2, max_kept_bytes=17)
        server = make_server(term=1, voters="", log="1:a 1:b 1:c", settings=settings)
        server.step("2", append_entries(1, "3@1", leader_commit=3))
        flush(server)
        assert server.snapshots.compact(3) and show(server.log) == "..2@1 1:c"

    def test_one_that_is_too_large_by_itself_is_not_kept(self):
        settings = replace(SETTINGS, log_keep_entries=2, max_kept_bytes=8)
        server = make_server(term=1, voters="", log="1:a 1:b 1:c", settings=settings)
        server.step("2", append_entries(1, "3@1", leader_commit=3))
        flush(server)
        assert server.snapshots.compact(3) and show(server.log) == "..3@1"


class TestWithoutRoom:
    def test_a_follower_takes_no_entries_and_all_of_them_when_there_is_room(self):
        follower = make_server(term=1, log="1:a")
        flush(follower)
        follower.holds_entries = True
        follower.step("2", append_entries(1, "2@1", "1:b 1:c", leader_commit=4))
        assert sent(follower) == ["2< AppendEntriesResponse term=1 match_index=2"]
        assert (follower.log.last_index, follower.log.durable_index) == (4, 2)
        follower.step("2", append_entries(1, "4@1", leader_commit=4))
        assert sent(follower) == ["2< AppendEntriesResponse term=1 match_index=2"]
        follower.holds_entries = False
        assert sent(follower) == ["2< AppendEntriesResponse term=1 match_index=4"]

    def test_it_votes_all_the_same_and_that_makes_no_entry_durable(self):
        follower = make_server(term=1, log="1:a")
        flush(follower)
        follower.holds_entries = True
        follower.step("2", append_entries(1, "2@1", "1:b"))
        follower.step("3", RequestVote(2, 9, 1, told_by_leader=True))
        assert sent(follower)[-1:] == ["3< RequestVoteResponse term=2 granted"]
        assert (follower.durable_state.term, follower.log.durable_index) == (2, 2)

    def test_who_stands_for_election_and_loses_writes_nothing_however_often(self):
        """
        S10. It stands with all that it has in memory, and a lost candidacy must not make room for more: the leader that
        is elected instead sends another window each time.
        """
        follower = make_server(term=1, log="1:a")
        flush(follower)
        follower.holds_entries = True
        for term in range(2, 9):
            last_index, last_term = follower.log.last_index, follower.log.last_term
            follower.step("2", append_entries(term, f"{last_index}@{last_term}", f"{term}:b", leader_commit=last_index))
            assert sent(follower) == [f"2< AppendEntriesResponse term={term} match_index=2"]
            tick(follower, TIMEOUT)
            asked = f"PreVote term={term + 1} round={term - 1} last_log_index={last_index + 1} last_log_term={term}"
            assert sent(follower)[:2] == [f"2< {asked}", f"3< {asked}"]
            for voter in "23":
                follower.step(voter, PreVoteResponse(term, follower.pre_vote_round, granted=False))
            flush(follower)
            assert (follower.role.name, follower.log.durable_index) == ("follower", 2)

    def test_a_candidate_writes_its_vote_and_an_elected_leader_all_that_it_has(self):
        """D03: what is in memory only counts for nothing, also here, until it is written."""
        follower = make_server(term=1, log="1:a")
        flush(follower)
        follower.holds_entries = True
        follower.step("2", append_entries(1, "2@1", "1:b"))
        follower.step("2", TimeoutNow(1))
        assert sent(follower)[:2] == [
            f"{voter}< RequestVote term=2 last_log_index=3 last_log_term=1 told_by_leader" for voter in "23"
        ]
        assert (follower.durable_state, follower.log.durable_index) == (HardState(2, "1"), 2)
        follower.step("3", RequestVoteResponse(2, granted=True))
        flush(follower)
        assert (follower.role.name, show(follower.log), follower.log.durable_index) == (
            "leader",
            "1:{1,2,3} 1:a 1:b 2:-",
            4,
        )


class TestInstall:
    def test_it_takes_the_place_of_a_shorter_log(self):
        follower = make_server(term=3, log="1:a 1:b")
        assert follower.snapshots.install(snapshot(9, 2, voters="1,2,4", membership_index=5))
        assert (show(follower.log), follower.commit_index, follower.applied_index) == ("..9@2", 9, 9)
        assert (follower.log.durable_index, follower.log.last_time_ms) == (9, 7)
        assert (show_membership(follower.membership), follower.memberships.current_index) == ("1,2,4", 5)

    def test_it_takes_the_place_of_a_log_that_conflicts_wherever_that_ends(self):
        follower = make_server(term=3, log="1:a 1:b 1:c 1:d")
        assert follower.snapshots.install(snapshot(3, 2))
        assert (show(follower.log), follower.log.last_index, follower.log.written_index) == ("..3@2", 3, 3)

    def test_a_suffix_behind_a_matching_entry_is_kept(self):
        """S02: it may have been acknowledged. What is before it is committed, and is applied from the log."""
        follower = make_server(term=3, log="1:a 2:b 2:c")
        assert not follower.snapshots.install(snapshot(3, 2))
        assert (show(follower.log), follower.commit_index) == ("1:{1,2,3} 1:a 2:b 2:c", 3)

    def test_an_older_one_is_ignored(self):
        """S03, S13: two in the wrong order."""
        follower = make_server(term=3)
        assert follower.snapshots.install(snapshot(9, 2))
        assert not follower.snapshots.install(snapshot(8, 2))
        assert not follower.snapshots.install(snapshot(9, 2))
        assert (follower.log.base_index, follower.commit_index) == (9, 9)

    def test_the_leader_learns_that_an_older_one_was_not_needed(self):
        """S09: it cannot find out by itself, having forgotten what it would have to compare."""
        follower = make_server(term=3, voters="", log="1:a 2:b 2:c")
        follower.step("2", append_entries(3, "3@2", leader_commit=3))
        follower.step("2", append_entries(4))
        assert sent(follower)[-1] == "2< AppendEntriesResponse term=4"
        assert not follower.snapshots.install(snapshot(2, 2))
        assert sent(follower) == ["2< AppendEntriesResponse term=4 match_index=2"]

    def test_who_stood_as_a_voter_before_it_came_stands_no_more(self):
        """M18, M09: it has been removed meanwhile; the answers to its old question must not make it a candidate."""
        server = make_server(term=3, voters="1,2,3", log="1:a")
        tick(server, TIMEOUT)
        assert server.role.name == "pre-candidate"
        assert server.snapshots.install(snapshot(9, 2, voters="2,3", membership_index=8))
        server.step("2", PreVoteResponse(4, server.pre_vote_round, granted=True))
        server.step("3", PreVoteResponse(4, server.pre_vote_round, granted=True))
        tick(server, 2 * TIMEOUT)
        assert (server.role.name, server.term) == ("follower", 3)

    def test_who_stood_until_its_removal_is_known_to_be_committed_stands_no_more(self):
        """M09: all that the snapshot holds is here, and yet it tells something."""
        server = make_server(term=3, voters="1,2,3", log="2:{2,3} 2:a")
        tick(server, TIMEOUT)
        assert server.role.name == "pre-candidate"
        assert not server.snapshots.install(snapshot(3, 2, voters="2,3", membership_index=2))
        assert (server.role.name, server.commit_index) == ("follower", 3)

    def test_who_stands_and_has_all_of_it_goes_on(self):
        server = make_server(term=3, log="2:a")
        tick(server, TIMEOUT)
        assert not server.snapshots.install(snapshot(2, 2))
        assert (server.role.name, server.commit_index) == ("pre-candidate", 2)

    def test_term_and_vote_stay(self):
        """S04."""
        follower = make_server(term=3, voted_for="2")
        follower.snapshots.install(snapshot(9, 1))
        assert follower.hard_state == HardState(3, "2")

    def test_one_of_a_later_term_is_refused(self):
        """S04: after a restart the log would be of a later term than the server."""
        follower = make_server(term=2)
        with pytest.raises(InvalidMessage):
            follower.snapshots.install(snapshot(9, 3))
        follower.step("2", append_entries(3))
        follower.ready()
        with pytest.raises(InvalidMessage):
            follower.snapshots.install(snapshot(9, 3))
        follower.persisted()
        assert follower.snapshots.install(snapshot(9, 3))

    def test_one_without_a_membership_is_refused(self):
        """M06."""
        follower = make_server(term=2)
        with pytest.raises(InvalidMessage):
            follower.snapshots.install(replace(snapshot(9, 2), membership=b"?"))
        assert follower.log.base_index == 0

    def test_it_is_acknowledged_at_once(self):
        follower = make_server(term=3)
        follower.step("2", append_entries(3))
        flush(follower)
        follower.snapshots.install(snapshot(9, 2))
        assert sent(follower) == ["2< AppendEntriesResponse term=3 match_index=9"]

    def test_what_was_being_written_of_the_old_log_does_not_count_for_the_new_one(self):
        """S07: same index, same term, other file."""
        follower = make_server(term=3, voters="")
        follower.step("2", append_entries(3, entries="2:a 2:b 3:c"))
        follower.ready()
        follower.snapshots.install(snapshot(2, 3))
        follower.step("2", append_entries(3, "2@3", entries="3:c"))
        follower.ready()
        follower.persisted()
        assert follower.log.durable_index == 2
        assert [run.first_index for run in follower.ready().persist.runs] == [3]

    def test_a_restart_begins_with_it(self):
        """S01, S05."""
        log = Log(4, 2)
        for run in make_log("1:_ 1:_ 1:_ 2:_ 2:e 2:f").runs(5, 7):
            log.extend(run)
        log.take_unwritten()
        log.made_durable(6, 2)
        server = Raft("1", SETTINGS, random.Random(0), HardState(2, None), log, snapshot(5, 2, "1,2/3", 3))
        assert (server.commit_index, server.applied_index, show(server.log)) == (5, 5, "..4@2 2:e 2:f")
        assert show_membership(server.membership) == "1,2/3"

    @pytest.mark.parametrize("index", range(1, 6))
    def test_a_snapshot_has_the_membership_of_its_index(self, index):
        """M06: at each position around a change; not a newer one."""
        server = make_server(term=1, voters="1", log="1:a 1:{1,2} 1:b 1:{1/2}")
        server.step("2", append_entries(1, "5@1", leader_commit=index))
        flush(server)
        meta = server.snapshots.meta()
        expected = {1: ("1", 1), 2: ("1", 1), 3: ("1,2", 3), 4: ("1,2", 3), 5: ("1/2", 5)}[index]
        assert (meta.last_index, meta.membership, meta.membership_index) == (
            index,
            membership(expected[0]).encode(),
            expected[1],
        )
        server.snapshots.compact(index)
        assert server.snapshots.meta() == meta
