"""What a snapshot stands for. Its bytes never come here."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class SnapshotMeta:
    """
    A state machine's state when it had applied everything up to `last_index`, and what the log had said until then.

    `last_term` and `time_ms` are those of the entry at `last_index`. `membership` is the one in force there, as
    `Membership.encode` makes it, from the entry at `membership_index`. Term and vote of a server are never in it.
    """

    cluster_id: str
    last_index: int
    last_term: int
    time_ms: int
    membership: bytes
    membership_index: int
