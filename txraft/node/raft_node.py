"""
RaftNode: one server. Gathers a reactor turn's input, carries out each `Ready`, and owns the waiting Deferreds.

Inputs change memory only; a flush sends, begins the next write, applies and answers. Proposals and reads arm one for
the end of the turn, so that it carries all of them; messages, ticks and finished writes, which others wait for, flush
at once. What arrives while a write is outstanding becomes the next batch.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.core.change import Change
from txraft.core.errors import InvalidMessage
from txraft.core.leader import Leader
from txraft.core.log import EntryKind
from txraft.core.membership import Membership
from txraft.core.messages import Message
from txraft.core.raft import Raft
from txraft.core.ready import Persist
from txraft.errors import FatalError, ProtocolError
from txraft.forking import IForker
from txraft.interfaces import Addresses, Identity, ILogStore, IStateMachine, ITransport, Snapshot
from txraft.node.admission import Admission
from txraft.node.applier import Applier
from txraft.node.belonging import introduce, learned
from txraft.node.gathering import Gathering
from txraft.node.news import News, contacts
from txraft.node.restart import raft_from_disk
from txraft.node.session import Session
from txraft.node.settings import NodeSettings
from txraft.node.shutdown import Shutdown
from txraft.node.snapshots import Owner, SnapshotKeeper
from txraft.node.state import State
from txraft.node.status import NodeStatus, describe
from txraft.node.waiting import Waiting
from txraft.sessions import Opening, SessionCommand, SessionTable


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
        forker: IForker | None = None,
    ) -> None:
        """
        @param wall_ms: the wall clock, ms since 1970. Only used to stamp entries.
        @param forker: makes the children that write snapshots; None: snapshots are never taken by one.
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
        self._is_flush_armed = False
        self._tick_call: IDelayedCall | None = None
        self._waiting = Waiting(transport.link_status)
        self._proposals, self._reads = self._waiting.proposals, self._waiting.reads
        self.sessions = SessionTable()
        self._applier = Applier(machine, self.sessions, self._proposals, clock, settings.apply_slice_ms / 1000)
        self._apply_index = 0
        self._news = News(transport)
        self._admission = Admission(self, transport)
        self._gathering = Gathering(self._admission, self._proposals, self._reads, settings, self._arm_flush)
        owner = Owner(self._live, self._fail, self._waiting.replaced, self._arm_flush)
        state = State(machine, self.sessions)
        self.snapshots = SnapshotKeeper(state, log_store, transport, clock, forker, settings.for_taking(), owner)
        self._shutdown = Shutdown(clock, settings.stop_timeout / 1000, self._close)
        self.identity = Identity("", settings.server_id, 0)
        self.addresses = Addresses()

    # -- for users

    def propose(self, command: bytes) -> Deferred[Any]:
        """
        Replicate a command; fires with the state machine's result once it is committed and applied here.

        Fails with `NotLeader`, `Overloaded`, `CommandTooLarge` or `Stopped` (nothing was done), or with
        `OutcomeUnknown` (it is in this server's log, and may or may not be committed by another leader).

        @raise TypeError: it is not bytes, and could be neither sent nor stored.
        """
        if type(command) is not bytes:
            raise TypeError(f"a command is bytes, not {type(command).__name__}")
        refusal = self._gathering.reserve(len(command), len(command), 1)
        return self._proposals.gather(command) if refusal is None else fail(refusal)

    def propose_many(self, commands: Sequence[bytes]) -> Deferred[Any]:
        """Replicate commands next to each other, all or none; fires with their results, in order. See `propose`."""
        if not commands:
            return succeed([])
        if {*map(type, commands)} != {bytes}:
            raise TypeError("a command is bytes")
        sizes = list(map(len, commands))
        refusal = self._gathering.reserve(sum(sizes), max(sizes), len(sizes))
        return self._proposals.gather_many(commands) if refusal is None else fail(refusal)

    def open_session(self) -> Deferred[Session]:
        """Open a session, in which commands can be repeated safely, as this can. Fails like `propose`."""
        bounds = self.settings.max_sessions, self.settings.max_session_answers
        opened = self._propose_of_session(Opening(self._rng.getrandbits(32), *bounds), 0)
        return opened.addCallback(lambda session_id: Session(self.propose_in_session, session_id))

    def propose_in_session(self, session_id: str, sequence: int, command: bytes, lowest: int) -> Deferred[Any]:
        """
        As `propose`, in a session of any server; if its command `sequence` was carried out already, that is not done
        again, and this fires with the same result. So after `OutcomeUnknown` propose it again, here or elsewhere.

        Fails with `SessionExpired`, with `AnswerNotKept` (a session keeps not every result; see `txraft.answers`), with
        `Overloaded` also if `sequence` is `max_session_answers` or more ahead of `lowest`, or like `propose`.

        @param lowest: the lowest sequence whose answer the client still wants, at least 1 and at most `sequence`.
        @raise ValueError: one of these cannot be; `TypeError`: the command is not bytes, or a sequence no integer.
        """
        return self._propose_of_session(SessionCommand.of(session_id, sequence, lowest, command), len(command))

    def _propose_of_session(self, entry: Opening | SessionCommand, size: int) -> Deferred[Any]:
        data = entry.encode()
        refusal = self._gathering.reserve(len(data), size, 1)
        return self._proposals.gather(data, EntryKind.SESSION) if refusal is None else fail(refusal)

    def read(self, request: bytes) -> Deferred[Any]:
        """
        Ask the state machine, linearizably: the answer reflects everything that was acknowledged before the call.

        Fails with `NotLeader`, `Overloaded`, `CommandTooLarge` or `Stopped`, or with what the machine's query raised.
        Always safe to repeat.
        """
        return self._gathering.read((request,), is_many=False)

    def read_many(self, requests: Sequence[bytes]) -> Deferred[Any]:
        """
        Ask several things, or nothing, of one state; fires with the answers, in order. Fails like `read`, except that
        an exception which the machine's query raised takes that answer's place.
        """
        return self._gathering.read(requests, is_many=True)

    def change_membership(self, change: Change) -> Deferred[Membership]:
        """
        Make servers voters, learners or no members; fires with the membership once that is committed.

        Asking for what is so already is no error. Fails with `NotLeader`, `ChangeRefused` or `Stopped` (nothing was
        done), `ChangeFailed` (given up) or `OutcomeUnknown` (the next leader will end it, one way or the other).
        """
        return self._reconfigure(lambda raft, leader: self._waiting.changes.change(raft, leader, change))

    def transfer_leadership(self, server_id: str) -> Deferred[Membership]:
        """
        Let another voter lead; fires when it does. Proposals wait meanwhile.

        Fails with `NotLeader`, `ChangeRefused` or `Stopped` (nothing was done), `ChangeFailed` or `HandOverFailed`.
        """
        limit = self._clock.seconds() + 4 * self.settings.max_election_timeout / 1000

        def is_over() -> bool:
            return self._clock.seconds() >= limit

        return self._reconfigure(lambda _, leader: self._waiting.changes.hand_over(leader, server_id, is_over))

    def _reconfigure(self, ask: Callable[[Raft, Leader], Deferred[Membership]]) -> Deferred[Membership]:
        raft, leader = self._live(), self._admission.leader_for(0)
        if raft is None or not isinstance(leader, Leader):
            return fail(leader if isinstance(leader, Exception) else self._admission.stopped())
        self._arm_flush()
        # What was proposed before comes before.
        self._gathering.append(raft)
        return ask(raft, leader)

    def take_snapshot(self) -> Deferred[Snapshot]:
        """
        Take a snapshot now, whatever the configuration says; fires when it counts. Any server can.

        Fails with `SnapshotRefused` if there is nothing to take one of, or with `StorageError`, which harms nothing.
        """
        return self.snapshots.take()

    def status(self) -> NodeStatus:
        """What this server is doing, and what it is waiting for. Cheap, and works in every state."""
        return describe(self, self._store.status(), self.snapshots.status(), self._transport)

    def advertise(self, client_address: str = "", admin_address: str = "") -> None:
        """Tell the other servers where this one serves clients and its admin HTTP, as host:port; empty: as before."""
        self.addresses = Addresses(client_address or self.addresses.client, admin_address or self.addresses.admin)
        self._transport.advertise(self.addresses)

    def when_failed(self) -> Deferred[FatalError]:
        """Fires with the reason, if this server stops because it can no longer keep its promises."""
        return self._waiting.when_failed()

    # -- service

    def startService(self) -> None:
        """
        Recover what is on disk and join the cluster.

        @raise StorageError: the data directory cannot be used; nothing was started. The same holds for whatever the
            transport raises when it cannot listen.
        """
        recovered = self._store.open()
        try:
            raft = raft_from_disk(self.settings, self._core_settings, self._rng, recovered)
            self._transport.set_peers(contacts(raft))
            self._transport.start(recovered.identity, self._receive, self._met, self.snapshots.receiving.accept)
        except Exception:
            self._store.close()
            raise
        self.raft, self.identity = raft, recovered.identity
        Service.startService(self)
        self._admission.is_open = True
        self.snapshots.start(raft, recovered.snapshot)
        self._schedule_tick()
        self._arm_flush()

    def stopService(self) -> Deferred[None]:
        """
        Answer what is under way, within `stop_timeout`, then stop. What is left then fails with `OutcomeUnknown`.
        """
        Service.stopService(self)
        self._admission.is_open = False
        if self.raft is None:
            return succeed(None)
        if self._live() is None:
            return self._shutdown.close()

        def stop(_: None) -> Deferred[None]:
            self._waiting.end("this server is stopping", self._admission.stopped())
            return self._shutdown.close()

        drained = self._shutdown.drain()
        # Not now: this may be a callback in the midst of a flush, which still has something to write and to send.
        self._arm_flush()
        return drained.addCallback(stop)

    def _close(self) -> Deferred[None]:
        if self._tick_call is not None and self._tick_call.active():
            self._tick_call.cancel()
        stopped = self.snapshots.stop().addCallback(lambda _: self._transport.stop())
        return stopped.addCallback(lambda _: self._store.close())

    def _live(self) -> Raft | None:
        """The core, as long as this server may do something: from the start to the close or a failure."""
        return self.raft if self.failure is None and not self._shutdown.is_closing else None

    # -- inputs: change memory, arm one flush

    def _receive(self, sender: str, messages: Sequence[Message]) -> None:
        raft = self._live()
        if raft is None:
            return
        raft.time_ms = self._wall_ms()
        try:
            for message in messages:
                raft.step(sender, message)
        except InvalidMessage as error:
            raise ProtocolError(str(error)) from error
        except Exception as error:
            self._fail(error)
        finally:
            # At once: others wait for it. But what is being gathered goes with it, at the end of the turn.
            if raft.has_news and not self._is_flush_armed:
                self._flush()

    def _met(self) -> None:
        self._flush(lambda raft: introduce(raft, self._transport))

    def _tick(self) -> None:
        if self._live() is not None:
            self._schedule_tick()
            self._flush(Raft.tick)

    def _schedule_tick(self) -> None:
        # From now, not from when it was due: after a pause of the process, time that nobody saw pass counts once.
        self._tick_call = self._clock.callLater(self.settings.tick_s, self._tick)

    def _arm_flush(self) -> None:
        if not self._is_flush_armed and self.raft is not None:
            self._is_flush_armed = True
            self._clock.callLater(0, self._armed_flush)

    # -- the flush: all work of a turn

    def _armed_flush(self) -> None:
        self._is_flush_armed = False
        self._flush()

    def _flush(self, first: Callable[[Raft], None] = lambda raft: None) -> None:
        raft = self._live()
        if raft is None:
            return
        raft.time_ms = self._wall_ms()
        try:
            first(raft)
            self._carry_out(raft)
        except Exception as error:
            self._fail(error)
            return
        if not self._waiting:
            self._shutdown.drained()

    def _carry_out(self, raft: Raft) -> None:
        self._note_changes(raft)
        self._gathering.append(raft)
        self._gathering.request_reads(raft)
        ready = raft.ready()
        if ready.messages:
            for receiver, message in ready.messages:
                self._transport.send(receiver, message)
            self._transport.flush()
        if ready.persist is not None:
            self._write(ready.persist)
        for read_id in ready.dropped_reads:
            self._reads.refuse(read_id, self._admission.not_leader())
        for read_id, index in ready.reads:
            self._reads.confirm(read_id, index)
        self._apply_index = max(self._apply_index, ready.apply_index)
        if raft.is_restored:
            self._apply_slice(raft)
        self.snapshots.carry_out(raft, ready.snapshots)
        if raft.has_news:
            self._arm_flush()

    def _apply_slice(self, raft: Raft) -> None:
        """Apply and answer for at most `apply_slice_ms`; go on in the next turn if there is more."""
        deadline = self._clock.seconds() + self.settings.apply_slice_ms / 1000
        self._applier.apply_until(raft, self._apply_index, deadline)
        self._reads.answer(raft.applied_index, self.machine.query, lambda: self._clock.seconds() >= deadline)
        if raft.applied_index < self._apply_index or self._reads.can_answer(raft.applied_index):
            self._arm_flush()

    def _write(self, persist: Persist) -> None:
        written = self._store.write(persist.hard_state, persist.runs, persist.commit_index)
        written.addCallbacks(lambda _: self._flush(Raft.persisted), self._not_written)

    def _not_written(self, failure: Failure) -> None:
        assert failure.value is not None
        self._fail(failure.value)

    # -- changes and ends

    def _note_changes(self, raft: Raft) -> None:
        """Carry what has changed since the last flush to all whom it concerns."""
        self._waiting.note(raft, self._admission.not_leader)
        # First, which cluster this is: what is in force while a server catches up may be of long ago, and know those
        # who take it in by other data directories. Among servers of one epoch that is no reason to hang up.
        cluster_id = learned(self.identity, raft, self._transport)
        if cluster_id != self.identity.cluster_id:
            self.identity = attrs.evolve(self.identity, cluster_id=cluster_id)
            # At once: a server that dies and is removed before it writes again could never be told so.
            self._store.join(cluster_id).addErrback(self._not_written)
            self._transport.join(cluster_id)
        self._news.note(raft)

    def _fail(self, error: BaseException) -> None:
        """Stop for good: nothing more is written, sent, applied or acknowledged."""
        if self.failure is not None:
            return
        self.failure = error if isinstance(error, FatalError) else FatalError(f"{type(error).__name__}: {error}")
        self._admission.is_open = False
        # A machine's own exception tells where it was raised.
        self._log.failure("this server stops: {why}", Failure(error.__cause__ or error), why=str(self.failure))
        self._waiting.end(str(self.failure), self._admission.stopped())
        failure = self.failure
        self._shutdown.close().addCallback(lambda _: self._waiting.failed(failure))
        self._shutdown.drained()
