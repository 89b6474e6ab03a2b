"""What a turn's proposals and reads become: entries of the log, and questions to the leader."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred, fail

from txraft.core.leader import Leader
from txraft.core.raft import Raft
from txraft.errors import Overloaded
from txraft.node.admission import Admission
from txraft.node.settings import NodeSettings
from txraft.node.waiters import Proposals, Reads


class Gathering:
    """One server's. `arm_flush`: there is something to do at the end of the turn."""

    def __init__(
        self,
        admission: Admission,
        proposals: Proposals,
        reads: Reads,
        settings: NodeSettings,
        arm_flush: Callable[[], None],
    ) -> None:
        self._admission = admission
        self._proposals = proposals
        self._reads = reads
        self._max_pending_reads = settings.max_pending_reads
        self._arm_flush = arm_flush
        self._reserved_by: Leader | None = None  # the leadership that has room for what is gathered

    def reserve(self, size: int, longest: int, count: int) -> Exception | None:
        """Make room for `count` commands of `size` bytes together, and arm the flush; or say why not."""
        leader = self._admission.reserve(size, longest, count)
        if not isinstance(leader, Leader):
            return leader
        self._reserved_by = leader
        self._arm_flush()
        return None

    def read(self, requests: Sequence[bytes], is_many: bool) -> Deferred[Any]:
        """A Deferred of the answers, see `Reads.add`, or of why there will be none."""
        leader = self._admission.leader_for(max(map(len, requests), default=0))
        if not isinstance(leader, Leader):
            return fail(leader)
        if self._reads.count and self._reads.count + len(requests) > self._max_pending_reads:
            return fail(Overloaded("max_pending_reads", self._max_pending_reads))
        self._arm_flush()
        return self._reads.add(requests, is_many)

    def append(self, raft: Raft) -> None:
        """Append what is gathered, if it is due."""
        is_handing_over = isinstance(raft.role, Leader) and raft.role.reconfiguration.hand_over_to is not None
        if is_handing_over or not self._proposals.gathered_count:
            return
        role, is_writing = raft.role, raft.write_age_ticks is not None
        if role is not self._reserved_by or not isinstance(role, Leader):
            self._proposals.refuse_gathered(self._admission.not_leader())
        elif self._proposals.is_due(is_writing):
            first_index = raft.log.last_index + 1
            for kind, commands in self._proposals.take_gathered():
                role.propose(commands, kind)
            self._proposals.appended(first_index, raft.term)
        elif not is_writing:
            self._arm_flush()

    def request_reads(self, raft: Raft) -> None:
        """Ask for all new reads together."""
        read_id = self._reads.take_new()
        if read_id is None:
            return
        if isinstance(raft.role, Leader):
            raft.request_read(read_id)
        else:
            self._reads.refuse(read_id, self._admission.not_leader())
