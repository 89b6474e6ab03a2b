"""Snapshots that a leader sends to this server: whether they are wanted, and what is done when one is complete."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from twisted.internet.defer import Deferred, inlineCallbacks, maybeDeferred, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.core.cluster_id import name_of
from txraft.core.errors import InvalidMessage
from txraft.core.raft import Raft
from txraft.errors import ProtocolError, StorageError
from txraft.interfaces import IPartialSnapshot, ISnapshotStore, Snapshot
from txraft.node.restoring import Restore, prepare
from txraft.node.state import State
from txraft.node.transfers import TransferStatus

_log = Logger()

Install = Callable[[Snapshot, Restore | None], None]


class SnapshotReceiving:
    """
    One server's. `received_count` are those that came whole. `failure` is why the last one that was offered found no
    place here; empty if it did.

    @param live: the core; None if this server may do nothing any more.
    @param install: called with a snapshot that is durable here, and with what makes it the machine's state, or None if
        all of it is here.
    """

    def __init__(
        self,
        store: ISnapshotStore,
        state: State,
        clock: IReactorTime,
        live: Callable[[], Raft | None],
        install: Install,
    ) -> None:
        self.received_count = 0
        self.failure = ""
        self._store = store
        self._state = state
        self._clock = clock
        self._live = live
        self._install = install
        self._incoming: Incoming | None = None
        self._is_restoring = False

    def accept(self, sender: str, offer: Snapshot) -> Deferred[Any]:
        """
        See `ITransport.start`.

        @raise ProtocolError: nobody should offer this here.
        """
        raft = self._live()
        if raft is None or sender != raft.leader_id:
            raise ProtocolError(f"{sender} does not lead this server")
        cluster_id = raft.membership.cluster_id
        if cluster_id and name_of(cluster_id) != name_of(offer.meta.cluster_id):
            raise ProtocolError(f"a snapshot of cluster {offer.meta.cluster_id!r}, but this is {cluster_id!r}")
        if offer.meta.last_term > raft.durable_state.term:
            raise ProtocolError(f"a snapshot of term {offer.meta.last_term} in term {raft.durable_state.term}")
        # What is only in memory may stay there until there is a newer snapshot: see `LogLimit`.
        if offer.meta.last_index <= min(raft.commit_index, raft.log.durable_index):
            return succeed(NotNeeded(offer, lambda: self._install(offer, None)))
        newest = next(iter(self._store.kept()), None)
        if newest is not None and newest.meta.last_index >= offer.meta.last_index and not self._is_restoring:
            # It has come, and could not be read when it was to become the state.
            return succeed(NotNeeded(offer, lambda: self._become(newest).addErrback(self.failed)))
        self.stop()
        place = self._store.receive(offer)
        return place.addCallbacks(lambda partial: self._begin(sender, offer, partial), self.failed)

    def _begin(self, sender: str, offer: Snapshot, partial: Any) -> Incoming:
        self.stop()
        self.failure = ""
        _log.info(
            "{sender} sends the snapshot at entry {index}: {size} bytes, of which {offset} are here",
            sender=sender,
            index=offer.meta.last_index,
            size=offer.size,
            offset=partial.offset,
        )
        self._incoming = Incoming(self, sender, offer, partial, self._clock.seconds())
        return self._incoming

    @inlineCallbacks
    def completed(self, snapshot: Snapshot) -> Generator[Deferred[Any], Any, Snapshot]:
        """A snapshot is durable here. If it is still news, its content becomes the state."""
        self.received_count += 1
        yield self._become(snapshot)
        return snapshot

    @inlineCallbacks
    def _become(self, snapshot: Snapshot) -> Generator[Deferred[Any], Any, None]:
        raft, restore = self._live(), None
        if raft is not None and snapshot.meta.last_index > raft.commit_index:
            self._is_restoring = True
            try:
                restore = yield prepare(self._store, self._state, snapshot)
            except StorageError:
                # If the disk has damaged it, it is kept no longer, and fetched again.
                yield self._store.check(snapshot)
                raise
            finally:
                self._is_restoring = False
        if self._live() is not None:
            self._install(snapshot, restore)

    def failed(self, failure: Failure) -> Failure:
        """Our disk does not take it, for want of room, say. The sender is told, and soon tries again: logged once."""
        if failure.check(StorageError):
            why = failure.getErrorMessage()
            if not self.failure:
                _log.error("no snapshot can be received: {why}", why=why)
            self.failure = why
        return failure

    def forget(self, incoming: Incoming) -> None:
        """It has ended."""
        if self._incoming is incoming:
            self._incoming = None

    def stop(self) -> None:
        """What is on its way is not taken any more; what has come of it is kept."""
        if self._incoming is not None:
            self._incoming.close()

    def status(self) -> list[TransferStatus]:
        """How far the one that is on its way has come."""
        return [self._incoming.status(self._clock.seconds())] if self._incoming is not None else []


@implementer(IPartialSnapshot)
class Incoming:
    """A snapshot from `sender`, until it is closed."""

    def __init__(self, receiving: SnapshotReceiving, sender: str, offer: Snapshot, partial: Any, began: float) -> None:
        self._receiving = receiving
        self._sender = sender
        self._offer = offer
        self._partial = partial
        self._began = began
        self._first_offset = partial.offset
        self._is_open = True

    @property
    def offset(self) -> int:
        offset: int = self._partial.offset
        return offset

    def append(self, offset: int, data: bytes) -> Deferred[int]:
        self._require_open()
        appended: Deferred[int] = self._partial.append(offset, data)
        return appended.addErrback(self._receiving.failed)

    def commit(self) -> Deferred[Snapshot]:
        self._require_open()
        committed: Deferred[Any] = self._partial.commit()
        return committed.addCallback(self._receiving.completed).addErrback(self._receiving.failed)

    def _require_open(self) -> None:
        if not self._is_open:
            raise ProtocolError("another snapshot has taken the place of this one")

    def close(self) -> Deferred[None]:
        if not self._is_open:
            return succeed(None)
        self._is_open = False
        self._receiving.forget(self)
        closed: Deferred[None] = self._partial.close()
        return closed

    def status(self, now: float) -> TransferStatus:
        """How far it has come."""
        return TransferStatus.of(self._sender, "from", self._offer, self.offset, now - self._began)


@implementer(IPartialSnapshot)
class NotNeeded:
    """A snapshot of what is here: as if it had come already. The sender must learn of that, or would send it again."""

    def __init__(self, offer: Snapshot, commit: Callable[[], object]) -> None:
        self.offset = offer.size
        self._offer = offer
        self._commit = commit

    def append(self, offset: int, data: bytes) -> Deferred[int]:
        raise ProtocolError("more than the whole snapshot")

    def commit(self) -> Deferred[Snapshot]:
        return maybeDeferred(self._commit).addCallback(lambda _: self._offer)

    def close(self) -> Deferred[None]:
        return succeed(None)


def install(raft: Raft, snapshot: Snapshot) -> bool:
    """
    See `txraft.core.snapshots.Snapshots.install`.

    @raise ProtocolError: no correct server sends it to this one.
    """
    try:
        return raft.snapshots.install(snapshot.meta)
    except InvalidMessage as error:
        raise ProtocolError(str(error)) from error
