"""Snapshots for somebody outside of the cluster: one that holds what was asked for, and stays while it is read."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

import attrs
from twisted.internet.defer import Deferred, fail, inlineCallbacks, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from txraft.core.raft import Raft
from txraft.errors import SnapshotRefused
from txraft.interfaces import ISnapshotReader, ISnapshotStore, Snapshot

APPLIED_WITHIN_S = 30.0
"""A server that lacks what is asked for is waited for so long."""


@attrs.frozen
class HeldSnapshot:
    """A snapshot that can be read, kept or not, until `reader` is closed, which is for whoever has got this to do."""

    snapshot: Snapshot
    reader: ISnapshotReader


@attrs.frozen
class _Waiter:
    index: int
    reached: Deferred[None]
    limit: IDelayedCall


class SnapshotSaving:
    """
    One server's.

    @param live: the core; None if this server may do nothing any more.
    @param take: takes a snapshot, or waits for the one that is under way; see `SnapshotTaker.take`.
    """

    def __init__(
        self,
        store: ISnapshotStore,
        clock: IReactorTime,
        live: Callable[[], Raft | None],
        take: Callable[[], Deferred[Snapshot]],
    ) -> None:
        self._store = store
        self._clock = clock
        self._live = live
        self._take = take
        self._waiting: list[_Waiter] = []

    @inlineCallbacks
    def hold(self, at_least: int) -> Generator[Deferred[Any], Any, HeldSnapshot]:
        """
        A Deferred of a fresh snapshot, which holds at least everything up to the entry `at_least`.

        Fails with `SnapshotRefused`, or as taking one does.
        """
        yield self._when_applied(at_least)
        snapshot = yield self._take_intact()
        if snapshot.meta.last_index < at_least:
            # That one had begun before; the next one does not.
            snapshot = yield self._take()
        assert snapshot.meta.last_index >= at_least, (snapshot.meta.last_index, at_least)
        if self._live() is None:
            raise SnapshotRefused("this server is stopping")
        reader = yield self._store.open(snapshot)
        return HeldSnapshot(snapshot, reader)

    @inlineCallbacks
    def _take_intact(self) -> Generator[Deferred[Any], Any, Snapshot]:
        """What is taken now has just been verified; one that was there may have been damaged by the disk since."""
        before = self._store.kept()
        snapshot: Snapshot = yield self._take()
        if snapshot in before and not (yield self._store.check(snapshot)):
            # That one is kept no longer, so this is another.
            snapshot = yield self._take()
        return snapshot

    def _when_applied(self, index: int) -> Deferred[None]:
        raft = self._live()
        if raft is None:
            return fail(SnapshotRefused("this server is not running"))
        if raft.applied_index >= index:
            return succeed(None)
        reached: Deferred[None] = Deferred()
        limit = self._clock.callLater(APPLIED_WITHIN_S, self._give_up, index)
        self._waiting.append(_Waiter(index, reached, limit))
        return reached

    def note(self, applied_index: int) -> None:
        """The machine has applied everything up to that."""
        if self._waiting:
            self._end(lambda waiter: waiter.index <= applied_index, None)

    def _give_up(self, index: int) -> None:
        raft = self._live()
        applied_index = raft.applied_index if raft is not None else 0
        why = f"entry {index} did not come within {APPLIED_WITHIN_S:.0f} s: this server has applied {applied_index}"
        # The limits of others that wait for it may come a moment later.
        self._end(lambda waiter: waiter.index == index, SnapshotRefused(why))

    def stop(self) -> None:
        """Nobody is waited for any more."""
        self._end(lambda waiter: True, SnapshotRefused("this server is stopping"))

    def _end(self, is_over: Callable[[_Waiter], bool], error: SnapshotRefused | None) -> None:
        over = [waiter for waiter in self._waiting if is_over(waiter)]
        self._waiting = [waiter for waiter in self._waiting if waiter not in over]
        for waiter in over:
            if waiter.limit.active():
                waiter.limit.cancel()
            if error is None:
                waiter.reached.callback(None)
            else:
                waiter.reached.errback(error)
