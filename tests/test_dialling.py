"""The sending side of a link: when it dials."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from txraft.net.dialling import Peer
from txraft.net.handshake import Registry
from txraft.net.journal import Journal


class NamedEndpoint:
    """As Twisted's for host names: the name is resolved at once, the connection takes its time."""

    def __init__(self) -> None:
        self.attempts = 0

    def connect(self, factory: object) -> Deferred[Any]:
        self.attempts += 1
        return succeed("resolved").addCallback(lambda _: Deferred())


class DiallingTests(SynchronousTestCase):
    def test_a_peer_that_is_being_dialled_is_not_dialled_again(self) -> None:
        """N06: a second connection would replace the first, and the retry after the first the second, for ever."""
        endpoint = NamedEndpoint()
        peer = Peer(
            "b:1", "b:1", Clock(), lambda address: endpoint, Registry(), Journal(), 1 << 20, 1 << 20, lambda: 0.0
        )
        peer.dial()
        peer.retry_now()
        self.assertEqual(endpoint.attempts, 1)
        peer.stop("the test is over")
