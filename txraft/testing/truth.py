"""What a server's disk holds of its log, noted beside the server, which may believe otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txraft.core.invariants import require
from txraft.core.log import EntryRun
from txraft.core.messages import HardState
from txraft.core.raft import Raft
from txraft.core.snapshot import SnapshotMeta
from txraft.interfaces import ILogStore, ISnapshotStore, Recovered, StorageStatus


@implementer(ILogStore)
class TrueStore:
    """A log store in front of another one. `terms` has the term of what finished writes have left at each index."""

    def __init__(self, store: ILogStore) -> None:
        self._store = store
        self.terms: dict[int, int] = {}
        self._last_index = 0

    @property
    def snapshots(self) -> ISnapshotStore:
        snapshots: ISnapshotStore = self._store.snapshots
        return snapshots

    def open(self) -> Recovered:
        recovered: Recovered = self._store.open()
        self._replay(recovered.runs)
        return recovered

    def write(self, hard_state: HardState | None, runs: Sequence[EntryRun], commit_index: int = 0) -> Deferred[None]:
        def written(_: None) -> None:
            self._replay(runs)

        done: Deferred[None] = self._store.write(hard_state, runs, commit_index)
        return done.addCallback(written)

    def compact(self, first_index: int) -> Deferred[None]:
        done: Deferred[None] = self._store.compact(first_index)
        return done

    def reset(self, meta: SnapshotMeta) -> Deferred[None]:
        self.terms.clear()
        done: Deferred[None] = self._store.reset(meta)
        return done

    def join(self, cluster_id: str) -> None:
        self._store.join(cluster_id)

    def _replay(self, runs: Sequence[EntryRun]) -> None:
        for run in runs:
            for index in range(run.first_index, self._last_index + 1):
                self.terms.pop(index, None)
            self.terms.update(dict.fromkeys(range(run.first_index, run.last_index + 1), run.term))
            self._last_index = run.last_index

    def check(self, raft: Raft) -> None:
        """:raises InvariantBroken: what the server calls durable is not what is on its disk."""
        log = raft.log
        if log.durable_index > log.base_index:
            index, term, held = log.durable_index, log.term(log.durable_index), self.terms.get(log.durable_index)
            require(held == term, "what is called durable is not on disk", raft.server_id, index, term, held)

    def status(self) -> StorageStatus:
        status: StorageStatus = self._store.status()
        return status

    def close(self) -> Deferred[None]:
        closed: Deferred[None] = self._store.close()
        return closed
