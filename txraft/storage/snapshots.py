"""`ISnapshotStore` on a directory, and on a thread that may take its time: the log has another one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from typing import Any

from twisted.internet.defer import Deferred
from zope.interface import implementer

from txraft.core.snapshot import SnapshotMeta
from txraft.errors import ProtocolError, StorageError
from txraft.interfaces import IPartialSnapshot, ISnapshotReader, ISnapshotStore, ISnapshotWriter, Snapshot
from txraft.storage.files import IFileSystem, Syncs
from txraft.storage.snapshot_directory import PartialSnapshot, SnapshotDirectory
from txraft.storage.snapshot_file import SnapshotFileReader, SnapshotFileWriter
from txraft.storage.writer import IWriter


@implementer(ISnapshotStore)
class SnapshotStore:
    """
    See `ISnapshotStore`. `recover` blocks; after it, the disk is touched on the writer only.

    @param path: the directory.
    @param keep: how many snapshots are kept, at least 1.
    @param fsync: see `LogStore`.
    @param writer: of its own, so that no write of the log waits for a snapshot's.
    """

    def __init__(self, files: IFileSystem, path: str, keep: int, fsync: bool, writer: IWriter) -> None:
        self.path = path
        self._files = files
        self._directory = SnapshotDirectory(files, Syncs(files, fsync), path, keep)
        self._writer = writer

    @property
    def problem(self) -> str:
        """See `ISnapshotStore`."""
        return self._directory.problem

    def recover(self) -> Snapshot | None:
        """Open the directory. Blocks. See `SnapshotDirectory.open`."""
        return self._directory.open()

    def kept(self) -> Sequence[Snapshot]:
        """See `ISnapshotStore`."""
        return self._directory.kept

    def begin(self, meta: SnapshotMeta) -> ISnapshotWriter:
        """See `ISnapshotStore`."""
        return SnapshotWriter(self._directory, self._writer, meta)

    def open(self, snapshot: Snapshot) -> Deferred[ISnapshotReader]:
        """See `ISnapshotStore`."""
        return self._writer.run(self._open, snapshot)

    def _open(self, snapshot: Snapshot) -> SnapshotReader:
        path = self._directory.path_of(snapshot.meta)
        try:
            return SnapshotReader(SnapshotFileReader(self._files, path), self._writer)
        except FileNotFoundError:
            raise StorageError(f"{path}: no longer kept") from None

    def check(self, snapshot: Snapshot) -> Deferred[bool]:
        """See `ISnapshotStore`."""
        return self._writer.run(self._directory.check, snapshot)

    def receive(self, offer: Snapshot) -> Deferred[IPartialSnapshot]:
        """See `ISnapshotStore`."""
        return self._writer.run(lambda: Partial(self._directory.receive(offer), offer, self._writer))

    def close(self) -> Deferred[None]:
        """Finish what is under way. Never fails."""
        return self._writer.stop()


@implementer(ISnapshotWriter)
class SnapshotWriter:
    """See `ISnapshotWriter`."""

    def __init__(self, directory: SnapshotDirectory, writer: IWriter, meta: SnapshotMeta) -> None:
        self._directory = directory
        self._writer = writer
        self._meta = meta
        self._file: SnapshotFileWriter | None = None
        self._failure: Exception | None = None

    def write_sessions(self, chunk: bytes) -> Deferred[None]:
        """See `ISnapshotWriter`."""
        return self._writer.run(self._attempt, lambda: self._opened().write_sessions(chunk))

    def write(self, chunk: bytes) -> Deferred[None]:
        """See `ISnapshotWriter`."""
        return self._writer.run(self._attempt, lambda: self._opened().write(chunk))

    def write_here(self, sessions: Iterable[bytes], chunks: Iterable[bytes], alive: Callable[[], None]) -> None:
        """See `ISnapshotWriter`."""
        with closing(self._opened()) as file:
            for chunk in sessions:
                alive()
                file.write_sessions(chunk)
            for chunk in chunks:
                alive()
                file.write(chunk)
            file.finish()

    def commit(self) -> Deferred[Snapshot]:
        """See `ISnapshotWriter`."""
        return self._writer.run(self._attempt, self._commit)

    def adopt(self) -> Deferred[Snapshot]:
        """See `ISnapshotWriter`."""
        return self._writer.run(self._attempt, lambda: self._directory.commit(self._meta))

    def abort(self) -> Deferred[None]:
        """See `ISnapshotWriter`."""
        return self._writer.run(self._discard)

    # -- on the writer

    def _opened(self) -> SnapshotFileWriter:
        if self._file is None:
            self._file = self._directory.create(self._meta)
        return self._file

    def _attempt(self, job: Callable[[], Any]) -> Any:
        """Do it, unless something of this snapshot has failed; then nothing of it is left."""
        if self._failure is not None:
            raise self._failure
        try:
            return job()
        except Exception as error:
            self._failure = error
            self._discard()
            raise

    def _commit(self) -> Snapshot:
        file = self._opened()
        file.finish()
        file.close()
        return self._directory.commit(self._meta)

    def _discard(self) -> None:
        self._failure = self._failure or StorageError(f"{self._directory.path}: this snapshot was given up")
        try:
            if self._file is not None:
                self._file.close()
            self._directory.discard(self._meta)
        except StorageError:
            # It takes room until the next one is begun, and cannot be taken for a snapshot.
            return


@implementer(ISnapshotReader)
class SnapshotReader:
    """See `ISnapshotReader`."""

    def __init__(self, reader: SnapshotFileReader, writer: IWriter) -> None:
        self._reader = reader
        self._writer = writer

    def next_chunk(self) -> Deferred[bytes | None]:
        """See `ISnapshotReader`."""
        return self._writer.run(self._reader.next_chunk)

    def next_sessions(self) -> Deferred[bytes] | None:
        """See `ISnapshotReader`."""
        chunk = self._reader.next_sessions()
        return self._writer.run(lambda: chunk) if chunk is not None else None

    def read(self, offset: int, length: int) -> Deferred[bytes]:
        """See `ISnapshotReader`."""
        return self._writer.run(self._reader.read, offset, length)

    def close(self) -> Deferred[None]:
        """See `ISnapshotReader`."""
        return self._writer.run(_closed, self._reader)


@implementer(IPartialSnapshot)
class Partial:
    """See `IPartialSnapshot`. `offset` counts what was handed to `append`, written or not."""

    def __init__(self, partial: PartialSnapshot, offer: Snapshot, writer: IWriter) -> None:
        self._partial = partial
        self._offer = offer
        self._writer = writer
        self._failure: Exception | None = None
        self.offset = partial.offset

    def append(self, offset: int, data: bytes) -> Deferred[int]:
        """See `IPartialSnapshot`."""
        stop = offset + len(data)
        if offset != self.offset or not data or stop > self._offer.size:
            raise ProtocolError(
                f"bytes [{offset}, {stop}) of a snapshot of {self._offer.size}, of which {self.offset} are here"
            )
        self.offset = stop
        return self._writer.run(self._attempt, lambda: self._append(data, stop))

    def _append(self, data: bytes, stop: int) -> int:
        self._partial.append(data)
        return stop

    def commit(self) -> Deferred[Snapshot]:
        """See `IPartialSnapshot`."""
        return self._writer.run(self._attempt, self._partial.commit)

    def close(self) -> Deferred[None]:
        """See `IPartialSnapshot`."""
        return self._writer.run(_closed, self._partial)

    def _attempt(self, job: Callable[[], Any]) -> Any:
        """Do it, unless something of this has failed: what is in the file then, nobody knows before it is opened."""
        if self._failure is not None:
            raise self._failure
        try:
            return job()
        except Exception as error:
            self._failure = error
            raise


def _closed(file: SnapshotFileReader | PartialSnapshot) -> None:
    try:
        file.close()
    except StorageError:
        # Nothing depends on it: what counts was synced.
        return
