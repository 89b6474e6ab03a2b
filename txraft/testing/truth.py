"""What a server's disk holds of its log, noted beside the server, which may believe otherwise."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txraft.core.invariants import require
from txraft.core.log import EntryKind, EntryRun
from txraft.core.messages import HardState
from txraft.core.raft import Raft
from txraft.core.snapshot import SnapshotMeta
from txraft.interfaces import ILogStore, Recovered, StorageStatus
from txraft.testing.forgetting import Forgetting
from txraft.testing.segment_truth import TrueSegments
from txraft.testing.server import Server
from txraft.testing.session_truth import TrueSessions
from txraft.testing.snapshot_truth import TrueSnapshots
from txraft.testing.witness import Record


@implementer(ILogStore)
class TrueStore:
    """A log store in front of another one. `terms` has the term of what finished writes have left at each index."""

    def __init__(self, store: ILogStore, server: Server, record: Record) -> None:
        self._store = store
        self.terms: dict[int, int] = {}
        self._sizes: dict[int, int] = {}
        self._configurations: dict[int, bytes] = {}
        self._last_index = 0
        self._released_index = 0
        self._rows = record.rows
        self.snapshots: Any = TrueSnapshots(
            store.snapshots, server.server_id, server.disk, record, self._configurations
        )
        self._segments = TrueSegments(server.disk, record.require)
        self._sessions = TrueSessions(server, record)
        self._forgetting = Forgetting(server, self._sizes, record.rows)

    def open(self) -> Recovered:
        self.snapshots.opening()
        recovered: Recovered = self._store.open()
        if recovered.snapshot is not None:
            self._note_membership(recovered.snapshot.meta)
        self._replay(recovered.runs)
        self.snapshots.opened(recovered.snapshot)
        self._segments.opened(self.snapshots.kept())
        self._released_index = recovered.base_index
        return recovered

    def _note_membership(self, meta: SnapshotMeta) -> None:
        self._configurations[meta.membership_index] = meta.membership

    def write(self, hard_state: HardState | None, runs: Sequence[EntryRun], commit_index: int = 0) -> Deferred[None]:
        def written(_: None) -> None:
            self._replay(runs)
            if runs:
                self._segments.written()

        done: Deferred[None] = self._store.write(hard_state, runs, commit_index)
        return done.addCallback(written)

    def compact(self, first_index: int) -> Deferred[None]:
        kept = self.snapshots.kept()

        def given_up(_: None) -> None:
            self._segments.given_up(first_index, kept)

        self._released_index = max(self._released_index, first_index - 1)
        done: Deferred[None] = self._store.compact(first_index)
        return done.addCallback(given_up)

    def reset(self, meta: SnapshotMeta) -> Deferred[None]:
        self.terms.clear()
        self._configurations.clear()
        self._note_membership(meta)
        self._released_index = meta.last_index
        done: Deferred[None] = self._store.reset(meta)
        return done

    def join(self, cluster_id: str) -> Deferred[None]:
        done: Deferred[None] = self._store.join(cluster_id)
        return done

    def _replay(self, runs: Sequence[EntryRun]) -> None:
        for run in runs:
            for index in range(run.first_index, self._last_index + 1):
                self.terms.pop(index, None)
                self._configurations.pop(index, None)
            self.terms.update(dict.fromkeys(range(run.first_index, run.last_index + 1), run.term))
            self._sizes.update(enumerate(map(len, run.commands), run.first_index))
            if run.kind is EntryKind.CONFIGURATION:
                self._configurations.update(enumerate(run.commands, run.first_index))
            self._last_index = run.last_index

    def check(self, raft: Raft) -> None:
        """:raises InvariantBroken: what the server calls durable is not what is on its disk; see also those it asks."""
        log = raft.log
        if log.durable_index > log.base_index:
            index, term, held = log.durable_index, log.term(log.durable_index), self.terms.get(log.durable_index)
            require(held == term, "what is called durable is not on disk", raft.server_id, index, term, held)
        is_released = log.base_index <= self._released_index
        require(is_released, "the log is forgotten, and its files stay", raft.server_id, log.base_index)
        kept = self.snapshots.kept()
        self._forgetting.check(raft, kept[0].meta.last_index if kept else 0)
        self._sessions.check(raft)

    def status(self) -> StorageStatus:
        status: StorageStatus = self._store.status()
        return status

    def close(self) -> Deferred[None]:
        closed: Deferred[None] = self._store.close()
        return closed
