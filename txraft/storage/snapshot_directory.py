"""
The directory that holds a server's snapshots: names, what is kept, what counts. All of it blocks.

    <index>-<term>.snapshot              complete and verified when it got this name; both numbers have 20 digits
    <index>-<term>.tmp                   being written; of no use after a restart
    <index>-<term>-<size>-<digest>.part  being received; goes on after a restart
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from twisted.logger import Logger

from txraft.core.snapshot import SnapshotMeta
from txraft.errors import DamagedSnapshot, ProtocolError, StorageError
from txraft.interfaces import Snapshot
from txraft.storage.files import IFileSystem, Syncs, unlink_if_there
from txraft.storage.snapshot_file import SnapshotFileReader, SnapshotFileWriter, damaged, verify

_log = Logger()

_NAME = re.compile(r"(\d{20})-(\d{20})\.snapshot")
_PARTIAL_SYNC_BYTES = 1 << 23


def _prefix(meta: SnapshotMeta) -> str:
    return f"{meta.last_index:020d}-{meta.last_term:020d}"


def snapshot_paths(files: IFileSystem, directory: str) -> list[str]:
    """Where the snapshots in `directory` are, oldest first, whole or not; none if it does not exist."""
    try:
        names: Sequence[str] = files.list_directory(directory)
    except FileNotFoundError:
        return []
    return [os.path.join(directory, name) for name in sorted(filter(_NAME.fullmatch, names))]


class SnapshotDirectory:
    """
    The snapshots in `path`, of which the newest `keep` are kept. First `open`.

    `kept` is newest first. `problem` says what was wrong with a newer one that `open` or `check` had to leave aside; it
    is empty if nothing was.
    """

    def __init__(self, files: IFileSystem, syncs: Syncs, path: str, keep: int) -> None:
        self._files = files
        self._syncs = syncs
        self._keep = keep
        self.path = path
        self.kept: tuple[Snapshot, ...] = ()
        self.problem = ""
        self._distrusted: set[str] = set()
        """What is being received and of which a sync has failed; names."""

    def open(self) -> Snapshot | None:
        """
        Find what is there; the newest snapshot that is whole and intact, which is verified; None if there is none.

        A damaged one is left aside, and the log says so; it is removed when there is another. What a crash while one
        was written left behind is removed.

        @raise StorageError: the directory cannot be used.
        """
        names: Sequence[str] = self._files.list_directory(self.path)
        found: list[Snapshot] = []
        for name in sorted(filter(_NAME.fullmatch, names), reverse=True):
            try:
                found.append(self._examine(name, whole=not found))
            except DamagedSnapshot as error:
                self.problem = self.problem or str(error)
                _log.error("{error}. The snapshot before it is used, if there is one", error=error)
        self.kept = tuple(found)
        newest = found[0] if found else None
        for name in names:
            if name.endswith(".tmp") or (name.endswith(".part") and newest and name <= _prefix(newest.meta) + "-~"):
                self._files.unlink(self._join(name))
        return newest

    def _examine(self, name: str, whole: bool) -> Snapshot:
        path = self._join(name)
        reader = SnapshotFileReader(self._files, path)
        try:
            snapshot = reader.verify() if whole else reader.outline()
        finally:
            reader.close()
        if self.path_of(snapshot.meta) != path:
            raise damaged(path, f"it holds the state at entry {snapshot.meta.last_index}, not what its name says")
        return snapshot

    def _join(self, name: str) -> str:
        return os.path.join(self.path, name)

    def path_of(self, meta: SnapshotMeta) -> str:
        """Where the snapshot with this meta is."""
        return self._join(_prefix(meta) + ".snapshot")

    def check(self, snapshot: Snapshot) -> bool:
        """Whether one that is kept is still what it was. If not, it is kept no longer; the next one replaces it."""
        path = self.path_of(snapshot.meta)
        try:
            if snapshot not in self.kept or verify(self._files, path) == snapshot:
                return True
            self.problem = str(damaged(path, "it is another snapshot than it was"))
        except DamagedSnapshot as error:
            self.problem = str(error)
        _log.error("{problem}. A new one is needed", problem=self.problem)
        self.kept = tuple(each for each in self.kept if each != snapshot)
        return False

    # -- one of our own

    def temporary_path(self, meta: SnapshotMeta) -> str:
        """Where the snapshot is written before `commit`."""
        return self._join(_prefix(meta) + ".tmp")

    def create(self, meta: SnapshotMeta) -> SnapshotFileWriter:
        """
        Begin to write one; what failures have left behind goes, also what could not be removed then.

        @raise StorageError: also if there is no room for one that is a quarter larger than the newest.
        """
        path = self.temporary_path(meta)
        for name in self._files.list_directory(self.path):
            if name.endswith(".tmp"):
                self._files.unlink(self._join(name))
        if self.kept:
            self._need_room("the snapshot", self.kept[0].size * 5 // 4)
        return SnapshotFileWriter(self._files, self._syncs, path, meta, self._leave_room)

    def _leave_room(self, written: int) -> None:
        """The state may have grown more than anybody could know, and the log goes on meanwhile."""
        free = self._files.free_bytes(self.path)
        if free < written // 4:
            raise StorageError(f"{self.path}: a snapshot of more than {written} bytes would leave {free} for the log")

    def _need_room(self, what: str, size: int) -> None:
        """Better no snapshot than a full disk: the log, which may be on the same one, could not go on."""
        free = self._files.free_bytes(self.path)
        if free < size:
            raise StorageError(f"{self.path}: {what} would take about {size} bytes, and {free} are free")

    def commit(self, meta: SnapshotMeta) -> Snapshot:
        """
        Let the file at `temporary_path` count, which somebody has written and synced: it is read back first.

        @raise DamagedSnapshot: it is not a whole and intact snapshot with this meta; nothing has changed.
        """
        path = self.temporary_path(meta)
        snapshot = verify(self._files, path)
        if snapshot.meta != meta:
            raise damaged(path, f"it says {snapshot.meta}, not {meta}")
        self._let_count(path, snapshot)
        return snapshot

    def discard(self, meta: SnapshotMeta) -> None:
        """Remove what was written at `temporary_path`."""
        unlink_if_there(self._files, self._syncs, self.temporary_path(meta))

    def _let_count(self, path: str, snapshot: Snapshot) -> None:
        self._files.rename(path, self.path_of(snapshot.meta))
        self._syncs.directory_of(path)
        others = (each for each in self.kept if self.path_of(each.meta) != self.path_of(snapshot.meta))
        newest_first = sorted([snapshot, *others], key=lambda each: each.meta.last_index, reverse=True)
        self.kept = tuple(newest_first[: self._keep])
        self.problem = ""
        self._remove_others()

    def _remove_others(self) -> None:
        """Remove what is not kept, damaged ones with it. That it fails costs room, and no more."""
        wanted = {self.path_of(each.meta) for each in self.kept}
        try:
            for name in self._files.list_directory(self.path):
                if _NAME.fullmatch(name) and self._join(name) not in wanted:
                    self._files.unlink(self._join(name))
        except StorageError as error:
            _log.warn("an old snapshot stays: {error}", error=error)

    # -- from another server

    def receive(self, offer: Snapshot) -> PartialSnapshot:
        """
        The place for a snapshot that is offered, with what has come of it. Whatever has come of others is removed.

        @raise ProtocolError: one as new is here.
        @raise StorageError: also if there is no room for the rest of it.
        """
        if self.kept and self.kept[0].meta.last_index >= offer.meta.last_index:
            raise ProtocolError(
                f"a snapshot at entry {offer.meta.last_index} is offered, and one at {self.kept[0].meta.last_index} "
                f"is here"
            )
        name = f"{_prefix(offer.meta)}-{offer.size}-{offer.digest.hex()}.part"
        for other in self._files.list_directory(self.path):
            if other.endswith(".part") and (other != name or other in self._distrusted):
                self._files.unlink(self._join(other))
        self._distrusted.clear()
        partial = PartialSnapshot(
            self._files, self._syncs, self._join(name), offer, self._let_count, lambda: self._distrusted.add(name)
        )
        try:
            self._need_room("the rest of the snapshot that is offered", offer.size - partial.offset)
        except StorageError:
            partial.close()
            raise
        return partial


class PartialSnapshot:
    """
    The file at `path`, which is becoming what `offer` says. `offset` bytes of it are here.

    After a `StorageError` only `close` may be called: what is there then, a new one of this finds out.
    """

    def __init__(
        self,
        files: IFileSystem,
        syncs: Syncs,
        path: str,
        offer: Snapshot,
        let_count: Callable[[str, Snapshot], None],
        distrust: Callable[[], None],
    ) -> None:
        self._files = files
        self._syncs = syncs
        self._path = path
        self._offer = offer
        self._let_count = let_count
        self._distrust = distrust
        try:
            self._handle: Any = files.open(path)
        except FileNotFoundError:
            self._handle = files.create(path)
        try:
            self.offset: int = files.size(self._handle)
        except BaseException:
            self.close()
            raise
        if self.offset > offer.size:
            self._give_up()
            self._handle, self.offset = files.create(path), 0
        self._synced = self.offset

    def append(self, data: bytes) -> None:
        """Add bytes behind what is here."""
        self._files.pwrite(self._handle, self.offset, data)
        self.offset += len(data)
        if self.offset - self._synced >= _PARTIAL_SYNC_BYTES:
            self._sync(self._syncs.data)
            self._synced = self.offset

    def commit(self) -> Snapshot:
        """
        Let it count, if it is what was offered.

        @raise ProtocolError: it is not, and is removed.
        """
        self._sync(self._syncs.file)
        self.close()
        try:
            found = verify(self._files, self._path)
            problem = "" if found == self._offer else f"what came is {found}"
        except DamagedSnapshot as error:
            problem = str(error)
        if problem:
            self._files.unlink(self._path)
            raise ProtocolError(f"not the snapshot that was offered, {self._offer}: {problem}")
        self._let_count(self._path, self._offer)
        return self._offer

    def _sync(self, sync: Callable[[Any], None]) -> None:
        try:
            sync(self._handle)
        except StorageError:
            # The system may have dropped what it could not write: the next sync would succeed, and prove nothing.
            self._distrust()
            with suppress(StorageError):
                self._give_up()
            raise

    def _give_up(self) -> None:
        self.close()
        self._files.unlink(self._path)

    def close(self) -> None:
        """Let go of the file; it stays."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._files.close(handle)
