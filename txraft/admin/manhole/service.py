"""The manhole's ports as Twisted services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from txraft.admin.manhole.conversation import User
from txraft.admin.manhole.login import Gatekeeper, RunInThread
from txraft.admin.manhole.passwords import read_passwords
from txraft.admin.manhole.python_mode import PythonTerminal
from txraft.admin.manhole.telnet import TelnetFactory
from txraft.admin.manhole.terminal import AdminTerminal, MakeTerminal
from txraft.admin.manhole.verbs import Verbs
from txraft.admin.operations import Operations
from txraft.errors import ConfigError

_TERMINALS = {"admin": AdminTerminal, "python": PythonTerminal}


@attrs.frozen
class Manhole:
    """What the ways in have in common. `mode` is that of `manhole_mode`."""

    operations: Operations
    clock: IReactorTime
    mode: str
    max_connections: int

    def by_telnet(self, port: IStreamServerEndpoint, password_file: str, run_in_thread: RunInThread) -> ManholeService:
        """
        @param run_in_thread: runs a function elsewhere than in the reactor's thread.
        @raise ConfigError: the password file cannot be used.
        """
        read_passwords(password_file)
        gatekeeper = Gatekeeper(password_file, self.clock, run_in_thread)

        def make_factory() -> Factory:
            return TelnetFactory(gatekeeper, self._make_terminal(Verbs(self.operations)), self.clock)

        return ManholeService(port, make_factory, self.max_connections)

    def by_ssh(self, port: IStreamServerEndpoint, host_key: str, authorized_keys: str) -> ManholeService:
        """
        A host key is made when the service starts, if there is none.

        @raise ConfigError: a file cannot be used, or what the extra `ssh` brings is not installed.
        """
        try:
            from txraft.admin.manhole import keys, ssh
        except ImportError as error:
            problem = f"manhole_ssh_port: {error.name} is not installed: pip install 'txraft[ssh]'"
            raise ConfigError(problem) from error
        keys.read_authorized_keys(authorized_keys)
        keys.read_host_key(host_key)

        def make_factory() -> Factory:
            verbs = Verbs(self.operations)
            surroundings = ssh.Surroundings(verbs, self._make_terminal(verbs), self.clock)
            key = keys.read_host_key(host_key) or keys.make_host_key(host_key)
            return ssh.SSHFactory(key, authorized_keys, surroundings)

        return ManholeService(port, make_factory, self.max_connections)

    def _make_terminal(self, verbs: Verbs) -> MakeTerminal:
        def make(user: User) -> Any:
            return _TERMINALS[self.mode](user, verbs, self.clock)

        return make


class BoundedFactory(WrappingFactory[ProtocolWrapper]):
    """So many connections and no more; any other is closed at once."""

    noisy = False

    _log = Logger()

    def __init__(self, wrapped: Factory, max_connections: int) -> None:
        super().__init__(wrapped)
        self._max_connections = max_connections

    def buildProtocol(self, addr: IAddress | None) -> Any:
        if len(self.protocols) >= self._max_connections:
            self._log.warn("manhole: manhole_max_connections = {limit} reached", limit=self._max_connections)
            return None
        return super().buildProtocol(addr)

    def close(self) -> None:
        """Close every connection."""
        for protocol in list(self.protocols):
            protocol.loseConnection()


class ManholeService(Service):
    """One way into the manhole. `make_factory` is called as the service starts, when the data directory is there."""

    def __init__(self, port: IStreamServerEndpoint, make_factory: Callable[[], Factory], max_connections: int) -> None:
        self._port = port
        self._make_factory = make_factory
        self._max_connections = max_connections
        self._factory: BoundedFactory | None = None
        self._listening: IListeningPort | None = None

    def startService(self) -> None:
        """
        Serve the port.

        @raise ConfigError: a file cannot be used. @raise OSError: the host key cannot be written.
        """
        super().startService()
        self._factory = BoundedFactory(self._make_factory(), self._max_connections)
        self._port.listen(self._factory).addCallback(self._listens)

    def _listens(self, listening: IListeningPort) -> None:
        self._listening = listening

    def stopService(self) -> Deferred[Any]:
        """Listen no more, and close what is open."""
        super().stopService()
        listening, self._listening = self._listening, None
        if self._factory is not None:
            self._factory.close()
        return maybeDeferred(listening.stopListening if listening is not None else lambda: None)
