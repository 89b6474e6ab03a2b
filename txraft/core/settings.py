"""The numbers that the core is given."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RaftSettings:
    """Times in ticks, sizes in bytes. `heartbeat_ticks < min_election_ticks < max_election_ticks`."""

    min_election_ticks: int
    max_election_ticks: int
    heartbeat_ticks: int
    vote_retry_ticks: int
    append_retry_ticks: int
    max_append_bytes: int
    max_inflight_bytes: int
    max_uncommitted_bytes: int
    catch_up_rounds: int
    log_keep_entries: int = 0
    """So many entries before a snapshot's last one stay in the log, for those who are a little behind..."""
    max_kept_bytes: int = 64 << 20
    """...but not more of them than this."""
    max_held_bytes: int = 256 << 20
    """The log is not kept longer than this for the sake of those who receive a snapshot."""

    def __post_init__(self) -> None:
        if not 0 < self.heartbeat_ticks < self.min_election_ticks < self.max_election_ticks:
            raise ValueError(f"timings are not ordered: {self}")

    @property
    def stalled_disk_ticks(self) -> int:
        """A leader whose disk has been silent for this long gives up (a follower with a good disk does better)."""
        return 4 * self.max_election_ticks
