"""
Changes of the membership as values: an old membership and what is asked, in; the memberships on the way, out.

Whoever will be a voter and is none yet first catches up while nothing counts it (`prepared`); then old and new voters
decide together (`joint`), for any change of voters, however small; then the new ones alone (`settled`). Each is an
entry of the log, so that a new leader finds out from the log alone how far a change had come. Thesis §4.2.1, §4.3.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

from txraft.core.membership import Membership


class ChangeRefused(Exception):
    """The membership cannot be changed like this, or not now; the text says why. Nothing was done."""


class ChangeUnderWay(ChangeRefused):
    """Not now: something else must end first."""


@dataclass(frozen=True, slots=True)
class Change:
    """
    What is asked: servers that shall be voters, learners, or no members at all, by server id, whatever they are now.

    Servers that are not named stay what they are.
    """

    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()


def begin(membership: Membership, change: Change) -> Membership | None:
    """
    The first membership on the way; None if all that is asked is so already, or is being made so.

    :raises ChangeRefused: another change is under way, a server is asked to be two things, or no voter would be left.
    """
    named = [*change.voters, *change.learners, *change.removed]
    if not named or "" in named:
        raise ChangeRefused("no server is named")
    twice = sorted({server_id for server_id in named if named.count(server_id) > 1})
    if twice:
        raise ChangeRefused(f"{', '.join(twice)}: named more than once")
    voters = _sorted({*membership.wanted_voters, *change.voters} - {*change.learners, *change.removed})
    learners = _sorted({*membership.wanted_learners, *change.learners} - {*change.voters, *change.removed})
    if (voters, learners) == (membership.wanted_voters, membership.wanted_learners):
        return None
    if membership.is_changing:
        raise ChangeUnderWay("another change of the membership is under way")
    if not voters:
        raise ChangeRefused("no voter would be left")
    wanted = dataclasses.replace(membership, next_voters=voters, next_learners=learners)
    return wanted if newcomers(wanted) else joint(wanted)


def newcomers(membership: Membership) -> tuple[str, ...]:
    """Those who have to catch up before they are counted."""
    return _sorted({*membership.next_voters} - {*membership.voters})


def joint(membership: Membership) -> Membership:
    """Both the old and the new voters decide; if these are the same, just the new membership."""
    assert membership.next_voters and not membership.outgoing, membership
    is_same = membership.next_voters == membership.voters
    return Membership(
        membership.cluster_id,
        voters=membership.next_voters,
        outgoing=() if is_same else membership.voters,
        learners=membership.next_learners,
    )


def settled(membership: Membership) -> Membership:
    """The new voters alone."""
    assert membership.outgoing, membership
    return dataclasses.replace(membership, outgoing=())


def abandoned(membership: Membership) -> Membership:
    """As it was before those who could not catch up were asked in."""
    assert membership.next_voters and not membership.outgoing, membership
    return dataclasses.replace(membership, next_voters=(), next_learners=())


def _sorted(server_ids: set[str]) -> tuple[str, ...]:
    return tuple(sorted(server_ids))
