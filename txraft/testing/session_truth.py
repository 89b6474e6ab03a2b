"""The tables of sessions of all servers are the same at the same index, and so is what snapshots hold of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

from txraft.core.raft import Raft
from txraft.testing.server import Server
from txraft.testing.witness import Record


class TrueSessions:
    """One process of a server: `check` looks at its table, between its turns."""

    def __init__(self, server: Server, record: Record) -> None:
        self._server = server
        self._record = record
        self._checked_index = 0

    def check(self, raft: Raft) -> None:
        """:raises InvariantBroken: it is not what another server had, or this one, at the same index."""
        node = self._server.node
        # What has failed has stopped in the midst of what it did.
        if node is None or node.raft is not raft or node.failure is not None or not raft.is_restored:
            return
        if raft.applied_index != self._checked_index and (len(node.sessions) or self._record.tables):
            self._checked_index = raft.applied_index
            # No image: there would never be a session that changes in its place.
            require_table(self._record, raft.applied_index, node.sessions.chunks(), self._server.server_id)


def require_table(record: Record, index: int, chunks: Iterable[bytes], server_id: str) -> None:
    """:raises InvariantBroken: another table was seen at `index`."""
    digest = hashlib.blake2b(b"".join(chunks), digest_size=16).digest()
    is_same = record.tables.setdefault(index, digest) == digest
    record.require(is_same, "two tables of sessions at one index", server_id, index)
