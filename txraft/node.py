"""
RaftNode: one server. Gathers a reactor turn's input, carries out each `Ready`, and owns the waiting Deferreds.

Inputs (proposals, reads, messages, ticks, finished writes) change memory only and arm one flush; the flush sends, begins
the next write, applies and answers. What arrives while a write is outstanding becomes the next batch.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, gatherResults, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.core.errors import InvalidMessage, NotLeading, UncommittedFull
from txraft.core.leader import Leader
from txraft.core.log import EntryKind, EntryRun, Log
from txraft.core.membership import Membership
from txraft.core.messages import Message
from txraft.core.raft import Raft
from txraft.core.ready import Persist
from txraft.core.settings import RaftSettings
from txraft.errors import (
    CommandTooLarge,
    FatalError,
    MachineError,
    NotLeader,
    OutcomeUnknown,
    Overloaded,
    ProtocolError,
    Stopped,
    StorageError,
)
from txraft.interfaces import Addresses, Identity, ILogStore, IStateMachine, ITransport, StorageStatus
from txraft.status import NodeStatus, describe

MAX_APPLY_CHUNK = 4096
"""Commands given to the state machine in one call at most; fewer if it turns out to be slow."""

TICKS_PER_HEARTBEAT = 8


@attrs.frozen(kw_only=True)
class NodeSettings:
    """The keys of raft.conf that a node needs, under their names there: times in ms, sizes in bytes."""

    server_id: str
    bootstrap: tuple[str, ...] = ()
    """All servers of a new cluster, this one among them; empty: passive until added."""
    cluster_id: str = ""
    min_election_timeout: int = 150
    max_election_timeout: int = 300
    heartbeat_rate: int = 80
    election_rpc_timeout: int = 70
    heartbeat_rpc_timeout: int = 70
    max_append_bytes: int = 1 << 20
    max_inflight_bytes: int = 4 << 20
    max_uncommitted_bytes: int = 64 << 20
    max_command_bytes: int = 1 << 20
    max_pending_reads: int = 10_000
    apply_slice_ms: int = 10
    stop_timeout: int = 5000

    @property
    def tick_s(self) -> float:
        """Seconds between ticks: a fixed part of a heartbeat, so that every timing is some ticks long."""
        return self.heartbeat_rate / TICKS_PER_HEARTBEAT / 1000

    def for_core(self) -> RaftSettings:
        def ticks(ms: int) -> int:
            return max(1, round(ms / 1000 / self.tick_s))

        return RaftSettings(
            min_election_ticks=ticks(self.min_election_timeout),
            max_election_ticks=ticks(self.max_election_timeout),
            heartbeat_ticks=TICKS_PER_HEARTBEAT,
            vote_retry_ticks=ticks(self.election_rpc_timeout),
            append_retry_ticks=ticks(self.heartbeat_rpc_timeout),
            max_append_bytes=self.max_append_bytes,
            max_inflight_bytes=self.max_inflight_bytes,
            max_uncommitted_bytes=self.max_uncommitted_bytes,
        )


class _Proposal:
    """Commands in the log at `[first_index, stop_index)` with `term`, whose results somebody waits for."""

    __slots__ = ("deferred", "first_index", "is_many", "results", "stop_index", "term")

    def __init__(self, first_index: int, count: int, term: int, is_many: bool) -> None:
        self.first_index = first_index
        self.stop_index = first_index + count
        self.term = term
        self.is_many = is_many
        self.deferred: Deferred[Any] = Deferred()
        self.results: list[object] = []


class _Read:
    __slots__ = ("deferred", "is_many", "requests")

    def __init__(self, requests: Sequence[bytes], is_many: bool) -> None:
        self.requests = requests
        self.is_many = is_many
        self.deferred: Deferred[Any] = Deferred()


class RaftNode(Service):
    """
    One server of a cluster, as a Twisted service: start it once, stop it once.

    Everything it touches is handed to it, so the same node runs on disks and sockets or inside a simulation.
    All methods belong to the reactor's thread; every Deferred it gives out fires exactly once.
    """

    _log = Logger()

    def __init__(
        self,
        settings: NodeSettings,
        log_store: ILogStore,
        transport: ITransport,
        machine: IStateMachine,
        clock: IReactorTime,
        rng: random.Random,
        wall_ms: Callable[[], int],
    ) -> None:
        """
        @param wall_ms: the wall clock, ms since 1970. Only used to stamp entries.
        @raise ValueError: the timings in `settings` contradict each other.
        """
        self.settings = settings
        self.machine = machine
        self.raft: Raft | None = None
        self.failure: FatalError | None = None
        """Why this server has stopped by itself; None if it has not."""
        self._core_settings = settings.for_core()
        self._store = log_store
        self._transport = transport
        self._clock = clock
        self._rng = rng
        self._wall_ms = wall_ms
        self._accepts = False
        self._is_flush_armed = False
        self._tick_call: IDelayedCall | None = None
        self._proposals: deque[_Proposal] = deque()
        self._new_reads: list[_Read] = []
        self._reads: dict[int, list[_Read]] = {}
        self._confirmed_reads: deque[tuple[int, list[_Read]]] = deque()
        self._read_count = 0
        self._last_read_id = 0
        self._apply_index = 0
        self._apply_chunk = MAX_APPLY_CHUNK
        self._seen: tuple[object, ...] = ()
        self._seen_leader: Leader | None = None
        self._drained: Deferred[None] | None = None
        self._failed: Deferred[FatalError] = Deferred()
        self.identity = Identity("", settings.server_id, 0)

    # -- for users

    def propose(self, command: bytes) -> Deferred[Any]:
        """
        Replicate a command; fires with the state machine's result once it is committed and applied here.

        Fails with `NotLeader`, `Overloaded`, `CommandTooLarge` or `Stopped` (nothing was done), or with
        `OutcomeUnknown` (it is in this server's log, and may or may not be committed by another leader).
        """
        return self._propose((command,), is_many=False)

    def propose_many(self, commands: Sequence[bytes]) -> Deferred[Any]:
        """
        Replicate commands next to each other, all or none; fires with their results, in order. Fails like `propose`.
        """
        return self._propose(commands, is_many=True) if commands else succeed([])

    def read(self, request: bytes) -> Deferred[Any]:
        """
        Ask the state machine, linearizably: the answer reflects everything that was acknowledged before the call.

        Fails with `NotLeader`, `Overloaded`, `CommandTooLarge` or `Stopped`, or with what the machine's query raised.
        Always safe to repeat.
        """
        return self._read((request,), is_many=False)

    def read_many(self, requests: Sequence[bytes]) -> Deferred[Any]:
        """
        Ask several things of one state; fires with the answers, in order. Fails like `read`, except that an exception
        which the machine's query raised takes that answer's place.
        """
        return self._read(requests, is_many=True) if requests else succeed([])

    def status(self) -> NodeStatus:
        """What this server is doing, and what it is waiting for. Cheap, and works in every state."""
        return describe(self)

    def storage_status(self) -> StorageStatus:
        """What the disk is doing."""
        status: StorageStatus = self._store.status()
        return status

    def link(self, server_id: str) -> tuple[str, str]:
        """How the link to another server is, and where it serves its clients (empty if not known)."""
        return self._transport.link_status(server_id), self._transport.addresses(server_id).client

    def advertise(self, client_address: str = "", admin_address: str = "") -> None:
        """Tell the other servers where this one serves clients and its admin HTTP, as host:port. Before the start."""
        self._transport.advertise(Addresses(client_address, admin_address))

    def when_failed(self) -> Deferred[FatalError]:
        """Fires with the reason if this server stops by itself because it can no longer keep its promises."""
        waiter: Deferred[FatalError] = Deferred()

        def pass_on(error: FatalError) -> FatalError:
            waiter.callback(error)
            return error

        self._failed.addCallback(pass_on)
        return waiter

    # -- service

    def startService(self) -> None:
        """
        Recover what is on disk and join the cluster.

        @raise StorageError: the data directory cannot be used; nothing was started.
        """
        recovered = self._store.open()
        try:
            raft = self._recover(recovered.hard_state, recovered.runs)
        except Exception:
            self._store.close()
            raise
        self.raft = raft
        self.identity = recovered.identity
        Service.startService(self)
        self._accepts = True
        self._transport.set_peers(self._peers())
        self._transport.start(recovered.identity, self._receive)
        self._schedule_tick()
        self._arm_flush()

    def _recover(self, hard_state: Any, runs: Sequence[EntryRun]) -> Raft:
        log = Log()
        for run in runs:
            log.extend(run)
        log.take_unwritten()
        log.made_durable(log.last_index, log.last_term)
        if hard_state.term < log.last_term:
            raise StorageError(
                f"the log has entries of term {log.last_term}, but the stored term is {hard_state.term}: the file with "
                f"term and vote is older than the log. Restore it, or move the data directory away and add this server "
                f"to the cluster again"
            )
        settings = self.settings
        raft = Raft(settings.server_id, self._core_settings, self._rng, hard_state, log)
        if settings.bootstrap and log.last_index == 0:
            raft.bootstrap(Membership(settings.cluster_id, tuple(sorted(settings.bootstrap))))
        return raft

    def stopService(self) -> Deferred[None]:
        """
        Answer what is under way, within `stop_timeout`, then stop. What is left then fails with `OutcomeUnknown`.
        """
        Service.stopService(self)
        self._accepts = False
        if self.raft is None or self.failure is not None:
            return self._close()
        drained = self._when_drained()
        deadline = self._clock.callLater(self.settings.stop_timeout / 1000, drained.callback, None)

        def stop(result: object) -> Deferred[None]:
            self._drained = None
            if deadline.active():
                deadline.cancel()
            self._end_all("this server is stopping")
            return self._close()

        return drained.addCallback(stop)

    def _when_drained(self) -> Deferred[None]:
        self._drained = Deferred()
        waiting = self._drained
        self._note_drained()
        return waiting

    def _note_drained(self) -> None:
        is_busy = self._proposals or self._reads or self._new_reads or self._confirmed_reads
        if self._drained is not None and not is_busy and not self._drained.called:
            self._drained.callback(None)

    def _close(self) -> Deferred[None]:
        if self._tick_call is not None and self._tick_call.active():
            self._tick_call.cancel()
        self._tick_call = None
        closing = gatherResults([self._transport.stop(), self._store.close()])
        return closing.addCallback(lambda _: None)

    # -- inputs: change memory, arm one flush

    def _propose(self, commands: Sequence[bytes], is_many: bool) -> Deferred[Any]:
        if not self._accepts or self.raft is None:
            return fail(self._stopped())
        longest = max(map(len, commands))
        if longest > self.settings.max_command_bytes:
            return fail(CommandTooLarge(longest, "max_command_bytes", self.settings.max_command_bytes))
        raft = self.raft
        self._arm_flush()
        try:
            first_index = raft.propose(commands)
        except NotLeading:
            return fail(self._not_leader())
        except UncommittedFull:
            return fail(Overloaded("max_uncommitted_bytes", self.settings.max_uncommitted_bytes))
        proposal = _Proposal(first_index, len(commands), raft.term, is_many)
        self._proposals.append(proposal)
        return proposal.deferred

    def _read(self, requests: Sequence[bytes], is_many: bool) -> Deferred[Any]:
        if not self._accepts or self.raft is None:
            return fail(self._stopped())
        if self.raft.leader_id != self.settings.server_id:
            return fail(self._not_leader())
        longest = max(map(len, requests))
        if longest > self.settings.max_command_bytes:
            return fail(CommandTooLarge(longest, "max_command_bytes", self.settings.max_command_bytes))
        if self._read_count + len(requests) > max(self.settings.max_pending_reads, len(requests)):
            return fail(Overloaded("max_pending_reads", self.settings.max_pending_reads))
        read = _Read(requests, is_many)
        self._read_count += len(requests)
        self._new_reads.append(read)
        self._arm_flush()
        return read.deferred

    def _receive(self, sender: str, messages: Sequence[Message]) -> None:
        if self.raft is None or self.failure is not None:
            return
        self._arm_flush()
        try:
            for message in messages:
                self.raft.step(sender, message)
        except InvalidMessage as error:
            raise ProtocolError(str(error)) from error
        except Exception as error:
            self._fail(error)

    def _tick(self) -> None:
        if self.raft is None or self.failure is not None:
            return
        self._schedule_tick()
        try:
            self.raft.tick()
        except Exception as error:
            self._fail(error)
            return
        self._flush()

    def _schedule_tick(self) -> None:
        # From now, not from when it was due: after a pause of the process, time that nobody saw pass counts once.
        self._tick_call = self._clock.callLater(self.settings.tick_s, self._tick)

    def _arm_flush(self) -> None:
        if not self._is_flush_armed and self.raft is not None:
            self._is_flush_armed = True
            self.raft.time_ms = self._wall_ms()
            self._clock.callLater(0, self._armed_flush)

    def _armed_flush(self) -> None:
        self._is_flush_armed = False
        self._flush()

    # -- the flush: all work of a turn

    def _flush(self) -> None:
        if self.raft is None or self.failure is not None:
            return
        try:
            self._carry_out(self.raft)
        except Exception as error:
            self._fail(error)
            return
        self._note_drained()

    def _carry_out(self, raft: Raft) -> None:
        self._note_changes(raft)
        self._request_reads(raft)
        ready = raft.ready()
        for receiver, message in ready.messages:
            self._transport.send(receiver, message)
        self._transport.flush()
        if ready.persist is not None:
            self._write(ready.persist)
        for read_id in ready.dropped_reads:
            self._refuse_reads(self._reads.pop(read_id))
        for read_id, index in ready.reads:
            self._confirmed_reads.append((index, self._reads.pop(read_id)))
        self._apply_index = max(self._apply_index, ready.apply_index)
        self._apply_slice(raft)

    def _request_reads(self, raft: Raft) -> None:
        if not self._new_reads:
            return
        reads, self._new_reads = self._new_reads, []
        self._last_read_id += 1
        try:
            raft.request_read(self._last_read_id)
        except NotLeading:
            self._refuse_reads(reads)
        else:
            self._reads[self._last_read_id] = reads

    def _write(self, persist: Persist) -> None:
        write: Deferred[None] = self._store.write(persist.hard_state, persist.runs)
        write.addCallbacks(self._written, lambda failure: self._fail(failure.value))

    def _written(self, _: None) -> None:
        if self.raft is None or self.failure is not None:
            return
        try:
            self.raft.persisted()
        except Exception as error:
            self._fail(error)
            return
        self._flush()

    def _apply_slice(self, raft: Raft) -> None:
        """Apply and answer for at most `apply_slice_ms`; go on in the next turn if there is more."""
        deadline = self._clock.seconds() + self.settings.apply_slice_ms / 1000
        while raft.applied_index < self._apply_index:
            first_index = raft.applied_index + 1
            stop_index = min(self._apply_index, raft.applied_index + self._apply_chunk) + 1
            for run in raft.log.runs(first_index, stop_index):
                self._apply_run(raft, run)
                if self.failure is not None:
                    return
            if self._clock.seconds() >= deadline:
                break
        self._answer_reads(raft.applied_index, deadline)
        is_behind = raft.applied_index < self._apply_index
        if is_behind or (self._confirmed_reads and self._confirmed_reads[0][0] <= raft.applied_index):
            self._arm_flush()

    def _apply_run(self, raft: Raft, run: EntryRun) -> None:
        results: Sequence[object] = ()
        if run.kind is EntryKind.COMMAND:
            began = self._clock.seconds()
            results = self._apply_commands(run)
            self._adapt_chunk(len(run.commands), self._clock.seconds() - began)
        raft.applied(run.last_index)
        self._answer_proposals(run, results)

    def _apply_commands(self, run: EntryRun) -> Sequence[object]:
        entries = f"entry {run.first_index}"
        if len(run.commands) > 1:
            entries = f"entries {run.first_index} to {run.last_index}"
        try:
            results: Sequence[object] = self.machine.apply(run.first_index, run.commands, run.time_ms)
        except Exception as error:
            raise MachineError(f"the state machine raised {error!r} at {entries}") from error
        if len(results) != len(run.commands):
            raise MachineError(f"the state machine gave {len(results)} results for {entries}")
        return results

    def _adapt_chunk(self, count: int, seconds: float) -> None:
        slice_s = self.settings.apply_slice_ms / 1000
        if seconds > slice_s:
            self._apply_chunk = max(1, min(count, self._apply_chunk) // 2)
        elif seconds < slice_s / 4 and count == self._apply_chunk:
            self._apply_chunk = min(MAX_APPLY_CHUNK, self._apply_chunk * 2)

    def _answer_proposals(self, run: EntryRun, results: Sequence[object]) -> None:
        proposals = self._proposals
        while proposals and proposals[0].first_index <= run.last_index:
            proposal = proposals[0]
            if proposal.term != run.term:
                proposals.popleft()
                proposal.deferred.errback(OutcomeUnknown(proposal.first_index, "another entry took its place"))
                continue
            start = max(proposal.first_index, run.first_index) - run.first_index
            proposal.results += results[start : proposal.stop_index - run.first_index]
            if proposal.stop_index > run.last_index + 1:
                return
            proposals.popleft()
            proposal.deferred.callback(proposal.results if proposal.is_many else proposal.results[0])

    def _answer_reads(self, applied_index: int, deadline: float) -> None:
        while self._confirmed_reads and self._confirmed_reads[0][0] <= applied_index:
            _, reads = self._confirmed_reads.popleft()
            for at, read in enumerate(reads):
                self._answer_read(read)
                if self._clock.seconds() >= deadline and at + 1 < len(reads):
                    self._confirmed_reads.appendleft((applied_index, reads[at + 1 :]))
                    return

    def _answer_read(self, read: _Read) -> None:
        self._read_count -= len(read.requests)
        answers: list[object] = []
        for request in read.requests:
            try:
                answers.append(self.machine.query(request))
            except Exception as error:
                answers.append(error)
        if read.is_many:
            read.deferred.callback(answers)
        elif isinstance(answers[0], Exception):
            read.deferred.errback(answers[0])
        else:
            read.deferred.callback(answers[0])

    # -- changes and ends

    def _note_changes(self, raft: Raft) -> None:
        """Log what has changed since the last flush; end the waiters of a leadership that is over."""
        seen = (raft.role.name, raft.term, raft.leader_id, raft.memberships.current_index)
        if self._seen_leader is not None and raft.role is not self._seen_leader:
            self._seen_leader = None
            self._end_proposals("the leadership ended before it was committed", raft.commit_index)
        if isinstance(raft.role, Leader):
            self._seen_leader = raft.role
        if seen == self._seen:
            return
        if not self._seen or seen[3] != self._seen[3]:
            self._transport.set_peers(self._peers())
            self._log.info("membership of entry {index}: voters {voters}", index=seen[3], voters=raft.membership.voters)
        if seen[:3] != self._seen[:3]:
            self._log.info("{role} in term {term}, leader {leader}", role=seen[0], term=seen[1], leader=seen[2])
        self._seen = seen

    def _peers(self) -> list[str]:
        assert self.raft is not None
        return [server_id for server_id in self.raft.membership.members if server_id != self.settings.server_id]

    def _not_leader(self) -> NotLeader:
        leader_id = self.raft.leader_id if self.raft is not None else None
        if leader_id is None:
            return NotLeader(None)
        addresses = self._transport.addresses(leader_id)
        return NotLeader(leader_id, addresses.client, addresses.admin)

    def _stopped(self) -> Stopped:
        return Stopped(f"this server has stopped: {self.failure}" if self.failure else "this server is not running")

    def _refuse_reads(self, reads: Sequence[_Read], error: Exception | None = None) -> None:
        for read in reads:
            self._read_count -= len(read.requests)
            read.deferred.errback(error or self._not_leader())

    def _end_proposals(self, why: str, commit_index: int) -> None:
        """Fail what waits for an entry behind `commit_index`; what is committed will be applied and answered."""
        kept: deque[_Proposal] = deque()
        ended = []
        for proposal in self._proposals:
            (kept if proposal.stop_index - 1 <= commit_index else ended).append(proposal)
        self._proposals = kept
        for proposal in ended:
            proposal.deferred.errback(OutcomeUnknown(proposal.first_index, why))

    def _end_all(self, why: str) -> None:
        self._end_proposals(why, 0)
        reads = self._new_reads + [read for batch in self._reads.values() for read in batch]
        reads += [read for _, batch in self._confirmed_reads for read in batch]
        self._new_reads, self._reads = [], {}
        self._confirmed_reads.clear()
        self._refuse_reads(reads, self._stopped())

    def _fail(self, error: BaseException) -> None:
        """Stop for good: nothing more is written, sent, applied or acknowledged."""
        if self.failure is not None:
            return
        self.failure = error if isinstance(error, FatalError) else FatalError(f"{type(error).__name__}: {error}")
        self._accepts = False
        self._log.failure("this server stops: {why}", Failure(error), why=str(self.failure))
        self._end_all(str(self.failure))
        self._close().addCallback(lambda _: self._failed.callback(self.failure))  # type: ignore[arg-type]
        if self._drained is not None and not self._drained.called:
            self._drained.callback(None)
