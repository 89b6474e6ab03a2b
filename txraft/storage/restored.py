"""
A new server's data directory, made of a snapshot that was saved elsewhere.

What is made, in this order, each durable before the next: the state file, the snapshot, the log without entries. A
server that has a state file and no log does not start: so a crash leaves a directory as it was, or one from which no
server starts, or all of it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import attrs

from txraft.core.messages import HardState
from txraft.core.snapshot import SnapshotMeta
from txraft.errors import StorageError
from txraft.interfaces import Identity, Snapshot
from txraft.storage.files import IFileSystem, Syncs, directory_of, make_directory, unlink_if_there
from txraft.storage.recovery import find_segments, segment_path
from txraft.storage.snapshot_directory import SnapshotDirectory
from txraft.storage.snapshot_file import SnapshotFileReader
from txraft.storage.state_file import StateFile
from txraft.storage.stopped import Paths
from txraft.storage.wal import WriteAheadLog

Progress = Callable[[int, int], None]
"""Called with (bytes read, size of the file)."""


@attrs.frozen
class NewServer:
    """Who the data is made for, and what its snapshot says; the state in it is the saved one."""

    identity: Identity
    meta: SnapshotMeta


class Restoration:
    """
    Makes one data directory, once.

    @param segment_bytes: length of a segment of the log.
    """

    def __init__(self, files: IFileSystem, paths: Paths, segment_bytes: int) -> None:
        self._files = files
        self._paths = paths
        self._segment_bytes = segment_bytes
        self._syncs = Syncs(files, enabled=True)
        self._state_file = StateFile(files, self._syncs, paths.core_map_file)

    def refuse_existing(self) -> None:
        """@raise StorageError: a server has its data there; says where."""
        for path in self._existing():
            raise StorageError(
                f"{path}: there already; restoring makes a new server, and changes nothing that is there. Name another "
                f"directory; if this is what a restoration that was cut short has left behind, remove it"
            )

    def _existing(self) -> Iterator[str]:
        paths = self._paths
        if self._state_file.exists():
            yield paths.core_map_file
        if self._names(directory_of(paths.log_file)):
            yield from (segment_path(paths.log_file, each) for each in find_segments(self._files, paths.log_file))
        for name in self._names(paths.snapshot_dir):
            # One that was being written is of no use to anybody.
            if not name.endswith(".tmp"):
                yield os.path.join(paths.snapshot_dir, name)

    def _names(self, path: str) -> list[str]:
        try:
            names: list[str] = self._files.list_directory(path)
        except FileNotFoundError:
            names = []
        return names

    def make(self, saved: SnapshotFileReader, server: NewServer, progress: Progress) -> Snapshot:
        """
        Make the data of `server`, with what `saved` holds. Durable when it returns; the snapshot that is there then.

        @raise DamagedSnapshot: `saved` is not whole and intact; what was made is removed.
        @raise StorageError: data is there already, or the disk fails; what was made is removed, if that can be.
        """
        self.refuse_existing()
        paths = self._paths
        state_dir, log_dir = directory_of(paths.core_map_file), directory_of(paths.log_file)
        for path in (paths.data_dir, state_dir, log_dir, paths.snapshot_dir):
            make_directory(self._files, self._syncs, path)
        lock = self._files.lock(os.path.join(paths.data_dir, "lock"))
        try:
            # Another one may have been quicker.
            self.refuse_existing()
            return self._make(saved, server, progress)
        finally:
            self._files.close(lock)

    def _make(self, saved: SnapshotFileReader, server: NewServer, progress: Progress) -> Snapshot:
        directory = SnapshotDirectory(self._files, self._syncs, self._paths.snapshot_dir, keep=1)
        try:
            self._state_file.read()  # which removes what a crash has left beside it
            self._state_file.write(server.identity, HardState(server.meta.last_term))
            snapshot = self._copy(saved, server.meta, directory, progress)
            log = WriteAheadLog(
                self._files, self._syncs, self._paths.log_file, self._segment_bytes, server.identity.incarnation
            )
            try:
                log.create(server.meta.last_index + 1)
            finally:
                log.close()
        except StorageError as error:
            self._remove(directory, server.meta, error)
            raise
        return snapshot

    def _copy(
        self, saved: SnapshotFileReader, meta: SnapshotMeta, directory: SnapshotDirectory, progress: Progress
    ) -> Snapshot:
        writer = directory.create(meta)
        try:
            for record in saved.records(progress):
                writer.write_record(record)
            writer.finish()
        finally:
            writer.close()
        return directory.commit(meta)

    def _remove(self, directory: SnapshotDirectory, meta: SnapshotMeta, error: StorageError) -> None:
        """Remove what was made, the last first, so that no server starts from what a crash leaves of it."""
        log_file = self._paths.log_file
        made = [
            segment_path(log_file, 1),
            log_file + ".next.tmp",
            directory.path_of(meta),
            directory.temporary_path(meta),
            self._state_file.path,
            self._state_file.path + ".tmp",
        ]
        try:
            for path in made:
                unlink_if_there(self._files, self._syncs, path)
        except StorageError as another:
            error.add_note(f"What was made could not be removed: {another}")
