"""What a change of the membership would lead to, without making it."""

from __future__ import annotations

import attrs

from txraft.core import change as core_change
from txraft.core.change import Change
from txraft.core.leader import Leader
from txraft.node.reconfiguring import refusal


@attrs.frozen
class Constitution:
    """Who decides. `quorum` voters must be there; with `failures_survived` of them gone the others still go on."""

    voters: tuple[str, ...]
    learners: tuple[str, ...]
    quorum: int
    failures_survived: int


@attrs.frozen
class ChangePlan:
    """
    `before` and `after` a change; the same if all that is asked is so already, or if it is refused.

    `newcomers` are no members yet; `refusal` says why the change would be refused now, and is empty if it would not.
    """

    before: Constitution
    after: Constitution
    newcomers: tuple[str, ...]
    refusal: str


def plan_change(leader: Leader, change: Change) -> ChangePlan:
    """What `leader` would do with that change now."""
    membership, why = leader.raft.membership, ""
    before = constitution(membership.voters, membership.learners)
    try:
        step = leader.reconfiguration.first_step(change)
    except core_change.ChangeRefused as error:
        step, why = None, str(refusal(error))
    after = before if step is None else constitution(step.wanted_voters, step.wanted_learners)
    newcomers = sorted({*change.voters, *change.learners} - {*membership.members})
    return ChangePlan(before, after, tuple(newcomers), why)


def constitution(voters: tuple[str, ...], learners: tuple[str, ...]) -> Constitution:
    """Of these voters a majority decides."""
    quorum = len(voters) // 2 + 1
    return Constitution(voters, learners, quorum, len(voters) - quorum)
