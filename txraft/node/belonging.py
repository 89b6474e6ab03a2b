"""Which cluster a server belongs to: a passive one is taken in, a founder learns which cluster it has founded."""

from __future__ import annotations

from txraft.core import cluster_id as ids
from txraft.core.raft import Raft
from txraft.interfaces import Identity, ITransport


def learned(identity: Identity, raft: Raft, transport: ITransport) -> str:
    """
    The cluster id, as far as it is known now.

    The leader that sends entries says it of itself: memberships of long ago may name an epoch that is over. Who belongs
    to a cluster already learns the epoch when that is committed: another leader may have chosen another one. A later
    epoch than the disk's is that of a recovery which was cut short before it could say so there.
    """
    known, found = identity.cluster_id, raft.membership.cluster_id
    if not found:
        return known
    if not known:
        leader = transport.identities().get(raft.leader_id or "")
        return leader.cluster_id if leader else ""
    if found == known and ids.has_epoch(known):
        return known
    if ids.recoveries(found) > ids.recoveries(known):
        return found
    committed = raft.memberships.at(raft.commit_index).cluster_id
    return committed if ids.has_epoch(committed) and not ids.has_epoch(known) else known


def introduce(raft: Raft, transport: ITransport) -> None:
    """Tell the core whom the transport has met."""
    raft.introduce({server_id: identity.incarnation for server_id, identity in transport.identities().items()})
