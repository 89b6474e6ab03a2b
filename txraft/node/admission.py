"""Who may ask a server for something, and what is said to those who may not."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txraft.core.errors import UncommittedFull
from txraft.core.leader import Leader
from txraft.errors import CommandTooLarge, NotLeader, Overloaded, Stopped
from txraft.interfaces import ITransport

if TYPE_CHECKING:
    from txraft.node.raft_node import RaftNode


class Admission:
    """One server's. `is_open` from the start until the stop or a failure."""

    def __init__(self, node: RaftNode, transport: ITransport) -> None:
        self.is_open = False
        self._node = node
        self._transport = transport

    def leader_for(self, longest: int) -> Leader | Exception:
        """The leadership of this server, if it has one and takes anything of `longest` bytes; else why not."""
        raft, limit = self._node.raft, self._node.settings.max_command_bytes
        if not self.is_open or raft is None:
            return self.stopped()
        if longest > limit:
            return CommandTooLarge(longest, "max_command_bytes", limit)
        return raft.role if isinstance(raft.role, Leader) else self.not_leader()

    def reserve(self, size: int, longest: int, count: int) -> Leader | Exception:
        """As `leader_for`, with room made for `count` commands of `size` bytes together."""
        leader = self.leader_for(longest)
        if isinstance(leader, Leader):
            if self._node.snapshots.limit.is_reached:
                return Overloaded("snapshot_log_limit", self._node.settings.snapshot_log_limit)
            try:
                leader.reserve(size, count)
            except UncommittedFull:
                return Overloaded("max_uncommitted_bytes", self._node.settings.max_uncommitted_bytes)
        return leader

    def not_leader(self) -> NotLeader:
        """Who leads instead, as far as is known."""
        leader_id = self._node.raft.leader_id if self._node.raft is not None else None
        if leader_id is None:
            return NotLeader(None)
        addresses = self._transport.addresses(leader_id)
        return NotLeader(leader_id, addresses.client, addresses.admin)

    def stopped(self) -> Stopped:
        """Why this server does nothing."""
        failure = self._node.failure
        return Stopped(f"this server has stopped: {failure}" if failure else "this server is not running")
