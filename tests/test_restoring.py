"""A machine is restored a chunk in a turn, and all at once when everything is there."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import pytest
from snapshot_cases import Server, meta
from twisted.logger import capturedLogs, formatEvent
from zope.interface import implementer

from txraft.errors import FatalError, MachineError, StorageError
from txraft.images import IPreparedRestore
from txraft.machines.kv import KeyValueMachine
from txraft.machines.kv_encoding import pack_set
from txraft.node.restoring import prepare
from txraft.node.state import State
from txraft.sessions import Opening, SessionTable
from txraft.testing.cluster import Cluster
from txraft.testing.recording import RecordingMachine

CHUNKS = [b"a", b"b", b"c"]


@implementer(IPreparedRestore)
class Prepared(RecordingMachine):
    """`log` says what happened to it, and `fails` where it raises."""

    def __init__(self, fails: str = "") -> None:
        super().__init__()
        self.log: list[str] = []
        self.fails = fails
        self.new: list[bytes] = []

    def restoring(self) -> Prepared:
        self._step("restoring")
        return self

    def add(self, chunk: bytes) -> None:
        self._step(f"add {chunk.decode()}")
        self.new.append(chunk)

    def finish(self) -> None:
        self._step("finish")
        self.commands = self.new

    def restore(self, chunks: Sequence[bytes]) -> None:
        raise AssertionError("not asked to")

    def _step(self, what: str) -> None:
        self.log.append(what)
        if what == self.fails:
            raise ValueError("no")


@pytest.fixture
def server():
    return Server()


def test_other_turns_come_between_the_chunks(server):
    """S12."""
    snapshot, machine = server.take(meta(), CHUNKS), Prepared()
    server.job_seconds = 0.02
    done = prepare(server.store, State(machine), snapshot)
    seen = [len(machine.log)]
    while server.clock.getDelayedCalls():
        server.clock.advance(0.01)
        seen.append(len(machine.log))
    assert all(later - sooner <= 1 for sooner, later in itertools.pairwise(seen)), seen
    assert machine.commands == []
    server.wait(done)()
    assert machine.commands == CHUNKS
    assert machine.log == ["restoring", "add a", "add b", "add c", "finish"]


def test_a_machine_that_says_nothing_gets_all_chunks_in_the_end(server):
    snapshot, machine = server.take(meta(), CHUNKS), RecordingMachine()
    restore = server.wait(prepare(server.store, State(machine), snapshot))
    assert machine.commands == []
    restore()
    assert machine.commands == CHUNKS


@pytest.mark.parametrize("fails", ["restoring", "add b", "finish"])
def test_what_the_machine_raises_counts_when_the_snapshot_is_to_become_its_state(server, fails):
    """A snapshot that turns out not to be needed stops nobody."""
    snapshot, machine = server.take(meta(), CHUNKS), Prepared(fails)
    restore = server.wait(prepare(server.store, State(machine), snapshot))
    with pytest.raises(MachineError, match="snapshot at entry 7") as caught:
        restore()
    assert isinstance(caught.value.__cause__, ValueError)
    assert machine.log[-1] == fails


def test_sessions_that_cannot_be_read_stop_who_needs_them_and_change_nothing(server):
    writer = server.store.begin(meta())
    writer.write_sessions(b"?")
    writer.write(b"a")
    snapshot, machine = server.wait(writer.commit()), RecordingMachine()
    restore = server.wait(prepare(server.store, State(machine), snapshot))
    with pytest.raises(
        FatalError, match=r"^the sessions in the snapshot at entry 7 cannot .*unknown in it, b'\?'$"
    ) as caught:
        restore()
    assert not isinstance(caught.value, MachineError), "the machine had nothing to do with it"
    assert machine.commands == []


class Counting(SessionTable):
    """Many tables are made; `added` is how many chunks were read by all of them."""

    added = 0

    def add(self, chunk: bytes) -> None:
        Counting.added += 1
        super().add(chunk)


def test_other_turns_come_between_the_chunks_of_the_sessions(server, monkeypatch):
    """S12: there is nothing left to do in the turn in which the snapshot becomes the state."""
    monkeypatch.setattr("txraft.node.restoring.SessionTable", Counting)
    monkeypatch.setattr(Counting, "added", 0)
    table = SessionTable()
    for index in range(1, 20_001):
        table.open(index, Opening(1, 100_000, 1))
    writer = server.store.begin(meta())
    for chunk in table.image():
        writer.write_sessions(chunk)
    writer.write(b"a")
    state = State(RecordingMachine())
    snapshot = server.wait(writer.commit())
    server.job_seconds = 0.02
    done = prepare(server.store, state, snapshot)
    seen = [0]
    while server.clock.getDelayedCalls():
        server.clock.advance(0.01)
        seen.append(Counting.added)
    assert seen[-1] > 5
    assert all(later - sooner <= 1 for sooner, later in itertools.pairwise(seen)), seen
    restore = server.wait(done)
    assert len(state.sessions) == 0
    restore()
    assert Counting.added == seen[-1]
    assert b"".join(state.sessions.image()) == b"".join(table.image())


def test_what_cannot_be_read_changes_nothing(server):
    snapshot, machine = server.take(meta(), CHUNKS), Prepared()
    server.disk.fail("pread")
    with pytest.raises(StorageError):
        server.wait(prepare(server.store, State(machine), snapshot))
    assert machine.commands == []


def test_servers_that_can_be_prepared_start_and_are_sent_snapshots():
    """S08: digest for digest; the witness compares."""
    cluster = Cluster(machine=KeyValueMachine)
    cluster.start()
    leader = cluster.elect()
    away = next(server_id for server_id in cluster.ids if server_id != leader.settings.server_id)
    cluster.network.partition([away], [other for other in cluster.ids if other != away])
    for number in range(10):
        leader.propose(pack_set(b"key %d" % number, b"x" * 50_000))
    cluster.run(1)
    leader.take_snapshot()
    cluster.run(1)
    cluster.network.heal()
    machines = [cluster.servers[server_id] for server_id in cluster.ids]
    assert cluster.run_until(lambda: {len(server.machine) for server in machines} == {10})
    assert cluster.node(away).status().snapshots.received == 1
    cluster.crash(away, keep="none")
    cluster.start(away)
    assert cluster.run_until(lambda: len(cluster.servers[away].machine) == 10)
    cluster.check_replay()


class Clearing(RecordingMachine):
    """A later state may be a smaller one."""

    def apply(self, first_index: int, commands: Sequence[bytes], time_ms: int) -> Sequence[int]:
        results = super().apply(first_index, commands, time_ms)
        if b"clear" in commands:
            self.commands = []
        return results


def test_a_newer_snapshot_that_comes_while_a_start_reads_its_own_stays():
    """S03: in the simulation's own workload states only grow, so that the newer one is never read first."""
    cluster = Cluster(machine=Clearing)
    cluster.start()
    leader = cluster.elect()
    away = next(server_id for server_id in cluster.ids if server_id != leader.settings.server_id)
    leader.propose_many([b"%d" % number for number in range(100)])
    cluster.run(0.5)
    cluster.node(away).take_snapshot()
    cluster.run(1)
    cluster.crash(away, keep="all")
    leader.propose(b"clear")
    cluster.run(0.5)
    leader.take_snapshot()
    cluster.run(1)
    server = cluster.servers[away]
    # Each chunk of its own is a job for a slow disk.
    server.snapshot_seconds = lambda: 0.02
    cluster.start(away)
    assert cluster.run_until(lambda: cluster.node(away).status().snapshots.received == 1)
    assert cluster.run_until(lambda: cluster.node(away).raft.is_restored)
    assert server.machine.commands == []
    cluster.run(5)
    assert server.machine.commands == []
    cluster.check_replay()


class Slow(RecordingMachine):
    """Says nothing about how it is restored, and takes half a second for it."""

    def __init__(self, busy: Callable[[float], object]) -> None:
        super().__init__()
        self._busy = busy

    def restore(self, chunks: Sequence[bytes]) -> None:
        super().restore(chunks)
        self._busy(0.5)


def test_how_long_a_machine_held_the_server_up_is_known_and_logged():
    cluster = Cluster(size=1, machine_of=lambda server_id: Slow(lambda s: cluster.servers["s1"].be_busy(s)))
    cluster.start()
    leader = cluster.elect()
    results: list[object] = []
    leader.propose(b"x").addCallback(lambda _: leader.take_snapshot()).addCallback(results.append)
    assert cluster.run_until(lambda: bool(results))
    assert leader.status().snapshots.restore_stall_s is None
    cluster.crash("s1", keep="all")
    with capturedLogs() as events:
        cluster.start()
        [sentence] = cluster.node("s1").status().waiting_for[:1]
        assert sentence.startswith("The state machine is not yet restored from the snapshot at entry ")
        leader = cluster.elect()
    assert round(leader.status().snapshots.restore_stall_s or 0, 3) == 0.5
    said = [formatEvent(event) for event in events if "txraft.node.snapshots" in str(event.get("log_namespace"))]
    assert said == [
        "restoring the state machine took 0.50 s, in which this server did nothing else: see txraft.images."
        "IPreparedRestore"
    ]
