"""One connection to the kv server: order, batches, ends, bounds."""

from __future__ import annotations

import subprocess
import sys

from kv_support import MIXED, MIXED_REPLIES, Server, resp
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import NotLeader, Stopped
from txraft.machines.kv_local import Limits
from txraft.machines.kv_server import WRITE_BYTES, Bounds


class OrderTests(SynchronousTestCase):
    def test_both_dialects_on_one_connection(self) -> None:
        self.assertEqual(Server().connect().send(MIXED), MIXED_REPLIES)

    def test_requests_may_arrive_byte_by_byte(self) -> None:
        client = Server().connect()
        self.assertEqual(b"".join(client.send(MIXED[at : at + 1]) for at in range(len(MIXED))), MIXED_REPLIES)

    def test_the_writes_of_one_read_are_one_proposal(self) -> None:
        server = Server(is_immediate=False)
        client = server.connect()
        client.send(b"".join(resp("SET", number, "x") for number in range(256)))
        self.assertEqual([(kind, len(requests)) for kind, requests in server.node.asked], [("write", 256)])
        server.node.answer()
        self.assertEqual(client.received(), b"+OK\r\n" * 256)

    def test_the_reads_of_one_read_are_one_confirmation(self) -> None:
        server = Server(is_immediate=False)
        client = server.connect()
        client.send(resp("GET", "a") * 100 + resp("DBSIZE") + resp("MGET", "a", "b"))
        self.assertEqual([(kind, len(requests)) for kind, requests in server.node.asked], [("read", 102)])

    def test_the_replies_of_a_batch_are_one_write(self) -> None:
        server = Server(is_immediate=False)
        client = server.connect()
        client.send(resp("SET", "a", "b") * 200 + resp("PING"))
        writes: list[bytes] = []
        client.transport.write = writes.append  # type: ignore[method-assign]
        server.node.answer()
        self.assertEqual(writes, [b"+OK\r\n" * 200 + b"+PONG\r\n"])

    def test_reads_and_writes_of_one_connection_never_overlap(self) -> None:
        server = Server(is_immediate=False)
        client = server.connect()
        client.send(resp("SET", "a", "1") + resp("GET", "a") + resp("SET", "a", "2"))
        client.send(resp("GET", "a"))
        asked = server.node.asked
        self.assertEqual([kind for kind, _ in asked], ["write"])
        server.node.answer(1)
        self.assertEqual(client.received(), b"+OK\r\n")
        self.assertEqual([kind for kind, _ in asked], ["write", "read"])
        server.node.answer(1)
        self.assertEqual([kind for kind, _ in asked], ["write", "read", "write"])
        server.node.answer()
        self.assertEqual(client.received(), b"$1\r\n1\r\n+OK\r\n$1\r\n2\r\n")

    def test_writes_go_ahead_while_earlier_writes_are_outstanding(self) -> None:
        server = Server(is_immediate=False)
        client = server.connect()
        client.send(resp("SET", "a", "1"))
        client.send(resp("PING"))
        client.send(resp("SET", "b", "1"))
        self.assertEqual([kind for kind, _ in server.node.asked], ["write", "write"])
        self.assertEqual(client.received(), b"")
        server.node.answer()
        self.assertEqual(client.received(), b"+OK\r\n+PONG\r\n+OK\r\n")

    def test_requests_that_wait_become_one_batch(self) -> None:
        server = Server(is_immediate=False)
        client = server.connect()
        client.send(resp("GET", "a"))
        for number in range(5):
            client.send(resp("SET", "a", number))
        server.node.answer(1)
        self.assertEqual([(kind, len(requests)) for kind, requests in server.node.asked], [("read", 1), ("write", 5)])

    def test_other_connections_do_not_wait(self) -> None:
        server = Server(is_immediate=False)
        server.connect().send(resp("SET", "a", "1"))
        server.connect().send(resp("GET", "a"))
        self.assertEqual([kind for kind, _ in server.node.asked], ["write", "read"])

    def test_several_keys_are_one_command(self) -> None:
        server = Server()
        server.connect().send(resp("MSET", "a", "1", "b", "2") + resp("DEL", "a", "b"))
        self.assertEqual([len(requests) for _, requests in server.node.asked], [2])

    def test_a_long_pipeline_of_both_kinds_refused_at_once_needs_no_deep_stack(self) -> None:
        server = Server()
        server.node.refusal = NotLeader("b", "b:1")
        replies = server.connect().send((resp("SET", "a", "1") + resp("GET", "a")) * 2000)
        self.assertEqual(replies, b"-MOVED 0 b:1\r\n" * 4000)

    def test_one_command_that_is_too_large_spoils_no_other(self) -> None:
        server = Server(max_command_bytes=100)
        client = server.connect()
        replies = client.send(resp("SET", "a", "1") + resp("SET", "b", "x" * 200) + resp("INCR", "a"))
        self.assertEqual(replies, b"+OK\r\n-ERR 206 bytes, but max_command_bytes = 100\r\n:2\r\n")

    def test_a_connection_that_is_lost_is_forgotten(self) -> None:
        """C12: late answers find nobody and do no harm."""
        server = Server(is_immediate=False)
        client = server.connect()
        client.send(resp("SET", "a", "1") + resp("GET", "a"))
        client.protocol.connectionLost(Failure(ConnectionDone()))
        server.node.answer()
        self.assertEqual(client.received(), b"")
        self.assertEqual(server.surroundings.sessions, {})
        self.assertEqual(server.machine.query(b"\x01a"), b"1")


class EndTests(SynchronousTestCase):
    def test_quit_is_answered_in_its_place_and_ends_the_connection(self) -> None:
        server = Server(is_immediate=False)
        client = server.connect()
        client.send(resp("SET", "a", "1") + resp("QUIT") + resp("SET", "b", "1"))
        client.send(resp("PING"))
        self.assertFalse(client.transport.disconnecting)
        server.node.answer()
        self.assertEqual(client.received(), b"+OK\r\n+OK\r\n")
        self.assertTrue(client.transport.disconnecting)
        self.assertEqual(len(server.machine), 1)

    def test_a_broken_stream_is_answered_and_closes_that_connection_only(self) -> None:
        server = Server()
        client, other = server.connect(), server.connect()
        self.assertEqual(
            client.send(resp("PING") + b"*1\r\n:1\r\n" + resp("PING")),
            b"+PONG\r\n-ERR Protocol error: expected an array of bulk strings\r\n",
        )
        self.assertTrue(client.transport.disconnecting)
        self.assertEqual(other.ask("PING"), b"+PONG\r\n")

    def test_a_line_that_never_ends_closes_the_connection(self) -> None:
        client = Server(bounds=Bounds(1000, 100, 1 << 20)).connect()
        self.assertEqual(client.send(b"x" * 1001), b"-ERR Protocol error: request longer than 1000 bytes\r\n")
        self.assertTrue(client.transport.disconnecting)

    def test_a_client_that_ends_its_side_still_gets_its_replies(self) -> None:
        server = Server(is_immediate=False)
        client = server.connect()
        client.send(b"set a 1\r\n")
        client.protocol.readConnectionLost()
        self.assertFalse(client.transport.disconnecting)
        server.node.answer()
        self.assertEqual(client.received(), b"OK null\r\n")
        self.assertTrue(client.transport.disconnecting)

    def test_one_connection_too_many_is_told_so(self) -> None:
        server = Server(max_connections=2)
        first, second, third = server.connect(), server.connect(), server.connect()
        self.assertEqual(third.received(), b"-ERR max number of clients reached\r\n")
        self.assertTrue(third.transport.disconnecting)
        self.assertEqual(third.ask("PING"), b"")
        self.assertEqual(second.ask("PING"), b"+PONG\r\n")
        first.protocol.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(server.connect().ask("PING"), b"+PONG\r\n")

    def test_stopping_answers_what_is_under_way_and_then_closes(self) -> None:
        server = Server(is_immediate=False)
        busy, idle = server.connect(), server.connect()
        busy.ask("SET", "a", "1")
        stopped = server.factory.finish()
        self.assertTrue(idle.transport.disconnecting)
        self.assertFalse(busy.transport.disconnecting)
        busy.ask("SET", "b", "1")
        server.node.fail_waiting(Stopped())
        self.assertEqual(busy.received(), b"-CLUSTERDOWN this server is stopping\r\n")
        self.assertTrue(busy.transport.disconnecting)
        self.assertNoResult(stopped)
        for client in (busy, idle):
            client.protocol.connectionLost(Failure(ConnectionDone()))
        self.successResultOf(stopped)

    def test_stopping_does_not_wait_for_a_client_that_does_not_read(self) -> None:
        server = Server(is_immediate=False)
        client = server.connect()
        client.ask("SET", "a", "1")
        client.protocol.pauseProducing()
        server.factory.finish()
        self.assertTrue(client.transport.disconnected or client.transport.disconnecting)


class BoundTests(SynchronousTestCase):
    def is_reading(self, transport: StringTransport) -> bool:
        return transport.producerState == "producing"

    def test_reading_stops_at_kv_max_pipeline_and_goes_on_below(self) -> None:
        server = Server(is_immediate=False, bounds=Bounds(1 << 16, 10, 1 << 20))
        client = server.connect()
        client.send(resp("SET", "a", "1") * 9)
        self.assertTrue(self.is_reading(client.transport))
        client.send(resp("GET", "a"))
        self.assertFalse(self.is_reading(client.transport))
        server.node.answer(1)
        self.assertTrue(self.is_reading(client.transport))

    def test_reading_stops_when_large_requests_are_outstanding(self) -> None:
        server = Server(is_immediate=False, bounds=Bounds(1 << 16, 1000, 5000))
        client = server.connect()
        client.send(resp("SET", "a", "x" * 4000))
        self.assertTrue(self.is_reading(client.transport))
        client.send(resp("SET", "a", "x" * 4000))
        self.assertFalse(self.is_reading(client.transport))
        server.node.answer()
        self.assertTrue(self.is_reading(client.transport))

    def test_a_client_that_does_not_read_is_not_read_from_and_nothing_is_formatted_for_it(self) -> None:
        server = Server()
        client = server.connect()
        client.protocol.pauseProducing()
        self.assertFalse(self.is_reading(client.transport))
        self.assertEqual(client.ask("PING"), b"")
        client.protocol.resumeProducing()
        self.assertEqual(client.received(), b"+PONG\r\n")
        self.assertTrue(self.is_reading(client.transport))

    def test_replies_are_formatted_only_as_fast_as_the_client_reads(self) -> None:
        """A few bytes of requests may ask for gigabytes of replies."""
        value = "x" * 100_000
        server = Server(limits=Limits(100, 1 << 20), bounds=Bounds(1 << 20, 1000, 1 << 20))
        client = server.connect()
        client.ask("SET", "a", value)
        written: list[int] = []

        def write(data: bytes) -> None:
            written.append(len(data))
            client.protocol.pauseProducing()

        client.transport.write = write  # type: ignore[method-assign]
        client.send(resp("GET", "a") * 500)
        self.assertEqual(len(written), 1)
        self.assertLess(written[0], WRITE_BYTES + 16 * 100_100)
        while len(written) < 1000 and sum(written) < 500 * 100_000:
            client.protocol.resumeProducing()
        self.assertEqual(sum(written), 500 * len(b"$100000\r\n%b\r\n" % value.encode()))

    def test_one_reply_is_bounded(self) -> None:
        server = Server(limits=Limits(100, 1 << 20), bounds=Bounds(1 << 21, 1000, 1 << 21), max_command_bytes=1 << 21)
        client = server.connect()
        self.assertEqual(client.ask("SET", "a", "x" * (1 << 20)), b"+OK\r\n")
        self.assertEqual(client.ask("MGET", *["a"] * 65), b"-ERR the reply would be longer than 67108864 bytes\r\n")
        self.assertEqual(client.ask("PING"), b"+PONG\r\n")

    def test_listing_plugins_imports_neither_server_nor_parser(self) -> None:
        program = "import sys, twisted.plugins.txraft_machines; print(*sorted(sys.modules))"
        loaded = subprocess.run(
            [sys.executable, "-c", program], capture_output=True, check=True, text=True
        ).stdout.split()
        for module in (
            "hiredis",
            "txraft.machines.kv_server",
            "txraft.machines.kv_options",
            "twisted.internet.reactor",
        ):
            self.assertNotIn(module, loaded)
