"""
Changes of the membership as values: an old membership and what is asked, in; the memberships on the way, out.

Whoever will be a voter and is none yet first catches up while nothing counts it (`prepared`); then old and new voters
decide together (`joint`), for any change of voters, however small; then the new ones alone (`settled`). Each is an
entry of the log, so that a new leader finds out from the log alone how far a change had come. Thesis §4.2.1, §4.3.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field

from txraft.core.membership import Membership


class ChangeRefused(Exception):
    """The membership cannot be changed like this, or not now; the text says why. Nothing was done."""


class ChangeUnderWay(ChangeRefused):
    """Not now: something else must end first."""


class TooEarly(ChangeUnderWay):
    """Not yet, but soon: what a leader begins with, or what the last change has left, must be committed first."""


@dataclass(frozen=True, slots=True)
class Change:
    """
    What is asked: servers that shall be voters, learners, or no members at all, by server id, whatever they are now.

    Servers that are not named stay what they are. `addresses` says where servers are reached, new ones or members that
    have moved; whoever is at its id again is given that. A member that has moved stays what it is.
    """

    voters: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    removed: tuple[str, ...] = ()
    addresses: Mapping[str, str] = field(default_factory=dict)


def begin(membership: Membership, change: Change) -> Membership | None:
    """
    The first membership on the way; None if all that is asked is so already, or is being made so.

    :raises ChangeRefused: another change is under way, a server is asked to be two things, no voter would be left, or
        it is not clear whose address is meant.
    """
    named = [*change.voters, *change.learners, *change.removed]
    if not (named or change.addresses) or "" in named:
        raise ChangeRefused("no server is named")
    twice = sorted({server_id for server_id in named if named.count(server_id) > 1})
    if twice:
        raise ChangeRefused(f"{', '.join(twice)}: named more than once")
    voters = _sorted({*membership.wanted_voters, *change.voters} - {*change.learners, *change.removed})
    learners = _sorted({*membership.wanted_learners, *change.learners} - {*change.voters, *change.removed})
    addresses = _new_addresses(membership, change, {*voters, *learners})
    is_same = (voters, learners) == (membership.wanted_voters, membership.wanted_learners)
    if is_same and addresses == membership.addresses:
        return None
    if membership.is_changing:
        raise ChangeUnderWay("another change of the membership is under way")
    if is_same:
        return dataclasses.replace(membership, addresses=addresses)
    if not voters:
        raise ChangeRefused("no voter would be left")
    wanted = dataclasses.replace(membership, next_voters=voters, next_learners=learners, addresses=addresses)
    moved = [
        server_id for server_id in membership.members if wanted.address(server_id) != membership.address(server_id)
    ]
    if moved:
        # Else a change that is given up would have left a trace.
        raise ChangeRefused(f"{', '.join(moved)}: an address is changed on its own, not together with who is a member")
    return wanted if newcomers(wanted) else joint(wanted)


def _new_addresses(membership: Membership, change: Change, wanted: set[str]) -> tuple[tuple[str, str], ...]:
    """The addresses after the change, of those that have another one than their id."""
    strangers = sorted(change.addresses.keys() - wanted)
    if strangers:
        raise ChangeRefused(f"{', '.join(strangers)}: no member, so where it is reached is not asked")
    addresses = {**dict(membership.addresses), **change.addresses}
    # One that comes without an address is reached at its id, which another one may have moved to.
    asked = {server_id: addresses.get(server_id, server_id) for server_id in (*change.voters, *change.learners)}
    for server_id, address in sorted({**asked, **change.addresses}.items()):
        if not address or address in {addresses.get(other, other) for other in wanted - {server_id}}:
            raise ChangeRefused(f"{server_id}: {address or 'nothing'} is no address of its own")
    return tuple(sorted((server_id, address) for server_id, address in addresses.items() if server_id != address))


def identified(membership: Membership, incarnations: Mapping[str, int]) -> Membership:
    """
    The same members, with what is known of each; what is known of servers that are no members is forgotten.

    Whoever has yet to catch up is left out: it may be given an empty disk once more.
    """
    lasting = {*membership.voters, *membership.outgoing, *membership.learners}
    known = {server_id: incarnations[server_id] for server_id in lasting if incarnations.get(server_id)}
    known |= {server_id: number for server_id, number in membership.incarnations if server_id in lasting}
    addresses = [(server_id, address) for server_id, address in membership.addresses if server_id in membership.members]
    return dataclasses.replace(membership, incarnations=tuple(sorted(known.items())), addresses=tuple(addresses))


def newcomers(membership: Membership) -> tuple[str, ...]:
    """Those who have to catch up before they are counted."""
    return _sorted({*membership.next_voters} - {*membership.voters})


def joint(membership: Membership) -> Membership:
    """Both the old and the new voters decide; if these are the same, just the new membership."""
    assert membership.next_voters and not membership.outgoing, membership
    is_same = membership.next_voters == membership.voters
    return dataclasses.replace(
        membership,
        voters=membership.next_voters,
        outgoing=() if is_same else membership.voters,
        learners=membership.next_learners,
        next_voters=(),
        next_learners=(),
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
