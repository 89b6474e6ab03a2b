"""
A leader's part in sending snapshots: who needs one, and how much of the log stays for the sake of those.

The bytes are the owner's business. `Ready.snapshots` tells it to whom there is something to send; it says what it sends
(`begun`), and how that went (`sent`, `failed`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from txraft.core.progress import Progress, ReplicationState

if TYPE_CHECKING:
    from txraft.core.raft import Raft

PATIENCE = 100
"""A server that is silent, or gets nowhere, for this many election timeouts is given up: the log is not kept for it."""

ATTEMPTS = 10
"""So is one that a snapshot did not reach this many times."""


class _Transfer:
    """
    One snapshot for one server. `index` is its last entry's; None until the owner has begun.

    `goal_index` is None until the server has what the snapshot holds. The log is kept until it has this, too; else it
    might need the next snapshot at once, and so on for ever.
    """

    __slots__ = ("age_ticks", "goal_index", "index", "progress", "rest_ticks", "sent_ticks")

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self.age_ticks = 0
        self.index: int | None = None
        self.sent_ticks: int | None = None
        """Ticks since all of it was sent; None before that."""
        self.goal_index: int | None = None
        self.rest_ticks = 0
        """Until it is tried again."""


class SnapshotSending:
    """One leadership's. Servers are named by id."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._transfers: dict[str, _Transfer] = {}
        self._rest_ticks: dict[str, int] = {}

    @property
    def _progress(self) -> dict[str, Progress]:
        return self._raft.leader().progress

    # -- for the leader

    def need(self, server_id: str) -> None:
        """What this server needs next is not in the log any more. To one that is silent nothing is sent."""
        progress = self._progress[server_id]
        # Also, a snapshot must never be of a later term than its receiver.
        is_there = progress.has_answered and progress.silent_ticks < self._raft.settings.max_election_ticks
        if is_there and progress.state is not ReplicationState.SNAPSHOT and server_id not in self._rest_ticks:
            progress.begin_snapshot()
            self._transfers[server_id] = _Transfer(progress)

    def wanted(self) -> tuple[str, ...]:
        """To whom a snapshot is to be on its way."""
        return tuple(
            server_id
            for server_id, transfer in sorted(self._transfers.items())
            if transfer.goal_index is None and transfer.sent_ticks is None and not transfer.rest_ticks
        )

    def answered(self, server_id: str) -> None:
        """This server has said how much it has."""
        transfer, progress = self._transfers.get(server_id), self._progress[server_id]
        if transfer is None:
            return
        if progress.state is ReplicationState.SNAPSHOT and progress.next_index > self._raft.log.base_index:
            progress.end_snapshot()
            transfer.goal_index, transfer.sent_ticks = self._raft.log.last_index, None
            progress.lost_snapshots = 0
        if transfer.goal_index is not None and progress.match_index >= transfer.goal_index:
            del self._transfers[server_id]

    def tick(self) -> None:
        """One tick has passed."""
        patience_ticks = PATIENCE * self._raft.settings.max_election_ticks
        self._rest_ticks = {server_id: left - 1 for server_id, left in self._rest_ticks.items() if left > 1}
        for server_id, transfer in list(self._transfers.items()):
            progress = transfer.progress
            transfer.rest_ticks = max(0, transfer.rest_ticks - 1)
            transfer.age_ticks += 1
            # A server that was away for long has been stalled for longer than this has lasted.
            stalled_ticks = min(progress.stalled_ticks, transfer.age_ticks)
            if transfer.sent_ticks is not None:
                transfer.sent_ticks += 1
            if self._progress.get(server_id) is not progress:
                del self._transfers[server_id]  # it has left; if it came again, it comes with an empty disk
            elif max(progress.silent_ticks, stalled_ticks, transfer.sent_ticks or 0) >= patience_ticks:
                progress.lost_snapshots += ATTEMPTS
                self._give_up(server_id)

    @property
    def held_index(self) -> int | None:
        """What is behind this index stays in the log; None if nothing is kept for anybody."""
        held = [self._held_for(transfer) for transfer in self._transfers.values()]
        return min(held, default=None)

    def _held_for(self, transfer: _Transfer) -> int:
        index = self._raft.log.base_index if transfer.index is None else transfer.index
        return max(index, transfer.progress.match_index)

    def limit(self, index: int) -> int:
        """
        Up to where the log may be forgotten, `index` at most.

        Those for whom too much would have to be kept are given up, and nobody else: the log has a bound, and they get
        the next snapshot.
        """
        log = self._raft.log
        while (held_index := self.held_index) is not None and held_index < index:
            first_index = max(held_index, log.base_index) + 1
            if log.bytes_between(first_index, index + 1) <= self._raft.settings.max_held_bytes:
                return held_index
            for server_id, transfer in list(self._transfers.items()):
                if self._held_for(transfer) == held_index:
                    self._give_up(server_id)
        return index

    # -- for the owner

    def begun(self, server_id: str, index: int) -> None:
        """A snapshot that ends with `index` is on its way to a server that is in `wanted`."""
        self._transfers[server_id].index = index

    def advanced(self, server_id: str) -> None:
        """More of it has arrived: what is slow is not stalled. See `Leader._check_quorum`."""
        self._transfers[server_id].progress.stalled_ticks = 0

    def sent(self, server_id: str) -> None:
        """All of it is there and is being installed; the server will say that it has it."""
        if server_id in self._transfers:
            self._transfers[server_id].sent_ticks = 0

    def failed(self, server_id: str) -> None:
        """It did not arrive. After a rest it is tried again; until then, too, the log is kept."""
        if server_id in self._transfers:
            transfer = self._transfers[server_id]
            transfer.sent_ticks, transfer.rest_ticks = None, self._raft.settings.max_election_ticks
            transfer.progress.lost_snapshots += 1
            if transfer.progress.lost_snapshots % ATTEMPTS == 0:
                self._give_up(server_id)

    def _give_up(self, server_id: str) -> None:
        """The log is kept no longer; after a rest it begins with another snapshot."""
        progress = self._transfers.pop(server_id).progress
        self._rest_ticks[server_id] = self._raft.settings.max_election_ticks
        if progress.state is ReplicationState.SNAPSHOT:
            progress.end_snapshot()
