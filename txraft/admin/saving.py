"""`raftctl snapshot` and `raftctl backup`: the state of a running cluster, on a server's disk or in a file."""

from __future__ import annotations

import argparse
import os
from typing import Any

from txraft.admin import operating, tables
from txraft.admin.client import AdminClient
from txraft.admin.operating import Screen, server_id
from txraft.admin.problems import NotSaved
from txraft.admin.progress import ProgressBar
from txraft.errors import StorageError
from txraft.interfaces import Snapshot
from txraft.storage.files import FileSystem, IFileSystem, Syncs, unlink_if_there
from txraft.storage.snapshot_file import verify


def _add_server(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "member", type=server_id, nargs="?", metavar="SERVER", help="which one, host[:rpc-port] (default: the leader)"
    )


def add_arguments_of_snapshot(parser: argparse.ArgumentParser) -> None:
    """The options of `raftctl snapshot`."""
    _add_server(parser)
    operating.add_arguments(parser)


def add_arguments_of_backup(parser: argparse.ArgumentParser) -> None:
    """The options of `raftctl backup`."""
    parser.description = (
        "Lets a server take a snapshot, which holds everything that was acknowledged before, and saves it as FILE, "
        "verified. `raftctl restore` makes a new cluster of it."
    )
    parser.add_argument("file", metavar="FILE", help="where to; it must not be there")
    _add_server(parser)
    parser.add_argument("--force", action="store_true", help="replace FILE if it is there, once all has come")
    operating.add_arguments(parser)


def snapshot(options: argparse.Namespace) -> int:
    """Let a server take a snapshot, and wait until it is on its disk."""
    return operating.run(options, lambda client, screen: take_snapshot(client, screen, options.member))


async def take_snapshot(client: AdminClient, screen: Screen, member: str | None) -> int:
    """The same with a client; the leader takes it if no member is named."""
    answer = await client.snapshot(member)
    screen.answer(answer, tables.snapshot(answer))
    return 0


def backup(options: argparse.Namespace) -> int:
    """Save a snapshot that a server takes for it."""
    return operating.run(
        options,
        lambda client, screen: save(client, screen, options.file, options.member, options.force, FileSystem()),
    )


async def save(
    client: AdminClient, screen: Screen, path: str, member: str | None, is_forced: bool, files: IFileSystem
) -> int:
    """
    The same with a client. What is at `path` afterwards is whole, verified and durable, or as it was before.

    @raise NotSaved: it cannot be put there, or what has come is damaged.
    """
    try:
        file = BackupFile(screen, path, is_forced, files)
        try:
            await client.backup(file, member)
            saved = file.commit()
        finally:
            file.close()
    except StorageError as error:
        raise NotSaved(str(error)) from error
    meta = saved.meta
    answer = {
        "file": path,
        "bytes": saved.size,
        "last_index": meta.last_index,
        "last_term": meta.last_term,
        "cluster_id": meta.cluster_id,
        "digest": saved.digest.hex(),
    }
    what = f"everything up to entry {meta.last_index:,} of cluster {meta.cluster_id}"
    screen.answer(answer, [tables.printable(f"{path} has {what}: {tables.size(saved.size)}, verified.")])
    return 0


class BackupFile:
    """
    A file that is coming, beside the place where it is to be in the end. Close it in any case.

    @raise NotSaved: something is at that place, and is not to be replaced.
    @raise StorageError: there is no room for it.
    """

    def __init__(self, screen: Screen, path: str, is_forced: bool, files: IFileSystem) -> None:
        self.received = 0
        self.size: int | None = None
        self._screen = screen
        self._path = path
        self._temporary_path = path + ".tmp"
        self._is_forced = is_forced
        self._files = files
        self._syncs = Syncs(files, enabled=True)
        self._bar: ProgressBar | None = None
        self._check_place()
        unlink_if_there(files, self._syncs, self._temporary_path)
        self._handle: Any = files.create(self._temporary_path)

    def _check_place(self) -> None:
        directory, name = os.path.split(self._path)
        try:
            names = self._files.list_directory(directory or os.curdir)
        except FileNotFoundError:
            raise NotSaved(f"{self._path}: there is no such directory") from None
        if name in names and not self._is_forced:
            raise NotSaved(f"{self._path}: there already; --force replaces it")

    def begin(self, size: int) -> None:
        """See `Saving`."""
        self.received, self.size = 0, size
        self._bar = self._screen.bar(size)

    def write(self, data: bytes) -> None:
        """See `Saving`."""
        self._files.pwrite(self._handle, self.received, data)
        self.received += len(data)
        if self._bar is not None:
            self._bar.add(len(data))

    def commit(self) -> Snapshot:
        """
        Verify it, and put it there for good; what it is.

        @raise DamagedSnapshot: it is not a whole and intact snapshot.
        @raise StorageError: it may not be durable.
        """
        self._syncs.file(self._handle)
        saved = verify(self._files, self._temporary_path)
        self._check_place()
        self._files.rename(self._temporary_path, self._path)
        self._syncs.directory_of(self._path)
        return saved

    def close(self) -> None:
        """Let go of it; what has not been committed is removed."""
        handle, self._handle = self._handle, None
        if self._bar is not None:
            self._bar.clear()
        if handle is not None:
            self._files.close(handle)
            unlink_if_there(self._files, self._syncs, self._temporary_path)
