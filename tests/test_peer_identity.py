"""Links and who is at their other end: members that have moved, disks that were copied, wiped, or are another's."""

from __future__ import annotations

import random
from typing import Any

from memory_links import EPOCH, Caller, ListenEndpoint, Network, Server, hello_frame, log_lines, pair, vote
from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import IHostnameResolver, IReactorPluggableNameResolver
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from txraft.codec import decode_hello, encode_message
from txraft.core.contact import Contact
from txraft.core.messages import AppendEntriesResponse, PreVoteResponse, RequestVoteResponse
from txraft.framing import frame
from txraft.interfaces import Identity
from txraft.net.peers import PeerTransport
from txraft.tap import client_endpoint


class Moved(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.one, self.two = pair(self.network)

    def test_a_peer_is_dialled_where_the_log_says_that_it_is(self) -> None:
        """M19"""
        self.network.listening["elsewhere"] = self.network.listening.pop("s2")
        self.one.transport.set_peers([Contact("s2", "elsewhere")])
        self.network.run()
        self.assertEqual(self.network.attempts[-1], "elsewhere")
        self.assertEqual(self.one.transport.link_status("s2"), "connected")
        self.one.send("s2", vote(3))
        self.network.run()
        self.assertEqual(self.two.terms(), [3])

    def test_its_old_link_is_given_up_and_what_else_is_said_of_it_disturbs_nothing(self) -> None:
        end = self.network.link("s1", "s2")
        attempts = len(self.network.attempts)
        self.one.transport.set_peers([Contact("s2", "", 1)])
        self.network.run()
        self.assertEqual((end.gone, len(self.network.attempts)), (False, attempts))
        self.one.transport.set_peers([Contact("s2", "elsewhere", 1)])
        self.network.run()
        self.assertTrue(end.gone)
        self.assertIn("refused", self.one.transport.link_status("s2"))


@implementer(IHostnameResolver)
class Resolver:
    """Knows one name; `address` is where it is at the moment."""

    def __init__(self) -> None:
        self.address = "10.0.0.1"
        self.asked: list[str] = []

    def resolveHostName(self, receiver: Any, hostName: str, portNumber: int = 0, *_: Any, **__: Any) -> Any:
        self.asked.append(hostName)
        receiver.resolutionBegan(self)
        receiver.addressResolved(IPv4Address("TCP", self.address, portNumber))
        receiver.resolutionComplete()
        return receiver

    def cancel(self) -> None:
        """Nothing is under way."""


@implementer(IReactorPluggableNameResolver)
class ResolvingReactor(MemoryReactorClock):
    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = Resolver()

    def installNameResolver(self, resolver: Any) -> None:
        raise NotImplementedError


class Names(SynchronousTestCase):
    def test_a_name_is_looked_up_again_for_each_connection(self) -> None:
        """An id may be a host name: a server that was given another IP address is found there."""
        reactor = ResolvingReactor()
        transport = PeerTransport(
            reactor, ListenEndpoint(Network(), "a"), client_endpoint(reactor, 29922), 1000, 1000, random.Random(1)
        )
        transport.set_peers([Contact("b.example:1234"), Contact("c.example")])
        transport.start(Identity(EPOCH, "a", 1), lambda sender, messages: None, lambda: None, lambda *_: None)
        reactor.advance(0)
        self.assertEqual([client[:2] for client in reactor.tcpClients], [("10.0.0.1", 1234), ("10.0.0.1", 29922)])
        reactor.nameResolver.address = "10.0.0.2"
        reactor.tcpClients[0][2].clientConnectionFailed(reactor.connectors[0], Failure(ConnectionRefusedError()))
        reactor.pump([0.1] * 10)
        self.assertEqual(reactor.tcpClients[-1][:2], ("10.0.0.2", 1234))
        self.assertEqual(reactor.nameResolver.asked, ["b.example", "c.example", "b.example"])


class Copied(SynchronousTestCase):
    """Two servers with one disk's content: the same name, the same number, at the same time."""

    def setUp(self) -> None:
        self.network = Network()
        self.two = Server(self.network, "s2", "s1")
        self.original = Caller(self.network, "s2", host="10.0.0.1")
        self.original.say(hello_frame("s1", "s2"))

    def refusal(self, caller: Caller) -> str:
        return decode_hello(caller.frames()[0]).refusal

    def test_the_second_one_is_refused_as_long_as_the_first_is_there(self) -> None:
        copy = Caller(self.network, "s2", host="10.0.0.2")
        with log_lines() as lines:
            copy.say(hello_frame("s1", "s2"))
        self.assertIn(
            "another server with the name and the data of 's1' is connected from 10.0.0.1", self.refusal(copy)
        )
        self.assertIn("stop one of them", lines[0])
        self.assertEqual((copy.lost, self.original.lost), (True, False))
        self.original.say(frame(encode_message(vote(4))))
        self.assertEqual(self.two.terms(), [4])

    def test_a_server_that_has_moved_is_accepted_when_its_old_connection_is_gone(self) -> None:
        self.original.transport.loseConnection()  # type: ignore[union-attr]
        self.network.run()
        moved = Caller(self.network, "s2", host="10.0.0.2")
        moved.say(hello_frame("s1", "s2"))
        self.assertEqual((self.refusal(moved), moved.lost), ("", False))

    def test_a_server_that_connects_again_from_where_it_was_is_no_copy(self) -> None:
        again = Caller(self.network, "s2", host="10.0.0.1")
        again.say(hello_frame("s1", "s2"))
        self.assertEqual((again.lost, self.original.lost), (False, True))


ANSWERS = (AppendEntriesResponse(7, 0, 5), RequestVoteResponse(7, granted=True), PreVoteResponse(7, 1, granted=True))


class Another(SynchronousTestCase):
    def setUp(self) -> None:
        self.network = Network()
        self.two = Server(self.network, "s2", "s1")

    def test_of_another_data_directory_no_answer_counts_but_what_a_leader_and_a_candidate_says_does(self) -> None:
        """M11, M12: it was removed and added again, perhaps, and we have not heard of it; or it is an impostor."""
        self.two.transport.set_peers([Contact("s1", "", 1)])
        caller = Caller(self.network, "s2")
        caller.say(hello_frame("s1", "s2", incarnation=2))
        for message in (*ANSWERS, vote(8)):
            caller.say(frame(encode_message(message)))
        self.assertEqual(self.two.received[-1], ("s1", [vote(8)]))
        self.assertEqual(self.two.terms(), [8])
        self.two.transport.set_peers([Contact("s1", "", 2)])
        for message in ANSWERS:
            caller.say(frame(encode_message(message)))
        self.assertEqual(self.two.terms(), [8, 7, 7, 7], "now it is the member")

    def test_a_link_ends_when_the_log_says_that_its_other_end_is_not_the_member(self) -> None:
        caller = Caller(self.network, "s2")
        caller.say(hello_frame("s1", "s2", cluster_id="c"))
        self.assertFalse(caller.lost)
        with log_lines() as lines:
            self.two.transport.set_peers([Contact("s1", "", 77)])
            self.network.run()
        self.assertTrue(caller.lost)
        self.assertIn("'s1' has lost its data", lines[0])

    def test_a_passive_server_that_has_lost_its_data_hears_from_its_cluster_why_it_is_refused(self) -> None:
        """It dials nobody by itself, and whoever dials it hangs up: the answer to its dialling back is waited for."""
        one = Server(self.network, "s1")
        one.transport.set_peers([Contact("s3", "", 1)])
        wiped = Server(self.network, "s3", cluster_id="", incarnation=9)
        self.network.advance(3)
        self.assertIn("'s1' says: \"'s3' has lost its data", wiped.transport.refusal)
        self.assertEqual(wiped.transport._peers, {}, "nothing is left of a server that keeps no link")
        one.transport.set_peers([Contact("s3")])
        self.network.advance(2)
        self.assertEqual((wiped.transport.refusal, wiped.transport.link_status("s1")), ("", "connected"))

    def test_what_a_removed_server_has_said_is_not_held_against_it_when_it_is_added_again(self) -> None:
        """Its old process goes on for a while, as a stranger of the epoch; then its disk is wiped."""
        one = Server(self.network, "s1")
        removed = Server(self.network, "s3", "s1", incarnation=7)
        self.network.run()
        self.assertEqual(one.transport.identities()["s3"].incarnation, 7, "a stranger is remembered, too")
        removed.transport.stop()
        self.network.run()
        wiped = Server(self.network, "s3", cluster_id="", incarnation=9)
        one.transport.set_peers([Contact("s3")])
        self.network.advance(2)
        self.assertEqual(one.transport.link_status("s3"), "connected")
        self.assertEqual(one.transport.identities()["s3"].incarnation, 9)
        one.send("s3", vote(5))
        self.network.run()
        self.assertEqual(wiped.terms(), [5])

    def test_a_stranger_that_is_made_a_peer_while_it_is_linked_stays_known(self) -> None:
        one = Server(self.network, "s1")
        Server(self.network, "s3", "s1", incarnation=7)
        self.network.run()
        one.transport.set_peers([Contact("s3")])
        self.assertEqual(one.transport.identities()["s3"].incarnation, 7)

    def test_two_that_have_lost_their_data_are_told_so_by_the_third_and_talk_to_each_other_no_more(self) -> None:
        self.two.transport.stop()
        self.network.run()
        two, three = (Server(self.network, name, "s1 s2 s3", cluster_id="c", incarnation=9) for name in ("s2", "s3"))
        self.network.run()
        self.assertEqual(two.transport.link_status("s3"), "connected")
        one = Server(self.network, "s1")
        one.transport.set_peers([Contact("s2", "", 1), Contact("s3", "", 1)])
        self.network.advance(5)
        self.assertIn("'s2' has lost its data", two.transport.link_status("s1"))
        self.assertIn("is not the member of its name, says 's1'", two.transport.link_status("s3"))
        two.send("s3", vote(1))
        self.network.run()
        self.assertEqual(three.received, [])
        # Whoever is asked in again is talked to by those of the epoch.
        one.transport.set_peers([Contact("s2"), Contact("s3", "", 1)])
        self.network.advance(2)
        one.send("s2", vote(2))
        self.network.run()
        self.assertEqual(two.terms(), [2])
