"""Who gets no vote of this server, and why: the reason is for people, at the server that asked."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txraft.core.messages import PreVote, Refusal, RefusalReason, RequestVote

if TYPE_CHECKING:
    from txraft.core.raft import Raft


def pre_vote_refusal(raft: Raft, message: PreVote) -> Refusal | None:
    """Why `raft` would not vote for the sender in a term that has just begun; None if it would."""
    if raft.hears_leader():
        return Refusal(RefusalReason.LEADER, raft.leader_id or "")
    return _standing_refusal(raft, message)


def vote_refusal(raft: Raft, sender: str, message: RequestVote) -> Refusal | None:
    """Why `raft` does not vote for `sender` in its own term; None if it does. Paper §5.2, one vote a term; §5.4.1."""
    is_free = raft.voted_for == sender or (raft.voted_for is None and raft.leader_id is None)
    if not is_free:
        reason = RefusalReason.LEADER if raft.leader_id is not None else RefusalReason.VOTED
        return Refusal(reason, raft.leader_id or raft.voted_for or "")
    return _standing_refusal(raft, message)


def _standing_refusal(raft: Raft, message: PreVote | RequestVote) -> Refusal | None:
    if raft.is_disowned:
        return Refusal(RefusalReason.NO_VOTE)
    if not raft.is_up_to_date(message.last_log_index, message.last_log_term):
        return Refusal(RefusalReason.LOG, "", raft.log.last_index, raft.log.last_term)
    return None
