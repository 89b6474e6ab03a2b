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
        while self._queue:
            when, _, call = self._queue[0]
            if call.active() and call.getTime() == when:
                return when
            heapq.heappop(self._queue)
            # A call that was put off says so only now; one that was brought forward has another place in the queue.
            if call.active() and call.getTime() > when:
                self._push(call)
        return None

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


@implementer(IReactorTime)
class ProcessClock:
    """
    The clock of one process: it may run at another rate, the process may be paused, and it dies with the process.

    What comes due while the process is paused happens when it goes on, in the order in which it came due; what a dead
    process had planned never happens.
    """

    def __init__(self, clock: SimulatedClock, rate: float = 1.0, on_run: Callable[[], object] = lambda: None) -> None:
        """
        @param rate: seconds of this clock for each true second.
        @param on_run: called whenever the process does something.
        """
        self._clock = clock
        self._on_run = on_run
        self.rate = rate
        self.is_alive = True
        self.is_paused = False
        self.timers = 0
        """How many have come due, and run."""
        self._busy_until = 0.0
        self._held: list[Callable[[], object]] = []

    def seconds(self) -> float:
        return max(self._clock.seconds(), self._busy_until) * self.rate

    @property
    def turn(self) -> float:
        """When what runs now has begun, in true time."""
        return self._clock.seconds()

    def callLater(self, delay: float, callable: Callable[..., object], *args: object, **kw: object) -> DelayedCall:
        def run() -> None:
            self.timers += 1
            callable(*args, **kw)

        def come_due() -> None:
            self.when_awake(run)

        return self._clock.callLater(delay / self.rate, come_due)

    def getDelayedCalls(self) -> list[DelayedCall]:
        return self._clock.getDelayedCalls()

    def when_awake(self, call: Callable[[], object]) -> None:
        """Call now, or when the process goes on; never, if it is dead."""
        if self.is_paused:
            self._held.append(call)
        elif self.is_alive:
            self._on_run()
            call()

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False
        held, self._held = self._held, []
        for call in held:
            self._clock.callLater(0, self.when_awake, call)

    def be_busy(self, seconds: float) -> None:
        """The process computes: its time passes within the call that runs now, and nothing else happens until then."""
        now = self._clock.seconds()
        if self._busy_until <= now:
            self._busy_until = now
            self.pause()
            self._clock.callLater(seconds, self._go_on)
        self._busy_until += seconds

    def _go_on(self) -> None:
        left_s = self._busy_until - self._clock.seconds()
        if left_s > 0:
            self._clock.callLater(left_s, self._go_on)
        else:
            self.resume()

    def die(self) -> None:
        self.is_alive = False
        self._held.clear()
