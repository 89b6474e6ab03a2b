"""The operating system's files, of which nothing is changed."""

from __future__ import annotations

import os
from typing import NoReturn

from zope.interface import implementer

from txraft.errors import StorageError
from txraft.storage.files import FileSystem, IFileSystem, OpenFile, blaming


@implementer(IFileSystem)
class ReadOnlyFiles(FileSystem):
    """
    Everything that would change something raises `StorageError`.

    `lock` holds the lock of a server that has run there; where none has, there is nobody to keep out, and the handle is
    one on the directory.
    """

    def open(self, path: str) -> OpenFile:
        with blaming(path, "open"):
            try:
                return OpenFile(os.open(path, os.O_RDONLY | os.O_CLOEXEC), path)
            except FileNotFoundError as error:
                missing = error
        raise missing

    def lock(self, path: str) -> OpenFile:
        with blaming(path, "lock"):
            try:
                handle = self.open(path)
            except FileNotFoundError:
                handle = self.open(os.path.dirname(path))
            try:
                self._flock(handle)
            except BaseException:
                os.close(handle.descriptor)
                raise
            return handle

    def _refuse(self, *_: object) -> NoReturn:
        raise StorageError("nothing may be changed here")

    create = pwrite = fdatasync = fsync = fsync_directory = rename = unlink = mkdir = _refuse  # type: ignore[assignment]
