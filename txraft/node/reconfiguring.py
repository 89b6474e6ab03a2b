"""Who waits for a change of the membership, or for another leader."""

from __future__ import annotations

from collections.abc import Callable

import attrs
from twisted.internet.defer import Deferred, fail

from txraft.core import change as core_change
from txraft.core.change import Change
from txraft.core.leader import Leader
from txraft.core.membership import Membership
from txraft.core.raft import Raft
from txraft.errors import (
    ChangeFailed,
    ChangeRefused,
    ChangeUnderWay,
    HandOverFailed,
    NotLeader,
    OutcomeUnknown,
    Stopped,
)

Verdict = Callable[[Raft], Membership | Exception | None]
"""What has become of it: a result, a failure, or None as long as nobody knows."""


Abandoned = Callable[[str, Stopped], Exception]
"""What is answered if this server ends before the verdict, and why it does."""


@attrs.frozen
class _Waiter:
    deferred: Deferred[Membership]
    verdict: Verdict
    abandoned: Abandoned


class Reconfiguring:
    """The Deferreds of changes and hand-overs; each fires exactly once."""

    def __init__(self, link_status: Callable[[str], str]) -> None:
        """@param link_status: "connected" with that server, or why not."""
        self._link_status = link_status
        self._waiters: list[_Waiter] = []

    def change(self, raft: Raft, leader: Leader, change: Change) -> Deferred[Membership]:
        """Ask a leader for a change, and wait until it is decided; first, if it must be, until it can be begun."""

        def can_begin(raft: Raft) -> Membership | Exception | None:
            if raft.role is not leader:
                return NotLeader(raft.leader_id)
            try:
                leader.reconfiguration.first_step(change)
            except core_change.TooEarly:
                return None
            except core_change.ChangeRefused as error:
                return refusal(error)
            return raft.membership

        # What became of the last one is no longer to be seen when the next one has begun.
        self.note(raft)
        if can_begin(raft) is None:
            return self._wait(can_begin, lambda _, stopped: stopped).addCallback(
                lambda _: self._change(raft, leader, change)
            )
        return self._change(raft, leader, change)

    def _change(self, raft: Raft, leader: Leader, change: Change) -> Deferred[Membership]:
        try:
            leader.reconfiguration.begin(change)
        except core_change.ChangeRefused as error:
            return fail(refusal(error))
        wanted = (raft.membership.wanted_voters, raft.membership.wanted_learners)
        index = raft.memberships.current_index

        def verdict(raft: Raft) -> Membership | Exception | None:
            found = raft.membership
            if raft.commit_index >= raft.memberships.current_index and not found.is_changing:
                is_moved = all(found.address(server_id) == address for server_id, address in change.addresses.items())
                if (found.voters, found.learners) == wanted and is_moved:
                    return found
                if raft.role is leader:
                    return ChangeFailed(self._why_given_up(leader))
            if raft.role is not leader:
                return OutcomeUnknown(index, "the leadership ended before the change was made")
            return None

        return self._wait(verdict, lambda why, _: OutcomeUnknown(index, why))

    def _why_given_up(self, leader: Leader) -> str:
        """With why there is no link to who was waited for, if there is none."""
        failure, server_id = leader.reconfiguration.failure, leader.reconfiguration.given_up
        if failure is None:
            return "another change was made in its place"
        link = self._link_status(server_id)
        return failure if link == "connected" else f"{failure} ({link})"

    def hand_over(self, leader: Leader, server_id: str, is_over: Callable[[], bool]) -> Deferred[Membership]:
        """Ask a leader to let `server_id` lead, and wait until it does; `is_over` says when to wait no longer."""
        try:
            leader.reconfiguration.hand_over(server_id)
        except core_change.ChangeRefused as error:
            return fail(refusal(error))

        def verdict(raft: Raft) -> Membership | Exception | None:
            if raft.leader_id == server_id:
                return raft.membership
            if raft.role is leader:
                is_going_on = leader.reconfiguration.hand_over_to == server_id
                return None if is_going_on else ChangeFailed(_not_taken_over(raft, leader, server_id))
            if raft.leader_id is not None:
                return HandOverFailed(f"{raft.leader_id} leads now, not {server_id}")
            return HandOverFailed(f"no leader is known, nor that {server_id} is it") if is_over() else None

        return self._wait(verdict, lambda why, _: HandOverFailed(f"{why}, and has not heard that {server_id} leads"))

    def _wait(self, verdict: Verdict, abandoned: Abandoned) -> Deferred[Membership]:
        waiter = _Waiter(Deferred(), verdict, abandoned)
        self._waiters.append(waiter)
        return waiter.deferred

    def note(self, raft: Raft) -> None:
        """Answer those about whom something is decided."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            verdict = waiter.verdict(raft)
            if verdict is None:
                self._waiters.append(waiter)
            elif isinstance(verdict, Exception):
                waiter.deferred.errback(verdict)
            else:
                waiter.deferred.callback(verdict)

    def end(self, why: str, stopped: Stopped) -> None:
        """This server does nothing more. Others may go on with what was begun."""
        waiters, self._waiters = self._waiters, []
        for waiter in waiters:
            waiter.deferred.errback(waiter.abandoned(why, stopped))


def refusal(error: core_change.ChangeRefused) -> ChangeRefused:
    """What the core refused, as its callers are told."""
    is_now = isinstance(error, core_change.ChangeUnderWay)
    return ChangeUnderWay(str(error)) if is_now else ChangeRefused(str(error))


def _not_taken_over(raft: Raft, leader: Leader, server_id: str) -> str:
    """That a server did not take over, and what its leader knows of why."""
    sentence, progress = f"{server_id} did not take over in time", leader.progress.get(server_id)
    if progress is None or progress.silent_ticks >= raft.settings.max_election_ticks:
        return f"{sentence}: nothing is heard from it"
    lack = raft.log.last_index - progress.match_index
    return f"{sentence}: it lacks {lack} entr{'y' if lack == 1 else 'ies'}" if lack else sentence
