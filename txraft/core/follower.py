"""A server that waits for a leader, and repeats what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from txraft.core.candidate import pre_vote, who_may_know
from txraft.core.errors import InvariantBroken
from txraft.core.messages import (
    AppendEntries,
    AppendEntriesResponse,
    PreVote,
    PreVoteResponse,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from txraft.core.role import Role

if TYPE_CHECKING:
    from txraft.core.raft import Raft


class Follower(Role):
    """
    Also a passive server, a learner, and a voter for which `Raft.may_campaign` is False: they take entries, and never
    campaign. Those that are members ask who leads.
    """

    name: ClassVar[str] = "follower"

    def __init__(self, raft: Raft, leader_id: str | None) -> None:
        super().__init__(raft)
        self.leader_id = leader_id
        self.elapsed_ticks = 0
        """Ticks since the leader was heard from, or a vote was given."""
        self.timeout_ticks = raft.election_timeout()
        self.proved_index = 0
        """Up to here this leader has shown our logs to be equal; behind it may be a deposed leader's tail."""
        self.round = 0
        """The leader's newest confirmation round."""
        self._answered_index = 0
        self._must_answer = False

    def tick(self) -> None:
        self.elapsed_ticks += 1
        if self.elapsed_ticks < self.timeout_ticks:
            return
        if self.raft.may_campaign:
            self.raft.become_pre_candidate()
        else:
            self._ask_who_leads()

    def _ask_who_leads(self) -> None:
        """
        Whoever may not stand waits for a leader; and if its log says that it is a member, it asks, as one that leads
        without it tells it so then.

        It asks with a pre-vote, which changes nothing anywhere, and counts no answer. Thesis §4.2.3.
        """
        raft = self.raft
        self.restart_timer()
        if raft.server_id not in raft.membership.members:
            return
        if self.leader_id is not None:
            raft.last_election = None
            raft.become_follower(raft.term, None)
        for server_id in who_may_know(raft):
            raft.send(server_id, pre_vote(raft))

    def on_pre_vote_response(self, sender: str, message: PreVoteResponse) -> None:
        """It says whether somebody leads."""
        self.refusals.pop(sender, None)
        if message.refusal is not None:
            self.refusals[sender] = message.refusal

    def restart_timer(self) -> None:
        self.elapsed_ticks = 0
        self.timeout_ticks = self.raft.election_timeout()

    def on_append_entries(self, sender: str, message: AppendEntries) -> None:
        """Paper, Figure 2, AppendEntries receiver."""
        raft = self.raft
        if self.leader_id not in (None, sender):
            raise InvariantBroken(f"two leaders in term {raft.term}: {self.leader_id} and {sender}")
        self.leader_id = sender
        self.elapsed_ticks = 0
        raft.has_news = True
        self._note_round(message.round)
        if not raft.log.matches(message.prev_log_index, message.prev_log_term):
            self._refuse(sender, message)
            return
        changed = raft.merge(message.entries)
        # Claim only what this message proved: our tail beyond it may be a deposed leader's.
        proved_index = message.entries.last_index
        self.proved_index = max(self.proved_index, proved_index)
        raft.commit_to(min(message.leader_commit, proved_index))
        # What is new is answered once, when it is durable; all else at once.
        self._must_answer |= not changed

    def prove(self, index: int) -> None:
        """Our logs are equal up to `index`, which is committed: the leader must learn that we have this."""
        self.proved_index = max(self.proved_index, index)
        self._must_answer = self.raft.has_news = True

    def on_timeout_now(self, sender: str, message: TimeoutNow) -> None:
        """The leader, and nobody else, may ask for an election; of a server that can win one."""
        if sender == self.leader_id and self.raft.may_campaign:
            self.raft.become_candidate(told_by_leader=True)

    def _note_round(self, round_: int) -> None:
        if round_ > self.round:
            self.round = round_
            self._must_answer = True

    def _refuse(self, leader_id: str, message: AppendEntries) -> None:
        raft = self.raft
        hint_index, hint_term = raft.log.conflict_hint(message.prev_log_index, message.prev_log_term)
        answer = AppendEntriesResponse(
            raft.term,
            self.round,
            self._match_index,
            refused=True,
            prev_log_index=message.prev_log_index,
            hint_index=hint_index,
            hint_term=hint_term,
        )
        raft.send(leader_id, answer)

    @property
    def _match_index(self) -> int:
        # What a snapshot holds is committed, so this leader has it, too.
        return min(max(self.proved_index, self.raft.log.base_index), self.raft.log.durable_index)

    def prepare(self) -> None:
        """One cumulative answer for all that was received since the last one, or has become durable."""
        match_index = self._match_index
        if self.leader_id is None or not (self._must_answer or match_index > self._answered_index):
            return
        self._must_answer = False
        self._answered_index = match_index
        self.raft.send(self.leader_id, AppendEntriesResponse(self.raft.term, self.round, match_index))

    HANDLERS = {
        PreVote: Role.on_pre_vote,
        PreVoteResponse: on_pre_vote_response,
        RequestVote: Role.on_request_vote,
        RequestVoteResponse: Role.ignore,
        AppendEntries: on_append_entries,
        AppendEntriesResponse: Role.ignore,
        TimeoutNow: on_timeout_now,
    }
