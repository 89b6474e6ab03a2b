"""The receiving side: connections that other servers dialled, and on which they send."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import LogLevel

from txraft.codec import ConnectionRole, Hello, decode_message
from txraft.core.messages import ANSWERS, Message
from txraft.net.handshake import MAX_STRANGERS, Registry, quoted
from txraft.net.journal import Journal
from txraft.net.links import Link, describe_address
from txraft.net.receiving import MAX_FRAME_BYTES, Accept, Reception

MAX_UNSHAKEN = 64
"""Connections without a handshake at a time."""

Receive = Callable[[str, list[Message]], None]


class Acceptor(Factory):
    """
    Keeps at most one link from each server, the newest, and hands on what they send.

    `arrived` is called with a server's id when it has shaken hands, `left` when its last link is gone.
    """

    noisy = False

    def __init__(
        self,
        reactor: Any,
        registry: Registry,
        journal: Journal,
        max_message_bytes: int,
        receive: Receive,
        accept: Accept,
        arrived: Callable[[str], None],
        left: Callable[[str], None],
    ) -> None:
        self.receive = receive
        self.accept_snapshot = accept
        self._reactor = reactor
        self._registry = registry
        self._journal = journal
        self._max_message_bytes = max_message_bytes
        self._arrived = arrived
        self._left = left
        self._unshaken: dict[AcceptedLink, None] = {}
        self._links: dict[str, AcceptedLink] = {}
        self._snapshot_links: dict[str, AcceptedLink] = {}
        self._open: dict[AcceptedLink, None] = {}

    def buildProtocol(self, addr: IAddress | None) -> AcceptedLink:
        return AcceptedLink(self._reactor, self)

    def open_links(self) -> list[AcceptedLink]:
        """Every connection that is not gone yet, oldest first."""
        return list(self._open)

    def review_links(self) -> None:
        """Close the links of those who are no peers, or with whom hands would not be shaken any more."""
        for server_id, link in sorted(self._links.items()):
            assert link.hello is not None
            refusal = self._registry.refusal_of(link.hello)
            if server_id not in self._registry.contacts:
                link.close("no member of this cluster any more")
            elif refusal is not None:
                link.close(refusal)
            elif server_id not in self._registry.incarnations:
                self._registry.learn(link.hello)

        for server_id, link in sorted(self._snapshot_links.items()):
            if server_id not in self._registry.contacts:
                link.close("no member of this cluster any more")

    def opened(self, link: AcceptedLink) -> None:
        """
        Take in a connection that has yet to shake hands.

        If there are too many, the one that has been silent for longest goes: a server that means it needs one round
        trip, so those who only hold a place never keep it out.
        """
        self._open[link] = self._unshaken[link] = None
        if len(self._unshaken) > MAX_UNSHAKEN:
            oldest = next(iter(self._unshaken))
            del self._unshaken[oldest]
            oldest.close(f"more than {MAX_UNSHAKEN} connections without a handshake")

    def greet(self, link: AcceptedLink, hello: Hello) -> None:
        """Answer a hello: the link is accepted, or refused and closed."""
        del self._unshaken[link]
        refusal = self._registry.refusal_of(hello) or self._is_there_twice(link, hello)
        if refusal is None and hello.role not in {*ConnectionRole}:
            refusal = f"a connection of unknown role {hello.role}"
        lost_data = refusal is not None and not self._registry.is_counted(hello.server_id, hello.incarnation)
        link.transport.write(self._registry.hello_to(hello.server_id, refusal, lost_data, hello.role))
        if refusal is not None:
            link.close(refusal)
            return
        if hello.role == ConnectionRole.SNAPSHOT:
            self._greet_sender(link, hello)
            return
        # The newest connection is the one that the other side uses; what an older one still brings is late data.
        if hello.server_id in self._links:
            self._links[hello.server_id].close("replaced by a newer connection")
        elif hello.server_id not in self._registry.peers:
            self._make_room_for_stranger()
        self._journal.forget(link.name)
        link.accept(hello, self._max_message_bytes)
        self._links[hello.server_id] = link
        self._registry.learn(hello)
        self._journal.say(link.name, "connected", link.where, LogLevel.info)
        self._arrived(hello.server_id)

    def _is_there_twice(self, link: AcceptedLink, hello: Hello) -> str | None:
        """
        A refusal of a server that is connected already, from elsewhere: of two copies of one disk the first one counts.

        One that has moved must wait until it is noticed that its old connection is dead; the kernel probes that.
        """
        other = self._links.get(hello.server_id)
        if other is None or not other.is_up or other.host == link.host:
            return None
        speaker = quoted(hello.server_id)
        return (
            f"another server with the name and the data of {speaker} is connected from {other.host}: stop one of them"
        )

    def receive_of(self, hello: Hello, messages: list[Message]) -> None:
        """
        Hand on what a server has sent.

        Of one with another data directory than the server of its name, as we know it, no answer counts: it has not
        promised what that one has. But it may lead, if those who know better have elected it.
        """
        if not self._registry.is_counted(hello.server_id, hello.incarnation):
            messages = [message for message in messages if not isinstance(message, ANSWERS)]
        self.receive(hello.server_id, messages)

    def _greet_sender(self, link: AcceptedLink, hello: Hello) -> None:
        """A server that has a snapshot for us: one at a time from each, and only from those that send messages, too."""
        if hello.server_id not in self._links:
            link.close("a snapshot from a server that sends nothing else")
            return
        if hello.server_id in self._snapshot_links:
            self._snapshot_links[hello.server_id].close("replaced by a newer connection")
        link.accept(hello, MAX_FRAME_BYTES)
        self._snapshot_links[hello.server_id] = link

    def ended(self, link: AcceptedLink, reason: str) -> None:
        """Forget a connection that is gone."""
        del self._open[link]
        self._unshaken.pop(link, None)
        if link.hello is not None and self._links.get(link.hello.server_id) is link:
            del self._links[link.hello.server_id]
            self._left(link.hello.server_id)
        if link.hello is not None and self._snapshot_links.get(link.hello.server_id) is link:
            del self._snapshot_links[link.hello.server_id]
        if link.was_stable:
            self._journal.forget(link.name)
        if not link.is_complete:
            self._journal.say(link.name, reason, link.where)

    def _make_room_for_stranger(self) -> None:
        """Whoever names our cluster is taken in, or any cluster if we are passive, so those must be bounded too."""
        strangers = [server_id for server_id in self._links if server_id not in self._registry.peers]
        if len(strangers) >= MAX_STRANGERS:
            self._links[strangers[0]].close(f"more than {MAX_STRANGERS} servers that are no members")


class AcceptedLink(Link):
    """A connection on which another server sends, under the name that it has shaken hands with."""

    def __init__(self, reactor: Any, acceptor: Acceptor) -> None:
        super().__init__(reactor)
        self._acceptor = acceptor
        self.name = ""
        self.host = ""
        self.where = ""
        self._reception: Reception | None = None

    def opened(self) -> None:
        host, address = describe_address(self.transport.getPeer())
        self.host, self.name, self.where = host, f"from {host}", f" ({address})"
        self._acceptor.opened(self)

    def hello_received(self, hello: Hello) -> None:
        self.where = f" ({describe_address(self.transport.getPeer())[1]}, says it is {quoted(hello.server_id)})"
        self._acceptor.greet(self, hello)

    def accept(self, hello: Hello, max_frame_bytes: int) -> None:
        super().accept(hello, max_frame_bytes)
        self.name = f"from {hello.server_id}"
        if hello.role == ConnectionRole.SNAPSHOT:
            self.name = f"snapshot from {hello.server_id}"
            self._reception = Reception(
                hello.server_id, self._acceptor.accept_snapshot, self.transport.write, self.close
            )

    @property
    def is_complete(self) -> bool:
        """Whether it was for a snapshot that has come: its end is no news."""
        return self._reception is not None and self._reception.is_complete

    def frames_received(self, frames: list[bytes]) -> None:
        assert self.hello is not None
        if self._reception is not None:
            self._reception.frames_received(frames)
        else:
            self._acceptor.receive_of(self.hello, [decode_message(payload) for payload in frames])

    def ended(self, reason: str) -> None:
        if self._reception is not None:
            self._reception.ended()
        self._acceptor.ended(self, reason)
