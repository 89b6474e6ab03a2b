"""Who may talk to whom, as a table, and what is remembered of those who did."""

from __future__ import annotations

import attrs
import pytest

from txraft._proto import raft_pb2
from txraft.codec import PROTOCOL_VERSION, Hello, decode_hello, encode_hello
from txraft.core.contact import Contact
from txraft.framing import HEADER_BYTES
from txraft.interfaces import Addresses, Identity
from txraft.net.handshake import MAX_HELLO_BYTES, MAX_STRANGERS, Registry, quoted, refusal_of

EPOCH = "blue.0.0000000b"
US = Identity(EPOCH, "s1", 11)
FOUNDER = Identity("blue", "s1", 11)
PASSIVE = Identity("", "s1", 11)
GOOD = Hello(PROTOCOL_VERSION, EPOCH, "s2", "s1", 22, "s2:8877", "s2:29998")
LOST = "'s2' has lost its data, or has another server's: remove it from the cluster and add it again"
WRONG_IN_EVERYTHING = Hello(9, "red", "s9", "s7", 99)


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({}, None),
        ({"cluster_id": ""}, None),
        ({"protocol_version": 2}, "'s2' speaks protocol version 2, 's1' speaks 1"),
        ({"protocol_version": 0}, "'s2' speaks protocol version 0, 's1' speaks 1"),
        (
            {"cluster_id": "red"},
            f"'s2' belongs to cluster 'red', 's1' to cluster '{EPOCH}': if one of them is to join the other, and "
            "nobody needs what it holds, give it an empty data directory, take `servers` out of its raft.conf, and add "
            "it",
        ),
        ({"receiver_id": "s3"}, "'s2' calls 's3', but this is 's1'"),
        ({"receiver_id": ""}, "'s2' calls '', but this is 's1'"),
        ({"server_id": "s1"}, "another server calls itself 's1'"),
        ({"server_id": ""}, "another server calls itself ''"),
        ({"server_id": "s9"}, None),
        ({"server_id": "s9", "cluster_id": ""}, "'s9' is no member of this cluster, as far as 's1' knows"),
        (
            {"server_id": "s9", "cluster_id": "blue"},
            "'s9' is no member of this cluster, as far as 's1' knows, and it does not know itself which cluster of "
            "that name it is of. If it was removed before it knew, it may be stopped; to make it a member, give it an "
            "empty data directory, take `servers` out of its raft.conf, and add it",
        ),
        ({"incarnation": 23}, None),
        ({"incarnation": 23, "cluster_id": "blue"}, LOST),
        ({"incarnation": 23, "cluster_id": ""}, LOST),
        (
            {"cluster_id": "blue.0.0000000c"},
            "'s2' belongs to cluster 'blue.0.0000000c', 's1' to cluster 'blue.0.0000000b', which are two of one name: "
            "one of them was founded anew, perhaps by a server that had lost its data; find out which has yours, then "
            "give the servers of the other empty data directories, take `servers` out of their raft.conf, and add them",
        ),
        ({"refusal": "no"}, None),
    ],
)
def test_a_hello_is_accepted_or_refused_with_a_sentence(changes: dict[str, object], refusal: str | None) -> None:
    """N11, N13; original 31"""
    assert refusal_of(attrs.evolve(GOOD, **changes), US, ("s2", "s3"), {"s2": 22}) == refusal


def test_the_first_thing_that_is_wrong_is_named() -> None:
    """A version that we do not speak may mean other things by the other fields."""
    hello, found = WRONG_IN_EVERYTHING, []
    for right in ({"protocol_version": 1}, {"cluster_id": ""}, {"receiver_id": "s1"}, {"server_id": "s2"}, {}):
        found.append(refusal_of(hello, US, ("s2",), {"s2": 22}) or "")
        hello = attrs.evolve(hello, **right)
    words = ["protocol version", "cluster", "calls", "no member", "lost its data"]
    assert [word for word, text in zip(words, found, strict=True) if word in text] == words


@pytest.mark.parametrize(
    ("cluster_id", "peers", "accepted"),
    [("blue", (), True), ("", (), False), ("blue", ("s3",), True), ("blue", ("s2",), True), ("", ("s2",), True)],
)
def test_a_passive_server_accepts_whoever_belongs_to_a_cluster(
    cluster_id: str, peers: tuple[str, ...], accepted: bool
) -> None:
    refusal = refusal_of(attrs.evolve(GOOD, cluster_id=cluster_id), PASSIVE, peers, {})
    assert (refusal is None) is accepted


def test_a_server_accepts_every_other_of_its_cluster_whether_it_has_heard_of_it_or_not() -> None:
    """M14: a voter that it has not been told about may need its vote."""
    assert refusal_of(GOOD, US, (), {}) is None
    assert refusal_of(GOOD, US, ("s3",), {}) is None


def test_the_first_contact_teaches_the_incarnation_and_removal_forgets_it() -> None:
    """original 25: a wiped disk is told from the server that had been there."""
    registry = registry_of("s2")
    wiped = attrs.evolve(GOOD, cluster_id="blue", incarnation=23)
    assert registry.refusal_of(wiped) is None
    registry.learn(GOOD)
    assert registry.refusal_of(GOOD) is None
    assert "lost its data" in (registry.refusal_of(wiped) or "")
    registry.set_peers([Contact("s2"), Contact("s3")])
    assert registry.refusal_of(wiped) is not None
    registry.set_peers([Contact("s3")])
    registry.set_peers([Contact("s2"), Contact("s3")])
    assert registry.refusal_of(wiped) is None


@pytest.mark.parametrize("before", [[], [Contact("s2", is_leaving=True)], [Contact("s2", "", GOOD.incarnation)]])
def test_what_is_known_of_a_server_ends_when_it_is_asked_in_again(before: list[Contact]) -> None:
    """M10: also if it has talked to us as a stranger meanwhile, or was still told that it is removed."""
    registry = registry_of("s3")
    registry.set_peers([*before, Contact("s3")])
    registry.learn(GOOD)
    wiped = attrs.evolve(GOOD, cluster_id="", incarnation=23)
    assert registry.refusal_of(wiped) is not None
    registry.set_peers([Contact("s2"), Contact("s3")])
    assert registry.refusal_of(attrs.evolve(wiped, cluster_id="blue")) is None
    assert registry.is_counted("s2", 23)


def test_addresses_are_those_of_the_last_hello() -> None:
    registry = registry_of("s2")
    assert registry.addresses("s2") == Addresses()
    registry.learn(GOOD)
    registry.learn(attrs.evolve(GOOD, client_address="s2:9999"))
    assert registry.addresses("s2") == Addresses("s2:9999", "s2:29998")


def test_a_passive_server_remembers_a_bounded_number_of_strangers_the_newest() -> None:
    """N03"""
    registry = registry_of("", us=PASSIVE)
    for number in range(MAX_STRANGERS + 5):
        registry.learn(attrs.evolve(GOOD, server_id=f"x{number}"))
    remembered = [number for number in range(MAX_STRANGERS + 5) if registry.addresses(f"x{number}") != Addresses()]
    assert remembered == list(range(5, MAX_STRANGERS + 5))


def test_own_id_is_no_peer() -> None:
    assert registry_of("s3 s1 s2").peers == ("s2", "s3")


def test_a_refusal_fits_into_a_hello_however_long_the_claims_are() -> None:
    """N01: the other side accepts no more than that before hands are shaken."""
    registry = registry_of("s2")
    for changes in ({"server_id": "\n" * 4000}, {"cluster_id": "é" * 4000}, {"receiver_id": "\x00" * 4000}):
        hello = attrs.evolve(GOOD, **changes)
        refusal = registry.refusal_of(hello)
        assert refusal is not None
        assert refusal.isprintable()
        answer = registry.hello_to(hello.server_id, refusal)
        assert len(answer) - HEADER_BYTES <= MAX_HELLO_BYTES
        assert decode_hello(answer[HEADER_BYTES:]).refusal == refusal


def test_quoted_text_is_short_and_printable() -> None:
    assert quoted("s2") == "'s2'"
    assert quoted("a\nb\x1b[2J\u202e") == r"'a\nb\x1b[2J\u202e'"
    assert quoted("x" * 1000) == "'" + "x" * 77 + "...'"


def test_fields_of_a_later_version_are_passed_over() -> None:
    """N13"""
    later = raft_pb2.AppendEntries(runs=[b"field 6 is repeated there"]).SerializeToString()
    unknown_field_100 = b"\xa2\x06" + bytes([len(later)]) + later
    assert decode_hello(encode_hello(GOOD) + unknown_field_100) == GOOD


def registry_of(peers: str, us: Identity = US) -> Registry:
    registry = Registry()
    registry.us = us
    registry.set_peers([Contact(peer) for peer in peers.split()])
    return registry


def test_who_was_not_the_member_of_its_name_and_has_been_taken_in_again_talks_to_founders_as_all_others_do() -> None:
    """M11. Two that have both lost their data must not; but it has what the others have, and may lead."""
    registry = Registry()
    registry.us = FOUNDER
    registry.set_peers([Contact("s2"), Contact("s3")])
    other_founder = attrs.evolve(GOOD, server_id="s3", cluster_id="blue")
    registry.learn_refusal(attrs.evolve(GOOD, refusal=LOST, lost_data=True))
    assert registry.refusal_of(other_founder) == "'s1' is not the member of its name, says 's2'"
    registry.us = US
    assert registry.refusal_of(other_founder) is None
