"""Simulated time: a reactor's clock that runs one event at a time."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer


@implementer(IReactorTime)
class SimulatedClock:
    """
    An `IReactorTime` whose time moves only in `run_next`. Calls of one moment run in the order in which they were made.
    """

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, DelayedCall]] = []
        self._made = 0

    def seconds(self) -> float:
        return self.now

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> DelayedCall:
        call = DelayedCall(self.now + delay, callable, args, kw, lambda _: None, self._was_reset, self.seconds)
        self._push(call)
        return call

    def getDelayedCalls(self) -> list[DelayedCall]:
        return [call for _, _, call in sorted(self._queue, key=lambda item: item[:2]) if call.active()]

    def _push(self, call: DelayedCall) -> None:
        self._made += 1
        heapq.heappush(self._queue, (call.getTime(), self._made, call))

    def _was_reset(self, call: DelayedCall) -> None:
        self._push(call)

    def next_time(self) -> float | None:
        """When the next event is due; None if there is none."""
        while self._queue and self._is_outdated(self._queue[0]):
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None

    @staticmethod
    def _is_outdated(item: tuple[float, int, DelayedCall]) -> bool:
        return not item[2].active() or item[2].getTime() != item[0]

    def run_next(self) -> bool:
        """Move to the next event and run it; False if there is none."""
        if self.next_time() is None:
            return False
        when, _, call = heapq.heappop(self._queue)
        self.now = max(self.now, when)
        self._run(call)
        return True

    def _run(self, call: Any) -> None:
        call.called = 1
        call.func(*call.args, **call.kw)
