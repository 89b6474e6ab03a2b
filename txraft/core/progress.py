"""What a leader knows of one other server's log, and how much it has sent ahead of the answers."""

from __future__ import annotations

from collections import deque
from enum import Enum


class ReplicationState(Enum):
    PROBE = "probe"
    """Where the logs agree is not known: one request at a time."""
    REPLICATE = "replicate"
    """The logs agree up to `next_index`: requests follow each other without waiting, within a window."""
    SNAPSHOT = "snapshot"
    """What comes next is not in the log any more. A snapshot is on its way; until it is there, only heartbeats are."""


class Progress:
    """
    One peer. `match_index` is proved and durable there and never goes back; `next_index` is what to send next.

    Always `match_index < next_index`.
    """

    __slots__ = (
        "_in_flight",
        "confirmed_round",
        "has_answered",
        "in_flight_bytes",
        "is_active",
        "is_probing_silence",
        "lost_snapshots",
        "match_index",
        "next_index",
        "probe_age_ticks",
        "silent_ticks",
        "stalled_ticks",
        "state",
    )

    def __init__(self, next_index: int) -> None:
        self.match_index = 0
        self.next_index = next_index
        self.state = ReplicationState.PROBE
        self.confirmed_round = 0
        """The newest round of this leadership that the peer has echoed."""
        self.has_answered = False
        """In this leadership: then it has made the term durable."""
        self.is_active = False
        """Heard from since the last check of the quorum."""
        self.silent_ticks = 0
        """Ticks since it was last heard from in this leadership."""
        self.stalled_ticks = 0
        """Ticks since `match_index` moved, while the peer lacks something."""
        self.lost_snapshots = 0
        """Attempts since one reached it."""
        self.probe_age_ticks: int | None = None
        """PROBE: ticks since the outstanding request was sent; None if there is none."""
        self.is_probing_silence = False
        """PROBE: the last request was not answered, so the next ones carry no entries until one is."""
        self.in_flight_bytes = 0
        self._in_flight: deque[tuple[int, int]] = deque()

    def heard(self, round_: int) -> None:
        self.is_active = self.has_answered = True
        self.silent_ticks = 0
        self.confirmed_round = max(self.confirmed_round, round_)

    def matched(self, match_index: int, is_accepted: bool) -> bool:
        """
        Note that the peer has everything up to `match_index`, on disk; True if that is news.

        Only an accepted request ends probing: of many refusals in flight the first one has begun it.
        """
        is_news = match_index > self.match_index
        if is_news:
            self.stalled_ticks = 0
        self.match_index = max(self.match_index, match_index)
        self.next_index = max(self.next_index, self.match_index + 1)
        while self._in_flight and self._in_flight[0][0] <= self.match_index:
            self.in_flight_bytes -= self._in_flight.popleft()[1]
        if is_accepted and self.state is ReplicationState.PROBE and match_index >= self.next_index - 1:
            self._enter(ReplicationState.REPLICATE)
        return is_news

    def begin_snapshot(self) -> None:
        """What comes next can only come as a snapshot."""
        self._enter(ReplicationState.SNAPSHOT)

    def end_snapshot(self) -> None:
        """It is there, or it is not going to be: find out what comes next."""
        self._enter(ReplicationState.PROBE)

    def tick(self, retry_ticks: int, last_index: int) -> None:
        """One tick has passed; a probe that was not answered within `retry_ticks` may be sent again."""
        self.silent_ticks += 1
        self.stalled_ticks = self.stalled_ticks + 1 if self.match_index < last_index else 0
        if self.probe_age_ticks is not None:
            self.probe_age_ticks += 1
            if self.probe_age_ticks >= retry_ticks:
                self.probe_age_ticks = None
                self.is_probing_silence = True

    def may_send(self, last_index: int, max_inflight_bytes: int) -> bool:
        """True if a probe, or entries up to `last_index`, may be sent now."""
        if self.state is ReplicationState.SNAPSHOT:
            return False
        if self.state is ReplicationState.PROBE:
            return self.probe_age_ticks is None
        return self.next_index <= last_index and self.in_flight_bytes < max_inflight_bytes

    def sent(self, last_index: int, size: int) -> None:
        """Note a request with entries up to `last_index`, `size` bytes of them; a heartbeat has none."""
        if self.state is ReplicationState.PROBE:
            self.probe_age_ticks = 0
        elif self.state is ReplicationState.REPLICATE and last_index >= self.next_index:
            self.next_index = last_index + 1
            self._in_flight.append((last_index, size))
            self.in_flight_bytes += size

    def refused(self, prev_log_index: int, agree_index: int) -> None:
        """
        The peer lacked the entry at `prev_log_index`; the logs can agree up to `agree_index` at most.

        A refusal that answers an older request than the one that counts now says nothing.
        """
        if prev_log_index <= self.match_index or self.state is ReplicationState.SNAPSHOT:
            return
        if self.state is ReplicationState.PROBE and prev_log_index != self.next_index - 1:
            return
        self._enter(ReplicationState.PROBE)
        self.next_index = max(self.match_index, min(agree_index, prev_log_index - 1)) + 1

    def _enter(self, state: ReplicationState) -> None:
        self.state = state
        self.probe_age_ticks = None
        self.is_probing_silence = False
        self._in_flight.clear()
        self.in_flight_bytes = 0
