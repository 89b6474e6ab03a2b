"""
PeerTransport: messages to and from the other servers.

A server sends on the links that it dialled and receives on those that it accepted, so between two servers there are
two connections, each with one direction of messages, and who a message is from is settled once, by the handshake.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.core.contact import Contact
from txraft.core.messages import Message
from txraft.interfaces import Addresses, Identity, ISnapshotReader, ITransport, Snapshot
from txraft.net.accepting import Acceptor, Receive
from txraft.net.dialling import CONNECTING, Peer
from txraft.net.handshake import MAX_STRANGERS, Registry
from txraft.net.journal import Journal
from txraft.net.probing import probe
from txraft.net.receiving import Accept
from txraft.net.sending import SnapshotTransfer


@implementer(ITransport)
class PeerTransport:
    """
    Links over stream endpoints.

    @param listen_endpoint: where the other servers reach us.
    @param client_endpoint: how to reach a server by its address; asked again for each attempt.
    @param max_message_bytes: a larger message is neither sent nor received.
    @param max_peer_queue_bytes: a link that is this far behind is sent nothing more until it has caught up.
    @param snapshot_bandwidth: bytes a second that one snapshot is sent with at most; 0: no limit.
    """

    def __init__(
        self,
        reactor: Any,
        listen_endpoint: IStreamServerEndpoint,
        client_endpoint: Callable[[str], IStreamClientEndpoint],
        max_message_bytes: int,
        max_peer_queue_bytes: int,
        rng: random.Random,
        snapshot_bandwidth: int = 0,
    ) -> None:
        self._reactor = reactor
        self._listen_endpoint = listen_endpoint
        self._client_endpoint = client_endpoint
        self._max_message_bytes = max_message_bytes
        self._max_peer_queue_bytes = max_peer_queue_bytes
        self._rng = rng
        self._snapshot_bandwidth = snapshot_bandwidth
        self._transfers: dict[SnapshotTransfer, None] = {}
        self._registry = Registry()
        self._registry.when_disowned = self._review_links
        self._journal = Journal()
        self._acceptor: Acceptor | None = None
        self._port: IListeningPort | None = None
        self._peers: dict[str, Peer] = {}
        self._leaving: list[Deferred[None]] = []

    def start(self, identity: Identity, receive: Receive, met: Callable[[], None], accept: Accept) -> None:
        """
        Begin to listen and to connect; see `ITransport`.

        @raise CannotListenError: or whatever else the endpoint fails with; nothing was started.
        """
        self._registry.us = identity
        self._registry.met = met
        self._journal.is_silent = False
        acceptor = Acceptor(
            self._reactor,
            self._registry,
            self._journal,
            self._max_message_bytes,
            receive,
            accept,
            arrived=self._dial_back,
            left=self._let_stranger_go,
        )
        self._port = _listen(self._listen_endpoint, acceptor)
        self._acceptor = acceptor
        self.set_peers(tuple(self._registry.contacts.values()))

    def set_peers(self, peers: Sequence[Contact]) -> None:
        """
        Keep a link to each of these, and else only to those that keep one to us.

        This server's own id among them is passed over. A link to an address that has changed is dialled anew.
        """
        self._registry.set_peers(peers)
        if self._acceptor is None:
            return
        for server_id, peer in sorted(self._peers.items()):
            if server_id not in self._registry.contacts:
                self._let_go(self._peers.pop(server_id))
            elif peer.address != self._registry.address(server_id):
                self._let_go(self._peers.pop(server_id), f"it is at {self._registry.address(server_id)} now")
        self._review_links()
        for server_id in self._registry.peers:
            if server_id not in self._peers:
                self._add_peer(server_id)

    def _review_links(self) -> None:
        """What is known has changed: end the links that would not be made any more."""
        if self._acceptor is not None:
            self._acceptor.review_links()
        for _, peer in sorted(self._peers.items()):
            peer.review_link()

    def join(self, cluster_id: str) -> None:
        """See `ITransport`."""
        self._registry.us = attrs.evolve(self._registry.us, cluster_id=cluster_id)

    def advertise(self, addresses: Addresses) -> None:
        """Say these in every handshake from now on."""
        self._registry.advertised = addresses

    def send(self, receiver_id: str, message: Message) -> None:
        """Queue a message for the next `flush`; drop it if there is no link or the link is full."""
        peer = self._peers.get(receiver_id)
        if peer is not None:
            peer.send(message)

    def send_snapshot(self, receiver_id: str, snapshot: Snapshot, reader: ISnapshotReader) -> SnapshotTransfer:
        """See `ITransport`."""
        transfer = SnapshotTransfer(
            self._reactor,
            self._registry,
            self._journal,
            lambda: self._client_endpoint(self._registry.address(receiver_id)),
            receiver_id,
            snapshot,
            reader,
            self._snapshot_bandwidth,
            self._rng.random,
        )
        self._transfers[transfer] = None
        transfer.closed.addCallback(lambda _: self._transfers.pop(transfer))
        return transfer

    def flush(self) -> None:
        """Hand everything queued to the network, one write per link."""
        for peer in self._peers.values():
            peer.flush()

    def addresses(self, server_id: str) -> Addresses:
        """What that server said of itself last."""
        return self._registry.addresses(server_id)

    def identities(self) -> Mapping[str, Identity]:
        """See `ITransport`."""
        return self._registry.identities

    def link_status(self, server_id: str) -> str:
        """ "connected", or in a few words why not."""
        peer = self._peers.get(server_id)
        return "not a peer" if peer is None else peer.status

    @property
    def refusal(self) -> str:
        """See `ITransport`."""
        return self._registry.refusal

    def probe(self, server_id: str, address: str) -> Deferred[str]:
        """Whether that server answers there, and this one could talk to it: "reachable", or why not. Never fails."""
        peer = self._peers.get(server_id)
        if peer is not None and peer.address == address:
            # Another connection of ours would take the place of the link.
            return succeed("reachable" if peer.status == "connected" else peer.status)
        return probe(server_id, address, self._reactor, self._client_endpoint, self._registry)

    def dropped_messages(self, server_id: str) -> int:
        """How many messages to that peer were dropped because they were too large or its link was full."""
        peer = self._peers.get(server_id)
        return 0 if peer is None else peer.dropped_messages

    def stop(self) -> Deferred[None]:
        """Close every link and stop listening. A Deferred of None; never fails."""
        self._journal.is_silent = True
        waits: list[Deferred[Any]] = []
        if self._port is not None:
            waits.append(maybeDeferred(self._port.stopListening))
        if self._acceptor is not None:
            for link in self._acceptor.open_links():
                link.close("stopping")
                waits.append(link.closed)
        for transfer in list(self._transfers):
            waits.append(transfer.closed)
            transfer.cancel()
        self._acceptor, self._port = None, None
        while self._peers:
            self._let_go(self._peers.popitem()[1], "stopping")
        return DeferredList(waits + self._leaving, consumeErrors=True).addCallback(lambda _: None)

    def _add_peer(self, server_id: str) -> None:
        peer = self._peers[server_id] = Peer(
            server_id,
            self._registry.address(server_id),
            self._reactor,
            self._client_endpoint,
            self._registry,
            self._journal,
            self._max_message_bytes,
            self._max_peer_queue_bytes,
            self._rng.random,
        )
        peer.dial()

    def _let_go(self, peer: Peer, reason: str = "no member of this cluster any more") -> None:
        gone = peer.stop(reason)
        self._leaving.append(gone)
        gone.addCallback(lambda _: self._leaving.remove(gone))

    def _dial_back(self, server_id: str) -> None:
        """A server that reached us can be reached: do not wait for the next retry; and a stranger wants an answer."""
        if server_id in self._peers:
            self._peers[server_id].when_answered = lambda: None
            self._peers[server_id].retry_now()
        else:
            self._add_peer(server_id)

    def _let_stranger_go(self, server_id: str) -> None:
        """It keeps no link to us. Whoever has been dialled back may be about to say why: then that is waited for."""
        peer = self._peers.get(server_id)
        if peer is None or server_id in self._registry.peers:
            return
        strangers = [other for other in self._peers if other not in self._registry.peers]
        if peer.status == CONNECTING and len(strangers) <= MAX_STRANGERS:
            peer.when_answered = lambda: self._let_stranger_go(server_id)
        else:
            self._let_go(self._peers.pop(server_id), "it keeps no link to this server")


def _listen(endpoint: IStreamServerEndpoint, acceptor: Acceptor) -> IListeningPort:
    """Every endpoint of Twisted knows at once whether it can listen, and who starts must know it too."""
    outcome: list[Any] = []
    endpoint.listen(acceptor).addBoth(outcome.append)
    assert outcome, f"{endpoint} did not listen at once"
    if isinstance(outcome[0], Failure):
        outcome[0].raiseException()
    port: IListeningPort = outcome[0]
    return port
