"""The manhole's ports as Twisted services."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import attrs
from twisted.application.service import Service
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReactorTime, IStreamServerEndpoint
from twisted.internet.protocol import Factory

from txraft.admin.connections import Connections
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

        return ManholeService(port, make_factory, self.max_connections, self.clock)

    def by_ssh(self, port: IStreamServerEndpoint, host_key: str, authorized_keys: str) -> ManholeService:
        """
        A host key is made when the service starts, if there is none.

        @raise ConfigError: a file cannot be used, or what the extra `ssh` brings is not installed.
        """
        try:
            from txraft.admin.manhole import keys, ssh
        except ModuleNotFoundError as error:
            package = str(error.name).partition(".")[0]
            problem = f"manhole_ssh_port: {package} is not installed: pip install 'txraft[ssh]'"
            raise ConfigError(problem) from error
        keys.read_authorized_keys(authorized_keys)
        keys.read_host_key(host_key)

        def make_factory() -> Factory:
            verbs = Verbs(self.operations)
            surroundings = ssh.Surroundings(verbs, self._make_terminal(verbs), self.clock)
            key = keys.read_host_key(host_key) or keys.make_host_key(host_key)
            return ssh.SSHFactory(key, authorized_keys, surroundings)

        return ManholeService(port, make_factory, self.max_connections, self.clock)

    def _make_terminal(self, verbs: Verbs) -> MakeTerminal:
        def make(user: User) -> Any:
            return _TERMINALS[self.mode](user, verbs, self.clock)

        return make


class ManholeService(Service):
    """One way into the manhole. `make_factory` is called as the service starts, when the data directory is there."""

    def __init__(
        self,
        port: IStreamServerEndpoint,
        make_factory: Callable[[], Factory],
        max_connections: int,
        clock: IReactorTime,
    ) -> None:
        self._port = port
        self._make_factory = make_factory
        self._max_connections = max_connections
        self._clock = clock
        self._connections: Connections | None = None
        self._listening: IListeningPort | None = None

    def startService(self) -> None:
        """
        Serve the port.

        @raise ConfigError: a file cannot be used. @raise OSError: the host key cannot be written.
        """
        super().startService()
        self._connections = Connections(self._make_factory(), self._max_connections)
        self._port.listen(self._connections).addCallback(self._listens)

    def _listens(self, listening: IListeningPort) -> None:
        self._listening = listening

    def stopService(self) -> Deferred[Any]:
        """Listen no more, and close what is open."""
        super().stopService()
        listening, self._listening = self._listening, None
        if listening is None or self._connections is None:
            return gatherResults([])
        return gatherResults([maybeDeferred(listening.stopListening), self._connections.finish(self._clock)])
