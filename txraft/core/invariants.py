"""
The paper's Figure 3 as code, and what each server must hold by itself. Run by the simulation after every event.

A violation raises `InvariantBroken`, with the numbers. The checks are incremental: their cost follows what has changed.
"""

from __future__ import annotations

from collections.abc import Mapping

from txraft.core.errors import InvariantBroken
from txraft.core.leader import Leader
from txraft.core.log import EntryKind
from txraft.core.membership import Membership
from txraft.core.messages import (
    AppendEntriesResponse,
    Message,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
)
from txraft.core.quorum import committed_index
from txraft.core.raft import Raft


def require(holds: bool, what: str, *facts: object) -> None:
    """:raises InvariantBroken: it does not hold."""
    if not holds:
        raise InvariantBroken(f"{what}: {facts}")


def check_server(raft: Raft) -> None:
    """What one server must hold at any time, whatever the others do."""
    log, name = raft.log, raft.server_id
    require(raft.applied_index <= raft.commit_index <= log.last_index, "applied <= commit <= last", name)
    require(log.durable_index <= log.written_index <= log.last_index, "durable <= written <= last", name)
    require(raft.applied_index <= log.durable_index, "applied is durable", name, raft.applied_index, log.durable_index)
    require(log.last_term <= raft.term, "no entry is of a later term", name, log.last_term, raft.term)
    if isinstance(raft.role, Leader):
        settings = raft.settings
        for server_id, progress in raft.role.progress.items():
            require(progress.match_index < progress.next_index, "match < next", name, server_id)
            require(progress.match_index <= log.last_index, "match <= last", name, server_id)
            # A message goes out as long as there is any room for it.
            limit = settings.max_inflight_bytes + settings.max_append_bytes
            require(progress.in_flight_bytes < limit, "in flight is bounded", name, server_id, progress.in_flight_bytes)
        uncommitted_bytes = raft.role.uncommitted_bytes
        # Room may be reserved for more than is in the log yet; a new leader does not know what is committed.
        in_log_bytes = log.bytes_between(raft.commit_index + 1, log.last_index + 1)
        require(in_log_bytes <= uncommitted_bytes, "uncommitted bytes are counted", name, uncommitted_bytes)
        is_bounded = uncommitted_bytes <= settings.max_uncommitted_bytes or log.term(raft.commit_index) != raft.term
        require(is_bounded, "uncommitted bytes are bounded", name, uncommitted_bytes)


def check_sent(raft: Raft, receiver: str, message: Message) -> None:
    """Nothing that a server says depends on what its disk does not have."""
    durable, facts = raft.durable_state, (raft.server_id, message)
    if isinstance(message, PreVote | PreVoteResponse):
        return
    require(message.term <= durable.term, "a term that is not durable is told", *facts)
    if isinstance(message, RequestVoteResponse) and message.granted:
        require(durable.voted_for == receiver, "a vote that is not durable is given", *facts)
    if isinstance(message, RequestVote):
        require(durable.voted_for == raft.server_id, "a candidate asks before its own vote is durable", *facts)
    if isinstance(message, AppendEntriesResponse):
        require(message.match_index <= raft.log.durable_index, "what is not durable is acknowledged", *facts)


def _always_meet(one: Membership, other: Membership) -> bool:
    """Whether any two quorums, one of each, have a server in common. Where nobody votes, nobody decides."""
    pairs = [(half, other_half) for half in one.halves for other_half in other.halves]
    return not one.voters or any(len(a) // 2 + len(b) // 2 + 2 > len({*a, *b}) for a, b in pairs)


class _Seen:
    """What was checked of one server; `terms[i]` is its log's term at index i."""

    def __init__(self) -> None:
        self.terms: list[int] = [0]
        self.term = 0
        self.commit_index = 0
        self.votes: dict[int, str] = {}
        self.raft: Raft | None = None
        self.role: object = None
        self.durable_term = 0
        self.lost_in_term = -1


class ClusterInvariants:
    """
    Remembers a whole run. Give it every server after each event; a crashed one as the object it was.

    Checks Election Safety, Leader Append-Only, Log Matching, Leader Completeness, State Machine Safety (of what is
    committed), one vote a term across restarts, that nothing goes back, that what is committed is durable on a quorum,
    and that no leader believes a server to hold more than it does.
    """

    def __init__(self) -> None:
        self._leaders: dict[int, str] = {}
        self._entries: dict[tuple[int, int], tuple[int, int, bytes]] = {}
        self._committed: list[int] = [0]
        self._seen: dict[str, _Seen] = {}

    @property
    def leader_count(self) -> int:
        """How many terms had a leader."""
        return len(self._leaders)

    def note_loss(self, server_id: str) -> None:
        """
        A server's disk has lost what was durable; a quorum without it has all of that.

        The leaders of this time may believe for the rest of their terms that it has what it had told them.
        """
        seen = self._seen[server_id]
        seen.raft = None
        seen.lost_in_term = max(other.term for other in self._seen.values())

    def check(self, rafts: Mapping[str, Raft]) -> None:
        """:raises InvariantBroken: with the invariant's name and the numbers."""
        for server_id, raft in rafts.items():
            seen = self._seen.setdefault(server_id, _Seen())
            check_server(raft)
            self._check_restart(seen, raft)
            self._check_votes(seen, raft)
            self._check_log(seen, raft)
        for raft in rafts.values():
            self._check_leader(self._seen[raft.server_id], raft)
            self._check_commit(self._seen[raft.server_id], raft, rafts)

    def _check_restart(self, seen: _Seen, raft: Raft) -> None:
        """
        A term that was durable never goes back, nor does one in memory while the server runs; and the disk holds what
        the memory held of the log, as far as that was durable. What is there is compared anew, entry by entry.
        """
        if seen.raft is not raft:
            if seen.raft is not None:
                index, term = seen.raft.log.durable_index, seen.raft.log.term(seen.raft.log.durable_index)
                require(raft.log.term(index) == term, "what was durable is lost", raft.server_id, index, term)
            seen.raft, seen.commit_index, seen.role, seen.term, seen.terms = raft, 0, None, 0, [0]
        require(raft.term >= seen.term, "the term goes back", raft.server_id, raft.term, seen.term)
        durable_term = raft.durable_state.term
        require(durable_term >= seen.durable_term, "the durable term goes back", raft.server_id, durable_term)
        seen.term, seen.durable_term = raft.term, durable_term

    def _check_votes(self, seen: _Seen, raft: Raft) -> None:
        """A vote that was made durable is the only one of its term, also after a restart."""
        durable = raft.durable_state
        if durable.voted_for is not None:
            before = seen.votes.setdefault(durable.term, durable.voted_for)
            require(before == durable.voted_for, "two votes in one term", raft.server_id, durable, before)

    def _check_log(self, seen: _Seen, raft: Raft) -> None:
        log = raft.log
        index = min(log.last_index, len(seen.terms) - 1)
        while index and log.term(index) != seen.terms[index]:
            index -= 1
        is_leading = isinstance(raft.role, Leader) and seen.role is raft.role
        require(not is_leading or index == len(seen.terms) - 1, "Leader Append-Only", raft.server_id, index)
        del seen.terms[index + 1 :]
        for at in range(index + 1, log.last_index + 1):
            term = log.term(at)
            assert term is not None
            entry = (seen.terms[at - 1], int(log.kind(at)), log.command(at))
            require(self._entries.setdefault((at, term), entry) == entry, "Log Matching", raft.server_id, at, term)
            seen.terms.append(term)
            if log.kind(at) is EntryKind.CONFIGURATION:
                before, after = raft.memberships.at(at - 1), raft.memberships.at(at)
                require(_always_meet(before, after), "two memberships decide apart", raft.server_id, at, before, after)

    def _check_leader(self, seen: _Seen, raft: Raft) -> None:
        if not isinstance(raft.role, Leader):
            seen.role = None
            return
        if seen.role is raft.role:
            return
        seen.role = raft.role
        elected = self._leaders.setdefault(raft.term, raft.server_id)
        require(elected == raft.server_id, "Election Safety", raft.term, elected, raft.server_id)
        count = len(self._committed)
        require(seen.terms[:count] == self._committed, "Leader Completeness", raft.server_id, raft.term)

    def _check_commit(self, seen: _Seen, raft: Raft, rafts: Mapping[str, Raft]) -> None:
        require(raft.commit_index >= seen.commit_index, "the commit index goes back", raft.server_id)
        seen.commit_index = raft.commit_index
        for index in range(len(self._committed), raft.commit_index + 1):
            self._committed.append(seen.terms[index])
            self._check_durable_quorum(raft, index, rafts)
        known = self._committed[raft.commit_index]
        require(seen.terms[raft.commit_index] == known, "State Machine Safety", raft.server_id, raft.commit_index)
        if isinstance(raft.role, Leader):
            for server_id, progress in raft.role.progress.items():
                held = self._holds(rafts.get(server_id), progress.match_index, seen)
                is_lost = raft.term <= self._seen[server_id].lost_in_term if server_id in self._seen else False
                require(held or is_lost, "match is ahead of the truth", raft.server_id, server_id, progress.match_index)

    @staticmethod
    def _holds(peer: Raft | None, index: int, leader: _Seen) -> bool:
        """A leader that was deposed without knowing it may believe what has been replaced since."""
        if peer is None or index == 0 or peer.term > leader.term:
            return True
        return peer.log.durable_index >= index and peer.log.term(index) == leader.terms[index]

    def _check_durable_quorum(self, raft: Raft, index: int, rafts: Mapping[str, Raft]) -> None:
        def durable(server_id: str) -> int:
            peer = rafts.get(server_id)
            is_same = peer is not None and peer.log.durable_index >= index
            return index if is_same and peer is not None and peer.log.term(index) == raft.log.term(index) else 0

        reached = committed_index(raft.memberships.at(index), durable)
        require(reached >= index, "committed without a durable quorum", raft.server_id, index)
