"""The data of a server that does not run: looked at without changing anything, or changed by hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import attrs

from txraft.core.log import EntryRun
from txraft.core.messages import HardState
from txraft.core.snapshot import SnapshotMeta
from txraft.errors import DamagedSnapshot, StorageError
from txraft.interfaces import Identity, Snapshot
from txraft.storage.files import IFileSystem, Syncs, directory_of
from txraft.storage.recovery import RecoveredLog, Recovery, before, find_segments, segment_path
from txraft.storage.snapshot_directory import snapshot_paths
from txraft.storage.snapshot_file import verify
from txraft.storage.state_file import StateFile
from txraft.storage.wal import WriteAheadLog

Progress = Callable[[int], None]
"""Called with a number of bytes that have been read."""


@attrs.frozen
class Paths:
    """Where a server keeps its data; absolute, or relative to where the process runs."""

    data_dir: str
    log_file: str
    core_map_file: str
    snapshot_dir: str


@attrs.frozen
class Finding:
    """What was found at one place. `problem` is empty if all is well there; else a start would meet it, too."""

    path: str
    what: str
    problem: str = ""


@attrs.frozen
class StoppedLog:
    """
    The log and the newest snapshot that is intact. `torn_bytes` is the length of a record that was never completed.

    `is_void`: it does not agree with the snapshot, so that a start would give it up. Nothing of it may be believed.
    """

    log: RecoveredLog
    snapshot: Snapshot | None
    torn_bytes: int
    is_void: bool

    @property
    def last_index(self) -> int:
        return self.log.last_index


class StoppedServer:
    """
    One data directory, locked until `close`.

    @raise StorageError: the server runs, or there is none.
    """

    def __init__(self, files: IFileSystem, paths: Paths) -> None:
        self.paths = paths
        self._files = files
        self._syncs = Syncs(files, enabled=True)
        if not self._is_there():
            raise StorageError(f"{paths.data_dir}: no server has its data here")
        self._lock: Any = files.lock(os.path.join(paths.data_dir, "lock"))

    def _is_there(self) -> bool:
        """
        Whether anything of a server is there; in other directories not even a lock is made.

        @raise StorageError: all but the log is: where that should be, nothing is mounted, perhaps.
        """
        files, paths = self._files, self.paths
        try:
            files.list_directory(paths.data_dir)
        except FileNotFoundError:
            return False
        state_file = StateFile(files, self._syncs, paths.core_map_file)
        is_there = state_file.exists() or bool(snapshot_paths(files, paths.snapshot_dir))
        try:
            return bool(self._segment_paths()) or is_there
        except FileNotFoundError as error:
            if not is_there:
                return False
            directory = directory_of(paths.log_file)
            raise StorageError(
                f"{directory}: no such directory, and the log of the server in {paths.data_dir} should be there"
            ) from error

    def close(self) -> None:
        """Let go of the lock."""
        self._files.close(self._lock)

    # -- looking

    def size(self) -> int:
        """How many bytes `verify` reads."""
        paths = [*self._segment_paths(), *snapshot_paths(self._files, self.paths.snapshot_dir)]
        return sum(map(self._size_of, paths))

    def _size_of(self, path: str) -> int:
        handle = self._files.open(path)
        try:
            size: int = self._files.size(handle)
            return size
        finally:
            self._files.close(handle)

    def _segment_paths(self) -> list[str]:
        return [segment_path(self.paths.log_file, each) for each in find_segments(self._files, self.paths.log_file)]

    def state(self) -> tuple[Identity, HardState]:
        """
        Who the server is, its term and its vote.

        @raise StorageError: nobody knows.
        """
        state = StateFile(self._files, self._syncs, self.paths.core_map_file).look()
        if state is None:
            raise StorageError(f"{self.paths.core_map_file}: missing; without it nobody knows whose log this is")
        return state

    def verify(self, progress: Progress) -> Iterator[Finding]:
        """Check every checksum of state file, snapshots and log, and that they fit together; all that is found."""
        try:
            identity, state = self.state()
        except StorageError as error:
            yield Finding(self.paths.core_map_file, "state", str(error))
            return
        vote = f"vote for {state.voted_for}" if state.voted_for else "no vote"
        of = f"server {identity.server_id} of cluster {identity.cluster_id or '(none yet)'}"
        yield Finding(self.paths.core_map_file, f"term {state.term}, {vote}, {of}")
        newest: Snapshot | None = None
        for path in snapshot_paths(self._files, self.paths.snapshot_dir):
            snapshot, finding = self._verify_snapshot(path, progress)
            newest = snapshot or newest
            yield finding
        yield self._verify_log(newest, progress)

    def _verify_snapshot(self, path: str, progress: Progress) -> tuple[Snapshot | None, Finding]:
        last = 0

        def read(done: int, size: int) -> None:
            nonlocal last
            progress(done - last)
            last = done

        try:
            snapshot = verify(self._files, path, read)
        except DamagedSnapshot as error:
            return None, Finding(path, "snapshot", str(error))
        meta = snapshot.meta
        return snapshot, Finding(
            path, f"state at entry {meta.last_index} of term {meta.last_term}, {snapshot.size} bytes"
        )

    def _verify_log(self, snapshot: Snapshot | None, progress: Progress) -> Finding:
        path = self.paths.log_file
        try:
            found = self._recover(snapshot, progress)
        except StorageError as error:
            return Finding(path, "log", str(error))
        log = found.log
        entries = f"entries {log.base_index + 1} to {log.last_index}" if log.runs else "no entries"
        what = f"{entries} in {len(log.segments)} segments"
        if found.torn_bytes:
            what += f"; {found.torn_bytes} bytes of a record that was never completed, which the next start cuts"
        if found.is_void:
            what += "; a snapshot has taken their place, and the next start gives them up"
        term = self.state()[1].term
        last_term = log.runs[-1].term if log.runs else 0
        if last_term > term:
            return Finding(
                path, what, f"{path}: an entry of term {last_term}, but {self.paths.core_map_file} says {term}"
            )
        return Finding(path, what)

    def _recover(self, snapshot: Snapshot | None, progress: Progress = lambda size: None) -> StoppedLog:
        sequences = find_segments(self._files, self.paths.log_file)
        if not sequences:
            raise StorageError(f"{segment_path(self.paths.log_file, 1)}: missing")
        meta: SnapshotMeta | None = snapshot.meta if snapshot else None
        first_index = meta.last_index + 1 if meta else 1
        log_id = self.state()[0].incarnation
        recovery = Recovery(self._files, self._syncs, self.paths.log_file, log_id, first_index, repair=False)
        log = recovery.run(sequences, progress)
        is_void = meta is not None and not log.agrees(meta.last_index, meta.last_term)
        return StoppedLog(log, snapshot, recovery.torn_bytes, is_void)

    def log(self) -> StoppedLog:
        """
        The log, and the newest snapshot that is intact.

        @raise StorageError: it is damaged; nothing was changed.
        """
        newest = None
        for path in reversed(snapshot_paths(self._files, self.paths.snapshot_dir)):
            newest, _ = self._verify_snapshot(path, lambda size: None)
            if newest is not None:
                break
        return self._recover(newest)

    # -- changing

    def append(self, runs: Sequence[EntryRun]) -> None:
        """Add `runs` behind the log. Durable when it returns."""
        self._change(lambda wal: wal.append(runs))

    def chop(self, index: int) -> None:
        """
        Remove the entry at `index` and all behind it. Durable when it returns; a crash leaves the old log or the new.

        @raise StorageError: there is no such entry, or a snapshot holds it.
        """
        self.check_chop(index)
        log = self.log().log
        kept = [before(run, index) for run in log.runs if run.first_index < index]
        self._change(lambda wal: wal.replace(log.base_index + 1, kept))

    def check_chop(self, index: int) -> int:
        """How many entries `chop` would remove. See there."""
        found = self.log()
        first_index, last_index = found.log.base_index + 1, found.last_index
        if found.snapshot and index <= found.snapshot.meta.last_index:
            raise StorageError(
                f"entry {index} is in the snapshot at {found.snapshot.meta.last_index}, and cannot be taken out of it"
            )
        if not first_index <= index <= last_index:
            raise StorageError(f"there is no entry {index}; the log has {first_index} to {last_index}")
        return last_index - index + 1

    def _change(self, change: Callable[[WriteAheadLog], None]) -> None:
        found = self.log()
        if found.is_void:
            raise StorageError(
                f"{self.paths.log_file}: a snapshot has taken its place; start and stop the server first"
            )
        size = min(segment.size for segment in found.log.segments)
        wal = WriteAheadLog(self._files, self._syncs, self.paths.log_file, size, self.state()[0].incarnation)
        try:
            wal.recover(found.log.base_index + 1)
            change(wal)
        finally:
            wal.close()
