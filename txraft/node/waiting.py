"""Everybody who waits for something of a server."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from txraft.core.leader import Leader
from txraft.core.raft import Raft
from txraft.errors import FatalError, NotLeader, Stopped
from txraft.node.reconfiguring import Reconfiguring
from txraft.node.waiters import Proposals, Reads


class Waiting:
    """Whoever waits is answered once: with a result, or with why there is none."""

    def __init__(self, link_status: Callable[[str], str]) -> None:
        self.proposals = Proposals()
        self.reads = Reads()
        self.changes = Reconfiguring(link_status)
        self._failed: Deferred[FatalError] = Deferred()
        self._leader: Leader | None = None

    def __bool__(self) -> bool:
        """True while a client waits."""
        return bool(self.proposals or self.reads.count)

    def note(self, raft: Raft, not_leader: Callable[[], NotLeader]) -> None:
        """End what a leadership that is over has begun, and answer whoever waits for a change."""
        if self._leader is not None and raft.role is not self._leader:
            # What will be applied soon is answered then; but a disk may never answer.
            kept_index = min(raft.commit_index, raft.log.durable_index)
            self.proposals.end("the leadership ended before it was committed and on disk here", kept_index)
            self.reads.refuse_behind(kept_index, not_leader())
        self._leader = raft.role if isinstance(raft.role, Leader) else None
        self.changes.note(raft)

    def replaced(self) -> None:
        """A snapshot has taken the place of the log: what this server had proposed may be in it, or not."""
        self.proposals.end("a snapshot took the place of the log", kept_index=0)

    def end(self, why: str, stopped: Stopped) -> None:
        """This server does nothing more."""
        self.proposals.refuse_gathered(stopped)
        self.proposals.end(why, kept_index=0)
        self.reads.refuse_all(stopped)
        self.changes.end(why, stopped)

    def failed(self, error: FatalError) -> None:
        """Tell whoever waits for this server's failure; once."""
        self._failed.callback(error)

    def when_failed(self) -> Deferred[FatalError]:
        waiter: Deferred[FatalError] = Deferred()

        def pass_on(error: FatalError) -> FatalError:
            waiter.callback(error)
            return error

        self._failed.addCallback(pass_on)
        return waiter
