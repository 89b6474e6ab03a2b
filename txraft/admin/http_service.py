"""The admin HTTP as a Twisted service: serves a port that is bound already, and ends when everybody is answered."""

from __future__ import annotations

import socket
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint

from txraft.admin.connections import Connections
from txraft.admin.http_gate import Gate
from txraft.admin.http_site import AdminSite, make_resource
from txraft.admin.operations import Operations
from txraft.net.addresses import parse_address

MAX_CONNECTIONS = 200
"""At a time; the next one is closed at once. A request that waits for a change holds one."""


def host_names(server_id: str, admin_address: str) -> frozenset[str]:
    """The names by which this server is called, beside `localhost` and IP addresses."""
    hosts = [parse_address(address, None)[0] for address in (server_id, admin_address) if address]
    return frozenset([*hosts, socket.gethostname().lower()])


class AdminService(Service):
    """
    Serves `operations` at `endpoint` to those whom `gate` lets pass, and lets the other servers send operators to
    `admin_address`; empty: to nowhere. `bandwidth` is that of each file that is sent, see `txraft.pace.Pace`.
    """

    def __init__(
        self,
        reactor: Any,
        operations: Operations,
        gate: Gate,
        endpoint: IStreamServerEndpoint,
        admin_address: str,
        bandwidth: int,
    ) -> None:
        self._reactor = reactor
        self._operations = operations
        self._endpoint = endpoint
        self._admin_address = admin_address
        self._resource = make_resource(operations, gate, reactor, bandwidth)
        self._connections = Connections(AdminSite(self._resource, reactor), MAX_CONNECTIONS)
        self._port: IListeningPort | None = None

    def startService(self) -> None:
        """Serve the port."""
        super().startService()
        self._endpoint.listen(self._connections).addCallback(self._listens)
        self._operations.node.advertise(admin_address=self._admin_address)

    def _listens(self, port: IListeningPort) -> None:
        self._port = port

    def stopService(self) -> Deferred[Any]:
        """Listen no more, answer what is under way, which the end of the node decides, but send no file, and close."""
        super().stopService()
        port, self._port = self._port, None
        if port is None:
            return gatherResults([])
        closed = maybeDeferred(port.stopListening)
        self._resource.cut_files()
        answered = self._resource.when_idle().addCallback(lambda _: self._connections.finish(self._reactor))
        return gatherResults([closed, answered])
