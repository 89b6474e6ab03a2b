"""A server's snapshots: taken, started from, in place of the log's beginning; those of others: sent and installed."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.core.leader import Leader
from txraft.core.raft import Raft
from txraft.core.snapshot import SnapshotMeta
from txraft.errors import SnapshotRefused
from txraft.forking import IForker
from txraft.images import IPreparedRestore
from txraft.interfaces import ILogStore, ISnapshotStore, ITransport, Snapshot
from txraft.node.growth import Growth, LogLimit
from txraft.node.receiving import SnapshotReceiving, install
from txraft.node.restoring import Restore, prepare
from txraft.node.saving import SnapshotSaving
from txraft.node.sending import SnapshotSending
from txraft.node.state import State
from txraft.node.taking import SnapshotTaker, TakingSettings, TakingStatus
from txraft.node.transfers import TransferStatus

_log = Logger()

NOTABLE_STALL_S = 0.1
"""A turn that takes longer is worth a line in the log: elections begin soon after."""


@attrs.frozen
class SnapshotsStatus:
    """
    `index` is that of the newest snapshot, 0 if there is none; `size` its bytes; `time_ms` when the entry there was
    appended, ms since 1970; `age_s` how long ago that was, by this server's clock, None if there is none. `log_bytes`
    is the log behind it, as far as it is committed and on this disk; `log_limit_bytes` what makes a leader refuse
    commands. `taking` is how this server takes its own; `sent` and `received` how many went between servers; `failure`
    is why the last one that was offered to this server could not be received, or empty; `problem` is what is wrong with
    a newer one that was on disk at the start. `restore_stall_s`: for how long the server did nothing else when a
    snapshot last became its state, None if none has since the start.
    """

    index: int
    size: int
    time_ms: int
    age_s: float | None
    log_bytes: int
    log_limit_bytes: int
    taking: TakingStatus
    sent: int
    received: int
    failure: str
    transfers: tuple[TransferStatus, ...]
    problem: str
    restore_stall_s: float | None


@attrs.frozen
class Owner:
    """
    What a server lends its parts. `live`: the core, or None if this server may do nothing any more. `fail` stops this
    server; `replaced` is called when a snapshot has taken the place of state and log, `flush` when the core may have
    something to say.
    """

    live: Callable[[], Raft | None]
    fail: Callable[[BaseException], None]
    replaced: Callable[[], None]
    flush: Callable[[], None]


class SnapshotKeeper:
    """One server's. For `forker` and `settings` see `SnapshotTaker`."""

    def __init__(
        self,
        state: State,
        log_store: ILogStore,
        transport: ITransport,
        clock: IReactorTime,
        forker: IForker | None,
        settings: TakingSettings,
        owner: Owner,
    ) -> None:
        self._state = state
        self._log_store = log_store
        self._store: ISnapshotStore = log_store.snapshots
        self._clock = clock
        self._live = owner.live
        self._fail = owner.fail
        self._replaced = owner.replaced
        self._flush = owner.flush
        self._sending = SnapshotSending(self._store, transport, clock, self._take_in_time)
        self.receiving = SnapshotReceiving(self._store, state, clock, owner.live, self._install)
        self._taker = SnapshotTaker(state, self._store, self._describe, clock, forker, settings)
        self.saving = SnapshotSaving(self._store, clock, owner.live, self.take)
        self.limit = LogLimit()
        self._applied = Growth()
        self._restore_stall_s: float | None = None
        self._compacted: tuple[object, ...] = ()

    # -- the node's turns

    def start(self, raft: Raft, snapshot: Snapshot | None) -> None:
        """Restore the machine, if there is something to restore it from. Until then it is given nothing, nor asked."""
        if snapshot is not None:
            raft.is_restored = False
            prepared = prepare(self._store, self._state, snapshot)
            prepared.addCallback(self._start_from).addErrback(self._failed)

    def _start_from(self, restore: Restore) -> None:
        raft = self._live()
        # Meanwhile a newer one may have come from a leader.
        if raft is not None and not raft.is_restored:
            self._become(restore)
            raft.is_restored = True
            self._flush()

    def _become(self, restore: Restore) -> None:
        """Put the state of a snapshot in the place of the machine's."""
        began = self._clock.seconds()
        restore()
        self._restore_stall_s = stall_s = self._clock.seconds() - began
        if stall_s >= NOTABLE_STALL_S:
            _log.warn(
                "restoring the state machine took {stall:.2f} s, in which this server did nothing else{hint}",
                stall=stall_s,
                hint="" if IPreparedRestore.providedBy(self._state.machine) else ": see txraft.images.IPreparedRestore",
            )

    def carry_out(self, raft: Raft, wanted: tuple[str, ...]) -> None:
        """Once each flush: send what is wanted, and forget of the log what can be forgotten."""
        leader = raft.role if isinstance(raft.role, Leader) else None
        self._sending.carry_out(leader, wanted)
        kept = self._store.kept()
        newest = kept[0] if kept else None
        if newest is not None:
            # Only what changes one of these can change what can be forgotten. One that came may hold what is here as
            # entries, and not applied yet.
            is_applied = raft.applied_index >= newest.meta.last_index
            key = (newest.meta.last_index, is_applied, leader, leader and leader.sending.held_index)
            if key != self._compacted:
                self._compacted = key
                self._compact(raft, newest)
        self._take_if_due(raft, newest.meta.last_index if newest is not None else 0)
        self.saving.note(raft.applied_index)

    def _compact(self, raft: Raft, snapshot: Snapshot) -> None:
        if raft.snapshots.compact(snapshot.meta.last_index):
            self._log_store.compact(raft.log.first_index).addErrback(self._failed)

    def stop(self) -> Deferred[None]:
        """Nothing is taken, sent or received any more. A Deferred of None; never fails."""
        self._sending.stop()
        self.receiving.stop()
        self.saving.stop()
        return self._taker.stop()

    def _failed(self, failure: Failure) -> None:
        assert failure.value is not None
        self._fail(failure.value)

    # -- our own

    def take(self) -> Deferred[Snapshot]:
        """
        Take one of the state as it is now; fires when it counts. See `SnapshotTaker.take`.

        Fails with `SnapshotRefused`, or with what went wrong; then all is as before.
        """
        raft = self._live()
        if raft is None:
            return fail(SnapshotRefused("this server is not running"))
        if not raft.is_restored:
            # The machine has not the state of `applied_index` yet, but none.
            return fail(SnapshotRefused("this server has not restored its own state yet"))
        return self._taker.take().addCallback(self._counts)

    def _counts(self, snapshot: Snapshot) -> Snapshot:
        self._flush()
        return snapshot

    def _describe(self) -> SnapshotMeta:
        raft = self._live()
        if raft is None:
            raise SnapshotRefused("this server is not running")
        return raft.snapshots.meta()

    def _take_if_due(self, raft: Raft, newest_index: int) -> None:
        """At each flush, whether anything was applied or not: the last attempt may have failed a while ago."""
        log_bytes = self._applied.measure(raft.log, newest_index, raft.applied_index)
        if raft.is_restored and self._taker.is_due(log_bytes):
            self._take_in_time()
        self.limit.note(raft, newest_index, self._taker.limit_bytes())

    def _take_in_time(self) -> None:
        # Whoever reads the log is told of a failure there, and the status says so.
        self.take().addErrback(lambda _: None)

    # -- others'

    def _install(self, snapshot: Snapshot, restore: Restore | None) -> None:
        raft = self._live()
        if raft is None:
            return
        try:
            if install(raft, snapshot):
                raft.is_restored = True
                self._log_store.reset(snapshot.meta).addErrback(self._failed)
                assert restore is not None, snapshot.meta
                self._become(restore)
                self._replaced()
        except Exception as error:
            self._fail(error)
            raise
        self._flush()

    def status(self) -> SnapshotsStatus:
        """What there is, and what is on its way."""
        raft, kept = self._live(), self._store.kept()
        newest = kept[0] if kept else None
        return SnapshotsStatus(
            index=newest.meta.last_index if newest else 0,
            size=newest.size if newest else 0,
            time_ms=newest.meta.time_ms if newest else 0,
            # The core is told the time at each tick.
            age_s=max(0, raft.time_ms - newest.meta.time_ms) / 1000 if raft is not None and newest else None,
            log_bytes=self.limit.bytes,
            log_limit_bytes=self.limit.limit_bytes,
            taking=self._taker.status(),
            sent=self._sending.sent_count,
            received=self.receiving.received_count,
            failure=self.receiving.failure,
            transfers=(*self._sending.status(), *self.receiving.status()),
            problem=self._store.problem,
            restore_stall_s=self._restore_stall_s,
        )
