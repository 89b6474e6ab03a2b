"""A node without a cluster, to serve a kv machine from: what is proposed is applied when a test says so."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.testing import StringTransport

from txraft.errors import CommandTooLarge
from txraft.machines.kv import KeyValueMachine
from txraft.machines.kv_local import Limits, Surroundings
from txraft.machines.kv_server import Bounds, KeyValueProtocol
from txraft.machines.kv_service import KeyValueFactory


class LocalNode:
    """
    Keeps RaftNode's promises to a front end, with one machine and no log.

    `asked` has one (kind, requests) for each call. A call is answered by `answer`, or at once if `is_immediate`; or it
    fails with `refusal`, if that is not None.
    """

    def __init__(self, machine: KeyValueMachine, is_immediate: bool = False, max_command_bytes: int = 1 << 20) -> None:
        self.machine = machine
        self.is_immediate = is_immediate
        self.settings = SimpleNamespace(max_command_bytes=max_command_bytes)
        self.refusal: Exception | None = None
        self.role = "leader"
        self.client_address = ""
        self.asked: list[tuple[str, list[bytes]]] = []
        self._waiting: deque[tuple[Deferred[Any], Callable[[], object]]] = deque()

    def propose_many(self, commands: Sequence[bytes]) -> Deferred[Any]:
        return self._ask("write", list(commands), lambda requests: self._apply(requests))

    def propose(self, command: bytes) -> Deferred[Any]:
        return self.propose_many([command]).addCallback(lambda results: results[0])

    def read_many(self, requests: Sequence[bytes]) -> Deferred[Any]:
        return self._ask("read", list(requests), lambda requests: list(map(self.machine.query, requests)))

    def read(self, request: bytes) -> Deferred[Any]:
        return self.read_many([request]).addCallback(lambda results: results[0])

    def advertise(self, client_address: str = "", admin_address: str = "") -> None:
        self.client_address = client_address

    def status(self) -> SimpleNamespace:
        index = self.machine.applied_index
        return SimpleNamespace(
            server_id="127.0.0.1:1",
            role=self.role,
            term=1,
            leader_id="127.0.0.1:1",
            commit_index=index,
            applied_index=index,
        )

    def answer(self, calls: int = 1 << 30) -> None:
        """Carry out the oldest `calls` calls that wait, and those that this brings forth, as far as the number goes."""
        while self._waiting and calls:
            deferred, carry_out = self._waiting.popleft()
            calls -= 1
            deferred.callback(carry_out())

    def fail_waiting(self, error: Exception) -> None:
        """Fail all calls that wait now."""
        waiting, self._waiting = self._waiting, deque()
        for deferred, _ in waiting:
            deferred.errback(error)

    def _apply(self, commands: list[bytes]) -> Sequence[object]:
        return self.machine.apply(self.machine.applied_index + 1, commands, 0)

    def _ask(self, kind: str, requests: list[bytes], carry_out: Callable[[list[bytes]], object]) -> Deferred[Any]:
        self.asked.append((kind, requests))
        if self.refusal is not None:
            return fail(self.refusal)
        largest = max(map(len, requests))
        if largest > self.settings.max_command_bytes:
            return fail(CommandTooLarge(largest, "max_command_bytes", self.settings.max_command_bytes))
        deferred: Deferred[Any] = Deferred()
        self._waiting.append((deferred, lambda: carry_out(requests)))
        if self.is_immediate:
            self.answer()
        return deferred


class Server:
    """A kv server on a LocalNode, and clients on string transports."""

    def __init__(
        self,
        is_immediate: bool = True,
        limits: Limits | None = None,
        bounds: Bounds | None = None,
        max_connections: int = 10,
        max_command_bytes: int = 1 << 20,
    ) -> None:
        self.machine = KeyValueMachine()
        self.node = LocalNode(self.machine, is_immediate, max_command_bytes)
        self.surroundings = Surroundings(self.node, self.machine, limits or Limits(1024, 4096))
        bounds = bounds or Bounds(1 << 16, 10000, 1 << 20)
        self.factory = KeyValueFactory(self.surroundings, bounds, max_connections)

    def connect(self) -> Client:
        return Client(self.factory)


class Client:
    """One connection: bytes in, bytes out."""

    def __init__(self, factory: KeyValueFactory) -> None:
        self.transport = StringTransport()
        self.protocol: KeyValueProtocol = factory.buildProtocol(None)
        self.protocol.makeConnection(self.transport)

    def send(self, data: bytes) -> bytes:
        """Deliver `data` in one read; the replies since the last call."""
        if data:
            self.protocol.dataReceived(data)
        return self.received()

    def ask(self, *arguments: bytes | str | int) -> bytes:
        """Send one Redis request; the replies since the last call."""
        return self.send(resp(*arguments))

    def received(self) -> bytes:
        """The replies since the last call."""
        replies = self.transport.value()
        self.transport.clear()
        return replies


def resp(*arguments: bytes | str | int) -> bytes:
    """A Redis request."""
    parts = [part if isinstance(part, bytes) else str(part).encode() for part in arguments]
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


MIXED = resp("SET", "a", "1") + b"get a\r\n" + resp("GET", "a") + b"set a 2\nwhat\n" + resp("INCR", "a") + b"get a\n"
MIXED_REPLIES = b"+OK\r\nOK 1\r\n$1\r\n1\r\nOK 1\r\nINVALID_FOMRAT\r\n:3\r\nOK 3\r\n"
