"""One connection to the kv server: dialects, order, batches, bounds."""

from __future__ import annotations

import itertools
import subprocess
import sys

from hypothesis import given, settings
from hypothesis import strategies as st
from kv_support import Server, resp
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from txraft.errors import NotLeader, Stopped
from txraft.machines.kv_local import Limits
from txraft.machines.kv_requests import BrokenStream, Request, RequestSplitter
from txraft.machines.kv_server import WRITE_BYTES, Bounds

MIXED = resp("SET", "a", "1") + b"get a\r\n" + resp("GET", "a") + b"set a 2\nwhat\n" + resp("INCR", "a") + b"get a\n"
MIXED_REPLIES = b"+OK\r\nOK 1\r\n$1\r\n1\r\nOK 1\r\nINVALID_FOMRAT\r\n:3\r\nOK 3\r\n"


def split(data: bytes, cuts: list[int] = [], limit: int = 1 << 16) -> list[Request]:  # noqa: B006
    """The requests in `data`, given to a splitter in pieces."""
    splitter = RequestSplitter(limit)
    requests: list[Request] = []
    edges = [0, *sorted(cuts), len(data)]
    for start, stop in itertools.pairwise(edges):
        splitter.split(data[start:stop], requests)
    return requests


class SplitterTests(SynchronousTestCase):
    def broken(self, data: bytes, limit: int = 1 << 16) -> tuple[str, list[Request]]:
        """How the stream breaks, and the requests before, the same however it was cut."""
        found = set()
        for cuts in ([], list(range(len(data))), [len(data) // 2]):
            splitter, requests = RequestSplitter(limit), []
            edges = [0, *cuts, len(data)]
            try:
                for start, stop in itertools.pairwise(edges):
                    splitter.split(data[start:stop], requests)
            except BrokenStream as error:
                found.add((str(error), repr(requests)))
            else:
                found.add(("", repr(requests)))
        self.assertEqual(len(found), 1, found)
        return found.pop()

    def test_both_dialects_alternate_wherever_the_stream_is_cut(self) -> None:
        whole = split(MIXED)
        self.assertEqual(len(whole), 7)
        for cut in range(len(MIXED)):
            self.assertEqual(split(MIXED, [cut]), whole, cut)
        self.assertEqual(split(MIXED, list(range(len(MIXED)))), whole)

    def test_a_line_may_begin_with_what_hiredis_would_take(self) -> None:
        for line in (
            b"+OK",
            b":1",
            b"$5",
            b"$-1",
            b"-ERR",
            b"%1",
            b"~1",
            b">1000000000",
            b"_",
            b"#f",
            b"#t",
            b",1",
            b"(",
        ):
            data = resp("PING") + line + b"\r\n" + resp("ECHO", "x")
            for cut in range(len(data)):
                self.assertEqual(split(data, [cut]), [[b"PING"], line, [b"ECHO", b"x"]], (line, cut))

    def test_values_that_look_like_headers_are_values(self) -> None:
        for value in (
            b"*1000000000\r\n",
            b"\r\n*99\r\n",
            b">12",
            b"*",
            b"*1",
            b">" * 50 + b"*12345678901234567890",
            b"*0\r\n" * 9,
        ):
            data = resp("SET", "k", value) + resp("GET", "k")
            for cut in range(len(data)):
                self.assertEqual(split(data, [cut]), [[b"SET", b"k", value], [b"GET", b"k"]], (value, cut))

    def test_empty_requests_are_passed_over(self) -> None:
        self.assertEqual(split(b"*0\r\n" * 3 + resp("PING")), [[b"PING"]])

    def test_a_header_that_promises_too_much_is_refused_before_anything_is_allocated(self) -> None:
        """Bombs: 2**31 elements at the top, in a request, and as a push."""
        problem, before = self.broken(resp("PING") + b"*1000000000\r\n$1\r\n")
        self.assertEqual((problem, before), ("Protocol error: invalid multibulk length", "[[b'PING']]"))
        self.assertEqual(self.broken(b"*99999\r\n$1")[0], "Protocol error: invalid multibulk length")
        for header in (b"*1000000000", b">1000000000", b"*12"):
            problem, _ = self.broken(b"*2\r\n$1\r\na\r\n" + header + b"\r\n")
            self.assertTrue(problem.startswith("Protocol error"), problem)

    def test_what_is_no_bulk_string_in_a_request_breaks_the_stream(self) -> None:
        elements = (b":1\r\n", b"$-1\r\n", b"*0\r\n", b"*1\r\n:1\r\n", b"_\r\n", b"-ERR\r\n", b"%1\r\n+a\r\n+b\r\n")
        for element in elements:
            problem, before = self.broken(resp("PING") + b"*1\r\n" + element)
            self.assertTrue(problem.startswith("Protocol error"), (element, problem))
            self.assertEqual(before, "[[b'PING']]", element)

    def test_garbage_in_a_request_breaks_the_stream(self) -> None:
        for garbage in (
            b"*a\r\n",
            b"*2\r\n$1\r\na\r\nget a\r\n",
            b"*-1\r\n",
            b"*1\r\n$99999999999999999999\r\n",
        ):
            self.assertRaises(BrokenStream, split, garbage + resp("PING") * 2)

    def test_deep_nesting_breaks_the_stream(self) -> None:
        for header in (b"*1\r\n", b"*9\r\n", b"*2\r\n$0\r\n\r\n"):
            self.assertRaises(BrokenStream, split, header * 100_000)

    def test_an_incomplete_request_is_bounded(self) -> None:
        for data in (
            b"*2\r\n$3\r\nGET\r\n$5000\r\n" + b"x" * 2000,
            b"get " + b"x" * 2000,
            b"*1\r\n$9\r\n" + b"*1" * 1000,
        ):
            self.assertTrue(self.broken_at(data), data[:20])

    def broken_at(self, data: bytes) -> bool:
        splitter = RequestSplitter(1000)
        for start in range(0, len(data), 100):
            try:
                splitter.split(data[start : start + 100], [])
            except BrokenStream:
                return 900 <= start <= 1100
        return False

    def test_alternating_many_times_in_one_read_is_not_quadratic(self) -> None:
        """Counted, not timed: what hiredis is given again for each line is a small step, not the rest of the read."""

        class CountingSplitter(RequestSplitter):
            fed = 0

            def _feed(self, data: bytes, requests: list[Request]) -> bool:
                self.fed += len(data)
                return super()._feed(data, requests)

        splitter, requests = CountingSplitter(1 << 20), []
        splitter.split((b"x\n" + resp("PING")) * 5_000, requests)
        self.assertEqual(requests, [b"x", [b"PING"]] * 5_000)
        self.assertLess(splitter.fed, 5_000 * 600)


ARGUMENTS = st.lists(
    st.one_of(st.binary(max_size=20), st.sampled_from([b"*12", b"\r\n*1", b">99", b"get a\r\n"])),
    min_size=1,
    max_size=14,
)
LINES = st.binary(max_size=20).filter(
    lambda line: b"\n" not in line and not line.startswith(b"*") and not line.endswith(b"\r")
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(ARGUMENTS, LINES), max_size=8), st.lists(st.integers(0, 400), max_size=8))
def test_any_requests_come_out_as_they_went_in(requests: list[Request], cuts: list[int]) -> None:
    data = b"".join(request + b"\r\n" if isinstance(request, bytes) else resp(*request) for request in requests)
    assert split(data, [min(cut, len(data)) for cut in cuts]) == requests


@settings(max_examples=500, deadline=None)
@given(
    st.lists(
        st.one_of(
            st.binary(max_size=30), st.sampled_from([b"*1\r\n", b"*12", b"$1\r\na\r\n", b">2\r\n", b"\r\n", b"get a\n"])
        ),
        max_size=12,
    )
)
def test_no_bytes_do_more_than_break_the_stream(pieces: list[bytes]) -> None:
    splitter, requests = RequestSplitter(200), []
    try:
        for piece in pieces:
            splitter.split(piece, requests)
    except BrokenStream:
        pass
    assert all(
        type(part) is bytes for request in requests for part in ([request] if isinstance(request, bytes) else request)
    )


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
