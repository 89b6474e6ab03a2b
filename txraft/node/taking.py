"""
When a server takes a snapshot of its machine, and how the image comes to disk while it goes on serving.

The image and what it stands for are got in one turn, so that nothing is applied between them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any

import attrs
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from txraft.core.snapshot import SnapshotMeta
from txraft.errors import ChildFailed, SnapshotRefused, StorageError
from txraft.forking import IForker
from txraft.images import ISnapshotImage, SnapshotWay
from txraft.interfaces import ISnapshotStore, ISnapshotWriter, Snapshot
from txraft.node.state import State

_Write = Callable[[], Deferred[None]]

RETRY_S = 30.0
"""After a snapshot has failed, such as for want of room, the next one is not due before this."""

URGENT_RETRY_S = 1.0
"""
Or this, or as long as that one took if it took longer, but never later, once the log is at its limit and commands are
refused.
"""


@attrs.frozen(kw_only=True)
class TakingSettings:
    """Keys of raft.conf, under their names there: sizes in bytes, times in ms."""

    snapshot_log_bytes: int = 64 << 20
    snapshot_ratio: int = 4
    snapshot_log_limit: int = 4
    snapshot_slice_ms: int = 5


@attrs.frozen
class TakingStatus:
    """
    How snapshots are taken here. Those numbers are None of which nothing is known since the start.

    `way` is that of the one under way, or empty. `index` is that of the last one that was taken, 0 if there is none:
    `stall_s` is the longest time for which that one kept the server from anything else, `seconds` how long it took.
    `failure` is why the last attempt failed, or empty if it did not.
    """

    way: str
    index: int
    seconds: float | None
    stall_s: float | None
    taken: int
    failure: str


class SnapshotTaker:
    """
    Takes snapshots of one server's state, one at a time.

    @param describe: what a snapshot of the state as it is now stands for.
    @param forker: None where processes cannot fork, or must not.
    """

    _log = Logger()

    def __init__(
        self,
        state: State,
        store: ISnapshotStore,
        describe: Callable[[], SnapshotMeta],
        clock: IReactorTime,
        forker: IForker | None,
        settings: TakingSettings,
    ) -> None:
        self._machine = state.machine
        # Any: what the interface promises has no type that mypy could follow from here.
        self._image: Any = state.machine if ISnapshotImage.providedBy(state.machine) else None
        self._sessions = state.sessions
        self._store = store
        self._describe = describe
        self._clock = clock
        self._forker = forker
        self._settings = settings
        self._waiters: list[Deferred[Snapshot]] = []
        self._running: Deferred[Any] | None = None
        self._is_stopped = False
        self._way: SnapshotWay | None = None
        self._started = self._stall_s = 0.0
        self._retry_at: float | None = None
        self._urgent_retry_at = 0.0
        self._last = TakingStatus("", 0, None, None, 0, "")

    # -- when

    def is_due(self, log_bytes: int) -> bool:
        """
        Whether it is time for a snapshot, with `log_bytes` of log behind the newest one.

        The log may grow to a multiple of the snapshot, so that what is written in all is a bounded multiple of what is
        proposed, however large the state (LogCabin; thesis §5.1.2).
        """
        if self._running is not None or self._is_stopped:
            return False
        if log_bytes < self._due_bytes():
            return False
        if self._retry_at is None:
            return True
        is_urgent = log_bytes >= self.limit_bytes()
        return self._clock.seconds() >= (self._urgent_retry_at if is_urgent else self._retry_at)

    def limit_bytes(self) -> int:
        """How large the log behind the newest snapshot may become at most, while there is no newer one."""
        return self._settings.snapshot_log_limit * self._due_bytes()

    def _due_bytes(self) -> int:
        kept = self._store.kept()
        of_last = self._settings.snapshot_ratio * kept[0].size if kept else 0
        return max(self._settings.snapshot_log_bytes, of_last)

    def take(self) -> Deferred[Snapshot]:
        """
        Take a snapshot now; if one is under way, wait for that; if nothing has been applied since the last, it is that.

        A Deferred of the snapshot, which is durable and verified. Fails with `SnapshotRefused` (nothing has been
        applied yet, or the server is stopping), `StorageError`, or what the machine raised.
        """
        if self._is_stopped:
            return fail(SnapshotRefused("this server is stopping"))
        done: Deferred[Snapshot] = Deferred()
        if self._running is None:
            meta, kept = self._describe(), self._store.kept()
            if meta.last_index == 0:
                return fail(SnapshotRefused("nothing has been applied yet"))
            if kept and kept[0].meta.last_index >= meta.last_index:
                return succeed(kept[0])
            self._waiters.append(done)
            self._begin()
        else:
            self._waiters.append(done)
        return done

    def status(self) -> TakingStatus:
        """See `TakingStatus`."""
        return attrs.evolve(self._last, way=self._way.value if self._way else "")

    def stop(self) -> Deferred[None]:
        """Give up what is under way; nothing is taken from now on. A Deferred of None; never fails."""
        self._is_stopped = True
        if self._running is None:
            return succeed(None)
        stopped: Deferred[None] = Deferred()
        last: Deferred[Snapshot] = Deferred()
        last.addBoth(lambda _: stopped.callback(None))
        self._waiters.append(last)
        self._running.cancel()
        return stopped

    # -- how

    def _begin(self) -> None:
        self._started, self._stall_s = self._clock.seconds(), 0.0
        self._running = Deferred.fromCoroutine(self._take_somehow())
        self._running.addErrback(self._as_refusal).addCallbacks(self._succeeded, self._failed)

    async def _take_somehow(self) -> Snapshot:
        way = SnapshotWay.FORK if self._image is None else self._image.snapshot_way
        instead = SnapshotWay.INLINE if self._image is None else SnapshotWay.INCREMENTAL
        if way is SnapshotWay.FORK and self._forker is not None:
            try:
                return await self._take(way)
            except ChildFailed as error:
                if error.raised == StorageError.__name__:
                    # A full disk, say: it would be as full for us, and the log needs what room is left.
                    raise StorageError(str(error)) from error
                self._log.warn("a snapshot by fork failed: {error}; taking it {way}", error=error, way=instead.value)
        return await self._take(instead if way is SnapshotWay.FORK else way)

    async def _take(self, way: SnapshotWay) -> Snapshot:
        """One attempt. What it stands for is asked anew for each: the machine has gone on."""
        self._way = way
        writer = self._store.begin(self._describe())
        try:
            if way is SnapshotWay.FORK:
                return await self._by_fork(writer)
            started = self._clock.seconds()
            sessions = self._sessions.image()
            chunks = self._image.image() if way is SnapshotWay.INCREMENTAL else self._machine.snapshot()
            writes = chain(
                (partial(writer.write_sessions, chunk) for chunk in sessions),
                (partial(writer.write, chunk) for chunk in chunks),
            )
            return await self._in_slices(writer, writes, started)
        except Exception:  # which being cancelled is, too
            await writer.abort()
            raise

    async def _by_fork(self, writer: ISnapshotWriter) -> Snapshot:
        def write(alive: Callable[[], None]) -> None:
            chunks = self._machine.snapshot() if self._image is None else self._image.image()
            writer.write_here(self._sessions.chunks(), chunks, alive)

        assert self._forker is not None, "no way to fork"
        started = self._clock.seconds()
        done = self._forker.run(write)
        self._note_stall(started)
        await done
        return await writer.adopt()

    async def _in_slices(self, writer: ISnapshotWriter, writes: Iterator[_Write], started: float) -> Snapshot:
        """Make chunks for as long as a slice lasts; go on when they are written, so that no more of them are held."""
        while made := list(self._slice(writes)):
            self._note_stall(started)
            for write in made[:-1]:
                write().addErrback(lambda _: None)  # then the last one fails, too
            await made[-1]()
            started = self._clock.seconds()
        return await writer.commit()

    def _slice(self, writes: Iterator[_Write]) -> Iterator[_Write]:
        stop = self._clock.seconds() + self._settings.snapshot_slice_ms / 1000
        for write in writes:
            yield write
            if self._clock.seconds() >= stop:
                return

    def _note_stall(self, started: float) -> None:
        self._stall_s = max(self._stall_s, self._clock.seconds() - started)

    # -- the end of one

    def _as_refusal(self, failure: Failure) -> Failure:
        return Failure(SnapshotRefused("this server is stopping")) if failure.check(CancelledError) else failure

    def _succeeded(self, snapshot: Snapshot) -> None:
        seconds = self._clock.seconds() - self._started
        self._log.info(
            "snapshot at {index}: {size} bytes in {seconds:.2f} s, {way}; the longest stall was {stall:.1f} ms",
            index=snapshot.meta.last_index,
            size=snapshot.size,
            seconds=seconds,
            way=self._way.value if self._way else "",
            stall=self._stall_s * 1000,
        )
        self._retry_at = None
        self._last = TakingStatus("", snapshot.meta.last_index, seconds, self._stall_s, self._last.taken + 1, "")
        self._end(snapshot)

    def _failed(self, failure: Failure) -> None:
        why = failure.getErrorMessage()
        if not self._is_stopped:
            self._log.error("no snapshot was taken: {why}", why=why)
        now = self._clock.seconds()
        self._retry_at = now + RETRY_S
        self._urgent_retry_at = now + min(max(URGENT_RETRY_S, now - self._started), RETRY_S)
        self._last = attrs.evolve(self._last, failure=why)
        self._end(failure)

    def _end(self, result: Snapshot | Failure) -> None:
        self._way = self._running = None
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.callback(result)  # a Failure becomes an error
