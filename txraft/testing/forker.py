"""Children without processes."""

from __future__ import annotations

import random

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txraft.errors import ChildFailed
from txraft.forking import IForker, Job
from txraft.testing.server import Server

DEATHS = 0.15
"""The share of children that die before they have done anything, or hang until they are killed."""

HANG_S = 0.5
"""So long it may take until that is noticed. A disk that is as slow as that hangs a child, too."""


@implementer(IForker)
class FakeForker:
    """
    A child sees the memory of the moment in which it is made, so its job is done then; that it is, is told later.
    """

    def __init__(self, server: Server, rng: random.Random) -> None:
        self._server = server
        self._rng = rng

    def run(self, job: Job) -> Deferred[None]:
        """See `IForker`."""
        server = self._server
        assert server.clock is not None, server.server_id
        done: Deferred[None] = Deferred(lambda _: told.cancel())
        failure = self._failure_of(job)
        seconds = server.seconds_for_snapshot()
        if seconds > HANG_S:
            failure, seconds = failure or ChildFailed("it was silent and was killed"), 0.0
        if failure is None:
            told = server.clock.callLater(seconds, done.callback, None)
        else:
            told = server.clock.callLater(seconds + self._rng.uniform(0, HANG_S), done.errback, failure)
        return done

    def _failure_of(self, job: Job) -> ChildFailed | None:
        if self._rng.random() < DEATHS:
            return ChildFailed("it was silent and was killed")
        server = self._server
        # The time that it takes is the child's.
        seconds, server.chunk_seconds = server.chunk_seconds, 0.0
        try:
            job(lambda: None)
        except Exception as error:
            return ChildFailed(f"{type(error).__name__}: {error}", raised=type(error).__name__)
        finally:
            server.chunk_seconds = seconds
        return None
