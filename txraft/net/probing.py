"""Looks whether a server that is no peer could be talked to: a connection that shakes hands, and ends."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IAddress, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from txraft.codec import Hello
from txraft.net.dialling import CONNECT_S, give_up
from txraft.net.failures import why_not_connected
from txraft.net.handshake import MAX_SENTENCE, Registry, quoted, refusal_of
from txraft.net.links import Link

REACHABLE = "reachable"


def probe(
    server_id: str,
    address: str,
    reactor: Any,
    client_endpoint: Callable[[str], IStreamClientEndpoint],
    registry: Registry,
) -> Deferred[str]:
    """Fires with "reachable", or with why not, in a few words. Never fails, and takes some seconds at most."""
    verdict: Deferred[str] = Deferred()
    attempt: Deferred[Any] = maybeDeferred(
        lambda: client_endpoint(address).connect(_Prober(lambda: _Probe(reactor, registry, server_id, verdict)))
    )
    attempt.addTimeout(CONNECT_S, reactor, give_up)

    def not_connected(failure: Failure) -> None:
        verdict.callback(f"cannot connect: {why_not_connected(failure.value)}")

    attempt.addErrback(not_connected)
    return verdict


class _Prober(Factory):
    noisy = False

    def __init__(self, make: Callable[[], _Probe]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> _Probe:
        return self._make()


class _Probe(Link):
    def __init__(self, reactor: Any, registry: Registry, server_id: str, verdict: Deferred[str]) -> None:
        super().__init__(reactor)
        self._registry = registry
        self._server_id = server_id
        self._verdict = verdict
        self._found: str | None = None

    def opened(self) -> None:
        self.transport.write(self._registry.hello_to(self._server_id))

    def hello_received(self, hello: Hello) -> None:
        # As it would be if it were a peer.
        refusal = refusal_of(hello, self._registry.us, (self._server_id,), {})
        if hello.refusal:
            refusal = f"refused there: {quoted(hello.refusal, MAX_SENTENCE)}"
        elif refusal is None and hello.server_id != self._server_id:
            refusal = f"{quoted(hello.server_id)} answers there"
        self._found = refusal or REACHABLE
        self.close("only to see whether it answers")

    def ended(self, reason: str) -> None:
        self._verdict.callback(self._found or reason)
