"""
Servers' transports in one process, over connections that behave as Twisted's do but move only when told to.

`Network.run` carries bytes until nothing moves. A connection can be stalled (the other side does not read) or cut, and
a server can be down (connections are refused) or silent (connections are never answered).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError, ConnectionDone, ConnectionLost, ConnectionRefusedError
from twisted.internet.interfaces import (
    IConsumer,
    IListeningPort,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamServerEndpoint,
    ITransport,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.codec import PROTOCOL_VERSION, Hello, encode_hello
from txraft.core.contact import Contact
from txraft.core.messages import Message, RequestVote
from txraft.errors import Stopped
from txraft.framing import Splitter, frame
from txraft.interfaces import Addresses, Identity, IPartialSnapshot, Snapshot
from txraft.net.peers import PeerTransport

EPOCH = "c.0.0000000e"
"""Of cluster c."""

HIGH_WATER_BYTES = 65536
MAX_MESSAGE_BYTES = 100_000
MAX_QUEUE_BYTES = 300_000


@implementer(ITransport, IConsumer)
class End:
    """One end of a connection: buffers, pauses its producer and closes as twisted.internet.abstract does."""

    def __init__(self, protocol: Any, host: str, port: int) -> None:
        self.protocol = protocol
        self.peer_address = IPv4Address("TCP", host, port)
        self.other: End
        self.stalled = False
        self.closing = self.gone = self.paused = self.writing = False
        self.producer: Any = None
        self.buffer = b""
        self.writes = 0

    def write(self, data: bytes) -> None:
        if self.gone:
            return
        self.writes += 1
        self.writing = True
        self.buffer += data
        if self.producer is not None and len(self.buffer) > HIGH_WATER_BYTES and not self.paused:
            self.paused = True
            self.producer.pauseProducing()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert streaming
        self.producer = producer

    def unregisterProducer(self) -> None:
        self.producer = None
        self.writing = self.writing or self.closing

    def loseConnection(self) -> None:
        self.closing = self.writing = True

    def abortConnection(self) -> None:
        self.buffer = b""
        self.cut()

    def getPeer(self) -> IPv4Address:
        return self.peer_address

    def cut(self, why: type[Exception] = ConnectionLost) -> None:
        """Both ends learn at once that the connection is gone."""
        for end in (self, self.other):
            if not end.gone:
                end.gone = True
                end.protocol.connectionLost(Failure(why()))

    def move(self) -> bool:
        """Carry what is buffered to the other end; True if anything happened."""
        if self.gone or self.stalled or not self.writing:
            return False
        data, self.buffer = self.buffer, b""
        self.writing = False
        if data:
            self.other.protocol.dataReceived(data)
        if self.producer is not None and self.paused:
            self.paused = False
            self.producer.resumeProducing()
        elif self.closing and not self.writing:
            self.cut(ConnectionDone)
        return True


def join(client: Any, server: Any, host: str, port: int) -> End:
    """Connect two protocols; the client's end."""
    near, far = End(client, "10.9.9.9", 1), End(server, host, port)
    near.other, far.other = far, near
    client.makeConnection(near)
    server.makeConnection(far)
    return near


class Network:
    """Servers by id, and every connection between them."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.listening: dict[str, IProtocolFactory] = {}
        self.silent: set[str] = set()
        self.ends: list[End] = []
        self.attempts: list[str] = []
        self.waiting: list[tuple[Deferred[Any], str, str, IProtocolFactory]] = []

    def run(self) -> None:
        """Carry everything, until nothing moves."""
        moved = True
        while moved:
            waiting, self.waiting = self.waiting, []
            for attempt in waiting:
                self.complete(*attempt)
            self.ends = [end for end in self.ends if not end.gone]
            moves = sum(end.move() for end in list(self.ends))
            moved = bool(waiting) or moves > 0

    def advance(self, seconds: float, step: float = 0.01) -> None:
        """Let time pass in small steps, and everything move meanwhile."""
        for _ in range(round(seconds / step)):
            self.clock.advance(step)
            self.run()

    def link(self, sender: str, receiver: str) -> End:
        """The sender's end of the newest connection that it dialled."""
        wanted = (f"to {receiver}", f"from {sender}")
        return [end for end in self.ends if getattr(end, "names", None) == wanted and not end.gone][-1]

    def connect(self, sender: str, receiver: str, factory: IProtocolFactory) -> Deferred[Any]:
        self.attempts.append(receiver)
        attempt: Deferred[Any] = Deferred()
        if receiver not in self.silent:
            self.waiting.append((attempt, sender, receiver, factory))
        # As an endpoint that has resolved a name already: called, and yet waiting for the connection.
        return succeed(None).addCallback(lambda _: attempt)

    def complete(self, attempt: Deferred[Any], sender: str, receiver: str, factory: IProtocolFactory) -> None:
        if attempt.called:
            return
        if receiver not in self.listening:
            attempt.errback(ConnectionRefusedError())
            return
        client = factory.buildProtocol(IPv4Address("TCP", "10.9.9.9", 1))
        server = self.listening[receiver].buildProtocol(IPv4Address("TCP", "10.0.0.1", 40_000 + len(self.ends)))
        near = join(client, server, "10.0.0.1", 40_000 + len(self.ends))
        near.names = (f"to {receiver}", f"from {sender}")  # type: ignore[attr-defined]
        self.ends += [near, near.other]
        attempt.callback(client)


@implementer(IListeningPort)
class Port:
    def __init__(self, network: Network, server_id: str) -> None:
        self.network = network
        self.server_id = server_id

    def startListening(self) -> None:
        """It is."""

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "10.0.0.1", 1)

    def stopListening(self) -> None:
        del self.network.listening[self.server_id]


@implementer(IStreamServerEndpoint)
class ListenEndpoint:
    def __init__(self, network: Network, server_id: str) -> None:
        self.network = network
        self.server_id = server_id

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        if self.server_id in self.network.listening:
            return fail(CannotListenError("10.0.0.1", 1, OSError("Address already in use")))
        self.network.listening[self.server_id] = protocolFactory
        return succeed(Port(self.network, self.server_id))


@implementer(IStreamClientEndpoint)
class ClientEndpoint:
    def __init__(self, network: Network, sender: str, receiver: str) -> None:
        self.network = network
        self.sender = sender
        self.receiver = receiver

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        return self.network.connect(self.sender, self.receiver, protocolFactory)


class Server:
    """A transport, and what it received: one list for each call of `receive`."""

    def __init__(
        self, network: Network, server_id: str, peers: str = "", cluster_id: str = EPOCH, incarnation: int = 1
    ) -> None:
        self.network = network
        self.server_id = server_id
        self.received: list[tuple[str, list[Message]]] = []
        self.problem: Exception | None = None
        self.accept: Callable[[str, Snapshot], Deferred[IPartialSnapshot]] = lambda sender, offer: fail(Stopped("no"))
        self.transport = PeerTransport(
            network.clock,
            ListenEndpoint(network, server_id),
            lambda receiver: ClientEndpoint(network, server_id, receiver),
            MAX_MESSAGE_BYTES,
            MAX_QUEUE_BYTES,
            random.Random(1),
        )
        self.transport.set_peers([Contact(peer) for peer in peers.split()])
        self.transport.advertise(Addresses(f"{server_id}:client", f"{server_id}:admin"))
        self.transport.start(
            Identity(cluster_id, server_id, incarnation),
            self._receive,
            lambda: None,
            lambda sender, offer: self.accept(sender, offer),
        )

    def _receive(self, sender_id: str, messages: list[Message]) -> None:
        self.received.append((sender_id, messages))
        if self.problem is not None:
            raise self.problem

    def send(self, receiver_id: str, *messages: Message) -> None:
        for message in messages:
            self.transport.send(receiver_id, message)
        self.transport.flush()

    def terms(self) -> list[int]:
        """The terms of all messages received so far."""
        return [message.term for _, messages in self.received for message in messages]


class Caller(Protocol):
    """A connection to a server that is not made by a transport; what it hears is kept."""

    def __init__(self, network: Network, server_id: str, host: str = "10.0.0.1") -> None:
        self.network = network
        self.heard = b""
        self.lost = False
        factory = network.listening[server_id]
        near = join(self, factory.buildProtocol(IPv4Address("TCP", host, 5000)), host, 5000)
        network.ends += [near, near.other]

    def say(self, data: bytes) -> None:
        self.transport.write(data)  # type: ignore[union-attr]
        self.network.run()

    def dataReceived(self, data: bytes) -> None:
        self.heard += data

    def connectionLost(self, reason: Failure = Failure(ConnectionDone())) -> None:  # noqa: B008
        self.lost = True

    def frames(self) -> list[bytes]:
        return Splitter(1 << 20).feed(self.heard)


@contextmanager
def log_lines() -> Iterator[list[str]]:
    """What is logged meanwhile; complete at the end of the block."""
    lines: list[str] = []
    with capturedLogs() as events:
        yield lines
    lines += [formatEvent(event) for event in events]


def pair(network: Network) -> tuple[Server, Server]:
    """Two servers that have shaken hands both ways."""
    servers = Server(network, "s1", "s1 s2"), Server(network, "s2", "s1 s2")
    network.run()
    return servers


def vote(term: int) -> RequestVote:
    """The smallest message, told from others by its term."""
    return RequestVote(term, 0, 0)


def hello_frame(sender: str, receiver: str, **changes: Any) -> bytes:
    """A first frame that is accepted, apart from the changes."""
    fields = {
        "protocol_version": PROTOCOL_VERSION,
        "cluster_id": EPOCH,
        "server_id": sender,
        "receiver_id": receiver,
        "incarnation": 1,
        **changes,
    }
    return frame(encode_hello(Hello(**fields)))
