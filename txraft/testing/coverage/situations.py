"""How the situations of `catalogue` are recognised. Each function yields the rows whose situation it has before it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from txraft.core.candidate import Candidate, PreCandidate
from txraft.core.follower import Follower
from txraft.core.leader import Leader
from txraft.core.log import EntryKind
from txraft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)
from txraft.core.quorum import committed_index
from txraft.core.ready import Ready
from txraft.testing.coverage import changes, snapshots
from txraft.testing.coverage.step import ProgressBefore, Step

if TYPE_CHECKING:
    from txraft.testing.coverage.watch import Watch


def of_step(step: Step) -> Iterator[str]:
    """A message that was dealt with."""
    yield from changes.of_step(step)
    if step.raft.role is not step.role:
        if step.has_raised_term and step.voted_for is not None:
            yield "E03"
        if step.watch.has_overslept and isinstance(step.role, Leader):
            yield "T02"
    match step.message:
        case AppendEntries() as message:
            if isinstance(step.raft.role, Follower) and message.term == step.raft.term:
                yield from _of_append_entries(step, message)
        case AppendEntriesResponse() as message:
            if isinstance(step.role, Leader):
                yield from _of_answer_to_leader(step, message)
        case PreVote() | RequestVote():
            yield from _of_request(step, step.message)
        case PreVoteResponse() | RequestVoteResponse():
            yield from _of_vote(step, step.message)


def _of_append_entries(step: Step, message: AppendEntries) -> Iterator[str]:
    raft, follower = step.raft, step.raft.role
    assert isinstance(follower, Follower)
    log = raft.log
    if step.has_refused:
        if message.prev_log_index == step.last_index + 1:
            yield "R10"
        return
    if log.term(step.last_index) != step.last_term:
        yield "R09"
        if step.last_term in step.watch.led_terms:
            yield "C09"
    if log.last_index > follower.proved_index:
        yield "R04"
        if raft.commit_index < min(message.leader_commit, log.last_index):
            yield "R03"
            if not message.entries:
                yield "R19"
    if message.entries and log.last_index > message.entries.last_index:
        yield "R08"


def _of_answer_to_leader(step: Step, message: AppendEntriesResponse) -> Iterator[str]:
    if step.has_raised_term:
        yield "E13"
    if message.term < step.term:
        yield "R07"
    before = step.progress
    if before is None:
        return
    if message.match_index < before.match_index:
        yield "R05"
    if message.match_index > step.raft.log.durable_index:
        yield "R12"
    if (step.raft.write_age_ticks or 0) > step.raft.settings.max_election_ticks:
        yield "R21"
    if message.refused:
        yield from _of_refusal(message, before)
    else:
        yield from _of_acceptance(step, message)


def _of_refusal(message: AppendEntriesResponse, before: ProgressBefore) -> Iterator[str]:
    if message.prev_log_index <= before.match_index:
        yield "R06"
    elif before.is_probing and message.prev_log_index != before.next_index - 1:
        yield "R15"
    elif before.match_index < before.now.next_index - 1 < message.hint_index:
        yield "R20"


def _of_acceptance(step: Step, message: AppendEntriesResponse) -> Iterator[str]:
    raft, leader = step.raft, step.role
    assert isinstance(leader, Leader)
    log = raft.log
    if message.round < leader.reads.round and leader.reads.is_under_way:
        yield "C03"
    # The first entry, which every server begins with, is of an earlier term in each run.
    committed_by_any = max(1, step.watch.coverage.committed_index)
    if raft.commit_index > step.commit_index:
        if raft.commit_index > committed_by_any and log.term(committed_by_any + 1) != raft.term:
            yield "R02"
        is_first = log.term(step.commit_index) != raft.term
        if is_first and raft.commit_index == log.last_index and log.kind(raft.commit_index) is EntryKind.NOOP:
            yield "R16"
    elif log.term(raft.commit_index) != raft.term and _held_by_quorum(step, leader) > committed_by_any:
        yield "R01"


def _held_by_quorum(step: Step, leader: Leader) -> int:
    durable_index, progress = step.raft.log.durable_index, leader.progress
    own_id = step.raft.server_id
    return committed_index(
        step.raft.membership,
        lambda server_id: durable_index if server_id == own_id else progress[server_id].match_index,
    )


def _of_request(step: Step, message: PreVote | RequestVote) -> Iterator[str]:
    is_newer, is_longer = message.last_log_term - step.last_term, message.last_log_index - step.last_index
    is_up_to_date = (is_newer, is_longer) >= (0, 0)
    if is_newer * is_longer < 0:
        yield "E07"
    if isinstance(message, PreVote):
        if isinstance(step.role, Leader) and message.term > step.term and is_up_to_date:
            yield "E08"
        if message.term > step.term + 1 and not step.heard_leader and not is_up_to_date:
            yield "E12"
        return
    if step.voted_for == step.sender and message.term == step.term:
        yield "E19"
    if step.watch.past.votes.get(message.term, step.sender) != step.sender and message.term == step.raft.term:
        yield "E01"


def _of_vote(step: Step, message: PreVoteResponse | RequestVoteResponse) -> Iterator[str]:
    if isinstance(message, PreVoteResponse):
        if isinstance(step.role, PreCandidate) and step.has_raised_term:
            yield "E11"
    elif isinstance(step.role, Candidate):
        if message.granted and message.term < step.term:
            yield "E04"
        if message.granted and message.term == step.term and step.has_voted:
            yield "E05"


def of_pre_candidacy(watch: Watch) -> Iterator[str]:
    """A server is about to ask whether it would win."""
    if watch.spoken_to is watch.raft.role:
        yield "E09"


def of_leadership(watch: Watch) -> Iterator[str]:
    """A candidate is about to lead."""
    yield from changes.of_leadership(watch)
    network, ids, log = watch.coverage.cluster.network, watch.coverage.cluster.ids, watch.raft.log
    if any(network.is_cut(one, other) and not network.is_cut(other, one) for one in ids for other in ids):
        yield "E14"
    if log.last_index > watch.raft.commit_index and log.last_term in watch.led_terms:
        yield "E20"
    if watch.server.clock_rate != 1.0:
        yield "T01"


def of_following(watch: Watch, term: int) -> Iterator[str]:
    """A server is about to be a follower in `term`."""
    yield from snapshots.of_following(watch)
    raft = watch.raft
    if isinstance(raft.role, Candidate | Leader) and raft.write_age_ticks is not None:
        yield "E18"
    if isinstance(raft.role, Leader):
        if term == raft.term:
            is_stalled = (raft.write_age_ticks or 0) >= raft.settings.stalled_disk_ticks
            yield "M07" if not raft.membership.is_voter(raft.server_id) else "D14" if is_stalled else "E15"
        # Room is made when a command is taken.
        if raft.role.uncommitted_bytes > raft.log.bytes_between(raft.commit_index + 1, raft.log.last_index + 1):
            yield "R22"


def of_read(watch: Watch) -> Iterator[str]:
    """A leader is asked to confirm that it leads."""
    raft = watch.raft
    if raft.term < watch.coverage.last_led_term:
        yield "C01"
    if raft.log.term(raft.commit_index) != raft.term:
        yield "C02"


def of_ready(watch: Watch, ready: Ready) -> Iterator[str]:
    """What a server is to do now."""
    raft = watch.raft
    if any(index > raft.applied_index for _, index in ready.reads):
        yield "C04"
    if ready.dropped_reads:
        yield "C12"
    if watch.server.apply_seconds and ready.apply_index > raft.applied_index and isinstance(raft.role, Leader):
        settings = watch.server.node.settings if watch.server.node is not None else None
        if settings is not None and watch.server.apply_seconds * 1000 > settings.min_election_timeout:
            yield "T08"


def of_written(watch: Watch, last_index: int, last_term: int) -> Iterator[str]:
    """A write has ended whose last entry was this one."""
    if watch.raft.log.term(last_index) not in (None, last_term):
        yield "R14"


def of_start(watch: Watch, is_cut: bool) -> Iterator[str]:
    """A process has recovered what its disk holds; `is_cut`: it wrote to the log for that."""
    yield from changes.of_start(watch)
    yield from snapshots.of_start(watch)
    log = watch.raft.log
    if log.last_index < watch.past.commit_index:
        yield "R17"
    if is_cut:
        yield "D04"
    if watch.past.cut_index is not None and log.last_index > watch.past.cut_index:
        yield "D06"


def of_crash(watch: Watch) -> Iterator[str]:
    """A process is about to die; it may have stopped itself before."""
    yield from snapshots.of_crash(watch)
    raft, node = watch.raft, watch.server.node
    if raft.log.last_index > raft.log.durable_index:
        if isinstance(raft.role, Follower):
            yield "R13"
        if raft.membership.members == (raft.server_id,):
            yield "R18"
    if watch.server.disk.has_unsynced_names():
        yield "D02"
    if node is not None and node.failure is not None:
        yield "D01" if "sync failed" in str(node.failure) else "D08"
        if isinstance(raft.role, Candidate | Leader):
            yield "D15"
    elif watch.writing is not None:
        if watch.writing.hard_state is not None:
            yield "E02"
        if watch.is_replacing:
            yield "D10"


_OF_FAULTS = {
    "wiped disk": "M11",
    "wrong cluster": "M16",
    "rot refused": "D03",
    "lost segment refused": "D11",
    "start on a full disk": "D09",
    "halt in a start": "D21",
    "cloned disk": "D13",
    "lost write": "D19",
}
_OF_OUTCOMES = {"OutcomeUnknown": "C10", "Overloaded": "T11", "SessionExpired": "C08"}


def of_run(faults: Mapping[str, int], outcomes: Mapping[str, int]) -> Iterator[str]:
    """What a whole run has done to its servers, and told its clients."""
    yield from (row for fault, row in _OF_FAULTS.items() if faults.get(fault))
    yield from (row for outcome, row in _OF_OUTCOMES.items() if outcomes.get(outcome))
