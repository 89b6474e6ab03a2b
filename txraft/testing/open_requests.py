"""The requests of a run that were not answered yet, and who still owes the answers."""

from __future__ import annotations

import attrs

from txraft.core.invariants import require
from txraft.node import RaftNode
from txraft.testing.cluster import Cluster

IDLE_TIMERS = 20
"""So many timers of a process, ticks among them, and it has had the time to refuse what it cannot do any more."""


@attrs.define
class _Open:
    words: tuple[str, ...]
    node: RaftNode
    may_wait: bool
    idle_since: int | None = None
    """How many timers had run in the process when it was first seen to have nothing left that an answer waits for."""


class OpenRequests:
    """By number, from 1."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._open: dict[int, _Open] = {}
        self._count = 0

    def add(self, node: RaftNode, words: tuple[str, ...], may_wait: bool = False) -> int:
        """A server's process was asked; the number of the request. `may_wait`: until somebody else leads."""
        self._count += 1
        self._open[self._count] = _Open(words, node, may_wait)
        return self._count

    def answered(self, number: int) -> None:
        del self._open[number]

    def require_none(self, otherwise: str) -> None:
        """:raises InvariantBroken: there is one. What a process that died was asked is never answered; all else is."""
        for request in self._open.values():
            is_alive = self._cluster.servers[request.node.settings.server_id].node is request.node
            require(not is_alive, otherwise, *request.words)

    def check(self) -> None:
        """
        Whoever does not lead, and has applied all that it can, owes nobody an answer for long. Call it often.

        :raises InvariantBroken: one does.
        """
        for request in self._open.values():
            if request.may_wait or not self._is_idle(request.node):
                request.idle_since = None
                continue
            timers = self._timers_of(request.node)
            if request.idle_since is None:
                request.idle_since = timers
            is_late = timers - request.idle_since > IDLE_TIMERS
            require(not is_late, "a request outlives the leadership", request.node.settings.server_id, *request.words)

    def _is_idle(self, node: RaftNode) -> bool:
        server_id, raft = node.settings.server_id, node.raft
        if raft is None or self._cluster.servers[server_id].node is not node or self._cluster.is_paused(server_id):
            return False
        is_leading = raft.role.name == "leader"
        return not is_leading and raft.applied_index >= min(raft.commit_index, raft.log.durable_index)

    def _timers_of(self, node: RaftNode) -> int:
        clock = self._cluster.servers[node.settings.server_id].clock
        assert clock is not None
        return clock.timers
