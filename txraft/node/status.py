"""What a server says of itself: plain values, for people, the admin port and tests."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs

from txraft.core.leader import Leader
from txraft.core.membership import Membership
from txraft.core.raft import Raft
from txraft.interfaces import ITransport, StorageStatus
from txraft.node.snapshots import SnapshotsStatus
from txraft.node.why import reasons

if TYPE_CHECKING:
    from txraft.node.raft_node import RaftNode


@attrs.frozen
class MemberStatus:
    """
    One server of the membership; `address` is where the others reach it. `link` is "this server", "connected", or why
    not.

    Only a leader knows `match_index` (on that server's disk), `lag` (entries it lacks) and `silent_s` (seconds since it
    was heard from); they are None elsewhere.
    """

    server_id: str
    address: str
    role: str
    link: str
    client_address: str
    admin_address: str
    match_index: int | None
    lag: int | None
    silent_s: float | None


@attrs.frozen
class CatchingUp:
    """
    A server that a leader brings up to date before it counts: it has everything up to `match_index`, and has to get to
    `goal_index` in `round`, of `rounds` that there are.
    """

    server_id: str
    round: int
    rounds: int
    goal_index: int
    match_index: int


@attrs.frozen
class NodeStatus:
    """
    One moment of one server. `role` is follower, pre-candidate, candidate, leader, passive, removed, stopped or
    failed.

    The log in memory holds `log_entries` entries, from `first_index` on; what is before is in a snapshot.
    `sessions` is how many sessions of clients there are. Indexes are 0 and members empty before the start.
    `waiting_for` has a sentence for everything that holds this server up; empty if nothing does. `catching_up` and
    `hand_over_to` (None: to nobody) are a leader's.
    """

    server_id: str
    cluster_id: str
    role: str
    term: int
    leader_id: str | None
    first_index: int
    log_entries: int
    last_index: int
    durable_index: int
    commit_index: int
    applied_index: int
    sessions: int
    members: tuple[MemberStatus, ...]
    catching_up: tuple[CatchingUp, ...]
    hand_over_to: str | None
    storage: StorageStatus
    snapshots: SnapshotsStatus
    waiting_for: tuple[str, ...]
    failure: str


def describe(node: RaftNode, storage: StorageStatus, snapshots: SnapshotsStatus, transport: ITransport) -> NodeStatus:
    """The status of `node`, in whatever state it is."""
    raft, server_id = node.raft, node.settings.server_id
    if raft is None:
        return NodeStatus(
            server_id, "", "stopped", 0, None, 0, 0, 0, 0, 0, 0, 0, (), (), None, storage, snapshots, (), ""
        )
    leader = raft.role if isinstance(raft.role, Leader) and node.running else None
    return NodeStatus(
        server_id=node.settings.server_id,
        cluster_id=node.identity.cluster_id,
        role=_role(node, raft),
        term=raft.term,
        leader_id=raft.leader_id if node.running else None,
        first_index=raft.log.first_index,
        log_entries=raft.log.last_index - raft.log.base_index,
        last_index=raft.log.last_index,
        durable_index=raft.log.durable_index,
        commit_index=raft.commit_index,
        applied_index=raft.applied_index,
        sessions=len(node.sessions),
        members=tuple(_member(node, raft, transport, server_id) for server_id in raft.membership.members),
        catching_up=tuple(_catching_up(raft, leader)) if leader else (),
        hand_over_to=leader.reconfiguration.hand_over_to if leader else None,
        storage=storage,
        snapshots=snapshots,
        waiting_for=tuple(reasons(node, raft, transport, storage, snapshots)),
        failure=str(node.failure) if node.failure else "",
    )


def _role(node: RaftNode, raft: Raft) -> str:
    if node.failure is not None:
        return "failed"
    if not node.running:
        return "stopped"
    if not raft.membership.members:
        return "passive"
    return raft.role.name if raft.server_id in raft.membership.members else "removed"


def _member(node: RaftNode, raft: Raft, transport: ITransport, server_id: str) -> MemberStatus:
    is_own = server_id == raft.server_id
    served = node.addresses if is_own else transport.addresses(server_id)
    match_index, lag, silent_s = None, None, None
    if is_own:
        match_index, lag, silent_s = raft.log.durable_index, 0, 0.0
    elif isinstance(raft.role, Leader):
        progress = raft.role.progress[server_id]
        match_index, lag = progress.match_index, raft.log.last_index - progress.match_index
        silent_s = progress.silent_ticks * node.settings.tick_s
    return MemberStatus(
        server_id=server_id,
        address=raft.membership.address(server_id),
        role=_kind(raft.membership, server_id),
        link="this server" if is_own else transport.link_status(server_id),
        client_address=served.client,
        admin_address=served.admin,
        match_index=match_index,
        lag=lag,
        silent_s=silent_s,
    )


def _catching_up(raft: Raft, leader: Leader) -> list[CatchingUp]:
    rounds, progress = raft.settings.catch_up_rounds, leader.progress
    return [
        CatchingUp(server_id, server.round, rounds, server.goal_index, progress[server_id].match_index)
        for server_id, server in sorted(leader.reconfiguration.catching_up.items())
    ]


def _kind(membership: Membership, server_id: str) -> str:
    if membership.outgoing and server_id not in membership.voters and server_id in membership.outgoing:
        return "voter until the change is committed"
    if membership.is_voter(server_id):
        return "voter"
    return "catching up" if server_id in membership.next_voters else "learner"
