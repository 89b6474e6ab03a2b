"""A server's end: first what is under way is answered, then everything is closed. Neither waits for ever."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime


class Shutdown:
    """
    One server's. Each of its two parts takes `timeout_s` at most: a disk may never answer.

    @param close: lets go of the network and the disk; called once.
    """

    def __init__(self, clock: IReactorTime, timeout_s: float, close: Callable[[], Deferred[None]]) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._close = close
        self._drained: Deferred[None] | None = None
        self._closed: Deferred[None] | None = None

    @property
    def is_closing(self) -> bool:
        return self._closed is not None

    def drain(self) -> Deferred[None]:
        """Fires when `drained` is called."""
        if self._drained is None:
            self._drained = Deferred()
        return self._not_longer(self._drained)

    def drained(self) -> None:
        """Nothing is under way, now; tell whoever has asked for that."""
        if self._drained is not None and not self._drained.called:
            self._drained.callback(None)

    def close(self) -> Deferred[None]:
        """Close everything, if that was not begun yet; fires when it is done."""
        if self._closed is None:
            self._closed = self._close()
        return self._not_longer(self._closed)

    def _not_longer(self, waiting: Deferred[None]) -> Deferred[None]:
        """Fires when `waiting` does, or fails, or when it takes too long; leaves `waiting` as it is."""
        done: Deferred[None] = Deferred()
        deadline = self._clock.callLater(self._timeout_s, done.callback, None)

        def end(_: object) -> None:
            if deadline.active():
                deadline.cancel()
                done.callback(None)

        waiting.addBoth(end)
        return done
