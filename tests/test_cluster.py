"""Whole clusters in memory, from a seed, with every fault at once and the invariants checked after every event."""

from __future__ import annotations

import random

import pytest
from twisted.internet.defer import Deferred, succeed

from txraft.errors import NotLeader, OutcomeUnknown, Refusal
from txraft.testing.cluster import Cluster
from txraft.testing.history import HistoryRecorder
from txraft.testing.linearizability import NotLinearizable, check, require_linearizable
from txraft.testing.models import Register
from txraft.testing.network import NetworkFaults
from txraft.testing.registers import RegisterClients, RegisterMachine

SEEDS = 200
KEYS = [b"a", b"b", b"c", b"d", b"e"]


class RememberingRegisters(RegisterMachine):
    """Registers that remember every command."""

    def __init__(self) -> None:
        super().__init__()
        self.commands: list[bytes] = []

    def apply(self, first_index, commands, time_ms):
        self.commands += commands
        return super().apply(first_index, commands, time_ms)


class Client:
    """Reads, writes and compares registers, at whatever server, without waiting for answers."""

    def __init__(self, cluster: Cluster, rng: random.Random) -> None:
        self.cluster = cluster
        self.rng = rng
        self.registers = RegisterClients(HistoryRecorder(lambda: round(cluster.clock.now * 1e9)))

    def act(self) -> None:
        running = self.cluster.running()
        if not running:
            return
        # There may be two that say they lead.
        leaders = [node for node in running if node.raft.role.name == "leader"]
        node = self.rng.choice(leaders if leaders and self.rng.random() < 0.8 else running)
        self.registers.request(self.door(node), self.rng.choice(["read", "write", "cas"]), self.rng.choice(KEYS))

    def door(self, node):
        """Through what the node is asked."""
        return node

    def acknowledged(self) -> list[bytes]:
        """The values that were written, as the answers say."""
        writes = [operation for operation in self.registers.history() if operation.result is True]
        return [op.argument if op.operation == "write" else op.argument[1] for op in writes]


def disturb(cluster: Cluster, rng: random.Random) -> None:
    """One random fault, or the end of some."""
    kind = rng.choice(
        ["crash", "start", "start", "partition", "one way", "heal", "heal", "slow disk", "bad net", "good net"]
    )
    server_id = rng.choice(cluster.ids)
    server = cluster.servers[server_id]
    if kind == "crash" and server.node is not None:
        cluster.crash(server_id, keep=rng.choice(["some", "none", "all"]))
    elif kind == "start" and server.node is None:
        cluster.start(server_id)
    elif kind == "partition":
        others = [other for other in cluster.ids if other != server_id]
        cluster.network.partition([server_id], others)
    elif kind == "one way":
        cluster.network.cut(server_id, rng.choice(cluster.ids))
    elif kind == "heal":
        cluster.network.heal()
    elif kind == "slow disk":
        slow = rng.choice([0.001, 0.05, 0.4])
        server.disk_seconds = lambda: rng.uniform(0, slow)
    elif kind == "bad net":
        cluster.network.faults = NetworkFaults(
            drop=rng.choice([0, 0.05, 0.3]), duplicate=0.1, max_delay_s=rng.choice([0.002, 0.05, 0.2]), reorders=True
        )
    elif kind == "good net":
        cluster.network.faults = NetworkFaults()


def run_seed(seed: int, size: int, make_client=Client) -> tuple[Cluster, Client]:
    rng = random.Random(seed)
    cluster = Cluster(seed=seed, size=size, machine=RememberingRegisters)
    client = make_client(cluster, rng)
    cluster.start()
    for _ in range(60):
        cluster.run(rng.uniform(0, 0.2))
        for _ in range(rng.randint(0, 6)):
            client.act()
        if rng.random() < 0.4:
            disturb(cluster, rng)
    return cluster, client


@pytest.mark.parametrize("part", range(10))
def test_no_fault_loses_an_acknowledged_write_or_shows_a_client_what_one_server_would_not(part):
    """
    Figure 3 after every event; at the end every acknowledged write stands on every server, once, and there is an order
    of all operations that explains every answer.
    """
    committed = 0
    for seed in range(part * SEEDS // 10, (part + 1) * SEEDS // 10):
        try:
            cluster, client = run_seed(seed, size=3 if seed % 4 else 5)
            settle(cluster, client)
        except BaseException as error:
            raise AssertionError(f"seed {seed}: {error!r}") from error
        committed += len(client.acknowledged())
    assert committed > 500


def settle(cluster: Cluster, client: Client) -> None:
    """End all faults; there must be a leader soon, and then everybody has everything."""
    cluster.network.heal()
    cluster.network.faults = NetworkFaults()
    for server_id, server in sorted(cluster.servers.items()):
        server.disk_seconds = lambda: 0.001
        if server.node is None:
            cluster.start(server_id)
    leader = cluster.elect(seconds=20)
    assert cluster.run_until(lambda: has_settled(cluster), 20), "the servers do not agree"
    last_reads = [client.registers.request(leader, "read", key) for key in KEYS]
    cluster.run(0.1)
    assert all(read.called for read in last_reads)
    for server in cluster.servers.values():
        written = [command.split(b" ")[-1] for command in server.machine.commands]
        assert len(set(written)) == len(written), "a command was applied twice"
        assert set(client.acknowledged()) <= set(written), f"{server.server_id} has lost an acknowledged write"
    assert client.registers.unexpected == []
    require_linearizable(client.registers.history(), Register())


def has_settled(cluster: Cluster) -> bool:
    rafts = [node.raft for node in cluster.running()]
    last = max(raft.log.last_index for raft in rafts)
    return all(raft.applied_index == last for raft in rafts)


def test_the_same_seed_gives_the_same_run():
    runs = []
    for _ in range(2):
        cluster, client = run_seed(7, size=3)
        runs.append((cluster.events, cluster.clock.now, client.registers.history(), cluster.network.frames))
    assert runs[0] == runs[1]


def test_the_random_runs_reach_every_outcome():
    """A simulation in which nothing goes wrong shows nothing."""
    outcomes: set[str] = set()
    for seed in range(12):
        outcomes |= set(run_seed(seed, size=3)[1].registers.outcomes)
    assert {NotLeader.__name__, OutcomeUnknown.__name__} <= outcomes


class HastyClient(Client):
    """Finds servers that ask nobody before they answer a read."""

    def door(self, node):
        return HastyDoor(node)


class HastyDoor:
    def __init__(self, node) -> None:
        self.propose = node.propose
        self._machine = node.machine

    def read(self, request: bytes) -> Deferred:
        return succeed(self._machine.query(request))


def test_servers_that_answer_reads_from_memory_would_be_found():
    """A check that passes these would show nothing."""
    verdicts = [check(run_seed(seed, 3, HastyClient)[1].registers.history(), Register()) for seed in range(8)]
    found = [verdict for verdict in verdicts if isinstance(verdict, NotLinearizable)]
    assert len(found) > 4
    assert all(verdict.blocked.operation == "read" for verdict in found[:1])


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
