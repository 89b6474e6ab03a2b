"""When gathered proposals become a batch."""

from __future__ import annotations

from txraft.node.waiters import GATHER_TURNS, LARGE_BATCH, Proposals
from txraft.testing.cluster import Cluster


def gathered(count: int) -> Proposals:
    proposals = Proposals()
    for _ in range(count):
        proposals.gather(b"x")
    return proposals


def test_a_lone_proposal_is_due_at_once():
    assert gathered(1).is_due(is_writing=False)


def test_one_clients_commands_are_due_at_once():
    proposals = Proposals()
    proposals.gather_many([b"x"] * (LARGE_BATCH - 1))
    assert proposals.is_due(is_writing=False)


def test_a_batch_that_grew_waits_for_a_turn_that_brings_nothing():
    proposals = gathered(2)
    assert not proposals.is_due(is_writing=False)
    proposals.gather(b"x")
    assert not proposals.is_due(is_writing=False)
    assert proposals.is_due(is_writing=False)


def test_a_batch_waits_for_a_few_turns_only():
    proposals = gathered(2)
    waits = 0
    while not proposals.is_due(is_writing=False):
        waits += 1
        proposals.gather(b"x")
    assert waits == GATHER_TURNS - 1


def test_a_small_batch_waits_for_the_end_of_a_write_and_a_large_one_does_not():
    proposals = gathered(LARGE_BATCH - 1)
    assert not proposals.is_due(is_writing=True)
    assert not proposals.is_due(is_writing=True)
    proposals.gather(b"x")
    assert proposals.is_due(is_writing=True)


def test_each_batch_begins_to_wait_anew():
    proposals = gathered(2)
    assert not proposals.is_due(is_writing=False)
    proposals.take_gathered()
    proposals.appended(1, term=1)
    proposals.gather(b"x")
    assert proposals.is_due(is_writing=False)


def test_what_arrives_during_a_write_is_one_message_to_each_follower():
    cluster = Cluster(seed=1)
    cluster.start()
    leader = cluster.elect()
    cluster.run(1)
    cluster.servers[leader.settings.server_id].disk_seconds = lambda: 0.02
    leader.propose(b"first")
    cluster.run(0.001)
    cluster.network.frames.clear()
    results: list[int] = []
    for _ in range(10):
        leader.propose(b"x").addCallback(results.append)
        cluster.run(0.001)
    assert cluster.run_until(lambda: len(results) == 10, 1)
    sent = [n for (_, _, name), n in cluster.network.frames.items() if name == "AppendEntries"]
    # That message and no other, but for the heartbeats of the time.
    heartbeats = -(-0.06 // (leader.settings.heartbeat_rate / 1000))
    assert max(sent) <= 1 + heartbeats
