"""The situations of `catalogue` that are about changes of the membership and of who leads. See `situations`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from txraft.core.leader import Leader
from txraft.core.messages import PreVote, RequestVote, RequestVoteResponse, TimeoutNow
from txraft.testing.coverage.step import Step

if TYPE_CHECKING:
    from txraft.testing.coverage.watch import Watch


def of_step(step: Step) -> Iterator[str]:
    """A message that was dealt with."""
    raft, membership = step.raft, step.raft.membership
    if raft.memberships.current_index < step.membership_index:
        yield "M05"
    is_new = raft.memberships.current_index > step.membership_index
    if is_new and membership.outgoing and len({*membership.voters} ^ {*membership.outgoing}) > 1:
        yield "M03"
    is_stranger = step.sender not in membership.members
    match step.message:
        case PreVote() if isinstance(step.role, Leader) and is_stranger:
            yield "M09"
        case RequestVote() if membership.members and (is_stranger or not membership.is_voter(raft.server_id)):
            if any(isinstance(answer, RequestVoteResponse) and answer.granted for answer in step.answers):
                yield "M14"
        case TimeoutNow() if step.message.term == step.term and raft.role is step.role:
            yield "E16"
        case _:
            pass


def of_start(watch: Watch) -> Iterator[str]:
    """A process has recovered what its disk holds."""
    memberships, base_index = watch.raft.memberships, watch.raft.log.base_index
    if memberships.current_index > max(1, watch.past.commit_index):
        yield "M04"
    if 1 < memberships.current_index <= base_index:
        yield "M06"


def of_leadership(watch: Watch) -> Iterator[str]:
    """A candidate is elected."""
    if watch.raft.membership.outgoing:
        yield "M15"
