"""Who a server is, beside its name: data directories and epochs, pinned in the log, looked at in every handshake."""

from __future__ import annotations

import dataclasses
import random

import pytest
from core_text import SETTINGS, make_log, membership, tick
from test_reconfiguration import decided, outcome

from txraft.core import cluster_id as ids
from txraft.core.change import Change, ChangeRefused, abandoned, begin, identified, joint, settled
from txraft.core.log import RUN_OVERHEAD_BYTES, EntryKind
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
from txraft.testing.cluster import Cluster
from txraft.testing.disk import FakeDisk

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


# -- whole clusters


def running_cluster(**options) -> Cluster:
    cluster = Cluster(**options)
    cluster.start()
    leader = cluster.elect()
    for _ in range(2):
        outcome(leader.propose(b"x"))
        cluster.run(1)
    return cluster


def pinned(cluster: Cluster) -> set[tuple[tuple[str, int], ...]]:
    return {node.raft.membership.incarnations for node in cluster.running()}


def wipe(cluster: Cluster, server_id: str) -> None:
    """Its disk is gone for good, and it starts with an empty one."""
    if cluster.servers[server_id].node is not None:
        cluster.crash(server_id)
    cluster.wipe(server_id)
    cluster.start(server_id)


def put_in_empty_disk(cluster: Cluster, server_id: str) -> None:
    """For a server that is not to be listened to."""
    cluster.put_in(server_id, FakeDisk(random.Random(7)))


def test_the_first_leader_writes_down_who_everybody_is_and_which_cluster_it_is():
    cluster = running_cluster()
    assert pinned(cluster) == {
        tuple((server_id, cluster.node(server_id).identity.incarnation) for server_id in cluster.ids)
    }
    [epoch] = {node.identity.cluster_id for node in cluster.running()}
    assert ids.has_epoch(epoch)
    for server_id in cluster.ids:
        cluster.crash(server_id, "none")
    cluster.start()
    assert {node.identity.cluster_id for node in cluster.running()} == {epoch}


def test_what_is_not_a_change_of_roles_holds_up_no_change():
    cluster = Cluster(seed=3, passive=1)
    cluster.start("s1", "s2", "s4")
    leader = cluster.elect()
    cluster.run(1)
    cluster.start("s3")
    assert cluster.run_until(lambda: leader.raft.commit_index < leader.raft.memberships.current_index, 5)
    assert decided(cluster, leader, Change(voters=("s4",))).voters == ("s1", "s2", "s3", "s4")


def test_a_wiped_voter_is_refused_also_by_servers_that_have_never_met_it():
    """M10, M11: what was acknowledged with its help must not be lost with its disk."""
    cluster = running_cluster(seed=4)
    leader = cluster.leader()
    wiped = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not leader)
    for server_id in cluster.ids:
        cluster.crash(server_id, "none")
    others = [server_id for server_id in cluster.ids if server_id != wiped]
    cluster.start(others[0])
    put_in_empty_disk(cluster, wiped)
    cluster.run(5)
    assert cluster.leader() is None, "one voter and an impostor are no quorum"
    cluster.start(others[1])
    cluster.elect()
    cluster.run(2)
    assert cluster.node(wiped).raft.commit_index == 0
    assert cluster.node(wiped).raft.role.name == "pre-candidate"


def test_a_wiped_voter_that_is_removed_and_added_is_pinned_anew():
    cluster = running_cluster(seed=5)
    leader = cluster.leader()
    wiped = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not leader)
    before = cluster.node(wiped).identity
    wipe(cluster, wiped)
    cluster.run(1)
    decided(cluster, leader, Change(removed=(wiped,)))
    membership = decided(cluster, leader, Change(voters=(wiped,)))
    now = cluster.node(wiped).identity
    assert membership.incarnation(wiped) == now.incarnation != before.incarnation
    cluster.run(1)
    assert (len(pinned(cluster)), cluster.servers[wiped].machine.commands) == (1, [b"x", b"x"])


def test_a_wiped_server_that_knows_no_cluster_says_why_it_is_refused_until_it_is_taken_in_again():
    cluster = running_cluster(seed=5, passive=1)
    leader = cluster.leader()
    decided(cluster, leader, Change(voters=("s4",)))
    wipe(cluster, "s4")
    told = "This server belongs to no cluster: its leader must be asked to add it. It was refused: 's"
    assert cluster.run_until(lambda: told in "".join(cluster.node("s4").status().waiting_for), 5)
    [sentence] = cluster.node("s4").status().waiting_for
    assert "'s4' has lost its data, or has another server's: remove it from the cluster and add it again" in sentence
    decided(cluster, leader, Change(removed=("s4",)))
    decided(cluster, leader, Change(voters=("s4",)))
    cluster.run(1)
    assert cluster.node("s4").status().waiting_for == ()


@pytest.mark.parametrize("waits_s", [0.0, 20.0])
def test_a_removed_server_that_was_there_again_before_it_was_wiped_is_added_as_a_new_one(waits_s):
    """M10: whoever leads has met the old one once more, as a stranger or on its way out."""
    cluster = running_cluster(seed=9)
    leader = cluster.leader()
    old = next(server_id for server_id in cluster.ids if cluster.node(server_id) is not leader)
    decided(cluster, leader, Change(removed=(old,)))
    cluster.run(waits_s)
    decided(cluster, leader, Change(learners=("s9",)))
    cluster.crash(old)
    cluster.start(old)
    cluster.run(0.01)
    cluster.crash(old)
    cluster.wipe(old)
    cluster.servers[old].is_renewed = True
    cluster.start(old)
    assert old in decided(cluster, leader, Change(voters=(old,))).voters
    assert cluster.run_until(lambda: len(cluster.servers[old].machine.commands) == 2, 5)


def test_a_server_that_was_away_follows_one_that_was_wiped_and_added_again():
    """It knows it by another data directory: its answers count for nothing there, its leadership does."""
    cluster = running_cluster(seed=6, size=5)
    leader = cluster.leader()
    wiped, away, *_ = [server_id for server_id in cluster.ids if cluster.node(server_id) is not leader]
    cluster.crash(away, "all")
    wipe(cluster, wiped)
    decided(cluster, leader, Change(removed=(wiped,)))
    decided(cluster, leader, Change(voters=(wiped,)))
    found = outcome(leader.transfer_leadership(wiped))
    assert cluster.run_until(lambda: bool(found), 5)
    assert cluster.leader() is cluster.node(wiped)
    cluster.start(away)
    assert cluster.run_until(lambda: cluster.node(away).raft.leader_id == wiped, 5)
    assert cluster.run_until(lambda: len(pinned(cluster)) == 1, 5)


def test_a_new_server_catches_up_from_a_leader_whom_memberships_of_long_ago_know_by_another_disk():
    """M11. The first message that it gets holds who everybody was at first, and not who they are now."""
    cluster = running_cluster(seed=6, passive=1, max_append_bytes=5 * RUN_OVERHEAD_BYTES)
    for _ in range(10):
        outcome(cluster.leader().propose(b"x"))
        cluster.run(0.05)
    for replaced in ("s1", "s2", "s3"):
        if cluster.leader() is cluster.node(replaced):
            found = outcome(cluster.leader().transfer_leadership("s1" if replaced != "s1" else "s2"))
            assert cluster.run_until(lambda found=found: bool(found), 5)
        wipe(cluster, replaced)
        leader = cluster.elect()
        assert replaced not in decided(cluster, leader, Change(removed=(replaced,))).voters
        assert replaced in decided(cluster, leader, Change(voters=(replaced,))).voters
    membership = decided(cluster, cluster.elect(), Change(voters=("s4",)))
    assert getattr(membership, "voters", membership) == ("s1", "s2", "s3", "s4")


def test_two_wiped_founders_do_not_make_an_empty_cluster_when_the_third_can_tell_them():
    cluster = running_cluster(seed=7)
    for server_id in ("s2", "s3"):
        cluster.crash(server_id)
    for server_id in ("s2", "s3"):
        put_in_empty_disk(cluster, server_id)
    cluster.run(10)
    assert cluster.leader() is None
    assert [len(cluster.servers[server_id].machine.commands) for server_id in cluster.ids] == [2, 0, 0]


def test_a_member_that_moved_is_reached_at_its_new_address_and_stays_what_it_was():
    """M19."""
    cluster = running_cluster(seed=8, passive=1)
    leader = cluster.leader()
    decided(cluster, leader, Change(learners=("s4",)))
    cluster.run(1)
    cluster.network.addresses["s4"] = "elsewhere"
    outcome(leader.propose(b"unheard"))
    cluster.run(1)
    assert len(cluster.servers["s4"].machine.commands) == 2
    membership = decided(cluster, leader, Change(addresses={"s4": "elsewhere"}))
    assert (membership.learners, membership.address("s4")) == (("s4",), "elsewhere")
    assert cluster.run_until(lambda: len(cluster.servers["s4"].machine.commands) == 3, 5)
