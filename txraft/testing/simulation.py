"""
A run of a whole cluster under faults, from a seed: the production node, core, log and recovery on simulated time.

After every event the invariants of Figure 3 hold; at the end what clients saw is linearizable. A run ends in one of
three ways. *Safety*: faults to the end. *Liveness*: at some time only faults remain that leave a majority mutually
connected, nothing heals any more, and there must be a leader soon, every request of its clients must be committed, and
whoever is well and no member comes in when it is asked.
*Agreement*: all faults end, and soon every server holds the same, with every acknowledged write in it, once; removed
voters know that they are, and whoever is no member comes in when it is asked.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import attrs
from twisted.internet.defer import Deferred

from txraft.core.invariants import require
from txraft.node import RaftNode
from txraft.testing.cluster import Cluster
from txraft.testing.coverage.watch import Coverage
from txraft.testing.endings import Endings
from txraft.testing.machines import MachineWorkload
from txraft.testing.open_requests import OpenRequests
from txraft.testing.operators import KINDS, Operators
from txraft.testing.profiles import ALL, PROFILES, profile_of
from txraft.testing.quiet import quietly
from txraft.testing.registers import RegisterClients
from txraft.testing.schedule import KEEPS, Action, draw
from txraft.testing.session_clients import SessionClients
from txraft.testing.snapshot_faults import SnapshotFaults
from txraft.testing.workload import Workload

TIMINGS = ((150, 300, 80), (50, 100, 20), (1000, 2000, 400))
"""Shortest and longest election timeout and heartbeat, in ms: the default, tight, and coarse."""

LIMITS: tuple[dict[str, Any], ...] = (
    {},
    {
        "max_append_bytes": 150,
        "max_inflight_bytes": 400,
        "max_uncommitted_bytes": 600,
        "max_pending_reads": 6,
        "stop_timeout": 50,
        "snapshot_log_bytes": 1000,
        "snapshot_ratio": 1,
        "snapshot_hold_bytes": 1000,
        "log_keep_entries": 7,
    },
)
"""The defaults, and some that are reached: logs spread slowly, are cut short; servers are overloaded, stop in haste."""


STUMBLING = 0.2
"""The share of servers that die once within their first start, in one of its first `FIRST_CALLS` system calls."""

FIRST_CALLS = 40

RENEWALS = 4
"""So often a server that was given an empty disk is asked in again, if that fails."""

LAST_REQUESTS = 3
"""Of each server when the run is over."""


@attrs.frozen
class Options:
    """
    What a seed expands to, besides the schedule. All of it can be printed, and given back.

    `machine` is what `state_machine=` in raft.conf would say; empty for the simulation's own registers.
    """

    seed: int
    profile: str
    size: int
    ending: str
    timing: int
    limits: int
    spares: int = 0
    machine: str = ""
    machine_options: tuple[tuple[str, str], ...] = ()

    @classmethod
    def expand(
        cls,
        seed: int,
        profile: str = ALL,
        machine: str = "",
        machine_options: tuple[tuple[str, str], ...] = (),
    ) -> Options:
        profile = profile_of(seed, profile)
        rng = random.Random(f"options {seed} {profile}")
        return cls(
            seed=seed,
            profile=profile,
            size=rng.choice(PROFILES[profile].servers),
            ending=rng.choice(("safety", "liveness", "liveness", "liveness", "agreement")),
            timing=rng.choices(range(len(TIMINGS)), (6, 2, 2))[0],
            limits=rng.randrange(len(LIMITS)),
            spares=rng.choice(PROFILES[profile].spares),
            machine=machine,
            machine_options=machine_options,
        )


@attrs.frozen
class Report:
    """
    What a run did. `digest` is the same for the same options and schedule, in every process.

    `reached` are the counters of `coverage`, by name. `is_undecided`: the clients' history could be judged neither
    right nor wrong within the checker's bound.
    """

    options: Options
    events: int
    seconds: float
    faults: dict[str, int]
    outcomes: dict[str, int]
    reached: dict[str, int]
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
        profile = PROFILES[options.profile]
        self.options = options
        self.workload = self._make_workload()
        self.cluster = Cluster(
            seed=options.seed,
            size=options.size,
            passive=options.spares,
            machine_of=self.workload.machine,
            min_election_timeout=shortest,
            max_election_timeout=longest,
            heartbeat_rate=heartbeat,
            **{**LIMITS[options.limits], **profile.limits},
        )
        self.coverage = Coverage(self.cluster)
        rng = random.Random(f"schedule {options.seed} {options.profile}")
        drawn = draw(rng, profile, self.cluster.ids, self.workload.draw)
        self.schedule = list(schedule) if schedule is not None else drawn
        # Not the one that drew: a schedule that was kept goes on meaning the same when others are drawn.
        rng = random.Random(f"run {options.seed}")
        self.faults = SnapshotFaults(self.cluster, rng)
        self.operators = Operators()
        self._election_s = longest / 1000
        self._endings = Endings(
            self.cluster, self.workload, rng, self._election_s, self._ask, self.faults.restart_failed
        )
        self._rng = rng
        self._open = OpenRequests(self.cluster)
        self._digest = hashlib.blake2b(digest_size=16)
        self.cluster.network.trace = self._trace

    def _make_workload(self) -> Workload:
        options = self.options
        if options.machine:
            return MachineWorkload(options.machine, dict(options.machine_options), options.seed)
        clients = SessionClients if PROFILES[options.profile].has_sessions else RegisterClients
        return clients(lambda: int(self.cluster.clock.now * 1e9))

    def _trace(self, line: bytes) -> None:
        self._digest.update(b"%d %b\n" % (int(self.cluster.clock.now * 1e9), line))

    @quietly()
    def run(self) -> Report:
        """
        Carry out the schedule and the ending.

        :raises AssertionError: an invariant, the clients' history or an ending's deadline is broken; says how.
        """
        cluster = self.cluster
        self._start_all()
        for action in self.schedule:
            cluster.run(max(0.0, action.at_ms / 1000 - cluster.clock.now))
            self.faults.restart_failed()
            self._open.check()
            self._trace(str(action).encode())
            if action.kind == "client":
                self._do_client(*action.words)
            elif action.kind in KINDS:
                self._do_operator(action.kind, *action.words)
            else:
                self.faults.carry_out(action)
        self.faults.end()
        getattr(self._endings, self.options.ending)()
        cluster.run(self._election_s)
        if self.options.ending == "agreement":
            self._open.require_none("a request is neither answered nor refused when all is well")
        self._ask_to_the_last()
        cluster.check_replay()
        cluster.stop()
        self._open.require_none("a Deferred never fires")
        unexpected = [*self.workload.outcomes.unexpected, *self.operators.outcomes.unexpected]
        require(not unexpected, "an untyped failure", *unexpected)
        return self._report(is_undecided=not self.workload.check_history())

    def _start_all(self) -> None:
        """Some die within their first start, and some who are no members yet are asked in before they are there."""
        rng = random.Random(f"start {self.options.seed}")
        for server_id in self.cluster.ids:
            if rng.random() < STUMBLING:
                self.faults.stumble(server_id, rng.choice(KEEPS), rng.randint(1, FIRST_CALLS))
            elif server_id in self.cluster.founders or rng.random() < 0.5:
                self.cluster.start(server_id)

    def _ask_to_the_last(self) -> None:
        """What is asked of a server that is about to stop is answered, too."""
        for node in self.cluster.running():
            for _ in range(LAST_REQUESTS):
                self._ask(node, self.workload.draw(self._rng), lambda _: None)

    def _report(self, is_undecided: bool) -> Report:
        rows = self.operators.rows | self.cluster.record.rows
        return Report(
            options=self.options,
            events=self.cluster.events,
            seconds=self.cluster.clock.now,
            faults=dict(sorted((self.faults.counts + self.cluster.network.harmed).items())),
            outcomes=dict(sorted((self.workload.outcomes.counts + self.operators.outcomes.counts).items())),
            reached=self.coverage.reached(self.faults.counts, self.workload.outcomes.counts, rows),
            leaders=self.cluster.leader_count,
            digest=self._digest.hexdigest(),
            is_undecided=is_undecided,
        )

    def _do_client(self, where: str, *words: str) -> None:
        node = self._asked_node(where)
        if node is not None:
            self._ask(node, words, lambda _: None)

    def _do_operator(self, kind: str, where: str, *words: str) -> None:
        """What is asked is counted among the faults: it comes at any time, as they do."""
        # Who runs on another disk must not be asked in.
        self.faults.end_damage()
        self.faults.counts[kind] += 1
        if kind == "renew":
            self._renew(where, *words)
            return
        self._ask_operator(kind, where, words, lambda _: None)

    def _renew(self, where: str, server_id: str) -> None:
        """A server is removed, given an empty disk, and asked in again under its name; each when the last is done."""

        def removed(is_done: bool) -> None:
            if is_done:
                # Not now: this is within a server's turn, which may be its own.
                self.cluster.clock.callLater(0, linger)

        def linger() -> None:
            """It may be there once more, known to the others as a stranger, or until they have forgotten it."""
            waits_s = self._rng.choice((0.0, 0.0, 0.02, 6 * self._election_s))
            if waits_s and not self.faults.have_ended:
                self.faults.do_bounce(server_id, "all", "1")
            self.cluster.clock.callLater(waits_s, wipe)

        def wipe() -> None:
            if not self.faults.have_ended and self.faults.renew(server_id):
                # Whoever leads still knows the one that left.
                add(RENEWALS)

        def add(attempts: int) -> None:
            if not self.faults.have_ended:
                self._ask_operator("change", where, ("+" + server_id,), partial(added, attempts - 1))

        def added(attempts: int, is_done: bool) -> None:
            if is_done:
                self.operators.rows.add("M10")
            elif attempts:
                # Whoever led may have been the one that was removed.
                self.cluster.clock.callLater(self._election_s, add, attempts)

        self._ask_operator("change", where, ("-" + server_id,), removed)

    def _ask_operator(self, kind: str, where: str, words: tuple[str, ...], then: Callable[[bool], None]) -> None:
        node = self._asked_node(where)
        if node is not None:
            self._send(node, partial(self.operators.request, node, kind, *words), (kind, *words), then)

    def _asked_node(self, where: str) -> RaftNode | None:
        """
        The one that is asked; None if none runs.

        `where` is `any` or `leader`, and a number: that one of those that run, or of those that say they lead.
        """
        among, _, number = where.partition("-")
        running = self.cluster.running()
        leading = [node for node in running if node.raft is not None and node.raft.role.name == "leader"]
        nodes = leading if among == "leader" and leading else running
        return nodes[int(number) % len(nodes)] if nodes else None

    def _ask(self, node: RaftNode, words: tuple[str, ...], then: Callable[[bool], None]) -> None:
        self._send(node, lambda: self.workload.request(node, *words), words, then)

    def _send(
        self,
        node: RaftNode,
        request: Callable[[], Deferred[bool]],
        words: tuple[str, ...],
        then: Callable[[bool], None],
    ) -> None:
        """A request reaches the server's process when that runs; `then` is told whether it was answered."""
        clock = self.cluster.servers[node.settings.server_id].clock
        assert clock is not None

        def ask() -> None:
            number = self._open.add(node, words, may_wait=words[0] == "transfer")
            request().addCallback(answered, number)

        def answered(is_answered: bool, number: int) -> None:
            self._open.answered(number)
            then(is_answered)

        clock.when_awake(ask)


def run_seed(seed: int, profile: str = ALL) -> Report:
    """See `run_options`."""
    return run_options(Options.expand(seed, profile))


def run_options(options: Options) -> Report:
    """
    Run what a seed has expanded to.

    :raises AssertionError: something is broken; a note on it names seed and options.
    """
    simulation = Simulation(options)
    try:
        return simulation.run()
    except Exception as error:
        error.add_note(f"{simulation.options} at {simulation.cluster.clock.now:.3f} s")
        raise
