"""
A snapshot on its way to another server: a connection of its own, dialled again until all of it is there.

The receiver says how much it has on disk, and at most `WINDOW_BYTES` more than that are under way. So neither side
holds more in memory, a slow disk there slows the sender down, and what counts as progress is on a disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IAddress, IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.codec import (
    ConnectionRole,
    Hello,
    SnapshotData,
    SnapshotEnd,
    SnapshotFrame,
    SnapshotPosition,
    decode_snapshot_frame,
    encode_snapshot_frame,
)
from txraft.errors import ProtocolError, TransferFailed
from txraft.framing import frame
from txraft.interfaces import ISnapshotReader, ISnapshotTransfer, Snapshot
from txraft.net.dialling import CONNECT_S, FIRST_RETRY_S, LAST_RETRY_S, RETRY_JITTER_S, give_up
from txraft.net.handshake import MAX_HELLO_BYTES, Registry, quoted
from txraft.net.journal import Journal
from txraft.net.links import Link
from txraft.pace import Pace

CHUNK_BYTES = 1 << 17
WINDOW_BYTES = 8 * CHUNK_BYTES

MAX_REFUSAL = 500
"""So much of what a receiver says is logged."""

STALL_S = 120.0
"""A receiver that has not got any further for so long is given up. It verifies and restores within that time, too."""


@implementer(ISnapshotTransfer)
class SnapshotTransfer:
    """
    See `ISnapshotTransfer`.

    @param bandwidth: bytes a second; 0: as fast as it goes.
    """

    def __init__(
        self,
        reactor: Any,
        registry: Registry,
        journal: Journal,
        endpoint: Callable[[], IStreamClientEndpoint],
        receiver_id: str,
        snapshot: Snapshot,
        reader: ISnapshotReader,
        bandwidth: int,
        jitter: Callable[[], float],
    ) -> None:
        self.done: Deferred[None] = Deferred()
        self.offset = 0
        self.closed: Deferred[None] = Deferred()
        """Fires when no connection of this is left, and none will be."""
        self.reactor = reactor
        self.registry = registry
        self.receiver_id = receiver_id
        self.snapshot = snapshot
        self.reader = reader
        self.pace = Pace(reactor.seconds, bandwidth)
        self._journal = journal
        self._endpoint = endpoint
        self._retry_delay_s = backoffPolicy(FIRST_RETRY_S, LAST_RETRY_S, jitter=lambda: RETRY_JITTER_S * jitter())
        self._failures = 0
        self._is_over = False
        self._link: SendingLink | None = None
        self._attempt: Deferred[Any] = succeed(None)
        self._retry: IDelayedCall | None = None
        self._stall: IDelayedCall = reactor.callLater(STALL_S, self._stalled)
        self._dial()

    def cancel(self) -> None:
        """See `ISnapshotTransfer`."""
        self._end("no longer wanted")

    def _end(self, why: str) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._attempt.cancel()
        for call in (self._retry, self._stall):
            if call is not None and call.active():
                call.cancel()
        if self._link is not None:
            self._link.close(why)
        else:
            self.closed.callback(None)

    def fail(self, why: str) -> None:
        """There is no sense in going on."""
        if not self._is_over:
            self._end(why)
            self.done.errback(TransferFailed(why))

    def _stalled(self) -> None:
        self.fail(f"no progress for {STALL_S:g} s, at byte {self.offset} of {self.snapshot.size}")

    # -- connections

    def _dial(self) -> None:
        self._attempt = maybeDeferred(lambda: self._endpoint().connect(_Dialler(self)))
        self._attempt.addTimeout(CONNECT_S, self.reactor, give_up)
        self._attempt.addErrback(self._not_connected)

    def _not_connected(self, failure: Failure) -> None:
        if not self._is_over:
            self._down(f"cannot connect: {failure.getErrorMessage()}")

    def opened(self, link: SendingLink) -> None:
        """A connection is there."""
        self._link = link

    def lost(self, reason: str) -> None:
        """The connection is gone."""
        self._link = None
        if self._is_over:
            self.closed.callback(None)
        else:
            self._down(reason)

    def _down(self, reason: str) -> None:
        self._journal.say(f"snapshot to {self.receiver_id}", reason)
        self._retry = self.reactor.callLater(self._retry_delay_s(self._failures), self._dial)
        self._failures += 1

    # -- what the receiver says

    def reached(self, offset: int) -> None:
        """So much is there."""
        if offset > self.offset:
            self._failures = 0
            self._stall.reset(STALL_S)
        self.offset = offset

    def ended(self, refusal: str) -> None:
        """The receiver has all of it, or does not want it."""
        if refusal:
            self.fail(f"refused there: {refusal[:MAX_REFUSAL]!r}")
        elif not self._is_over:
            self._end("all of it is there")
            self.done.callback(None)


class _Dialler(Factory):
    noisy = False

    def __init__(self, transfer: SnapshotTransfer) -> None:
        self._transfer = transfer

    def buildProtocol(self, addr: IAddress | None) -> SendingLink:
        return SendingLink(self._transfer)


class SendingLink(Link):
    """One connection of a transfer. `_sent` is how far we have sent, the transfer's `offset` how far it is there."""

    def __init__(self, transfer: SnapshotTransfer) -> None:
        super().__init__(transfer.reactor)
        self._transfer = transfer
        self._sent: int | None = None
        self._is_reading = False
        self._wait: IDelayedCall | None = None

    def opened(self) -> None:
        transfer = self._transfer
        transfer.opened(self)
        self.transport.write(transfer.registry.hello_to(transfer.receiver_id, role=ConnectionRole.SNAPSHOT))

    def hello_received(self, hello: Hello) -> None:
        transfer = self._transfer
        refusal = f"refused there: {quoted(hello.refusal)}" if hello.refusal else transfer.registry.refusal_of(hello)
        if refusal is None and hello.server_id != transfer.receiver_id:
            refusal = f"{quoted(hello.server_id)} answers there"
        if refusal is None and hello.role != ConnectionRole.SNAPSHOT:
            refusal = f"{quoted(hello.server_id)} takes no snapshots"
        if refusal is not None:
            self.close(refusal)
            return
        self.accept(hello, MAX_HELLO_BYTES)
        self._write(transfer.snapshot)

    def _write(self, what: SnapshotFrame) -> None:
        self.transport.write(frame(encode_snapshot_frame(what)))

    def frames_received(self, frames: list[bytes]) -> None:
        for payload in frames:
            said = decode_snapshot_frame(payload)
            if isinstance(said, SnapshotPosition):
                self._moved(said.offset)
            elif isinstance(said, SnapshotEnd):
                self._transfer.ended(said.refusal)
            else:
                raise ProtocolError(f"a receiver sends a {type(said).__name__}")

    def _moved(self, offset: int) -> None:
        if self._sent is None:
            self._sent = offset
        if offset > min(self._sent, self._transfer.snapshot.size):
            raise ProtocolError(f"byte {offset} is there, but {self._sent} were sent")
        self._transfer.reached(offset)
        self._go_on()

    def _go_on(self) -> None:
        """Read and send what comes next, if it may be sent now."""
        transfer, sent = self._transfer, self._sent
        is_waiting = self._is_reading or (self._wait is not None and self._wait.active())
        if sent is None or is_waiting or not self.is_up:
            return
        if sent >= transfer.snapshot.size or sent - transfer.offset >= WINDOW_BYTES:
            return
        wait_s = transfer.pace.wait_s()
        if wait_s > 0:
            self._wait = self.reactor.callLater(wait_s, self._go_on)
            return
        self._is_reading = True
        data = transfer.reader.read(sent, transfer.pace.piece(CHUNK_BYTES))
        data.addCallbacks(self._send, self._cannot_read, (sent,))

    def _send(self, data: bytes, offset: int) -> None:
        self._is_reading = False
        if self.is_up:
            if not data:
                self._transfer.fail(f"the file ends at byte {offset}")
                return
            self._sent = offset + len(data)
            self._transfer.pace.sent(len(data))
            self._write(SnapshotData(offset, data))
            self._go_on()

    def _cannot_read(self, failure: Failure) -> None:
        self._transfer.fail(failure.getErrorMessage())

    def ended(self, reason: str) -> None:
        if self._wait is not None and self._wait.active():
            self._wait.cancel()
        self._transfer.lost(reason)
