"""The thread on which a server waits for its disk, so that the reactor never does."""

from __future__ import annotations

from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any

from twisted.internet.defer import Deferred, execute, succeed
from twisted.internet.interfaces import IReactorFromThreads
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

_Job = Callable[[], None]


class IWriter(Interface):
    """Carries out jobs one at a time, in the order in which they were handed in, not on the caller's turn."""

    def run(job: Callable[..., Any], *args: Any, afterwards: Callable[[], None] | None = None) -> Deferred[Any]:
        """
        Call `job(*args)`.

        @param afterwards: called when the job's result has been reported and before the next job; not called if the
            job failed. It must not raise.
        @return: a Deferred of the job's result, or of what it raised.
        """

    def stop() -> Deferred[None]:
        """Finish all jobs. Nothing may be handed in from now on. Never fails."""


@implementer(IWriter)
class InlineWriter:
    """Carries each job out at once, on the caller's turn: for commands that have nothing else to do meanwhile."""

    def run(self, job: Callable[..., Any], *args: Any, afterwards: Callable[[], None] | None = None) -> Deferred[Any]:
        """See `IWriter`."""
        done: Deferred[Any] = execute(job, *args)
        if afterwards is not None:
            done.addCallback(lambda result: (afterwards(), result)[1])
        return done

    def stop(self) -> Deferred[None]:
        """See `IWriter`."""
        return succeed(None)


@implementer(IWriter)
class WriterThread:
    """
    A thread of its own, started by the first job: a process may fork between construction and that.

    Not the reactor's thread pool: that is shared, so a name lookup could hold up a write, and its jobs have no order.
    """

    def __init__(self, reactor: IReactorFromThreads, name: str = "txraft-writer") -> None:
        self._reactor = reactor
        self._name = name
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: Thread | None = None

    def run(self, job: Callable[..., Any], *args: Any, afterwards: Callable[[], None] | None = None) -> Deferred[Any]:
        """See `IWriter`."""
        done: Deferred[Any] = Deferred()

        def carry_out() -> None:
            try:
                result = job(*args)
            except Exception:
                self._reactor.callFromThread(done.errback, Failure())
                return
            self._reactor.callFromThread(done.callback, result)
            if afterwards is not None:
                afterwards()

        self._jobs.put(carry_out)
        if self._thread is None:
            # A daemon: a disk that never answers must not keep the process from ending.
            self._thread = Thread(target=self._work, name=self._name, daemon=True)
            self._thread.start()
        return done

    def _work(self) -> None:
        while (carry_out := self._jobs.get()) is not None:
            carry_out()

    def stop(self) -> Deferred[None]:
        """See `IWriter`."""
        if self._thread is None:
            return succeed(None)
        stopped: Deferred[Any] = self.run(self._jobs.put, None)
        return stopped.addBoth(lambda _: self._join())

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join()
            self._thread = None
