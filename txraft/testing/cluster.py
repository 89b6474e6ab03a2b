"""
A cluster in memory: the production node and log on one simulated clock, disk and network, from one seed.

After every event the invariants of the paper's Figure 3 are checked, and that every server's state machine has been
given the same commands. A violation raises `InvariantBroken` out of `run`.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from txraft.core.errors import InvariantBroken
from txraft.core.invariants import ClusterInvariants, require
from txraft.core.quorum import is_quorum
from txraft.core.raft import Raft
from txraft.errors import StorageError
from txraft.images import SnapshotWay
from txraft.node import RaftNode
from txraft.node.restart import raft_from_disk
from txraft.node.settings import NodeSettings
from txraft.storage.snapshots import SnapshotStore
from txraft.storage.store import LogStore
from txraft.testing.clock import ProcessClock, SimulatedClock
from txraft.testing.disk import FakeDisk, Halted
from txraft.testing.forker import FakeForker
from txraft.testing.moments import Moments
from txraft.testing.network import Network
from txraft.testing.recording import RecordingMachine
from txraft.testing.server import CLUSTER_ID, Server
from txraft.testing.truth import TrueStore
from txraft.testing.witness import Record, Witness
from txraft.testing.words import LinkedWords
from txraft.testing.writer import FakeWriter


class Cluster:
    """
    Servers `s1`, `s2`, … of one cluster, none of them started. The same seed gives the same run.

    :ivar servers: by server id.
    :ivar founders: those that make the cluster; the others wait to be asked in.
    :ivar network: cut, drop and delay through this.
    :ivar on_start: told of each server that has just started with its own disk; nothing has reached it yet.
    :ivar on_crash: told of each such server that is about to die.
    :ivar record: what the machines were given, and which rows of the catalogue the disks have seen.
    :ivar segment_bytes: of servers that are started from now on; small, so that there are many segments.
    """

    def __init__(
        self,
        seed: int = 0,
        size: int = 3,
        machine: Callable[[], Any] = RecordingMachine,
        machine_of: Callable[[str], Any] | None = None,
        passive: int = 0,
        **settings: Any,
    ) -> None:
        """
        @param passive: so many servers more belong to no cluster, until they are asked in.
        @param machine: makes a state machine; called at every start of a server.
        @param machine_of: the same, for machines that want to know the id of their server.
        @param settings: fields of `NodeSettings` that differ from its defaults.
        """
        self.rng = random.Random(seed)
        self.clock = SimulatedClock()
        self.network = Network(self.clock, self._split_rng())
        self.events = 0
        self.segment_bytes = 4 * 1024
        self.on_start: Callable[[Server], None] = lambda server: None
        self.on_crash: Callable[[Server], None] = lambda server: None
        self._make_machine = machine_of or (lambda server_id: machine())
        self._broken: InvariantBroken | None = None
        self._settings = {"log_keep_entries": 0, **settings}
        self._invariants = ClusterInvariants()
        self.record = Record(lambda: self._make_machine("a replay"), self._judging)
        self._rafts: dict[str, Raft] = {}
        self._stores: dict[str, TrueStore] = {}
        self._moments: Moments | None = None
        self._changed: dict[str, None] = {}
        """The servers that have done something since the invariants were checked; the others cannot have changed."""
        self.ids = [f"s{number}" for number in range(1, size + passive + 1)]
        self.founders = tuple(self.ids[:size])
        self.servers = {
            server_id: Server(server_id, FakeDisk(self._split_rng()), self._quick_disk()) for server_id in self.ids
        }

    def _split_rng(self) -> random.Random:
        return random.Random(self.rng.getrandbits(64))

    def _quick_disk(self) -> Callable[[], float]:
        rng = self._split_rng()
        return lambda: rng.uniform(0.0001, 0.001)

    # -- processes

    def start(self, *server_ids: str) -> None:
        """
        Start these servers, or all; a server that has crashed starts with what its disk has kept.

        :raises StorageError: a server refuses its disk; it does not run then.
        """
        for server_id in server_ids or self.ids:
            self._start(self.servers[server_id])

    def _start(self, server: Server) -> None:
        assert server.node is None, f"{server.server_id} runs already"
        server.clock = ProcessClock(self.clock, server.clock_rate, lambda: self._changed.setdefault(server.server_id))
        server.writer = FakeWriter(server.clock, lambda: server.disk_seconds())
        server.transport = self.network.transport(server.server_id, server.clock.when_awake)
        server.machine = self._make_machine(server.server_id)
        server.snapshot_writer = FakeWriter(server.clock, server.seconds_for_snapshot)
        store = TrueStore(self._store(server, server.disk, server.writer, server.snapshot_writer), server, self.record)
        # Not of the cluster's own: what is drawn here changes nothing else of a run.
        rng = random.Random(f"snapshots {server.server_id} {self.events}")
        server.witness = Witness(server, self.record, self._judging, rng.choice(list(SnapshotWay)))
        node = RaftNode(
            self._node_settings(server),
            store,
            server.transport,
            server.witness,
            server.clock,
            self._split_rng(),
            self._wall_ms,
            FakeForker(server, rng),
        )
        server.node = node
        try:
            node.startService()
        except (StorageError, Halted):
            server.node = None
            raise
        raft = node.raft
        assert raft is not None
        if server.own_disk is None:
            self._rafts[server.server_id], self._stores[server.server_id] = raft, store
            self._changed[server.server_id] = None
            self.on_start(server)
        server.transport.on_send = LinkedWords(raft, server.transport).check

    def _node_settings(self, server: Server) -> NodeSettings:
        is_founder = self.is_founder(server.server_id)
        return NodeSettings(
            server_id=server.server_id,
            bootstrap=self.founders if is_founder else (),
            cluster_id=server.cluster_id if is_founder else "",
            **self._settings,
        )

    def is_founder(self, server_id: str) -> bool:
        """Whether it makes the cluster with the others, should its disk be empty."""
        return server_id in self.founders and not self.servers[server_id].is_renewed

    def _store(self, server: Server, disk: FakeDisk, writer: FakeWriter, snapshot_writer: FakeWriter) -> LogStore:
        incarnations = self._split_rng()
        return LogStore(
            data_dir="/data",
            log_file="/data/raft.log",
            core_map_file="/data/raft.state",
            server_id=server.server_id,
            cluster_id=self._node_settings(server).cluster_id,
            segment_bytes=self.segment_bytes,
            fsync=True,
            files=disk,
            writer=writer,
            new_incarnation=lambda: incarnations.getrandbits(64),
            monotonic=self.clock.seconds,
            snapshots=SnapshotStore(disk, "/data/snapshots", keep=2, fsync=True, writer=snapshot_writer),
        )

    def _wall_ms(self) -> int:
        return 1_700_000_000_000 + int(self.clock.now * 1000)

    def crash(self, server_id: str, keep: str = "some") -> None:
        """Kill a server's process and machine at once. `keep` says what survives of unsynced writes, see `FakeDisk`."""
        server = self.servers[server_id]
        assert server.clock is not None and server.transport is not None
        if server.own_disk is None:
            self.on_crash(server)
        server.clock.die()
        for writer in (server.writer, server.snapshot_writer):
            assert writer is not None
            writer.crash()
        server.transport.stop()
        server.disk.crash(keep)
        if server.own_disk is not None:
            self._take_out(server)
        server.node = None

    def check_replay(self) -> None:
        """
        Every machine has the state that the whole log leads to, whatever snapshots it has gone through.

        :raises InvariantBroken: one has not.
        """
        for server in self.servers.values():
            if server.node is not None and server.witness is not None:
                server.witness.check()

    # -- other disks, and damaged ones

    def put_in(self, server_id: str, disk: FakeDisk, cluster_id: str = CLUSTER_ID) -> None:
        """
        Start a server that does not run with another disk than its own, until its next crash.

        No invariant counts it: it must not be listened to, and its crash checks that it has committed nothing.

        :raises StorageError: it refuses that disk; it has its own again.
        """
        server = self.servers[server_id]
        server.own_disk, server.disk, server.cluster_id = server.disk, disk, cluster_id
        try:
            self._start(server)
        except StorageError:
            self._restore_disk(server)
            raise

    def _take_out(self, server: Server) -> None:
        raft = server.node.raft if server.node is not None else None
        require(raft is not None and raft.commit_index == 0, "a server without its own disk commits", server.server_id)
        self._restore_disk(server)

    @staticmethod
    def _restore_disk(server: Server) -> None:
        assert server.own_disk is not None
        server.disk, server.own_disk, server.cluster_id = server.own_disk, None, CLUSTER_ID

    def has_lost(self, server_id: str) -> bool:
        """
        Whether the disk of a server that does not run lacks something that was durable. It is not touched.

        :raises StorageError: the server would not start.
        """
        log, found = self._rafts[server_id].log, self._recovered(server_id).log
        term = log.term(log.durable_index)
        return found.last_index < log.durable_index or term is None or not found.matches(log.durable_index, term)

    def _recovered(self, server_id: str) -> Raft:
        """What a server that does not run would start with."""
        server = self.servers[server_id]
        settings = self._node_settings(server)
        recovered = self._store(server, server.disk.copy(), FakeWriter(self.clock), FakeWriter(self.clock)).open()
        return raft_from_disk(settings, settings.for_core(), random.Random(0), recovered)

    def is_held_by_others(self, server_id: str) -> bool:
        """Whether all that a server has made durable is durable on a quorum without it, whoever may count one."""
        log = self._rafts[server_id].log
        others = {other: raft.log for other, raft in self._rafts.items() if other != server_id}
        index, term = log.durable_index, log.term(log.durable_index)
        assert term is not None, (index, log.base_index)
        holders = [other for other, log in others.items() if log.durable_index >= index and log.matches(index, term)]
        # Who is behind may count by a membership that is long over.
        in_force = [raft.membership for raft in [*self._rafts.values(), self._recovered(server_id)]]
        return self.is_quorum(holders) and all(
            is_quorum(membership, holders) for membership in in_force if membership.voters
        )

    def is_quorum(self, server_ids: Sequence[str]) -> bool:
        """Whether these can commit and elect, whatever becomes of the changes that are under way."""
        possible = self._invariants.possible_memberships(self._rafts.values())
        return all(is_quorum(membership, server_ids) for membership in possible)

    def is_member(self, server_id: str) -> bool:
        """Whether it is, or may be, whatever becomes of the changes that are under way."""
        possible = self._invariants.possible_memberships(self._rafts.values())
        return any(server_id in membership.members for membership in possible)

    def note_loss(self, server_id: str) -> None:
        """The disk of a server that does not run has lost what it had made durable, as `is_held_by_others` allows."""
        self._invariants.note_loss(server_id)

    @property
    def last_loss_term(self) -> int:
        """The highest term of all servers when a disk last lost what it had made durable; -1 if none has."""
        return self._invariants.last_loss_term

    def wipe(self, server_id: str) -> None:
        """
        Give a server that does not run an empty disk for good, as `is_held_by_others` allows. It starts as a new one,
        of the founders if it was one of them.
        """
        server = self.servers[server_id]
        assert server.node is None, f"{server_id} runs"
        server.disk = FakeDisk(self._split_rng())
        self._invariants.note_wipe(server_id)

    def stop(self, seconds: float = 30.0) -> None:
        """
        Stop every server that runs, as SIGTERM does.

        :raises InvariantBroken: one of them does not end within this time.
        """
        going = {server_id for server_id, server in self.servers.items() if server.node is not None}
        for server_id in sorted(going):
            self.resume(server_id)
            stopped = functools.partial(going.discard, server_id)
            self.node(server_id).stopService().addCallback(lambda _, stopped: stopped(), stopped)
        require(self.run_until(lambda: not going, seconds), "a server does not stop", sorted(going))

    @contextlib.contextmanager
    def _judging(self) -> Iterator[None]:
        """An invariant that is broken here, inside of a server, ends the run, and does not only stop the server."""
        try:
            yield
        except InvariantBroken as error:
            self._broken = self._broken or error
            raise

    def pause(self, server_id: str) -> None:
        """Stop a process, as SIGSTOP does: what comes due or arrives meanwhile happens at its `resume`."""
        clock = self.servers[server_id].clock
        assert clock is not None, f"{server_id} does not run"
        clock.pause()

    def is_paused(self, server_id: str) -> bool:
        clock = self.servers[server_id].clock
        return clock is not None and clock.is_paused

    def resume(self, server_id: str) -> None:
        """Let a paused process go on."""
        clock = self.servers[server_id].clock
        assert clock is not None, f"{server_id} does not run"
        clock.resume()

    # -- time

    def run(self, seconds: float) -> None:
        """Let this much time pass, checking the invariants after every event."""
        self.run_until(lambda: False, seconds)

    def run_until(self, holds: Callable[[], bool], seconds: float = 30.0) -> bool:
        """Let time pass until `holds()`, at most `seconds`; answer whether it does."""
        end = self.clock.now + seconds
        # Whoever calls may have done anything to anybody.
        self._changed.update(dict.fromkeys(self._rafts))
        while not holds():
            when = self.clock.next_time()
            if when is None or when > end:
                self.clock.now = max(self.clock.now, end)
                return holds()
            self.clock.run_next()
            self.events += 1
            if self._broken is not None:
                raise self._broken
            if self._changed:
                self._invariants.check(self._rafts, self._changed)
                changed, self._changed = self._changed, {}
                for server_id in filter(self._stores.__contains__, changed):
                    self._stores[server_id].check(self._rafts[server_id])
                if self._moments is not None:
                    self._moments.look(changed)
        return True

    def watch_roles(self, tell: Callable[[str, str], object] | None) -> None:
        """From now on `tell(server_id, name)` at each of the moments of `Moments`; None: no more."""
        self._moments = Moments(tell, self._rafts) if tell is not None else None

    # -- looking

    @property
    def leader_count(self) -> int:
        """How many terms had a leader so far."""
        return self._invariants.leader_count

    def running(self) -> list[RaftNode]:
        """The nodes of all running processes, by server id."""
        return [server.node for _, server in sorted(self.servers.items()) if server.node is not None]

    def node(self, server_id: str) -> RaftNode:
        """The node of a running server."""
        node = self.servers[server_id].node
        assert node is not None, f"{server_id} does not run"
        return node

    def leader(self) -> RaftNode | None:
        """The running leader of the highest term; None if there is none."""
        leaders = [node for node in self.running() if node.raft is not None and node.raft.role.name == "leader"]
        return max(leaders, key=_term, default=None)

    def elect(self, seconds: float = 10.0) -> RaftNode:
        """Run until there is a leader that has committed its first entry."""
        require(self.run_until(self._has_working_leader, seconds), "no leader within", seconds)
        leader = self.leader()
        assert leader is not None
        return leader

    def _has_working_leader(self) -> bool:
        leader = self.leader()
        if leader is None or leader.raft is None:
            return False
        return leader.raft.log.term(leader.raft.commit_index) == leader.raft.term


def _term(node: RaftNode) -> int:
    return node.raft.term if node.raft is not None else 0
