"""The connections to a port: so many at a time, and an end to all of them."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress, IReactorTime
from twisted.internet.protocol import Factory
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from txraft.net.addresses import format_address

CLOSE_S = 1.0
"""What is left to send may take this long at the end; then the connection is cut."""


def peer_name(address: object) -> str:
    """Where a connection comes from, as host:port, for the log."""
    host, port = getattr(address, "host", None), getattr(address, "port", None)
    return format_address(host, port) if host and port else str(address)


class Connections(WrappingFactory):
    """Bounds, counts and ends the connections to another factory; one too many is closed at once."""

    noisy = False

    def __init__(self, factory: Factory[Any], max_connections: int) -> None:
        super().__init__(factory)
        self._max_connections = max_connections
        self._all_gone: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        is_welcome = len(self.protocols) < self._max_connections and self._all_gone is None
        return super().buildProtocol(addr) if is_welcome else None

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)
        if self._all_gone is not None and not self.protocols:
            self._all_gone.callback(None)

    def finish(self, clock: IReactorTime) -> Deferred[None]:
        """Close all connections; fires when they are gone."""
        gone: Deferred[None] = Deferred()
        self._all_gone = gone
        for protocol in list(self.protocols):
            protocol.loseConnection()
        if not self.protocols:
            if not gone.called:
                gone.callback(None)
            return gone
        cut = clock.callLater(CLOSE_S, self._cut)

        def forget(_: None) -> None:
            if cut.active():
                cut.cancel()

        return gone.addCallback(forget)

    def _cut(self) -> None:
        for protocol in list(self.protocols):
            protocol.abortConnection()
