"""The admin HTTP as a Twisted service: serves a port that is bound already, and ends when everybody is answered."""

from __future__ import annotations

import socket
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, IStreamServerEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from txraft.admin.http_gate import Gate
from txraft.admin.http_site import AdminSite, make_resource
from txraft.admin.operations import Operations
from txraft.net.addresses import parse_address

MAX_CONNECTIONS = 200
"""At a time; the next one is closed at once. A request that waits for a change holds one."""

CLOSE_S = 1.0
"""What is left to send may take this long at the end; then the connection is cut."""


def host_names(server_id: str, admin_address: str) -> frozenset[str]:
    """The names by which this server is called, beside `localhost` and IP addresses."""
    hosts = [parse_address(address, None)[0] for address in (server_id, admin_address) if address]
    return frozenset([*hosts, socket.gethostname().lower()])


class _Connections(WrappingFactory):
    """Counts and ends the connections to a site."""

    noisy = False

    def __init__(self, site: AdminSite) -> None:
        super().__init__(site)
        self._all_gone: Deferred[None] | None = None

    def buildProtocol(self, addr: IAddress | None) -> Any:
        is_welcome = len(self.protocols) < MAX_CONNECTIONS and self._all_gone is None
        return super().buildProtocol(addr) if is_welcome else None

    def unregisterProtocol(self, p: ProtocolWrapper) -> None:
        super().unregisterProtocol(p)
        if self._all_gone is not None and not self.protocols:
            self._all_gone.callback(None)

    def finish(self, reactor: Any) -> Deferred[None]:
        """Close all connections; fires when they are gone."""
        gone: Deferred[None] = Deferred()
        self._all_gone = gone
        for protocol in list(self.protocols):
            protocol.loseConnection()
        if not self.protocols:
            if not gone.called:
                gone.callback(None)
            return gone
        cut = reactor.callLater(CLOSE_S, self._cut)

        def forget(_: None) -> None:
            if cut.active():
                cut.cancel()

        return gone.addCallback(forget)

    def _cut(self) -> None:
        for protocol in list(self.protocols):
            protocol.abortConnection()


class AdminService(Service):
    """
    Serves `operations` at `endpoint` to those whom `gate` lets pass, and lets the other servers send operators to
    `admin_address`; empty: to nowhere.
    """

    def __init__(
        self, reactor: Any, operations: Operations, gate: Gate, endpoint: IStreamServerEndpoint, admin_address: str
    ) -> None:
        self._reactor = reactor
        self._operations = operations
        self._endpoint = endpoint
        self._admin_address = admin_address
        self._resource = make_resource(operations, gate)
        self._connections = _Connections(AdminSite(self._resource, reactor))
        self._port: IListeningPort | None = None

    def startService(self) -> None:
        """Serve the port."""
        super().startService()
        self._endpoint.listen(self._connections).addCallback(self._listens)
        self._operations.node.advertise(admin_address=self._admin_address)

    def _listens(self, port: IListeningPort) -> None:
        self._port = port

    def stopService(self) -> Deferred[Any]:
        """Listen no more, answer what is under way, which the end of the node decides, and close."""
        super().stopService()
        port, self._port = self._port, None
        if port is None:
            return gatherResults([])
        closed = maybeDeferred(port.stopListening)
        answered = self._resource.when_idle().addCallback(lambda _: self._connections.finish(self._reactor))
        return gatherResults([closed, answered])
