"""
Every disk that a loss of power may leave, in each call of each step that log and snapshots take.

`test_compaction` and `test_snapshot_store` draw from them along longer histories.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterator

import attrs
import pytest
from snapshot_cases import encoded, meta
from storage_cases import SNAPSHOTS, run
from test_compaction import SnapshotServer, big

from txraft.core.messages import HardState
from txraft.errors import StorageError
from txraft.testing.crashes import crashes
from txraft.testing.disk import FakeDisk, Halted

STATES_PER_CALL = 300
"""More than that of one call are drawn."""

Step = Callable[[SnapshotServer], None]


def take_by_child(server: SnapshotServer, index: int) -> None:
    """As a forked child does, which has the parent's objects once more."""
    state, _, log = server.acknowledged
    term = next(term for at, term, _ in log if at == index)

    def begin():
        writer = server.store.snapshots.begin(meta(index, term))
        server.store.snapshots.begin(meta(index, term)).write_here([b"x" * 600, b"y" * 600])
        return writer.adopt()

    server.do((state, index, [entry for entry in log if entry[0] > index]), begin)


def receive_a_part(server: SnapshotServer, index: int, term: int) -> None:
    data, offer = encoded(meta(index, term))
    received = server.store.snapshots.receive(offer)
    server.do(server.acknowledged, lambda: received.addCallback(lambda partial: partial.append(0, data[:1000])))


def log_of(count: int) -> Step:
    return lambda server: server.write(HardState(1, "s1"), *big(1, count))


def snapshots_at(*indexes: int) -> Step:
    def prepare(server: SnapshotServer) -> None:
        for one in big(1, max(indexes) + 3):
            server.write(None, one)
        for index in indexes:
            server.take(index)

    return prepare


def nothing(server: SnapshotServer) -> None:
    pass


def log_and_a_part(index: int) -> Step:
    def prepare(server: SnapshotServer) -> None:
        log_of(4)(server)
        receive_a_part(server, index, 1)

    return prepare


# What is there before; the step; in how many of its calls, at least, a crash may leave disks that none before may, and
# how many those are in all, at least: so that none of this can come to look at nothing.
STEPS: dict[str, tuple[Step, Step, int, int]] = {
    "append": (log_of(2), lambda server: server.write(None, *big(3, 6)), 8, 12),
    "replace a suffix": (log_of(6), lambda server: server.write(HardState(2, None), run(4, "xy", term=2)), 10, 15),
    "rotate": (log_of(7), lambda server: server.write(None, *big(8, 9)), 8, 12),
    "take": (log_of(4), lambda server: server.take(3), 3, 6),
    "take by a child": (log_of(4), lambda server: take_by_child(server, 3), 6, 30),
    "take, and remove an old one": (snapshots_at(2, 4), lambda server: server.take(6), 6, 14),
    "compact": (snapshots_at(12), lambda server: server.compact(12), 4, 6),
    "compact much behind two": (snapshots_at(40, 50), lambda server: server.compact(50), 12, 15),
    "receive and install": (log_of(4), lambda server: server.install(20, 1), 8, 300),
    "install what matches": (snapshots_at(2, 5), lambda server: server.install(7, 1), 4, 300),
    "install what contradicts": (snapshots_at(2, 5), lambda server: server.install(7, 2), 8, 300),
    "receive another one": (log_and_a_part(9), lambda server: server.install(20, 1), 8, 300),
    "go on with a part": (log_and_a_part(20), lambda server: server.install(20, 1), 6, 150),
}


@attrs.frozen
class State:
    """A disk that a crash in call number `point` may have left, and the server that had it."""

    point: int
    server: SnapshotServer
    disk: FakeDisk


def prepared(prepare: Step) -> SnapshotServer:
    server = SnapshotServer()
    server.open()
    prepare(server)
    return server


def states_of(prepare: Step, step: Step) -> Iterator[State]:
    """Each that differs from those before it. The last point is behind the last call."""
    server, rng = prepared(prepare), random.Random(1)
    before = server.disk.calls.total()
    step(server)
    seen = set()
    for point in range(1, server.disk.calls.total() - before + 2):
        server = prepared(prepare)
        server.disk.halt_at(point)
        with contextlib.suppress(Halted, StorageError):
            step(server)
        promised = repr((server.acknowledged, server.attempted))
        for disk in crashes(server.disk, STATES_PER_CALL, rng):
            key = (promised, *((path, disk.read_file(path)) for path in disk.file_names()))
            if key not in seen:
                seen.add(key)
                yield State(point, server, disk)


def started_on(server: SnapshotServer, disk: FakeDisk) -> SnapshotServer:
    """A server that was promised the same, and has that disk."""
    other = SnapshotServer()
    other.acknowledged, other.attempted, other.disk = server.acknowledged, server.attempted, disk
    return other


@pytest.mark.parametrize("name", STEPS)
def test_every_crash_in_a_step_leaves_the_old_state_or_the_new(name):
    """S01, S02, S07, S14, D02, D06, D10: and the server goes on from there."""
    prepare, step, calls, disks = STEPS[name]
    count, points, outcomes = 0, set(), set()
    for state in states_of(prepare, step):
        count += 1
        points.add(state.point)
        server = started_on(state.server, state.disk)
        found = server.look()
        assert found in (server.acknowledged, server.attempted), (state.point, found)
        outcomes.add(repr(found))
        assert not [path for path in server.disk.file_names() if path.startswith(SNAPSHOTS) and ".tmp" in path]
        server.acknowledged = found
        last_index = max([found[1], *(index for index, _, _ in found[2])])
        server.write(HardState(9, "s9"), *big(last_index + 1, 2, term=9))
        server.take(last_index + 1)
        server.compact(last_index + 2)
        server.crash(keep="none")
        assert server.look() == server.acknowledged, state.point
    assert len(points) >= calls
    assert count >= disks
    assert len(outcomes) > 1 or name.startswith("compact")


@pytest.mark.parametrize("name", STEPS)
def test_a_second_crash_while_the_first_is_repaired_is_one_more(name):
    """In each call of the start that follows."""
    prepare, step, _, _ = STEPS[name]
    count, rng = 0, random.Random(2)
    for state in states_of(prepare, step):
        if rng.random() > 60 / STEPS[name][3]:
            continue
        probe = started_on(state.server, state.disk.copy())
        before = probe.disk.calls.total()
        probe.open()
        for point in range(1, probe.disk.calls.total() - before + 1):
            server = started_on(state.server, state.disk.copy())
            server.disk.halt_at(point)
            with contextlib.suppress(Halted):
                server.open()
            server.crash(rng.choice(["none", "some", "all"]))
            assert server.look() in (server.acknowledged, server.attempted), (state.point, point)
            count += 1
    assert count > 50
