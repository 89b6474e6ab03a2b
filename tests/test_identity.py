"""Who a server is, beside its name: data directories and epochs, pinned in the log, looked at in every handshake."""

from __future__ import annotations

import dataclasses
import random

import pytest
from core_text import SETTINGS, make_log, membership, tick

from txraft.core import cluster_id as ids
from txraft.core.change import Change, ChangeRefused, abandoned, begin, identified, joint, settled
from txraft.core.log import EntryKind
from txraft.core.membership import Membership
from txraft.core.messages import (
    HardState,
    PreVote,
    PreVoteResponse,
    Refusal,
    RefusalReason,
    RequestVote,
    RequestVoteResponse,
    TimeoutNow,
)
from txraft.core.raft import Raft

KNOWN = {"1": 11, "2": 22, "3": 33, "4": 44}


# -- cluster ids


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("", "", True),
        ("", "blue", True),
        ("blue", "blue", True),
        ("blue", "red", False),
        ("blue", "blue.0.0000000a", True),
        ("red", "blue.0.0000000a", False),
        ("blue.0.0000000a", "blue.0.0000000a", True),
        ("blue.0.0000000a", "blue.0.0000000b", False),
        ("blue.0.0000000a", "blue.1.0000000a", False),
        ("a.b", "a.b.0.0000000a", True),
        ("a.0", "a.0.0.0000000a", True),
        # What only looks like an epoch is part of the name.
        ("blue.0.xyz", "blue", False),
    ],
)
def test_servers_of_one_name_are_of_one_cluster_unless_their_epochs_differ(one, other, expected):
    """M16."""
    assert ids.may_be_one(one, other) is ids.may_be_one(other, one) is expected


def test_epochs_follow_each_other():
    first = ids.first_epoch("blue", 2**70 + 5)
    second = ids.next_epoch(first, 7)
    assert (first, second, ids.next_epoch(second, 8)) == ("blue.0.00000005", "blue.1.00000007", "blue.2.00000008")
    assert [ids.recoveries(one) for one in ("blue", first, second)] == [0, 0, 1]
    assert {ids.name_of(one) for one in ("blue", first, second)} == {"blue"}
    assert ids.next_epoch("blue", 7) == second


# -- what a membership says of its members


def pins(one: Membership) -> str:
    return " ".join(f"{server_id}={number}" for server_id, number in one.incarnations)


def test_a_membership_with_facts_comes_back_as_it_was():
    one = Membership("c", ("1", "2"), incarnations=(("1", 2**64 - 1), ("2", 5)), addresses=(("2", "host:1"),))
    assert Membership.decode(one.encode()) == one
    assert (one.incarnation("1"), one.incarnation("3"), one.address("2"), one.address("1")) == (
        2**64 - 1,
        0,
        "host:1",
        "1",
    )


@pytest.mark.parametrize(
    ("fact", "wrong"),
    [
        (b'"2":5', b'"2":0'),
        (b'"2":5', b'"2":-5'),
        (b'"2":5', b'"2":true'),
        (b'"2":5', b'"2":"5"'),
        (b'"2":5', b'"2":5.0'),
        (b'"2":5', b'"2":[5]'),
        (b'"host:1"', b'""'),
        (b'"host:1"', b"1"),
        (b'"incarnations":{"2":5},', b""),
    ],
)
def test_facts_that_no_server_wrote_are_refused(fact, wrong):
    one = Membership("c", ("1", "2"), incarnations=(("2", 5),), addresses=(("2", "host:1"),))
    assert fact in one.encode()
    with pytest.raises(ValueError, match="not a membership"):
        Membership.decode(one.encode().replace(fact, wrong))


@pytest.mark.parametrize(
    ("old", "pinned", "expected"),
    [
        ("1,2", {}, "1=11 2=22"),
        ("1,2/3", {}, "1=11 2=22 3=33"),
        ("1<2", {}, "1=11 2=22"),
        # What is pinned stays, whoever answers there now.
        ("1,2", {"2": 99}, "1=11 2=99"),
        # Whoever is no member any more is forgotten: added again, it is a new server.
        ("1", {"2": 99}, "1=11"),
        ("1,9", {}, "1=11"),
    ],
)
def test_members_are_pinned_as_soon_as_they_are_known(old, pinned, expected):
    """M10, M11."""
    one = dataclasses.replace(membership(old), incarnations=tuple(pinned.items()))
    assert pins(identified(one, KNOWN)) == expected


def test_a_newcomer_is_pinned_when_it_begins_to_count_and_unpinned_when_it_is_gone():
    catching_up = identified(begin(identified(membership("1,2"), KNOWN), Change(("4",), (), ("2",))), KNOWN)
    assert pins(catching_up) == "1=11 2=22"
    assert pins(identified(abandoned(catching_up), KNOWN)) == "1=11 2=22"
    both = identified(joint(catching_up), KNOWN)
    assert pins(both) == "1=11 2=22 4=44"
    assert pins(identified(settled(both), KNOWN)) == "1=11 4=44"


# -- addresses


def moved(old: str, known: dict[str, str], change: Change) -> dict[str, str] | None:
    one = begin(dataclasses.replace(membership(old), addresses=tuple(sorted(known.items()))), change)
    if one is None:
        return None
    while one.is_changing:
        one = identified(joint(one) if one.next_voters else settled(one), {})
    return dict(one.addresses)


@pytest.mark.parametrize(
    ("old", "known", "change", "expected"),
    [
        ("1,2", {}, Change(addresses={"2": "host:2"}), {"2": "host:2"}),
        ("1,2", {"2": "host:2"}, Change(addresses={"2": "host:3"}), {"2": "host:3"}),
        ("1,2", {"2": "host:2"}, Change(addresses={"2": "host:2"}), None),
        ("1,2", {"2": "host:2"}, Change(addresses={"2": "2"}), {}),
        ("1,2", {"2": "host:2"}, Change(voters=("3",)), {"2": "host:2"}),
        ("1,2", {"2": "host:2"}, Change(removed=("2",)), {}),
        ("1,2", {}, Change(voters=("3",), addresses={"3": "host:3"}), {"3": "host:3"}),
        ("1,2", {}, Change(learners=("3",), addresses={"3": "host:3"}), {"3": "host:3"}),
    ],
)
def test_an_address_is_changed_and_nothing_else(old, known, change, expected):
    """M19."""
    assert moved(old, known, change) == expected


def test_a_learner_that_has_moved_stays_a_learner_at_once():
    """M19."""
    one = begin(membership("1,2/3"), Change(addresses={"3": "host:3"}))
    assert one.roles == membership("1,2/3").roles


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (Change(addresses={"9": "host:9"}), "9: no member"),
        (Change(removed=("2",), addresses={"2": "host:2"}), "2: no member"),
        (Change(addresses={"2": ""}), "nothing is no address of its own"),
        (Change(addresses={"2": "1"}), "2: 1 is no address of its own"),
        (Change(addresses={"2": "h:1", "1": "h:1"}), "no address of its own"),
        (Change(voters=("3",), addresses={"2": "host:2"}), "2: an address is changed on its own"),
    ],
)
def test_an_address_that_is_not_clear_is_refused(change, why):
    with pytest.raises(ChangeRefused, match=why):
        begin(membership("1,2"), change)


def test_a_new_server_is_not_reached_where_a_member_is():
    """M19: its id may be where another one has moved to."""
    moved = dataclasses.replace(membership("1,2"), addresses=(("2", "3"),))
    with pytest.raises(ChangeRefused, match="3: 3 is no address of its own"):
        begin(moved, Change(voters=("3",)))
    assert begin(moved, Change(voters=("3",), addresses={"3": "host:3"})) is not None
    assert begin(moved, Change(voters=("2",))) is None


# -- who may vote and campaign


def server_with(pinned: int, own: int, is_founder: bool) -> Raft:
    raft = Raft("1", SETTINGS, random.Random(1), HardState(1, None), make_log(""))
    one = dataclasses.replace(membership("1,2,3"), incarnations=(("1", pinned),) if pinned else ())
    raft.append(EntryKind.CONFIGURATION, [one.encode()], term=1, time_ms=0)
    raft.incarnation, raft.is_founder = own, is_founder
    return raft


@pytest.mark.parametrize(
    ("pinned", "own", "is_founder", "may_campaign", "may_vote"),
    [
        (0, 0, True, True, True),  # a core on its own, without identities
        (0, 7, True, True, True),  # a founder, before the first leader has written who is who
        (7, 7, True, True, True),
        (7, 7, False, True, True),
        # Asked in later: until the log says that it is the one, it may be reading memberships of another of its name.
        (0, 7, False, False, True),
        (8, 7, False, False, False),
        (8, 7, True, False, False),
    ],
)
def test_only_who_is_pinned_campaigns_and_who_is_another_does_not_even_vote(
    pinned, own, is_founder, may_campaign, may_vote
):
    """M11, M14."""
    raft = server_with(pinned, own, is_founder)
    tick(raft, 2 * SETTINGS.max_election_ticks)
    assert (raft.role.name != "follower") is may_campaign
    raft = server_with(pinned, own, is_founder)
    raft.step("2", PreVote(9, 1, 99, 9))
    raft.step("2", RequestVote(9, 99, 9))
    answers = []
    for _ in range(3):
        ready = raft.ready()
        answers += [message for _, message in ready.messages if isinstance(message, PreVoteResponse)]
        answers += [message for _, message in ready.messages if isinstance(message, RequestVoteResponse)]
        if ready.persist:
            raft.persisted()
    assert [answer.granted for answer in answers] == [may_vote, may_vote]
    told = None if may_vote else Refusal(RefusalReason.NO_VOTE)
    assert [answer.refusal for answer in answers] == [told, told]


def test_who_is_another_does_not_take_over():
    raft = server_with(pinned=8, own=7, is_founder=False)
    raft.become_follower(1, "2")
    raft.step("2", TimeoutNow(1))
    assert raft.role.name == "follower"
