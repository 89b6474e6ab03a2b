"""What both ends of a connection between servers share: framing, the handshake's deadline, and how it ends."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IDelayedCall, ISystemHandle, ITCPTransport
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from txraft.codec import Hello, decode_hello
from txraft.errors import ProtocolError
from txraft.framing import FramingError, Splitter
from txraft.net.addresses import format_address
from txraft.net.handshake import MAX_HELLO_BYTES

HANDSHAKE_S = 5.0
CLOSE_S = 1.0
"""What is left to send may take this long when we close; then the connection is cut."""

STABLE_S = 5.0
"""A link that lasted this long was in order; one that did not is retried more and more slowly, and quietly."""

_SOCKET_OPTIONS = {
    # A peer that vanished without a word is given up after 10 s of unacknowledged data, not after 15 minutes...
    "TCP_USER_TIMEOUT": 10_000,
    # ...and after about as long on a link that only receives, not after 2 hours.
    "TCP_KEEPIDLE": 5,
    "TCP_KEEPINTVL": 2,
    "TCP_KEEPCNT": 3,
}


def tune(transport: Any) -> None:
    """No delay, and early notice of a dead peer, as far as the transport is TCP and the platform can."""
    if ITCPTransport.providedBy(transport):
        transport.setTcpNoDelay(True)
        transport.setTcpKeepAlive(True)
    handle = transport.getHandle() if ISystemHandle.providedBy(transport) else None
    if isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6):
        for name, value in _SOCKET_OPTIONS.items():
            if hasattr(socket, name):
                handle.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)


def describe_address(address: IAddress | None) -> tuple[str, str]:
    """The host alone, and the whole address, of a connection's other end."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    return (host, format_address(host, port)) if host and port else (str(address), str(address))


class Link(Protocol):
    """
    One connection. Reads frames; the first must be a hello, and in time.

    Once closed by us it is deaf: what the other side still sends is not looked at. `closed` fires when it is gone.
    """

    transport: Any

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.closed: Deferred[None] = Deferred()
        self.hello: Hello | None = None
        """The other side's, once it is accepted."""
        self._splitter = Splitter(MAX_HELLO_BYTES)
        self._deadline: IDelayedCall | None = None
        self._reason = ""
        self._up_since: float | None = None

    # For subclasses

    def opened(self) -> None:
        """The connection is there."""

    def hello_received(self, hello: Hello) -> None:
        """The other side has introduced itself: call `accept` or `close`."""
        raise NotImplementedError

    def frames_received(self, frames: list[bytes]) -> None:
        """All frames of one read behind the hello. May raise `ProtocolError`, which closes the link."""
        raise NotImplementedError

    def ended(self, reason: str) -> None:
        """The connection is gone. Called once."""
        raise NotImplementedError

    # For owners

    @property
    def is_up(self) -> bool:
        """Hands are shaken, and we have not closed it."""
        return self.hello is not None and not self._reason

    @property
    def was_stable(self) -> bool:
        return self._up_since is not None and self.reactor.seconds() - self._up_since >= STABLE_S

    def accept(self, hello: Hello, max_frame_bytes: int) -> None:
        """Hands are shaken; from now on frames may be as large as this."""
        self._end_deadline()
        self._splitter.max_frame_bytes = max_frame_bytes
        self._up_since = self.reactor.seconds()
        self.hello = hello

    def close(self, reason: str) -> None:
        """End the connection for this reason; what was written still goes out, if it does so soon."""
        if self._reason:
            return
        self._reason = reason
        self._end_deadline()
        self._deadline = self.reactor.callLater(CLOSE_S, self.transport.abortConnection)
        self.transport.loseConnection()

    # Called by Twisted

    def connectionMade(self) -> None:
        tune(self.transport)
        self._deadline = self.reactor.callLater(HANDSHAKE_S, self.close, f"no handshake within {HANDSHAKE_S:g} s")
        self.opened()

    def dataReceived(self, data: bytes) -> None:
        if self._reason:
            return
        try:
            frames = self._splitter.feed(data)
            if frames and self.hello is None:
                self.hello_received(decode_hello(frames.pop(0)))
            if frames and not self._reason:
                self.frames_received(frames)
        except (FramingError, ProtocolError) as problem:
            self.close(str(problem))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._end_deadline()
        # Also for a connection that was lost without our closing it: nothing that still refers to it may use it.
        self._reason = self._reason or reason.getErrorMessage()
        self.ended(self._reason)
        self.closed.callback(None)

    def _end_deadline(self) -> None:
        if self._deadline is not None and self._deadline.active():
            self._deadline.cancel()
