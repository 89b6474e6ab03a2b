"""Whole clusters in memory: links that are dead for good, leaders that are cut off or stalled, power that is lost."""

from __future__ import annotations

import itertools
import random

import pytest

from txraft.errors import NotLeader, OutcomeUnknown, Refusal
from txraft.testing.cluster import Cluster


def has_settled(cluster: Cluster) -> bool:
    rafts = [node.raft for node in cluster.running()]
    last = max(raft.log.last_index for raft in rafts)
    return all(raft.applied_index == last for raft in rafts)


@pytest.mark.parametrize("pattern", range(64))
def test_with_any_links_dead_a_connected_majority_has_a_leader_and_commits(pattern):
    """E14: all directed links of three servers, cut for good. A majority in which each hears each must work."""
    cluster = Cluster(seed=pattern)
    links = [(a, b) for a in cluster.ids for b in cluster.ids if a != b]
    cut = {link for bit, link in enumerate(links) if pattern >> bit & 1}
    cluster.start()
    cluster.elect()
    for link in cut:
        cluster.network.cut(*link)
    pairs = [(a, b) for a in cluster.ids for b in cluster.ids if a < b]
    is_possible = any((a, b) not in cut and (b, a) not in cut for a, b in pairs)
    cluster.run(10)
    commits = [commit_something(cluster) for _ in range(5)]
    assert any(commits) is is_possible


@pytest.mark.parametrize("part", range(20))
def test_with_any_links_of_five_dead_a_connected_majority_commits(part):
    """E14: a sample of what can be cut for good, a majority spared in two of three."""
    kinds = [run_pattern(number) for number in range(part * 10, part * 10 + 10)]
    assert sum(kinds) >= 4, "a sample without connected majorities would show nothing"


def run_pattern(number: int) -> bool:
    """Whether the pattern leaves three servers of which each hears each; then they must commit, and soon."""
    rng = random.Random(number)
    cluster = Cluster(seed=number, size=5)
    links = [(a, b) for a in cluster.ids for b in cluster.ids if a != b]
    cluster.start()
    cluster.elect()
    kept = set(rng.sample(cluster.ids, 3)) if number % 3 else set()
    share = rng.uniform(0.1, 0.9)
    cut = {(a, b) for a, b in links if not {a, b} <= kept and rng.random() < share}
    for link in cut:
        cluster.network.cut(*link)
    cliques = itertools.combinations(cluster.ids, 3)
    is_possible = any(all((a, b) not in cut for a, b in itertools.permutations(clique, 2)) for clique in cliques)
    # Whoever led may lead on for a while, and commit nothing.
    cluster.run(0.6)
    longest_election_s, commits = 0.3, False
    deadline = cluster.clock.now + 20 * longest_election_s
    while not commits and cluster.clock.now < deadline:
        commits = commit_something(cluster)
    assert commits or not is_possible, (number, sorted(cut))
    return is_possible


def commit_something(cluster: Cluster) -> bool:
    done: list[object] = []
    leader = cluster.leader()
    if leader is not None:
        leader.propose(b"x").addCallbacks(done.append, lambda failure: failure.trap(Refusal))
    cluster.run(0.3)
    return bool(done)


def test_a_leader_cut_off_commits_nothing_and_says_so():
    """E15, C09, C12: its proposals end as unknown, and another's entries take their place."""
    cluster = Cluster(seed=3)
    cluster.start()
    old = cluster.elect()
    outcomes: list[object] = []
    others = [server_id for server_id in cluster.ids if server_id != old.settings.server_id]
    cluster.network.partition([old.settings.server_id], others)
    old.propose(b"lost").addErrback(lambda failure: outcomes.append(failure.value))
    old.read(b"").addErrback(lambda failure: outcomes.append(failure.value))
    assert cluster.run_until(lambda: len(outcomes) == 2, 5)
    assert {type(error) for error in outcomes} == {OutcomeUnknown, NotLeader}
    assert cluster.run_until(lambda: cluster.leader() is not old and cluster.leader() is not None, 5)
    new = cluster.elect()
    assert new is not old
    kept: list[object] = []
    new.propose(b"kept").addCallback(kept.append)
    cluster.network.heal()
    assert cluster.run_until(lambda: has_settled(cluster) and bool(kept), 10)
    assert all(server.machine.commands == [b"kept"] for server in cluster.servers.values())


def test_a_leader_whose_disk_never_answers_gives_way():
    """D14."""
    cluster = Cluster(seed=5)
    cluster.start()
    old = cluster.elect()
    cluster.servers[old.settings.server_id].disk_seconds = lambda: 1e9
    old.propose(b"x").addErrback(lambda failure: failure.trap(OutcomeUnknown))
    assert cluster.run_until(lambda: cluster.leader() not in (None, old), 20)
    assert "disk" in " ".join(old.status().waiting_for)


def test_all_crash_at_once_and_nothing_acknowledged_is_lost():
    """R13, DUR: power is lost everywhere right after the acknowledgements."""
    for seed in range(30):
        cluster = Cluster(seed=seed)
        cluster.start()
        leader = cluster.elect()
        acknowledged: list[int] = []
        for number in range(20):
            leader.propose(b"%d" % number).addCallbacks(acknowledged.append, lambda failure: None)
        cluster.run(cluster.rng.uniform(0, 0.004))
        for server_id in cluster.ids:
            cluster.crash(server_id, keep="none")
        cluster.start()
        cluster.elect()
        assert cluster.run_until(lambda: has_settled(cluster), 10)  # noqa: B023
        for server in cluster.servers.values():
            assert server.machine.commands[: len(acknowledged)] == [b"%d" % n for n in range(len(acknowledged))]


def test_a_slow_disk_does_not_keep_a_server_on_its_own_from_leading():
    """D15: while its vote is on its way to the disk, a candidate begins no other term."""
    cluster = Cluster(seed=1, size=1)
    cluster.servers["s1"].disk_seconds = lambda: 0.5
    cluster.start()
    assert cluster.elect(seconds=10).status().term == 2


def test_disks_that_take_half_an_election_timeout_do_not_keep_servers_from_leading():
    for seed in range(20):
        cluster = Cluster(seed=seed)
        for server in cluster.servers.values():
            server.disk_seconds = lambda: 0.07
        cluster.start()
        cluster.elect(seconds=5)
