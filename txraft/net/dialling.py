"""
The sending side: to each peer one connection that we dial, keep up, and send on.

Not Twisted's `ClientService`: that one logs every retry, forgets its back-off as soon as TCP connects, which a server
that refuses us lets it do each time, and does not expect a connection to end while it is being prepared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NoReturn

from twisted.application.internet import backoffPolicy
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IAddress, IDelayedCall, IPushProducer, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import LogLevel
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.codec import Hello, encode_message
from txraft.core.messages import Message
from txraft.errors import ProtocolError
from txraft.framing import frame
from txraft.net.failures import why_not_connected
from txraft.net.handshake import MAX_HELLO_BYTES, MAX_SENTENCE, Registry, quoted
from txraft.net.journal import Journal
from txraft.net.links import Link
from txraft.net.writing import write_now

CONNECTING = "connecting"
"""The status of a server of which nothing is known yet, not even that it cannot be reached."""

CONNECT_S = 5.0
"""For one attempt, name resolution included."""

FIRST_RETRY_S = 0.05
LAST_RETRY_S = 1.0
RETRY_JITTER_S = 0.05


class Peer:
    """
    Our link to one server, dialled again whenever it is down.

    `dropped_messages` counts those that the link could not take; a message while it is down is not counted.
    """

    def __init__(
        self,
        server_id: str,
        address: str,
        reactor: Any,
        client_endpoint: Callable[[str], IStreamClientEndpoint],
        registry: Registry,
        journal: Journal,
        max_message_bytes: int,
        max_queue_bytes: int,
        jitter: Callable[[], float],
    ) -> None:
        self.server_id = server_id
        self.address = address
        self.reactor = reactor
        self.registry = registry
        self.status = CONNECTING
        self.when_answered: Callable[[], None] = lambda: None
        """Called when the server has answered, or cannot be reached."""
        self.dropped_messages = 0
        self.max_queue_bytes = max_queue_bytes
        self._name = f"to {server_id}"
        self._client_endpoint = client_endpoint
        self._journal = journal
        self._max_message_bytes = max_message_bytes
        self._retry_delay_s = backoffPolicy(FIRST_RETRY_S, LAST_RETRY_S, jitter=lambda: RETRY_JITTER_S * jitter())
        self._failures = 0
        self._stopped = False
        self._link: DialledLink | None = None
        self._attempt: Deferred[Any] = succeed(None)
        # From the first `dial` until `stop` there is always one of three: an attempt, a link, or this.
        self._retry: IDelayedCall | None = None

    def dial(self) -> None:
        """Connect. The owner calls this once; from then on the link keeps itself up."""
        self._retry = None
        self._attempt = maybeDeferred(lambda: self._client_endpoint(self.address).connect(_Dialler(self)))
        self._attempt.addTimeout(CONNECT_S, self.reactor, give_up)
        self._attempt.addErrback(self._not_connected)

    def retry_now(self) -> None:
        """If we are waiting to dial again, wait no longer."""
        if self._retry is not None:
            self._retry.cancel()
            self.dial()

    def send(self, message: Message) -> None:
        """Queue a message for `flush`; drop it if the link is down or full. One that is too large is never sent."""
        link = self._link
        if link is None or not link.is_up:
            return
        payload = encode_message(message)
        if len(payload) > self._max_message_bytes:
            self.dropped_messages += 1
            self._journal.say(self._name, f"a {type(message).__name__} above max_message_bytes is not sent")
        elif not link.enqueue(frame(payload)):
            self.dropped_messages += 1

    def flush(self) -> None:
        """Write what is queued."""
        if self._link is not None and self._link.is_up:
            self._link.flush()

    def review_link(self) -> None:
        """End the link if hands would not be shaken any more."""
        link = self._link
        if link is not None and link.is_up and link.hello is not None:
            refusal = self.registry.refusal_of(link.hello)
            if refusal is not None:
                link.close(refusal)

    def stop(self, reason: str) -> Deferred[None]:
        """Close the link and dial no more; fires when it is gone."""
        self._stopped = True
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        self._attempt.cancel()
        if self._link is None:
            return succeed(None)
        self._link.close(reason)
        return self._link.closed

    # Called by the link

    def opened(self, link: DialledLink) -> None:
        """A connection is there; hands are not shaken yet."""
        self._link = link

    def refusal_of(self, hello: Hello) -> str | None:
        """Why the server that answered is not the one we want; None if it is."""
        if hello.refusal:
            self.registry.learn_refusal(hello)
            return f"refused there: {quoted(hello.refusal, MAX_SENTENCE)}"
        refusal = self.registry.refusal_of(hello)
        if refusal is None and hello.server_id != self.server_id:
            refusal = f"{quoted(hello.server_id)} answers there"
        return refusal

    def came_up(self, hello: Hello) -> None:
        """Hands are shaken."""
        self.registry.learn(hello)
        self.registry.refusal = ""
        self.status = "connected"
        self._journal.say(self._name, self.status, level=LogLevel.info)
        self.when_answered()

    def ended(self, link: DialledLink, reason: str) -> None:
        """The connection is gone."""
        self._link = None
        if link.was_stable:
            self._failures = 0
            self._journal.forget(self._name)
        self._down(reason)

    def _not_connected(self, failure: Failure) -> None:
        if not self._stopped:
            self._down(f"cannot connect: {why_not_connected(failure.value)}")

    def _down(self, reason: str) -> None:
        self.status = reason
        self._journal.say(self._name, reason)
        if not self._stopped:
            self._retry = self.reactor.callLater(self._retry_delay_s(self._failures), self.dial)
            self._failures += 1
            self.when_answered()


def give_up(result: object, timeout_s: float) -> NoReturn:
    raise ConnectTimeout(string=f"no answer within {timeout_s:g} s")


class _Dialler(Factory):
    noisy = False

    def __init__(self, peer: Peer) -> None:
        self._peer = peer

    def buildProtocol(self, addr: IAddress | None) -> DialledLink:
        return DialledLink(self._peer)


@implementer(IPushProducer)
class DialledLink(Link):
    """
    A connection on which only we send, after the handshake.

    Twisted buffers whatever is written. So this counts what was written since the transport's buffer was last empty,
    which is never less than what is in it, and takes no message that would go beyond `max_queue_bytes`; one message
    is always taken by an empty link.
    """

    def __init__(self, peer: Peer) -> None:
        super().__init__(peer.reactor)
        self._peer = peer
        self._frames: list[bytes] = []
        self._pending_bytes = 0
        self._paused = False

    def opened(self) -> None:
        self._peer.opened(self)
        self.transport.write(self._peer.registry.hello_to(self._peer.server_id))

    def hello_received(self, hello: Hello) -> None:
        refusal = self._peer.refusal_of(hello)
        if refusal is not None:
            self.close(refusal)
            return
        self.accept(hello, MAX_HELLO_BYTES)
        self.transport.registerProducer(self, True)
        self._peer.came_up(hello)

    def frames_received(self, frames: list[bytes]) -> None:
        raise ProtocolError("the other side sends on a link that only we send on")

    def ended(self, reason: str) -> None:
        self._peer.ended(self, reason)

    def enqueue(self, framed: bytes) -> bool:
        """Keep a frame for `flush`; False if the link is full."""
        pending_bytes = self._pending_bytes + len(framed)
        if self._pending_bytes and pending_bytes > self._peer.max_queue_bytes:
            return False
        self._pending_bytes = pending_bytes
        self._frames.append(framed)
        return True

    def flush(self) -> None:
        """One write for all that was enqueued."""
        if not self._frames:
            return
        frames, self._frames = self._frames, []
        write_now(self.transport, b"".join(frames))
        # A transport that did not ask for a pause by now holds little (64 KiB, in Twisted), and says nothing when
        # that little is gone.
        if not self._paused:
            self._pending_bytes = 0

    def close(self, reason: str) -> None:
        if self.is_up:
            # While it has a producer, a transport that is paused does not close.
            self.transport.unregisterProducer()
        super().close(reason)

    # Called by the transport

    def pauseProducing(self) -> None:
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._pending_bytes = sum(map(len, self._frames))

    def stopProducing(self) -> None:
        """The connection is ending; `connectionLost` follows."""
