"""What a majority of each half of a membership agrees on. Pure sums, no state. Paper §5.2, §5.3; thesis §4.3."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from enum import Enum

from txraft.core.membership import Membership


class VoteResult(Enum):
    PENDING = "pending"
    WON = "won"
    LOST = "lost"


def committed_index(membership: Membership, reached: Callable[[str], int]) -> int:
    """
    The highest number that a majority of every half has reached; 0 without voters.

    `reached` answers for each voter: its match index, or its newest confirmed round.
    """
    return min((_majority_reached(half, reached) for half in membership.halves), default=0)


def _majority_reached(voters: tuple[str, ...], reached: Callable[[str], int]) -> int:
    if not voters:
        return 0
    return sorted(map(reached, voters), reverse=True)[len(voters) // 2]


def vote_result(membership: Membership, votes: Mapping[str, bool]) -> VoteResult:
    """
    Whether `votes` (server id to granted) decide an election. Votes of non-voters do not count.

    Won: a majority of every half granted. Lost: some half cannot reach a majority any more, or there are no voters.
    """
    results = [_half_result(half, votes) for half in membership.halves]
    if VoteResult.LOST in results:
        return VoteResult.LOST
    return VoteResult.PENDING if VoteResult.PENDING in results else VoteResult.WON


def is_quorum(membership: Membership, server_ids: Iterable[str]) -> bool:
    """Whether these servers decide without any other."""
    return vote_result(membership, dict.fromkeys(server_ids, True)) is VoteResult.WON


def _half_result(voters: tuple[str, ...], votes: Mapping[str, bool]) -> VoteResult:
    needed = len(voters) // 2 + 1
    granted = sum(votes.get(voter, False) for voter in voters)
    refused = sum(not votes.get(voter, True) for voter in voters)
    if granted >= needed:
        return VoteResult.WON
    return VoteResult.LOST if len(voters) - refused < needed else VoteResult.PENDING
