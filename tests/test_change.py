"""The pure part of membership changes: an old membership and a change, in; the way to the new one, out."""

from __future__ import annotations

import itertools

import pytest
from core_text import change, membership, show_membership

from txraft.core.change import ChangeRefused, abandoned, begin, joint, newcomers, settled
from txraft.core.membership import Membership


def way(old: str, asked: str) -> list[str]:
    """Every membership from the first that is appended to the last, if all newcomers catch up."""
    one = begin(membership(old), change(asked))
    steps = [show_membership(one) if one else "as it is"]
    while one is not None and one.is_changing:
        one = joint(one) if one.next_voters else settled(one)
        steps.append(show_membership(one))
    return steps


@pytest.mark.parametrize(
    ("old", "asked", "expected"),
    [
        # A new voter catches up first.
        ("1", "+2", ["1->1,2", "1,2<1", "1,2"]),
        ("1", "+2 +3", ["1->1,2,3", "1,2,3<1", "1,2,3"]),
        # Nobody has to catch up to leave, one or many.
        ("1,2,3", "-3", ["1,2<1,2,3", "1,2"]),
        ("1,2,3,4,5", "-4 -5", ["1,2,3<1,2,3,4,5", "1,2,3"]),
        # Replacing is one change.
        ("1,2,3", "-3 +4", ["1,2,3->1,2,4", "1,2,4<1,2,3", "1,2,4"]),
        ("1,2,3", "-1 -2 -3 +4 +5 +6", ["1,2,3->4,5,6", "4,5,6<1,2,3", "4,5,6"]),
        # Learners alone change no quorum, hence nothing is joint.
        ("1,2,3", "~4", ["1,2,3/4"]),
        ("1,2,3/4", "-4", ["1,2,3"]),
        # A learner is promoted; it stays a learner while it catches up.
        ("1,2,3/4", "+4", ["1,2,3/4->1,2,3,4", "1,2,3,4<1,2,3", "1,2,3,4"]),
        # A voter is demoted: while the old voters count, it is still one of them.
        ("1,2,3", "~3", ["1,2<1,2,3/3", "1,2/3"]),
        # Promotion and demotion in one joint change.
        ("1,2,3/4", "+4 ~3", ["1,2,3/4->1,2,4/3", "1,2,4<1,2,3/3", "1,2,4/3"]),
        # Asking for what holds.
        ("1,2,3", "+3", ["as it is"]),
        ("1,2,3", "-4", ["as it is"]),
        ("1,2,3/4", "~4 +1 -5", ["as it is"]),
    ],
)
def test_every_change_of_voters_is_joint(old, asked, expected):
    """M03, M13, M14, M19."""
    assert way(old, asked) == expected


@pytest.mark.parametrize(
    ("old", "asked", "why"),
    [
        ("1", "-1", "no voter would be left"),
        ("1,2,3", "-1 -2 -3", "no voter would be left"),
        ("1,2,3", "~1 ~2 ~3", "no voter would be left"),
        ("1/2", "-1", "no voter would be left"),
        ("1,2,3", "+4 -4", "4: named more than once"),
        ("1,2,3", "+4 +4 ~5 -5", "4, 5: named more than once"),
        ("1,2,3", "", "no server is named"),
        ("1,2,3", "+", "no server is named"),
        ("1,2<1,2,3", "+4", "another change of the membership is under way"),
        ("1,2<1,2,3", "+3", "another change of the membership is under way"),
    ],
)
def test_what_cannot_be_is_refused(old, asked, why):
    """M02, M08."""
    with pytest.raises(ChangeRefused, match=why):
        begin(membership(old), change(asked))


def test_what_is_being_done_is_not_refused_and_not_begun_again():
    """M20: a client that asks again waits for the same."""
    catching_up = begin(membership("1,2,3"), change("+4 -3"))
    assert begin(catching_up, change("+4 -3")) is None
    assert begin(catching_up, change("+4")) is None
    assert begin(joint(catching_up), change("-3")) is None
    with pytest.raises(ChangeRefused, match="another change"):
        begin(catching_up, change("+5"))
    with pytest.raises(ChangeRefused, match="another change"):
        begin(catching_up, change("-4"))


@pytest.mark.parametrize("old", ["1,2,3", "1,2,3/4"])
def test_a_change_that_is_given_up_leaves_no_trace(old):
    """M13."""
    one = begin(membership(old), change("+4 +5 -3"))
    assert newcomers(one) == ("4", "5")
    assert abandoned(one) == membership(old)


def test_who_catches_up_is_replicated_to_and_counts_for_nothing():
    one = begin(membership("1,2,3"), change("+4 ~5"))
    assert one.members == ("1", "2", "3", "4", "5")
    assert one.halves == (("1", "2", "3"),)
    assert not one.is_voter("4")


def test_voters_that_follow_each_other_always_have_a_quorum_in_common():
    """M03: whatever is asked of three servers that may be anything, no two steps can decide without each other."""
    servers = ["1", "2", "3", "4"]
    checked = 0
    for signs in itertools.product("+~- ", repeat=len(servers)):
        asked = " ".join(sign + server for sign, server in zip(signs, servers, strict=True) if sign != " ")
        for old in ("1", "1,2", "1,2,3", "1,2,3/4", "1,3/2"):
            try:
                one = begin(membership(old), change(asked))
            except ChangeRefused:
                continue
            before = membership(old)
            while one is not None:
                assert_quorums_meet(before, one)
                checked += 1
                if not one.is_changing:
                    break
                before, one = one, joint(one) if one.next_voters else settled(one)
    assert checked > 300


def assert_quorums_meet(one: Membership, other: Membership) -> None:
    for quorum in quorums(one):
        for other_quorum in quorums(other):
            assert quorum & other_quorum, (one, other, quorum, other_quorum)


def quorums(one: Membership) -> list[set[str]]:
    """All sets of servers that are a majority of each half."""
    voters = sorted({*one.voters, *one.outgoing})
    subsets = itertools.chain.from_iterable(
        itertools.combinations(voters, count) for count in range(1, len(voters) + 1)
    )
    return [
        set(subset) for subset in subsets if all(len(set(subset) & set(half)) > len(half) // 2 for half in one.halves)
    ]
