"""`write_now`: the same bytes in the same order as `transport.write`, a turn earlier."""

from __future__ import annotations

import os
import socket

import pytest
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Server
from twisted.internet.testing import MemoryReactor, StringTransport
from twisted.trial.unittest import TestCase

from txraft.net.writing import write_now

pytestmark = pytest.mark.process


class WriteNow(TestCase):
    def setUp(self) -> None:
        ours, self.theirs = socket.socketpair()
        self.addCleanup(self.theirs.close)
        self.addCleanup(ours.close)
        ours.setblocking(False)
        self.reactor = MemoryReactor()
        address = ("127.0.0.1", 1)
        self.transport = Server(ours, Protocol(), address, None, 1, self.reactor)

    def received(self) -> bytes:
        """What the other end has got, without the reactor having run."""
        self.theirs.setblocking(False)
        received = b""
        while True:
            try:
                received += self.theirs.recv(1 << 20)
            except BlockingIOError:
                return received

    def test_a_short_message_has_left_when_it_returns(self) -> None:
        write_now(self.transport, b"hello")
        self.assertEqual(self.received(), b"hello")
        self.assertEqual(self.reactor.getWriters(), [])

    def test_what_the_socket_does_not_take_follows_in_order(self) -> None:
        data = os.urandom(4 << 20)
        write_now(self.transport, data)
        self.assertEqual(self.reactor.getWriters(), [self.transport])
        write_now(self.transport, b"the end")
        received = self.received()
        while self.reactor.getWriters():
            self.transport.doWrite()
            received += self.received()
        self.assertEqual(received, data + b"the end")

    def test_nothing_overtakes_what_waits(self) -> None:
        self.transport.write(b"first ")
        write_now(self.transport, b"second")
        self.assertEqual(self.received(), b"")
        self.transport.doWrite()
        self.assertEqual(self.received(), b"first second")

    def test_a_lost_connection_is_left_to_twisted(self) -> None:
        self.theirs.close()
        write_now(self.transport, b"hello")
        self.assertEqual(self.reactor.getWriters(), [self.transport])

    def test_another_transport_is_written_to_as_usual(self) -> None:
        transport = StringTransport()
        write_now(transport, b"hello")
        self.assertEqual(transport.value(), b"hello")
