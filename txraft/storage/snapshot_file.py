"""One snapshot file, written, read and verified as a stream. All of it blocks; see `snapshot_format` for the bytes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from txraft.core.snapshot import SnapshotMeta
from txraft.errors import DamagedSnapshot, StorageError
from txraft.interfaces import Snapshot
from txraft.storage import snapshot_format as layout
from txraft.storage.files import IFileSystem, Syncs, other_format
from txraft.storage.snapshot_format import BadSnapshot, Decoder, Encoder, OtherFormat

READ_BYTES = 1 << 20
_SYNC_BYTES = 1 << 23


class SnapshotFileWriter:
    """
    A new file at `path`, chunk by chunk. After an exception only `close` may be called.

    It is synced every few MiB, so that the log, on the same disk, never waits for all of a large one.

    @param need_room: called then with the bytes that it has; raises `StorageError` if the disk has no room for more.
    """

    def __init__(
        self,
        files: IFileSystem,
        syncs: Syncs,
        path: str,
        meta: SnapshotMeta,
        need_room: Callable[[int], None] = lambda size: None,
    ) -> None:
        self._need_room = need_room
        self._files = files
        self._syncs = syncs
        self._encoder = Encoder(meta)
        self._offset = 0
        self._synced = 0
        self._handle: Any = files.create(path)
        try:
            self._write(self._encoder.header())
        except BaseException:
            self.close()
            raise

    def write_sessions(self, chunk: bytes) -> None:
        """Add a chunk of the table of sessions, before any of the machine's."""
        self._write(self._encoder.sessions(chunk))

    def write(self, chunk: bytes) -> None:
        """Add a chunk of the machine's."""
        for data in self._encoder.chunk(chunk):
            self._write(data)

    def write_record(self, record: bytes) -> None:
        """Add a record of another snapshot, as `SnapshotFileReader.records` gave it."""
        self._write(self._encoder.record(record))

    def finish(self) -> None:
        """Write the trailer, and make the content durable; the name is not."""
        self._write(self._encoder.trailer()[0])
        self._syncs.file(self._handle)

    def close(self) -> None:
        """Let go of the file."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._files.close(handle)

    def _write(self, data: bytes) -> None:
        self._files.pwrite(self._handle, self._offset, data)
        self._offset += len(data)
        if self._offset - self._synced >= _SYNC_BYTES:
            self._syncs.data(self._handle)
            self._synced = self._offset
            self._need_room(self._offset)


class SnapshotFileReader:
    """The file at `path`, by bytes or by chunks. `size` is its length."""

    def __init__(self, files: IFileSystem, path: str) -> None:
        """
        @raise FileNotFoundError: there is none.
        @raise StorageError: it cannot be read.
        """
        self._files = files
        self._path = path
        self._handle: Any = files.open(path)
        self._decoder = Decoder()
        self._offset = 0
        self._chunks: list[bytes] = []
        try:
            self.size: int = files.size(self._handle)
        except BaseException:
            self.close()
            raise

    def read(self, offset: int, length: int) -> bytes:
        """`length` bytes from `offset`; fewer only where the file ends."""
        data: bytes = self._files.pread(self._handle, offset, length)
        return data

    def next_chunk(self) -> bytes | None:
        """
        The machine's next chunk; None when all have been read, and only if the file is whole and intact.

        @raise DamagedSnapshot: it is not.
        """
        while not self._chunks and self._advance():
            pass
        return self._chunks.pop() if self._chunks else None

    def next_sessions(self) -> bytes | None:
        """The next chunk of the table of sessions that was read and nobody has taken; None if there is none."""
        return self._decoder.sessions.popleft() if self._decoder.sessions else None

    def _advance(self) -> bool:
        """Decode some more of the file, the newest chunk first; False if there was no more."""
        chunks = self._decode(self._decoder.feed)
        self._chunks = chunks[::-1] if chunks is not None else []
        return chunks is not None

    def _decode(self, decode: Callable[[bytes], list[bytes]]) -> list[bytes] | None:
        data = self.read(self._offset, READ_BYTES)
        self._offset += len(data)
        with _blaming(self._path):
            if data:
                return decode(data)
            self._decoder.finish(self.size)
            return None

    def records(self, progress: Callable[[int, int], None] = lambda done, size: None) -> Iterator[bytes]:
        """
        All records, as they are, for a copy with another header; of use only when all of them have come.

        @param progress: see `verify`.
        @raise DamagedSnapshot: it is not a whole and intact snapshot.
        """
        while (records := self._decode(self._decoder.records)) is not None:
            yield from records
            self._decoder.sessions.clear()  # nobody else does, and they need not be held
            progress(self._offset, self.size)

    def verify(self, progress: Callable[[int, int], None] = lambda done, size: None) -> Snapshot:
        """
        What is in the file, all of which is read.

        @param progress: called with (bytes read, size), now and then.
        @raise DamagedSnapshot: it is not a whole and intact snapshot; says what is wrong.
        """
        while self._advance():
            self._decoder.sessions.clear()  # nobody else does, and they need not be held
            progress(self._offset, self.size)
        meta, trailer = self._decoder.meta, self._decoder.trailer
        assert meta is not None, "a trailer without a header"
        assert trailer is not None, "an end without a trailer"
        return Snapshot(meta, self.size, trailer.digest)

    def outline(self) -> Snapshot:
        """
        What the file says it is: its beginning and its end are read, and what is between them is believed.

        @raise DamagedSnapshot: they are damaged.
        """
        start = self.read(0, layout.OUTLINE_BYTES)
        stop = self.read(max(0, self.size - layout.TRAILER_FRAME_BYTES), layout.TRAILER_FRAME_BYTES)
        with _blaming(self._path):
            return Snapshot(*layout.outline(start, stop, self.size))

    def close(self) -> None:
        """Let go of the file."""
        handle, self._handle = self._handle, None
        if handle is not None:
            self._files.close(handle)


@contextmanager
def _blaming(path: str) -> Iterator[None]:
    try:
        yield
    except BadSnapshot as error:
        raise damaged(path, error) from None
    except OtherFormat as error:
        raise DamagedSnapshot(str(other_format(path, error.args[0], layout.FORMAT_VERSION))) from None


def damaged(path: str, problem: object) -> DamagedSnapshot:
    """What to raise for a file that is not a whole and intact snapshot."""
    return DamagedSnapshot(f"{path}: damaged: {problem}")


def verify(files: IFileSystem, path: str, progress: Callable[[int, int], None] = lambda done, size: None) -> Snapshot:
    """
    See `SnapshotFileReader.verify`.

    @raise StorageError: also if there is no such file.
    """
    try:
        reader = SnapshotFileReader(files, path)
    except FileNotFoundError:
        raise StorageError(f"{path}: there is no such file") from None
    try:
        return reader.verify(progress)
    finally:
        reader.close()
