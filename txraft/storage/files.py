"""
Every system call that storage makes, behind one interface, so that a test can make any of them fail or crash there.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import attrs
from zope.interface import Interface, implementer

from txraft.errors import StorageError


class IFileSystem(Interface):
    """
    Files by path and by handle; a handle is whatever `create`, `open` or `lock` returned.

    Every method raises `StorageError`, naming the path and the call, except where it says otherwise. Nothing is durable
    before it was synced: a file's bytes by `fdatasync` or `fsync`, its name by `fsync_directory`.
    """

    def create(path: str) -> Any:
        """A handle on a new, empty file for its owner only. It must not exist."""

    def open(path: str) -> Any:
        """
        A handle on an existing file, to read and write.

        @raise FileNotFoundError: it does not exist.
        """

    def lock(path: str) -> Any:
        """
        Make the file if need be, and hold a lock on it until the handle is closed or the process ends.

        @raise StorageError: somebody else holds it; says which process, if known.
        """

    def close(handle: Any) -> None:
        """Let go of a handle."""

    def size(handle: Any) -> int:
        """The file's length in bytes."""

    def pread(handle: Any, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer only if the file ends there."""

    def pwrite(handle: Any, offset: int, data: bytes) -> None:
        """Write all of `data` at `offset`; if that fails, any part of it may have been written."""

    def fdatasync(handle: Any) -> None:
        """Make durable what was written, and the length."""

    def fsync(handle: Any) -> None:
        """Make durable what was written and all that is known about the file, except its name."""

    def fsync_directory(path: str) -> None:
        """Make durable which names are in a directory."""

    def rename(old_path: str, new_path: str) -> None:
        """Give a file another name in one step; a file that has that name already is replaced."""

    def unlink(path: str) -> None:
        """Remove a name."""

    def mkdir(path: str) -> None:
        """
        Make a directory for its owner only.

        @raise FileExistsError: it is there already.
        @raise FileNotFoundError: the directory that it should be in is missing.
        """

    def list_directory(path: str) -> list[str]:
        """
        The names in a directory, sorted.

        @raise FileNotFoundError: it does not exist.
        """

    def free_bytes(path: str) -> int:
        """How many bytes more this process may write to files in a directory; what nobody keeps from others."""


@attrs.frozen
class OpenFile:
    """A handle of `FileSystem`."""

    descriptor: int
    path: str


@contextmanager
def blaming(path: str, call: str) -> Iterator[None]:
    """Whatever the operating system refuses in here is a `StorageError` that names the path and the call."""
    try:
        yield
    except OSError as error:
        raise StorageError(f"{path}: {call} failed: {error.strerror or error}") from error


@implementer(IFileSystem)
class FileSystem:
    """The operating system's files. Files are 0600 and directories 0700, whatever the umask says."""

    def create(self, path: str) -> OpenFile:
        with blaming(path, "create"):
            return self._make(path, os.O_EXCL)

    def _make(self, path: str, flags: int) -> OpenFile:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | flags, 0o600)
        try:
            os.fchmod(descriptor, 0o600)  # a strict umask would leave a file that we cannot open next time
        except BaseException:
            os.close(descriptor)
            raise
        return OpenFile(descriptor, path)

    def open(self, path: str) -> OpenFile:
        with blaming(path, "open"):
            try:
                return OpenFile(os.open(path, os.O_RDWR | os.O_CLOEXEC), path)
            except FileNotFoundError as error:
                missing = error
        raise missing

    def lock(self, path: str) -> OpenFile:
        with blaming(path, "lock"):
            handle = self._make(path, 0)
            try:
                self._hold(handle)
            except BaseException:
                os.close(handle.descriptor)  # and with it the lock, if it was got
                raise
            return handle

    def _hold(self, handle: OpenFile) -> None:
        self._flock(handle)
        os.ftruncate(handle.descriptor, 0)
        os.pwrite(handle.descriptor, b"%d\n" % os.getpid(), 0)

    @staticmethod
    def _flock(handle: OpenFile) -> None:
        try:
            fcntl.flock(handle.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.pread(handle.descriptor, 32, 0).decode("ascii", "replace").strip()
            raise StorageError(
                f"{os.path.dirname(handle.path)}: in use by another process{holder and ' with pid '}{holder}; "
                f"two servers must not share a data directory"
            ) from None

    def close(self, handle: OpenFile) -> None:
        with blaming(handle.path, "close"):
            os.close(handle.descriptor)

    def size(self, handle: OpenFile) -> int:
        with blaming(handle.path, "fstat"):
            return os.fstat(handle.descriptor).st_size

    def pread(self, handle: OpenFile, offset: int, length: int) -> bytes:
        pieces = []
        with blaming(handle.path, "pread"):
            while length > 0 and (piece := os.pread(handle.descriptor, length, offset)):
                pieces.append(piece)
                offset += len(piece)
                length -= len(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def pwrite(self, handle: OpenFile, offset: int, data: bytes) -> None:
        with blaming(handle.path, "pwrite"):
            written = os.pwrite(handle.descriptor, data, offset)
            while written < len(data):
                written += os.pwrite(handle.descriptor, memoryview(data)[written:], offset + written)

    def fdatasync(self, handle: OpenFile) -> None:
        with blaming(handle.path, "fdatasync"):
            os.fdatasync(handle.descriptor)

    def fsync(self, handle: OpenFile) -> None:
        with blaming(handle.path, "fsync"):
            os.fsync(handle.descriptor)

    def fsync_directory(self, path: str) -> None:
        with blaming(path, "fsync"):
            descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)

    def rename(self, old_path: str, new_path: str) -> None:
        with blaming(new_path, "rename"):
            os.rename(old_path, new_path)

    def unlink(self, path: str) -> None:
        with blaming(path, "unlink"):
            os.unlink(path)

    def mkdir(self, path: str) -> None:
        with blaming(path, "mkdir"):
            try:
                os.mkdir(path, 0o700)
                os.chmod(path, 0o700)
                return
            except (FileExistsError, FileNotFoundError) as error:
                expected = error
        raise expected

    def list_directory(self, path: str) -> list[str]:
        with blaming(path, "readdir"):
            try:
                return sorted(os.listdir(path))
            except FileNotFoundError as error:
                missing = error
        raise missing

    def free_bytes(self, path: str) -> int:
        with blaming(path, "statvfs"):
            found = os.statvfs(path)
            return found.f_bavail * found.f_frsize


class Syncs:
    """
    The syncs that storage asks for, counted; left out if not `enabled`.

    Only what asks for durability goes through here, so that turning it off cannot change anything else.
    """

    def __init__(self, files: IFileSystem, enabled: bool) -> None:
        self.files = files
        self.enabled = enabled
        self.count = 0

    def data(self, handle: Any) -> None:
        """Make a file's bytes durable."""
        if self.enabled:
            self.count += 1
            self.files.fdatasync(handle)

    def file(self, handle: Any) -> None:
        """Make a new file durable, except its name."""
        if self.enabled:
            self.count += 1
            self.files.fsync(handle)

    def directory_of(self, path: str) -> None:
        """Make durable that `path` is, or is no longer, in its directory."""
        if self.enabled:
            self.count += 1
            self.files.fsync_directory(directory_of(path))


def other_format(path: str, found: int, wanted: int) -> StorageError:
    """What to raise for an intact file that another version of txraft wrote."""
    return StorageError(
        f"{path}: format {found}, but this version of txraft reads format {wanted}; run the version that wrote it"
    )


def directory_of(path: str) -> str:
    """The directory that a path is in."""
    return os.path.dirname(path) or os.curdir


def unlink_if_there(files: IFileSystem, syncs: Syncs, path: str) -> None:
    """Remove a file that may have been left behind, for good."""
    if os.path.basename(path) in files.list_directory(directory_of(path)):
        files.unlink(path)
        syncs.directory_of(path)


def make_directory(files: IFileSystem, syncs: Syncs, path: str) -> None:
    """Make a directory, and those that it is in, for good; one that is there already is left as it is."""
    try:
        files.mkdir(path)
    except FileExistsError:
        return
    except FileNotFoundError:
        make_directory(files, syncs, directory_of(path))
        files.mkdir(path)
    syncs.directory_of(path)
