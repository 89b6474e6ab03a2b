"""
What must hold of memberships that follow each other in one log, whoever wrote them. Part of `invariants`.

Written from the paper (§6) and the thesis (§4), and from nothing in `change` or `reconfiguration`, which it judges.
"""

from __future__ import annotations

from collections.abc import Mapping

from txraft.core.cluster_id import recoveries
from txraft.core.log import Log
from txraft.core.membership import NOBODY, Membership

Configurations = list[tuple[int, Membership]]
"""The configuration entries of one log: index and membership, ascending. The first is what there is without any."""


def no_configurations() -> Configurations:
    """Those of an empty log."""
    return [(0, NOBODY)]


def broken_by(before: Membership, after: Membership) -> str | None:
    """The rule that is broken if `after` is the next membership behind `before`; None if they may follow each other."""
    # Then an operator has said that the old members are gone.
    is_recovery = recoveries(after.cluster_id) > recoveries(before.cluster_id)
    is_change = not is_recovery and after.roles != before.roles
    known = {server_id for server_id, _ in (*after.incarnations, *after.addresses)}
    stay = {*before.members} & {*after.members}
    return _first_broken(
        {
            # Added again it would be taken for the one that left.
            "something is known of a server that is no member": known <= {*after.members},
            "two memberships decide apart": is_recovery or _always_meet(before, after),
            "a membership is put in force that is so already": is_recovery or after != before,
            "a member that has moved is something else by that": not is_change
            or all(before.address(server_id) == after.address(server_id) for server_id in stay),
            "a change is begun in the midst of another": not is_change or _brings_on(before, after),
        }
    )


def _first_broken(rules: Mapping[str, bool]) -> str | None:
    return next((rule for rule, holds in rules.items() if not holds), None)


def _always_meet(one: Membership, other: Membership) -> bool:
    """Whether any two quorums, one of each, have a server in common. Where nobody votes, nobody decides."""
    pairs = [(half, other_half) for half in one.halves for other_half in other.halves]
    return not one.voters or any(len(a) // 2 + len(b) // 2 + 2 > len({*a, *b}) for a, b in pairs)


def _brings_on(before: Membership, after: Membership) -> bool:
    """Whether a change that `before` is in the midst of goes on, is given up, or is over. Thesis §4.2.1, §4.3."""
    is_same = (after.voters, after.learners) == (before.voters, before.learners)
    if before.outgoing:
        return is_same and not after.is_changing
    if before.next_voters:
        is_given_up = is_same and not after.is_changing
        has_come = (after.voters, after.learners) == (before.next_voters, before.next_learners)
        return is_given_up or (has_come and not after.next_voters)
    return True


def broken_by_leader(log: Log, commit_index: int, term: int, configurations: Configurations) -> str | None:
    """
    The rule that is broken if the newest configuration is one that the leader of `term` has appended to its log itself.

    What is only written down of the members, without a change of what they are, may be so at any time.
    """
    (_, after), older = configurations[-1], configurations[:-1]
    index = older[-1][0]
    for at, membership in reversed(older):
        if membership.roles != older[-1][1].roles:
            break
        index = at
    is_change = after.roles != older[-1][1].roles
    return _first_broken(
        {
            # Ongaro, "bug in single-server membership changes", 2015.
            "a change before the leader has committed anything": not is_change or log.term(commit_index) == term,
            "a change before the last one is committed": not is_change or index <= commit_index,
        }
    )


def new_voters(configurations: Configurations) -> dict[str, int]:
    """
    By server id, of those that the newest configuration makes voters: the index of the entry that has asked it in.

    0 if there is none: nobody becomes a voter before it has caught up. Thesis §4.2.1.
    """
    (_, after), older = configurations[-1], configurations[:-1]
    before = older[-1][1]
    asked_at = dict.fromkeys(sorted({*after.voters} - {*before.voters, *before.outgoing}), 0)
    for server_id in asked_at:
        for index, membership in reversed(older):
            if server_id not in membership.next_voters:
                break
            asked_at[server_id] = index
    return asked_at
