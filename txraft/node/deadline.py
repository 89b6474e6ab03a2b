"""Waiting, but not for ever."""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


def not_longer_than(seconds: float, waiting: Deferred[None], clock: IReactorTime) -> Deferred[None]:
    """Fires when `waiting` does, or fails, but after `seconds` at the latest; leaves `waiting` as it is."""
    done: Deferred[None] = Deferred()
    deadline = clock.callLater(seconds, done.callback, None)

    def end(_: object) -> None:
        if deadline.active():
            deadline.cancel()
            done.callback(None)

    waiting.addBoth(end)
    return done
