"""The kv machine's listening port as a Twisted service."""

from __future__ import annotations

from itertools import count
from typing import Any

from twisted.application import strports
from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory

from txraft.machines.kv_local import Session, Surroundings
from txraft.machines.kv_server import Bounds, KeyValueProtocol


class KeyValueFactory(Factory):
    """Makes and knows the connections; at most `max_connections` at a time, any more are told so and closed."""

    noisy = False

    def __init__(self, surroundings: Surroundings, bounds: Bounds, max_connections: int) -> None:
        self._surroundings = surroundings
        self._bounds = bounds
        self._max_connections = max_connections
        self._ids = count(1)
        self._protocols: dict[int, KeyValueProtocol] = {}
        self._all_gone: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> KeyValueProtocol:
        address = f"{getattr(addr, 'host', '')}:{getattr(addr, 'port', '')}"
        session = Session(next(self._ids), address, self._surroundings)
        protocol = KeyValueProtocol(session, self._bounds, self._made, self._lost)
        protocol.factory = self
        return protocol

    def _made(self, protocol: KeyValueProtocol, session: Session) -> bool:
        is_welcome = len(self._surroundings.sessions) < self._max_connections and self._all_gone is None
        self._protocols[session.id] = protocol
        if is_welcome:
            self._surroundings.sessions[session.id] = session
        return is_welcome

    def _lost(self, protocol: KeyValueProtocol, session: Session) -> None:
        self._surroundings.sessions.pop(session.id, None)
        del self._protocols[session.id]
        if self._all_gone is not None and not self._protocols:
            self._all_gone.callback(None)

    def finish(self) -> Deferred[None]:
        """
        Close each connection as soon as its requests are answered; fires when all are closed.

        That takes as long as the node takes to answer, and as its clients take to read their last replies.
        """
        gone: Deferred[None] = Deferred()
        self._all_gone = gone
        for protocol in list(self._protocols.values()):
            protocol.finish()
        if not self._protocols and not gone.called:
            gone.callback(None)
        return gone


class KeyValueService(MultiService):
    """Listens at `endpoint`, an endpoint string, and lets the other servers send clients to `client_address`."""

    def __init__(self, node: Any, factory: KeyValueFactory, endpoint: str, client_address: str) -> None:
        super().__init__()
        self._node = node
        self._factory = factory
        self._client_address = client_address
        strports.service(endpoint, factory).setServiceParent(self)

    def startService(self) -> None:
        """
        Listen, unless `privilegedStartService` has done so already.

        @raise twisted.internet.error.CannotListenError: the port is in use, or not ours to use.
        """
        super().startService()
        self._node.advertise(client_address=self._client_address)

    def stopService(self) -> Deferred[Any]:
        """Listen no more, answer what is under way, close."""
        closed = maybeDeferred(super().stopService)
        return gatherResults([closed, self._factory.finish()])
