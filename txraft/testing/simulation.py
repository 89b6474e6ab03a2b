"""
A run of a whole cluster under faults, from a seed: the production node, core, log and recovery on simulated time.

After every event the invariants of Figure 3 hold; at the end what clients saw is linearizable. A run ends in one of
three ways. *Safety*: faults to the end. *Liveness*: at some time only faults remain that leave a majority mutually
connected, nothing heals any more, and there must be a leader soon, and every request of its clients must be committed.
*Agreement*: all faults end, and soon every server holds the same, with every acknowledged write in it, once.
"""

from __future__ import annotations

import errno
import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence

import attrs

from txraft.core.invariants import require
from txraft.errors import StorageError
from txraft.node import RaftNode
from txraft.testing.cluster import Cluster, Server
from txraft.testing.history import HistoryRecorder
from txraft.testing.linearizability import NotLinearizable, Undecided, check
from txraft.testing.models import Register
from txraft.testing.registers import RegisterClients, RegisterMachine
from txraft.testing.schedule import DISKS, NETWORKS, PROFILES, Action, draw

LEADER_WITHIN = 10
COMMIT_WITHIN = 20
"""In the liveness ending, in longest election timeouts."""

TIMINGS = ((150, 300, 80), (50, 100, 20), (1000, 2000, 400))
"""Shortest and longest election timeout and heartbeat, in ms: the default, tight, and coarse."""


@attrs.frozen
class Options:
    """What a seed expands to, besides the schedule. All of it can be printed, and given back."""

    seed: int
    profile: str
    size: int
    ending: str
    timing: int

    @classmethod
    def expand(cls, seed: int, profile: str = "standard") -> Options:
        rng = random.Random(f"options {seed} {profile}")
        return cls(
            seed=seed,
            profile=profile,
            size=rng.choice(PROFILES[profile].servers),
            ending=rng.choice(("safety", "liveness", "liveness", "agreement")),
            timing=rng.choices(range(len(TIMINGS)), (6, 2, 2))[0],
        )


@attrs.frozen
class Report:
    """
    What a run did. `digest` is the same for the same options and schedule, in every process.

    `is_undecided`: the clients' history could be judged neither right nor wrong within the checker's bound.
    """

    options: Options
    events: int
    seconds: float
    faults: dict[str, int]
    outcomes: dict[str, int]
    leaders: int
    digest: str
    is_undecided: bool


class Simulation:
    """
    One run. `schedule` is drawn from the seed unless it is given.

    :ivar cluster: the servers, for whoever wants to look.
    """

    def __init__(self, options: Options, schedule: Sequence[Action] | None = None) -> None:
        shortest, longest, heartbeat = TIMINGS[options.timing]
        self.options = options
        self.cluster = Cluster(
            seed=options.seed,
            size=options.size,
            machine=RegisterMachine,
            min_election_timeout=shortest,
            max_election_timeout=longest,
            heartbeat_rate=heartbeat,
        )
        self.rng = random.Random(f"schedule {options.seed} {options.profile}")
        drawn = draw(self.rng, PROFILES[options.profile], self.cluster.ids)
        self.schedule = list(schedule) if schedule is not None else drawn
        self.clients = RegisterClients(HistoryRecorder(lambda: int(self.cluster.clock.now * 1e9)))
        self.faults: Counter[str] = Counter()
        self._election_s = longest / 1000
        self._digest = hashlib.blake2b(digest_size=16)
        self._apply_s: dict[str, float] = {}
        self.cluster.network.trace = self._trace

    def _trace(self, line: bytes) -> None:
        self._digest.update(b"%d %b\n" % (int(self.cluster.clock.now * 1e9), line))

    def run(self) -> Report:
        """
        Carry out the schedule and the ending.

        :raises AssertionError: an invariant, the clients' history or an ending's deadline is broken; says how.
        """
        cluster = self.cluster
        cluster.start()
        for action in self.schedule:
            cluster.run(max(0.0, action.at_ms / 1000 - cluster.clock.now))
            self._restart_failed()
            self._trace(str(action).encode())
            getattr(self, "do_" + action.kind.replace("-", "_"))(*action.words)
        if self.options.ending == "liveness":
            self._end_in_liveness()
        elif self.options.ending == "agreement":
            self._end_in_agreement()
        cluster.run(self._election_s)
        require(not self.clients.unexpected, "an untyped failure", *self.clients.unexpected)
        verdict = check(self.clients.history(), Register())
        require(not isinstance(verdict, NotLinearizable), "not linearizable", verdict)
        return self._report(is_undecided=isinstance(verdict, Undecided))

    def _report(self, is_undecided: bool) -> Report:
        return Report(
            options=self.options,
            events=self.cluster.events,
            seconds=self.cluster.clock.now,
            faults=dict(sorted(self.faults.items())),
            outcomes=dict(sorted(self.clients.outcomes.items())),
            leaders=self.cluster.leader_count,
            digest=self._digest.hexdigest(),
            is_undecided=is_undecided,
        )

    def _restart_failed(self) -> None:
        """As a supervisor does: a server whose disk failed has stopped itself, and is started again."""
        for server_id, server in sorted(self.cluster.servers.items()):
            if server.node is not None and server.node.failure is not None:
                require(isinstance(server.node.failure, StorageError), "a server stopped itself", server.node.failure)
                self.cluster.crash(server_id, keep="all")
                self.cluster.start(server_id)

    # -- clients

    def do_client(self, kind: str, key: str, where: str) -> None:
        """`where` is `any` or `leader`, and a number: that one of those that run, or of those that say they lead."""
        among, _, number = where.partition("-")
        running = self.cluster.running()
        leading = [node for node in running if node.raft is not None and node.raft.role.name == "leader"]
        nodes = leading if among == "leader" and leading else running
        if nodes:
            self._ask(nodes[int(number) % len(nodes)], kind, key, lambda _: None)

    def _ask(self, node: RaftNode, kind: str, key: str, then: Callable[[bool], None]) -> None:
        """A request reaches the server's process when that runs; `then` is told whether it was answered."""
        clock = self._server(node.settings.server_id).clock
        assert clock is not None
        clock.when_awake(lambda: self.clients.request(node, kind, key.encode()).addCallback(then))

    # -- faults

    def _server(self, server_id: str) -> Server:
        return self.cluster.servers[server_id]

    def do_crash(self, server_id: str, keep: str) -> None:
        if self._server(server_id).node is not None:
            self.faults["crash"] += 1
            self.cluster.crash(server_id, keep)

    def do_crash_all(self, keep: str) -> None:
        for server_id in self.cluster.ids:
            self.do_crash(server_id, keep)

    def do_start(self, server_id: str) -> None:
        if self._server(server_id).node is None:
            self.cluster.start(server_id)

    def do_isolate(self, server_id: str) -> None:
        self.faults["partition"] += 1
        self.cluster.network.partition([server_id], [other for other in self.cluster.ids if other != server_id])

    def do_bridge(self, server_id: str) -> None:
        """Two halves that do not hear each other, and one server that hears both."""
        self.faults["bridge"] += 1
        others = [other for other in self.cluster.ids if other != server_id]
        self.cluster.network.partition(others[: len(others) // 2], others[len(others) // 2 :])

    def do_ring(self, server_id: str) -> None:
        """Everybody hears the next one only, in one direction."""
        self.faults["ring"] += 1
        ids = self.cluster.ids
        for at, sender in enumerate(ids):
            for receiver in ids:
                if receiver not in (sender, ids[(at + 1) % len(ids)]):
                    self.cluster.network.cut(sender, receiver)

    def do_cut(self, sender: str, receiver: str) -> None:
        self.faults["cut"] += 1
        self.cluster.network.cut(sender, receiver)

    def do_heal(self) -> None:
        self.cluster.network.heal()

    def do_reset(self) -> None:
        self.faults["reset"] += 1
        self.cluster.network.reset()

    def do_replay(self) -> None:
        self.faults["replay"] += 1
        self.cluster.network.replay(20)

    def do_network(self, name: str) -> None:
        self.faults[f"network {name}"] += 1
        self.cluster.network.faults = NETWORKS[name]

    def do_disk(self, server_id: str, name: str) -> None:
        self.faults[f"disk {name}"] += 1
        longest, rng = DISKS[name], self.rng
        self._server(server_id).disk_seconds = lambda: rng.uniform(0, longest)

    def do_fail_disk(self, server_id: str, call: str, error: str) -> None:
        if self._server(server_id).node is not None:
            self.faults[f"disk {error}"] += 1
            self._server(server_id).disk.fail(call, error=getattr(errno, error))

    def do_pause(self, server_id: str) -> None:
        if self._server(server_id).node is not None:
            self.faults["pause"] += 1
            self.cluster.pause(server_id)

    def do_resume(self, server_id: str) -> None:
        if self._server(server_id).node is not None:
            self.cluster.resume(server_id)

    def do_clock(self, server_id: str, rate: str) -> None:
        self.faults["clock"] += 1
        self._server(server_id).clock_rate = float(rate)

    def do_slow_apply(self, server_id: str, milliseconds: str) -> None:
        self.faults["slow apply"] += 1
        self._server(server_id).apply_seconds = int(milliseconds) / 1000

    # -- the endings

    def _end_in_agreement(self) -> None:
        cluster = self.cluster
        self._leave_connected(cluster.ids)
        cluster.elect(LEADER_WITHIN * self._election_s)
        limit_s = COMMIT_WITHIN * self._election_s
        require(cluster.run_until(self._has_everybody_everything, limit_s), "no agreement within", limit_s)
        acknowledged = self.clients.acknowledged()
        for server_id, server in sorted(cluster.servers.items()):
            values = [command.split(b" ")[-1] for command in server.machine.commands]
            require(len(set(values)) == len(values), "a command was applied twice", server_id)
            require(acknowledged <= set(values), "an acknowledged write is lost", server_id, acknowledged - set(values))

    def _has_everybody_everything(self) -> bool:
        rafts = [node.raft for node in self.cluster.running() if node.raft is not None]
        last_index = max(raft.log.last_index for raft in rafts)
        return all(raft.applied_index == last_index for raft in rafts)

    def _end_in_liveness(self) -> None:
        cluster = self.cluster
        majority = sorted(self.rng.sample(cluster.ids, len(cluster.ids) // 2 + 1))
        self._trace(b"liveness " + " ".join(majority).encode())
        self._leave_connected(majority)
        limit_s = LEADER_WITHIN * self._election_s
        require(cluster.run_until(lambda: self._leads(majority), limit_s), "no leader within", limit_s, majority)
        done: list[bool] = []
        for number in range(10):
            self._request_until_done(majority, ("write", "read")[number % 2], f"k{number}", done)
        limit_s = COMMIT_WITHIN * self._election_s
        require(cluster.run_until(lambda: len(done) == 10, limit_s), "not committed within", limit_s, majority)

    def _leave_connected(self, majority: Sequence[str]) -> None:
        """All is well among these; the others, and the links to and from them, stay as bad as they are, or worse."""
        cluster = self.cluster
        bad = [(a, b) for a in cluster.ids for b in cluster.ids if a != b and not (a in majority and b in majority)]
        cut = [link for link in bad if cluster.network.is_cut(*link) or self.rng.random() < 0.5]
        cluster.network.heal()
        for link in cut:
            cluster.network.cut(*link)
        cluster.network.faults = NETWORKS["good"]
        for server_id in majority:
            server = self._server(server_id)
            server.disk_seconds, server.apply_seconds, server.clock_rate = (lambda: 0.001), 0.0, 1.0
            if server.node is not None:
                cluster.crash(server_id, keep="all")
            cluster.start(server_id)

    def _leads(self, majority: Sequence[str]) -> bool:
        """True if one of them leads, or follows a leader outside, who must have a quorum then and has not lost it."""
        nodes = [self.cluster.node(server_id) for server_id in majority]
        leader = self.cluster.leader()
        return any(node.raft is not None and node.raft.role.name == "leader" for node in nodes) or (
            leader is not None and leader.raft is not None and leader.raft.commit_index >= leader.raft.log.last_index
        )

    def _request_until_done(self, majority: Sequence[str], kind: str, key: str, done: list[bool]) -> None:
        """
        A client that follows the leader, and asks a server of the majority if it finds none.

        It may repeat what is unknown, as every value is new.
        """

        def again(was_answered: bool) -> None:
            if was_answered:
                done.append(True)
            else:
                self.cluster.clock.callLater(0.01, ask)

        def ask() -> None:
            leader = self.cluster.leader()
            is_awake = leader is not None and not self.cluster.is_paused(leader.settings.server_id)
            self._ask(leader if leader and is_awake else self.cluster.node(self.rng.choice(majority)), kind, key, again)

        ask()


def run_seed(seed: int, profile: str = "standard") -> Report:
    """
    Run one seed.

    :raises AssertionError: something is broken; a note on it names seed and options.
    """
    simulation = Simulation(Options.expand(seed, profile))
    try:
        return simulation.run()
    except Exception as error:
        error.add_note(f"{simulation.options} at {simulation.cluster.clock.now:.3f} s")
        raise
