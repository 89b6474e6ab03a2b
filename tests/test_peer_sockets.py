"""The same transport over real TCP on loopback."""

from __future__ import annotations

import random
import socket
from collections.abc import Callable
from typing import Any

import pytest
from memory_links import vote
from twisted.internet import reactor as installed_reactor
from twisted.internet.defer import Deferred, fail
from twisted.internet.endpoints import HostnameEndpoint, TCP4ServerEndpoint
from twisted.internet.error import CannotListenError
from twisted.internet.task import LoopingCall
from twisted.trial.unittest import TestCase

from txraft.core.contact import Contact
from txraft.core.log import EntryKind, EntryRun, LogSlice
from txraft.core.messages import AppendEntries, Message
from txraft.errors import Stopped
from txraft.interfaces import Identity
from txraft.net.addresses import parse_address
from txraft.net.peers import PeerTransport

DEADLINE_S = 30
reactor: Any = installed_reactor


def free_address() -> str:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return f"127.0.0.1:{probe.getsockname()[1]}"


class Server:
    def __init__(self, address: str) -> None:
        self.address = address
        self.received: list[Message] = []
        host, port = parse_address(address, None)
        self.transport = PeerTransport(
            reactor,
            TCP4ServerEndpoint(reactor, port, interface=host),
            lambda server_id: HostnameEndpoint(reactor, *parse_address(server_id, None)),
            8 << 20,
            16 << 20,
            random.Random(),
        )

    def start(self, peers: list[str]) -> None:
        self.transport.set_peers([Contact(peer) for peer in peers])
        self.transport.start(
            Identity("c", self.address, 1),
            lambda sender, messages: self.received.extend(messages),
            lambda: None,
            lambda sender, offer: fail(Stopped("no snapshots here")),
        )


async def until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; the test's own deadline ends a wait in vain."""
    poll = LoopingCall(lambda: poll.stop() if condition() else None)
    await poll.start(0.01)


@pytest.mark.process
class Sockets(TestCase):
    timeout = DEADLINE_S

    async def _pair(self) -> tuple[Server, Server]:
        one, two = Server(free_address()), Server(free_address())
        for server in (one, two):
            self.addCleanup(server.transport.stop)
            server.start([one.address, two.address])
        await until(lambda: self._connected(one, two) and self._connected(two, one))
        return one, two

    @staticmethod
    def _connected(one: Server, two: Server) -> bool:
        return one.transport.link_status(two.address) == "connected"

    def test_messages_of_all_sizes_flow_both_ways(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._messages_flow())

    async def _messages_flow(self) -> None:
        one, two = await self._pair()
        run = EntryRun(1, 3, EntryKind.COMMAND, 0, [random.Random(1).randbytes(7 << 20)])
        large = AppendEntries(3, 0, 0, 0, 0, LogSlice(1, [run]))
        sent: list[Message] = [vote(1), large, *(vote(term) for term in range(4, 1000))]
        for here, there in ((one, two), (two, one)):
            for message in sent:
                here.transport.send(there.address, message)
            here.transport.flush()
        await until(lambda: len(one.received) == len(two.received) == len(sent))
        self.assertEqual(one.received, sent)
        self.assertEqual(two.received, sent)

    def test_both_ends_of_a_link_are_tuned(self) -> Deferred[None]:
        """N04; no delay costs 40 ms if forgotten at either end."""
        return Deferred.fromCoroutine(self._tuned())

    async def _tuned(self) -> None:
        one, two = await self._pair()
        acceptor = one.transport._acceptor
        dialled = one.transport._peers[two.address]._link
        assert acceptor is not None
        assert dialled is not None
        (accepted,) = acceptor.open_links()
        for link in (accepted, dialled):
            handle = link.transport.getHandle()
            self.assertTrue(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            self.assertTrue(handle.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            if hasattr(socket, "TCP_USER_TIMEOUT"):
                self.assertEqual(handle.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT), 10_000)

    def test_a_server_that_restarts_is_connected_again(self) -> Deferred[None]:
        return Deferred.fromCoroutine(self._restarts())

    async def _restarts(self) -> None:
        one, two = await self._pair()
        await two.transport.stop()
        await until(lambda: not self._connected(one, two))
        again = Server(two.address)
        self.addCleanup(again.transport.stop)
        again.start([one.address])
        await until(lambda: self._connected(one, again) and self._connected(again, one))
        one.transport.send(again.address, vote(1))
        one.transport.flush()
        await until(lambda: again.received == [vote(1)])

    def test_a_port_in_use_fails_the_start_at_once(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as occupant:
            server = Server(f"127.0.0.1:{occupant.getsockname()[1]}")
            with pytest.raises(CannotListenError, match="in use"):
                server.start([])
