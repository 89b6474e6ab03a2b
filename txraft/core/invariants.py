"""
The paper's Figure 3 as code, and what each server must hold by itself. Run by the simulation after every event. What
the servers say is checked by `words`.

A violation raises `InvariantBroken`, with the numbers. The checks are incremental: their cost follows what has changed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping

from txraft.core.candidate import Candidate, PreCandidate
from txraft.core.errors import InvariantBroken
from txraft.core.follower import Follower
from txraft.core.leader import Leader
from txraft.core.log import ENTRY_OVERHEAD_BYTES, EntryKind, Log
from txraft.core.membership import Membership
from txraft.core.membership_rules import Configurations, broken_by, broken_by_leader, new_voters, no_configurations
from txraft.core.progress import Progress, ReplicationState
from txraft.core.quorum import VoteResult, committed_index, vote_result
from txraft.core.raft import Raft


def require(holds: bool, what: str, *facts: object) -> None:
    """:raises InvariantBroken: it does not hold."""
    if not holds:
        raise InvariantBroken(f"{what}: {facts}")


def check_server(raft: Raft) -> None:
    """What one server must hold at any time, whatever the others do."""
    log, name = raft.log, raft.server_id
    require(log.base_index <= raft.applied_index, "what is forgotten is applied", name, log.base_index)
    require(raft.applied_index <= raft.commit_index <= log.last_index, "applied <= commit <= last", name)
    require(log.durable_index <= log.written_index <= log.last_index, "durable <= written <= last", name)
    require(raft.applied_index <= log.durable_index, "applied is durable", name, raft.applied_index, log.durable_index)
    require(log.last_term <= raft.term, "no entry is of a later term", name, log.last_term, raft.term)
    if isinstance(raft.role, Follower | PreCandidate | Candidate):
        waited, timeout = raft.role.elapsed_ticks, raft.role.timeout_ticks
        longest = raft.settings.max_election_ticks
        is_timely = waited <= timeout <= longest
        require(is_timely, "nobody waits longer than its timeout", name, raft.role.name, waited, timeout, longest)
        # Else a disk that is slower than a timeout would be given one term after the other, for ever.
        waits_for_its_disk = isinstance(raft.role, Candidate) and name not in raft.role.votes
        require(not (waits_for_its_disk and waited), "a candidate's time begins with its own vote", name, waited)
    if isinstance(raft.role, Leader):
        settings = raft.settings
        for server_id, progress in raft.role.progress.items():
            require(progress.match_index < progress.next_index, "match < next", name, server_id)
            is_waiting = progress.state is ReplicationState.SNAPSHOT
            is_right = not is_waiting or progress.next_index <= log.base_index
            require(is_right, "a snapshot in place of what is in the log", name, server_id, progress.next_index)
            require(progress.match_index <= log.last_index, "match <= last", name, server_id)
            # A message goes out as long as there is any room for it.
            in_flight_bytes = progress.in_flight_bytes - settings.max_inflight_bytes
            # An entry that is longer than a message should be goes alone.
            is_bounded = in_flight_bytes < settings.max_append_bytes or in_flight_bytes < _longest_configuration(raft)
            # How long the memberships were that are forgotten, nobody knows any more.
            is_bounded |= progress.match_index < log.base_index
            require(is_bounded, "in flight is bounded", name, server_id, progress.in_flight_bytes)
        uncommitted_bytes = raft.role.uncommitted_bytes
        # Room may be reserved for more than is in the log yet; a new leader does not know what is committed.
        in_log_bytes = log.bytes_between(raft.commit_index + 1, log.last_index + 1)
        require(in_log_bytes <= uncommitted_bytes, "uncommitted bytes are counted", name, uncommitted_bytes)
        is_bounded = uncommitted_bytes <= settings.max_uncommitted_bytes or log.term(raft.commit_index) != raft.term
        # No room is reserved for a change of the membership, of which there are two entries in a row at most.
        if not is_bounded:
            is_bounded = uncommitted_bytes <= settings.max_uncommitted_bytes + 2 * _longest_configuration(raft)
        require(is_bounded, "uncommitted bytes are bounded", name, uncommitted_bytes)


def _longest_configuration(raft: Raft) -> int:
    """What the longest entry that holds a membership weighs."""
    memberships = raft.memberships.since(raft.log.base_index)
    return max(ENTRY_OVERHEAD_BYTES + len(membership.encode()) for membership in memberships)


class _Seen:
    """
    What was checked of one server; `terms[i]` is its log's term at index i, `in_force` what it was found to go by.
    """

    def __init__(self) -> None:
        self.terms: list[int] = [0]
        self.configurations = no_configurations()
        self.in_force: tuple[tuple[int, Membership], Membership] | None = None
        self.term = 0
        self.commit_index = 0
        self.votes: dict[int, str] = {}
        self.raft: Raft | None = None
        self.role: object = None
        self.durable_term = 0
        self.lost_in_term = -1
        self.wiped_at: int | None = None
        self.matches: dict[str, tuple[Progress, int]] = {}
        self.judged: tuple[int, Membership] | None = None


class ClusterInvariants:
    """
    Remembers a whole run. Give it every server after each event; a crashed one as the object it was.

    Checks Election Safety, Leader Append-Only, Log Matching, Leader Completeness, State Machine Safety (of what is
    committed), one vote a term across restarts, that nothing goes back, that what is committed is durable on a quorum
    and cannot be lost by an election, that every term has a candidate, that no leader believes a server to hold more
    than it does, and that every server goes by the newest membership of its log, which changes as it must.
    """

    def __init__(self) -> None:
        self._leaders: dict[int, str] = {}
        self._entries: dict[tuple[int, int], tuple[int, int, bytes]] = {}
        self._committed: list[int] = [0]
        self._commit_terms: dict[int, int] = {}
        """In which term an index was committed, as far as this run has seen it."""
        self._seen: defaultdict[str, _Seen] = defaultdict(_Seen)
        self._term: int | None = None
        self._memberships: dict[tuple[int, int], Membership] = {}
        """By index and term, of every configuration entry that there was."""
        self._configurations = no_configurations()
        """Those that are committed."""

    @property
    def leader_count(self) -> int:
        """How many terms had a leader."""
        return len(self._leaders)

    def possible_memberships(self, rafts: Iterable[Raft]) -> list[Membership]:
        """The newest membership that is committed, and those that may be committed after it."""
        index, committed = self._configurations[-1]
        found = {committed: None}
        for raft in rafts:
            if raft.log.last_index > index and raft.memberships.at(index) == committed:
                found.update(dict.fromkeys(raft.memberships.since(index)))
        return [membership for membership in found if membership.voters]

    def note_loss(self, server_id: str) -> None:
        """
        A server's disk has lost what was durable; a quorum without it has all of that.

        The leaders of this time may believe for the rest of their terms that it has what it had told them.
        """
        seen = self._seen[server_id]
        seen.raft = None
        seen.lost_in_term = max(other.term for other in self._seen.values())

    def note_wipe(self, server_id: str) -> None:
        """The disk of a server is gone: what it comes back with is a new server, of which nothing was promised."""
        self.note_loss(server_id)
        new = _Seen()
        new.lost_in_term = self._seen[server_id].lost_in_term
        new.wiped_at = len(self._committed) - 1
        self._seen[server_id] = new

    @property
    def last_loss_term(self) -> int:
        """The highest term of all servers when the last loss was noted; -1 if there was none."""
        return max((seen.lost_in_term for seen in self._seen.values()), default=-1)

    def check(self, rafts: Mapping[str, Raft], changed: Iterable[str] | None = None) -> None:
        """
        @param changed: the only servers that have done anything since the last check; None: nobody knows.
        :raises InvariantBroken: with the invariant's name and the numbers.
        """
        ids = rafts if changed is None else changed
        changed_rafts = [rafts[server_id] for server_id in ids if server_id in rafts]
        self._check_term(rafts)
        for raft in changed_rafts:
            seen = self._seen[raft.server_id]
            check_server(raft)
            self._check_restart(seen, raft)
            self._check_votes(seen, raft)
            self._check_log(seen, raft)
        for raft in changed_rafts:
            self._check_leader(self._seen[raft.server_id], raft)
            self._check_commit(self._seen[raft.server_id], raft, rafts)
            self._check_new_voters(self._seen[raft.server_id], raft, rafts)
        for raft in rafts.values():
            if isinstance(raft.role, Leader):
                self._check_matches(self._seen[raft.server_id], raft, rafts)

    def _check_term(self, rafts: Mapping[str, Raft]) -> None:
        """A term begins with a candidate: the first server in it has voted for itself."""
        if self._term is None:
            self._term = max((raft.term for raft in rafts.values()), default=0)
        for raft in rafts.values():
            if raft.term > self._term:
                require(raft.voted_for == raft.server_id, "a term that nobody stood for", raft.server_id, raft.term)
                self._term = raft.term

    def _check_restart(self, seen: _Seen, raft: Raft) -> None:
        """
        A term that was durable never goes back, nor does one in memory while the server runs; and the disk holds what
        the memory held of the log, as far as that was durable. What is there is compared anew, entry by entry.
        """
        if seen.raft is not raft:
            if seen.raft is not None:
                self._require_kept(seen.raft.log, raft.log, raft.server_id)
            seen.raft, seen.commit_index, seen.role, seen.term, seen.terms = raft, 0, None, 0, [0]
        require(raft.term >= seen.term, "the term goes back", raft.server_id, raft.term, seen.term)
        durable_term = raft.durable_state.term
        require(durable_term >= seen.durable_term, "the durable term goes back", raft.server_id, durable_term)
        seen.term, seen.durable_term = raft.term, durable_term

    @staticmethod
    def _require_kept(before: Log, after: Log, server_id: str) -> None:
        """What was durable is in the log, or in a snapshot, or a snapshot shows that it was not to stay."""
        index, term, base_index = before.durable_index, before.term(before.durable_index), after.base_index
        is_replaced = base_index > before.base_index and before.term(base_index) != after.base_term
        is_kept = index < base_index or is_replaced or after.term(index) == term
        require(is_kept, "what was durable is lost", server_id, index, term)

    def _check_votes(self, seen: _Seen, raft: Raft) -> None:
        """A vote that was made durable is the only one of its term, and is not forgotten, also after a restart."""
        durable = raft.durable_state
        before = seen.votes.get(durable.term)
        require(before in (None, durable.voted_for), "two votes in one term", raft.server_id, durable, before)
        if durable.voted_for is not None:
            seen.votes[durable.term] = durable.voted_for

    def _check_log(self, seen: _Seen, raft: Raft) -> None:
        log, base_index = raft.log, raft.log.base_index
        if len(seen.terms) <= base_index or seen.terms[base_index] != log.base_term:
            # A snapshot has taken the place of what was there.
            seen.terms = self._committed[: base_index + 1]
            seen.configurations = [known for known in self._configurations if known[0] <= base_index]
            is_committed = len(seen.terms) > base_index and seen.terms[base_index] == log.base_term
            require(is_committed, "State Machine Safety: a snapshot", raft.server_id, base_index, log.base_term)
        index = min(log.last_index, len(seen.terms) - 1)
        while index > base_index and log.term(index) != seen.terms[index]:
            index -= 1
        is_leading = isinstance(raft.role, Leader) and seen.role is raft.role
        require(not is_leading or index == len(seen.terms) - 1, "Leader Append-Only", raft.server_id, index)
        is_cut = base_index <= index == log.last_index < len(seen.terms) - 1
        require(not is_cut, "a log is cut where there is no conflict", raft.server_id, index, len(seen.terms) - 1)
        del seen.terms[index + 1 :]
        while seen.configurations[-1][0] > index:
            seen.configurations.pop()
        for at in range(index + 1, log.last_index + 1):
            term = log.term(at)
            assert term is not None
            entry = (seen.terms[at - 1], int(log.kind(at)), log.command(at))
            require(self._entries.setdefault((at, term), entry) == entry, "Log Matching", raft.server_id, at, term)
            seen.terms.append(term)
            if log.kind(at) is EntryKind.CONFIGURATION:
                self._check_configuration(seen.configurations, raft, at)
        self._check_in_force(seen, raft)

    def _check_configuration(self, configurations: Configurations, raft: Raft, index: int) -> None:
        """An entry that puts a membership in force. What is before it is the same in every log that has it."""
        log, term, (_, before) = raft.log, raft.log.term(index) or 0, configurations[-1]
        broken = None
        if (index, term) not in self._memberships:
            after = self._memberships[index, term] = Membership.decode(log.command(index))
            broken = broken_by(before, after)
        configurations.append((index, self._memberships[index, term]))
        if broken is None and isinstance(raft.role, Leader) and term == raft.term:
            broken = broken_by_leader(log, raft.commit_index, term, configurations)
        require(not broken, broken or "", raft.server_id, index, before, configurations[-1])

    @staticmethod
    def _check_in_force(seen: _Seen, raft: Raft) -> None:
        """A server goes by the newest membership of its log, committed or not. Paper, §6."""
        newest, membership = seen.configurations[-1], raft.membership
        if seen.in_force is None or seen.in_force[0] is not newest or seen.in_force[1] is not membership:
            found = raft.memberships.current_index, membership
            require(found == newest, "goes by another membership than its log's newest", raft.server_id, found, newest)
            seen.in_force = newest, membership

    def _check_leader(self, seen: _Seen, raft: Raft) -> None:
        if not isinstance(raft.role, Leader):
            seen.role = None
            return
        if seen.role is raft.role:
            return
        seen.role, seen.matches = raft.role, {}
        elected = self._leaders.setdefault(raft.term, raft.server_id)
        require(elected == raft.server_id, "Election Safety", raft.term, elected, raft.server_id)
        self._check_elected(raft)
        # Whoever slept with its votes may begin to lead when a later term has committed something. That it may lack.
        indexes = range(len(self._committed))
        count = sum(self._commit_terms.get(index, 0) <= raft.term for index in indexes)
        require(seen.terms[:count] == self._committed[:count], "Leader Completeness", raft.server_id, raft.term)

    def _check_elected(self, raft: Raft) -> None:
        """A quorum has voted for the leader, and has that on disk."""
        votes = {server_id: seen.votes.get(raft.term) == raft.server_id for server_id, seen in self._seen.items()}
        is_elected = vote_result(raft.membership, votes) is VoteResult.WON
        require(is_elected, "Election Safety: a leader that was not elected", raft.server_id, raft.term, votes)

    def _check_commit(self, seen: _Seen, raft: Raft, rafts: Mapping[str, Raft]) -> None:
        require(raft.commit_index >= seen.commit_index, "the commit index goes back", raft.server_id)
        seen.commit_index = raft.commit_index
        for index in range(len(self._committed), raft.commit_index + 1):
            self._committed.append(seen.terms[index])
            self._commit_terms[index] = raft.term
            if raft.log.kind(index) is EntryKind.CONFIGURATION:
                self._configurations.append((index, self._memberships[index, seen.terms[index]]))
            self._check_durable_quorum(raft, index, rafts)
            if index == raft.commit_index:
                self._check_electable(rafts)
        known = self._committed[raft.commit_index]
        require(seen.terms[raft.commit_index] == known, "State Machine Safety", raft.server_id, raft.commit_index)

    def _check_matches(self, seen: _Seen, raft: Raft, rafts: Mapping[str, Raft]) -> None:
        """What a leader believes of the others, who may change without it."""
        for server_id, progress in raft.leader().progress.items():
            held = self._holds(rafts.get(server_id), progress.match_index, seen)
            held = held or self._is_excused(raft, server_id)
            require(held, "match is ahead of the truth", raft.server_id, server_id, progress.match_index)
            # Whoever is replicated to again after a time as a stranger begins anew.
            before, match_index = seen.matches.get(server_id, (progress, 0))
            is_kept = progress is not before or progress.match_index >= match_index
            require(is_kept, "match goes back", raft.server_id, server_id, progress.match_index)
        progresses = raft.leader().progress.items()
        seen.matches = {server_id: (progress, progress.match_index) for server_id, progress in progresses}

    def _is_excused(self, raft: Raft, server_id: str) -> bool:
        """Whether a leader may believe what a server has told it, and has lost. One that is added again is another."""
        if server_id not in self._seen or raft.term > self._seen[server_id].lost_in_term:
            return False
        wiped_at = self._seen[server_id].wiped_at
        is_added = wiped_at is not None and server_id not in raft.memberships.at(wiped_at).members
        return not (is_added and server_id in raft.membership.members)

    def _check_new_voters(self, seen: _Seen, raft: Raft, rafts: Mapping[str, Raft]) -> None:
        """Whoever a leader makes a voter has on disk the entry that asked it in, or had: what is lost since is lost."""
        newest = seen.configurations[-1]
        if not isinstance(raft.role, Leader) or newest is seen.judged or raft.log.term(newest[0]) != raft.term:
            return
        seen.judged = newest
        for server_id, asked_at in new_voters(seen.configurations).items():
            is_lost = server_id in self._seen and raft.term <= self._seen[server_id].lost_in_term
            has_it = server_id in rafts and self._holds(rafts[server_id], asked_at, seen)
            is_right = asked_at > 0 and (has_it or is_lost)
            require(is_right, "a voter that has not caught up", raft.server_id, server_id, newest, asked_at)

    @staticmethod
    def _holds(peer: Raft | None, index: int, leader: _Seen) -> bool:
        """A leader that was deposed without knowing it may believe what has been replaced since."""
        if peer is None or index == 0 or peer.term > leader.term:
            return True
        return peer.log.durable_index >= index and peer.log.matches(index, leader.terms[index])

    def _check_durable_quorum(self, raft: Raft, index: int, rafts: Mapping[str, Raft]) -> None:
        def durable(server_id: str) -> int:
            peer = rafts.get(server_id)
            is_same = peer is not None and peer.log.durable_index >= index
            return index if is_same and peer is not None and peer.log.term(index) == raft.log.term(index) else 0

        # A membership that came later decides on what was there before it, too: it is in force from its append on.
        reached = max(committed_index(membership, durable) for membership in raft.memberships.since(index))
        require(reached >= index, "committed without a durable quorum", raft.server_id, index)

    def _check_electable(self, rafts: Mapping[str, Raft]) -> None:
        """
        Leader Completeness, looked ahead: without what is committed now, no log wins an election any more.

        Source: paper, §5.4.2 and Figure 8.
        """
        index, term = len(self._committed) - 1, self._committed[-1]
        for candidate in rafts.values():
            if candidate.log.term(index) == term:
                continue
            log = (candidate.log.last_term, candidate.log.last_index)
            votes = {voter.server_id: voter is candidate or log >= _durable_end(voter) for voter in rafts.values()}
            is_harmless = vote_result(candidate.membership, votes) is not VoteResult.WON
            require(is_harmless, "Leader Completeness: could be elected without", candidate.server_id, index, term)


def _durable_end(raft: Raft) -> tuple[int, int]:
    """Term and index of the last entry that a crash leaves."""
    index = raft.log.durable_index
    return raft.log.term(index) or 0, index
