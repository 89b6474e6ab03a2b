"""
A disk in memory that can crash, fail and be tampered with.

`FakeDisk` is the same interface that the real disk is used through, at the level of system calls. What was written but
not synced is in the page cache only: `crash` keeps any part of it, sector by sector and name by name.
"""

from __future__ import annotations

import copy
import errno
import os
import random
from collections import Counter
from collections.abc import Callable

import attrs
from zope.interface import implementer

from txraft.errors import StorageError
from txraft.storage.files import IFileSystem
from txraft.testing.content import Directory, File, Node


class Halted(Exception):
    """The process died in this call; see `FakeDisk.halt_at`."""


@attrs.define(eq=False)
class FakeHandle:
    """A handle of `FakeDisk`; of no use after a crash."""

    path: str
    file: File
    is_open: bool = True
    is_lock: bool = False


@attrs.define
class _Fault:
    call: str
    under: str
    left: int
    error: int
    written: int

    def strikes(self, call: str, path: str) -> bool:
        """Whether it is this call that fails."""
        if call != self.call or not path.startswith(self.under):
            return False
        self.left -= 1
        return self.left == 0


@implementer(IFileSystem)
class FakeDisk:
    """
    A file system in memory: one server's disk.

    `calls` counts system calls by name, `failed` those that `fail` has let fail. `rng` decides what a crash keeps, and
    nothing else. A `pwrite` writes all at once; that it may not is what a crash before the next sync is for.
    """

    def __init__(self, rng: random.Random) -> None:
        self.calls: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.strays: list[str] = []
        """Calls, with their paths, on handles that had been closed: on a real disk they may reach another file."""
        self._rng = rng
        self._names: dict[str, Node] = {}
        self._durable_names: dict[str, Node] = {}
        # Changes of names that no fsync_directory has made durable yet, in order: path -> what is there now.
        self._pending: list[dict[str, Node | None]] = []
        self._handles: list[FakeHandle] = []
        self._locked: set[str] = set()
        self._faults: list[_Fault] = []
        self.is_full = False
        self.free = 1 << 40
        """What `free_bytes` says while the disk is not full. Nothing that is written counts against it."""
        self._garbled: tuple[str, int] | None = None
        self._garbled_in = 0
        self._halt_in: int | None = None
        self._halt_under = ""
        self._when_halted: Callable[[], object] = lambda: None

    # -- for tests

    def fail(self, call: str, number: int = 1, error: int = errno.EIO, written: int = 0, under: str = "") -> None:
        """
        Make the `number`-th call of that name, counted from now, fail with this `errno`. Only those count whose path
        begins with `under`.

        A `pwrite` leaves its first `written` bytes in the file; a sync that fails makes nothing durable, and later
        ones do not make good for it.
        """
        self._faults.append(_Fault(call, under, number, error, written))

    def garble(self, under: str, place: int, number: int = 1) -> None:
        """
        The `number`-th `pwrite` from now to a path that begins with `under` writes one bit wrong, the one at `place` if
        it fits.
        """
        self._garbled, self._garbled_in = (under, place), number

    def fill(self, is_full: bool = True) -> None:
        """Until `fill(False)` nothing new fits: what makes a file, or makes one longer, fails. Crashes free nothing."""
        self.is_full = is_full

    def mend(self) -> None:
        """Let no call fail any more that has not failed yet."""
        self._faults.clear()

    def halt_at(self, number: int | None, then: Callable[[], object] = lambda: None, under: str = "") -> None:
        """
        Let the `number`-th call from now, of any name, and all behind it raise `Halted`. Follow it by `crash`.

        Only those count whose path begins with `under`. `then` is called at the first that raises.
        """
        self._halt_in, self._halt_under = number, under
        self._when_halted = then

    @property
    def has_halted(self) -> bool:
        """Whether the process has died in a call, see `halt_at`, and the crash is still to come."""
        return self._halt_in is not None and self._halt_in <= 0

    def work(self) -> None:
        """From now on every call does what it should: undoes `fail`, `halt_at` and `fill`."""
        self._forget_faults()
        self.is_full = False

    def crash(self, keep: str = "some") -> None:
        """
        The machine loses power and comes back: every handle is dead, every lock is gone.

        @param keep: of what was not synced, "none", "all" (the process was killed, the machine went on), or "some":
            any part, by 512-byte sector and by change of name.
        """
        chances = {"none": 0.0, "all": 1.0, "some": self._rng.random()}
        chance = chances[keep]
        self._lose_power(lambda: self._rng.random() < chance)

    def crashed(self, is_kept: Callable[[], bool]) -> FakeDisk:
        """A copy of this disk that has crashed. `is_kept` is asked about each thing that was not synced."""
        other = copy.deepcopy(self)
        other._lose_power(is_kept)
        return other

    def _lose_power(self, is_kept: Callable[[], bool]) -> None:
        for change in self._pending:
            if is_kept():
                self._apply(self._durable_names, change)
        self._drop_orphans()
        for path in sorted(self._durable_names):
            self._durable_names[path].crash(is_kept)
        self._names = dict(self._durable_names)
        self._pending.clear()
        for handle in self._handles:
            handle.is_open = False
        self._handles.clear()
        self._locked.clear()
        self._forget_faults()

    def _forget_faults(self) -> None:
        self._faults.clear()
        self._halt_in = self._garbled = None

    def _drop_orphans(self) -> None:
        for path in sorted(self._durable_names):
            if not self._is_directory(self._durable_names, os.path.dirname(path)):
                del self._durable_names[path]

    def copy(self) -> FakeDisk:
        """Another disk with what is in the files of this one now."""
        other = copy.deepcopy(self)
        other.crash("all")
        return other

    def open_paths(self) -> list[str]:
        """The paths, when they were opened, of the handles that nobody has closed, sorted."""
        return sorted(handle.path for handle in self._handles)

    def has_unsynced_names(self, ending: str = "") -> bool:
        """Whether a name with this ending was made, moved or removed since the last `fsync_directory` there."""
        return any(name.endswith(ending) for change in self._pending for name in change)

    def file_names(self) -> list[str]:
        """The paths of all files, sorted."""
        return sorted(path for path, node in self._names.items() if isinstance(node, File))

    def read_file(self, path: str) -> bytes:
        """What is in a file, as a process would read it."""
        return bytes(self._file(path).cached)

    def read_durable(self, path: str) -> bytes | None:
        """What is in a file, under this name, if the machine loses power now; None if there is none then."""
        node = self._durable_names.get(path)
        return bytes(node.durable) if isinstance(node, File) else None

    def last_write(self, path: str) -> tuple[int, bytes]:
        """Offset and data of what was written to a file last."""
        return self._file(path).last_write

    def write_file(self, path: str, data: bytes) -> None:
        """Replace what is in a file, durably, or make one: this is how to flip, cut or swap."""
        file = File()
        file.cached = bytearray(data)
        file.durable = bytearray(data)
        file.last_write = self._file(path).last_write if path in self._names else (0, b"")
        self._names[path] = self._durable_names[path] = file

    def remove_file(self, path: str) -> None:
        """Make a file disappear, durably."""
        del self._names[path]
        self._durable_names.pop(path, None)

    # -- IFileSystem

    def create(self, path: str) -> FakeHandle:
        self._count("create", path)
        if path in self._names:
            raise self._error("create", path, errno.EEXIST)
        self._need_room("create", path)
        self._need_directory("create", path)
        self._change({path: File()})
        return self._handle(path)

    def open(self, path: str) -> FakeHandle:
        self._count("open", path)
        if path not in self._names:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return self._handle(path)

    def lock(self, path: str) -> FakeHandle:
        self._count("lock", path)
        self._need_directory("lock", path)
        if path in self._locked:
            raise StorageError(f"{os.path.dirname(path)}: in use by another process")
        if path not in self._names:
            self._change({path: File()})
        self._locked.add(path)
        handle = self._handle(path)
        handle.is_lock = True
        return handle

    def close(self, handle: FakeHandle) -> None:
        self._need_open("close", handle)
        self._count("close", handle.path, lambda _: self._forget(handle))
        self._forget(handle)

    def _forget(self, handle: FakeHandle) -> None:
        handle.is_open = False
        self._handles.remove(handle)
        if handle.is_lock:
            self._locked.discard(handle.path)

    def size(self, handle: FakeHandle) -> int:
        self._count("fstat", handle.path)
        self._need_open("fstat", handle)
        return len(handle.file.cached)

    def pread(self, handle: FakeHandle, offset: int, length: int) -> bytes:
        self._count("pread", handle.path)
        self._need_open("pread", handle)
        return bytes(handle.file.cached[offset : offset + length])

    def pwrite(self, handle: FakeHandle, offset: int, data: bytes) -> None:
        self._need_open("pwrite", handle)
        self._count("pwrite", handle.path, lambda fault: handle.file.write(offset, data[: fault.written]))
        if offset + len(data) > len(handle.file.cached):
            self._need_room("pwrite", handle.path)
        handle.file.write(offset, self._as_garbled(handle.path, data))

    def _as_garbled(self, path: str, data: bytes) -> bytes:
        if self._garbled is None or not path.startswith(self._garbled[0]):
            return data
        self._garbled_in -= 1
        if self._garbled_in:
            return data
        place, self._garbled = self._garbled[1] % (8 * len(data)), None
        garbled = bytearray(data)
        garbled[place // 8] ^= 1 << place % 8
        return bytes(garbled)

    def fdatasync(self, handle: FakeHandle) -> None:
        self._sync("fdatasync", handle)

    def fsync(self, handle: FakeHandle) -> None:
        self._sync("fsync", handle)

    def _sync(self, call: str, handle: FakeHandle) -> None:
        self._need_open(call, handle)
        self._count(call, handle.path, lambda _: handle.file.fail_sync())
        handle.file.sync()

    def fsync_directory(self, path: str) -> None:
        self._count("fsync_directory", path)
        still_pending = []
        for change in self._pending:
            if any(os.path.dirname(name) == path for name in change):
                self._apply(self._durable_names, change)
            else:
                still_pending.append(change)
        self._pending = still_pending

    def rename(self, old_path: str, new_path: str) -> None:
        self._count("rename", new_path)
        self._change({old_path: None, new_path: self._file(old_path)})

    def unlink(self, path: str) -> None:
        self._count("unlink", path)
        if path not in self._names:
            raise self._error("unlink", path, errno.ENOENT)
        self._change({path: None})

    def mkdir(self, path: str) -> None:
        self._count("mkdir", path)
        if path in self._names:
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), path)
        if not self._is_directory(self._names, os.path.dirname(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        self._change({path: Directory()})

    def list_directory(self, path: str) -> list[str]:
        self._count("readdir", path)
        if not self._is_directory(self._names, path):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), path)
        return sorted(os.path.basename(name) for name in self._names if os.path.dirname(name) == path)

    def free_bytes(self, path: str) -> int:
        self._count("statvfs", path)
        return 0 if self.is_full else self.free

    # -- inside

    def _count(self, call: str, path: str, leave: Callable[[_Fault], None] = lambda fault: None) -> None:
        """Every call comes by here before it does anything; `leave` is what a call that fails does all the same."""
        self.calls[call] += 1
        if self._halt_in is not None and (self.has_halted or path.startswith(self._halt_under)):
            self._halt_in -= 1
            if self._halt_in == 0:
                self._when_halted()
            if self.has_halted:
                raise Halted(f"{call} of {path}")
        for fault in [fault for fault in self._faults if fault.strikes(call, path)]:
            leave(fault)
            self.failed[call] += 1
            raise self._error(call, path, fault.error)

    def _change(self, change: dict[str, Node | None]) -> None:
        self._apply(self._names, change)
        self._pending.append(change)

    @staticmethod
    def _apply(names: dict[str, Node], change: dict[str, Node | None]) -> None:
        for path, node in change.items():
            if node is None:
                names.pop(path, None)
            else:
                names[path] = node

    @staticmethod
    def _is_directory(names: dict[str, Node], path: str) -> bool:
        return path in ("", ".", "/") or isinstance(names.get(path), Directory)

    def _need_directory(self, call: str, path: str) -> None:
        if not self._is_directory(self._names, os.path.dirname(path)):
            raise self._error(call, path, errno.ENOENT)

    def _need_room(self, call: str, path: str) -> None:
        if self.is_full:
            raise self._error(call, path, errno.ENOSPC)

    def _need_open(self, call: str, handle: FakeHandle) -> None:
        if not handle.is_open:
            self.strays.append(f"{call} {handle.path}")
            raise self._error(call, handle.path, errno.EBADF)

    def _file(self, path: str) -> File:
        node = self._names[path]
        assert isinstance(node, File), path
        return node

    def _handle(self, path: str) -> FakeHandle:
        handle = FakeHandle(path, self._file(path))
        self._handles.append(handle)
        return handle

    @staticmethod
    def _error(call: str, path: str, number: int) -> StorageError:
        return StorageError(f"{path}: {call} failed: {os.strerror(number)}")
