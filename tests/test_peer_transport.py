"""Messages between servers: they arrive from whom they claim, in order, in one piece a turn, and within bounds."""

from __future__ import annotations

import pytest
from memory_links import (
    HIGH_WATER_BYTES,
    MAX_MESSAGE_BYTES,
    MAX_QUEUE_BYTES,
    Caller,
    Network,
    Server,
    hello_frame,
    log_lines,
    pair,
    vote,
)
from twisted.internet.error import CannotListenError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from txraft.codec import encode_message
from txraft.core.contact import Contact
from txraft.core.log import EntryKind, EntryRun, LogSlice
from txraft.core.messages import AppendEntries
from txraft.errors import ProtocolError
from txraft.framing import frame
from txraft.interfaces import Addresses, ITransport
from txraft.net.links import CLOSE_S, STABLE_S


def append(size: int, term: int = 1) -> AppendEntries:
    """A message of a little more than `size` bytes."""
    return AppendEntries(term, 0, 0, 0, 0, LogSlice(1, [EntryRun(1, term, EntryKind.COMMAND, 0, [bytes(size)])]))


class Messages(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()

    def test_the_transport_keeps_its_interface(self) -> None:
        one, _ = pair(self.network)
        verifyObject(ITransport, one.transport)

    def test_messages_of_a_turn_are_one_write_and_one_call_in_order(self) -> None:
        """original 18"""
        one, two = pair(self.network)
        writes = self.network.link("s1", "s2").writes
        one.send("s2", vote(1), vote(2), vote(3))
        self.network.run()
        self.assertEqual(two.received, [("s1", [vote(1), vote(2), vote(3)])])
        self.assertEqual(self.network.link("s1", "s2").writes, writes + 1)
        self.assertEqual(one.received, [])

    def test_a_flush_without_messages_writes_nothing(self) -> None:
        one, _ = pair(self.network)
        end = self.network.link("s1", "s2")
        writes = end.writes
        one.transport.flush()
        self.assertEqual(end.writes, writes)

    def test_a_message_waits_for_the_flush(self) -> None:
        one, two = pair(self.network)
        one.transport.send("s2", vote(1))
        self.network.run()
        self.assertEqual(two.received, [])
        one.send("s2")
        self.network.run()
        self.assertEqual(two.terms(), [1])

    def test_the_sender_is_the_one_of_the_handshake(self) -> None:
        """N10: three servers, each message from the connection that it came on."""
        servers = [Server(self.network, name, "s1 s2 s3") for name in ("s1", "s2", "s3")]
        self.network.run()
        for term, server in enumerate(servers, start=1):
            for other in servers:
                server.send(other.server_id, vote(term))
        self.network.run()
        self.assertEqual(sorted(servers[0].received), [("s2", [vote(2)]), ("s3", [vote(3)])])

    def test_a_message_to_a_server_that_is_down_is_not_kept_and_not_even_encoded(self) -> None:
        """N05, N15"""
        one = Server(self.network, "s1", "s2")
        self.network.run()
        message = append(10)
        one.send("s2", message)
        self.assertIs(message.entries.runs[0].encoded, None)
        two = Server(self.network, "s2", "s1")
        self.network.advance(2)
        one.send("s2", vote(7))
        one.send("s9", vote(8))
        self.network.run()
        self.assertEqual(two.terms(), [7])

    def test_a_message_sent_before_hands_are_shaken_is_not_kept(self) -> None:
        one = Server(self.network, "s1", "s2")
        two = Server(self.network, "s2", "s1")
        for attempt in self.network.waiting:
            self.network.complete(*attempt)
        one.transport.send("s2", vote(1))
        self.network.run()
        one.send("s2", vote(2))
        self.network.run()
        self.assertEqual(two.terms(), [2])

    def test_what_was_queued_before_a_reconnect_is_not_sent_after_it(self) -> None:
        """N06"""
        one, two = pair(self.network)
        one.transport.send("s2", vote(1))
        self.network.link("s1", "s2").cut()
        self.network.advance(1)
        one.send("s2", vote(2))
        self.network.run()
        self.assertEqual(two.terms(), [2])

    def test_a_message_above_the_limit_is_never_sent_and_reported_once(self) -> None:
        one, two = pair(self.network)
        with log_lines() as lines:
            one.send("s2", append(MAX_MESSAGE_BYTES), vote(2))
            one.send("s2", append(MAX_MESSAGE_BYTES))
            self.network.run()
        self.assertEqual(two.terms(), [2])
        self.assertEqual(one.transport.dropped_messages("s2"), 2)
        self.assertEqual(lines, ["link to s2: a AppendEntries above max_message_bytes is not sent"])

    def test_a_message_of_exactly_the_limit_arrives(self) -> None:
        one, two = pair(self.network)
        overhead = len(encode_message(append(MAX_MESSAGE_BYTES - 100))) - (MAX_MESSAGE_BYTES - 100)
        message = append(MAX_MESSAGE_BYTES - overhead)
        self.assertEqual(len(encode_message(message)), MAX_MESSAGE_BYTES)
        one.send("s2", message)
        self.network.run()
        self.assertEqual(two.terms(), [1])


class Bounds(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.one, self.two = pair(self.network)
        self.end = self.network.link("s1", "s2")

    def test_a_peer_that_does_not_read_costs_bounded_memory(self) -> None:
        """N04, N05"""
        self.end.stalled = True
        for _ in range(1000):
            self.one.send("s2", append(9_000))
        self.assertLessEqual(len(self.end.buffer), MAX_QUEUE_BYTES + HIGH_WATER_BYTES)
        self.assertGreater(len(self.end.buffer), MAX_QUEUE_BYTES - 20_000)
        self.assertGreater(self.one.transport.dropped_messages("s2"), 900)

    def test_one_turn_queues_no_more_than_the_bound(self) -> None:
        """N05"""
        self.end.stalled = True
        self.one.send("s2", *[append(9_000, term) for term in range(1, 100)])
        self.assertLessEqual(len(self.end.buffer), MAX_QUEUE_BYTES)

    def test_a_link_that_has_caught_up_takes_messages_again(self) -> None:
        self.end.stalled = True
        for term in range(1, 101):
            self.one.send("s2", append(9_000, term))
        self.end.stalled = False
        self.network.run()
        self.one.send("s2", vote(200))
        self.network.run()
        terms = self.two.terms()
        self.assertEqual(terms, [*range(1, len(terms)), 200])

    def test_traffic_that_keeps_up_is_never_dropped(self) -> None:
        for _ in range(100):
            self.one.send("s2", *[append(9_000) for _ in range(20)])
            self.network.run()
        self.assertEqual(len(self.two.terms()), 2000)
        self.assertEqual(self.one.transport.dropped_messages("s2"), 0)

    def test_small_writes_that_never_make_the_transport_pause_are_not_counted_for_ever(self) -> None:
        self.send_one_by_one(2 * MAX_QUEUE_BYTES)
        self.assertEqual(self.one.transport.dropped_messages("s2"), 0)

    def test_a_pause_that_is_over_does_not_count_for_ever(self) -> None:
        self.one.send("s2", *[append(9_000) for _ in range(20)])
        self.network.run()
        self.send_one_by_one(2 * MAX_QUEUE_BYTES)
        self.assertEqual(self.one.transport.dropped_messages("s2"), 0)

    def send_one_by_one(self, total_bytes: int) -> None:
        for _ in range(total_bytes // 1000):
            self.one.send("s2", append(1000))
            self.network.run()

    def test_an_empty_link_takes_one_message_above_the_queue_bound(self) -> None:
        """Else it would never be sent: a bound that is smaller than a message must not stop a cluster."""
        peer = self.one.transport._peers["s2"]
        peer.max_queue_bytes = 10
        self.one.send("s2", append(5_000), append(5_000))
        self.network.run()
        self.assertEqual(len(self.two.terms()), 1)


class Membership(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()

    def test_addresses_come_with_the_handshake_and_outlive_the_link(self) -> None:
        """original 28"""
        one, two = pair(self.network)
        self.assertEqual(one.transport.addresses("s2"), Addresses("s2:client", "s2:admin"))
        self.assertEqual(two.transport.addresses("s1"), Addresses("s1:client", "s1:admin"))
        two.transport.stop()
        self.network.run()
        self.assertEqual(one.transport.addresses("s2"), Addresses("s2:client", "s2:admin"))
        self.assertEqual(one.transport.addresses("s3"), Addresses())

    def test_a_server_that_is_no_peer_any_more_loses_its_links(self) -> None:
        one, two = pair(self.network)
        one.transport.set_peers([])
        two.transport.set_peers([])
        self.network.advance(3)
        one.send("s2", vote(1))
        two.send("s1", vote(2))
        self.network.advance(3)
        self.assertEqual((one.received, two.received), ([], []))
        self.assertEqual(one.transport.link_status("s2"), "not a peer")
        self.assertEqual(two.transport.link_status("s1"), "not a peer")
        two.transport.set_peers([Contact("s1")])
        one.transport.set_peers([Contact("s2")])
        self.network.advance(2)
        self.assertEqual(two.transport.link_status("s1"), "connected")

    def test_a_peer_that_is_added_is_dialled(self) -> None:
        one = Server(self.network, "s1")
        Server(self.network, "s2")
        self.network.run()
        self.assertEqual(self.network.attempts, [])
        one.transport.set_peers([Contact("s2")])
        self.network.run()
        self.assertEqual(one.transport.link_status("s2"), "connected")

    def test_setting_the_same_peers_again_disturbs_nothing(self) -> None:
        one, two = pair(self.network)
        one.transport.set_peers([Contact("s2"), Contact("s1")])
        one.send("s2", vote(1))
        self.network.run()
        self.assertEqual(two.terms(), [1])
        self.assertEqual(self.network.attempts, ["s2", "s1"])

    def test_a_passive_server_receives_from_a_server_of_a_cluster(self) -> None:
        one = Server(self.network, "s1", "s2")
        two = Server(self.network, "s2", cluster_id="")
        self.network.run()
        one.send("s2", vote(1))
        self.network.run()
        self.assertEqual(two.received, [("s1", [vote(1)])])
        self.assertEqual(two.transport.addresses("s1").client, "s1:client")
        self.assertEqual(one.transport.addresses("s2").client, "s2:client")

    def test_a_server_of_the_cluster_that_is_no_peer_is_answered_as_long_as_it_keeps_a_link(self) -> None:
        """M14"""
        one = Server(self.network, "s1", "s2")
        two = Server(self.network, "s2")
        self.network.run()
        one.send("s2", vote(1))
        self.network.run()
        two.send("s1", vote(2))
        self.network.run()
        self.assertEqual((one.terms(), two.terms()), ([2], [1]))
        one.transport.set_peers([])
        self.network.advance(5, step=0.1)
        self.assertEqual(two.transport.link_status("s1"), "not a peer")
        self.assertEqual(one.transport.link_status("s2"), "not a peer")


class StartAndStop(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()

    def assert_stopped(self, server: Server) -> None:
        done = server.transport.stop()
        self.network.run()
        self.assertIs(self.successResultOf(done), None)
        self.assertNotIn(server.server_id, self.network.listening)

    def test_a_port_in_use_fails_the_start(self) -> None:
        Server(self.network, "s1")
        with pytest.raises(CannotListenError, match="Address already in use"):
            Server(self.network, "s1")

    def test_stop_closes_all_and_leaves_no_delayed_call(self) -> None:
        one, two = pair(self.network)
        self.assert_stopped(one)
        self.assert_stopped(two)
        self.assertTrue(all(end.gone for end in self.network.ends))
        self.assertEqual(self.network.clock.getDelayedCalls(), [])

    def test_stop_while_connecting_waiting_and_shaking_hands_leaves_no_delayed_call(self) -> None:
        self.network.silent.add("s3")
        one = Server(self.network, "s1", "s2 s3")
        self.network.run()
        caller = Caller(self.network, "s1")
        # One each for: the attempt that is not answered, the next retry, and the caller that has not said hello.
        self.assertEqual(len(self.network.clock.getDelayedCalls()), 3)
        self.assert_stopped(one)
        self.assertEqual(self.network.clock.getDelayedCalls(), [])
        self.assertTrue(caller.lost)

    def test_stop_does_not_wait_for_a_peer_that_does_not_read(self) -> None:
        """N04"""
        one, _ = pair(self.network)
        end = self.network.link("s1", "s2")
        end.stalled = True
        for _ in range(100):
            one.send("s2", append(9_000))
        done = one.transport.stop()
        self.network.run()
        self.assertNoResult(done)
        self.network.advance(CLOSE_S, step=CLOSE_S / 2)
        self.successResultOf(done)

    def test_stop_waits_for_the_connections_that_others_dialled(self) -> None:
        one = Server(self.network, "s1", cluster_id="")
        caller = Caller(self.network, "s1")
        done = one.transport.stop()
        self.assertNoResult(done)
        self.network.run()
        self.assertTrue(caller.lost)
        self.successResultOf(done)

    def test_a_link_that_is_paused_and_then_drained_closes_without_waiting(self) -> None:
        one, _ = pair(self.network)
        one.send("s2", *[append(9_000) for _ in range(20)])
        self.assert_stopped(one)

    def test_what_was_flushed_before_stop_arrives(self) -> None:
        one, two = pair(self.network)
        one.send("s2", vote(1))
        one.transport.stop()
        self.network.run()
        self.assertEqual(two.terms(), [1])

    def test_stop_before_start_and_twice_is_done_at_once(self) -> None:
        one, _ = pair(self.network)
        self.assert_stopped(one)
        self.successResultOf(one.transport.stop())
        one.send("s2", vote(1))
        one.transport.set_peers([Contact("s2")])
        self.assertEqual(one.transport.link_status("s2"), "not a peer")


class LogLines(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()

    def test_links_say_when_they_come_and_go_and_no_more(self) -> None:
        one = Server(self.network, "s1", "s2")
        with log_lines() as lines:
            self.network.advance(60, step=0.1)
            two = Server(self.network, "s2", "s1")
            self.network.advance(STABLE_S + 2, step=0.1)
            two.transport.stop()
            self.network.advance(60, step=0.1)
        refused = "cannot connect: Connection was refused by other side"
        self.assertEqual([line for line in lines if "to s2" in line], self._story(refused))
        self.assertEqual(one.transport.link_status("s2"), refused)

    def test_a_server_that_stops_does_not_report_each_of_its_links(self) -> None:
        one, _ = pair(self.network)
        with log_lines() as lines:
            one.transport.stop()
            self.network.run()
        # s2 does: for s2 it is news.
        self.assertEqual([line for line in lines if "stopping" in line], [])
        self.assertTrue([line for line in lines if "to s1" in line])

    @staticmethod
    def _story(refused: str) -> list[str]:
        lost = "Connection was closed cleanly."
        return [f"link to s2: {what}" for what in (refused, "connected", lost, refused)]

    def test_payloads_are_never_logged(self) -> None:
        """original 32"""
        one, two = pair(self.network)
        secret = EntryRun(1, 1, EntryKind.COMMAND, 0, [b"hunter2"])
        two.problem = ProtocolError("no")
        with log_lines() as lines:
            one.send("s2", AppendEntries(1, 0, 0, 0, 0, LogSlice(1, [secret])))
            Caller(self.network, "s2").say(hello_frame("s1", "s2") + frame(b"hunter2"))
            self.network.run()
        self.assertNotEqual(lines, [])
        self.assertNotIn("hunter2", "".join(lines))
