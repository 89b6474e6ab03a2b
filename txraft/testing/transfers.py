"""Snapshots between simulated servers: in small chunks, over connections that break, to processes that die."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import attrs
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.errors import TransferFailed
from txraft.interfaces import ISnapshotReader, ISnapshotTransfer, Snapshot

if TYPE_CHECKING:
    from txraft.testing.network import Network, SimulatedTransport

CHUNK_BYTES = 1000
RETRY_S = 0.05
LAST_S = 0.2
"""By then all has arrived that was under way on a lost connection."""
PATIENCE_S = 20.0


@attrs.define(eq=False)
class _Connection:
    """`receiver` is None if nobody is there. Each end may learn later than the other that it is lost."""

    receiver: SimulatedTransport | None
    partial: Any = None
    is_up: bool = True
    """At the sender."""
    is_heard: bool = True
    """At the receiver."""
    late_s: float = 0.0
    """How much later what is under way arrives there once it is lost."""


@implementer(ISnapshotTransfer)
class SimulatedTransfer:
    """
    One snapshot on its way. What happens at either end happens when that process is awake, and never after its death.

    What comes of a connection that is lost is not looked at by the sender, and by the receiver until it notices that.
    """

    def __init__(
        self,
        network: Network,
        sender: SimulatedTransport,
        receiver_id: str,
        snapshot: Snapshot,
        reader: ISnapshotReader,
    ) -> None:
        self.done: Deferred[None] = Deferred()
        self.offset = 0
        self.has_arrived = False
        """The sender has been told that the receiver has it."""
        self._network = network
        sender.transfers.append(self)
        self.sender = sender
        self.receiver_id = receiver_id
        self.snapshot = snapshot
        self._reader = reader
        self._is_over = False
        self._progress_at = network.now()
        self._connection = self._connect()

    @property
    def is_wanted(self) -> bool:
        """It has not ended yet, in one way or the other."""
        return not self._is_over

    def involves(self, transport: SimulatedTransport) -> bool:
        """Whether this is one of the two processes."""
        return transport is self.sender or transport is self._connection.receiver

    def cancel(self) -> None:
        """See `ISnapshotTransfer`."""
        self._is_over = True
        self.break_off()

    def break_off(self) -> None:
        """The connection is lost; whoever is alive sees that, and the sender tries again."""
        connection = self._connection
        was_up, connection.is_up = connection.is_up, False
        if was_up:
            self._end_at_receiver(connection)
        if self._is_over or not self._network.is_attached(self.sender):
            self._network.transfers.pop(self, None)
        elif was_up:
            self._network.later(RETRY_S, lambda: self.sender.when_awake(self._retry))

    def _end_at_receiver(self, connection: _Connection) -> None:
        if self._is_over:
            # Whoever ends it says so.
            self._notice(connection)
            return
        connection.late_s = self._network.unnoticed()
        self._network.later(connection.late_s and connection.late_s + LAST_S, lambda: self._notice(connection))

    def _notice(self, connection: _Connection) -> None:
        """The receiver, if it is alive, learns that a connection is lost."""

        def end() -> None:
            connection.is_heard = False
            if connection.partial is not None:
                connection.partial.close()

        if connection.receiver is not None and self._network.is_attached(connection.receiver):
            connection.receiver.when_awake(end)

    def _retry(self) -> None:
        if self._is_over or not self._network.is_attached(self.sender):
            return
        if self._network.now() - self._progress_at > PATIENCE_S:
            self._end(TransferFailed("it gets nowhere"))
        else:
            self._connection = self._connect()

    def _end(self, failure: TransferFailed | None = None) -> None:
        self.cancel()
        if failure is None:
            self.has_arrived = True
            self.done.callback(None)
        else:
            self.done.errback(failure)

    # -- from one process to the other

    def _connect(self) -> _Connection:
        self._network.transfers[self] = None
        connection = _Connection(self._network.reached(self.sender, self.receiver_id))
        self._to_receiver(connection, lambda: self._offer(connection))
        return connection

    def _to_receiver(self, connection: _Connection, step: Callable[[], None]) -> None:
        self._carry(connection, connection.receiver, lambda: connection.is_heard, step)

    def _to_sender(self, connection: _Connection, step: Callable[[], None]) -> None:
        self._carry(connection, self.sender, lambda: connection.is_up, step)

    def _carry(
        self,
        connection: _Connection,
        there: SimulatedTransport | None,
        is_open: Callable[[], bool],
        step: Callable[[], None],
    ) -> None:
        network = self._network

        def arrive(is_late: bool = False) -> None:
            if not is_open():
                return
            is_there = there is not None and network.reached(self.sender, self.receiver_id) is connection.receiver
            if connection.is_up and (not is_there or network.is_unlucky()):
                self.break_off()
            if connection.is_up or is_late:
                if is_there and there is not None:
                    there.when_awake(lambda: step() if is_open() else None)
            else:
                network.later(connection.late_s, lambda: arrive(is_late=True))

        network.later(network.delay(), arrive)

    def _answer(self, connection: _Connection, waiting: Deferred[Any], then: Callable[[Any], None]) -> None:
        """Tell the sender what comes of it; not if the connection is lost by then."""

        def tell(result: Any) -> None:
            if not connection.is_up:
                return
            if isinstance(result, Failure):
                why = result.getErrorMessage()
                self._to_sender(connection, lambda: self._end(TransferFailed(f"refused there: {why}")))
            else:
                self._to_sender(connection, lambda: then(result))

        waiting.addBoth(tell)

    # -- at the receiver

    def _offer(self, connection: _Connection) -> None:
        assert connection.receiver is not None
        accepted = maybeDeferred(connection.receiver.accept, self.sender.server_id, self.snapshot)

        def begin(partial: Any) -> int:
            connection.partial = partial
            if not connection.is_heard:
                partial.close()
            offset: int = partial.offset
            return offset

        self._answer(connection, accepted.addCallback(begin), lambda offset: self._send(connection, offset))

    def _append(self, connection: _Connection, offset: int, data: bytes) -> None:
        self._network.trace(b"%s snapshot %d %s" % (self.receiver_id.encode(), offset, data))
        appended = maybeDeferred(connection.partial.append, offset, data)
        self._answer(connection, appended, lambda offset: self._send(connection, offset))

    def _commit(self, connection: _Connection) -> None:
        self._network.on_commit(self.sender.server_id, self.receiver_id)
        self._answer(connection, maybeDeferred(connection.partial.commit), lambda _: self._end())

    # -- at the sender

    def _send(self, connection: _Connection, offset: int) -> None:
        if offset > self.offset:
            self.offset, self._progress_at = offset, self._network.now()
        if offset == self.snapshot.size:
            self._to_receiver(connection, lambda: self._commit(connection))
            return

        def send(data: bytes) -> None:
            if connection.is_up:
                self._to_receiver(connection, lambda: self._append(connection, offset, data))

        def failed(failure: Failure) -> None:
            if connection.is_up:
                self._end(TransferFailed(failure.getErrorMessage()))

        self._reader.read(offset, CHUNK_BYTES).addCallbacks(send, failed)
