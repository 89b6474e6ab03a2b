"""The keys of raft.conf that a node needs, and what the core makes of them."""

from __future__ import annotations

import attrs

from txraft.core.settings import RaftSettings
from txraft.node.taking import TakingSettings

TICKS_PER_HEARTBEAT = 8


@attrs.frozen(kw_only=True)
class NodeSettings:
    """The keys of raft.conf that a node needs, under their names there: times in ms, sizes in bytes."""

    server_id: str
    bootstrap: tuple[str, ...] = ()
    """All servers of a new cluster, this one among them; empty: passive until added."""
    cluster_id: str = ""
    min_election_timeout: int = 150
    max_election_timeout: int = 300
    heartbeat_rate: int = 80
    election_rpc_timeout: int = 70
    heartbeat_rpc_timeout: int = 70
    max_append_bytes: int = 1 << 20
    max_inflight_bytes: int = 4 << 20
    max_uncommitted_bytes: int = 64 << 20
    server_catch_up_rounds: int = 10
    max_command_bytes: int = 1 << 20
    max_pending_reads: int = 10_000
    max_sessions: int = 10_000
    max_session_answers: int = 100
    apply_slice_ms: int = 10
    stop_timeout: int = 5000
    log_keep_entries: int = 10_000
    snapshot_hold_bytes: int = 256 << 20
    snapshot_log_bytes: int = 64 << 20
    snapshot_ratio: int = 4
    snapshot_log_limit: int = 4
    snapshot_slice_ms: int = 5

    @property
    def tick_s(self) -> float:
        """Seconds between ticks: a fixed part of a heartbeat, so that every timing is some ticks long."""
        return self.heartbeat_rate / TICKS_PER_HEARTBEAT / 1000

    def for_core(self) -> RaftSettings:
        def ticks(ms: int) -> int:
            return max(1, round(ms / 1000 / self.tick_s))

        return RaftSettings(
            min_election_ticks=ticks(self.min_election_timeout),
            max_election_ticks=ticks(self.max_election_timeout),
            heartbeat_ticks=TICKS_PER_HEARTBEAT,
            vote_retry_ticks=ticks(self.election_rpc_timeout),
            append_retry_ticks=ticks(self.heartbeat_rpc_timeout),
            max_append_bytes=self.max_append_bytes,
            max_inflight_bytes=self.max_inflight_bytes,
            max_uncommitted_bytes=self.max_uncommitted_bytes,
            catch_up_rounds=self.server_catch_up_rounds,
            log_keep_entries=self.log_keep_entries,
            max_kept_bytes=self.snapshot_log_bytes,
            max_held_bytes=self.snapshot_hold_bytes,
        )

    def for_taking(self) -> TakingSettings:
        return TakingSettings(
            snapshot_log_bytes=self.snapshot_log_bytes,
            snapshot_ratio=self.snapshot_ratio,
            snapshot_log_limit=self.snapshot_log_limit,
            snapshot_slice_ms=self.snapshot_slice_ms,
        )
