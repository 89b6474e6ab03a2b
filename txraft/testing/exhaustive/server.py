"""One server and its disk as a number, and what each input makes of it: worked out by the real core, once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache
from typing import NamedTuple

from txraft.core.follower import Follower
from txraft.core.leader import Leader
from txraft.core.log import EntryRun
from txraft.core.messages import HardState, Message, PreVoteResponse, RequestVoteResponse
from txraft.core.raft import Raft
from txraft.core.ready import Persist, Ready
from txraft.core.settings import RaftSettings
from txraft.core.words import check_sent
from txraft.interfaces import Identity, Recovered
from txraft.node.restart import raft_from_disk
from txraft.node.settings import NodeSettings
from txraft.testing.exhaustive.bounds import Bounds
from txraft.testing.exhaustive.rules import StepInvariants, check_disk
from txraft.testing.exhaustive.values import TIMEOUTS, Table, freeze, rename, thaw

SETTINGS = RaftSettings(
    min_election_ticks=10,
    max_election_ticks=20,
    heartbeat_ticks=5,
    vote_retry_ticks=4,
    append_retry_ticks=4,
    max_append_bytes=9,
    max_inflight_bytes=10,
    max_uncommitted_bytes=1000,
    catch_up_rounds=3,
)
"""One entry a message, so that a loss can fall between any two; two of them on the way before an answer."""


class Kind(Enum):
    """What can happen to one server; the value is how a path calls it."""

    TIMEOUT = "election timeout"
    SILENCE = "has not heard its leader for the shortest election timeout"
    HEARTBEAT = "heartbeat is due"
    RETRY = "retry is due"
    WRITTEN = "write is durable"
    CRASH = "crashes and restarts"
    PROPOSE = "client proposes"
    READ = "client reads"
    DELIVER = "receives"
    DUPLICATE = "receives, as a duplicate stays under way:"


class Input(NamedTuple):
    """
    `argument`: DELIVER and DUPLICATE: the message's number. CRASH: how many parts of the outstanding write were
    durable. PROPOSE: the command's number. READ: the last index that anybody had committed when it was asked.
    """

    kind: Kind
    argument: int = 0


@dataclass(slots=True)
class Place:
    """A server's disk, `runs` one entry each, and the process on it, which is `raft`."""

    raft: Raft
    hard_state: HardState
    runs: list[EntryRun]


class Outcome(NamedTuple):
    """The server's next number, the numbers of what it sent, and (asked, answered) for each read it confirmed."""

    server: int
    messages: tuple[int, ...]
    reads: tuple[tuple[int, int], ...]


class Facts(NamedTuple):
    """What the search must know of a server without looking inside."""

    shape: int
    """Equal for two servers that differ in their names only."""
    term: int
    durable_term: int
    commit_index: int
    leads: bool
    own_inputs: tuple[Input, ...]
    """What can happen to it by itself."""
    crashes: tuple[Input, ...]


class Servers:
    """Every state of one server that was met. Messages have numbers in the same table, as (sender, receiver, it)."""

    def __init__(self, bounds: Bounds, table: Table) -> None:
        self.bounds = bounds
        self.table = table
        self.core_steps = 0
        """How often the core was asked."""
        self._outcomes: dict[tuple[int, Input], Outcome] = {}
        self._facts: dict[int, Facts] = {}
        self.raft: Callable[[int], Raft] = lru_cache(maxsize=20_000)(self._raft)
        """The server with this number, to look at only."""

    def start(self, place: int) -> int:
        """The server at `place` as the search begins, its first write done."""
        hard_state, runs = self.bounds.disk(place)
        raft = self._restarted(self.bounds.server_ids[place], hard_state, runs)
        raft.ready()
        return self.number(Place(raft, hard_state, runs))

    def facts(self, server: int) -> Facts:
        return self._facts.get(server) or self._facts.setdefault(server, self._look(server))

    def take(self, server: int, event: Input) -> Outcome:
        """What becomes of `server`. Whatever the core raises comes out of here; so do the rules for one server."""
        key = (server, event)
        outcome = self._outcomes.get(key)
        if outcome is None:
            outcome = self._outcomes[key] = self._take(server, event)
        return outcome

    def _take(self, server: int, event: Input) -> Outcome:
        self.core_steps += 1
        place = self.place(server)
        ready = self.act(place, event)
        raft = place.raft
        StepInvariants().check_change(self.raft(server), raft, event.kind is Kind.CRASH)
        check_disk(raft, place.hard_state, place.runs)
        for receiver, message in ready.messages:
            check_sent(raft, receiver, message)
        sent = [(raft.server_id, receiver, freeze(message)) for receiver, message in ready.messages]
        return Outcome(self.number(place), tuple(map(self.table.number, sent)), tuple(ready.reads))

    def act(self, place: Place, event: Input) -> Ready:
        """Let `event` happen to `place` itself, and flush once."""
        _INPUTS[event.kind](self, place, event.argument)
        ready = place.raft.ready()
        if ready.apply_index > place.raft.applied_index:
            place.raft.applied(ready.apply_index)
        _forget_time(place.raft)
        _forget_reasons(place.raft, [message for _, message in ready.messages])
        return ready

    def number(self, place: Place) -> int:
        return self.table.number((freeze(place.raft), freeze(place.hard_state), *map(freeze, place.runs)))

    def place(self, server: int) -> Place:
        """The server with this number, to be changed at will."""
        raft, hard_state, *runs = self.table[server]
        return Place(thaw(raft), thaw(hard_state), list(map(thaw, runs)))

    def _raft(self, server: int) -> Raft:
        raft: Raft = thaw(self.table[server][0])
        return raft

    # -- inputs, one method each

    def _time_out(self, place: Place, _: int) -> None:
        role = place.raft.role
        if isinstance(role, Leader):
            role._check_elapsed_ticks = SETTINGS.max_election_ticks - 1
        else:
            _set_elapsed(place.raft, SETTINGS.max_election_ticks - 1)
        place.raft.tick()

    def _hear_nothing(self, place: Place, _: int) -> None:
        _set_elapsed(place.raft, SETTINGS.min_election_ticks)

    def _heartbeat(self, place: Place, _: int) -> None:
        place.raft.leader()._heartbeat_elapsed_ticks = SETTINGS.heartbeat_ticks - 1
        place.raft.tick()

    def _retry(self, place: Place, _: int) -> None:
        role = place.raft.role
        if isinstance(role, Leader):
            for progress in role.progress.values():
                if progress.probe_age_ticks is not None:
                    progress.probe_age_ticks = SETTINGS.append_retry_ticks - 1
        else:
            _set_elapsed(place.raft, SETTINGS.vote_retry_ticks - 1)
        place.raft.tick()

    def _written(self, place: Place, _: int) -> None:
        _write(place, _parts(place.raft))
        place.raft.persisted()

    def _crash(self, place: Place, kept: int) -> None:
        _write(place, _parts(place.raft)[:kept])
        place.raft = self._restarted(place.raft.server_id, place.hard_state, place.runs)

    def _propose(self, place: Place, number: int) -> None:
        leader, command = place.raft.leader(), b"%d" % number
        leader.reserve(len(command), 1)
        leader.propose([command])

    def _read(self, place: Place, committed_index: int) -> None:
        # What the answer will be held against is the read's id.
        place.raft.request_read(committed_index)

    def _receive(self, place: Place, message: int) -> None:
        sender, _, value = self.table[message]
        place.raft.step(sender, thaw(value))

    def _restarted(self, server_id: str, hard_state: HardState, runs: list[EntryRun]) -> Raft:
        settings = NodeSettings(server_id=server_id, bootstrap=self.bounds.server_ids, cluster_id="searched")
        recovered = Recovered(Identity("searched", server_id, 0), hard_state, runs)
        return raft_from_disk(settings, SETTINGS, TIMEOUTS, recovered)

    # -- looking

    def _look(self, server: int) -> Facts:
        raft, role = self.raft(server), self.raft(server).role
        blind = {name: "self" if name == raft.server_id else "other" for name in self.bounds.server_ids}
        parts = len(_parts(raft))
        return Facts(
            shape=self.table.number(rename(self.table[server], blind)),
            term=raft.term,
            durable_term=raft.durable_state.term,
            commit_index=raft.commit_index,
            leads=isinstance(role, Leader),
            own_inputs=tuple(Input(kind) for kind in _own_inputs(raft, self.bounds)),
            crashes=tuple(Input(Kind.CRASH, kept) for kept in range(parts + 1)),
        )


def _own_inputs(raft: Raft, bounds: Bounds) -> list[Kind]:
    role = raft.role
    kinds = [Kind.WRITTEN] if raft._outstanding is not None else []
    if isinstance(role, Leader):
        kinds += [Kind.TIMEOUT, Kind.HEARTBEAT]
        if any(progress.probe_age_ticks is not None for progress in role.progress.values()):
            kinds.append(Kind.RETRY)
        return kinds
    if raft.term < bounds.last_term and raft.pre_vote_round < bounds.rounds:
        kinds.append(Kind.TIMEOUT)
    if not isinstance(role, Follower):
        kinds.append(Kind.RETRY)
    elif raft.hears_leader():
        kinds.append(Kind.SILENCE)
    return kinds


_INPUTS: dict[Kind, Callable[[Servers, Place, int], None]] = {
    Kind.TIMEOUT: Servers._time_out,
    Kind.SILENCE: Servers._hear_nothing,
    Kind.HEARTBEAT: Servers._heartbeat,
    Kind.RETRY: Servers._retry,
    Kind.WRITTEN: Servers._written,
    Kind.CRASH: Servers._crash,
    Kind.PROPOSE: Servers._propose,
    Kind.READ: Servers._read,
    Kind.DELIVER: Servers._receive,
    Kind.DUPLICATE: Servers._receive,
}


def _parts(raft: Raft) -> list[HardState | EntryRun]:
    """The outstanding write in the order in which it reaches the disk; a crash keeps the first so many."""
    write: Persist | None = raft._outstanding
    if write is None:
        return []
    entries: list[HardState | EntryRun] = [
        EntryRun(index, run.term, run.kind, run.time_ms, [command])
        for run in write.runs
        for index, command in enumerate(run.commands, run.first_index)
    ]
    return entries if write.hard_state is None else [write.hard_state, *entries]


def _write(place: Place, parts: list[HardState | EntryRun]) -> None:
    for part in parts:
        if isinstance(part, HardState):
            place.hard_state = HardState(part.term, part.voted_for)
        else:
            place.runs[part.first_index - 1 :] = [part]


def _set_elapsed(raft: Raft, ticks: int) -> None:
    raft.role.elapsed_ticks = ticks  # type: ignore[attr-defined]


def _forget_time(raft: Raft) -> None:
    """
    Of all clocks only one thing counts: whether a leader was heard of lately. A cached slice is not state.
    """
    role = raft.role
    raft.log._cached_slice = None
    if raft.write_age_ticks is not None:
        raft.write_age_ticks = 0
    if not isinstance(role, Leader):
        is_silent = isinstance(role, Follower) and role.leader_id is not None and not raft.hears_leader()
        _set_elapsed(raft, SETTINGS.min_election_ticks if is_silent else 0)
        return
    role._check_elapsed_ticks = role._heartbeat_elapsed_ticks = 0
    for progress in role.progress.values():
        progress.silent_ticks = progress.stalled_ticks = 0
        if progress.probe_age_ticks is not None:
            progress.probe_age_ticks = 0


def _forget_reasons(raft: Raft, sent: list[Message]) -> None:
    """Why somebody has no vote is only told: what happens is the same, whatever the reason."""
    raft.last_election = None
    raft.role.refusals = {}
    for message in [*sent, *raft._waiting.values()]:
        if isinstance(message, PreVoteResponse | RequestVoteResponse):
            message.refusal = None
