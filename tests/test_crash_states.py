"""
Every disk that a loss of power may leave, in each call of each step that log and snapshots take.

`test_compaction` and `test_snapshot_store` draw from them along longer histories. TXRAFT_TEST_STATES=5000 looks at so
many of each call before it draws them, which takes long.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import attrs
import pytest
from storage_steps import STATES_PER_CALL, STEPS, Step

from txraft.testing.crashes import crashes
from txraft.testing.disk import FakeDisk

SECOND_CRASHES = STATES_PER_CALL // 20
"""In so many of the states of a step, about, each call of the next start crashes."""


@attrs.frozen
class State:
    """A disk that a crash in call number `point` may have left, and the server that had it."""

    point: int
    server: Any
    disk: FakeDisk

    def started(self) -> Any:
        """A server that was promised the same, and has a copy of that disk. Not open."""
        server = type(self.server)(disk=self.disk.copy())
        server.acknowledged, server.attempted = self.server.acknowledged, self.server.attempted
        return server


def states_of(step: Step) -> Iterator[State]:
    """Each that differs from those before it. The last point is behind the last call."""
    server, rng = step.prepared(), random.Random(1)
    before = server.disk.calls.total()
    step.work(server)
    seen = set()
    for point in range(1, server.disk.calls.total() - before + 2):
        server = step.prepared()
        server.disk.halt_at(point)
        step.cut_short(server)
        promised = repr((server.acknowledged, server.attempted))
        for disk in crashes(server.disk, STATES_PER_CALL, rng):
            key = hash((promised, *((path, disk.read_file(path)) for path in disk.file_names())))
            if key not in seen:
                seen.add(key)
                yield State(point, server, disk)


@pytest.mark.parametrize("name", STEPS)
def test_every_crash_in_a_step_leaves_the_old_state_or_the_new(name, record_property):
    """S01, S02, S07, S14, D02, D06, D10, D21: and the server goes on from there."""
    step, count, points, outcomes = STEPS[name], 0, set(), set()
    for state in states_of(step):
        count += 1
        points.add(state.point)
        outcomes.add(state.started().settle())
    record_property("states", count)
    assert len(points) >= step.calls
    assert count >= step.disks
    assert len(outcomes) > 1 or name.startswith("compact")


@pytest.mark.parametrize("name", STEPS)
def test_a_second_crash_while_the_first_is_repaired_is_one_more(name, record_property):
    """In each call of the start that follows."""
    step, count, rng = STEPS[name], 0, random.Random(2)
    for state in states_of(step):
        if rng.random() > SECOND_CRASHES / step.disks:
            continue
        probe = state.started()
        before = probe.disk.calls.total()
        step.start(probe)
        for point in range(1, probe.disk.calls.total() - before + 1):
            server = state.started()
            server.disk.halt_at(point)
            step.start(server)
            server.crash(rng.choice(["none", "some", "all"]))
            server.settle()
            count += 1
    record_property("crashes", count)
    assert count > 50
