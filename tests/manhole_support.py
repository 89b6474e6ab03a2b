"""For tests of the manhole: a prompt over a simulated cluster, by a telnet connection that is made of strings."""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.defer import execute
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, eventAsText, globalLogPublisher

from txraft.admin.manhole.login import Gatekeeper
from txraft.admin.manhole.passwords import PasswordHash
from txraft.admin.manhole.telnet import TelnetConsole, TelnetFactory
from txraft.admin.manhole.terminal import AdminTerminal
from txraft.admin.manhole.verbs import Verbs
from txraft.admin.operations import Operations
from txraft.testing.cluster import Cluster

USER, PASSWORD = "alice", b"correct horse"
_NOT_TEXT = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]|\xff[\xfb-\xfe].|\xff\xfa.*?\xff\xf0", re.DOTALL)


def password_file(directory: pathlib.Path, text: str | None = None) -> str:
    """A file in which the one user has the one password, at little cost; or one with that text."""
    path = directory / "passwords"
    path.write_text(f"# people\n\n{USER}:{PasswordHash.of(PASSWORD, cost=2)}\n" if text is None else text)
    os.chmod(path, 0o600)
    return str(path)


def seen(data: bytes) -> str:
    """What is seen of it on a terminal, without where it is seen."""
    return _NOT_TEXT.sub(b"", data).decode().replace("\r\n", "\n").replace("\r", "\n")


@contextmanager
def log_texts() -> Iterator[list[str]]:
    """What is written to the log meanwhile, all that stands in it."""
    found: list[str] = []

    def observe(event: LogEvent) -> None:
        found.append(f"{eventAsText(event)} {sorted((name, repr(value)) for name, value in event.items())}")

    globalLogPublisher.addObserver(observe)
    try:
        yield found
    finally:
        globalLogPublisher.removeObserver(observe)


def as_told(text: str) -> str:
    return text


class Telnet:
    """A telnet connection to the manhole of one server."""

    def __init__(
        self,
        directory: pathlib.Path,
        cluster: Cluster,
        server_id: str | None = None,
        mode: Callable[..., Any] = AdminTerminal,
        gatekeeper: Gatekeeper | None = None,
    ) -> None:
        self.cluster = cluster
        leader = cluster.leader()
        node = cluster.node(server_id) if server_id is not None else leader
        assert node is not None
        verbs = Verbs(Operations(node, read_server_id=as_told, seconds=cluster.clock.seconds))
        self.gatekeeper = gatekeeper or Gatekeeper(password_file(directory), cluster.clock, execute)
        factory = TelnetFactory(self.gatekeeper, lambda user: mode(user, verbs, cluster.clock), cluster.clock)
        self.console: TelnetConsole = factory.buildProtocol(None)
        self.transport = StringTransport()
        self.console.makeConnection(self.transport)

    def type(self, data: bytes) -> str:
        """What is seen at once when that is typed."""
        self.transport.clear()
        self.console.dataReceived(data)
        return seen(self.transport.value())

    def ask(self, line: str) -> str:
        """What is seen at once of the answer to a line, without the line and the prompt after it."""
        shown = self.type(line.encode() + b"\r\n")
        assert shown.startswith(line + "\n"), shown
        return shown.removeprefix(line + "\n").removesuffix("txraft> ")

    def wait(self, text: str, seconds: float = 30) -> str:
        """Let time pass until that text is seen; all that is seen meanwhile."""
        self.transport.clear()
        assert self.cluster.run_until(lambda: text in seen(self.transport.value()), seconds), self.transport.value()
        return seen(self.transport.value())

    def log_in(self) -> str:
        return self.type(USER.encode() + b"\r\n" + PASSWORD + b"\r\n")

    @property
    def is_open(self) -> bool:
        return not self.transport.disconnecting


def leading(size: int = 3, passive: int = 0, absent: tuple[str, ...] = ()) -> Cluster:
    """A cluster with a leader."""
    cluster = Cluster(seed=1, size=size, passive=passive)
    cluster.start(*(server_id for server_id in cluster.ids if server_id not in absent))
    cluster.elect()
    return cluster
