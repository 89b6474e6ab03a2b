"""What one flush of the core asks its owner to do."""

from __future__ import annotations

from dataclasses import dataclass

from txraft.core.log import EntryRun
from txraft.core.messages import HardState, Message


@dataclass(slots=True)
class Persist:
    """
    One write: first `hard_state` unless None, then `runs`. Tell `Raft.persisted` when it is durable.

    `last_index` and `last_term` are those of the log when the write was begun, as is `commit_index`, which is written
    with the runs for whoever looks at the disk later.
    """

    hard_state: HardState | None
    runs: list[EntryRun]
    last_index: int
    last_term: int
    commit_index: int


@dataclass(slots=True)
class Ready:
    """
    `messages`: send now, as (receiver, message); none of them depends on anything that is not durable yet.
    `persist`: begin this write; None if there is nothing to write or a write is outstanding.
    `apply_index`: committed and durable here: the state machine may be given entries up to it.
    `reads`: (read id, index): the leader was confirmed; answer when the state machine has applied up to index.
    `dropped_reads`: read ids whose leadership ended before it was confirmed.
    `snapshots`: the servers that the newest snapshot is to be on its way to, now; whoever is not among them (any more)
    is to be sent none.
    """

    messages: list[tuple[str, Message]]
    persist: Persist | None
    apply_index: int
    reads: list[tuple[int, int]]
    dropped_reads: list[int]
    snapshots: tuple[str, ...]
