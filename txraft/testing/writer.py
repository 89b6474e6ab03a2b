"""A writer without a thread."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import attrs
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from txraft.storage.writer import IWriter


@attrs.frozen
class _Job:
    call: Callable[[], Any]
    done: Deferred[Any]
    afterwards: Callable[[], None]


@implementer(IWriter)
class FakeWriter:
    """
    Carries out jobs in later turns of a clock: one at a time, in order.

    @param seconds: called once for each job: how long it takes. The disk is touched after half of that, so that there
        is a time at which a crash finds a job done but not reported.
    """

    def __init__(self, clock: IReactorTime, seconds: Callable[[], float] = lambda: 0.0) -> None:
        self._clock = clock
        self._seconds = seconds
        self._jobs: deque[_Job] = deque()
        self._call: IDelayedCall | None = None
        self._job_seconds = 0.0
        self.has_failed = False
        """Whether a job has failed."""

    @property
    def busy_seconds(self) -> float:
        """How long the job under way takes, from its begin; 0 if there is none. Its clock may jump meanwhile."""
        return self._job_seconds if self._jobs else 0.0

    def run(self, job: Callable[..., Any], *args: Any, afterwards: Callable[[], None] | None = None) -> Deferred[Any]:
        """See `IWriter`."""
        done: Deferred[Any] = Deferred()
        self._jobs.append(_Job(lambda: job(*args), done, afterwards or (lambda: None)))
        if self._call is None:
            self._begin()
        return done

    def _begin(self) -> None:
        half = self._seconds() / 2
        self._job_seconds = 2 * half
        self._call = self._clock.callLater(half, self._carry_out, half)

    def _carry_out(self, half: float) -> None:
        try:
            result = self._jobs[0].call()
        except Exception:
            result = Failure()
        self._call = self._clock.callLater(half, self._report, result)

    def _report(self, result: Any) -> None:
        job = self._jobs[0]
        self.has_failed |= isinstance(result, Failure)
        job.done.callback(result)  # a Failure becomes an error
        if not isinstance(result, Failure):
            job.afterwards()
        self._jobs.popleft()
        self._call = None
        if self._jobs:
            self._begin()

    def stop(self) -> Deferred[None]:
        """See `IWriter`."""
        return self.run(lambda: None)

    def crash(self) -> None:
        """Forget all jobs, as when the process dies; their Deferreds never fire."""
        self._jobs.clear()
        if self._call is not None and self._call.active():
            self._call.cancel()
        self._call = None
