"""The situations of `catalogue` that are about snapshots. See `situations`; the disks tell of the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from txraft.core.leader import Leader
from txraft.core.raft import Raft
from txraft.core.snapshot import SnapshotMeta

if TYPE_CHECKING:
    from txraft.testing.coverage.watch import Watch


def of_start(watch: Watch) -> Iterator[str]:
    """A process has recovered what its disk holds."""
    raft = watch.raft
    if raft.log.base_index and raft.log.base_index == raft.commit_index:
        yield "S01"
    if 0 < raft.memberships.current_index <= raft.log.base_index:
        yield "S05"


def of_crash(watch: Watch) -> Iterator[str]:
    """A process is about to die; it may have stopped itself before."""
    if watch.server.disk.has_unsynced_names(".snapshot"):
        yield "S07"
    yield from of_following(watch)


def of_following(watch: Watch) -> Iterator[str]:
    """A server is about to have another role, or none."""
    role = watch.raft.role
    if isinstance(role, Leader) and role.sending.held_index is not None:
        yield "S15"


def of_install(watch: Watch, meta: SnapshotMeta) -> Iterator[str]:
    """A server is about to install a snapshot that has come."""
    raft = watch.raft
    if meta.last_index < raft.commit_index:
        yield "S03"
    elif meta.last_index < raft.log.last_index and raft.log.matches(meta.last_index, meta.last_term):
        yield "S02"
    if meta.last_term < raft.term and raft.voted_for is not None:
        yield "S04"
    if watch.installs:
        yield "S13"
    if _committed_membership_index(raft) > meta.membership_index or any(
        _committed_membership_index(node.raft) > meta.membership_index
        for node in watch.coverage.cluster.running()
        if node.raft is not None
    ):
        yield "M18"


def _committed_membership_index(raft: Raft) -> int:
    return raft.memberships.index_at(raft.commit_index)
