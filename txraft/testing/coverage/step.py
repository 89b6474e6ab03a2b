"""One message at one server, with what it found there and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from txraft.core.candidate import Candidate, PreCandidate
from txraft.core.leader import Leader
from txraft.core.messages import AppendEntriesResponse, Message
from txraft.core.progress import Progress, ReplicationState

if TYPE_CHECKING:
    from txraft.testing.coverage.watch import Watch


class ProgressBefore:
    """What a leader knew of the sender; `now` is what it knows by now."""

    __slots__ = ("confirmed_round", "is_probing", "match_index", "next_index", "now")

    def __init__(self, now: Progress) -> None:
        self.now = now
        self.match_index = now.match_index
        self.next_index = now.next_index
        self.confirmed_round = now.confirmed_round
        self.is_probing = now.state is ReplicationState.PROBE


class Step:
    """
    Made before the server has looked at `message`, and read when it has: `raft` is the server as it is then.

    `answers` is what it said meanwhile. `has_voted`: the sender's vote in this candidacy was known already.
    `progress` is None unless a leader gets an answer to its entries.
    """

    __slots__ = (
        "answers",
        "commit_index",
        "has_voted",
        "heard_leader",
        "last_index",
        "last_term",
        "leader_id",
        "membership_index",
        "message",
        "progress",
        "raft",
        "role",
        "sender",
        "term",
        "voted_for",
        "watch",
    )

    def __init__(self, watch: Watch, sender: str, message: Message) -> None:
        raft = watch.raft
        role, log = raft.role, raft.log
        self.watch = watch
        self.raft = raft
        self.sender = sender
        self.message = message
        self.role = role
        self.term = raft.term
        self.voted_for = raft.voted_for
        self.leader_id = role.leader_id
        self.last_index = log.last_index
        self.last_term = log.last_term
        self.commit_index = raft.commit_index
        self.membership_index = raft.memberships.current_index
        self.heard_leader = raft.hears_leader()
        self.has_voted = isinstance(role, PreCandidate | Candidate) and sender in role.votes
        self.progress: ProgressBefore | None = None
        if isinstance(role, Leader) and isinstance(message, AppendEntriesResponse) and message.term == raft.term:
            known = role.progress.get(sender)
            self.progress = ProgressBefore(known) if known is not None else None
        self.answers: list[Message] = []

    @property
    def has_raised_term(self) -> bool:
        """Whether the message's term was news. A candidate's own new term is not a message's."""
        return self.raft.term > self.term and not isinstance(self.raft.role, Candidate)

    @property
    def has_refused(self) -> bool:
        """Whether entries were refused because those before them are not here."""
        return any(isinstance(answer, AppendEntriesResponse) and answer.refused for answer in self.answers)
