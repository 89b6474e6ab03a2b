"""The server that orders the log: replication, commitment, reads, and giving up when nobody answers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from txraft.core.errors import InvalidMessage, InvariantBroken, UncommittedFull
from txraft.core.log import ENTRY_OVERHEAD_BYTES, EntryKind, LogSlice
from txraft.core.membership import Membership
from txraft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from txraft.core.progress import Progress, ReplicationState
from txraft.core.quorum import VoteResult, committed_index, vote_result
from txraft.core.read_index import ReadQueue
from txraft.core.reconfiguration import Reconfiguration
from txraft.core.role import Role
from txraft.core.sending import SnapshotSending

if TYPE_CHECKING:
    from txraft.core.raft import Raft


class Leader(Role):
    """One leadership of one term."""

    name: ClassVar[str] = "leader"

    def __init__(self, raft: Raft) -> None:
        super().__init__(raft)
        self.leader_id = raft.server_id
        self.reads = ReadQueue()
        self.uncommitted_bytes = raft.log.bytes_between(raft.commit_index + 1, raft.log.last_index + 1)
        self.progress = {
            server_id: Progress(raft.log.last_index + 1)
            for server_id in raft.membership.members
            if server_id != raft.server_id
        }
        self.reconfiguration = Reconfiguration(raft)
        self.sending = SnapshotSending(raft)
        self._check_elapsed_ticks = 0
        self._heartbeat_elapsed_ticks = 0
        self._heartbeat_due = True

    def begin(self) -> None:
        # Nothing of an earlier term may be committed by counting, so commit something of this one (paper §5.4.2, §8).
        self._append_unreserved(EntryKind.NOOP, b"")
        self.reconfiguration.take_over(self.progress)

    def append_configuration(self, membership: Membership) -> None:
        """Put another membership in force."""
        self._append_unreserved(EntryKind.CONFIGURATION, membership.encode())

    def _append_unreserved(self, kind: EntryKind, data: bytes) -> None:
        """Append what no room was reserved for; what is waiting to be committed is counted all the same."""
        self.uncommitted_bytes += ENTRY_OVERHEAD_BYTES + len(data)
        self.raft.append(kind, [data])

    def membership_changed(self) -> None:
        """Another membership is in force."""
        self.reconfiguration.membership_changed(self.progress)

    # -- inputs

    def tick(self) -> None:
        settings = self.raft.settings
        for progress in self.progress.values():
            progress.tick(settings.append_retry_ticks, self.raft.log.last_index)
        self.reconfiguration.tick(self.progress)
        self.sending.tick()
        self._heartbeat_elapsed_ticks += 1
        if self._heartbeat_elapsed_ticks >= settings.heartbeat_ticks:
            self._heartbeat_elapsed_ticks = 0
            self._heartbeat_due = True
        self._check_elapsed_ticks += 1
        if self._check_elapsed_ticks >= settings.max_election_ticks:
            self._check_elapsed_ticks = 0
            self._check_quorum()
        write_age_ticks = self.raft.write_age_ticks
        if write_age_ticks is not None and write_age_ticks >= settings.stalled_disk_ticks:
            self.step_down()

    def _check_quorum(self) -> None:
        """
        Step down if no quorum was heard from for an election timeout: it may have another leader. Thesis §6.2.

        Whoever answers but takes nothing any more, as with a stalled disk, is not counted: with it nothing can be
        committed, and those who hear us would go on refusing a leader that could.
        """
        heard = {self.raft.server_id: True}
        for server_id, progress in self.progress.items():
            is_stalled = progress.stalled_ticks >= self.raft.settings.stalled_disk_ticks
            heard[server_id] = progress.is_active and not is_stalled
            progress.is_active = False
        if vote_result(self.raft.membership, heard) is not VoteResult.WON:
            self.step_down()

    def step_down(self) -> None:
        """Follow nobody, in the same term."""
        self.raft.become_follower(self.raft.term, None)

    def reserve(self, size: int, count: int) -> None:
        """
        Make room for `count` commands of `size` bytes together, which will be given to `propose`.

        With nothing uncommitted any size is taken, so that no command waits for ever.

        :raises UncommittedFull: too much is waiting to be committed already.
        """
        size += ENTRY_OVERHEAD_BYTES * count
        uncommitted_bytes = self.uncommitted_bytes + size
        if uncommitted_bytes > self.raft.settings.max_uncommitted_bytes and self.uncommitted_bytes:
            raise UncommittedFull
        self.uncommitted_bytes = uncommitted_bytes

    def propose(self, commands: Sequence[bytes], kind: EntryKind = EntryKind.COMMAND) -> int:
        """Append commands for which room was reserved, and for no others; answer the first one's index."""
        return self.raft.append(kind, commands)

    def on_pre_vote(self, sender: str, message: PreVote) -> None:
        super().on_pre_vote(sender, message)
        if sender not in self.progress:
            self.reconfiguration.remind(sender, self.progress)

    def on_append_entries(self, sender: str, message: AppendEntries) -> None:
        raise InvariantBroken(f"two leaders in term {self.raft.term}: {self.raft.server_id} and {sender}")

    def on_append_entries_response(self, sender: str, message: AppendEntriesResponse) -> None:
        """Note what the peer has; a peer that is no longer a member is not counted."""
        progress = self.progress.get(sender)
        if progress is None:
            return
        if message.match_index > self.raft.log.last_index or message.round > self.reads.round:
            raise InvalidMessage(f"{sender} claims what was never sent: {message}")
        progress.heard(message.round)
        if message.refused:
            agree_index, _ = self.raft.log.conflict_hint(message.hint_index, message.hint_term)
            progress.refused(message.prev_log_index, agree_index)
        if progress.matched(message.match_index, is_accepted=not message.refused):
            self._advance_commit()
        self.sending.answered(sender)
        self.raft.has_news |= self.reads.is_under_way or progress.may_send(
            self.raft.log.last_index, self.raft.settings.max_inflight_bytes
        )

    def durable_advanced(self) -> None:
        self._advance_commit()

    def _advance_commit(self) -> None:
        """Commit what a quorum has on disk, if it is of this term: what is before it comes with it. Paper §5.4.2."""
        raft = self.raft
        index = committed_index(raft.membership, self._match_index)
        if index > raft.commit_index and raft.log.term(index) == raft.term:
            self.uncommitted_bytes -= raft.log.bytes_between(raft.commit_index + 1, index + 1)
            raft.commit_to(index)

    def _match_index(self, server_id: str) -> int:
        # The leader's own copy counts once it is durable (thesis §10.2.1).
        return self.raft.log.durable_index if server_id == self.raft.server_id else self.progress[server_id].match_index

    def _confirmed_round(self, server_id: str) -> int:
        return self.reads.round if server_id == self.raft.server_id else self.progress[server_id].confirmed_round

    # -- output

    def prepare(self) -> None:
        """Begin a round for waiting reads, and send each peer what it lacks, or a heartbeat if one is due."""
        raft = self.raft
        self.reconfiguration.advance(self)
        if raft.role is not self:
            return
        # First, so that the reads which waited for the end of this round begin the next one now.
        self._confirm_reads()
        # Until an entry of this term is committed, the commit index may be behind what was answered (thesis §6.4).
        if raft.log.term(raft.commit_index) == raft.term and self.reads.begin_round(raft.commit_index):
            self._heartbeat_due = True
            # A server on its own has confirmed it already.
            self._confirm_reads()
        for server_id, progress in self.progress.items():
            self._replicate(server_id, progress)
        self._heartbeat_due = False
        self.reconfiguration.tell_when_level(self.progress)

    def _confirm_reads(self) -> None:
        raft = self.raft
        if self.reads.is_under_way:
            raft.confirmed_reads += self.reads.confirmed(committed_index(raft.membership, self._confirmed_round))

    def _replicate(self, server_id: str, progress: Progress) -> None:
        if progress.next_index <= self.raft.log.base_index:
            self.sending.need(server_id)
            if self._heartbeat_due:
                # Nothing can be built on what is not in the log; but everybody has what is before the first entry.
                self._send_append(server_id, progress, LogSlice(1))
            return
        has_sent = False
        while progress.may_send(self.raft.log.last_index, self.raft.settings.max_inflight_bytes):
            self._send_append(server_id, progress, self._entries_for(progress))
            has_sent = True
            if progress.state is ReplicationState.PROBE:
                return
        if self._heartbeat_due and not has_sent:
            self._send_append(server_id, progress, LogSlice(progress.next_index))

    def _entries_for(self, progress: Progress) -> LogSlice:
        if progress.next_index > self.raft.log.last_index or progress.is_probing_silence:
            return LogSlice(progress.next_index)
        return self.raft.log.slice(progress.next_index, self.raft.settings.max_append_bytes)

    def _send_append(self, server_id: str, progress: Progress, entries: LogSlice) -> None:
        raft = self.raft
        prev_log_index = entries.first_index - 1
        prev_log_term = raft.log.term(prev_log_index) if prev_log_index else 0
        assert prev_log_term is not None, (prev_log_index, raft.log.base_index)
        progress.sent(entries.last_index, raft.log.weight(entries) if entries else 0)
        message = AppendEntries(raft.term, prev_log_index, prev_log_term, raft.commit_index, self.reads.round, entries)
        raft.send(server_id, message)

    HANDLERS = {
        PreVote: on_pre_vote,
        PreVoteResponse: Role.ignore,
        RequestVote: Role.on_request_vote,
        RequestVoteResponse: Role.ignore,
        AppendEntries: on_append_entries,
        AppendEntriesResponse: on_append_entries_response,
        TimeoutNow: Role.ignore,
    }
