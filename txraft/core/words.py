"""What a server may say, checked before it is sent. The simulation asks of every message; see `invariants`."""

from __future__ import annotations

from txraft.core.candidate import Candidate, PreCandidate
from txraft.core.invariants import require
from txraft.core.leader import Leader
from txraft.core.messages import (
    AppendEntriesResponse,
    Message,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from txraft.core.raft import Raft


def check_sent(raft: Raft, receiver: str, message: Message) -> None:
    """Nothing that a server says depends on what its disk does not have."""
    durable, facts = raft.durable_state, (raft.server_id, message)
    if isinstance(message, PreVote | PreVoteResponse):
        return
    require(message.term <= durable.term, "a term that is not durable is told", *facts)
    if isinstance(message, RequestVoteResponse) and message.term == durable.term:
        has_vote = durable.voted_for == receiver
        require(has_vote or not message.granted, "a vote that is not durable is given", *facts)
        # Whoever was elected in this term instead may have given us entries that the receiver lacks.
        is_denied = has_vote and not message.granted and raft.log.last_term < message.term == raft.term
        require(not is_denied, "a vote that was given is denied", *facts)
    if isinstance(message, RequestVote):
        require(durable.voted_for == raft.server_id, "a candidate asks before its own vote is durable", *facts)
    if isinstance(message, AppendEntriesResponse):
        require(message.match_index <= raft.log.durable_index, "what is not durable is acknowledged", *facts)
    if isinstance(message, TimeoutNow) and not isinstance(raft.role, Leader):
        # Who hands over because it was asked to leads until the other one does. Thesis §4.2.2.
        is_committed = raft.commit_index >= raft.memberships.current_index
        require(is_committed, "a removed leader leaves before that is committed", *facts)


class Words:
    """What one process says, each message checked before it is sent."""

    def __init__(self, raft: Raft) -> None:
        self._raft = raft
        self._candidacy: PreCandidate | Candidate | None = None
        self._asked: dict[str, int] = {}

    def check(self, receiver: str, message: Message) -> None:
        """:raises InvariantBroken: it must not be sent, or something that is not sent must have been."""
        check_sent(self._raft, receiver, message)
        role = self._raft.role
        if isinstance(role, PreCandidate | Candidate) and isinstance(message, PreVote | RequestVote):
            if role is not self._candidacy:
                self._check_repeated()
                self._candidacy, self._asked = role, {}
            self._asked[receiver] = role.elapsed_ticks

    def _check_repeated(self) -> None:
        """In the last candidacy, whoever did not answer was asked again and again. Paper, §5.5."""
        last = self._candidacy
        for receiver, asked_at in self._asked.items():
            silent_ticks = last.elapsed_ticks - asked_at if last is not None and receiver not in last.votes else 0
            is_repeated = silent_ticks <= self._raft.settings.vote_retry_ticks
            require(is_repeated, "a request for a vote is not repeated", self._raft.server_id, receiver, silent_ticks)
