"""The system calls of storage: the real ones on a temporary directory, and the fake disk's promises about a crash."""

from __future__ import annotations

import errno
import os
import pathlib
import random
import stat
import subprocess
import sys

import pytest
from zope.interface.verify import verifyObject

from txraft.errors import StorageError
from txraft.storage.files import FileSystem, IFileSystem
from txraft.testing.disk import FakeDisk, Halted

FILES = FileSystem()
ROOT = pathlib.Path(__file__).parents[1]


def mode(path):
    return stat.S_IMODE(os.stat(path).st_mode)


@pytest.fixture(params=[0o022, 0o777, 0o000])
def umask(request):
    old = os.umask(request.param)
    yield
    os.umask(old)


def test_real_files_provide_the_interface():
    assert verifyObject(IFileSystem, FILES)


def test_files_and_directories_are_for_their_owner_only(tmp_path, umask):
    """Whatever the umask says."""
    directory = str(tmp_path / "data")
    FILES.mkdir(directory)
    FILES.close(FILES.create(directory + "/file"))
    FILES.close(FILES.lock(directory + "/lock"))
    FILES.close(FILES.open(directory + "/file"))
    assert mode(directory) == 0o700
    assert [mode(directory + name) for name in ("/file", "/lock")] == [0o600, 0o600]


def test_what_is_written_is_read(tmp_path):
    handle = FILES.create(str(tmp_path / "file"))
    FILES.pwrite(handle, 10, b"abc")
    assert FILES.size(handle) == 13
    assert FILES.pread(handle, 0, 100) == bytes(10) + b"abc"
    assert FILES.pread(handle, 11, 1) == b"b"
    FILES.fdatasync(handle)
    FILES.fsync(handle)
    FILES.close(handle)
    FILES.fsync_directory(str(tmp_path))
    FILES.rename(str(tmp_path / "file"), str(tmp_path / "other"))
    assert FILES.list_directory(str(tmp_path)) == ["other"]
    FILES.unlink(str(tmp_path / "other"))
    assert FILES.list_directory(str(tmp_path)) == []


def test_a_short_write_is_continued_and_a_failed_one_is_an_error(tmp_path, monkeypatch):
    """D08."""
    handle = FILES.create(str(tmp_path / "file"))
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda descriptor, data, offset: pwrite(descriptor, data[:3], offset))
    FILES.pwrite(handle, 1, b"0123456789")
    monkeypatch.undo()
    assert FILES.pread(handle, 0, 100) == b"\x000123456789"
    FILES.close(handle)


def test_an_error_names_path_and_call(tmp_path):
    handle = FILES.create(str(tmp_path / "file"))
    FILES.close(handle)
    with pytest.raises(StorageError, match=r"file: fsync failed: Bad file descriptor"):
        FILES.fsync(handle)
    with pytest.raises(StorageError, match=r"file: create failed: File exists"):
        FILES.create(str(tmp_path / "file"))


def test_what_is_missing_is_told_apart(tmp_path):
    with pytest.raises(FileNotFoundError):
        FILES.open(str(tmp_path / "missing"))
    with pytest.raises(FileNotFoundError):
        FILES.mkdir(str(tmp_path / "missing" / "directory"))
    with pytest.raises(FileNotFoundError):
        FILES.list_directory(str(tmp_path / "missing"))
    with pytest.raises(FileExistsError):
        FILES.mkdir(str(tmp_path))


def test_a_lock_is_held_until_it_is_closed_and_names_its_holder(tmp_path):
    """D12."""
    path = str(tmp_path / "lock")
    handle = FILES.lock(path)
    with pytest.raises(StorageError, match=rf"{tmp_path}: .*pid {os.getpid()};"):
        FILES.lock(path)
    FILES.close(handle)
    FILES.close(FILES.lock(path))


def test_a_lock_that_could_not_say_whose_it_is_is_let_go_of(tmp_path, monkeypatch):
    """D08, D12: the disk is full; once there is room, the same process may try again."""

    def full(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = str(tmp_path / "lock")
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        with pytest.raises(StorageError, match="No space left"):
            FILES.lock(path)
    FILES.close(FILES.lock(path))


def test_a_program_that_we_start_does_not_inherit_our_files(tmp_path):
    """D12: it would hold the lock when we are gone."""
    handle = FILES.lock(str(tmp_path / "lock"))
    assert not os.get_inheritable(handle.descriptor)
    FILES.close(handle)


@pytest.mark.process
def test_a_second_process_is_refused_and_a_killed_one_lets_go(tmp_path):
    """D12."""
    path = str(tmp_path / "lock")
    program = (
        "import sys; from txraft.storage.files import FileSystem; "
        "handle = FileSystem().lock(sys.argv[1]); print('locked', flush=True); sys.stdin.read()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT
    )
    try:
        assert holder.stdout.readline() == b"locked\n"
        with pytest.raises(StorageError, match=f"pid {holder.pid};"):
            FILES.lock(path)
    finally:
        holder.kill()
        holder.communicate(timeout=60)
    FILES.close(FILES.lock(path))


@pytest.fixture
def disk():
    return FakeDisk(random.Random(3))


def synced_file(disk, path="/f", data=b""):
    handle = disk.create(path)
    disk.pwrite(handle, 0, data)
    disk.fsync(handle)
    disk.fsync_directory("/")
    return handle


def test_fake_disk_loses_what_was_not_synced(disk):
    handle = synced_file(disk, data=b"a" * 2000)
    disk.pwrite(handle, 100, b"b" * 1000)
    disk.crash(keep="none")
    assert disk.read_file("/f") == b"a" * 2000


def test_fake_disk_keeps_everything_when_only_the_process_died(disk):
    handle = synced_file(disk)
    disk.pwrite(handle, 100, b"b")
    disk.crash(keep="all")
    assert disk.read_file("/f") == bytes(100) + b"b"


def test_fake_disk_keeps_any_part_by_sector(disk):
    seen = set()
    for _ in range(200):
        path = f"/f{len(disk.file_names())}"
        handle = synced_file(disk, path, b"a" * 1536)
        disk.pwrite(handle, 0, b"b" * 1536)
        disk.crash()
        data = disk.read_file(path)
        assert all(len(set(data[at : at + 512])) == 1 for at in (0, 512, 1024))
        seen.add(data[::512])
    assert len(seen) == 8


def test_fake_disk_loses_names_that_were_not_synced(disk):
    """D02."""
    disk.fsync(disk.create("/new"))
    synced_file(disk, "/old")
    disk.crash(keep="none")
    assert disk.file_names() == ["/new", "/old"]
    disk.rename("/old", "/renamed")
    disk.unlink("/new")
    disk.crash(keep="none")
    assert disk.file_names() == ["/new", "/old"]


def test_fake_disk_loses_a_directory_with_all_that_is_in_it(disk):
    disk.mkdir("/d")
    disk.create("/d/f")
    disk.fsync_directory("/d")
    disk.crash(keep="none")
    assert disk.file_names() == []


def test_fake_disk_does_not_make_good_for_a_failed_sync(disk):
    """D01: the kernel calls the pages clean."""
    handle = synced_file(disk, data=b"a")
    disk.pwrite(handle, 0, b"b")
    disk.fail("fsync")
    with pytest.raises(StorageError, match="/f: fsync failed: Input/output error"):
        disk.fsync(handle)
    disk.fsync(handle)
    assert disk.read_file("/f") == b"b"
    disk.crash(keep="none")
    assert disk.read_file("/f") == b"a"


def test_fake_disk_fails_the_nth_call_and_leaves_a_short_write(disk):
    handle = synced_file(disk)
    disk.fail("pwrite", number=2, error=errno.ENOSPC, written=2)
    disk.pwrite(handle, 0, b"abc")
    with pytest.raises(StorageError, match="No space left"):
        disk.pwrite(handle, 3, b"def")
    assert disk.read_file("/f") == b"abcde"


def test_fake_disk_halts_at_the_nth_call_and_at_all_behind_it(disk):
    handle = synced_file(disk)
    disk.halt_at(2)
    disk.pwrite(handle, 0, b"a")
    for _ in range(2):
        with pytest.raises(Halted):
            disk.pwrite(handle, 0, b"b")
    disk.crash(keep="all")
    assert disk.read_file("/f") == b"a"


def test_free_bytes_are_those_of_the_file_system(tmp_path):
    found = os.statvfs(tmp_path)
    assert 0 < FILES.free_bytes(str(tmp_path)) <= found.f_blocks * found.f_frsize
    with pytest.raises(StorageError, match="/none: statvfs failed: No such file"):
        FILES.free_bytes(str(tmp_path / "none"))


def test_fake_disk_says_what_is_free_and_a_full_one_has_nothing(disk):
    disk.free = 77
    assert disk.free_bytes("/") == 77
    disk.fill()
    assert disk.free_bytes("/") == 0


def test_fake_disk_drops_locks_and_handles_at_a_crash(disk):
    handle = disk.lock("/lock")
    with pytest.raises(StorageError, match="in use"):
        disk.lock("/lock")
    disk.crash()
    with pytest.raises(StorageError, match="Bad file descriptor"):
        disk.pwrite(handle, 0, b"x")
    disk.close(disk.lock("/lock"))
    disk.lock("/lock")
