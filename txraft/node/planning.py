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

    `unproven` are those who are no members yet, and those who would be reached elsewhere: by server id, the address.
    `refusal` says why the change would be refused now, and is empty if it would not.
    """

    before: Constitution
    after: Constitution
    unproven: dict[str, str]
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
    wanted = {server_id: server_id for server_id in (*change.voters, *change.learners)} | dict(change.addresses)
    unproven = {
        server_id: address
        for server_id, address in sorted(wanted.items())
        if server_id not in membership.members
        or change.addresses.get(server_id) not in (None, membership.address(server_id))
    }
    return ChangePlan(before, after, unproven, why)


def constitution(voters: tuple[str, ...], learners: tuple[str, ...]) -> Constitution:
    """Of these voters a majority decides."""
    quorum = len(voters) // 2 + 1
    return Constitution(voters, learners, quorum, len(voters) - quorum)
