"""
The steps of log and snapshots on real files, through the system calls of the server.

TXRAFT_TEST_STATES=5000 makes each call fail in each of the ways there are.
"""

from __future__ import annotations

import errno
import os
import random
import resource
import shutil
import subprocess

import pytest
from real_disk import ERRORS, Kernel, RealDisk
from storage_cases import with_each_call_failing
from storage_steps import STEPS, STRIDE
from test_crash_states import states_of

from txraft.errors import StorageError
from txraft.storage import files


@pytest.fixture
def fresh(tmp_path, monkeypatch):
    """Makes a disk without files, and all that is reached from now on is there."""
    count = 0

    def make():
        nonlocal count
        shutil.rmtree(tmp_path / str(count), ignore_errors=True)
        count += 1
        (tmp_path / str(count)).mkdir()
        kernel = Kernel(tmp_path / str(count))
        monkeypatch.setattr(files, "os", kernel)
        monkeypatch.setattr(files, "fcntl", kernel)
        return RealDisk(kernel)

    return make


def contents(disk):
    """The lock alone differs: on a real disk it says which process has it."""
    return {path: disk.read_file(path) for path in disk.file_names() if not path.endswith("/lock")}


@pytest.mark.parametrize("name", STEPS)
def test_a_step_leaves_the_same_bytes_on_a_disk_in_memory_and_on_a_real_one(fresh, name):
    step = STEPS[name]
    real, fake = step.prepared(disk=fresh()), step.prepared()
    for server in (real, fake):
        step.work(server)
    assert contents(real.disk) == contents(fake.disk)
    assert len(contents(real.disk)) > 1


@pytest.mark.parametrize("name", STEPS)
def test_a_process_killed_at_any_call_leaves_the_old_state_or_the_new(fresh, name):
    """D02, D12, D21, S07, S14: the lock goes with the process."""
    step, count = STEPS[name], 0
    probe = step.prepared(disk=fresh())
    before = probe.disk.calls.total()
    step.work(probe)
    for point in range(1, probe.disk.calls.total() - before + 2, STRIDE):
        server = step.prepared(disk=fresh())
        server.disk.halt_at(point)
        step.cut_short(server)
        server.crash()
        server.settle()
        count += 1
    assert count > 0


@pytest.mark.parametrize("name", STEPS)
def test_a_system_call_that_fails_leaves_the_old_state_or_the_new_and_nothing_open(fresh, name):
    """D01, D08, S14: in all the ways in which a call may fail, for one call each, or for each call."""
    step, told, count = STEPS[name], 0, 0
    for number, error in enumerate(ERRORS):
        failing = with_each_call_failing(
            lambda: step.prepared(disk=fresh()),
            step.work,
            getattr(errno, error),
            written=7 * (number % 2),
            only=range(number, 1 << 20, 1 if STRIDE == 1 else 2 * len(ERRORS)),
        )
        for server, call, is_told in failing:
            count += 1
            told += is_told
            if server.store is not None:
                server.close()
            assert (server.disk.open_paths(), server.disk.strays) == ([], []), (call, error)
            server.crash()
            server.settle()
    assert told or count < 3


@pytest.mark.parametrize("name", STEPS)
def test_what_a_loss_of_power_leaves_is_the_same_for_a_server_on_real_files(fresh, name):
    """A sample of the disks of `test_crash_states`, written down."""
    step, rng, count = STEPS[name], random.Random(3), 0
    for state in states_of(step):
        if count > 3 and rng.random() > 10 * (4 - STRIDE) / step.disks:
            continue
        real = type(state.server)(disk=fresh())
        real.acknowledged, real.attempted = state.server.acknowledged, state.server.attempted
        for path in state.disk.file_names():
            real.disk.write_file(path, state.disk.read_file(path))
        assert real.settle() == state.started().settle(), state.point
        real.crash()
        count += 1
    assert count > 3


@pytest.fixture
def small(tmp_path):
    """A file system of a megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    if shutil.which("mount") is None:
        pytest.skip("there is no mount")
    mounting = ["mount", "-t", "tmpfs", "-o", "size=1m", "txraft-test", str(place)]
    mounted = subprocess.run(mounting, capture_output=True, text=True, check=False)
    if mounted.returncode != 0:
        pytest.skip(f"no small file system can be mounted here: {mounted.stderr.strip()}")
    yield place
    subprocess.run(["umount", "-l", str(place)], check=True)


def try_to_start(server):
    """On a disk without room: it succeeds, or is refused for that reason."""
    try:
        server.start()
    except StorageError as error:
        assert "No space left" in str(error)
    if server.store is not None:
        server.close()


@pytest.mark.parametrize("name", STEPS)
def test_a_file_system_that_is_full_costs_nothing_that_was_promised(small, monkeypatch, name):
    """D08, D09: whichever page is the first for which there is no room; and once there is room again, all goes on."""
    step, told = STEPS[name], 0
    for pages in range(8):
        root = small / str(pages)
        root.mkdir()
        kernel = Kernel(root)
        monkeypatch.setattr(files, "os", kernel)
        monkeypatch.setattr(files, "fcntl", kernel)
        server = step.prepared(disk=RealDisk(kernel))
        found = os.statvfs(small)
        with (small / "ballast").open("wb") as ballast:
            os.posix_fallocate(ballast.fileno(), 0, (found.f_bavail - pages) * found.f_frsize)
        try:
            step.work(server)
        except StorageError as error:
            assert "No space left" in str(error) or "are free" in str(error)
            told += 1
        if server.store is not None:
            server.close()
        assert (server.disk.open_paths(), server.disk.strays) == ([], [])
        server.crash()
        try_to_start(server)
        (small / "ballast").unlink()
        server.crash()
        server.settle()
        server.crash()
        shutil.rmtree(root)
    assert told or name not in ("first start", "vote", "append more than a segment", "take a large one", "restore")


@pytest.mark.parametrize("name", STEPS)
def test_a_limit_on_the_length_of_files_costs_nothing_that_was_promised(fresh, name):
    """The system refuses, without privileges and for real: EFBIG."""
    step = STEPS[name]
    for limit in (0, 100, 1000, 3000):
        server = step.prepared(disk=fresh())
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
        try:
            step.cut_short(server)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        if server.store is not None:
            server.close()
        assert (server.disk.open_paths(), server.disk.strays) == ([], [])
        server.crash()
        server.settle()
