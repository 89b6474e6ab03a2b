"""What a server forgets of its log: all that a snapshot holds, and nothing that somebody is on the way to need."""

from __future__ import annotations

from collections.abc import Mapping

import attrs

from txraft.core.invariants import require
from txraft.core.leader import Leader
from txraft.core.log import ENTRY_OVERHEAD_BYTES
from txraft.core.progress import Progress
from txraft.core.raft import Raft
from txraft.testing.server import Server
from txraft.testing.transfers import SimulatedTransfer

SOON = 20
"""So many timers of a process: by then it has done what there was to do."""

PATIENCE = 50
"""So many election timeouts without progress, and a server may be given up."""


@attrs.define
class _Sent:
    """
    A snapshot that this leadership has begun to send, and where the log ended then.

    `is_there`: its receiver has it, as the transport or, before that, the receiver itself has said; None while it is
    under way.
    """

    leader: Leader
    progress: Progress
    goal_index: int
    is_there: bool | None = None


class Forgetting:
    """
    One process's.

    @param sizes: the lengths of the commands that this process has written, by index.
    @param rows: the rows of the catalogue whose situation was seen.
    """

    def __init__(self, server: Server, sizes: Mapping[int, int], rows: set[str]) -> None:
        self._server = server
        self._sizes = sizes
        self._rows = rows
        self._base_index = 0
        self._overdue_from: int | None = None
        self._sent: dict[SimulatedTransfer, _Sent] = {}

    def check(self, raft: Raft, newest_index: int) -> None:
        """
        @param newest_index: the last that the newest snapshot holds; 0 if there is none.
        :raises InvariantBroken: too much is kept, or too little.
        """
        leader = raft.role if isinstance(raft.role, Leader) else None
        self._check_bound(raft, leader, newest_index)
        if leader is not None:
            self._note_transfers(raft, leader, newest_index)
            if raft.log.base_index > self._base_index:
                self._check_kept(raft, leader)
        self._base_index = raft.log.base_index

    def _check_bound(self, raft: Raft, leader: Leader | None, newest_index: int) -> None:
        """What a snapshot holds is kept for those only who are sent one, and no more than there is room for."""
        node, clock, log = self._server.node, self._server.clock, raft.log
        stop_index = newest_index - raft.settings.log_keep_entries + 1
        is_there = log.first_index < stop_index and newest_index <= raft.applied_index
        held_bytes = log.bytes_between(log.first_index, stop_index) if is_there else 0
        is_bounded = held_bytes <= (raft.settings.max_held_bytes if leader is not None else 0)
        # It may not run, or another one with another disk in its place: then no time passes for it.
        is_idle = node is None or node.raft is not raft or node.failure is not None
        if is_bounded or is_idle or clock is None:
            self._overdue_from = None
            return
        if self._overdue_from is None:
            self._overdue_from = clock.timers
        is_soon = clock.timers - self._overdue_from <= SOON
        require(is_soon, "the log is kept although a snapshot holds it", raft.server_id, log.first_index, stop_index)

    def _note_transfers(self, raft: Raft, leader: Leader, newest_index: int) -> None:
        transport = self._server.transport
        for transfer in transport.transfers if transport is not None else ():
            progress = leader.progress.get(transfer.receiver_id)
            if transfer not in self._sent and progress is not None and transfer.is_wanted:
                self._check_new(raft, transfer, progress)
                self._sent[transfer] = _Sent(leader, progress, raft.log.last_index)
            sent = self._sent.get(transfer)
            if sent is not None and sent.is_there is None and not transfer.is_wanted:
                last_index = transfer.snapshot.meta.last_index
                sent.is_there = transfer.has_arrived or sent.progress.match_index >= last_index
            if transfer.is_wanted and transfer.snapshot.meta.last_index < newest_index:
                self._rows.add("S09")

    def _check_new(self, raft: Raft, transfer: SimulatedTransfer, progress: Progress) -> None:
        """Nobody is sent twice what it has."""
        for other, sent in self._sent.items():
            is_news = other.snapshot.meta.last_index < transfer.snapshot.meta.last_index
            is_again = sent.progress is progress and other.has_arrived and not is_news
            require(not is_again, "a snapshot is sent again", raft.server_id, transfer.receiver_id, transfer.snapshot)

    def _check_kept(self, raft: Raft, leader: Leader) -> None:
        """Whoever is sent a snapshot gets what is behind it from the log, until it has all that there was then."""
        settings, base_index = raft.settings, raft.log.base_index
        for transfer, sent in self._sent.items():
            progress = sent.progress
            is_needed = sent.is_there is None or (sent.is_there and progress.match_index < sent.goal_index)
            is_ours = sent.leader is leader and leader.progress.get(transfer.receiver_id) is progress
            is_lost = max(progress.silent_ticks, progress.stalled_ticks) >= PATIENCE * settings.max_election_ticks
            has_index = max(transfer.snapshot.meta.last_index, progress.match_index)
            if not is_needed or not is_ours or is_lost or base_index <= has_index:
                continue
            gone = range(has_index + 1, base_index + 1)
            gone_bytes = sum(self._sizes.get(index, settings.max_held_bytes) + ENTRY_OVERHEAD_BYTES for index in gone)
            is_too_much = gone_bytes > settings.max_held_bytes
            facts = (raft.server_id, transfer.receiver_id, has_index, base_index, gone_bytes)
            require(is_too_much, "what follows a snapshot is forgotten while that is under way", *facts)
            self._rows.add("S10")
