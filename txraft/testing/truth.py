"""What a server's disk holds of its log, noted beside the server, which may believe otherwise."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txraft.core.invariants import require
from txraft.core.log import EntryRun
from txraft.core.messages import HardState
from txraft.core.raft import Raft
from txraft.interfaces import ILogStore, Recovered, StorageStatus


@implementer(ILogStore)
class TrueStore:
    """A log store in front of another one. `terms[i]` is the term of what a finished write has left at index i."""

    def __init__(self, store: ILogStore) -> None:
        self._store = store
        self.terms = [0]

    def open(self) -> Recovered:
        recovered: Recovered = self._store.open()
        self._replay(recovered.runs)
        return recovered

    def write(self, hard_state: HardState | None, runs: Sequence[EntryRun]) -> Deferred[None]:
        def written(_: None) -> None:
            self._replay(runs)

        done: Deferred[None] = self._store.write(hard_state, runs)
        return done.addCallback(written)

    def _replay(self, runs: Sequence[EntryRun]) -> None:
        for run in runs:
            self.terms[run.first_index :] = [run.term] * len(run.commands)

    def check(self, raft: Raft) -> None:
        """:raises InvariantBroken: what the server calls durable is not what is on its disk."""
        index, term = raft.log.durable_index, raft.log.term(raft.log.durable_index)
        held = self.terms[index] if index < len(self.terms) else None
        require(held == term, "what is called durable is not on disk", raft.server_id, index, term, held)

    def status(self) -> StorageStatus:
        status: StorageStatus = self._store.status()
        return status

    def close(self) -> Deferred[None]:
        closed: Deferred[None] = self._store.close()
        return closed
