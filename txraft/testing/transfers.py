"""Snapshots between simulated servers: in small chunks, over connections that break, to processes that die."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.errors import TransferFailed
from txraft.interfaces import ISnapshotReader, ISnapshotTransfer, Snapshot

if TYPE_CHECKING:
    from txraft.testing.network import Network, SimulatedTransport

CHUNK_BYTES = 1000
RETRY_S = 0.2
PATIENCE_S = 20.0


@implementer(ISnapshotTransfer)
class SimulatedTransfer:
    """
    One snapshot on its way. What happens at either end happens when that process is awake, and never after its death.

    A connection is numbered: whatever still comes of one that is broken is not looked at.
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
        self._receiver: SimulatedTransport | None = None
        self.snapshot = snapshot
        self._reader = reader
        self._partial: Any = None
        self._connection = 0
        self._is_over = False
        self._progress_at = network.now()
        self._connect()

    @property
    def is_wanted(self) -> bool:
        """It has not ended yet, in one way or the other."""
        return not self._is_over

    def involves(self, transport: SimulatedTransport) -> bool:
        """Whether this is one of the two processes."""
        return transport is self.sender or transport is self._receiver

    def cancel(self) -> None:
        """See `ISnapshotTransfer`."""
        self._is_over = True
        self.break_off()

    def break_off(self) -> None:
        """The connection is lost; whoever is alive sees that, and the sender tries again."""
        self._connection += 1
        partial, receiver, self._partial, self._receiver = self._partial, self._receiver, None, None
        if partial is not None and receiver is not None and self._network.is_attached(receiver):
            receiver.when_awake(partial.close)
        if self._is_over or not self._network.is_attached(self.sender):
            self._network.transfers.pop(self, None)
        else:
            self._network.later(RETRY_S, lambda: self.sender.when_awake(self._retry))

    def _retry(self) -> None:
        if self._is_over or not self._network.is_attached(self.sender):
            return
        if self._network.now() - self._progress_at > PATIENCE_S:
            self._end(TransferFailed("it gets nowhere"))
        else:
            self._connect()

    def _end(self, failure: TransferFailed | None = None) -> None:
        self.cancel()
        if failure is None:
            self.has_arrived = True
            self.done.callback(None)
        else:
            self.done.errback(failure)

    # -- from one process to the other

    def _connect(self) -> None:
        self._network.transfers[self] = None
        self._connection += 1
        self._receiver = self._network.reached(self.sender, self.receiver_id)
        self._to_receiver(self._offer)

    def _to_receiver(self, step: Callable[[], None]) -> None:
        self._carry(lambda: self._receiver, step)

    def _to_sender(self, step: Callable[[], None]) -> None:
        self._carry(lambda: self.sender, step)

    def _carry(self, to: Callable[[], SimulatedTransport | None], step: Callable[[], None]) -> None:
        connection = self._connection

        def arrive() -> None:
            there = to()
            if connection != self._connection:
                return
            is_same = self._network.reached(self.sender, self.receiver_id) is self._receiver
            if there is None or not is_same or self._network.is_unlucky():
                self.break_off()
            else:
                there.when_awake(lambda: step() if connection == self._connection else None)

        self._network.later(self._network.delay(), arrive)

    def _answer(self, waiting: Deferred[Any], then: Callable[[Any], None]) -> None:
        """Tell the sender what comes of it; not if the connection is lost by then."""
        connection = self._connection

        def tell(result: Any) -> None:
            if connection != self._connection:
                return
            if isinstance(result, Failure):
                why = result.getErrorMessage()
                self._to_sender(lambda: self._end(TransferFailed(f"refused there: {why}")))
            else:
                then(result)

        waiting.addBoth(tell)

    # -- at the receiver

    def _offer(self) -> None:
        assert self._receiver is not None
        connection = self._connection
        accepted = maybeDeferred(self._receiver.accept, self.sender.server_id, self.snapshot)

        def begin(partial: Any) -> Any:
            if connection != self._connection:
                partial.close()
            return partial

        self._answer(accepted.addCallback(begin), self._accepted)

    def _accepted(self, partial: Any) -> None:
        self._partial = partial
        offset = partial.offset
        self._to_sender(lambda: self._send(offset))

    def _append(self, offset: int, data: bytes) -> None:
        self._network.trace(b"%s snapshot %d %s" % (self.receiver_id.encode(), offset, data))
        appended = maybeDeferred(self._partial.append, offset, data)
        self._answer(appended, lambda offset: self._to_sender(lambda: self._send(offset)))

    def _commit(self) -> None:
        self._network.on_commit(self.sender.server_id, self.receiver_id)
        self._answer(maybeDeferred(self._partial.commit), lambda _: self._to_sender(self._end))

    # -- at the sender

    def _send(self, offset: int) -> None:
        if offset > self.offset:
            self.offset, self._progress_at = offset, self._network.now()
        if offset == self.snapshot.size:
            self._to_receiver(self._commit)
            return
        connection = self._connection

        def send(data: bytes) -> None:
            if connection == self._connection:
                self._to_receiver(lambda: self._append(offset, data))

        def failed(failure: Failure) -> None:
            if connection == self._connection:
                self._end(TransferFailed(failure.getErrorMessage()))

        self._reader.read(offset, CHUNK_BYTES).addCallbacks(send, failed)
