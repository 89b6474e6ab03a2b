"""
What all roles share: the one term gate, votes, the log's edges, and `ready`, which says what to do next.

Inputs (`tick`, `step`, `propose`, `request_read`, `persisted`) change memory only. `ready` is asked once for many of
them and answers with one batch of work. Nothing leaves before the term and vote that it depends on are durable: every
message goes through `send`, and waits there until they are.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace

from txraft.core import voting
from txraft.core.candidate import Candidate, PreCandidate
from txraft.core.errors import InvariantBroken, NotLeading
from txraft.core.follower import Follower
from txraft.core.leader import Leader
from txraft.core.log import EntryKind, Log, LogSlice
from txraft.core.membership import Membership, MembershipHistory
from txraft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    HardState,
    Message,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)
from txraft.core.ready import Persist, Ready
from txraft.core.role import Role
from txraft.core.settings import RaftSettings
from txraft.core.snapshot import SnapshotMeta
from txraft.core.snapshots import Snapshots, decode_memberships, history_from


class Raft:
    """
    One server. `log`, `hard_state` and `snapshot` are what its disk holds; the state machine has what the snapshot has.

    The log may begin before the snapshot's last entry, and never behind it.

    `time_ms` is the owner's wall clock, set by it before a turn's inputs; entries are stamped with it.
    """

    holds_entries = False
    """The owner has no room for more: unless this server leads, it writes no entries, and acknowledges none."""

    def __init__(
        self,
        server_id: str,
        settings: RaftSettings,
        rng: random.Random,
        hard_state: HardState,
        log: Log,
        snapshot: SnapshotMeta | None = None,
    ) -> None:
        if hard_state.term < log.last_term:
            raise InvariantBroken(f"the log has term {log.last_term}, the stored term is {hard_state.term}")
        self.server_id = server_id
        self.incarnation = 0
        """The number of this server's data directory, set by the owner; 0 if identities are not looked at."""
        self.is_founder = True
        """Is one of those who make the first entry of the log by themselves; set likewise."""
        self.is_restored = True
        """The owner's machine has what was applied; else this server could lead, and answer nobody. Set likewise."""
        self.incarnations: dict[str, int] = {}
        """Of the servers with which hands were shaken, and of this one."""
        self.settings = settings
        self.rng = rng
        self.log = log
        self.term = hard_state.term
        self.voted_for = hard_state.voted_for
        self.commit_index = self.applied_index = snapshot.last_index if snapshot is not None else 0
        assert log.base_index <= self.commit_index <= log.last_index, (log.base_index, snapshot, log.last_index)
        self.time_ms = 0
        self.memberships = MembershipHistory()
        if snapshot is not None and snapshot.membership_index <= log.base_index:
            self.memberships = history_from(snapshot)
        self._note_memberships(log.base_index + 1)
        self.durable_state = HardState(hard_state.term, hard_state.voted_for)
        """Term and vote as they are on disk."""
        self.write_age_ticks: int | None = None
        """Ticks since the outstanding write was handed out; None if there is none."""
        self.has_news = True
        """A `ready` would answer with something that the last one did not. The owner clears it with each `ready`."""
        self.pre_vote_round = 0
        self.last_election: PreCandidate | Candidate | None = None
        """What came of the last one before this, since a leader was known. Decides nothing."""
        self.confirmed_reads: list[tuple[int, int]] = []
        self.dropped_reads: list[int] = []
        self._outbox: list[tuple[str, Message]] = []
        self._waiting: dict[tuple[str, type[Message]], Message] = {}
        """By receiver and class: only the latest counts, so that a stalled disk does not gather them without end."""
        self._outstanding: Persist | None = None
        self.snapshots = Snapshots(self)
        self.role: Role = Follower(self, None)

    # -- what others ask of it

    @property
    def leader_id(self) -> str | None:
        """The leader of the current term, as far as this server knows."""
        return self.role.leader_id

    @property
    def membership(self) -> Membership:
        return self.memberships.current

    @property
    def hard_state(self) -> HardState:
        return HardState(self.term, self.voted_for)

    @property
    def is_disowned(self) -> bool:
        """The member of this name is another data directory: what that has promised, this server knows nothing of."""
        pinned = self.membership.incarnation(self.server_id)
        return bool(pinned and self.incarnation) and pinned != self.incarnation

    @property
    def may_campaign(self) -> bool:
        """
        A voter may; and one that was until a membership that may yet not be committed: nobody else may have that entry,
        and could be elected with it. Its own vote does not count then. Thesis §4.2.2.
        """
        memberships = self.memberships
        index = memberships.current_index
        return self.is_restored and (
            self._is_this_voter_of(self.membership)
            or (self.commit_index < index and self._is_this_voter_of(memberships.at(index - 1)))
        )

    def _is_this_voter_of(self, membership: Membership) -> bool:
        """
        Whether the log says that this data directory is a voter.

        A server that catches up reads memberships of long ago on its way, in which another one may have had its name.
        Only a founder may go without: at first the members are known by name alone.
        """
        if not membership.is_voter(self.server_id):
            return False
        pinned = membership.incarnation(self.server_id)
        return pinned == self.incarnation or (not pinned and self.is_founder)

    def leader(self) -> Leader:
        """
        The leader's state.

        :raises NotLeading: this server is not the leader.
        """
        role = self.role
        if not isinstance(role, Leader):
            raise NotLeading
        return role

    # -- inputs

    def bootstrap(self, membership: Membership) -> None:
        """Write the first entry of a new cluster: the same on every server of `membership`."""
        assert self.log.last_index == 0 and self.term <= 1, (self.log.last_index, self.term)
        self.term = 1
        self.append(EntryKind.CONFIGURATION, [membership.encode()], term=1, time_ms=0)

    def introduce(self, incarnations: Mapping[str, int]) -> None:
        """
        These are the numbers of the others' data directories, as far as they are known now; nothing else counts.

        A leader writes them into the log at once, so that nothing is committed by a server that nobody could tell from
        another one in its place.
        """
        self.incarnations = {**incarnations, self.server_id: self.incarnation}
        if isinstance(self.role, Leader):
            self.role.reconfiguration.identify()

    def tick(self) -> None:
        """One tick has passed; a long pause is one tick, too."""
        if self.write_age_ticks is not None:
            self.write_age_ticks += 1
        self.role.tick()

    def step(self, sender: str, message: Message) -> None:
        """
        Take a message that `sender` sent, whatever role it was meant for. The one term gate.

        :raises InvalidMessage: no correct server sends that; nothing has changed.
        """
        if message.term > self.term:
            if self._may_raise_term(message):
                self.become_follower(message.term, None)
        elif message.term < self.term and self._is_outdated(sender, message):
            return
        if message.term == self.term or isinstance(message, PreVote | PreVoteResponse):
            self.role.HANDLERS[type(message)](self.role, sender, message)

    def _may_raise_term(self, message: Message) -> bool:
        """A pre-vote raises no term, nor does a candidate while a leader is alive that did not tell it to. §4.2.3."""
        if isinstance(message, RequestVote):
            return message.told_by_leader or not self.hears_leader()
        return not isinstance(message, PreVote) and not (isinstance(message, PreVoteResponse) and message.granted)

    def _is_outdated(self, sender: str, message: Message) -> bool:
        """Deal with a message of an earlier term; False if the role must see it all the same."""
        if isinstance(message, AppendEntries):
            # Without this answer a deposed leader, and a cluster of lower term, would never learn of ours.
            self.send(sender, AppendEntriesResponse(self.term, 0, 0))
        elif isinstance(message, RequestVote) and sender != self.voted_for:
            # Whoever has our vote is in this term, and would take the answer to its old request for one to its new.
            self.send(sender, RequestVoteResponse(self.term, granted=False))
        return not isinstance(message, PreVote | PreVoteResponse)

    def request_read(self, read_id: int) -> None:
        """
        Have the leadership confirmed; `read_id` comes back in `Ready.reads` or `Ready.dropped_reads`.

        :raises NotLeading: this server is not the leader.
        """
        self.leader().reads.request(read_id)
        self.has_news = True

    def persisted(self) -> None:
        """The write that the last `Ready.persist` asked for is durable."""
        write = self._outstanding
        assert write is not None
        self._outstanding = self.write_age_ticks = None
        if write.hard_state is not None:
            self.durable_state = write.hard_state
        self.log.made_durable(write.last_index, write.last_term)
        self._release_waiting()
        self.role.durable_advanced()

    def applied(self, index: int) -> None:
        """The state machine has been given everything up to `index`."""
        assert self.applied_index <= index <= self.commit_index, (self.applied_index, index, self.commit_index)
        self.applied_index = index

    def ready(self) -> Ready:
        """What is to be done now. Each message and each read is handed out once."""
        role = self.role
        role.prepare()
        # A leader that resigns there is news to be looked at once more.
        self.has_news = self.role is not role
        messages, self._outbox = self._outbox, []
        reads, self.confirmed_reads = self.confirmed_reads, []
        dropped_reads, self.dropped_reads = self.dropped_reads, []
        apply_index = min(self.commit_index, self.log.durable_index)
        snapshots = self.role.sending.wanted() if isinstance(self.role, Leader) else ()
        return Ready(messages, self._next_write(), apply_index, reads, dropped_reads, snapshots)

    # -- for the roles

    def send(self, receiver: str, message: Message) -> None:
        """Send as soon as the current term and vote are durable."""
        self.has_news = True
        if self.durable_state == self.hard_state or isinstance(message, PreVote | PreVoteResponse):
            self._outbox.append((receiver, message))
        else:
            self._waiting[receiver, type(message)] = message

    def append(
        self, kind: EntryKind, commands: Sequence[bytes], term: int | None = None, time_ms: int | None = None
    ) -> int:
        """Append to the own log; answer the first new index. A configuration is in force from here on."""
        first_index = self.log.append(
            self.term if term is None else term, kind, self.time_ms if time_ms is None else time_ms, commands
        )
        if kind is EntryKind.CONFIGURATION:
            self._note_memberships(first_index)
            if isinstance(self.role, Leader):
                self.role.membership_changed()
        self.has_news = True
        return first_index

    def merge(self, entries: LogSlice) -> bool:
        """Make the log hold `entries`, memberships with it; False if it did already. See `Log.merge`."""
        for run in entries.runs:
            if run.kind is EntryKind.CONFIGURATION:
                decode_memberships(run.commands)
        changed = self.log.merge(entries, self.commit_index)
        if changed is None:
            return False
        self.memberships.truncate(changed - 1)
        self._note_memberships(changed)
        return True

    def _note_memberships(self, first_index: int) -> None:
        if first_index > self.log.last_index:
            return
        for run in self.log.runs(first_index, self.log.last_index + 1):
            if run.kind is EntryKind.CONFIGURATION:
                for offset, membership in enumerate(decode_memberships(run.commands)):
                    self.memberships.append(run.first_index + offset, membership)

    def commit_to(self, index: int) -> None:
        """Raise the commit index to `index`, if that is news."""
        if index > self.commit_index:
            if index > self.log.last_index:
                raise InvariantBroken(f"commit index {index} is behind the log's end {self.log.last_index}")
            self.commit_index = index
            self.has_news = True

    def election_timeout(self) -> int:
        """A new random timeout, in ticks. A server on its own has nobody to wait for."""
        if self.membership.members == (self.server_id,):
            return 1
        return self.rng.randint(self.settings.min_election_ticks, self.settings.max_election_ticks)

    def hears_leader(self) -> bool:
        """True while a leader of this term is alive, as far as this server can tell."""
        role = self.role
        if isinstance(role, Follower):
            return role.leader_id is not None and role.elapsed_ticks < self.settings.min_election_ticks
        return isinstance(role, Leader)

    def is_up_to_date(self, last_log_index: int, last_log_term: int) -> bool:
        """Paper §5.4.1: the candidate's log is at least as far as ours, term first."""
        return (last_log_term, last_log_index) >= (self.log.last_term, self.log.last_index)

    def answer_pre_vote(self, sender: str, message: PreVote) -> None:
        """Grant if we would vote for it in that term, had it begun. Changes nothing here."""
        refusal = voting.pre_vote_refusal(self, message)
        granted = message.term > self.term and refusal is None
        # The refusal carries our term: a server that is behind must learn of it, or it could never win.
        self.send(sender, PreVoteResponse(message.term if granted else self.term, message.round, granted, refusal))

    def answer_request_vote(self, sender: str, message: RequestVote) -> None:
        """One vote a term, to a log that is up to date; the same candidate may ask again."""
        refusal = voting.vote_refusal(self, sender, message)
        if refusal is None:
            self.voted_for = sender
            if isinstance(self.role, Follower):
                self.role.restart_timer()
        self.send(sender, RequestVoteResponse(self.term, refusal is None, refusal))

    # -- transitions

    def become_follower(self, term: int, leader_id: str | None) -> None:
        """Follow `leader_id` (None: not known yet) in `term`. A new term has no vote and no unsent words."""
        assert term >= self.term, (term, self.term)
        if term > self.term:
            self.term, self.voted_for = term, None
            self._waiting.clear()
        self._become(Follower(self, leader_id))

    def become_pre_candidate(self) -> None:
        self.pre_vote_round += 1
        if self.leader_id is not None:
            self.last_election = None
        self._become(PreCandidate(self))

    def become_candidate(self, told_by_leader: bool = False) -> None:
        self.term, self.voted_for = self.term + 1, self.server_id
        self._waiting.clear()
        self._become(Candidate(self, told_by_leader))

    def become_leader(self) -> None:
        self._become(Leader(self))

    def _become(self, role: Role) -> None:
        if isinstance(self.role, Leader):
            self.dropped_reads += self.role.reads.drop()
        if isinstance(self.role, PreCandidate | Candidate):
            self.last_election = self.role
        self.role = role
        self.has_news = True
        if isinstance(role, PreCandidate | Candidate | Leader):
            role.begin()

    def void_write(self) -> None:
        """The log that is being written is no longer this one, so that it becomes durable says nothing."""
        if self._outstanding is not None:
            self._outstanding = replace(self._outstanding, last_index=0, last_term=-1)

    # -- inside

    def _release_waiting(self) -> None:
        if self.durable_state != self.hard_state:
            return
        released, self._waiting = self._waiting, {}
        for (receiver, _), message in released.items():
            if receiver == self.server_id:
                self.step(receiver, message)
            else:
                self._outbox.append((receiver, message))

    def _next_write(self) -> Persist | None:
        if self._outstanding is not None:
            return None
        hard_state = self.hard_state if self.hard_state != self.durable_state else None
        # A candidate may lose, again and again, and each time would write what has come since the last time.
        is_held = self.holds_entries and not isinstance(self.role, Leader)
        runs = [] if is_held else self.log.take_unwritten()
        if hard_state is None and not runs:
            return None
        self._outstanding = Persist(hard_state, runs, self.log.last_index, self.log.last_term, self.commit_index)
        if is_held:
            self.void_write()
        self.write_age_ticks = 0
        return self._outstanding
