"""
Every system call of every step fails once, in memory: nothing that was promised is lost, and nothing stays open.

`test_real_files` does the same with the calls of the operating system.
"""

from __future__ import annotations

import errno
import random

import pytest
from storage_cases import with_each_call_failing
from storage_steps import STEPS, STRIDE, SnapshotServer

from txraft.errors import StorageError


def has_let_go(server):
    """Close the store, if there is one. Nothing is open any more, and no handle was used that had been closed."""
    if server.store is not None:
        server.close()
    return (server.disk.open_paths(), server.disk.strays) == ([], [])


@pytest.mark.parametrize("written", [0, 300])
@pytest.mark.parametrize("name", STEPS)
def test_a_failed_call_leaves_the_old_state_or_the_new_and_nothing_open(name, written):
    """D01, D08, S14: a short write, too."""
    step, rng, told, count = STEPS[name], random.Random(1), 0, 0
    for server, call, is_told in with_each_call_failing(step.prepared, step.work, errno.EIO, written):
        count += 1
        told += is_told
        assert has_let_go(server), (call, server.disk.open_paths(), server.disk.strays)
        server.crash(rng.choice(["none", "some", "all"]))
        server.settle()
    assert count > 1
    assert told > 1


@pytest.mark.parametrize("name", [name for name in STEPS if STEPS[name].kind is SnapshotServer])
def test_a_start_that_fails_after_a_crash_says_so_lets_go_and_succeeds_the_next_time(name):
    """In each call, after a crash in a call."""
    step, count = STEPS[name], 0
    probe = step.prepared()
    before = probe.disk.calls.total()
    step.work(probe)
    for point in range(1, probe.disk.calls.total() - before + 2, STRIDE):

        def crashed(point=point):
            server = step.prepared()
            server.disk.halt_at(point)
            step.cut_short(server)
            server.crash()
            return server

        for server, call, is_told in with_each_call_failing(crashed, lambda server: server.start(), errno.EIO):
            count += is_told
            assert has_let_go(server), (call, server.disk.open_paths(), server.disk.strays)
            server.crash()
            server.settle()
    assert count > 15


@pytest.mark.parametrize("name", STEPS)
def test_a_full_disk_loses_nothing_and_once_there_is_room_it_goes_on(name):
    """D08, D09: a start on a full disk succeeds, or is refused for that reason."""
    step = STEPS[name]
    server = step.prepared()
    server.disk.fill()
    step.cut_short(server)
    assert has_let_go(server)
    for _ in range(2):
        try:
            server.start()
        except StorageError as error:
            assert "No space left" in str(error)
        assert has_let_go(server)
    server.disk.fill(False)
    server.crash("none")
    server.settle()
