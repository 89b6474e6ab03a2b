"""
Who is in the cluster: read from configuration entries of the log, in force when appended, undone by truncation.
"""

from __future__ import annotations

import json
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import dataclass

_LISTS = ("voters", "outgoing", "learners", "next_voters", "next_learners")
"""The fields of a membership that are lists of servers."""

_FACTS: dict[str, Callable[[object], bool]] = {
    "incarnations": lambda value: type(value) is int and value > 0,
    "addresses": lambda value: isinstance(value, str) and value != "",
}
"""The fields that say one thing each of some of those servers, and what such a thing is like."""


@dataclass(frozen=True, slots=True)
class Membership:
    """
    Voters and learners of one configuration, by server id, sorted.

    `outgoing` is empty except in a joint configuration, where it holds the old voters: then every decision needs a
    majority of `voters` and a majority of `outgoing` (thesis §4.3). Learners are replicated to and never counted.

    `next_voters` and `next_learners` are empty except while a change waits for new servers to catch up: then they say
    what it leads to, and those of them that are nothing else yet are like learners. See `txraft.core.change`.

    `incarnations` has (server id, number of its data directory) of the members for which that is known: no other data
    directory is that member. `addresses` has (server id, host:port) of those that are not reached at their id. Both
    are sorted.
    """

    cluster_id: str
    voters: tuple[str, ...]
    outgoing: tuple[str, ...] = ()
    learners: tuple[str, ...] = ()
    next_voters: tuple[str, ...] = ()
    next_learners: tuple[str, ...] = ()
    incarnations: tuple[tuple[str, int], ...] = ()
    addresses: tuple[tuple[str, str], ...] = ()

    @property
    def roles(self) -> tuple[tuple[str, ...], ...]:
        """Who is what; what is known of each is left out."""
        return tuple(getattr(self, name) for name in _LISTS)

    @property
    def is_changing(self) -> bool:
        """A change of the voters is on its way."""
        return bool(self.outgoing or self.next_voters)

    @property
    def wanted_voters(self) -> tuple[str, ...]:
        """The voters when that change is done."""
        return self.next_voters or self.voters

    @property
    def wanted_learners(self) -> tuple[str, ...]:
        """The learners when that change is done."""
        return self.next_learners if self.next_voters else self.learners

    @property
    def halves(self) -> tuple[tuple[str, ...], ...]:
        """The sets of voters that must each have a majority."""
        return (self.voters, self.outgoing) if self.outgoing else (self.voters,)

    @property
    def members(self) -> tuple[str, ...]:
        """Everybody that the log is replicated to, sorted."""
        return tuple(sorted(set().union(*self.roles)))

    def is_voter(self, server_id: str) -> bool:
        return server_id in self.voters or server_id in self.outgoing

    def incarnation(self, server_id: str) -> int:
        """The number of that member's data directory; 0 if it is not known."""
        return dict(self.incarnations).get(server_id, 0)

    def address(self, server_id: str) -> str:
        """Where that server is reached."""
        return dict(self.addresses).get(server_id, server_id)

    def encode(self) -> bytes:
        """The data of a configuration entry: the same bytes on every server for the same membership."""
        fields: dict[str, object] = {name: sorted(getattr(self, name)) for name in _LISTS}
        fields |= {name: dict(getattr(self, name)) for name in _FACTS}
        fields["cluster_id"] = self.cluster_id
        return json.dumps(fields, sort_keys=True, separators=(",", ":")).encode()

    @classmethod
    def decode(cls, data: bytes) -> Membership:
        """
        The membership in a configuration entry's data.

        :raises ValueError: it is not one that `encode` made.
        """
        try:
            fields = json.loads(data)
            lists = {name: tuple(fields[name]) for name in _LISTS}
            facts = {name: tuple(sorted(fields[name].items())) for name in _FACTS}
            membership = cls(fields["cluster_id"], **lists, **facts)
            is_text = all(isinstance(name, str) for name in (membership.cluster_id, *membership.members))
            is_known = all(is_one(value) for name, is_one in _FACTS.items() for _, value in facts[name])
            is_canonical = is_text and is_known and membership.encode() == data
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            raise ValueError(f"not a membership: {error!r}") from error
        if not is_canonical:
            raise ValueError("not a membership in its canonical form")
        return membership


NOBODY = Membership("", ())
"""In force where no configuration entry is: a passive server. It never campaigns and is not asked."""


class MembershipHistory:
    """Every membership of the log by index, so that truncation undoes what was in force on append."""

    def __init__(self, index: int = 0, membership: Membership = NOBODY) -> None:
        self._indexes = [index]
        self._memberships = [membership]

    @property
    def current(self) -> Membership:
        """In force: the newest in the log, committed or not (paper §6)."""
        return self._memberships[-1]

    @property
    def current_index(self) -> int:
        """Index of the entry that holds `current`; 0 if there is none."""
        return self._indexes[-1]

    def at(self, index: int) -> Membership:
        """What was in force when `index` was the last entry; before the oldest that is known, that one."""
        return self._memberships[max(0, bisect_right(self._indexes, index) - 1)]

    def index_at(self, index: int) -> int:
        """Index of the entry that holds what was in force when `index` was the last entry."""
        return self._indexes[max(0, bisect_right(self._indexes, index) - 1)]

    def since(self, index: int) -> list[Membership]:
        """What was in force when `index` was the last entry, and all that came after it."""
        return self._memberships[max(0, bisect_right(self._indexes, index) - 1) :]

    def append(self, index: int, membership: Membership) -> None:
        assert index > self._indexes[-1], (index, self._indexes[-1])
        self._indexes.append(index)
        self._memberships.append(membership)

    def compact(self, index: int) -> None:
        """Forget the memberships before the one that is in force at `index`."""
        gone = bisect_right(self._indexes, index) - 1
        if gone > 0:
            del self._indexes[:gone], self._memberships[:gone]

    def truncate(self, last_index: int) -> None:
        """Forget the memberships behind `last_index`."""
        keep = bisect_right(self._indexes, last_index)
        del self._indexes[keep:], self._memberships[keep:]
