"""
Real files below a directory, with what the tests of storage ask of a disk in memory: any call may fail, or be the last.

`Kernel` stands for the modules `os` and `fcntl` in `txraft.storage.files`, so that all of that is the production code.
"""

from __future__ import annotations

import errno
import fcntl
import os
import pathlib
from collections import Counter
from functools import partial
from typing import Any

from txraft.storage.files import FileSystem
from txraft.testing.disk import Halted

BY_PATH = ("open", "rename", "unlink", "mkdir", "chmod", "listdir", "statvfs")
BY_DESCRIPTOR = ("close", "fstat", "pread", "pwrite", "fsync", "fdatasync", "fchmod", "ftruncate", "flock")

ERRORS = ("EIO", "ENOSPC", "EDQUOT", "EINTR", "EROFS", "EMFILE", "EACCES", "ENOMEM")


class Kernel:
    """
    The system calls by which storage reaches files; `/` is the directory `root`. For `fail` and `halt_at`: `FakeDisk`.

    `descriptors` are those that are open. To close one that is not is an error of the caller, noted in `strays`.
    A sync is counted and may fail, but nothing waits for it: only a loss of power can tell, which `FakeDisk` has.
    """

    def __init__(self, root: pathlib.Path) -> None:
        self.root = str(root)
        self.calls: Counter[str] = Counter()
        self.descriptors: dict[int, str] = {}
        self.strays: list[str] = []
        self._fault: list[Any] | None = None
        self._halt_in: int | None = None

    def __getattr__(self, name: str) -> Any:
        if name in BY_PATH or name in BY_DESCRIPTOR:
            return partial(self._call, name)
        return getattr(os if hasattr(os, name) else fcntl, name)

    def fail(self, call: str, number: int = 1, error: int = errno.EIO, written: int = 0) -> None:
        """A write that fails has written so many bytes before: it is a short one, and the next fails."""
        self._fault = [call, number, error, written]

    def halt_at(self, number: int) -> None:
        self._halt_in = number

    def kill(self) -> None:
        """The process is gone, the machine goes on."""
        for descriptor in self.descriptors:
            os.close(descriptor)
        self.descriptors.clear()
        self._fault = self._halt_in = None

    def _call(self, name: str, *arguments: Any) -> Any:
        self.calls[name] += 1
        if self._halt_in is not None:
            self._halt_in -= 1
            if self._halt_in <= 0:
                raise Halted(name)
        if name == "close" and self.descriptors.pop(arguments[0], None) is None:
            self.strays.append(name)
            raise OSError(errno.EBADF, os.strerror(errno.EBADF))
        if self._fault is not None and self._fault[0] == name:
            self._fault[1] -= 1
            if self._fault[1] == 0:
                return self._fail(name, *arguments)
        if name in ("fsync", "fdatasync"):
            return None
        if name in BY_PATH:
            arguments = tuple(self.root + one if isinstance(one, str) else one for one in arguments)
        result = getattr(fcntl if name == "flock" else os, name)(*arguments)
        if name == "open":
            self.descriptors[result] = arguments[0]
        return result

    def _fail(self, name: str, *arguments: Any) -> int:
        assert self._fault is not None
        _, _, error, written = self._fault
        self._fault = None
        if name == "close":
            os.close(arguments[0])  # as Linux does, whatever it says
        if name == "pwrite" and written:
            self.fail(name, 1, error)
            descriptor, data, offset = arguments
            return os.pwrite(descriptor, data[:written], offset)
        raise OSError(error, os.strerror(error))


class RealDisk(FileSystem):
    """The files that a kernel has. Only one disk at a time: the one whose kernel stands in `txraft.storage.files`."""

    def __init__(self, kernel: Kernel) -> None:
        self._kernel = kernel
        self.calls, self.strays = kernel.calls, kernel.strays
        self.fail, self.halt_at = kernel.fail, kernel.halt_at

    def crash(self, keep: str = "all") -> None:
        """As `FakeDisk.crash("all")`: what is not synced, only that one can lose."""
        self._kernel.kill()

    def open_paths(self) -> list[str]:
        return sorted(self._kernel.descriptors.values())

    def file_names(self) -> list[str]:
        root = pathlib.Path(self._kernel.root)
        return sorted(f"/{path.relative_to(root)}" for path in root.rglob("*") if path.is_file())

    def read_file(self, path: str) -> bytes:
        return pathlib.Path(self._kernel.root + path).read_bytes()

    def write_file(self, path: str, data: bytes) -> None:
        place = pathlib.Path(self._kernel.root + path)
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(data)
