"""
What stands around the node in a process of its own: a port that is taken before anything is created, and an end of the
process, with status 1 and one line, when the node cannot start or has failed.
"""

from __future__ import annotations

import atexit
import os
import socket
import sys
from collections.abc import Callable
from typing import Any, NoReturn

from twisted.application.service import MultiService, Service
from twisted.internet.defer import Deferred, execute
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IListeningPort, IProtocolFactory, IStreamServerEndpoint
from twisted.logger import Logger
from zope.interface import implementer

from txraft.errors import FatalError, TxraftError
from txraft.net.addresses import format_address
from txraft.node import RaftNode

log = Logger()


class StartFailure(SystemExit, Exception):
    """
    A server that cannot start; the log has said why.

    twistd cleans up after it as after any `Exception` (the pid file, the waiting parent of a daemon, who is told), and
    Python ends the process as after any `SystemExit`, here with status 1: no traceback follows the one clear line.
    """

    def __init__(self, problem: str) -> None:
        super().__init__(problem)
        self.code = 1


def exit_with_status_1() -> None:
    """Make the process end with status 1 once the reactor has stopped and twistd has cleaned up."""
    # twistd has no other way: it ignores what the reactor's end raises, and returns.
    atexit.register(_exit_now)


def _exit_now() -> NoReturn:
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(1)


class ServerService(MultiService):
    """
    One server of a cluster as a process of its own: its node and what belongs to it, as children.

    Its children are `Part`s. A node that fails when it has started stops the reactor.
    """

    def __init__(self, reactor: Any, node: RaftNode, fail_process: Callable[[], None] = exit_with_status_1) -> None:
        super().__init__()
        self._reactor = reactor
        self._node = node
        self._fail_process = fail_process

    def startService(self) -> None:
        """Start the children, and watch the node."""
        super().startService()
        self._node.when_failed().addCallback(self._failed)

    def _failed(self, error: FatalError) -> None:
        log.critical("this server has failed and stops: {error}", error=str(error))
        self._fail_process()
        # Not reactor.stop() at once: the node may fail before the reactor runs.
        self._reactor.callWhenRunning(self._reactor.stop)


class Part(MultiService):
    """
    What must start for the server to start, as its children; if one cannot, that ends the start with `StartFailure`.

    `where` is the line of raft.conf that asked for what they need; empty if none did.
    """

    def __init__(self, where: str) -> None:
        super().__init__()
        self._where = where

    def privilegedStartService(self) -> None:
        """Take the ports."""
        self._try(super().privilegedStartService)

    def startService(self) -> None:
        """Start the children."""
        self._try(super().startService)

    def _try(self, start: Callable[[], None]) -> None:
        try:
            start()
        except (TxraftError, OSError, CannotListenError) as error:
            problem = f"{self._where}: {error}" if self._where else str(error)
            log.critical("cannot start: {problem}", problem=problem)
            raise StartFailure(f"cannot start: {problem}") from error


@implementer(IStreamServerEndpoint)
class ReservedPort(Service):
    """
    A TCP port that is bound as the service starts, and served once `listen` is called.

    The node listens only when its data directory is open; a port that is in use must be found out before anything is
    created there.
    """

    def __init__(self, reactor: Any, host: str, port: int) -> None:
        self._reactor = reactor
        self._host = host
        self._port = port
        self._socket: socket.socket | None = None

    def privilegedStartService(self) -> None:
        """
        Bind the port.

        @raise CannotListenError: it is in use, or not ours to bind.
        """
        try:
            family, *_, address = socket.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)[0]
            self._socket = socket.create_server(address, family=family, backlog=50)
        except OSError as error:
            # create_server says the address once more; what it repeats is in its error's context.
            raise CannotListenError(self._host, self._port, error.__context__ or error) from error

    def startService(self) -> None:
        """Bind the port, if that was not done while the process still had the right to."""
        super().startService()
        if self._socket is None:
            self.privilegedStartService()

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Serve connections, also those that came since the port was bound."""
        return execute(self._adopt, protocolFactory)

    def _adopt(self, factory: IProtocolFactory) -> IListeningPort:
        reserved, self._socket = self._socket, None
        assert reserved is not None, f"{format_address(self._host, self._port)} is not bound, or served already"
        with reserved:
            # The reactor works on a duplicate of its own.
            reserved.setblocking(False)
            port: IListeningPort = self._reactor.adoptStreamPort(reserved.fileno(), reserved.family, factory)
            return port

    def stopService(self) -> None:
        """Let go of a port that was bound and never served."""
        super().stopService()
        if self._socket is not None:
            self._socket.close()
            self._socket = None
