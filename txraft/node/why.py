"""What a server waits for, from its own state alone: a sentence for each thing that holds it up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txraft.core.candidate import Candidate, PreCandidate, who_may_know
from txraft.core.leader import Leader
from txraft.core.membership import Membership
from txraft.core.messages import Refusal, RefusalReason
from txraft.core.progress import Progress, ReplicationState
from txraft.core.quorum import VoteResult, vote_result
from txraft.core.raft import Raft
from txraft.interfaces import ITransport, StorageStatus
from txraft.node.snapshots import SnapshotsStatus

if TYPE_CHECKING:
    from txraft.node.raft_node import RaftNode

NOTABLE_WRITE_S = 0.1
"""A write that takes no longer than this is what a server does all the time."""


def reasons(
    node: RaftNode, raft: Raft, transport: ITransport, storage: StorageStatus, snapshots: SnapshotsStatus
) -> list[str]:
    """A sentence for each thing that `node` waits for; none if nothing holds it up."""
    if node.failure is not None:
        return [f"This server has failed: {node.failure}."]
    if not node.running:
        return ["This server is not running."]
    sentences = []
    if storage.write_seconds is not None and storage.write_seconds >= NOTABLE_WRITE_S:
        sentences.append(f"A disk write has been outstanding for {storage.write_seconds:.2f} s.")
    sentences += [
        f"{transfer.server_id} sends this server a snapshot, as it is far behind: {transfer.bytes} of {transfer.size} "
        "bytes have come."
        for transfer in snapshots.transfers
        if transfer.direction == "from"
    ]
    if snapshots.taking.failure:
        sentences.append(
            f"The log grows until a snapshot is taken, and the last one failed: {snapshots.taking.failure}."
        )
    if not raft.is_restored:
        sentences.append(
            f"The state machine is not yet restored from the snapshot at entry {snapshots.index}: until then this "
            "server answers nobody."
        )
    sentences += _full_log(raft, snapshots)
    if snapshots.failure:
        sentences.append(f"The snapshot that this server needs cannot be received: {snapshots.failure}.")
    if raft.server_id not in raft.membership.members:
        sentences.append(_outside(raft, transport))
    elif raft.is_disowned:
        sentences.append(_disowned(raft))
    elif raft.leader_id is None:
        sentences.append(_without_leader(raft, transport))
    elif isinstance(raft.role, Leader):
        sentences += _leading(node, raft, raft.role, transport)
    if raft.applied_index < min(raft.commit_index, raft.log.durable_index):
        sentences.append(
            f"The state machine is behind: {_entries(raft.applied_index + 1, raft.commit_index)} committed and not "
            "applied yet."
        )
    return sentences


def _full_log(raft: Raft, snapshots: SnapshotsStatus) -> list[str]:
    is_refusing = isinstance(raft.role, Leader) and 0 < snapshots.log_limit_bytes <= snapshots.log_bytes
    if not is_refusing and not raft.holds_entries:
        return []
    return [
        f"{'This leader refuses commands' if is_refusing else 'This server takes no more entries'} until there is a "
        f"newer snapshot: {snapshots.log_bytes} bytes of log are behind the last one, and a leader's limit, by "
        f"snapshot_log_limit, is {snapshots.log_limit_bytes}, a follower's twice that."
        + (" Every so often it asks another server to lead." if is_refusing and len(raft.membership.voters) > 1 else "")
    ]


def _outside(raft: Raft, transport: ITransport) -> str:
    if not raft.membership.members:
        refused = f" It was refused: {transport.refusal}." if transport.refusal else ""
        return f"This server belongs to no cluster: its leader must be asked to add it.{refused}"
    return (
        f"Entry {raft.memberships.current_index} has removed this server from the cluster: it may be stopped, or added "
        "again."
    )


def _disowned(raft: Raft) -> str:
    return (
        f"Entry {raft.memberships.current_index} says that {raft.server_id} has another data directory: this server "
        "has no vote until it is removed from the cluster and added again."
    )


def _without_leader(raft: Raft, transport: ITransport) -> str:
    where = f"No leader is known in term {raft.term}"
    is_standing = isinstance(raft.role, PreCandidate | Candidate)
    if not is_standing and not raft.may_campaign:
        asked = _asked(raft, transport)
        return f"{where}, and this server {_why_it_may_not_stand(raft)}: it waits to hear from one, and asks {asked}."
    votes, refusals = _answers(raft)
    if not is_standing and not votes:
        return f"{where}: this server stands for election if it hears from none."
    others = [server_id for server_id in raft.membership.members if raft.membership.is_voter(server_id)]
    refused = [
        f"{server_id}{_refusal(server_id, refusals.get(server_id), raft)}"
        for server_id in others
        if votes.get(server_id) is False
    ]
    waited_for = [server_id for server_id in others if server_id not in votes and server_id != raft.server_id]
    silent = [f"{server_id}{_link(transport, server_id)}" for server_id in waited_for]
    does = "stands for election" if is_standing else "was not elected"
    if isinstance(raft.role, Candidate) and raft.server_id not in raft.role.votes:
        silent.insert(0, "its own disk")
    return (
        f"{where}: this server {does}, with votes refused by {', '.join(refused) or 'nobody'}, and no answer from "
        f"{', '.join(silent) or 'nobody'}.{_way_back(raft, transport, waited_for)}"
    )


def _why_it_may_not_stand(raft: Raft) -> str:
    if not raft.membership.is_voter(raft.server_id):
        return "has no vote"
    if not raft.is_restored:
        return "cannot lead before its state is restored"
    return f"has not read yet in its log that {raft.server_id} has this data directory"


def _way_back(raft: Raft, transport: ITransport, waited_for: list[str]) -> str:
    """Where those answer who are connected and silent: to a server that has moved, where nobody is."""
    if not any(transport.link_status(server_id) == "connected" for server_id in waited_for):
        return ""
    address = raft.membership.address(raft.server_id)
    return f" They answer to {address}: if this server is elsewhere now, they must be told (`raftctl move`)."


def _asked(raft: Raft, transport: ITransport) -> str:
    """Whom a server asks that does not stand, and what they have said or why they are not reached."""
    refusals = raft.role.refusals
    asked = [
        f"{server_id}{_refusal(server_id, refusals.get(server_id), raft) or _link(transport, server_id)}"
        for server_id in who_may_know(raft)
    ]
    return ", ".join(asked) or "nobody"


def _answers(raft: Raft) -> tuple[dict[str, bool], dict[str, Refusal]]:
    """Who has given a vote in this election or not, and why not; who has not answered yet may have refused before."""
    now, before = raft.role, raft.last_election
    if isinstance(before, Candidate) and vote_result(raft.membership, before.votes) is VoteResult.WON:
        before = None  # It has led since, and what was answered then explains nothing.
    votes: dict[str, bool] = dict(before.votes) if before is not None else {}
    refusals = dict(before.refusals) if before is not None else {}
    if isinstance(now, PreCandidate | Candidate):
        votes = {server_id: False for server_id, granted in votes.items() if not granted} | now.votes
        refusals |= now.refusals
    return votes, refusals


def _refusal(voter: str, refusal: Refusal | None, raft: Raft) -> str:
    """What a voter has said about why it refused, as long as it may still be so."""
    if refusal is None:
        return ""
    whom = "itself" if refusal.server_id == voter else refusal.server_id
    match refusal.reason:
        case RefusalReason.LEADER:
            return " (it leads itself)" if whom == "itself" else f" (it hears from {whom}, which leads)"
        case RefusalReason.VOTED:
            return f" (it has voted for {whom})"
        case RefusalReason.LOG:
            log = raft.log
            return (
                f" (its log is further: it ends with entry {refusal.last_log_index} of term {refusal.last_log_term}, "
                f"this server's with entry {log.last_index} of term {log.last_term})"
            )
        case RefusalReason.NO_VOTE:
            return " (it has lost its data, and has no vote)"
    return ""


def _link(transport: ITransport, server_id: str) -> str:
    """Why there is no connection, if there is none."""
    status = transport.link_status(server_id)
    return "" if status == "connected" else f" ({status})"


def _leading(node: RaftNode, raft: Raft, leader: Leader, transport: ITransport) -> list[str]:
    sentences = []
    if raft.log.term(raft.commit_index) != raft.term:
        sentences.append(
            "This leader has committed nothing in its term yet: until then no read is answered, and no change is begun."
        )
    if raft.commit_index < raft.log.last_index:
        sentences += _commit(node, raft, leader, transport)
    if leader.reads.is_under_way:
        sentences += _reads(node, raft, leader, transport)
    if raft.membership.is_changing:
        sentences += _change(raft, leader, transport)
    heir = leader.reconfiguration.hand_over_to
    if heir is not None:
        lack = raft.log.last_index - leader.progress[heir].match_index if heir in leader.progress else 0
        sentences.append(
            f"The leadership is being handed over to {heir}{_link(transport, heir)}, which lacks {lack} entries: "
            "proposals wait meanwhile."
        )
    return sentences


def _entries(first: int, last: int) -> str:
    return f"entry {first} is" if first == last else f"entries {first} to {last} are"


def _commit(node: RaftNode, raft: Raft, leader: Leader, transport: ITransport) -> list[str]:
    last = raft.log.last_index
    what = f"{_entries(raft.commit_index + 1, last).capitalize()} not committed yet"
    sentences = [
        f"{what}: {server_id}{_link(transport, server_id)} has {progress.match_index}, was last heard from "
        f"{progress.silent_ticks * node.settings.tick_s:.2f} s ago{_snapshot(progress)}."
        for server_id, progress in sorted(leader.progress.items())
        if raft.membership.is_voter(server_id) and progress.match_index < last
    ]
    if raft.log.durable_index < last:
        sentences.append(f"{what}: this server's own disk has {raft.log.durable_index}.")
    return sentences


def _reads(node: RaftNode, raft: Raft, leader: Leader, transport: ITransport) -> list[str]:
    return [
        f"Reads wait until a majority confirms that this server leads: {server_id}{_link(transport, server_id)} has "
        f"not, and was last heard from {progress.silent_ticks * node.settings.tick_s:.2f} s ago."
        for server_id, progress in sorted(leader.progress.items())
        if raft.membership.is_voter(server_id) and progress.confirmed_round < leader.reads.round
    ]


def _snapshot(progress: Progress) -> str:
    return ", and waits for a snapshot to arrive" if progress.state is ReplicationState.SNAPSHOT else ""


def _change(raft: Raft, leader: Leader, transport: ITransport) -> list[str]:
    membership: Membership = raft.membership
    if membership.outgoing:
        return [
            f"A change of the membership waits for entry {raft.memberships.current_index}, on which a majority of "
            f"{', '.join(membership.outgoing)} and one of {', '.join(membership.voters)} must agree."
        ]
    return [
        f"A change of the membership waits for {server_id}{_link(transport, server_id)} to catch up: in round "
        f"{server.round} of {raft.settings.catch_up_rounds} it has {leader.progress[server_id].match_index} of "
        f"{server.goal_index} entries{_snapshot(leader.progress[server_id])}."
        for server_id, server in sorted(leader.reconfiguration.catching_up.items())
    ]
