"""A server's own snapshots and those of others, as far as log, membership and commit index are concerned."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from txraft.core.errors import InvalidMessage
from txraft.core.follower import Follower
from txraft.core.leader import Leader
from txraft.core.membership import Membership, MembershipHistory
from txraft.core.snapshot import SnapshotMeta

if TYPE_CHECKING:
    from txraft.core.raft import Raft


class Snapshots:
    """The inputs that have to do with snapshots. Like all inputs they change memory only."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft

    def meta(self) -> SnapshotMeta:
        """What a snapshot of the state machine as it is now stands for."""
        raft = self._raft
        index, term = raft.applied_index, raft.log.term(raft.applied_index)
        assert term is not None, (index, raft.log.base_index)
        membership = raft.memberships.at(index)
        return SnapshotMeta(
            cluster_id=membership.cluster_id,
            last_index=index,
            last_term=term,
            time_ms=raft.log.time_ms(index),
            membership=membership.encode(),
            membership_index=raft.memberships.index_at(index),
        )

    def compact(self, index: int) -> bool:
        """
        A durable snapshot holds everything up to `index`: forget that, except what is kept for the sake of others.

        False if nothing went. It is no harm to say so again.
        """
        raft = self._raft
        index = self._last_unkept(min(index, raft.applied_index))
        if isinstance(raft.role, Leader):
            index = raft.role.sending.limit(index)
        if index <= raft.log.base_index:
            return False
        raft.log.compact(index)
        raft.memberships.compact(index)
        return True

    def _last_unkept(self, index: int) -> int:
        """
        What is behind it, up to `index`, is kept for those who are a little behind: bounded by number and size.

        Cost: hardly any entry is weighed twice.
        """
        log, settings = self._raft.log, self._raft.settings
        lowest, room, step = max(index - settings.log_keep_entries, log.base_index), settings.max_kept_bytes, 1 << 12
        while step:
            weight = log.bytes_between(index - step + 1, index + 1) if index - step >= lowest else room + 1
            if weight <= room:
                index, room = index - step, room - weight
            else:
                step >>= 1
        return index

    def install(self, snapshot: SnapshotMeta) -> bool:
        """
        A snapshot that another server made is on disk, verified. True if it has taken the place of the log: then the
        state machine must be restored from it, now. False: what it holds is here, and comes as entries.

        Term and vote stay as they are. Paper §7, Figure 13.

        :raises InvalidMessage: no correct server sends it to this one; nothing has changed.
        """
        raft = self._raft
        if snapshot.last_term > raft.durable_state.term:
            # A restart would find a log of a later term than its own.
            raise InvalidMessage(f"a snapshot of term {snapshot.last_term}, but this is term {raft.durable_state.term}")
        memberships = history_from(snapshot)
        if isinstance(raft.role, Leader):
            return False
        is_here = snapshot.last_index <= raft.commit_index
        # If its last entry is here, so is all before it; and what is behind it may have been acknowledged.
        is_here = is_here or raft.log.matches(snapshot.last_index, snapshot.last_term)
        if is_here:
            raft.commit_to(snapshot.last_index)
        else:
            raft.log.reset(snapshot.last_index, snapshot.last_term, snapshot.time_ms)
            raft.void_write()
            raft.memberships = memberships
            raft.commit_index = raft.applied_index = snapshot.last_index
        if not isinstance(raft.role, Follower) and not (is_here and raft.may_campaign):
            # It stood as a voter of a membership that is gone, or that is known now to be followed by another.
            raft.become_follower(raft.term, None)
        if isinstance(raft.role, Follower):
            raft.role.prove(snapshot.last_index)
        return not is_here


def history_from(snapshot: SnapshotMeta) -> MembershipHistory:
    """
    What is known of memberships where only a snapshot is.

    :raises InvalidMessage: it holds none.
    """
    [membership] = decode_memberships([snapshot.membership])
    return MembershipHistory(snapshot.membership_index, membership)


def decode_memberships(commands: Sequence[bytes]) -> list[Membership]:
    """:raises InvalidMessage: one of them is none."""
    try:
        return [Membership.decode(data) for data in commands]
    except ValueError as error:
        raise InvalidMessage(str(error)) from error
