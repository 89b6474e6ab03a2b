"""Whatever one connection does wrong ends that connection, with one log line that says why, and nothing else."""

from __future__ import annotations

from struct import pack

from memory_links import MAX_MESSAGE_BYTES, Caller, Network, Server, hello_frame, log_lines, pair, vote
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from txraft._proto import raft_pb2
from txraft.codec import decode_hello, encode_message
from txraft.core.contact import Contact
from txraft.errors import ProtocolError
from txraft.framing import Splitter, frame
from txraft.net.accepting import MAX_UNSHAKEN
from txraft.net.dialling import CONNECT_S
from txraft.net.handshake import MAX_HELLO_BYTES, MAX_STRANGERS
from txraft.net.links import HANDSHAKE_S, STABLE_S

GOOD_HELLO = hello_frame("s1", "s2")
VOTE = frame(encode_message(vote(5)))


class Faults(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.one, self.two = pair(self.network)

    def assert_closed(self, data: bytes, why: str) -> Caller:
        """The server s2 closes a connection that sends this, says why once, and its real link goes on."""
        caller = Caller(self.network, "s2")
        with log_lines() as lines:
            caller.say(data)
        self.assertTrue(caller.lost)
        self.assertEqual(len(lines), 1, lines)
        self.assertIn(why, lines[0])
        self.assertIn("10.0.0.1:5000", lines[0])
        self.two.received.clear()
        self.one.send("s2", vote(1))
        self.network.run()
        self.assertEqual(self.two.received, [("s1", [vote(1)])])
        return caller

    def test_a_first_frame_that_is_wrong_closes_the_connection(self) -> None:
        """N01, N07, N13"""
        for data, why in (
            (pack(">II", 0xFFFFFFFF, 0), "frame of 4294967295 bytes, but the limit here is 4096"),
            (pack(">II", MAX_HELLO_BYTES + 1, 0), "frame of 4097 bytes, but the limit here is 4096"),
            (pack(">II", 0, 0), "empty frame"),
            (pack(">II", 3, 7) + b"abc", "wrong checksum"),
            (b"GET / HTTP/1.1\r\n\r\n", "frame of 1195725856 bytes"),
            (frame(b"\xff" * 20), "not a Hello"),
        ):
            self.assertEqual(self.assert_closed(data, why).heard, b"")

    def test_a_hello_that_is_refused_is_answered_with_the_reason(self) -> None:
        """N11, N13; original 31"""
        for hello, why in (
            (hello_frame("s1", "s2", protocol_version=2), "protocol version 2"),
            (hello_frame("s1", "s2", cluster_id="other"), "cluster 'other'"),
            (hello_frame("s1", "s3"), "calls 's3'"),
            (hello_frame("s9", "s2", cluster_id=""), "'s9' is no member"),
            (hello_frame("s1", "s2", cluster_id="c", incarnation=2), "'s1' has lost its data"),
            (VOTE, "speaks protocol version"),
        ):
            (answer,) = self.assert_closed(hello, why).frames()
            self.assertIn(why, decode_hello(answer).refusal)

    def test_messages_behind_a_refused_hello_are_not_looked_at(self) -> None:
        """N10, N11"""
        self.assert_closed(hello_frame("s1", "s9") + VOTE, "calls 's9'")
        self.assertEqual(self.two.terms(), [1])

    def test_a_wrong_frame_behind_a_good_hello_closes_the_connection(self) -> None:
        """N01, N02, N13"""
        unknown_message = frame(raft_pb2.Envelope().SerializeToString() + b"\xfa\x01\x02\x08\x01")
        other_group = frame(raft_pb2.Envelope(group=1, pre_vote=raft_pb2.PreVote(term=1)).SerializeToString())
        for data, why in (
            (pack(">II", MAX_MESSAGE_BYTES + 1, 0), f"but the limit here is {MAX_MESSAGE_BYTES}"),
            (pack(">II", 0, 0), "empty frame"),
            (VOTE[:-1] + b"\x00", "wrong checksum"),
            (frame(b"\xff\xff"), "not a Envelope"),
            (unknown_message, "no message in the envelope"),
            (other_group, "group 1"),
        ):
            caller = Caller(self.network, "s2")
            caller.say(GOOD_HELLO)
            with log_lines() as lines:
                caller.say(data)
            self.assertTrue(caller.lost)
            self.assertEqual([why in line for line in lines], [True], lines)
            self.network.advance(2)
            self.assertEqual(self.one.transport.link_status("s2"), "connected")
        self.assertEqual(self.two.received, [])

    def test_messages_in_a_read_with_a_wrong_one_are_all_dropped(self) -> None:
        caller = Caller(self.network, "s2")
        caller.say(GOOD_HELLO)
        caller.say(VOTE + frame(b"\xff\xff") + VOTE)
        self.assertEqual(self.two.received, [])

    def test_a_protocol_error_of_the_receiver_closes_the_link(self) -> None:
        self.two.problem = ProtocolError("term of the past")
        with log_lines() as lines:
            self.one.send("s2", vote(1))
            self.network.run()
        self.assertEqual(
            sorted(line.partition(" (")[0] + line.partition(")")[2] for line in lines),
            ["link from s1: term of the past", "link to s2: Connection was closed cleanly."],
        )
        self.two.problem = None
        self.network.advance(2)
        self.assertEqual(self.one.transport.link_status("s2"), "connected")

    def test_a_connection_that_ends_at_any_byte_of_the_handshake_disturbs_nothing(self) -> None:
        """N07"""
        for place in range(len(GOOD_HELLO)):
            caller = Caller(self.network, "s2")
            caller.say(GOOD_HELLO[:place])
            caller.transport.cut()  # type: ignore[union-attr]
        self.network.advance(HANDSHAKE_S + 1, step=1)
        self.one.send("s2", vote(1))
        self.network.run()
        self.assertEqual(self.two.terms(), [1])
        self.assertEqual(self.network.clock.getDelayedCalls(), [])

    def test_the_same_fault_on_every_retry_is_logged_once_until_the_link_was_in_order(self) -> None:
        with log_lines() as lines:
            for _ in range(100):
                Caller(self.network, "s2").say(hello_frame("s1", "s3"))
        self.assertEqual(len(lines), 1)
        Caller(self.network, "s2").say(GOOD_HELLO)
        with log_lines() as lines:
            Caller(self.network, "s2").say(hello_frame("s1", "s3"))
        self.assertEqual(len(lines), 1)

    def test_a_flood_of_different_faults_keeps_the_memory_of_what_was_said_bounded(self) -> None:
        for number in range(1500):
            Caller(self.network, "s2").say(hello_frame(f"x{number}", "s2"))
        self.assertLessEqual(len(self.two.transport._journal._said), 1000)

    def test_a_new_disk_under_an_old_name_is_refused_until_the_server_was_removed(self) -> None:
        """original 25"""
        self.two.transport.stop()
        self.network.run()
        wiped = Server(self.network, "s2", "s1", cluster_id="c", incarnation=2)
        self.network.advance(3)
        self.assertIn("'s2' has lost its data", self.one.transport.link_status("s2"))
        self.assertIn("'s2' has lost its data", wiped.transport.link_status("s1"))
        self.one.transport.set_peers([])
        self.one.transport.set_peers([Contact("s2")])
        self.network.advance(3)
        self.assertEqual(self.one.transport.link_status("s2"), "connected")


class Replacement(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.one, self.two = pair(self.network)

    def test_a_newer_connection_replaces_the_older_whose_late_data_is_ignored(self) -> None:
        """N06"""
        older, newer = Caller(self.network, "s2"), Caller(self.network, "s2")
        older.say(GOOD_HELLO)
        older_end = older.transport.other  # type: ignore[union-attr]
        older_end.stalled = True
        newer.say(GOOD_HELLO)
        older.say(VOTE)
        newer.say(frame(encode_message(vote(6))))
        self.assertEqual(self.two.terms(), [6])
        older_end.stalled = False
        self.network.run()
        self.assertEqual((older.lost, newer.lost), (True, False))

    def test_the_end_of_the_older_connection_does_not_take_the_newer_one_with_it(self) -> None:
        """N06"""
        older, newer, newest = (Caller(self.network, "s2") for _ in range(3))
        older.say(GOOD_HELLO)
        newer.say(GOOD_HELLO)
        self.assertTrue(older.lost)
        newest.say(GOOD_HELLO)
        self.assertTrue(newer.lost)
        newest.say(VOTE)
        self.assertEqual(self.two.terms(), [5])

    def test_an_answer_from_another_server_than_the_one_called_is_not_taken(self) -> None:
        """N11: an address that was given to another server."""
        self.two.transport.stop()
        self.network.run()
        three = Server(self.network, "s3", "s1")
        self.network.listening["s2"] = self.network.listening["s3"]
        self.network.advance(2)
        self.assertIn("'s1' calls 's2', but this is 's3'", self.one.transport.link_status("s2"))
        self.one.send("s2", vote(1))
        self.network.run()
        self.assertEqual(three.received, [])

    def test_a_server_that_answers_under_another_peers_name_is_not_taken(self) -> None:
        """N11: it should have refused us; we do not rely on it."""
        self.one.transport.set_peers([Contact("s2"), Contact("s3")])
        self.two.transport.stop()
        self.network.run()
        self.network.listening["s2"] = ImpostorFactory()
        self.network.advance(2)
        self.assertIn("'s3' answers there", self.one.transport.link_status("s2"))

    def test_data_on_a_link_that_only_we_send_on_closes_it(self) -> None:
        self.network.link("s1", "s2").other.write(VOTE)
        self.network.run()
        self.assertEqual(self.one.received, [])
        self.assertIn("sends on a link that only we send on", self.one.transport.link_status("s2"))


class Impostor(Protocol):
    """Accepts whoever calls, as s3."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(hello_frame("s3", "s1"))  # type: ignore[union-attr]


class ImpostorFactory(Factory):
    protocol = Impostor


class Slowness(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.one, self.two = pair(self.network)

    def test_a_handshake_must_be_complete_in_time_however_busy_the_caller_looks(self) -> None:
        """N03"""
        silent, trickling = Caller(self.network, "s2"), Caller(self.network, "s2")
        for second in range(int(HANDSHAKE_S)):
            self.assertFalse(silent.lost or trickling.lost)
            trickling.say(GOOD_HELLO[second : second + 1])
            self.network.advance(1, step=1)
        self.assertTrue(silent.lost and trickling.lost)

    def test_a_link_that_has_shaken_hands_may_be_silent(self) -> None:
        end = self.network.link("s1", "s2")
        self.network.advance(10 * HANDSHAKE_S, step=1)
        self.assertFalse(end.gone)

    def test_a_thousand_silent_connections_do_not_keep_a_server_out(self) -> None:
        """N03"""
        callers = [Caller(self.network, "s2", host=f"10.1.{number // 250}.{number % 250}") for number in range(1000)]
        self.network.run()
        self.assertEqual(sum(not caller.lost for caller in callers), MAX_UNSHAKEN)
        self.network.link("s1", "s2").cut()
        self.network.advance(1)
        self.assertEqual(self.one.transport.link_status("s2"), "connected")
        self.network.advance(HANDSHAKE_S, step=1)
        self.assertTrue(all(caller.lost for caller in callers))

    def test_strangers_at_a_passive_server_are_bounded(self) -> None:
        """N03"""
        passive = Server(self.network, "s9", cluster_id="")
        callers = []
        for number in range(MAX_STRANGERS + 10):
            callers.append(Caller(self.network, "s9"))
            callers[-1].say(hello_frame(f"x{number}", "s9"))
        self.assertEqual([caller.lost for caller in callers], [True] * 10 + [False] * MAX_STRANGERS)
        passive.transport.stop()

    def test_an_answer_that_does_not_come_is_given_up_and_tried_again(self) -> None:
        """N12: a resolver or a server that never answers."""
        self.network.silent.add("s3")
        self.one.transport.set_peers([Contact("s2"), Contact("s3")])
        self.network.advance(CONNECT_S, step=1)
        self.assertIn("cannot connect", self.one.transport.link_status("s3"))
        self.assertIn("no answer within 5 s", self.one.transport.link_status("s3"))
        self.network.silent.remove("s3")
        Server(self.network, "s3", "s1")
        self.network.advance(1)
        self.assertEqual(self.one.transport.link_status("s3"), "connected")

    def test_a_server_that_takes_the_connection_and_says_nothing_is_given_up(self) -> None:
        """N04"""
        self.network.link("s1", "s2").cut()
        self.network.advance(0.04, step=0.01)
        while not self.network.waiting:
            self.network.clock.advance(0.01)
        ends = len(self.network.ends)
        self.network.complete(*self.network.waiting.pop())
        for end in self.network.ends[ends:]:
            end.stalled = True
        self.network.clock.advance(HANDSHAKE_S)
        self.network.clock.advance(1)
        self.assertEqual(self.one.transport.link_status("s2"), "no handshake within 5 s")


class Retries(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()

    def attempts(self, seconds: float) -> int:
        before = len(self.network.attempts)
        self.network.advance(seconds)
        return len(self.network.attempts) - before

    def test_dead_peers_are_tried_soon_at_first_and_about_once_a_second_in_the_end(self) -> None:
        """N08"""
        Server(self.network, "s1", "s2 s3 s4 s5")
        self.network.run()
        self.assertGreaterEqual(self.attempts(1), 4 * 4)
        self.network.advance(9)
        self.assertLessEqual(self.attempts(60), 4 * 60)
        self.assertGreaterEqual(self.attempts(60), 4 * 55)

    def test_retries_of_servers_that_lost_the_same_peer_drift_apart(self) -> None:
        """N08: jitter."""
        Server(self.network, "s1", "s2 s3")
        times: dict[str, list[float]] = {"s2": [], "s3": []}
        for _ in range(1000):
            self.network.advance(0.01)
            for receiver in self.network.attempts:
                times[receiver].append(self.network.clock.seconds())
            self.network.attempts.clear()
        self.assertNotEqual(times["s2"][5:], times["s3"][5:])

    def test_a_server_that_refuses_us_is_tried_no_more_often_than_a_dead_one(self) -> None:
        """N08: TCP connects each time, and that is no success."""
        one = Server(self.network, "s1", "s2")
        Server(self.network, "s2", "s3", cluster_id="other")
        with log_lines() as lines:
            self.network.advance(10)
            self.assertLessEqual(self.attempts(60), 2 * 60)
        self.assertIn("'s1' belongs to cluster 'c.0", one.transport.link_status("s2"))
        self.assertEqual(len([line for line in lines if "to s2" in line]), 1, lines)

    def test_a_link_that_does_not_last_is_retried_more_and_more_slowly(self) -> None:
        """N08: two servers started under one name would replace each other's connections for ever."""
        pair(self.network)
        for _ in range(20):
            self.network.link("s1", "s2").cut()
            self.network.advance(1.2)
        self.network.link("s1", "s2").cut()
        self.assertEqual(self.attempts(0.9), 0)

    def test_a_link_that_lasted_is_dialled_again_soon(self) -> None:
        pair(self.network)
        for _ in range(20):
            self.network.link("s1", "s2").cut()
            self.network.advance(1.2)
        self.network.advance(STABLE_S, step=1)
        self.network.link("s1", "s2").cut()
        self.assertEqual(self.attempts(0.15), 1)

    def test_a_server_that_comes_back_is_dialled_as_soon_as_it_calls(self) -> None:
        one = Server(self.network, "s1", "s2")
        self.network.advance(30, step=0.1)
        Server(self.network, "s2", "s1")
        self.network.run()
        self.assertEqual(one.transport.link_status("s2"), "connected")

    def test_a_peer_that_calls_while_we_dial_it_is_not_dialled_twice(self) -> None:
        """N06: crossed connects."""
        one = Server(self.network, "s1", "s2")
        crossing, self.network.waiting = self.network.waiting, []
        two = Server(self.network, "s2", "s1")
        self.network.run()
        self.network.waiting = crossing
        self.network.advance(STABLE_S)
        self.assertEqual(self.network.attempts, ["s2", "s1"])
        self.assertEqual((one.transport.link_status("s2"), two.transport.link_status("s1")), ("connected", "connected"))

    def test_an_address_that_cannot_be_used_is_a_status_and_not_an_exception(self) -> None:
        one = Server(self.network, "s1")

        def no_endpoint(server_id: str) -> None:
            raise ValueError(f"{server_id!r} has no port")

        one.transport._client_endpoint = no_endpoint  # type: ignore[assignment]
        one.transport.set_peers([Contact("s2")])
        self.assertEqual(one.transport.link_status("s2"), "cannot connect: 's2' has no port")


def test_the_splitter_of_an_unshaken_connection_holds_at_most_a_hello() -> None:
    """N01"""
    splitter = Splitter(MAX_HELLO_BYTES)
    splitter.feed(pack(">II", MAX_HELLO_BYTES, 0) + bytes(MAX_HELLO_BYTES - 1))
    assert len(splitter._held) <= MAX_HELLO_BYTES + 8
