"""
What servers say to each other, one class per RPC of the paper.

A message is never changed after it was sent. It does not say who sent it: that is known from the connection.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from txraft.core.log import LogSlice


@dataclass(slots=True)
class HardState:
    """What must be durable before any answer that depends on it: `term`, and the vote in it (None: not voted)."""

    term: int = 0
    voted_for: str | None = None


@dataclass(slots=True)
class PreVote:
    """Would you vote for me in `term`? Changes nothing at the receiver. Thesis §9.6."""

    term: int
    round: int
    last_log_index: int
    last_log_term: int


class RefusalReason(IntEnum):
    """Why a vote is refused; the numbers are those on the wire, where UNKNOWN stands for those of later versions."""

    UNKNOWN = 0
    LEADER = 1
    VOTED = 2
    LOG = 3
    NO_VOTE = 4


@dataclass(frozen=True, slots=True)
class Refusal:
    """
    Why a vote is refused, for people: it decides nothing.

    `server_id`: with LEADER, who leads as far as the voter knows; with VOTED, who has its vote in this term.
    `last_log_index`, `last_log_term`: with LOG, where the voter's log ends, which is further than the sender's.
    NO_VOTE: the voter has lost its data, so it has none.
    """

    reason: RefusalReason
    server_id: str = ""
    last_log_index: int = 0
    last_log_term: int = 0


@dataclass(slots=True)
class PreVoteResponse:
    """
    `term` is the one asked for if `granted`, else the sender's current term. `round` is the request's.

    `refusal`: None also if the sender's term is all there is to say.
    """

    term: int
    round: int
    granted: bool
    refusal: Refusal | None = None


@dataclass(slots=True)
class RequestVote:
    """Paper, Figure 2. `told_by_leader`: the leader hands over, so a server that hears it may vote. Thesis §4.2.3."""

    term: int
    last_log_index: int
    last_log_term: int
    told_by_leader: bool = False


@dataclass(slots=True)
class RequestVoteResponse:
    """Paper, Figure 2. A refusal may carry a higher term, and then has no `refusal`."""

    term: int
    granted: bool
    refusal: Refusal | None = None


@dataclass(slots=True)
class AppendEntries:
    """Paper, Figure 2; a heartbeat if `entries` is empty. `round` counts the leader's confirmation rounds."""

    term: int
    prev_log_index: int
    prev_log_term: int
    leader_commit: int
    round: int
    entries: LogSlice


@dataclass(slots=True)
class AppendEntriesResponse:
    """
    `match_index`: durable at the sender and proved equal to the leader's log in this term; 0 if nothing is.

    `refused`: the entry before the request's was missing; then `prev_log_index` is the request's, and the logs cannot
    agree after `hint_index`, at which the sender has term `hint_term`.
    """

    term: int
    round: int
    match_index: int
    refused: bool = False
    prev_log_index: int = 0
    hint_index: int = 0
    hint_term: int = 0


@dataclass(slots=True)
class TimeoutNow:
    """From the leader of `term`, which hands over to the receiver: stand for election now. Thesis §3.10."""

    term: int


Message = (
    PreVote | PreVoteResponse | RequestVote | RequestVoteResponse | AppendEntries | AppendEntriesResponse | TimeoutNow
)

ANSWERS = (PreVoteResponse, RequestVoteResponse, AppendEntriesResponse)
"""What is counted, towards a quorum."""
