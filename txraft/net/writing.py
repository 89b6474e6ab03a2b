"""Writing without waiting for the reactor's next turn."""

from __future__ import annotations

from typing import Any

from twisted.internet.tcp import Connection


def write_now(transport: Any, data: bytes) -> None:
    """
    `transport.write(data)`, but the socket is offered the data at once, if nothing waits before it.

    Twisted's own `write` keeps the data, asks the poller to say when the socket is writable, is told so in the next
    turn, and then takes the question back: for a short message on an idle connection that is two system calls and a
    turn of latency more than sending it. What the socket does not take goes that way, and so does everything on a
    transport that is not plain TCP.
    """
    if isinstance(transport, Connection) and transport.connected and not transport.TLS and _is_empty(transport):
        sent = transport.writeSomeData(data)
        # An exception instead of a number: the connection is lost, which `write` finds out in the way Twisted expects.
        if isinstance(sent, int) and sent > 0:
            data = data[sent:]
    if data:
        transport.write(data)


def _is_empty(transport: Any) -> bool:
    # Not public; without it nobody can tell, and everything is written the usual way.
    return not transport.dataBuffer and getattr(transport, "_tempDataLen", 1) == 0
