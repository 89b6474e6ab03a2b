"""A server that asks to be leader: first whether it would win (PreVote), then for votes in a new term."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from txraft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVote,
    PreVoteResponse,
    Refusal,
    RefusalReason,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from txraft.core.quorum import VoteResult, vote_result
from txraft.core.role import Role

if TYPE_CHECKING:
    from txraft.core.raft import Raft


class _Asking(Role):
    """What both candidacies share: votes as a set of ids, repeated requests, and an end after a timeout."""

    def __init__(self, raft: Raft) -> None:
        super().__init__(raft)
        self.votes: dict[str, bool] = {}
        self.elapsed_ticks = 0
        self.timeout_ticks = raft.election_timeout()

    def request(self) -> PreVote | RequestVote:
        """What to ask of the others."""
        raise NotImplementedError

    def won(self) -> None:
        raise NotImplementedError

    def asked(self) -> list[str]:
        """Whom to ask."""
        return other_voters(self.raft)

    def ask(self) -> None:
        """Ask all who have not answered yet."""
        for server_id in self.asked():
            if server_id not in self.votes:
                self.raft.send(server_id, self.request())

    def tick(self) -> None:
        self.elapsed_ticks += 1
        if self.elapsed_ticks >= self.timeout_ticks:
            self.raft.become_pre_candidate()
        elif self.elapsed_ticks % self.raft.settings.vote_retry_ticks == 0:
            self.ask()

    def count(self, sender: str, granted: bool, refusal: Refusal | None = None) -> None:
        # A vote that was given stays: a duplicate cannot add to it, nor a late refusal take it away. But a refusal may
        # have answered a request of an earlier term, and says nothing once there is a vote.
        self.votes[sender] = granted or self.votes.get(sender, False)
        if refusal is not None:
            self.refusals[sender] = refusal
        result = vote_result(self.raft.membership, self.votes)
        if result is VoteResult.WON:
            self.won()
        elif result is VoteResult.LOST:
            self.raft.become_follower(self.raft.term, None)

    def on_append_entries(self, sender: str, message: AppendEntries) -> None:
        """Somebody has been elected in this term."""
        self.raft.become_follower(message.term, sender)
        self.raft.step(sender, message)


class PreCandidate(_Asking):
    """Asks whether it would win, so that a server that cannot win raises nobody's term. Thesis §9.6."""

    name: ClassVar[str] = "pre-candidate"

    def begin(self) -> None:
        self.ask()
        self.count(self.raft.server_id, granted=True)

    def request(self) -> PreVote:
        return pre_vote(self.raft)

    def asked(self) -> list[str]:
        """And who leads, as others say, if that is no member: its answer does not count."""
        return who_may_know(self.raft)

    def won(self) -> None:
        self.raft.become_candidate()

    def on_pre_vote_response(self, sender: str, message: PreVoteResponse) -> None:
        if message.round == self.raft.pre_vote_round:
            self.count(sender, message.granted, message.refusal)

    HANDLERS = {
        PreVote: Role.on_pre_vote,
        PreVoteResponse: on_pre_vote_response,
        RequestVote: Role.on_request_vote,
        RequestVoteResponse: Role.ignore,
        AppendEntries: _Asking.on_append_entries,
        AppendEntriesResponse: Role.ignore,
        TimeoutNow: Role.ignore,
    }


class Candidate(_Asking):
    """Paper §5.2. Its own vote counts like any other: once it is durable."""

    name: ClassVar[str] = "candidate"

    def __init__(self, raft: Raft, told_by_leader: bool) -> None:
        super().__init__(raft)
        self._told_by_leader = told_by_leader

    def begin(self) -> None:
        self.ask()
        self.raft.send(self.raft.server_id, RequestVoteResponse(self.raft.term, granted=True))

    def tick(self) -> None:
        # While the own vote is on its way to the disk, a new term would only wait for the next write: for ever, if a
        # write takes longer than a timeout.
        if self.raft.server_id in self.votes:
            super().tick()

    def request(self) -> RequestVote:
        raft = self.raft
        return RequestVote(raft.term, raft.log.last_index, raft.log.last_term, self._told_by_leader)

    def won(self) -> None:
        self.raft.become_leader()

    def on_request_vote_response(self, sender: str, message: RequestVoteResponse) -> None:
        self.count(sender, message.granted, message.refusal)

    HANDLERS = {
        PreVote: Role.on_pre_vote,
        PreVoteResponse: Role.ignore,
        RequestVote: Role.on_request_vote,
        RequestVoteResponse: on_request_vote_response,
        AppendEntries: _Asking.on_append_entries,
        AppendEntriesResponse: Role.ignore,
        TimeoutNow: Role.ignore,
    }


def other_voters(raft: Raft) -> list[str]:
    """Whose votes count, besides the own one."""
    membership = raft.membership
    return [other for other in membership.members if other != raft.server_id and membership.is_voter(other)]


def who_may_know(raft: Raft) -> list[str]:
    """
    Whom to ask by a server that hears no leader: the other voters; and who leads, as they say, if that is no member,
    because it tells those who were removed before it came.
    """
    return [*other_voters(raft), *strangers_said_to_lead(raft)]


def pre_vote(raft: Raft) -> PreVote:
    """Whether it would get a vote; and, to a leader, that it is there and hears none."""
    return PreVote(raft.term + 1, raft.pre_vote_round, raft.log.last_index, raft.log.last_term)


def strangers_said_to_lead(raft: Raft) -> tuple[str, ...]:
    """Who leads, as those say that refused a vote, and is no member as far as `raft` knows; while it has no leader."""
    if raft.leader_id is not None:
        return ()
    roles = (raft.role, raft.last_election)
    refusals = [refusal for role in roles if role is not None for refusal in role.refusals.values()]
    leaders = {refusal.server_id for refusal in refusals if refusal.reason is RefusalReason.LEADER}
    return tuple(sorted(leaders - {"", raft.server_id, *raft.membership.members}))
